"""Kernels for CuPy: a few launches in place of many small ones.

    self_attention       products by cuBLAS; between them one launch each for: bias and heads of q, of k, of v; scale,
                         position, mask, softmax and the sums by distance; both parts of the context, token by token
    residual_output      bias, residual and norm in one launch, in place of the product
    intermediate         bias and gelu in one launch, in place of the product
    attention_probs, position_scores, position_context, layer_norm, gelu, linear
                         the same launches, for the layers that are called by themselves
    gradients            of gelu, attention_probs, the position terms and cross_entropy one launch each, besides
                         products and sums over labels;
                         of layer_norm one for x, and two for the sums over all tokens that weight and bias get;
                         of embedding two, after its tokens were sorted

`cupy_rows`, `cupy_attention` and `cupy_gradients` hold them, ``cuda.cu`` their CUDA C, which `cuda` compiles and
launches; `known` says what a kernel may assume of a family. All sums are made in float32, in float16 too; float64 runs
by definitions.
"""

from __future__ import annotations

from nezha_np.kernels.cuda import NUMBERS
from nezha_np.kernels.cupy_attention import (
    attention_probs_kernel,
    position_context_kernel,
    position_scores_kernel,
    self_attention_kernel,
)
from nezha_np.kernels.cupy_gradients import (
    attention_probs_gradient_kernel,
    cross_entropy_gradient_kernel,
    embedding_gradient_kernel,
    gelu_gradient_kernel,
    layer_norm_gradient_kernel,
    position_context_gradient_kernel,
    position_scores_gradient_kernel,
)
from nezha_np.kernels.cupy_rows import (
    gelu_kernel,
    intermediate_kernel,
    layer_norm_kernel,
    linear_kernel,
    residual_output_kernel,
)
from nezha_np.layers.activations import gelu
from nezha_np.layers.attention import attention_probs
from nezha_np.layers.embedding import embedding
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.losses import cross_entropy
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.mechanism import Kernel, Layer
from nezha_np.model import model

FLOATS = tuple(NUMBERS)
KERNELS: dict[Layer, Kernel] = {
    linear: (linear_kernel, FLOATS),
    gelu: (gelu_kernel, FLOATS),
    layer_norm: (layer_norm_kernel, FLOATS),
    attention_probs: (attention_probs_kernel, FLOATS),
    position_scores: (position_scores_kernel, FLOATS),
    position_context: (position_context_kernel, FLOATS),
    model.self_attention: (self_attention_kernel, FLOATS),
    model.residual_output: (residual_output_kernel, FLOATS),
    model.intermediate: (intermediate_kernel, FLOATS),
}
GRADIENT_KERNELS: dict[Layer, Kernel] = {
    embedding: (embedding_gradient_kernel, FLOATS),
    cross_entropy: (cross_entropy_gradient_kernel, FLOATS[:1]),  # the loss is in float32, whatever the logits are in
    gelu: (gelu_gradient_kernel, FLOATS),
    layer_norm: (layer_norm_gradient_kernel, FLOATS),
    attention_probs: (attention_probs_gradient_kernel, FLOATS),
    position_scores: (position_scores_gradient_kernel, FLOATS),
    position_context: (position_context_gradient_kernel, FLOATS),
}
# These take ``out=``, which may be dy.
OVER_DY = frozenset({attention_probs, gelu})
