"""Mistakes that are made walking back through the model: the forward pass is right, a gradient is not.

A change is called in place of a layer's gradient: ``change(step, dy, y, *arguments, **options)``; the gradient itself
is ``step.right``. It returns what a gradient returns: one array, or one for each argument, None where there is none.
"""

from __future__ import annotations

from typing import Any

from nezha_np.arrays import namespace
from nezha_np.layers.activations import gelu, gelu_new, gelu_new_gradient, tanh
from nezha_np.layers.addition import add
from nezha_np.layers.attention import attention_probs, content_context, content_scores
from nezha_np.layers.embedding import embedding
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import flat_rows, linear
from nezha_np.layers.losses import cross_entropy, mse
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.oracle.mistakes.mistake import LM_DECODERS, Mistake, mistake
from nezha_np.oracle.replay import Step

GRADIENTS_OF_LAYERS: list[Mistake] = []

# ------------------------------------------------------------------------------------------- activations and attention

gelu_by_tanh = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of tanh GELU",
    does="the gradient is that of GELU's tanh approximation",
    right="Φ(x) + x φ(x), that of the exact one",
)


@gelu_by_tanh.way("", gelu)
def tanh_gelu_gradient(step: Step, dy: Any, y: Any, x: Any) -> Any:
    """The gradient of tanh's approximation."""
    return gelu_new_gradient(dy, y, x)


tanh_by_input = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of tanh by its input",
    does="tanh's gradient is taken as 1 − x²",
    right="1 − y², with y = tanh(x)",
)


@tanh_by_input.way("", tanh)
def of_the_input(step: Step, dy: Any, y: Any, x: Any) -> Any:
    """1 − x² in place of 1 − y²."""
    return dy * (1.0 - x * x)


of_softmax = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of softmax",
    does="the gradient of softmax leaves out that each probability depends on all scores",
    right="y · (dy − Σ dy · y)",
)


@of_softmax.way("without the sum", attention_probs)
def softmax_without_sum(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Each probability as if it depended on its own score alone, without Σ dy · y."""
    return dy * y * scale


@of_softmax.way("as a sigmoid", attention_probs)
def sigmoid_for_softmax(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Each probability as if it were a sigmoid."""
    return dy * y * (1.0 - y) * scale


stopped = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient stopped at the probabilities",
    does="no gradient comes back through the softmax of attention (detached, or computed outside of the graph)",
    right="to walk back through it to queries and keys",
)


@stopped.way("", attention_probs)
def detached(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """No gradient of the scores: queries and keys learn nothing."""
    return namespace(scores).zeros_like(scores)


without_scale = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of scores without scale",
    does="the scores' gradient lacks the factor 1/√D",
    right="to multiply by it, as the forward pass does",
)


@without_scale.way("", attention_probs)
def scale_left_out(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The factor 1/√D left out."""
    return step.right(dy, y, scores, mask, scale=scale) / scale


# --------------------------------------------------------------------------------------------------------------- norms

of_layer_norm = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of layer_norm",
    does="mean or deviation are taken for constants",
    right="to subtract their parts, because both depend on x",
)


@of_layer_norm.way("mean and deviation", layer_norm)
def norm_with_constant_statistics(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Mean and deviation taken for constants."""
    _, dweight, dbias = step.right(dy, y, x, weight, bias, eps=eps)
    return dy * weight / _deviation(x, eps), dweight, dbias


@of_layer_norm.way("deviation", layer_norm)
def norm_with_constant_deviation(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The deviation taken for a constant."""
    xp = namespace(x)
    _, dweight, dbias = step.right(dy, y, x, weight, bias, eps=eps)
    scaled = dy * weight / _deviation(x, eps)
    return scaled - xp.mean(scaled, axis=-1, keepdims=True), dweight, dbias


def _deviation(x: Any, eps: float) -> Any:
    xp = namespace(x)
    return xp.sqrt(xp.var(x, axis=-1, keepdims=True) + eps)


of_norm_weight = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of a norm's weight",
    does="the weight's gradient is summed over dy · x",
    right="the sum over dy · (x − mean) / deviation",
)


@of_norm_weight.way("", layer_norm)
def norm_weight_from_x(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Σ dy · x in place of dy · (x − mean) / deviation for the weight."""
    dx, _, dbias = step.right(dy, y, x, weight, bias, eps=eps)
    return dx, namespace(x).sum(flat_rows(dy * x), axis=0), dbias


# -------------------------------------------------------------------------------------- averages, and what counts twice

averaged = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient averaged over tokens",
    does="a weight's gradient is the mean over texts and tokens",
    right="the sum, because the mean is in the loss already",
)


@averaged.way("bias", linear)
def bias_averaged(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """The mean over tokens in place of the sum, for the bias."""
    dx, dweight, dbias = step.right(dy, y, x, weight, bias)
    return dx, dweight, dbias / flat_rows(dy).shape[0]


@averaged.way("matrix and bias", linear)
def weight_averaged(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """The mean over tokens in place of the sum, for matrix and bias."""
    dx, dweight, dbias = step.right(dy, y, x, weight, bias)
    return dx, dweight / flat_rows(dy).shape[0], dbias / flat_rows(dy).shape[0]


doubled = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient doubled",
    does="a gradient is twice what it should be: something is added or walked back through two times",
    right="to count it once",
)


def twice(step: Step, dy: Any, y: Any, *arguments: Any, **options: Any) -> Any:
    """Every part of the gradient twice."""
    parts = step.right(dy, y, *arguments, **options)
    if isinstance(parts, tuple):
        return tuple(None if part is None else 2.0 * part for part in parts)
    return 2.0 * parts


def residual_twice(step: Step, dz: Any, z: Any, x: Any, y: Any) -> Any:
    """The gradient of a residual twice."""
    dx, dy = step.right(dz, z, x, y)
    return dx, 2.0 * dy if step.name.endswith("residual") else dy


doubled.way("of the loss", cross_entropy, mse)(twice)
doubled.way("of a linear layer", linear)(twice)
doubled.way("of a norm", layer_norm)(twice)
doubled.way("of an embedding", embedding)(twice)
doubled.way("of a residual", add)(residual_twice)
doubled.way("of the probabilities", attention_probs)(twice)
doubled.way("of the scores", content_scores)(twice)
doubled.way("of the context", content_context)(twice)
doubled.way("of the position terms", position_scores, position_context)(twice)
doubled.way("of an activation", gelu, gelu_new, tanh)(twice)

# ------------------------------------------------------------------------------------------------------------ matrices

through_transposed = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient through a transposed matrix",
    does="dx is computed as dy Wᵀ",
    right="dy W, with weights of (out, in)",
)


@through_transposed.way("", linear)
def matrix_not_transposed(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """Dy Wᵀ in place of dy W, where W is square."""
    if weight.shape[0] != weight.shape[1]:
        return step.right(dy, y, x, weight, bias)
    _, dweight, dbias = step.right(dy, y, x, weight, bias)
    return namespace(x).matmul(dy, namespace(x).matrix_transpose(weight)), dweight, dbias


of_transposed = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of a matrix transposed",
    does="dW is computed as xᵀ dy",
    right="dyᵀ x, with weights of (out, in)",
)


@of_transposed.way("", linear)
def weight_gradient_transposed(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """Xᵀ dy in place of dyᵀ x, where W is square."""
    dx, dweight, dbias = step.right(dy, y, x, weight, bias)
    square = weight.shape[0] == weight.shape[1]
    return dx, namespace(x).matrix_transpose(dweight) if square else dweight, dbias


# ---------------------------------------------------------------------------------------------------------- embeddings

of_tied = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of the tied embedding",
    does="the word embeddings get one gradient of two, as the decoder's matrix or for each look-up",
    right="the sum of both",
)


@of_tied.way("without the decoder", linear)
def decoder_left_out(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """No gradient of the decoder's matrix."""
    dx, dweight, dbias = step.right(dy, y, x, weight, bias)
    return dx, namespace(x).zeros_like(dweight) if step.name in LM_DECODERS else dweight, dbias


@of_tied.way("without the look ups", embedding)
def lookups_left_out(step: Step, dy: Any, y: Any, ids: Any, weight: Any, *, padding_idx: int | None = None) -> Any:
    """No gradient of the word embeddings' rows that were looked up."""
    _, dweight = step.right(dy, y, ids, weight, padding_idx=padding_idx)
    of_words = step.name == "embeddings.word_embeddings"
    return None, namespace(weight).zeros_like(dweight) if of_words else dweight


of_padding = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of the padding row",
    does="look-ups of the padding id get a gradient",
    right="none (padding_idx)",
)


@of_padding.way("", embedding)
def padding_learns(step: Step, dy: Any, y: Any, ids: Any, weight: Any, *, padding_idx: int | None = None) -> Any:
    """The padding row learns like every other."""
    return step.right(dy, y, ids, weight, padding_idx=None)


of_repeated = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of a repeated id",
    does="of an id that occurs twice only one place's gradient counts",
    right="the sum of both",
)


@of_repeated.way("", embedding)
def last_lookup_only(step: Step, dy: Any, y: Any, ids: Any, weight: Any, *, padding_idx: int | None = None) -> Any:
    """Of an id that occurs twice, the last place alone: written to its row, and not added."""
    rows: Any = flat_rows(dy)
    xp = namespace(weight)
    dweight: Any = xp.zeros_like(weight)
    for row, index in zip(rows, xp.reshape(ids, (-1,)), strict=True):
        if padding_idx is None or int(index) != padding_idx:
            dweight[int(index)] = row
    return None, dweight


# ---------------------------------------------------------------------------------------- residuals and position terms

residual_forgotten = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient beside a block forgotten",
    does="the gradient walks back through a block alone",
    right="to add the residual's, which goes past the block",
)


@residual_forgotten.way("", add)
def residual_left_out(step: Step, dz: Any, z: Any, x: Any, y: Any) -> Any:
    """The gradient goes through the block alone, and not through the residual."""
    dx, dy = step.right(dz, z, x, y)
    return dx, namespace(dy).zeros_like(dy) if step.name.endswith("residual") else dy


of_positions = mistake(
    GRADIENTS_OF_LAYERS,
    "gradient of the position term",
    does="no gradient comes back through the relative positions",
    right="one for queries and for probabilities, and none for the table",
)


def position_term_forgotten(step: Step, dy: Any, y: Any, x: Any, table: Any, **options: Any) -> Any:
    """No gradient of queries or probabilities through the position term."""
    return namespace(x).zeros_like(x)


of_positions.way("in keys", position_scores)(position_term_forgotten)
of_positions.way("in values", position_context)(position_term_forgotten)
of_positions.way("in both", position_scores, position_context)(position_term_forgotten)
