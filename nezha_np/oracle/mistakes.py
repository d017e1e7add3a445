"""The catalogue of mistakes that porters make: for each a name, a sentence, and a small change to one layer.

A change is called in place of a layer's definition, with a `Step` first: ``change(step, *arguments, **options)``. The
definition is ``step.right``. A mistake that can be made in several ways has changes for each; where one cannot be made
at a step, its change raises ValueError.

Some mistakes depend on numbers that nobody knows from outside: the mask of a dropout, a table that was trained. Their
`recognise` is told what they have of a step, fits these numbers, and returns the changes that make them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np import families, model
from nezha_np.layers import activations, selection, span_convolution
from nezha_np.layers.addition import add
from nezha_np.layers.attention import (
    append_keys,
    attention_probs,
    content_context,
    content_scores,
    mask_heads,
    merge_heads,
    split_heads,
)
from nezha_np.layers.dropout import dropout
from nezha_np.layers.embedding import embedding
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.losses import IGNORE_INDEX, average, bce_with_logits, cross_entropy, mse
from nezha_np.layers.masks import additive_mask, given
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import collect, position_context, position_scores, relative_position_table
from nezha_np.layers.softmax import softmax
from nezha_np.mechanism import Layer
from nezha_np.oracle.differences import NEVER
from nezha_np.oracle.replay import At, Change, Changes, Step


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a step that is not theirs.

    Attributes
    ----------
    step : Step
        The step.
    layer, arguments, options
        The primitive that makes it, and what from.
    right, theirs : array
        What it makes, and what they have.
    allowed : float
        The largest difference that rounding explains.
    """

    step: Step
    layer: Layer
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    right: np.ndarray
    theirs: np.ndarray
    allowed: float

    def instead(self, value: np.ndarray) -> Changes:
        """Return the change that makes a value at this step."""
        return {self.layer: At(self.step.name, lambda step, *arguments, **options: value)}


@dataclasses.dataclass(frozen=True, eq=False)
class Mistake:
    """One mistake.

    Attributes
    ----------
    name : str
        A short name.
    sentence : str
        What is done, and what is right.
    ways : dict of str to (dict of layers to functions)
        The changes of each way to make it; the key says which way, "" where there is one alone.
    families : tuple of str
        Where it can be made.
    recognise : callable, optional
        ``recognise(evidence)``: the changes that make their numbers in the best case, or None.
    """

    name: str
    sentence: str
    ways: Mapping[str, Changes]
    families: tuple[str, ...] = ("nezha", "bert", "convbert")
    recognise: Callable[[Evidence], Changes | None] | None = None


NEZHA, BERT, CONVBERT = ("nezha",), ("bert",), ("convbert",)
WITH_LEARNED_POSITIONS = ("bert", "convbert")
DECODERS = ("cls.predictions.decoder", "generator_lm_head")
ENOUGH = 4  # how many more equations than unknowns make a fit evidence


def nothing(step: Step, *arguments: Any, **options: Any) -> Any:
    """Zeros in place of the result."""
    return np.zeros_like(step.right(*arguments, **options))


def first(step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """The first argument as it is."""
    return x


def second(step: Step, x: Any, y: Any, *rest: Any, **options: Any) -> Any:
    """The second argument as it is."""
    return y


# ----------------------------------------------------------------------------------------------------------- embeddings


def one_token_type(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Every token of the first type."""
    return step.right(np.zeros_like(ids), weight, **options)


def other_token_type(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """The types turned round."""
    return step.right(weight.shape[0] - 1 - ids, weight, **options)


def past_of(step: Step) -> int:
    """Return the number of tokens in the cache."""
    past = step.inputs.get("past_key_values")
    return 0 if past is None else int(np.shape(past[0][0])[2])


def sinusoids(step: Step, x: Any, *, joined: bool) -> np.ndarray:
    """Make Vaswani's absolute positions for (B, L, H): sines and cosines in turn, or in two halves."""
    length, features = x.shape[-2:]
    angle = np.arange(past_of(step), past_of(step) + length)[:, None] * frequencies(features + features % 2)
    return (halves(angle) if joined else in_turn(angle))[:, :features]


def learned_positions(step: Step, x: Any) -> np.ndarray:
    """Take the absolute positions that a checkpoint of BERT's relative kinds holds, and does not use."""
    if step.config.learns_positions:
        raise ValueError("absolute positions belong to this model")
    return step.weights["embeddings.position_embeddings.weight"][past_of(step) :][: x.shape[-2]]


def absolute_positions(make: Callable[..., np.ndarray], **options: Any) -> dict[str, Changes]:
    """Add positions to the sum of embeddings, or to it where it goes into the norm."""
    return {
        "in the sum": {add: At("embeddings.sum", lambda step, x, y: step.right(x, y) + make(step, x, **options))},
        "before the norm": {
            layer_norm: At(
                "embeddings.LayerNorm",
                lambda step, x, *rest, eps: step.right(x + make(step, x, **options), *rest, eps=eps),
            )
        },
    }


def fitted_positions(evidence: Evidence) -> Changes | None:
    """Recognise absolute positions: every text has the same numbers added."""
    if evidence.step.name != "embeddings.sum" or len(evidence.right) < 2:
        return None
    added = (evidence.theirs - evidence.right).mean(axis=0)
    return {add: At("embeddings.sum", lambda step, x, y: step.right(x, y) + added)}


def positions_from(count: Callable[[Step, Any], Any]) -> Changes:
    """Count position ids in another way."""
    return {
        embedding: At(
            "position_embeddings",
            lambda step, ids, weight, **options: step.right(count(step, ids), weight, **options),
        )
    }


def positions_of_tokens(step: Step, ids: Any) -> Any:
    """RoBERTa's way: tokens that are no padding are counted, from padding_idx + 1."""
    padding = step.config.pad_token_id or 0
    words = np.asarray(step.inputs["input_ids"]).reshape(ids.shape) != padding
    return np.cumsum(words, axis=1) * words + padding


def words_scaled(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Vectors times √H, as Vaswani's have them."""
    return step.right(ids, weight, **options) * math.sqrt(weight.shape[1])


def padding_is_zero(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Zeros for the padding id, whatever its row holds."""
    if step.config.pad_token_id is None:
        raise ValueError("there is no padding id")
    return np.where((ids == step.config.pad_token_id)[..., None], 0.0, step.right(ids, weight, **options))


WORDS, TYPES = "embeddings.word_embeddings", "embeddings.token_type_embeddings"

EMBEDDINGS = (
    Mistake(
        "token types ignored",
        "every token gets the first token type, another one, or none; each gets the row of its own token_type_id",
        {
            "all of type 0": {embedding: At(TYPES, one_token_type)},
            "left out": {embedding: At(TYPES, nothing)},
            "turned round": {embedding: At(TYPES, other_token_type)},
        },
    ),
    Mistake(
        "absolute positions added",
        "positions are added to the words; this model's are relative, and enter attention alone",
        {
            f"{name} {way}".strip(): changes
            for name, make, options in (
                ("sines and cosines in turn,", sinusoids, {"joined": False}),
                ("sines before cosines,", sinusoids, {"joined": True}),
                ("the checkpoint's,", learned_positions, {}),
            )
            for way, changes in absolute_positions(make, **options).items()
        },
        ("nezha", "bert"),
        fitted_positions,
    ),
    Mistake(
        "absolute positions missing",
        "no position is added to the words; each gets the row of its place",
        {"": {embedding: At("position_embeddings", nothing)}},
        WITH_LEARNED_POSITIONS,
    ),
    Mistake(
        "position ids off by one",
        "positions are counted from another number; the first token stands at 0, padding is counted like words",
        {
            "from 1": positions_from(lambda step, ids: ids + 1),
            "from padding_idx + 1": positions_from(lambda step, ids: ids + 1 + (step.config.pad_token_id or 0)),
            "tokens alone, from padding_idx + 1": positions_from(positions_of_tokens),
        },
        WITH_LEARNED_POSITIONS,
    ),
    Mistake(
        "word embeddings scaled",
        "word embeddings are multiplied by √H, as in the first Transformer; here they are taken as they are",
        {"": {embedding: At(WORDS, words_scaled)}},
    ),
    Mistake(
        "padding embedding set to zero",
        "the padding id gets zeros; it has a row like every other id, which is looked up",
        {"": {embedding: At(WORDS, padding_is_zero)}},
    ),
)


# ---------------------------------------------------------------------------------------------------------------- norms


def with_eps(eps: float) -> Changes:
    """Another ε."""
    return {layer_norm: lambda step, x, weight, bias, **options: step.right(x, weight, bias, eps=eps)}


def variance_of_a_sample(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The sum of squares divided by H − 1."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)
    return centred / np.sqrt(variance + eps) * weight + bias


def mean_kept(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """RMSNorm: divided by the root of the mean square."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight + bias


def over_the_tokens(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Mean and variance of a feature over the tokens of a text."""
    if x.ndim < 3:
        raise ValueError("there is one token alone")
    deviation = np.sqrt(x.var(axis=-2, keepdims=True) + eps)
    return (x - x.mean(axis=-2, keepdims=True)) / deviation * weight + bias


def fitted_norm(evidence: Evidence) -> Changes | None:
    """Recognise another weight and bias of a norm: of each feature all tokens lie on one line."""
    if evidence.layer is not layer_norm:
        return None
    x, weight, _ = evidence.arguments
    normalised = evidence.step.right(x, np.ones_like(weight), np.zeros_like(weight), **evidence.options)
    rows, theirs = normalised.reshape(-1, x.shape[-1]), evidence.theirs.reshape(-1, x.shape[-1])
    if len(np.unique(rows, axis=0)) < 2 + ENOUGH:
        return None
    across = rows - rows.mean(axis=0)
    slope = (across * theirs).sum(axis=0) / (across * across).sum(axis=0)
    return evidence.instead(normalised * slope + (theirs.mean(axis=0) - slope * rows.mean(axis=0)))


def normalise(x: Any, w: Any) -> Any:
    """Apply the norm that a view has."""
    return layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)


def norm_before_residual(step: Step, x: Any, residual: Any, w: Any) -> Any:
    """The end of a block as x + norm(dense(…))."""
    x = dropout(model.dense(x, w), rate=w.config.hidden_dropout_prob)
    return add(normalise(x, w), residual, name="residual")


def pre_norm_end(x: Any, residual: Any, w: Any) -> Any:
    """The end of a block whose norm was at its beginning."""
    x = dropout(model.dense(x, w), rate=w.config.hidden_dropout_prob, name="output.dropout")
    return add(x, residual, name="output.residual")


def pre_norm_attention(step: Step, x: Any, w: Any, **options: Any) -> Any:
    """x + attention(norm(x))."""
    context, probs, keys_and_values = model.self_attention(normalise(x, w.at("output")), w.at("self"), **options)
    return pre_norm_end(context, x, w.at("output")), probs, keys_and_values


def pre_norm_feed_forward(step: Step, x: Any, w: Any) -> Any:
    """x + feed_forward(norm(x))."""
    wide = model.intermediate(normalise(x, w.at("output")), w.at("intermediate"))
    return pre_norm_end(wide, x, w.at("output"))


NORMS = (
    Mistake(
        "another layer_norm_eps",
        "layer_norm is computed with another ε than the configuration's, which is 1e-12 where nothing else is said",
        {f"{eps:g}".replace("e-0", "e-"): with_eps(eps) for eps in (1e-5, 1e-6, 1e-12, 1e-3)},
    ),
    Mistake(
        "variance with n − 1",
        "layer_norm's variance is divided by H − 1; it is the mean over all H features",
        {"": {layer_norm: variance_of_a_sample}},
    ),
    Mistake(
        "norm without the mean",
        "layer_norm divides by the root mean square (RMSNorm); the mean is subtracted first",
        {"": {layer_norm: mean_kept}},
    ),
    Mistake(
        "norm over the tokens",
        "layer_norm takes mean and variance over the tokens of a text; they are taken over the features of a token",
        {"": {layer_norm: over_the_tokens}},
    ),
    Mistake(
        "another weight or bias of a norm",
        "layer_norm's weight or bias is another one than the checkpoint's (old files call them gamma and beta)",
        {
            "both left at 1 and 0": {
                layer_norm: lambda step, x, weight, bias, **options: step.right(
                    x, np.ones_like(weight), np.zeros_like(bias), **options
                )
            },
            "weight left at 1": {
                layer_norm: lambda step, x, weight, bias, **options: step.right(
                    x, np.ones_like(weight), bias, **options
                )
            },
            "bias left at 0": {
                layer_norm: lambda step, x, weight, bias, **options: step.right(
                    x, weight, np.zeros_like(bias), **options
                )
            },
        },
        recognise=fitted_norm,
    ),
    Mistake(
        "norm missing",
        "a layer_norm is left out",
        {"": {layer_norm: first}},
    ),
    Mistake(
        "norm before the residual",
        "the norm is taken of the block's result, or of its input (pre-norm), before they are added; it comes after",
        {
            "of the block's result": {model.residual_output: norm_before_residual},
            "of its input": {model.attention: pre_norm_attention, model.feed_forward: pre_norm_feed_forward},
        },
    ),
    Mistake(
        "residual missing",
        "what came into a block is not added to its result before the norm",
        {"": {add: At(".residual", first)}},
    ),
)


# ----------------------------------------------------------------------------------------------------- linear layers


def read_as_in_out(step: Step, x: Any, weight: Any, *bias: Any) -> Any:
    """The matrix read as (in, out)."""
    return step.right(x, weight.reshape(weight.shape[::-1]).T, *bias)


def groups_transposed(step: Step, x: Any, weight: Any, bias: Any) -> Any:
    """The matrix of each group read as (out, in)."""
    groups, into, out = weight.shape
    return step.right(x, weight.reshape(groups, out, into).transpose(0, 2, 1), bias)


def taken_from(**others: str) -> Changes:
    """Weight and bias of query, key or value taken from another of them."""

    def change(step: Step, x: Any, *right: Any) -> Any:
        scope, _, which = step.name.rpartition(".")
        names = (f"{scope}.{others[which]}.{part}" for part in ("weight", "bias"))
        return step.right(x, *(step.weights[name] for name in names))

    return {linear: At(tuple(f"self.{which}" for which in others), change)}


def of_layer(other: Callable[[int, Step], int]) -> Changes:
    """Weight and bias of another layer of the encoder, where there is one."""

    def change(step: Step, x: Any, *right: Any, **options: Any) -> Any:
        start, _, rest = step.name.partition("encoder.layer.")
        index, _, module = rest.partition(".")
        if start or not module:
            return step.right(x, *right, **options)
        names = (f"encoder.layer.{other(int(index), step)}.{module}.{part}" for part in ("weight", "bias"))
        theirs = [step.weights.get(name) for name in names]
        fit = all(y is not None and y.shape == z.shape for y, z in zip(theirs, right, strict=False))
        return step.right(x, *(theirs if fit else right), **options)

    return dict.fromkeys((linear, grouped_linear, layer_norm), change)


def fitted_weight(evidence: Evidence) -> np.ndarray | None:
    """Fit matrix and bias by least squares, where there are enough different rows, and return what they make."""
    if evidence.layer is not linear:
        return None
    x = evidence.arguments[0]
    rows = np.unique(x.reshape(-1, x.shape[-1]), axis=0)
    if len(rows) < rows.shape[1] + 1 + ENOUGH:
        return None
    features = np.concatenate([x.reshape(-1, x.shape[-1]), np.ones((x[..., 0].size, 1))], axis=1)
    matrix = np.linalg.lstsq(features, evidence.theirs.reshape(len(features), -1), rcond=None)[0]
    return (features @ matrix).reshape(evidence.theirs.shape)


def fitted_bias(evidence: Evidence) -> np.ndarray | None:
    """Fit a bias, where there are different rows, and return what it makes: every row has the same numbers added."""
    if evidence.layer not in (linear, grouped_linear):
        return None
    x = evidence.arguments[0]
    if len(np.unique(x.reshape(-1, x.shape[-1]), axis=0)) < 2:
        return None
    features = evidence.right.shape[-1]
    return evidence.right + (evidence.theirs - evidence.right).reshape(-1, features).mean(axis=0)


def another_bias(evidence: Evidence) -> Changes | None:
    """Recognise another bias."""
    value = fitted_bias(evidence)
    return None if value is None else evidence.instead(value)


def another_weight(evidence: Evidence, *, decoders: bool = False) -> Changes | None:
    """Recognise another matrix, where another bias is not enough."""
    value, of_bias = fitted_weight(evidence), fitted_bias(evidence)
    if value is None or of_bias is None or (evidence.step.name in DECODERS) is not decoders:
        return None
    return None if np.abs(of_bias - evidence.theirs).max() <= evidence.allowed else evidence.instead(value)


def another_decoder(evidence: Evidence) -> Changes | None:
    """Recognise another matrix of the decoder."""
    return another_weight(evidence, decoders=True)


def narrowed(bits: int) -> Changes:
    """Both factors of matrix products rounded to a number of binary digits."""

    def rounded(x: Any) -> Any:
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)

    def change(step: Step, x: Any, y: Any, *rest: Any) -> Any:
        return step.right(rounded(x), rounded(y), *rest)

    return dict.fromkeys(PRODUCTS, change)


def summed_in_float16(*, fused: bool) -> Changes:
    """Products added one after another, each sum rounded to float16; `fused`: the product itself is not."""
    wide = np.float32 if fused else np.float16

    def product(x: Any, y: Any) -> np.ndarray:
        x, y = x.astype(np.float16), y.astype(np.float16)
        total = np.zeros((*x.shape[:-1], y.shape[-1]), np.float16)
        for index in range(x.shape[-1]):
            product = x[..., index, None].astype(wide) * y[..., None, index, :].astype(wide)
            total = (total + product).astype(np.float16)
        return total.astype(np.float64)

    def of_rows(step: Step, x: Any, weight: Any, bias: Any = 0.0) -> Any:
        return (product(x.reshape(-1, x.shape[-1]), weight.T) + bias).reshape(*x.shape[:-1], -1)

    return {
        linear: of_rows,
        content_scores: lambda step, q, k: product(q, np.swapaxes(k, -1, -2)),
        content_context: lambda step, probs, v: product(probs, v),
    }


PRODUCTS = (linear, grouped_linear, content_scores, content_context)

LINEAR = (
    Mistake(
        "weight transposed",
        "a matrix is read as (in, out); linear layers keep (out, in), ConvBERT's groups (in, out)",
        {"": {linear: read_as_in_out, grouped_linear: groups_transposed}},
    ),
    Mistake(
        "query, key or value swapped",
        "a linear layer of attention has the weights of another one",
        {
            "query and key": taken_from(query="key", key="query"),
            "key and value": taken_from(key="value", value="key"),
            "query and value": taken_from(query="value", value="query"),
            "key, value, query for query, key, value": taken_from(query="key", key="value", value="query"),
            "value, query, key for query, key, value": taken_from(query="value", key="query", value="key"),
        },
    ),
    Mistake(
        "weights of another layer",
        "a layer of the encoder has the weights of another one; each has its own",
        {
            "of the first": of_layer(lambda index, step: 0),
            "of the last": of_layer(lambda index, step: step.config.num_hidden_layers - 1),
            "of the next": of_layer(lambda index, step: index + 1),
            "of the one before": of_layer(lambda index, step: index - 1),
        },
    ),
    Mistake(
        "bias missing",
        "a linear layer leaves out its bias, or adds another one",
        {
            "": {
                linear: lambda step, x, weight, bias=None: step.right(x, weight, None),
                grouped_linear: lambda step, x, weight, bias: step.right(x, weight, bias * 0.0),
                span_convolution.separable_convolution: lambda step, *x, **o: step.right(*x[:3], x[3] * 0.0),
            }
        },
        recognise=another_bias,
    ),
    Mistake(
        "another weight",
        "a linear layer's results are another linear map of its inputs: its weights are others than the checkpoint's",
        {},
        recognise=another_weight,
    ),
    Mistake(
        "matrix products in a narrower dtype",
        "matrix products round their factors to fewer digits (TPUs and GPUs do, unless told otherwise)",
        {"bfloat16": narrowed(8), "TF32 or float16": narrowed(11)},
    ),
    Mistake(
        "float16 accumulation",
        "the products of a matrix product are summed up in float16; sum them in float32, and round the sum",
        {
            "product and sum rounded": summed_in_float16(fused=False),
            "sum rounded": summed_in_float16(fused=True),
        },
    ),
)


# ------------------------------------------------------------------------------------------------------------ attention


def with_scale(factor: Callable[[Step, float], float]) -> Changes:
    """Another factor of the scores."""
    return {
        attention_probs: lambda step, scores, mask=None, *, scale: step.right(scores, mask, scale=factor(step, scale))
    }


UNSCALED = with_scale(lambda step, scale: 1.0)


def head_scale(step: Step) -> float:
    """Return 1/√D."""
    return 1.0 / math.sqrt(step.config.head_size)


def has_position_term(step: Step) -> bool:
    """Whether the scores have a position term."""
    kind = getattr(step.config, "position_embedding_type", "absolute")
    return step.config.model_type == "nezha" or (kind != "absolute" and "cross" not in step.name)


def content_scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The content term divided by √D, of a model that has a position term too."""
    if not has_position_term(step):
        raise ValueError("there is no position term")
    return step.right(*arguments, **options) * head_scale(step)


def keys_scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The keys divided by √D, of a model that has no position term."""
    if has_position_term(step):
        raise ValueError("the position term would not be divided")
    return step.right(*arguments, **options) * head_scale(step)


def scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The result divided by √D."""
    return step.right(*arguments, **options) * head_scale(step)


def softmax_over(axis: int) -> Change:
    """Probabilities that sum to 1 over another axis."""

    def change(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        logits = scores * scale if mask is None else scores * scale + mask
        return np.moveaxis(softmax(np.moveaxis(logits, axis, -1)), -1, axis)

    return change


def features_in_turn(step: Step, x: Any, *, head_size: int) -> Any:
    """(B, L, D, N) in place of (B, L, N, D)."""
    return x.reshape(*x.shape[:2], head_size, -1).transpose(0, 3, 1, 2)


def merged_in_turn(step: Step, x: Any) -> Any:
    """The inverse of `features_in_turn`."""
    return x.transpose(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], -1)


def split_without_transposing(step: Step, x: Any, *, head_size: int) -> Any:
    """A reshape to (B, N, L, D) alone."""
    return x.reshape(x.shape[0], -1, x.shape[1], head_size)


def merged_without_transposing(step: Step, x: Any) -> Any:
    """A reshape to (B, L, N·D) alone."""
    return x.reshape(x.shape[0], x.shape[2], -1)


def without_states(step: Step, x: Any, w: Any, *, states: Any = None, **options: Any) -> Any:
    """Cross-attention that looks at the decoder's own tokens."""
    if states is None:
        raise ValueError("this is no cross-attention")
    return step.right(x, w, **options)


ATTENTION = (
    Mistake(
        "scale missing",
        "the scores are not divided by √D before the softmax",
        {"": UNSCALED},
    ),
    Mistake(
        "another scale",
        "the scores are divided by D, by √H or by another number; it is √D, D the size of a head",
        {
            "doubled: by D": with_scale(lambda step, scale: scale * scale),
            "by √H": with_scale(lambda step, scale: 1.0 / math.sqrt(step.config.hidden_size)),
            "by √N": with_scale(lambda step, scale: 1.0 / math.sqrt(step.config.attention_heads)),
            "multiplied": with_scale(lambda step, scale: 1.0 / scale),
        },
    ),
    Mistake(
        "scale applied before the position term",
        "the content term alone is divided by √D; the sum of content and position term is",
        {
            "in the content term": {content_scores: content_scaled, **UNSCALED},
            "in the keys": {split_heads: At(".k", content_scaled), **UNSCALED},
            "in the sum": {
                add: At(".scores", lambda step, x, y: step.right(x * head_scale(step), y)),
                **UNSCALED,
            },
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "scale applied early",
        "queries, keys or scores are divided by √D already, and not again: the probabilities are right, and nothing is "
        "to be mended; leave this array out, or compare it after a multiplication",
        {
            "in the queries": {split_heads: At(".q", scaled), **UNSCALED},
            "in the keys": {split_heads: At(".k", keys_scaled), **UNSCALED},
            "in the scores": {
                content_scores: scaled,
                position_scores: scaled,
                query_distance_scores: scaled,
                key_distance_scores: scaled,
                **UNSCALED,
            },
        },
    ),
    Mistake(
        "softmax over the wrong axis",
        "probabilities sum to 1 over queries or heads; they do over the keys, the last axis",
        {
            "over the queries": {attention_probs: softmax_over(-2)},
            "over the heads": {attention_probs: softmax_over(-3)},
            "over the texts": {attention_probs: softmax_over(0)},
        },
    ),
    Mistake(
        "heads split in the wrong order",
        "features are not cut into N heads of D and moved before the tokens: (B, L, N·D) → (B, L, N, D) → (B, N, L, D)",
        {
            "D before N": {split_heads: features_in_turn},
            "without transposing": {split_heads: split_without_transposing},
            "D before N, and merged so": {
                split_heads: features_in_turn,
                merge_heads: merged_in_turn,
            },
            "without transposing, and merged so": {
                split_heads: split_without_transposing,
                merge_heads: merged_without_transposing,
            },
        },
    ),
    Mistake(
        "heads merged in the wrong order",
        "the heads are not put side by side for each token: (B, N, L, D) → (B, L, N, D) → (B, L, N·D)",
        {
            "without transposing": {merge_heads: merged_without_transposing},
            "D before N": {merge_heads: merged_in_turn},
        },
    ),
    Mistake(
        "head mask ignored",
        "the head mask is not multiplied with the probabilities, or turned round",
        {
            "": {mask_heads: first},
            "turned round": {mask_heads: lambda step, probs, mask: step.right(probs, 1.0 - mask)},
        },
    ),
    Mistake(
        "new keys before the cache",
        "the keys and values of this call are put before those of the cache; they come after them",
        {"": {append_keys: lambda step, past, new: np.concatenate([new, past], axis=2)}},
        ("nezha", "bert"),
    ),
    Mistake(
        "cross-attention to itself",
        "cross-attention takes keys and values from the decoder's own tokens; they come from the encoder's states",
        {"": {model.self_attention: without_states}},
        ("nezha", "bert"),
    ),
)


# ---------------------------------------------------------------------------------------------------------------- masks


def is_attended(mask: Any) -> Any:
    """Where an additive mask lets a query attend to a key."""
    return mask > NEVER


def made_otherwise(alter: Callable[..., Any]) -> Change:
    """Alter the additive mask."""
    return lambda step, *arguments, **options: alter(step.right(*arguments, **options))


def before_softmax(alter: Callable[..., Any]) -> Change:
    """Alter the mask where it is added."""

    def change(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        if mask is None:
            raise ValueError("there is no mask")
        return step.right(scores, alter(mask), scale=scale)

    return change


def padding_inverted(step: Step, weight: Any, attended: Any, **options: Any) -> Any:
    """1 taken for padding."""
    if attended is None:
        raise ValueError("there is no padding mask")
    return step.right(weight, 1.0 - attended, **options)


def scores_multiplied(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The scores of masked keys set to 0."""
    if mask is None:
        raise ValueError("there is no mask")
    return step.right(scores * is_attended(mask), None, scale=scale)


def probs_multiplied(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The probabilities of masked keys set to 0, after the softmax."""
    if mask is None:
        raise ValueError("there is no mask")
    return step.right(scores, None, scale=scale) * is_attended(mask)


def minima_added(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Padding mask and causal mask each made additive, and added: twice the minimum is −∞."""
    padding = np.asarray(step.inputs["attention_mask"])
    if mask is None or "cross" in step.name or not step.config.is_decoder or padding.ndim != 2:
        raise ValueError("there are no two masks")
    queries, keys = scores.shape[-2:]
    later = np.arange(keys)[None, :] > np.arange(queries)[:, None] + (keys - queries)
    twice = (padding[:, None, None, :] == 0) & later
    return step.right(scores, np.where(twice, -np.inf, mask), scale=scale)


def causal_by(may_attend: Callable[[Any, Any, int], Any]) -> Changes:
    """Another rule for a decoder: of key and query, counted from 0, and the number of tokens in the cache."""

    def change(step: Step, weight: Any, attended: Any, *, queries: int, keys: int, causal: bool) -> Any:
        if not causal or (attended is not None and attended.ndim == 3):
            raise ValueError("this mask is not causal")
        full = step.right(weight, attended, queries=queries, keys=keys, causal=False)
        may = may_attend(np.arange(keys)[None, :], np.arange(queries)[:, None], keys - queries)
        return np.where(may, full, np.finfo(full.dtype).min)

    return {additive_mask: change}


def least(mask: Any, number: float) -> Any:
    """Another number where the mask says never."""
    return np.where(is_attended(mask), mask, number)


MASKS = (
    Mistake(
        "mask inverted",
        "masked and attended keys are exchanged; 1 is a key that is attended to, 0 one that is not",
        {
            "": {additive_mask: made_otherwise(lambda mask: np.where(is_attended(mask), mask.min() * 1.0, 0.0))},
            "of the padding": {additive_mask: padding_inverted},
        },
    ),
    Mistake(
        "mask multiplied",
        "the mask of 0 and 1 is multiplied with scores or probabilities, or added as it is; it is made additive, "
        "(1 − mask) · minimum, and added before the softmax",
        {
            "with the scores": {attention_probs: scores_multiplied},
            "with the probabilities": {attention_probs: probs_multiplied},
            "added as it is": {additive_mask: made_otherwise(lambda mask: is_attended(mask) * 1.0)},
            "added as it is, to the scores": {attention_probs: before_softmax(lambda mask: is_attended(mask) * 1.0)},
        },
    ),
    Mistake(
        "mask of −1e4",
        "masked scores get a number like −10000 added; it is the dtype's minimum, so that a row with every key masked "
        "is uniform",
        {
            name: {
                additive_mask: made_otherwise(lambda mask, number=number: least(mask, number)),
                attention_probs: before_softmax(lambda mask, number=number: least(mask, number)),
            }
            for name, number in (("", -1e4), ("−1e9", -1e9), ("−1000", -1e3), ("−100", -1e2))
        },
    ),
    Mistake(
        "mask of −∞",
        "masked scores get −∞ added, and a row with every key masked is NaN; with the dtype's minimum it is uniform",
        {
            "": {
                additive_mask: made_otherwise(lambda mask: least(mask, -np.inf)),
                attention_probs: before_softmax(lambda mask: least(mask, -np.inf)),
            },
            "padding and causal mask added": {attention_probs: minima_added},
        },
    ),
    Mistake(
        "mask missing",
        "no mask is added to the scores: padding is attended to",
        {
            "": {
                additive_mask: made_otherwise(np.zeros_like),
                attention_probs: before_softmax(lambda mask: None),
            },
            "of the padding": {
                additive_mask: lambda step, weight, attended, **options: step.right(weight, None, **options)
            },
        },
    ),
    Mistake(
        "causal mask missing",
        "a decoder's token attends to those after it; it attends to itself and those before it alone",
        {"": causal_by(lambda key, query, past: key >= 0)},
        ("nezha", "bert"),
    ),
    Mistake(
        "causal mask off by one",
        "a decoder's token attends to the next one, or not to itself, or the cache's tokens are not counted",
        {
            "the next one too": causal_by(lambda key, query, past: key <= query + past + 1),
            "not to itself": causal_by(lambda key, query, past: key < query + past),
            "without the cache": causal_by(lambda key, query, past: key <= query),
            "those after it in place of those before": causal_by(lambda key, query, past: key >= query + past),
        },
        ("nezha", "bert"),
    ),
)


# ---------------------------------------------------------------------------------------------- relative positions


def by_rows(row_of: Callable[[Any, int], Any], *, past_counts: bool = True) -> Changes:
    """Take another row of the table: `row_of` distance, key − query, and K."""

    def rows(table: Any, queries: int, keys: int, past: int = 0) -> Any:
        distance = np.arange(keys)[None, :] - np.arange(queries)[:, None] - (past if past_counts else 0)
        return table[row_of(distance, table.shape[0] // 2)]  # (Q, S, D)

    def scores(step: Step, q: Any, table: Any, *, keys: int, past: int = 0) -> Any:
        return np.einsum("bnqd,qsd->bnqs", q, rows(table, q.shape[2], keys, past))

    def context(step: Step, probs: Any, table: Any, *, past: int = 0) -> Any:
        return np.einsum("bnqs,qsd->bnqd", probs, rows(table, probs.shape[2], probs.shape[3], past))

    return {position_scores: scores, position_context: context}


def clipped(distance: Any, reach: int) -> Any:
    """The right row."""
    return np.clip(distance, -reach, reach) + reach


def within_reach(step: Step, *arguments: Any, **options: Any) -> Any:
    """The position term without the rows of −K and K, where what is beyond them goes too."""
    return step.right(arguments[0], np.pad(arguments[1][1:-1], ((1, 1), (0, 0))), **options)


def frequencies(size: int) -> np.ndarray:
    """1 / 10000^(2i/D)."""
    return 10000.0 ** (-np.arange(0, size, 2) / size)


def in_turn(angle: np.ndarray, *, cosine_first: bool = False) -> np.ndarray:
    """Each sine beside its cosine."""
    pair = (np.cos(angle), np.sin(angle)) if cosine_first else (np.sin(angle), np.cos(angle))
    return np.stack(pair, axis=-1).reshape(len(angle), -1)


def halves(angle: np.ndarray, *, cosine_first: bool = False) -> np.ndarray:
    """All sines, then all cosines."""
    pair = (np.cos(angle), np.sin(angle)) if cosine_first else (np.sin(angle), np.cos(angle))
    return np.concatenate(pair, axis=-1)


def with_table(make: Callable[[Any, int, int], Any]) -> Changes:
    """Another table, made from the configuration, K and D."""
    return {given: At("relative_positions", lambda step, table: make(step.config, table.shape[0] // 2, table.shape[1]))}


def with_angles(
    make: Callable[..., np.ndarray], frequency: Callable[[int], Any] = frequencies, **options: Any
) -> Changes:
    """Another arrangement of sines and cosines, or other frequencies."""
    return with_table(lambda config, K, D: make(np.arange(2 * K + 1)[:, None] * frequency(D), **options))


def with_reach(reach: Callable[[Any], int]) -> Changes:
    """The table of another K."""
    return with_table(
        lambda config, K, D: relative_position_table(np.zeros(1), head_size=D, max_relative_position=reach(config))
    )


def fitted_table(evidence: Evidence) -> Changes | None:
    """Recognise a table of other numbers: theirs itself, or fitted to the position terms by least squares."""
    if evidence.step.name == "relative_positions":
        fits = float32_table(evidence) is None
        return {given: At("relative_positions", lambda step, table: evidence.theirs)} if fits else None
    if evidence.layer is position_scores:
        table = table_of_scores(evidence)
    elif evidence.layer is position_context:
        probs, right = evidence.arguments
        buckets = collect(probs, rows=len(right), past=evidence.options.get("past", 0))
        table = least_squares(buckets.reshape(-1, len(right)), evidence.theirs.reshape(-1, right.shape[1]))
    else:
        table = None
    if table is None:
        return None
    change: Change = lambda step, x, right, **options: step.right(x, table, **options)  # noqa: E731
    return {position_scores: change, position_context: change}


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Solve x · table = y, where there are enough equations."""
    table, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    return table if len(np.unique(x, axis=0)) >= rank + ENOUGH else None


def table_of_scores(evidence: Evidence) -> np.ndarray | None:
    """Fit each row of the table to the scores at its distance."""
    q, right = evidence.arguments
    keys, past = evidence.options["keys"], evidence.options.get("past", 0)
    distance = np.arange(keys)[None, :] - np.arange(q.shape[2])[:, None] - past
    row, table, surplus = clipped(distance, len(right) // 2), np.array(right), 0
    for index in np.unique(row):
        query, key = np.nonzero(row == index)
        asked = np.moveaxis(q[:, :, query], 3, 0).reshape(q.shape[3], -1).T  # (equations, D)
        answered = evidence.theirs[:, :, query, key].reshape(-1)
        table[index] = np.linalg.lstsq(asked, answered, rcond=None)[0]
        surplus += max(0, len(np.unique(asked, axis=0)) - q.shape[3])
    return table if surplus >= ENOUGH else None


def float32_table(evidence: Evidence) -> Changes | None:
    """Recognise a table whose angles were computed in float32: they are rounded, the larger the more."""
    if evidence.step.name != "relative_positions":
        return None
    angle = np.arange(len(evidence.right))[:, None]
    if (np.abs(evidence.theirs - evidence.right) > 2.0**-22 * (1.0 + angle)).any():
        return None
    return {given: At("relative_positions", lambda step, table: evidence.theirs)}


def flipped_distances(step: Step, x: Any, weight: Any, **options: Any) -> Any:
    """Distances counted from key to query."""
    return step.right(x, weight[::-1], **options)


def next_distance(step: Step, x: Any, weight: Any, **options: Any) -> Any:
    """The row of the next distance."""
    return step.right(x, np.roll(weight, -1, axis=0), **options)


def of_both(change: Change) -> Changes:
    """Change both terms of BERT's learned distances."""
    return {query_distance_scores: change, key_distance_scores: change}


def always(reach: int) -> Callable[[Any], int]:
    """The same K for every configuration."""
    return lambda config: reach


REACHES: dict[str, Callable[[Any], int]] = {
    **{f"K = {reach}": always(reach) for reach in (64, 128, 127, 16, 32, 8, 256, 512)},
    "K = max_position_embeddings": lambda config: config.max_position_embeddings,
    "K = max_position_embeddings − 1": lambda config: config.max_position_embeddings - 1,
    "K + 1": lambda config: config.max_relative_position + 1,
    "K − 1": lambda config: max(1, config.max_relative_position - 1),
    "2K": lambda config: 2 * config.max_relative_position,
}

POSITIONS = (
    Mistake(
        "position term missing in keys",
        "the scores are q · k alone; NEZHA adds the position term, q · t",
        {
            "left out": {position_scores: nothing},
            "computed, not added": {add: At(".scores", first)},
        },
        NEZHA,
    ),
    Mistake(
        "position term missing in values",
        "the context is made of the values alone; NEZHA adds the relative positions to the values too",
        {
            "left out": {position_context: nothing},
            "computed, not added": {add: At("attention.self.context", first)},
        },
        NEZHA,
    ),
    Mistake(
        "position terms missing",
        "no relative position enters attention; NEZHA adds them to keys and to values",
        {
            "left out": {
                position_scores: nothing,
                position_context: nothing,
            },
            "computed, not added": {add: At((".scores", "attention.self.context"), first)},
        },
        NEZHA,
    ),
    Mistake(
        "relative distance reversed",
        "the distance is query − key; it is key − query",
        {"": by_rows(lambda distance, K: clipped(-distance, K))},
        NEZHA,
    ),
    Mistake(
        "relative distance without its sign",
        "keys before and after the query look alike; the row is clip(key − query, −K, K) + K",
        {
            "|distance| + K": by_rows(lambda distance, K: clipped(np.abs(distance), K)),
            "|distance|": by_rows(lambda distance, K: np.minimum(np.abs(distance), K)),
        },
        NEZHA,
    ),
    Mistake(
        "clip off by one",
        "distances are clipped one too early; they are clipped at −K and K",
        {
            "at K − 1": by_rows(lambda distance, K: np.clip(distance, 1 - K, K - 1) + K),
            "at K − 1 to the right": by_rows(lambda distance, K: np.clip(distance, -K, K - 1) + K),
            "at K − 1 to the left": by_rows(lambda distance, K: np.clip(distance, 1 - K, K) + K),
            "no term from K on": {
                position_scores: within_reach,
                position_context: within_reach,
            },
        },
        NEZHA,
    ),
    Mistake(
        "row of the table off",
        "the distance is not counted from row K; its row is clip(key − query, −K, K) + K",
        {
            "by −1": by_rows(lambda distance, K: np.maximum(clipped(distance, K) - 1, 0)),
            "by 1": by_rows(lambda distance, K: np.minimum(clipped(distance, K) + 1, 2 * K)),
            "K not added": by_rows(lambda distance, K: np.clip(distance, -K, K)),
            "negative ones cut off": by_rows(lambda distance, K: np.clip(distance, 0, 2 * K)),
        },
        NEZHA,
    ),
    Mistake(
        "K from another config",
        "the table is that of another max_relative_position",
        {name: with_reach(reach) for name, reach in REACHES.items()},
        NEZHA,
    ),
    Mistake(
        "sine and cosine halves concatenated",
        "the table has all sines and then all cosines, or each cosine before its sine; they stand in turn, sine first",
        {
            "sines, then cosines": with_angles(halves),
            "cosines, then sines": with_angles(halves, cosine_first=True),
            "in turn, cosine first": with_angles(in_turn, cosine_first=True),
        },
        NEZHA,
    ),
    Mistake(
        "other wavelengths in the table",
        "the table's angles are row / 10000^(2i/D), with i from 0 to D/2 − 1 and rows from 0 to 2K",
        {
            "exponent i/D": with_angles(in_turn, lambda size: 10000.0 ** (-np.arange(size // 2) / size)),
            "exponent i/(D/2 − 1)": with_angles(
                in_turn, lambda size: 10000.0 ** (-np.arange(size // 2) / positive(size // 2 - 1))
            ),
            "rows from −K to K": with_table(
                lambda config, K, D: in_turn(np.arange(-K, K + 1)[:, None] * frequencies(D))
            ),
            "rows from 1": with_table(lambda config, K, D: in_turn(np.arange(1, 2 * K + 2)[:, None] * frequencies(D))),
        },
        NEZHA,
    ),
    Mistake(
        "table computed in float32",
        "the table's angles are computed in float32, as in transformers, and are 1e-5 away; NEZHA's authors do it "
        "in float64 and round the table",
        {},
        NEZHA,
        float32_table,
    ),
    Mistake(
        "table trained instead of fixed",
        "the relative positions have other numbers; they are sines and cosines, are not trained, and in no checkpoint",
        {},
        NEZHA,
        fitted_table,
    ),
    Mistake(
        "cached queries counted from 0",
        "the first query of a call is taken to stand at 0; it stands after the tokens of the cache",
        {
            "": {
                **by_rows(clipped, past_counts=False),
                **of_both(lambda step, x, weight, *, past=0, **options: step.right(x, weight, **options)),
                **positions_from(lambda step, ids: ids - past_of(step)),
            }
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "learned distance reversed",
        "the row of distance_embedding is that of key − query; it is that of query − key",
        {
            "": of_both(flipped_distances),
            "for the queries": {query_distance_scores: flipped_distances},
            "for the keys": {key_distance_scores: flipped_distances},
        },
        BERT,
    ),
    Mistake(
        "learned distance off by one",
        "the row of distance_embedding is the next one; distance 0 has the row max_position_embeddings − 1",
        {"": of_both(next_distance)},
        BERT,
    ),
    Mistake(
        "learned distances missing",
        "the scores have no term for the distance, or not the keys' one; relative_key has the queries', "
        "relative_key_query both",
        {
            "both": of_both(nothing),
            "the keys'": {key_distance_scores: nothing},
            "the queries'": {query_distance_scores: nothing},
            "computed, not added": {add: At(".scores", first)},
        },
        BERT,
    ),
)


def positive(number: int) -> int:
    """A divisor."""
    if number < 1:
        raise ValueError("the heads are too small")
    return number


# --------------------------------------------------------------------------------------------------------- activations


def other_activation(definition: Callable[[Any], Any]) -> Changes:
    """Another function in place of every activation but tanh."""
    bent = (activations.gelu, activations.gelu_new, activations.relu, activations.silu, activations.selu)
    return dict.fromkeys(bent, lambda step, x: definition(x))


def quick_gelu(x: Any) -> Any:
    """x sigmoid(1.702 x)."""
    return x * activations.sigmoid(1.702 * x)


ACTIVATIONS = (
    Mistake(
        "tanh GELU for erf",
        "GELU is computed by its tanh approximation (gelu_new); this model's is the exact one, x/2 · (1 + erf(x/√2))",
        {"": {activations.gelu: lambda step, x: activations.gelu_new.definition(x)}},
    ),
    Mistake(
        "another activation",
        "the feed-forward or a head bends by another function than hidden_act",
        {
            "gelu": other_activation(activations.gelu.definition),
            "relu": other_activation(activations.relu.definition),
            "silu": other_activation(activations.silu.definition),
            "tanh": other_activation(np.tanh),
            "quick gelu, x · sigmoid(1.702 x)": other_activation(quick_gelu),
            "none": other_activation(lambda x: x),
        },
    ),
)


# ---------------------------------------------------------------------------------------------------- heads and losses


def as_probabilities(bend: Callable[[Any], Any]) -> Changes:
    """Logits after a softmax."""
    heads = (*DECODERS, "classifier", "seq_relationship", "qa_outputs", "out_proj")
    return {linear: At(heads, lambda step, *arguments: bend(step.right(*arguments)))}


HEADS = (
    Mistake(
        "pooler without tanh",
        "the pooler's linear layer is not followed by tanh",
        {"": {activations.tanh: At("pooler.activation", first)}},
        ("nezha", "bert"),
    ),
    Mistake(
        "pooler of the last token",
        "another token than the first, [CLS], or the mean of all, goes into the pooler or the classifier",
        {
            "last token": {selection.first_token: lambda step, x: x[:, -1, :]},
            "mean of all": {selection.first_token: lambda step, x: x.mean(axis=1)},
        },
    ),
    Mistake(
        "summary of the first token",
        "a choice is summarised by another token than summary_type says; ConvBERT's default is the last",
        {
            "first token": {selection.last_token: lambda step, x: x[:, 0, :]},
            "mean of all": {selection.last_token: lambda step, x: x.mean(axis=1)},
        },
        CONVBERT,
    ),
    Mistake(
        "decoder untied",
        "the logits are another linear map of the same hidden states; the decoder's matrix is the word embeddings",
        {},
        recognise=another_decoder,
    ),
    Mistake(
        "transform of the language model missing",
        "the decoder follows the last layer; linear layer, activation and norm of the transform come between",
        {"": {families.transform: first}},
        ("nezha", "bert"),
    ),
    Mistake(
        "probabilities for logits",
        "logits are returned after a softmax; they are what comes before it",
        {
            "softmax": as_probabilities(softmax),
            "log softmax": as_probabilities(lambda x: np.log(softmax(x))),
        },
    ),
    Mistake(
        "start and end swapped",
        "the first column of qa_outputs scores the end of the answer; it scores the start",
        {"": {selection.column: lambda step, x, *, index: step.right(x, index=1 - index)}},
    ),
)


def count_of(labels: Any, ignore_index: int) -> Any:
    """Count the labels that are not left out."""
    return (labels != ignore_index).sum()


def over_all_labels(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
    """Divided by the number of all labels."""
    total = step.right(logits, labels, ignore_index=ignore_index) * count_of(labels, ignore_index)
    return total / labels.size


def summed(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
    """Not divided."""
    return step.right(logits, labels, ignore_index=ignore_index) * count_of(labels, ignore_index)


def ignored_as(number: Callable[[Any], int]) -> Change:
    """A class in place of the label that is left out."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        return step.right(logits, np.where(labels == ignore_index, number(logits), labels))

    return change


def averaged_by_text(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """The mean of each text's mean."""
    if labels.ndim < 2:
        raise ValueError("a text has one label")
    means = [step.right(x, y, **options) for x, y in zip(logits, labels, strict=True)]
    return np.nanmean(np.array(means))


def given_labels(step: Step) -> Any:
    """Return the labels that a decoder was given."""
    if not step.config.is_decoder:
        raise ValueError("this is no causal loss")
    return np.asarray(step.inputs["labels"])


def shifted(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """Each token's logits held against the next token's label, as in a decoder."""
    if labels.ndim < 2 or step.config.is_decoder:
        raise ValueError("the loss is shifted rightly, or cannot be")
    return step.right(logits[:, :-1], labels[:, 1:], **options)


def total(step: Step, predictions: Any, targets: Any) -> Any:
    """The sum over all elements."""
    return step.right(predictions, targets) * predictions.size


LOSSES = (
    Mistake(
        "loss counting −100",
        "labels of −100 are counted: in the number that is divided by, or as a class; they are left out of both",
        {
            "in the number": {cross_entropy: over_all_labels},
            "as class 0": {cross_entropy: ignored_as(lambda logits: 0)},
            "as the last class": {cross_entropy: ignored_as(lambda logits: logits.shape[-1] - 1)},
        },
    ),
    Mistake(
        "loss summed instead of averaged",
        "the loss is a sum; it is the mean over the labels that count, or over all numbers",
        {
            "": {
                cross_entropy: summed,
                mse: total,
                bce_with_logits: total,
                average: lambda step, x, y: x + y,
            },
            "over the labels of a text": dict.fromkeys(
                (mse, bce_with_logits),
                lambda step, predictions, targets: step.right(predictions, targets) * predictions.shape[-1],
            ),
        },
    ),
    Mistake(
        "loss averaged by text",
        "the loss is the mean of each text's mean; it is the mean over all labels of the batch",
        {"": {cross_entropy: averaged_by_text}},
    ),
    Mistake(
        "causal loss not shifted",
        "each token's logits are held against its own label, or the one before; they are held against the next token's",
        {
            "all tokens": {
                selection.all_but_last_token: first,
                cross_entropy: lambda step, logits, labels, **options: step.right(
                    logits, given_labels(step), **options
                ),
            },
            "all but the last": {
                cross_entropy: lambda step, logits, labels, **options: step.right(
                    logits, given_labels(step)[:, :-1], **options
                )
            },
            "the other way": {
                selection.all_but_last_token: lambda step, x: x[:, 1:],
                cross_entropy: lambda step, logits, labels, **options: step.right(
                    logits, given_labels(step)[:, :-1], **options
                ),
            },
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "loss shifted",
        "each token's logits are held against the next token's label; they are in a decoder alone",
        {"": {cross_entropy: shifted}},
    ),
    Mistake(
        "losses averaged",
        "the two losses of pretraining are averaged, or one is left out; they are added",
        {
            "": {add: At("loss", lambda step, x, y: (x + y) / 2.0)},
            "of the words alone": {add: At("loss", first)},
            "of the sentences alone": {add: At("loss", second)},
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "squared error halved",
        "the regression's loss has a factor of 1/2; it is the mean of (p − t)²",
        {"": {mse: lambda step, predictions, targets: step.right(predictions, targets) / 2.0}},
    ),
)


# ------------------------------------------------------------------------------------------------------------ ConvBERT


def one_sided(side: str) -> Changes:
    """Kernels over the tokens up to each (side left), or from each on."""

    def padded(x: Any, size: int, where: str) -> Any:
        width = (size // 2, 0) if where == "left" else (0, size // 2)
        return np.pad(x, ((0, 0), width, *((0, 0),) * (x.ndim - 2)))

    other = {"left": "right", "right": "left"}[side]

    def inside(y: Any, length: int) -> Any:
        return y[:, :length] if side == "left" else y[:, -length:]

    def span(step: Step, x: Any, depthwise: Any, *rest: Any) -> Any:
        return inside(step.right(padded(x, depthwise.shape[2], side), depthwise, *rest), x.shape[1])

    def dynamic(step: Step, values: Any, kernels: Any) -> Any:
        size = kernels.shape[-1]
        return inside(step.right(padded(values, size, side), padded(kernels, size, other)), values.shape[1])

    return {span_convolution.separable_convolution: span, span_convolution.dynamic_convolution: dynamic}


def kernels_by(bend: Callable[[Any], Any], *, turned: bool = False) -> Changes:
    """Kernels made otherwise of the scores (B, L, N, k), or of scores read as (B, L, k, N)."""

    def change(step: Step, scores: Any, *, size: int) -> Any:
        shape = (*scores.shape[:2], -1, size) if not turned else (*scores.shape[:2], size, scores.shape[2] // size)
        cut = scores.reshape(shape)
        return bend(np.swapaxes(cut, 2, 3) if turned else cut)

    return {span_convolution.convolution_kernels: change}


def over_axis(axis: int) -> Callable[[Any], Any]:
    """The softmax over another axis than the last."""
    return lambda x: np.moveaxis(softmax(np.moveaxis(x, axis, -1)), -1, axis)


def unmasked(step: Step, x: Any) -> Any:
    """Zeros for the tokens that are masked."""
    mask = np.asarray(step.inputs["attention_mask"])
    if mask.ndim != 2:
        raise ValueError("the mask is one for each query")
    return x * (mask[:, :, None] != 0)


def interleaved_groups(step: Step, x: Any, weight: Any, bias: Any) -> Any:
    """Feature i in group i mod G."""
    groups = weight.shape[0]
    return step.right(in_groups(x, groups), weight, bias)


def in_groups(x: Any, groups: int) -> Any:
    """Bring every G-th feature together."""
    return np.swapaxes(x.reshape(*x.shape[:-1], -1, groups), -1, -2).reshape(x.shape)


def shuffled_groups(step: Step, x: Any, weight: Any, bias: Any) -> Any:
    """Results put together feature by feature, not group by group."""
    y = step.right(x, weight, bias * 0.0)
    return in_groups(y, weight.shape[2]) + bias


def all_heads(step: Step) -> int:
    """Return the size of a head where head_ratio is ignored."""
    config = step.config
    features = config.attention_heads * config.head_size
    if features % config.num_attention_heads or config.num_attention_heads == config.attention_heads:
        raise ValueError("the features cannot be cut into so many heads")
    return features // config.num_attention_heads


SPAN, DYNAMIC = span_convolution.separable_convolution, span_convolution.dynamic_convolution
FLIPPED: Changes = {
    SPAN: lambda step, x, depthwise, *rest: step.right(x, depthwise[:, :, ::-1], *rest),
    DYNAMIC: lambda step, values, kernels: step.right(values, kernels[..., ::-1]),
}

OF_CONVBERT = (
    Mistake(
        "kernel reversed",
        "a kernel's first number weighs the token after; it weighs the token before (a cross-correlation)",
        {
            "both": FLIPPED,
            "of the span": {SPAN: FLIPPED[SPAN]},
            "of the dynamic convolution": {DYNAMIC: FLIPPED[DYNAMIC]},
        },
        CONVBERT,
    ),
    Mistake(
        "kernels not softmaxed",
        "the scores themselves are the kernels; each kernel is a softmax of k scores",
        {"": kernels_by(lambda x: x)},
        CONVBERT,
    ),
    Mistake(
        "kernels softmaxed over the wrong axis",
        "kernels sum to 1 over kernels or tokens, or are cut as (k, N); scores are cut into N kernels of k numbers, "
        "each of which sums to 1",
        {
            "over the kernels": kernels_by(over_axis(2)),
            "over the tokens": kernels_by(over_axis(1)),
            "over all": kernels_by(lambda x: softmax(x.reshape(*x.shape[:2], -1)).reshape(x.shape)),
            "cut as (k, N)": kernels_by(softmax, turned=True),
        },
        CONVBERT,
    ),
    Mistake(
        "span not multiplied by the query",
        "kernels are made of the span or of the query alone, or of their sum; they are made of the product",
        {
            "the span alone": {span_convolution.multiply: first},
            "the query alone": {span_convolution.multiply: second},
            "their sum": {span_convolution.multiply: lambda step, x, y: x + y},
        },
        CONVBERT,
    ),
    Mistake(
        "convolution padded on one side",
        "a kernel covers the tokens up to each, or from each on; it covers as many before as after",
        {
            f"{side}{which}": {layer: one_sided(side)[layer] for layer in layers}
            for side in ("left", "right")
            for which, layers in (("", (SPAN, DYNAMIC)), (", of the span", (SPAN,)), (", dynamic", (DYNAMIC,)))
        },
        CONVBERT,
    ),
    Mistake(
        "padding left out of the convolutions",
        "masked tokens are zeros for the convolutions; these ignore the mask, and read padding like text",
        {
            "": {
                SPAN: lambda step, x, *rest: step.right(unmasked(step, x), *rest),
                DYNAMIC: lambda step, values, kernels: step.right(unmasked(step, values), kernels),
            }
        },
        CONVBERT,
    ),
    Mistake(
        "heads and convolutions joined in the wrong order",
        "the convolutions' features come first; those of the attention heads do",
        {"": {span_convolution.join_features: lambda step, x, y: step.right(y, x)}},
        CONVBERT,
    ),
    Mistake(
        "head_ratio ignored",
        "the features are cut into num_attention_heads heads; num_attention_heads // head_ratio are left",
        {
            "": {
                split_heads: lambda step, x, *, head_size: step.right(x, head_size=all_heads(step)),
                **with_scale(lambda step, scale: 1.0 / math.sqrt(all_heads(step))),
            }
        },
        CONVBERT,
    ),
    Mistake(
        "groups in turn",
        "a grouped linear layer takes every G-th feature for a group, or gives them back so; groups are runs of them",
        {
            "taken so": {grouped_linear: interleaved_groups},
            "given back so": {grouped_linear: shuffled_groups},
        },
        CONVBERT,
    ),
)


# ---------------------------------------------------------------------------------------------------------- everywhere


def dropped(evidence: Evidence) -> Changes | None:
    """Recognise dropout: each number is 0 or c times the right one, perhaps with the residual added."""
    added: Any = 0.0
    right, theirs = evidence.right, evidence.theirs
    if evidence.layer is add and evidence.step.name.endswith("residual"):
        right, added = evidence.arguments
        theirs = theirs - added
    gone = (np.abs(theirs) <= evidence.allowed) & (np.abs(right) > 2.0 * evidence.allowed)
    kept = ~gone & (np.abs(right) >= np.median(np.abs(right)))
    if not gone.any() or not kept.any():
        return None
    factor = float(np.median(theirs[kept] / right[kept]))
    if not 1.01 < factor < 20.0:
        return None
    scaled_up = factor * right
    return evidence.instead(np.where(np.abs(theirs) < np.abs(theirs - scaled_up), 0.0, scaled_up) + added)


EVERYWHERE = (
    Mistake(
        "dropout left on",
        "numbers are set to 0 at random, and the others scaled up; dropout is for training alone (model.eval())",
        {},
        recognise=dropped,
    ),
)

PARTS: dict[str, tuple[Mistake, ...]] = {
    "Embeddings": EMBEDDINGS,
    "Norms and residuals": NORMS,
    "Linear layers": LINEAR,
    "Attention": ATTENTION,
    "Masks": MASKS,
    "Relative positions": POSITIONS,
    "Activations": ACTIVATIONS,
    "Heads": HEADS,
    "Losses": LOSSES,
    "ConvBERT": OF_CONVBERT,
    "Everywhere": EVERYWHERE,
}
MISTAKES: tuple[Mistake, ...] = tuple(mistake for part in PARTS.values() for mistake in part)
