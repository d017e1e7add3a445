"""Recording a PyTorch model: what each of its modules returns, under the names of our traces.

PyTorch is imported here alone, and only when a model is recorded.
"""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import kind_of
from nezha_np.oracle.alignment import Rename, check_names, renamed, without_prefix
from nezha_np.oracle.nesting import flattened, named

# What modules are given, by the ends of their names and of its own.
GIVEN = {
    ".output.LayerNorm": ".output.residual",
    ".attention.output.dense": ".attention.self.merged",
    ".attention.self.dropout": ".attention.self.probs",
    "pooler.dense": "pooler.first_token",
    "pooler.activation": "pooler.dense",
}


def capture_torch(
    module: Any,
    *inputs: Any,
    gradients: bool = False,
    given: bool = False,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    **kwargs: Any,
) -> dict[str, np.ndarray]:
    """Run a PyTorch model once, and record what each of its modules returns.

    It runs in evaluation mode. Modes, gradients and hooks of the model are afterwards as they were.

    Parameters
    ----------
    module : torch.nn.Module
        The model, on any device and in any dtype.
    *inputs, **kwargs
        What the model takes. NumPy arrays become tensors on its device, those of floats in its dtype: a bundle's inputs
        fit as they are.
    gradients : bool
        Whether to walk back from the loss, which the model returns as ``loss`` or first, and record gradients too.
    given : bool
        Whether to record what modules are given, too, where our traces have a name for it: a LayerNorm is given the sum
        of the residual connection, a linear layer after the attention the heads side by side.
    rename : mapping of str to str, optional
        Our names for its modules, as for `nezha_np.oracle.compare`; parameters follow their modules.
    names : str, optional
        A table of renames that ships with the package, as for `nezha_np.oracle.compare`.

    Returns
    -------
    dict of str to array
        For each module the first tensor that it returns, or the last of a list, in which older code gives the results
        of all its layers, in the order of the calls, by its path in the model without
        ``nezha.``, ``bert.`` or ``convbert.``; a second call's is ``name_2``. What the model itself returns is
        ``outputs/logits``, ``outputs/hidden_states.0``, …, by number where it has no names. Gradients by parameters and
        by what the modules return are ``gradients/…``, that of a tied parameter once, under the embedding's name; what
        the model goes on to write into may have none.
        A module's axes are its own: the convolutions of transformers' ConvBERT return (B, C, L) where our traces have
        (B, L, C), for which `compare` and `diagnose` need ``transposed=True``.
        bfloat16, which NumPy does not have, becomes float32: `compare` and `diagnose` know it by its bits, each of
        which after the 16th is 0, where nothing else was in float32.

    Raises
    ------
    ModuleNotFoundError
        If PyTorch is not installed.
    TypeError
        If the model is none of PyTorch's.
    ValueError
        If gradients are asked for and there is no loss, or two modules have one name.

    Examples
    --------
    With ``model``, transformers' NezhaForMaskedLM for example, and a bundle of its weights::

        theirs = nz.oracle.capture_torch(model, gradients=True, **bundle.inputs)
        print(nz.oracle.compare(bundle, theirs).summary())
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {kind_of(module)}")
    table = check_names(rename, names)
    module_names = _module_names(module, table)
    captured: dict[str, np.ndarray] = {}
    walked: dict[str, np.ndarray] = {}
    calls: Counter[str] = Counter()

    def record(name: str, output: Any) -> None:
        tensor = next(_tensors(torch, output[-1] if _is_list_of_layers(torch, output) else output), None)
        if tensor is None:
            return
        calls[name] += 1
        name = name if calls[name] == 1 else f"{name}_{calls[name]}"
        captured[name] = _to_numpy(torch, tensor)
        if gradients and tensor.requires_grad:
            hook = tensor.register_hook(lambda gradient: walked.update({name: _to_numpy(torch, gradient)}))
            stack.callback(hook.remove)

    def record_given(name: str, arguments: Any) -> None:
        tensor = next(_tensors(torch, arguments), None)
        if tensor is not None:
            captured.setdefault(name, _to_numpy(torch, tensor))

    with contextlib.ExitStack() as stack:
        stack.enter_context(_evaluating(torch, module, gradients))
        for submodule, name in module_names.items():
            if given and (what := _given_to(name, module_names.values())):
                before = submodule.register_forward_pre_hook(
                    lambda _, arguments, what=what: record_given(what, arguments)
                )
                stack.callback(before.remove)
            hook = submodule.register_forward_hook(lambda _, __, output, name=name: record(name, output))
            stack.callback(hook.remove)
        arguments = [_to_torch(torch, module, value) for value in inputs]
        returned = named(module(*arguments, **{key: _to_torch(torch, module, value) for key, value in kwargs.items()}))
        found = {name: value for name, value in flattened(returned).items() if isinstance(value, torch.Tensor)}
        captured |= {f"outputs/{name}": _to_numpy(torch, value) for name, value in found.items()}
        if gradients:
            walked |= _parameter_gradients(torch, module, _loss_of(found), table)
    return captured | {f"gradients/{name}": array for name, array in walked.items()}


def _given_to(name: str, names: Collection[str]) -> str:
    """Name what a module is given, "" where our traces have no name for it.

    Examples
    --------
    >>> _given_to("encoder.layer.0.output.LayerNorm", ())
    'encoder.layer.0.output.residual'
    >>> _given_to("embeddings.LayerNorm", ("embeddings.position_embeddings",))
    'embeddings.sum_with_positions'
    """
    if name == "embeddings.LayerNorm":
        return "embeddings.sum_with_positions" if "embeddings.position_embeddings" in names else "embeddings.sum"
    for ending, what in GIVEN.items():
        if name.endswith(ending):
            if what.endswith("merged") and any(other.endswith(".key_conv_attn_layer") for other in names):
                what = ".attention.self.joined"  # ConvBERT's, with what its convolutions make
            return f"{name.removesuffix(ending)}{what}"
    return ""


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("capture_torch: needs PyTorch, which is not installed", name=error.name) from None


@contextlib.contextmanager
def _evaluating(torch: Any, module: Any, gradients: bool) -> Iterator[None]:
    """Let a model run without dropout, with every parameter in the graph or none, and put it back as it was."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for submodule, _ in modes:
            submodule.training = False
        for parameter, _ in wanted if gradients else []:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for submodule, mode in modes:
            submodule.training = mode
        for parameter, was in wanted:
            parameter.requires_grad_(was)


def _module_names(module: Any, rename: Rename) -> dict[Any, str]:
    """Name each submodule as our traces do; a model's backbone and the model itself have no name."""
    names: dict[Any, str] = {}
    first: dict[str, str] = {}
    for path, submodule in module.named_modules():
        name = without_prefix(renamed(f"{path}.", rename))[:-1] if path else ""
        if not name:
            continue
        if first.setdefault(name, path) != path:
            raise ValueError(f"module: expected one module for each name, got {first[name]} and {path} for {name}")
        names[submodule] = name
    return names


def _parameter_gradients(torch: Any, module: Any, loss: Any, rename: Rename) -> dict[str, np.ndarray]:
    """Walk back from the loss; the model's own gradients are left alone."""
    of_embeddings = {
        id(submodule.weight) for submodule in module.modules() if isinstance(submodule, torch.nn.Embedding)
    }
    names: dict[int, str] = {}
    tied = module.named_parameters(remove_duplicate=False)
    for path, parameter in tied:
        if id(parameter) not in names or (id(parameter) in of_embeddings and path.endswith("embeddings.weight")):
            names[id(parameter)] = without_prefix(renamed(path, rename))
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        names[id(parameter)]: _to_numpy(torch, gradient)
        for parameter, gradient in zip(parameters, found, strict=True)
        if gradient is not None
    }


def _loss_of(returned: Mapping[str, Any]) -> Any:
    """Find the loss: what is called so, or what comes first and is one number."""
    loss = returned.get("loss", returned.get("0"))
    if loss is None or loss.numel() != 1 or not loss.requires_grad:
        raise ValueError(
            "gradients: expected a model that returns a loss (give it labels), "
            f"got one that returns {', '.join(returned) or 'no tensor'}"
        )
    return loss


def _tensors(torch: Any, value: Any) -> Iterator[Any]:
    """Go through the tensors that a module returns, in tuples and mappings too."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(torch, part)


def _is_list_of_layers(torch: Any, output: Any) -> bool:
    """Whether a module returns a list of tensors of one shape: the results of all its layers, the last its own."""
    if not isinstance(output, list) or not all(isinstance(part, torch.Tensor) for part in output):
        return False
    return len({tuple(part.shape) for part in output}) == 1


def _to_numpy(torch: Any, tensor: Any) -> np.ndarray:
    """Copy a tensor, because what comes after may write into it; row by row, as safetensors' own writer needs it."""
    tensor = tensor.detach().to("cpu")
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(), order="C")


def _to_torch(torch: Any, module: Any, value: Any) -> Any:
    """Bring NumPy arrays, in tuples too, to a model's device, and floats to its dtype."""
    if isinstance(value, (tuple, list)):
        return type(value)(_to_torch(torch, module, part) for part in value)
    if not isinstance(value, np.ndarray):
        return value
    tensor = torch.tensor(value)
    like = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), tensor)
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)
