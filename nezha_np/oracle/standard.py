"""The standard set of golden bundles: three families, every task that they have, and the options that ports get wrong.

Each bundle is a small record: a name, a configuration, a task and its inputs. Its weights and inputs are those of
`nezha_np.oracle.standard_inputs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import check_path, check_switches
from nezha_np.families.config import Config
from nezha_np.families.parameters import tasks_of
from nezha_np.files.atomic import write_atomically
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.progress import Count, Progress, check_progress
from nezha_np.oracle.recording import record
from nezha_np.oracle.standard_inputs import (
    BERT,
    CONVBERT,
    ENCODED,
    LENGTHS,
    NEZHA,
    after_cache,
    choices,
    encoder_side,
    from_to,
    holes,
    holes_by_query,
    integers_from_to,
    labels_of,
    lively_weights,
    pairs,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Standard:
    """One bundle of the standard set, not yet recorded.

    Attributes
    ----------
    name : str
        Family, head and what is special: ``nezha-masked_lm-holes``.
    config : NezhaConfig, BertConfig or ConvBertConfig
        The configuration.
    head : str
        The task: the public function that runs.
    inputs : dict
        Its arguments.
    steps : dict
        The arguments of `nezha_np.oracle.record` for training steps; empty where there are none.
    """

    name: str
    config: Config
    head: str
    inputs: dict[str, Any]
    steps: dict[str, Any] = dataclasses.field(default_factory=dict)


# ----------------------------------------------------------------------------------------------------------- the list


def _of_family(config: Config) -> Iterator[tuple[str, Config, str, dict[str, Any]]]:
    """List what all families have: what is special, configuration, head, inputs without labels."""
    of_pairs, one_layer = pairs(config), config.replace(num_hidden_layers=1)  # where the layers are not the point
    yield "", config, "forward", {"input_ids": of_pairs["input_ids"]}
    yield "pairs", config, "forward", {**of_pairs, "output_hidden_states": True, "output_attentions": True}
    for head in tasks_of(config):
        if head in ("pretraining", "masked_lm"):
            yield "", config, head, of_pairs
        elif head != "causal_lm":  # which `_of_decoder` lists
            yield "", one_layer, head, choices(config) if head == "multiple_choice" else of_pairs
    head, regression = "sequence_classification", one_layer.replace(problem_type="regression")
    yield "regression", regression, head, of_pairs
    yield "one_label", regression.replace(num_labels=1), head, of_pairs
    yield "several_labels", one_layer.replace(problem_type="multi_label_classification"), head, of_pairs
    yield "holes", config, "masked_lm", {**of_pairs, "attention_mask": holes(of_pairs)}
    yield "holes_by_query", one_layer, "forward", {**of_pairs, "attention_mask": holes_by_query(of_pairs)}
    yield "untied", one_layer.replace(tie_word_embeddings=False), "masked_lm", of_pairs
    yield "head_mask", config, "masked_lm", {**of_pairs, "head_mask": np.array([[0.5, 0.0], [1.0, 0.25]])}
    width = getattr(config, "embedding_size", config.hidden_size)
    embeds = from_to(-0.1, 0.1, (*of_pairs["input_ids"].shape, width), "inputs_embeds")
    rest = {name: value for name, value in of_pairs.items() if name != "input_ids"}
    yield "inputs_embeds", one_layer, "forward", {"inputs_embeds": embeds, **rest}


def _of_decoder(config: Config) -> Iterator[tuple[str, Config, str, dict[str, Any]]]:
    """List what NEZHA and BERT have besides: decoders, caches and cross-attention."""
    of_pairs, decoder = pairs(config), config.replace(is_decoder=True)
    crossing = decoder.replace(add_cross_attention=True, num_hidden_layers=1)
    yield "", decoder, "causal_lm", of_pairs
    yield "cache", decoder, "causal_lm", after_cache(decoder, (4, 3, 4))
    yield "cache_step", decoder, "forward", {**after_cache(decoder, (1, 1, 1)), "use_cache": True}
    yield "cross", crossing, "causal_lm", {**of_pairs, **encoder_side(crossing), "use_cache": False}
    of_cache = {**after_cache(crossing, (2, 2, 1), encoded=True), **encoder_side(crossing)}
    yield "cross_cache", crossing, "forward", {**of_cache, "output_attentions": True}


def _of_one_family() -> Iterator[tuple[str, Config, str, dict[str, Any]]]:
    """List what one family alone has."""
    limit = NEZHA.max_position_embeddings
    of_long = pairs(NEZHA, (limit + 8, limit + 1, 6), "long")
    nezha = NEZHA.replace(num_hidden_layers=1)
    yield "long", nezha, "forward", of_long
    yield "eps", nezha.replace(layer_norm_eps=1e-3), "forward", pairs(NEZHA)
    yield "relu", nezha.replace(hidden_act="relu"), "forward", pairs(NEZHA)
    nezha = nezha.replace(is_decoder=True)
    masked = pairs(nezha)
    masked["attention_mask"][:, :2] = 0  # the first queries see no key
    yield "masked_start", nezha, "forward", masked
    states = encoder_side(nezha)
    words = pairs(nezha, (ENCODED,) * len(LENGTHS))["input_ids"]  # as long as the encoder's texts
    yield "cross_equal", nezha.replace(add_cross_attention=True), "forward", {"input_ids": words, **states}
    for config in (BERT, CONVBERT):
        yield "long", config, "forward", pairs(config, (limit, limit, 6), "long")
        one_layer, of_pairs = config.replace(num_hidden_layers=1), pairs(config)
        position_ids = integers_from_to(0, limit, of_pairs["input_ids"].shape, "position_ids")
        yield "position_ids", one_layer, "forward", {**of_pairs, "position_ids": position_ids}
    for kind in ("relative_key", "relative_key_query"):
        relative = BERT.replace(position_embedding_type=kind)
        yield kind, relative, "forward", pairs(relative)
        yield kind, relative, "masked_lm", pairs(relative)
        decoder = relative.replace(is_decoder=True)
        yield f"{kind}_cache", decoder, "causal_lm", after_cache(decoder, (4, 3, 4))
    one_layer, of_pairs = CONVBERT.replace(num_hidden_layers=1), pairs(CONVBERT)
    yield "groups", one_layer.replace(num_groups=2), "masked_lm", of_pairs
    yield "embedding_size", one_layer.replace(embedding_size=16), "masked_lm", of_pairs  # H: no map to it
    yield "head_ratio", one_layer.replace(num_attention_heads=7, head_ratio=3), "masked_lm", of_pairs  # 7 // 3 heads
    yield "kernel", one_layer.replace(conv_kernel_size=9), "masked_lm", of_pairs  # wider than the text
    for summary in ("first", "mean"):
        summarised = one_layer.replace(summary_type=summary, summary_use_proj=True, summary_activation="tanh")
        yield f"summary_{summary}", summarised, "multiple_choice", choices(summarised)


def _standard() -> Iterator[Standard]:
    of_all = [_of_family(NEZHA), _of_decoder(NEZHA), _of_family(BERT), _of_decoder(BERT), _of_family(CONVBERT)]
    for part in (*of_all, _of_one_family()):
        for what, config, head, inputs in part:
            name = "-".join([config.model_type, head, *([what] if what else [])])
            yield Standard(name, config, head, {**inputs, **labels_of(head, config, inputs)})


# Three steps of every optimiser. Each has another learning rate; the norm of the gradients is larger than what they
# are clipped to; and the two parts of a batch do not have as many labels.
RECIPE = {"steps": 3, "learning_rate": [1e-3, 2e-3, 3e-3, 2e-3], "clip_norm": 0.5, "accumulation_steps": 2}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "steps_lamb": {"step": "lamb"},
    "steps_lamb_nezha": {"step": "lamb", "variant": "nezha"},
    "steps_adamw": {"step": "adamw"},
    "steps_bert_adam": {"step": "bert_adam"},
}


def _of_steps() -> Iterator[Standard]:
    """List what has training steps: one family's, because an optimiser knows nothing of the model."""
    config, head = NEZHA.replace(num_hidden_layers=1), "masked_lm"
    inputs = pairs(config)
    for what, optimizer in OPTIMIZERS.items():
        name, given = f"{config.model_type}-{head}-{what}", {**inputs, **labels_of(head, config, inputs)}
        yield Standard(name, config, head, given, {**optimizer, **RECIPE})


STANDARD: tuple[Standard, ...] = (*_standard(), *_of_steps())


# ----------------------------------------------------------------------------------------------------------- recording


def names() -> tuple[str, ...]:
    """List the names of the standard bundles.

    Examples
    --------
    >>> [name for name in names() if name.startswith("bert-forward-rel")]
    ['bert-forward-relative_key', 'bert-forward-relative_key_query']
    """
    return tuple(standard.name for standard in STANDARD)


def record_standard(name: str, dtype: Any = "float64", *, tolerances: str | None = "measured") -> Bundle:
    """Record one bundle of the standard set.

    Parameters
    ----------
    name : str
        One of `names`.
    dtype : str or dtype
        What to compute in.
    tolerances : str or None
        "measured", "quick" or None, as for `nezha_np.oracle.record`.

    Returns
    -------
    Bundle
        With its weights inside; gradients too where it has labels, and training steps where its name says so.

    Raises
    ------
    ValueError
        If there is no such bundle, or no such dtype.

    Examples
    --------
    >>> float(record_standard("nezha-sequence_classification").outputs["loss"].round(6))
    0.852547
    """
    found = next((standard for standard in STANDARD if standard.name == name), None)
    if found is None:
        raise ValueError(f"name: expected one of {', '.join(names())}, got {name!r}")
    weights = lively_weights(found.config, found.head)
    return record(weights, head=found.head, dtype=dtype, tolerances=tolerances, **found.inputs, **found.steps)


def record_all(folder: str | Path, *, progress: Progress | None = None, replace: bool = True) -> list[Path]:
    """Record the standard set: a file for each bundle, under 24 MB together.

    On one machine and with one BLAS thread each run writes the same bytes; anywhere else the numbers are within the
    bundles' tolerances.

    Parameters
    ----------
    folder : str or Path
        Where to write them, ``NAME.safetensors`` each; it is made if need be, and files of these names are replaced:
        all of them once the last is recorded, or none.
    progress : callable, optional
        Is told how far it is: called with the number of bundles that are recorded and of all, ``progress=print`` for
        example. It takes a minute or two.
    replace : bool
        False: files of these names are left as they are, also those that appear meanwhile, and nothing is written.

    Returns
    -------
    list of Path
        The files, in the order of `names`.

    Raises
    ------
    FileExistsError
        If a file is where the folder is to be, or where a bundle is to be, and `replace` is False.
    OSError
        If a file cannot be written; then all files are as they were.
    """
    check_progress(progress)
    check_switches(replace=replace)
    folder = check_path(folder, "folder")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"folder: expected a folder, found a file: {folder}")
    files = {name: f"{name}.safetensors" for name in names()}

    def write(temporary: Path) -> None:
        for name, file in Count(progress).each(list(files.items())):
            record_standard(name).save(temporary / file)

    write_atomically(folder, write, new=() if replace else tuple(files.values()))
    return [folder / file for file in files.values()]
