"""The names of tensors: in files that are read, in memory, and in files that are written.

In memory every tensor has one name, the reference's without the model's prefix. Files that are read have others:

    in a file                                             in memory
    nezha.… or bert.…, convbert.…, module.bert.…          …
    …LayerNorm.gamma, …LayerNorm.beta                     …LayerNorm.weight, …LayerNorm.bias
    ….layer.0._orig_mod.output.dense.bias                 ….layer.0.output.dense.bias: of compiled parts
    cls.predictions.decoder.bias                          cls.predictions.bias: its second name (second_names.py)
    bert/encoder/layer_0/attention/self/query/kernel      encoder.layer.0.attention.self.query.weight, transposed
    cls/predictions/output_bias                           cls.predictions.bias
    …/adam_m, global_step, …                              left out: the optimiser's
    …embeddings.position_ids                              left out: 0, 1, 2 …
    ….relative_positions_encoding.positions_encoding      left out: it is computed, and only compared with our table

The names with slashes are TensorFlow's, in which the authors of NEZHA, BERT and ConvBERT published their models. Its
matrices are (in, out) and ours are (out, in): the same bytes, described with the axes in another order.

Files that are written have the reference's names, so that transformers reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nezha_np.checks import printable
from nezha_np.families.config import Config
from nezha_np.families.family import FAMILIES, Family, every_prefix, family_of
from nezha_np.families.parameters import embeddings_shapes, layer_shapes
from nezha_np.mechanism.patterns import matches
from nezha_np.weights.formats.entry import Entry
from nezha_np.weights.second_names import Source, sources_under_one_name

# The prefixes of wrappers, for data parallelism and compilation; they come before the model's.
WRAPPER = re.compile(r"(?:(?:module|_orig_mod)\.)*")
# Those that may wrap any part of a model: torch.compile, FSDP, activation checkpointing.
WRAPPER_OF_PART = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

# TensorFlow's names, part by part.
SCOPE_OF_ELECTRA = "electra"  # from whose code ConvBERT's authors started
OPTIMISER = re.compile(
    r"(adam|lamb)_[mv]|Adam(_\d+)?|(AdamWeightDecay|LAMB)\w*|Momentum|beta[12]_power|global_step|(current_)?loss_scale"
    r"|(num_)?good_steps"
)
RENAMED = {
    "conv_attn_key": "key_conv_attn_layer",
    "conv_attn_kernel": "conv_kernel_layer",
    "conv_attn_point": "conv_out_layer",
    "g_dense": "dense",
}
FULL_NAMES = {  # which are not made from their parts
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias",
    "cls/squad/output_weights": "qa_outputs.weight",
    "cls/squad/output_bias": "qa_outputs.bias",
    "generator_predictions/output_bias": "generator_lm_head.bias",
}
# Where each of our axes is in TensorFlow's tensor of this name.
AXES = {"kernel": (1, 0), "depthwise_kernel": (1, 2, 0), "pointwise_kernel": (2, 1, 0)}
LAST = {
    "kernel": "weight",
    "depthwise_kernel": "depthwise.weight",
    "pointwise_kernel": "pointwise.weight",
    "gamma": "weight",
    "output_weights": "weight",
    "beta": "bias",
    "output_bias": "bias",
}


def name_tensor(raw: str, entry: Entry) -> tuple[str, Entry] | None:
    """Give a tensor of a file its name in memory.

    Parameters
    ----------
    raw : str
        The name in the file.
    entry : Entry
        What the file says of the tensor.

    Returns
    -------
    (str, Entry) or None
        The name in memory, and the entry with the axes in our order; None for a tensor that is left out, because it is
        computed or the optimiser's.

    Examples
    --------
    >>> name_tensor("bert/pooler/dense/kernel", Entry("F32", (2, 3), 0, 24))
    ('pooler.dense.weight', Entry(dtype='F32', shape=(3, 2), start=0, stop=24, strides=(1, 3)))
    """
    name = raw.removesuffix(":0")
    if any(OPTIMISER.fullmatch(part) for part in name.split("/")):
        return None
    if "/" in name or name in FULL_NAMES:
        name, entry = _from_tensorflow(name, entry)
    else:
        name = without_prefix(name)
        for old, new in OLD_NORMS.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
    return None if is_computed(name) else (name, entry)


def _from_tensorflow(name: str, entry: Entry) -> tuple[str, Entry]:
    """Give a variable of TensorFlow its name in memory, and its axes our order."""
    parts = name.split("/")
    if parts[0] in (*every_prefix(), SCOPE_OF_ELECTRA):
        del parts[0]
    name = "/".join(parts)
    if name in FULL_NAMES:
        return FULL_NAMES[name], entry
    *scope, last = parts
    scope = [RENAMED.get(part, re.sub(r"^layer_(\d+)$", r"layer.\1", part)) for part in scope]
    # The kernel of a linear layer in groups (g_dense) has three axes, groups first, in TensorFlow and here.
    if last in AXES and len(entry.shape) == len(AXES[last]):
        entry = entry.transposed(*AXES[last])
    if last == "bias" and scope[-1:] == ["key_conv_attn_layer"]:
        entry = entry.with_last_axis()
    last = f"{last}.weight" if last.endswith("_embeddings") else LAST.get(last, last)
    return ".".join([*scope, last]), entry


def name_tensors(headers: Mapping[Path, Mapping[str, Entry]], config: Config) -> dict[str, Source]:
    """Give the tensors of files their names in memory, one name each.

    Parameters
    ----------
    headers : mapping of Path to (mapping of str to Entry)
        The tensors of each file.
    config : Config
        The configuration.

    Returns
    -------
    dict of str to (Path, str, Entry)
        For each name in memory the file, the name in the file, and the entry. Tensors that are computed, tied or the
        optimiser's are left out.

    Raises
    ------
    ValueError
        If two tensors get the same name, or both names of one tensor are there with different numbers
        (`nezha_np.weights.second_names`).

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> entry = Entry("F32", (2,), 0, 8)
    >>> named = name_tensors({Path("f"): {"bert.embeddings.LayerNorm.gamma": entry}}, NezhaConfig())
    >>> list(named)
    ['embeddings.LayerNorm.weight']
    """
    return sources_under_one_name(every_name(headers), config)


def every_name(headers: Mapping[Path, Mapping[str, Entry]]) -> dict[str, Source]:
    """Give the tensors of files their names in memory, second names too.

    Parameters
    ----------
    headers : mapping of Path to (mapping of str to Entry)
        The tensors of each file.

    Returns
    -------
    dict of str to (Path, str, Entry)
        As from `name_tensors`.

    Raises
    ------
    ValueError
        If two tensors get the same name.

    Examples
    --------
    >>> list(every_name({Path("f"): {"cls.predictions.decoder.bias": Entry("F32", (2,), 0, 8)}}))
    ['cls.predictions.decoder.bias']
    """
    named: dict[str, Source] = {}
    for file, header in headers.items():
        for raw, entry in header.items():
            found = name_tensor(raw, entry)
            if found is None:
                continue
            name, entry = found
            if name in named:
                other, first, _ = named[name]
                place = "" if other == file else f" in {other.name}"  # another shard
                both = f"{printable(first)}{place} and {printable(raw)}"
                raise ValueError(f"{file}: expected one tensor for {printable(name)}, got {both}")
            named[name] = (file, raw, entry)
    return named


def names_in_file(names: Iterable[str], config: Config) -> dict[str, str]:
    """Return the name of each tensor in a file that is written.

    transformers expects the model's prefix on every tensor of embeddings, encoder and pooler as soon as the file holds
    a tensor of a task head, and no prefix otherwise.

    Parameters
    ----------
    names : iterable of str
        The names in memory.
    config : Config
        The configuration, which says what the embeddings consist of.

    Returns
    -------
    dict of str to str
        For each name in memory that in the file.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> names_in_file(["pooler.dense.bias", "classifier.bias"], NezhaConfig())
    {'pooler.dense.bias': 'nezha.pooler.dense.bias', 'classifier.bias': 'classifier.bias'}
    >>> names_in_file(["pooler.dense.bias"], NezhaConfig())
    {'pooler.dense.bias': 'pooler.dense.bias'}
    """
    modules = {"embeddings", "encoder", "pooler", *(name.partition(".")[0] for name in embeddings_shapes(config))}
    is_backbone = {name: name.partition(".")[0] in modules for name in names}
    prefix = "" if all(is_backbone.values()) else f"{family_of(config).prefixes[0]}."
    return {name: prefix + name if is_backbone[name] else name for name in is_backbone}


def without_prefix(name: str) -> str:
    """Take the names of wrappers and the prefix of a model off a name.

    Examples
    --------
    >>> without_prefix("module.bert.pooler.dense.bias")
    'pooler.dense.bias'
    >>> without_prefix("bert.encoder.layer.0._orig_mod.output.dense.bias")
    'encoder.layer.0.output.dense.bias'
    """
    name = WRAPPER_OF_PART.sub("", WRAPPER.sub("", name, count=1))
    first, dot, rest = name.partition(".")
    return rest if dot and first in every_prefix() else name


def is_computed(name: str) -> bool:
    """Say whether some family computes a tensor of this name, which is not loaded then.

    Examples
    --------
    >>> [is_computed(f"embeddings.{name}") for name in ("position_ids", "position_embeddings.weight")]
    [True, False]
    """
    return any(matches(name, tuple(family.computed)) for family in FAMILIES.values())


def wrong_family(names: Iterable[str], config: Config) -> str | None:
    """Say which other family the tensors of a checkpoint look like, and what to change.

    Parameters
    ----------
    names : iterable of str
        The names in the files.
    config : Config
        The configuration.

    Returns
    -------
    str or None
        A message; None where they look right, or like none.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> names = ["bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"]
    >>> print(wrong_family(names, NezhaConfig()))
    expected the tensors of NEZHA, as config.json says, got what looks like BERT, because there is
    embeddings.position_embeddings.weight, which NEZHA has not: set "model_type": "bert" in config.json
    """
    # The parts of all names, TensorFlow's too, each with the first tensor whose name has it.
    parts: dict[str, str] = {}
    names = [without_prefix(name.replace("/", ".")) for name in names]
    for name in names:
        for part in name.split("."):
            parts.setdefault(RENAMED.get(part, part), name)

    own = family_of(config)
    fitting = [family for family in FAMILIES.values() if _looks_like(family, parts, names)]
    if not fitting or own in fitting:
        return None
    foreign = [name for part, name in parts.items() if part in _marks_of_others(own)]
    names_of_own = [*embeddings_shapes(config), *layer_shapes(config, 0)]
    missing = [name for part in own.recognised_by if part not in parts for name in names_of_own if part in name]
    why = f"there is {printable(foreign[0])}, which {own.title} has not" if foreign else f"there is no {missing[0]}"
    change = f'"model_type": "{fitting[0].config.model_type}" {fitting[0].config_hint}'.rstrip()
    return (
        f"expected the tensors of {own.title}, as config.json says, got what looks like {fitting[0].title}, because "
        f"{why}: set {change} in config.json"
    )


def _marks_of_others(family: Family) -> set[str]:
    """Return the parts of names that only other families have."""
    return {mark for other in FAMILIES.values() for mark in other.marks}.difference(family.marks)


def _looks_like(family: Family, parts: Mapping[str, str], names: list[str]) -> bool:
    """Say whether what a family always has is there, and nothing that only others have or save."""
    computed_by_others = {pattern for other in FAMILIES.values() for pattern in other.computed}.difference(
        family.computed
    )
    return (
        all(part in parts for part in family.recognised_by)
        and not _marks_of_others(family) & parts.keys()
        and not any(matches(name, sorted(computed_by_others)) for name in names)
    )
