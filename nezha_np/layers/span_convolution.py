"""Span-based dynamic convolution, ConvBERT's idea (Jiang et al. 2020, section 3.2; transformers ConvBertSelfAttention).

Some heads of BERT only look at neighbours. ConvBERT replaces them by convolutions, whose kernels are not fixed: each
token makes its own kernel, from itself and from the span of tokens around it.

    s    = separable_convolution(x)          the span of k tokens around each token, as a key
    κ_i  = softmax(W_κ (s_i ⊙ q_i) + b_κ)    k numbers for each of N kernels, which sum to 1
    y_i  = Σ_j κ_ij · v_{i + j − (k − 1)/2}  and with them an average of the neighbours' values, v = W_v x + b_v

How 净 in 房间很干净。 gets its kernel, with k = 3:

    1. its span is 干净。: separable_convolution weighs each feature over these three tokens (depthwise), then mixes the
       features (pointwise), into s, one vector for the whole span;
    2. s is multiplied, number by number, with the query q that 净 asks self-attention with;
    3. a linear map makes three numbers of that for each kernel, and softmax makes them sum to 1: κ = (0.7 0.2 0.1);
    4. the convolution's result for 净 is 0.7 · v(干) + 0.2 · v(净) + 0.1 · v(。).

An ordinary dynamic convolution (Wu et al. 2019) makes κ of the token alone; here it depends on the neighbours too, so
that 净 may have another kernel in 净土 than in 干净. Beyond both ends of a text there are zeros. The attention mask has
no effect on it: padding is read like text.

Dimension letters: B batch, L length, H hidden, N heads, D head size, A = N·D, k kernel size.
"""

from __future__ import annotations

from typing import cast

from nezha_np.arrays import Array, device_of, in_statistics_dtype, namespace
from nezha_np.layers.linear import flat_rows, linear
from nezha_np.layers.softmax import softmax, softmax_gradient
from nezha_np.mechanism import gradient_of, primitive


@primitive
def separable_convolution(x: Array, depthwise: Array, pointwise: Array, bias: Array) -> Array:
    """Convolve in two steps: depthwise, each feature over k tokens, then pointwise, the features of each token.

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.
    depthwise : (H, 1, k) float array
        For each feature the weights of its k neighbours.
    pointwise : (A, H, 1) float array
        A matrix that mixes the features.
    bias : (A, 1) float array
        The bias.

    Returns
    -------
    (B, L, A) float array
        The spans.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0], [10.0], [100.0]]])
    >>> separable_convolution(x, np.array([[[1.0, 0.0, 2.0]]]), np.array([[[1.0]]]), np.array([[0.5]]))
    array([[[ 20.5],
            [201.5],
            [ 10.5]]])
    """
    return linear.definition(_depthwise(x, depthwise), pointwise[:, :, 0], bias[:, 0])


@gradient_of(separable_convolution, reads=("x", "depthwise", "pointwise", "bias"))
def separable_convolution_gradient(
    dy: Array, y: Array, x: Array, depthwise: Array, pointwise: Array, bias: Array
) -> tuple[Array, Array, Array, Array]:
    """With y = z Pᵀ + b, z_i = Σ_j w_j x_{i+j−c}: dz = dy P, dx_m = Σ_j w_j dz_{m−j+c}, dw_j = Σ_i dz_i x_{i+j−c}.

    Parameters
    ----------
    dy : (B, L, A) float array
        The gradient of the loss with respect to `y`.
    y, x, depthwise, pointwise, bias
        The result and the arguments of `separable_convolution`.

    Returns
    -------
    dx : (B, L, H) float array
        The gradient with respect to `x`.
    ddepthwise : (H, 1, k) float array
        The gradient with respect to `depthwise`.
    dpointwise : (A, H, 1) float array
        The gradient with respect to `pointwise`.
    dbias : (A, 1) float array
        The gradient with respect to `bias`.
    """
    xp = namespace(dy)
    z = _depthwise(x, depthwise)
    dz = xp.matmul(dy, pointwise[:, :, 0])  # (B, L, H)
    dx = _depthwise(dz, xp.flip(depthwise, axis=2))
    exact, neighbours = in_statistics_dtype(dz), _neighbours(in_statistics_dtype(x), depthwise.shape[2])
    products = [xp.sum(exact * neighbour, axis=(0, 1)) for neighbour in neighbours]  # k of (H)
    ddepthwise = xp.astype(xp.stack(products, axis=-1), dy.dtype, copy=False)  # (H, k)
    dpointwise = xp.matmul(xp.matrix_transpose(flat_rows(dy)), flat_rows(z))  # (A, H)
    dbias = xp.astype(xp.sum(in_statistics_dtype(flat_rows(dy)), axis=0), dy.dtype, copy=False)
    return dx, ddepthwise[:, None, :], dpointwise[:, :, None], dbias[:, None]


def _depthwise(x: Array, weight: Array) -> Array:
    """Σ_j w_j ⊙ x_{i + j − (k − 1)/2}: (B, L, H) -> (B, L, H)."""
    neighbours = _neighbours(x, weight.shape[2])
    return cast(Array, sum(neighbour * weight[:, 0, j] for j, neighbour in enumerate(neighbours)))


def _neighbours(x: Array, size: int) -> list[Array]:
    """List, for each place of the kernel, the neighbour that each token has there, zeros beyond both ends."""
    xp = namespace(x)
    zeros = xp.zeros((x.shape[0], size // 2, *x.shape[2:]), dtype=x.dtype, device=device_of(x))
    padded = xp.concat([zeros, x, zeros], axis=1)  # (B, L + k - 1, …)
    return [padded[:, j : j + x.shape[1], ...] for j in range(size)]


@primitive
def multiply(x: Array, y: Array) -> Array:
    """Multiply element by element: the span around each token by its query.

    Parameters
    ----------
    x, y : (B, L, A) float array
        Spans and queries.

    Returns
    -------
    (B, L, A) float array
        x ⊙ y.

    Examples
    --------
    >>> import numpy as np
    >>> multiply(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    array([3., 8.])
    """
    return x * y


@gradient_of(multiply, reads=("x", "y"))
def multiply_gradient(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """dx = dz ⊙ y, dy = dz ⊙ x.

    Parameters
    ----------
    dz : (B, L, A) float array
        The gradient of the loss with respect to `z`.
    z, x, y
        The result and the arguments of `multiply`.

    Returns
    -------
    dx, dy : (B, L, A) float array
        The gradients with respect to `x` and `y`.
    """
    return dz * y, dz * x


@primitive
def convolution_kernels(scores: Array, *, size: int) -> Array:
    """Turn each token's scores into N kernels of k numbers that sum to 1.

    Parameters
    ----------
    scores : (B, L, N·k) float array
        k scores for each kernel.
    size : int
        k.

    Returns
    -------
    (B, L, N, k) float array
        The softmax over each kernel, computed in float32 at least.

    Examples
    --------
    >>> import numpy as np
    >>> convolution_kernels(np.zeros((1, 1, 4)), size=2)
    array([[[[0.5, 0.5],
             [0.5, 0.5]]]])
    """
    xp = namespace(scores)
    batch, length, numbers = scores.shape
    by_kernel = xp.reshape(in_statistics_dtype(scores), (batch, length, numbers // size, size))
    return xp.astype(softmax(by_kernel), scores.dtype, copy=False)


@gradient_of(convolution_kernels, reads=("y",))
def convolution_kernels_gradient(dy: Array, y: Array, scores: Array, *, size: int) -> Array:
    """As for attention: the gradient of softmax, over each kernel.

    Parameters
    ----------
    dy : (B, L, N, k) float array
        The gradient of the loss with respect to `y`.
    y, scores, size
        The result and the arguments of `convolution_kernels`.

    Returns
    -------
    dscores : (B, L, N·k) float array
        The gradient with respect to `scores`.
    """
    xp = namespace(y)
    dscores = softmax_gradient(in_statistics_dtype(dy), in_statistics_dtype(y))
    return xp.astype(xp.reshape(dscores, scores.shape), scores.dtype, copy=False)


@primitive
def dynamic_convolution(values: Array, kernels: Array) -> Array:
    """Average the neighbours of each token by its own kernels: Σ_j κ_ij · v_{i + j − (k − 1)/2}.

    Parameters
    ----------
    values : (B, L, N·D) float array
        A value for each token, D features for each kernel.
    kernels : (B, L, N, k) float array
        `convolution_kernels`.

    Returns
    -------
    (B, L, N·D) float array
        The averages.

    Examples
    --------
    >>> import numpy as np
    >>> dynamic_convolution(np.array([[[1.0], [10.0]]]), np.array([[[[0.5, 0.25, 0.25]], [[1.0, 0.0, 0.0]]]]))
    array([[[2.75],
            [1.  ]]])
    """
    xp = namespace(values)
    neighbours = _neighbours(_by_kernel(values, kernels), kernels.shape[-1])  # k of (B, L, N, D)
    averages = sum(kernels[..., j][..., None] * neighbour for j, neighbour in enumerate(neighbours))
    return xp.reshape(averages, values.shape)


@gradient_of(dynamic_convolution, reads=("values", "kernels"))
def dynamic_convolution_gradient(dy: Array, y: Array, values: Array, kernels: Array) -> tuple[Array, Array]:
    """dκ_ij = dy_i · v_{i+j−c}, and dv_m = Σ_j κ_ij dy_i with i = m − j + c, where c = (k − 1)/2.

    Parameters
    ----------
    dy : (B, L, N·D) float array
        The gradient of the loss with respect to `y`.
    y, values, kernels
        The result and the arguments of `dynamic_convolution`.

    Returns
    -------
    dvalues : (B, L, N·D) float array
        The gradient with respect to `values`.
    dkernels : (B, L, N, k) float array
        The gradient with respect to `kernels`.
    """
    xp = namespace(values)
    size = kernels.shape[-1]
    dy = _by_kernel(dy, kernels)  # (B, L, N, D)
    exact, neighbours = in_statistics_dtype(dy), _neighbours(in_statistics_dtype(_by_kernel(values, kernels)), size)
    dkernels = [xp.sum(exact * neighbour, axis=-1) for neighbour in neighbours]  # k of (B, L, N)
    dvalues = sum(_neighbours(kernels[..., j][..., None] * dy, size)[size - 1 - j] for j in range(size))
    return xp.reshape(dvalues, values.shape), xp.astype(xp.stack(dkernels, axis=-1), kernels.dtype, copy=False)


def _by_kernel(x: Array, kernels: Array) -> Array:
    """(B, L, N·D) -> (B, L, N, D)."""
    batch, length, count, _ = kernels.shape
    return namespace(x).reshape(x, (batch, length, count, x.shape[-1] // count))


@primitive
def join_features(x: Array, y: Array) -> Array:
    """Concatenate the features of attention heads and of convolutions.

    Parameters
    ----------
    x, y : (B, L, A) float array
        The context of the heads, and the result of the convolutions.

    Returns
    -------
    (B, L, 2·A) float array
        Both.

    Examples
    --------
    >>> import numpy as np
    >>> join_features(np.array([[[1.0]]]), np.array([[[2.0]]]))
    array([[[1., 2.]]])
    """
    return namespace(x).concat([x, y], axis=-1)


@gradient_of(join_features, reads=())
def join_features_gradient(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """dx and dy are the two halves of dz.

    Parameters
    ----------
    dz : (B, L, 2·A) float array
        The gradient of the loss with respect to `z`.
    z, x, y
        The result and the arguments of `join_features`.

    Returns
    -------
    dx, dy : (B, L, A) float array
        The gradients with respect to `x` and `y`.
    """
    return dz[..., : x.shape[-1]], dz[..., x.shape[-1] :]
