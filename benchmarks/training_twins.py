"""What a training step is compared with: the reference's model, and a LAMB of torch's multi-tensor functions."""

from __future__ import annotations

import torch
import transformers

import nezha_np as nz


def reference_model(weights: nz.Weights) -> torch.nn.Module:
    """Make the reference's masked language model with our weights."""
    config = transformers.NezhaConfig(**weights.config.to_dict())
    model = transformers.NezhaForMaskedLM(config)
    state = {f"nezha.{name}": torch.tensor(array) for name, array in weights.items()}
    state |= {name: torch.tensor(array) for name, array in weights.items() if name.startswith("cls.")}
    model.load_state_dict({name: array for name, array in state.items() if name in model.state_dict()}, strict=False)
    return model


def decayed(name: str) -> bool:
    """Say whether a tensor is decayed: all but norms and biases."""
    return "LayerNorm" not in name and not name.endswith("bias")


def adamw_of_torch(model: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    """Make torch's fused AdamW, with the same decay as ours."""
    named = list(model.named_parameters())
    groups = [
        {"params": [parameter for name, parameter in named if decayed(name) == decays], "weight_decay": decay}
        for decays, decay in ((True, 0.01), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True)


class TorchLamb:
    """LAMB (You et al. 2020, algorithm 2), written as torch's own optimisers are: each operation on all tensors."""

    def __init__(self, model: torch.nn.Module, rate: float, *, decay: float = 0.01, eps: float = 1e-6) -> None:
        named = list(model.named_parameters())
        self.parameters = [parameter for _, parameter in named]
        self.decays = [index for index, (name, _) in enumerate(named) if decayed(name)]
        self.rate, self.decay, self.eps, self.steps = rate, decay, eps, 0
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        used = [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]
        x = [self.parameters[index] for index in used]
        gradients = [parameter.grad for parameter in x]
        first, second = [self.first[index] for index in used], [self.second[index] for index in used]
        self.steps += 1
        torch._foreach_mul_(first, 0.9)
        torch._foreach_add_(first, gradients, alpha=0.1)
        torch._foreach_mul_(second, 0.999)
        torch._foreach_addcmul_(second, gradients, gradients, 0.001)
        update = torch._foreach_div(first, 1.0 - 0.9**self.steps)
        root = torch._foreach_div(second, 1.0 - 0.999**self.steps)
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, self.eps)
        torch._foreach_div_(update, root)
        decays = [place for place, index in enumerate(used) if index in set(self.decays)]
        torch._foreach_add_([update[place] for place in decays], [x[place] for place in decays], alpha=self.decay)
        ratios = [
            length / step_length if length > 0 and step_length > 0 else torch.ones_like(length)
            for length, step_length in zip(torch._foreach_norm(x), torch._foreach_norm(update), strict=True)
        ]
        torch._foreach_mul_(update, ratios)
        torch._foreach_add_(x, update, alpha=-self.rate)
