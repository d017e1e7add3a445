"""Configurations, weights and inputs of the standard bundles.

Weights and inputs are sampled from streams of their own (`nezha_np.randomness`), mapped by + − × ÷ and rounded to
float16: the same bits on every machine, exact in float32 and in float16. They are lively, so that mistakes show in
float32: biases and norms that nobody can leave out, embeddings so small that another ε of the first norm matters, texts
longer than K, of different lengths, with both token types, and more tokens than features, so that a matrix can be told
from its inputs and results.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nezha_np.families.bert import BertConfig
from nezha_np.families.config import Config
from nezha_np.families.convbert import ConvBertConfig
from nezha_np.families.nezha import NezhaConfig
from nezha_np.families.parameters import backbone_shapes, pooler_shapes, task_shapes
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
WORDS = 4  # the first id of a word piece
PAST = 4  # the tokens of a cache
ENCODED = 6  # the tokens of an encoder

# ------------------------------------------------------------------------------------------------ numbers and weights


def from_to(low: float, high: float, shape: tuple[int, ...], *key: object) -> np.ndarray:
    """Sample floats that are exact in float16, so that no dtype but bfloat16 has to round them.

    Examples
    --------
    >>> from_to(-0.5, 0.5, (2,), "an example")
    array([ 0.04180908, -0.25195312])
    """
    numbers = low + (high - low) * uniform(math.prod(shape), SEED, *key)
    return np.asarray(numbers).astype(np.float16).astype(np.float64).reshape(shape)


def integers_from_to(low: int, high: int, shape: tuple[int, ...], *key: object) -> np.ndarray:
    """Sample integers from `low` to ``high - 1``.

    Examples
    --------
    >>> integers_from_to(4, 29, (3,), "an example")
    array([17, 10, 17])
    """
    numbers = low + np.floor((high - low) * uniform(math.prod(shape), SEED, *key))
    return np.asarray(numbers).astype(np.int64).reshape(shape)


def lively_weights(config: Config, head: str = "forward") -> Weights:
    """Sample weights that show mistakes: every bias, norm and embedding is a number that matters.

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
    """Sample pairs of texts, [CLS] a [SEP] b [SEP], padded to the longest, with their masks and token types.

    Examples
    --------
    >>> pairs(NEZHA)["token_type_ids"]
    array([[0, 0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1, 0],
           [0, 0, 1, 1, 0, 0, 0]])
    """
    longest = max(lengths)
    ids = integers_from_to(WORDS, config.vocab_size, (len(lengths), longest), "input_ids", key)
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
    """Sample the labels of a task, some of them -100.

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
        return np.where(left_out, -100, integers_from_to(0, below, ids.shape, head, "labels"))

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
                    return {"labels": integers_from_to(0, 2, (texts, classes), "several labels").astype(np.float64)}
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
    """Sample the keys and values of earlier tokens for each layer, and with `encoded` those of an encoder's too."""
    names = (("key", PAST), ("value", PAST)) + ((("cross_key", ENCODED), ("cross_value", ENCODED)) if encoded else ())
    return tuple(
        tuple(
            from_to(-2.0, 2.0, (len(LENGTHS), config.attention_heads, tokens, config.head_size), "cache", layer, name)
            for name, tokens in names
        )
        for layer in range(config.num_hidden_layers)
    )


def after_cache(config: Config, lengths: tuple[int, ...], *, encoded: bool = False) -> dict[str, Any]:
    """Sample the tokens after a cache, with a mask that leaves out the first token of the second text's cache."""
    inputs = pairs(config, lengths, "after a cache")
    before = np.ones((len(lengths), PAST), dtype=np.int64)
    before[1, 0] = 0
    inputs["attention_mask"] = np.concatenate([before, inputs["attention_mask"]], axis=1)
    return {**inputs, "past_key_values": cache(config, encoded=encoded)}


def encoder_side(config: Config) -> dict[str, Any]:
    """Sample an encoder's states and their mask: as many as no text has tokens, and of different lengths themselves."""
    mask = np.arange(ENCODED)[None, :] < np.array([6, 4, 5])[:, None]
    return {
        "encoder_hidden_states": from_to(-2.0, 2.0, (len(LENGTHS), ENCODED, config.hidden_size), "encoder states"),
        "encoder_attention_mask": mask.astype(np.int64),
    }


def choices(config: Config) -> dict[str, Any]:
    """Sample two choices for each of three questions."""
    both = [pairs(config, LENGTHS, f"choice {index}") for index in range(2)]
    return {name: np.stack([one[name] for one in both], axis=1) for name in both[0]}
