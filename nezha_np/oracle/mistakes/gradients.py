"""The mistakes that are made walking back: the forward pass is right, a gradient is not.

A change is called in place of a layer's gradient: ``change(step, dy, y, *arguments, **options)``; the gradient itself
is ``step.right``. It returns what a gradient returns: one array, or one for each argument, None where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nezha_np.arrays import in_statistics_dtype, namespace
from nezha_np.layers import (
    activations,
    addition,
    attention,
    embedding,
    layer_norm,
    linear,
    losses,
    relative_position,
    selection,
)
from nezha_np.layers.linear import flat_rows
from nezha_np.oracle.mistakes import Mistake
from nezha_np.oracle.mistakes.mistake import DECODERS
from nezha_np.oracle.replay import Step


def tanh_gelu_gradient(step: Step, dy: Any, y: Any, x: Any) -> Any:
    """Walk back through tanh's approximation."""
    return activations.gelu_new_gradient(dy, y, x)


def gradient_of_the_output(step: Step, dy: Any, y: Any, x: Any) -> Any:
    """1 − x² in place of 1 − y²."""
    return dy * (1.0 - x * x)


def softmax_without_sum(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Each probability as if it depended on its own score alone, without Σ dy · y."""
    return dy * y * scale


def sigmoid_for_softmax(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Each probability as if it were a sigmoid."""
    return dy * y * (1.0 - y) * scale


def stopped(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """No gradient of the scores: queries and keys learn nothing."""
    return namespace(scores).zeros_like(scores)


def without_scale(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The factor 1/√D left out."""
    return step.right(dy, y, scores, mask, scale=scale) / scale


def norm_with_constant_statistics(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Mean and deviation taken for constants."""
    _, dweight, dbias = step.right(dy, y, x, weight, bias, eps=eps)
    return dy * weight / _deviation(x, eps), dweight, dbias


def norm_with_constant_deviation(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The deviation taken for a constant."""
    xp = namespace(x)
    _, dweight, dbias = step.right(dy, y, x, weight, bias, eps=eps)
    scaled = dy * weight / _deviation(x, eps)
    return scaled - xp.mean(scaled, axis=-1, keepdims=True), dweight, dbias


def _deviation(x: Any, eps: float) -> Any:
    xp = namespace(x)
    return xp.sqrt(xp.var(x, axis=-1, keepdims=True) + eps)


def norm_weight_from_x(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Σ dy · x in place of dy · (x − mean) / deviation for the weight."""
    dx, _, dbias = step.right(dy, y, x, weight, bias, eps=eps)
    return dx, namespace(x).sum(flat_rows(dy * x), axis=0), dbias


def bias_averaged(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """The mean over tokens in place of the sum, for the bias."""
    dx, dweight, dbias = step.right(dy, y, x, weight, bias)
    return dx, dweight, dbias / flat_rows(dy).shape[0]


def weight_averaged(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """The mean over tokens in place of the sum, for matrix and bias."""
    dx, dweight, dbias = step.right(dy, y, x, weight, bias)
    return dx, dweight / flat_rows(dy).shape[0], dbias / flat_rows(dy).shape[0]


def matrix_not_transposed(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """Dy Wᵀ in place of dy W, where W is square."""
    if weight.shape[0] != weight.shape[1]:
        return step.right(dy, y, x, weight, bias)
    _, dweight, dbias = step.right(dy, y, x, weight, bias)
    return namespace(x).matmul(dy, namespace(x).matrix_transpose(weight)), dweight, dbias


def weight_gradient_transposed(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """Xᵀ dy in place of dyᵀ x, where W is square."""
    dx, dweight, dbias = step.right(dy, y, x, weight, bias)
    square = weight.shape[0] == weight.shape[1]
    return dx, namespace(x).matrix_transpose(dweight) if square else dweight, dbias


def decoder_left_out(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """No gradient of the decoder's matrix."""
    dx, dweight, dbias = step.right(dy, y, x, weight, bias)
    return dx, namespace(x).zeros_like(dweight) if step.name in DECODERS else dweight, dbias


def lookups_left_out(step: Step, dy: Any, y: Any, ids: Any, weight: Any, *, padding_idx: int | None = None) -> Any:
    """No gradient of the word embeddings' rows that were looked up."""
    _, dweight = step.right(dy, y, ids, weight, padding_idx=padding_idx)
    words = step.name == "embeddings.word_embeddings"
    return None, namespace(weight).zeros_like(dweight) if words else dweight


def padding_learns(step: Step, dy: Any, y: Any, ids: Any, weight: Any, *, padding_idx: int | None = None) -> Any:
    """The padding row learns like every other."""
    return step.right(dy, y, ids, weight, padding_idx=None)


def last_lookup_only(step: Step, dy: Any, y: Any, ids: Any, weight: Any, *, padding_idx: int | None = None) -> Any:
    """Of an id that stands twice, the last place alone: written to its row, and not added."""
    rows, xp = flat_rows(dy), namespace(weight)
    flat = xp.reshape(ids, (-1,))
    dweight = xp.zeros_like(weight)
    for row, index in zip(rows, flat, strict=True):
        if padding_idx is None or int(index) != padding_idx:
            dweight[int(index)] = row
    return None, dweight


def residual_forgotten(step: Step, dz: Any, z: Any, x: Any, y: Any) -> Any:
    """The gradient goes through the block alone, and not beside it."""
    dx, dy = step.right(dz, z, x, y)
    return dx, namespace(dy).zeros_like(dy) if step.name.endswith("residual") else dy


def doubled_residual(step: Step, dz: Any, z: Any, x: Any, y: Any) -> Any:
    """The gradient beside a block twice."""
    dx, dy = step.right(dz, z, x, y)
    return dx, 2.0 * dy if step.name.endswith("residual") else dy


def position_scores_forgotten(step: Step, dy: Any, y: Any, q: Any, table: Any, **options: Any) -> Any:
    """No gradient of the queries through the position term."""
    return namespace(q).zeros_like(q)


def position_context_forgotten(step: Step, dy: Any, y: Any, probs: Any, table: Any, **options: Any) -> Any:
    """No gradient of the probabilities through the position term."""
    return namespace(probs).zeros_like(probs)


def ignored_labels_count(step: Step, dloss: Any, loss: Any, logits: Any, labels: Any, **options: Any) -> Any:
    """Divided by all labels, those of −100 among them."""
    xp = namespace(logits)
    counted = xp.sum(in_statistics_dtype(xp.astype(labels != losses.IGNORE_INDEX, logits.dtype)))
    return step.right(dloss, loss, logits, labels, **options) * (counted / labels.size)


def loss_not_averaged(step: Step, dloss: Any, loss: Any, logits: Any, labels: Any, **options: Any) -> Any:
    """Not divided by the number of labels that count."""
    xp = namespace(logits)
    counted = xp.sum(in_statistics_dtype(xp.astype(labels != losses.IGNORE_INDEX, logits.dtype)))
    return step.right(dloss, loss, logits, labels, **options) * counted


def half_of_mse(step: Step, dloss: Any, loss: Any, predictions: Any, targets: Any) -> Any:
    """The factor 2 left out."""
    return step.right(dloss, loss, predictions, targets) / 2.0


def loss_times(factor: Callable[[Any], float]) -> Any:
    """The gradient of the loss, and with it every other, multiplied: by a number that the arguments may say."""

    def change(step: Step, dloss: Any, loss: Any, x: Any, labels: Any, **options: Any) -> Any:
        return step.right(dloss, loss, x, labels, **options) * factor(x)

    return dict.fromkeys((losses.cross_entropy, losses.mse, losses.bce_with_logits), change)


def first_token_everywhere(step: Step, dy: Any, y: Any, x: Any) -> Any:
    """The gradient given to every token."""
    return namespace(x).zeros_like(x) + dy[:, None, :]


def doubled(step: Step, dy: Any, y: Any, *arguments: Any, **options: Any) -> Any:
    """Every part of the gradient twice."""
    parts = step.right(dy, y, *arguments, **options)
    if isinstance(parts, tuple):
        return tuple(None if part is None else 2.0 * part for part in parts)
    return 2.0 * parts


def _backward(name: str, sentence: str, **ways: Any) -> Mistake:
    return Mistake(name, sentence, {way.replace("_", " ").strip(): change for way, change in ways.items()})


GRADIENT_MISTAKES: tuple[Mistake, ...] = (
    _backward(
        "gradient of tanh GELU",
        "the gradient is that of GELU's tanh approximation; the exact one's is Φ(x) + x φ(x)",
        _={activations.gelu: tanh_gelu_gradient},
    ),
    _backward(
        "gradient of tanh by its input",
        "tanh's gradient is taken as 1 − x²; right is 1 − y², with y = tanh(x)",
        _={activations.tanh: gradient_of_the_output},
    ),
    _backward(
        "gradient of softmax",
        "the gradient of softmax leaves out that each probability depends on all scores; right is y · (dy − Σ dy · y)",
        without_the_sum={attention.attention_probs: softmax_without_sum},
        as_a_sigmoid={attention.attention_probs: sigmoid_for_softmax},
    ),
    _backward(
        "gradient stopped at the probabilities",
        "no gradient comes back through the softmax of attention (detached, or computed outside of the graph); "
        "queries and keys get theirs through it",
        _={attention.attention_probs: stopped},
    ),
    _backward(
        "gradient of scores without scale",
        "the scores' gradient lacks the factor 1/√D that the forward pass has",
        _={attention.attention_probs: without_scale},
    ),
    _backward(
        "gradient of layer_norm",
        "mean or deviation are taken for constants; both depend on x, and their parts are subtracted",
        mean_and_deviation={layer_norm.layer_norm: norm_with_constant_statistics},
        deviation={layer_norm.layer_norm: norm_with_constant_deviation},
    ),
    _backward(
        "gradient of a norm's weight",
        "the weight's gradient is summed over dy · x; right is over dy · (x − mean) / deviation",
        _={layer_norm.layer_norm: norm_weight_from_x},
    ),
    _backward(
        "gradient averaged over tokens",
        "a weight's gradient is the mean over texts and tokens; right is the sum, for the mean is in the loss already",
        bias={linear.linear: bias_averaged},
        matrix_and_bias={linear.linear: weight_averaged},
    ),
    _backward(
        "gradient doubled",
        "a gradient is twice what it is: something is added or walked back through two times",
        of_the_loss=dict.fromkeys((losses.cross_entropy, losses.mse), doubled),
        of_a_linear_layer={linear.linear: doubled},
        of_a_norm={layer_norm.layer_norm: doubled},
        of_an_embedding={embedding.embedding: doubled},
        of_a_residual={addition.add: doubled_residual},
        of_the_probabilities={attention.attention_probs: doubled},
        of_the_scores={attention.content_scores: doubled},
        of_the_context={attention.content_context: doubled},
        of_the_position_terms=dict.fromkeys(
            (relative_position.position_scores, relative_position.position_context), doubled
        ),
        of_an_activation=dict.fromkeys((activations.gelu, activations.gelu_new, activations.tanh), doubled),
    ),
    _backward(
        "gradient through a transposed matrix",
        "dx is computed as dy Wᵀ; with weights of (out, in) right is dy W",
        _={linear.linear: matrix_not_transposed},
    ),
    _backward(
        "gradient of a matrix transposed",
        "dW is computed as xᵀ dy; with weights of (out, in) right is dyᵀ x",
        _={linear.linear: weight_gradient_transposed},
    ),
    _backward(
        "gradient of the tied embedding",
        "the word embeddings get one gradient of two, as the decoder's matrix or for each look-up; right is the sum",
        without_the_decoder={linear.linear: decoder_left_out},
        without_the_look_ups={embedding.embedding: lookups_left_out},
    ),
    _backward(
        "gradient of the padding row",
        "look-ups of the padding id get a gradient; right is none (padding_idx)",
        _={embedding.embedding: padding_learns},
    ),
    _backward(
        "gradient of a repeated id",
        "of an id that stands twice only one place's gradient is kept; right is the sum of both",
        _={embedding.embedding: last_lookup_only},
    ),
    _backward(
        "gradient beside a block forgotten",
        "the gradient walks back through a block alone; the residual takes it past the block too",
        _={addition.add: residual_forgotten},
    ),
    _backward(
        "gradient of the position term",
        "no gradient comes back through the relative positions; queries and probabilities get one, the table has none",
        in_keys={relative_position.position_scores: position_scores_forgotten},
        in_values={relative_position.position_context: position_context_forgotten},
        in_both={
            relative_position.position_scores: position_scores_forgotten,
            relative_position.position_context: position_context_forgotten,
        },
    ),
    _backward(
        "gradient of the loss over all labels",
        "the loss's gradient is divided by all labels; right is by those that are not −100",
        _={losses.cross_entropy: ignored_labels_count},
    ),
    _backward(
        "gradient of the loss not averaged",
        "the loss's gradient is not divided by the number of labels",
        _={losses.cross_entropy: loss_not_averaged},
    ),
    _backward(
        "gradient of another sign",
        "every gradient is negated, that of −loss or of a step of descent; right is that of the loss",
        _=loss_times(lambda logits: -1.0),
    ),
    _backward(
        "gradient scaled by the batch",
        "every gradient is divided by the number of texts, or multiplied by it; right is that of the loss, a mean "
        "already",
        divided=loss_times(lambda logits: 1.0 / logits.shape[0]),
        multiplied=loss_times(lambda logits: float(logits.shape[0])),
    ),
    _backward(
        "gradient of a scaled loss",
        "every gradient is that of the loss times a constant, as half precision is trained with; right is to divide by "
        "it again",
        by_1024=loss_times(lambda logits: 1024.0),
        by_65536=loss_times(lambda logits: 65536.0),
    ),
    _backward(
        "gradient of mse without 2",
        "the gradient of the squared error lacks the factor 2",
        _={losses.mse: half_of_mse},
    ),
    _backward(
        "gradient of the first token",
        "the pooler's gradient is given to every token; right is to the first alone",
        _={selection.first_token: first_token_everywhere},
    ),
)
