"""The PyTorch reference (transformers 4.37.2), made ready to be compared with.

NEZHA's position tables are overwritten with the float64 table, every parameter is filled with numbers that matter, and
the weights are handed over under our names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from cases import each_array

import nezha_np as nz
from nezha_np.families.family import every_prefix, family_of
from nezha_np.layers.dropout import dropout_mask
from nezha_np.layers.relative_position import relative_position_table

torch.set_num_threads(1)  # the models are small: a second thread costs more than it brings
torch.backends.mkldnn.set_flags(False)  # it compiles code for each new shape, which takes longer than the models
transformers.logging.set_verbosity_error()  # it warns of every decoder
transformers.activations.ACT2FN["selu"] = torch.nn.SELU  # which its documents name, and its table does not have


def reference_model(
    head: str, config: Any, seed: int, dtype: torch.dtype = torch.float64, *, pooler: bool = True
) -> torch.nn.Module:
    """Make a fresh reference model with every parameter filled, in evaluation mode; `forward` has a pooler or none."""
    kind = getattr(transformers, type(config).__name__)
    # NEZHA's causal head is its masked one as a decoder, whose loss is shifted by `run_reference`.
    options = {} if pooler else {"add_pooling_layer": False}
    model = getattr(transformers, family_of(config).tasks[head].reference)(kind(**config.to_dict()), **options).eval()
    generator = np.random.default_rng(seed)
    for parameter in model.parameters():
        values = 0.4 * generator.normal(size=parameter.shape)
        parameter.data = torch.tensor(values + (parameter.data.numpy() == 1.0), dtype=dtype)  # norms around 1
    take_our_table(model, config, dtype)
    return model


def take_our_table(model: torch.nn.Module, config: Any, dtype: torch.dtype = torch.float64) -> None:
    """Overwrite NEZHA's position tables, which the reference computes in float32."""
    for name, module in model.named_modules():
        if name.endswith("relative_positions_encoding"):
            table = relative_position_table(
                np.zeros(1), head_size=config.head_size, max_relative_position=config.max_relative_position
            )
            position = np.arange(config.max_position_embeddings)
            reach = config.max_relative_position
            distance = np.clip(position[None, :] - position[:, None], -reach, reach) + reach
            module.positions_encoding = torch.tensor(table[distance], dtype=dtype)


def our_weights(model: torch.nn.Module, config: Any) -> nz.Weights:
    """Hand the reference's parameters over under our names."""
    names = {our_name(name): value.detach().numpy() for name, value in model.named_parameters()}
    return nz.Weights(names, config)


def our_name(name: str) -> str:
    for prefix in every_prefix():
        name = name.removeprefix(f"{prefix}.")
    return name.replace("predictions.decoder.bias", "predictions.bias")


def drop_as_we_do(model: torch.nn.Module, seed: int, step: int) -> None:
    """Make the reference's dropout layers take our masks, which go by the names of its modules."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.forward = our_dropout(our_name(name), module.p, seed, step)


def our_dropout(name: str, rate: float, seed: int, step: int) -> Any:
    calls = 0  # ConvBERT's classification head goes through one dropout layer twice: its second mask is another

    def forward(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        key = (seed, step, name if calls == 1 else f"{name}_{calls}")
        return x * torch.tensor(dropout_mask(x.detach().numpy(), rate=rate, key=key))

    return forward


def run_reference(model: torch.nn.Module, head: str, inputs: dict[str, Any]) -> Any:
    """Run the reference on NumPy inputs; NEZHA's causal loss is BertLMHeadModel's, the next token's cross-entropy."""
    lists = {name: np.array(value) if isinstance(value, list) else value for name, value in inputs.items()}
    tensors = each_array(torch.tensor, lists)
    shifted = head == "causal_lm" and isinstance(model, transformers.NezhaForMaskedLM)
    labels = tensors.pop("labels", None) if shifted else None
    out = model(**tensors)
    if labels is not None:
        logits = out.logits[:, :-1].reshape(-1, out.logits.shape[-1])
        out["loss"] = torch.nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1))
    return out
