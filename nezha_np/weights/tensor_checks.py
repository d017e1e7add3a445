"""What the tensors of a model must be: complete, of the right shapes, and of one dtype and device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from nezha_np.arrays import Array, conversion, has_kind, is_array, kind_of
from nezha_np.checks import DTYPES, listed, printable
from nezha_np.families.config import Config
from nezha_np.families.family import FAMILIES, family_of
from nezha_np.families.parameters import Shapes, backbone_shapes, pooler_shapes

LAYER = re.compile(r"encoder\.layer\.\d+\.")
EMPTY = "tensors without numbers are what ZeRO-3 of DeepSpeed leaves in a file: its zero_to_fp32.py writes whole ones"


def check_tensors(tensors: Mapping[str, Array], config: Config) -> None:
    """Check the tensors of a model.

    Parameters
    ----------
    tensors : mapping of str to array
        The tensors, one name for each.
    config : Config
        The configuration.

    Raises
    ------
    TypeError
        If a name is no text, or a tensor not an array of floats.
    ValueError
        If a tensor is missing, or is one that only other models have; if a shape is not that of the configuration; if
        dtypes or devices differ. The message names the tensors.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> check_tensors({name: weights[name] for name in weights if name != "pooler.dense.bias"}, weights.config)
    Traceback (most recent call last):
    ...
    ValueError: weights: expected all tensors of embeddings, encoder and pooler, missing pooler.dense.bias
    """
    if strange := [name for name in tensors if not isinstance(name, str)]:
        raise TypeError(f"weights: expected names of tensors, got {strange[0]!r}")
    check_layers(tensors, config)
    needed, parts = backbone_shapes(config), "embeddings and encoder"
    pooler = pooler_shapes(config)
    if any(name in tensors for name in pooler):  # which may be left out as a whole
        needed, parts = needed | pooler, "embeddings, encoder and pooler"
    missing = [name for name in needed if name not in tensors]
    if missing:
        others = unused_tensors(tensors, config)
        got = f", got others that are not known, such as {listed(others, most=3)}" if others else ""
        raise ValueError(f"weights: expected all tensors of {parts}, missing {listed(missing)}{got}")
    # The parts of names that other models have and this one has not: without them another model would be computed.
    parts_here = {part for name in needed for part in name.split(".")}
    foreign = {mark for family in FAMILIES.values() for mark in family.marks} - parts_here
    superfluous = [name for name in tensors if foreign & {*name.split(".")}]
    if superfluous:
        kind = f"{family_of(config).title} as the configuration describes it"
        raise ValueError(f"weights: expected the tensors of {kind}, superfluous {listed(superfluous)}")
    wrong = [name for name, array in tensors.items() if not is_array(array) or not has_kind(array, "real floating")]
    if wrong:
        value = tensors[wrong[0]]
        raise TypeError(
            f"weights: expected arrays of floats, got {kind_of(value)} for {listed(wrong)}{conversion(value)}"
        )
    for name, array in tensors.items():
        if isinstance(array, np.ndarray) and not (array.dtype.name in DTYPES and array.dtype.isnative):
            raise TypeError(
                f"weights: expected {', '.join(DTYPES)} in native byte order, got {array.dtype} for {printable(name)}"
            )
    check_shapes(tensors, needed)
    first = next(iter(needed))
    for name, array in tensors.items():
        for what in ("dtype", "device"):  # an array that its library is tracing has no device yet
            one, other = getattr(tensors[first], what, None), getattr(array, what, None)
            if one != other:
                raise ValueError(
                    f"weights: expected one {what}, got {one} for {first} and {other} for {printable(name)}"
                )


def check_layers(names: Iterable[str], config: Config) -> None:
    """Check that there are as many layers as the configuration says, before their tensors are listed by name.

    Parameters
    ----------
    names : iterable of str
        The names of the tensors.
    config : Config
        The configuration.

    Raises
    ------
    ValueError
        If the configuration says more layers than the names have.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> check_layers(weights, weights.config.replace(num_hidden_layers=12))
    Traceback (most recent call last):
    ...
    ValueError: weights: expected the tensors of 12 layers, as num_hidden_layers says, got those of 4
    """
    found = len({match[0] for name in names if (match := LAYER.match(name))})
    if config.num_hidden_layers > found > 0:  # without any layer it is not their number that is wrong
        raise ValueError(
            f"weights: expected the tensors of {config.num_hidden_layers} layers, as num_hidden_layers says, got those "
            f"of {found}"
        )


def unused_tensors(names: Iterable[str], config: Config) -> list[str]:
    """List the tensors of embeddings, encoder and pooler that the configuration describes no use for.

    They are those of further layers, of adapters (LoRA) or of another model: what is computed without them is not what
    the model was trained to compute.

    Parameters
    ----------
    names : iterable of str
        The names of the tensors in memory.
    config : Config
        The configuration.

    Returns
    -------
    list of str
        Those names.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(num_hidden_layers=1)
    >>> unused_tensors(["encoder.layer.0.output.dense.bias", "encoder.layer.0.output.lora_A", "other.bias"], config)
    ['encoder.layer.0.output.lora_A']
    """
    known = {*backbone_shapes(config), *pooler_shapes(config)}
    modules = {name.partition(".")[0] for name in known}
    return [name for name in names if name.partition(".")[0] in modules and name not in known]


def describe_unused(names: list[str]) -> str:
    """Say that nothing is computed with tensors, and what to do.

    Examples
    --------
    >>> describe_unused(["encoder.layer.0.output.lora_A"])[:58]
    'nothing is computed with encoder.layer.0.output.lora_A, wh'
    """
    return (
        f"nothing is computed with {listed(names, most=3)}, which the configuration does not describe: if the model "
        "was trained with them, correct the configuration (num_hidden_layers), or merge adapters such as LoRA into the "
        "model before it is saved"
    )


def check_shapes(tensors: Mapping[str, Array], shapes: Shapes) -> None:
    """Check that tensors have the shapes of the configuration.

    Parameters
    ----------
    tensors : mapping of str to array
        The tensors.
    shapes : dict of str to tuple of int
        The shapes of those that are checked, by name.

    Raises
    ------
    ValueError
        If a shape differs; the message names all such tensors.

    Examples
    --------
    >>> check_shapes({"x": np.zeros(3)}, {"x": (2,)})
    Traceback (most recent call last):
    ...
    ValueError: weights: expected the shapes of the configuration, got x (3,) instead of (2,)
    """
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        empty = any(0 in tensors[name].shape for name in shapes)
        advice = f"; {EMPTY}" if empty else ""
        raise ValueError(f"weights: expected the shapes of the configuration, got {listed(wrong)}{advice}")
