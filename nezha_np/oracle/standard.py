"""The standard set of golden bundles: three families, every head that they have, and the options that ports get wrong.

Each bundle is a small record: a name, a configuration, a head and its inputs. Weights and inputs are drawn from streams
of their own (`nezha_np.randomness`), mapped by + − × ÷ and rounded to float16: the same bits on every machine, exact in
float32 and in float16. They are lively, so that mistakes show in float32: biases and norms that nobody can leave out,
embeddings so small that another ε of the first norm matters, texts longer than K, of different lengths, with both token
types, and more tokens than features, so that a matrix can be told from its inputs and results.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import check_path
from nezha_np.families.bert import BertConfig
from nezha_np.families.config import Config
from nezha_np.families.convbert import ConvBertConfig
from nezha_np.families.nezha import NezhaConfig
from nezha_np.families.parameters import backbone_shapes, pooler_shapes, task_shapes, tasks_of
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.recording import record
from nezha_np.randomness import uniform
from nezha_np.weights.weights import Weights

SEED = 0
SIZES: dict[str, Any] = {
    "vocab_size": 29,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "num_labels": 3,
}
NEZHA = NezhaConfig(**SIZES, max_relative_position=3)
BERT = BertConfig(**SIZES)
CONVBERT = ConvBertConfig(**SIZES | {"num_attention_heads": 4}, head_ratio=2, embedding_size=12, conv_kernel_size=3)

LENGTHS = (7, 6, 4)  # of three texts: B·L = 21 rows are more than H + 1
FIRST, END = 2, 3  # the ids of [CLS] and [SEP]
WORDS = 4  # the first id of a word
PAST = 4  # the tokens of a cache
ENCODED = 6  # the tokens of an encoder


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
        The public function that runs.
    inputs : dict
        Its arguments.
    """

    name: str
    config: Config
    head: str
    inputs: dict[str, Any]


# ------------------------------------------------------------------------------------------------------------- numbers


def from_to(low: float, high: float, shape: tuple[int, ...], *key: object) -> np.ndarray:
    """Draw floats that are exact in float16, so that no dtype but bfloat16 has to round them.

    Examples
    --------
    >>> from_to(-0.5, 0.5, (2,), "an example")
    array([ 0.04180908, -0.25195312])
    """
    drawn = low + (high - low) * uniform(math.prod(shape), SEED, *key)
    return drawn.astype(np.float16).astype(np.float64).reshape(shape)


def whole_from_to(low: int, high: int, shape: tuple[int, ...], *key: object) -> np.ndarray:
    """Draw whole numbers from `low` to ``high - 1``.

    Examples
    --------
    >>> whole_from_to(4, 29, (3,), "an example")
    array([17, 10, 17])
    """
    return (low + np.floor((high - low) * uniform(math.prod(shape), SEED, *key))).astype(np.int64).reshape(shape)


def lively_weights(config: Config, head: str = "forward") -> Weights:
    """Draw weights that show mistakes: every bias, norm and embedding is a number that matters.

    Parameters
    ----------
    config : NezhaConfig, BertConfig or ConvBertConfig
        The configuration.
    head : str
        What the weights are for: they have the tensors that it uses, and no others.

    Returns
    -------
    Weights
        Float64 weights: the numbers of a tensor depend on its name and its shape alone.

    Examples
    --------
    >>> lively_weights(NEZHA, "question_answering")["qa_outputs.bias"]
    array([-0.22692871, -0.06817627])
    """
    shapes = backbone_shapes(config) | (pooler_shapes(config) if head == "forward" else task_shapes(config, head))
    return Weights({name: _lively(name, shape) for name, shape in shapes.items()}, config)


def _lively(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("LayerNorm.weight"):
        return from_to(0.7, 1.3, shape, name)
    if name.endswith("bias"):
        return from_to(-0.3, 0.3, shape, name)
    if name.startswith("embeddings.") or name.endswith("decoder.weight"):
        return from_to(-0.05, 0.05, shape, name)
    # Uniform numbers from −√3 σ to √3 σ have the standard deviation σ, here 1.5 / √(what a result sums up).
    inputs = shape[1] if len(shape) == 3 and shape[2] > 1 and shape[1] > 1 else math.prod(shape[1:])
    reach = 1.5 * math.sqrt(3.0 / inputs)
    return from_to(-reach, reach, shape, name)


# -------------------------------------------------------------------------------------------------------------- inputs


def pairs(config: Config, lengths: tuple[int, ...] = LENGTHS, key: object = "pairs") -> dict[str, Any]:
    """Draw pairs of texts, [CLS] a [SEP] b [SEP], padded to the longest, with their masks and token types.

    Examples
    --------
    >>> pairs(NEZHA)["token_type_ids"]
    array([[0, 0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1, 0],
           [0, 0, 1, 1, 0, 0, 0]])
    """
    longest = max(lengths)
    ids = whole_from_to(WORDS, config.vocab_size, (len(lengths), longest), "input_ids", key)
    place, length = np.arange(longest)[None, :], np.array(lengths)[:, None]
    first = (length + 1) // 2  # the first tokens are those of [CLS] a [SEP]
    ids = np.where(place == 0, FIRST, np.where((place == first - 1) | (place == length - 1), END, ids))
    inside = place < length
    return {
        "input_ids": np.where(inside, ids, config.pad_token_id or 0),
        "attention_mask": inside.astype(np.int64),
        "token_type_ids": ((place >= first) & inside).astype(np.int64),
    }


def labels_of(head: str, config: Config, inputs: dict[str, Any]) -> dict[str, Any]:
    """Draw the labels of a head, some of them -100.

    Examples
    --------
    >>> labels_of("token_classification", NEZHA, pairs(NEZHA))["labels"][2]
    array([-100,    0,    1,    0, -100, -100, -100])
    """
    ids = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"][..., 0]
    texts, length = ids.shape[0], ids.shape[-1]
    classes = config.num_labels or 2

    def by_token(below: int) -> np.ndarray:
        left_out = uniform(ids.size, SEED, head, "left out").reshape(ids.shape) < 0.4
        return np.where(left_out, -100, whole_from_to(0, below, ids.shape, head, "labels"))

    match head:
        case "masked_lm":
            return {"labels": by_token(config.vocab_size)}
        case "causal_lm":
            return {"labels": np.where(by_token(2) < 0, -100, ids)}
        case "pretraining":
            return {"labels": by_token(config.vocab_size), "next_sentence_label": np.array([0, -100, 1])}
        case "next_sentence_prediction":
            return {"labels": np.array([1, -100, 0])}
        case "token_classification":
            return {"labels": np.where(inputs["attention_mask"] == 0, -100, by_token(classes))}
        case "multiple_choice":
            return {"labels": np.arange(texts)[::-1] % ids.shape[1]}
        case "question_answering":  # the second answer is outside the text, the third one's beginning
            return {"start_positions": np.array([2, length, 1]), "end_positions": np.array([4, length + 3, -1])}
        case "sequence_classification":
            match config.problem_type:
                case "regression":
                    shape: tuple[int, ...] = (texts,) if classes == 1 else (texts, classes)
                    return {"labels": from_to(-1.0, 1.0, shape, "labels of a regression")}
                case "multi_label_classification":
                    return {"labels": whole_from_to(0, 2, (texts, classes), "several labels").astype(np.float64)}
            return {"labels": np.array([2, -100, 1])}
    return {}


def holes(inputs: dict[str, Any]) -> np.ndarray:
    """Make a mask with holes, of which the last text's is all zeros: its queries attend uniformly.

    Examples
    --------
    >>> holes(pairs(NEZHA))
    array([[0, 1, 1, 0, 1, 1, 0],
           [1, 0, 1, 1, 0, 1, 0],
           [0, 0, 0, 0, 0, 0, 0]])
    """
    mask = np.array(inputs["attention_mask"])
    text, place = np.indices(mask.shape)
    mask = np.where((place - text) % 3 == 0, 0, mask)
    mask[-1] = 0
    return mask


def holes_by_query(inputs: dict[str, Any]) -> np.ndarray:
    """Make a mask (B, L, S) that says for each query which keys it sees; the third query of each text sees none.

    Examples
    --------
    >>> holes_by_query(pairs(NEZHA)).sum(axis=-1)[0]
    array([4, 5, 0, 4, 5, 5, 4])
    """
    mask = inputs["attention_mask"]
    _, query, key = np.indices((*mask.shape, mask.shape[1]))
    mask = np.where((key + 2 * query) % 3 == 0, 0, mask[:, None, :])
    mask[:, 2] = 0
    return mask


def cache(config: Config, *, encoded: bool = False) -> tuple[tuple[np.ndarray, ...], ...]:
    """Draw the keys and values of earlier tokens for each layer, and with `encoded` those of an encoder's too."""
    names = (("key", PAST), ("value", PAST)) + ((("cross_key", ENCODED), ("cross_value", ENCODED)) if encoded else ())
    return tuple(
        tuple(
            from_to(-2.0, 2.0, (len(LENGTHS), config.attention_heads, tokens, config.head_size), "cache", layer, name)
            for name, tokens in names
        )
        for layer in range(config.num_hidden_layers)
    )


def after_cache(config: Config, lengths: tuple[int, ...], *, encoded: bool = False) -> dict[str, Any]:
    """Draw the tokens after a cache, with a mask that leaves out the first token of the second text's cache."""
    inputs = pairs(config, lengths, "after a cache")
    before = np.ones((len(lengths), PAST), dtype=np.int64)
    before[1, 0] = 0
    inputs["attention_mask"] = np.concatenate([before, inputs["attention_mask"]], axis=1)
    return {**inputs, "past_key_values": cache(config, encoded=encoded)}


def encoder_side(config: Config) -> dict[str, Any]:
    """Draw what a decoder attends to besides: states of another length, of different lengths themselves."""
    mask = np.arange(ENCODED)[None, :] < np.array([6, 4, 5])[:, None]
    return {
        "encoder_hidden_states": from_to(-2.0, 2.0, (len(LENGTHS), ENCODED, config.hidden_size), "encoder states"),
        "encoder_attention_mask": mask.astype(np.int64),
    }


def choices(config: Config) -> dict[str, Any]:
    """Draw two choices for each of three questions."""
    both = [pairs(config, LENGTHS, f"choice {index}") for index in range(2)]
    return {name: np.stack([one[name] for one in both], axis=1) for name in both[0]}


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
        position_ids = whole_from_to(0, limit, of_pairs["input_ids"].shape, "position_ids")
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


STANDARD: tuple[Standard, ...] = tuple(_standard())


# ----------------------------------------------------------------------------------------------------------- recording


def names() -> tuple[str, ...]:
    """List the names of the standard bundles.

    Examples
    --------
    >>> [name for name in names() if name.startswith("bert-forward-rel")]
    ['bert-forward-relative_key', 'bert-forward-relative_key_query']
    """
    return tuple(standard.name for standard in STANDARD)


def record_standard(name: str, dtype: Any = "float64") -> Bundle:
    """Record one bundle of the standard set.

    Parameters
    ----------
    name : str
        One of `names`.
    dtype : str or dtype
        What to compute in.

    Returns
    -------
    Bundle
        With its weights inside; gradients too where it has labels.

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
    return record(lively_weights(found.config, found.head), head=found.head, dtype=dtype, **found.inputs)


def record_all(folder: str | Path) -> list[Path]:
    """Record the standard set: a file for each bundle, under 20 MB together.

    On one machine and with one BLAS thread each run writes the same bytes; anywhere else the numbers are within the
    bundles' tolerances.

    Parameters
    ----------
    folder : str or Path
        Where to write them, ``NAME.safetensors`` each; it is made if need be, and files of these names are replaced.

    Returns
    -------
    list of Path
        The files, in the order of `names`.

    Raises
    ------
    FileExistsError
        If a file is where the folder is to be.
    """
    folder = check_path(folder, "folder")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"folder: expected a folder, found a file: {folder}")
    paths = []
    for name in names():
        paths.append(folder / f"{name}.safetensors")
        record_standard(name).save(paths[-1])
    return paths
