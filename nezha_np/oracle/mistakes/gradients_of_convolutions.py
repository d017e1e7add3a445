"""Mistakes that are made walking back through ConvBERT's convolutions and grouped layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.span_convolution import (
    convolution_kernels,
    dynamic_convolution,
    join_features,
    multiply,
    separable_convolution,
)
from nezha_np.oracle.mistakes.gradient_terms import less
from nezha_np.oracle.mistakes.mistake import CONVBERT, Mistake, mistake
from nezha_np.oracle.replay import Change, Step

GRADIENTS_OF_CONVOLUTIONS: list[Mistake] = []


def windows(x: Any, size: int) -> Any:
    """The neighbours of each token: (B, L, …) -> (k, B, L, …), zeros beyond both ends."""
    around = [(0, 0), (size // 2, size // 2), *[(0, 0)] * (x.ndim - 2)]
    padded = np.pad(np.asarray(x), around)
    return np.stack([padded[:, j : j + x.shape[1]] for j in range(size)])


def shifted(x: Any, by: int) -> Any:
    """Each token's numbers at a later token, zeros where there is none before."""
    moved = np.roll(np.asarray(x), by, axis=1)
    moved[:, slice(0, by) if by > 0 else slice(by, None)] = 0.0
    return moved


# -------------------------------------------------------------------------------------------- the separable convolution

of_separable = mistake(
    GRADIENTS_OF_CONVOLUTIONS,
    "gradient of a separable convolution",
    does="the window of the gradient is not turned, or off by one, or a kernel gets the gradient of something else",
    right="dx_m = Σ w_j dz_{m−j+c} with dz = dy P, dw_j = Σ dz_i x_{i+j−c}, dP = dyᵀ z",
    families=CONVBERT,
)


def separable_of(
    dx: Callable[..., Any] | None = None,
    ddepthwise: Callable[..., Any] | None = None,
    dpointwise: Callable[..., Any] | None = None,
) -> Change:
    """Other gradients of x, of dz and the depthwise kernel (H, k); of that kernel; of the matrix."""

    def change(step: Step, dy: Any, y: Any, x: Any, depthwise: Any, pointwise: Any, bias: Any) -> Any:
        own = step.right(dy, y, x, depthwise, pointwise, bias)
        dz, kernel = dy @ pointwise[:, :, 0], depthwise[:, 0]
        return (
            own[0] if dx is None else dx(dz, kernel),
            own[1] if ddepthwise is None else ddepthwise(own[1], dz, x).reshape(own[1].shape),
            own[2] if dpointwise is None else dpointwise(own[2], dy, x).reshape(own[2].shape),
            own[3],
        )

    return change


def window_not_turned(dz: Any, kernel: Any) -> Any:
    """Σ w_j dz_{m+j−c}: the convolution of the pass, of dz."""
    return np.einsum("jblh,hj->blh", windows(dz, kernel.shape[1]), kernel)


def window_turned(dz: Any, kernel: Any) -> Any:
    """Σ w_j dz_{m−j+c}, as it is right."""
    return window_not_turned(dz, kernel[:, ::-1])


def square_of(own: Any, function: Callable[..., Any]) -> Any:
    """A function of a square matrix alone."""
    if own.shape[0] != own.shape[1]:
        raise ValueError("the matrix is not square")
    return function(own)


for way, changed in (
    ("dx with the window not turned", separable_of(window_not_turned)),
    ("dx one token later", separable_of(lambda dz, w: shifted(window_turned(dz, w), 1))),
    ("dx one token earlier", separable_of(lambda dz, w: shifted(window_turned(dz, w), -1))),
    ("dx without the depthwise kernel", separable_of(lambda dz, w: dz)),
    ("dx of the middle of the kernel alone", separable_of(lambda dz, w: dz * w[:, w.shape[1] // 2])),
    ("dx of the kernel's sum", separable_of(lambda dz, w: dz * w.sum(axis=1))),
    ("dw turned", separable_of(ddepthwise=lambda own, dz, x: own[:, :, ::-1])),
    ("dx not turned, dw turned", separable_of(window_not_turned, lambda own, dz, x: own[:, :, ::-1])),
    ("dw of the next token", separable_of(ddepthwise=lambda own, dz, x: np.roll(own, -1, axis=2))),
    ("dw of the token before", separable_of(ddepthwise=lambda own, dz, x: np.roll(own, 1, axis=2))),
    ("dw of the middle alone", separable_of(
        ddepthwise=lambda own, dz, x: own * (np.arange(own.shape[2]) == own.shape[2] // 2))),
    ("dw the mean over features", separable_of(
        ddepthwise=lambda own, dz, x: np.broadcast_to(own.mean(axis=0, keepdims=True), own.shape))),
    ("dP of x, not of the depthwise result", separable_of(
        dpointwise=lambda own, dy, x: np.einsum("blo,bli->oi", dy, x))),
    ("dP transposed", separable_of(dpointwise=lambda own, dy, x: square_of(own, lambda own: own.swapaxes(0, 1)))),
):  # fmt: skip
    of_separable.way(way, separable_convolution)(changed)


@of_separable.way("dx by the matrix not transposed", separable_convolution)
def pointwise_not_transposed(step: Step, dy: Any, y: Any, x: Any, depthwise: Any, pointwise: Any, bias: Any) -> Any:
    """Dz = dy Pᵀ in place of dy P."""
    own = step.right(dy, y, x, depthwise, pointwise, bias)
    return window_turned(dy @ pointwise[:, :, 0].T, depthwise[:, 0]), *own[1:]


@of_separable.way("dw of dy, not of dz", separable_convolution)
def depthwise_of_dy(step: Step, dy: Any, y: Any, x: Any, depthwise: Any, pointwise: Any, bias: Any) -> Any:
    """The depthwise kernel's gradient of dy, where it has as many features."""
    own = step.right(dy, y, x, depthwise, pointwise, bias)
    dw = np.einsum("blh,jblh->hj", dy, windows(x, depthwise.shape[2]))
    return own[0], dw[:, None, :], *own[2:]


# ------------------------------------------------------------------------------------- the product, and what is joined

of_product = mistake(
    GRADIENTS_OF_CONVOLUTIONS,
    "gradient of span times query",
    does="the gradient of the product of span and query has another factor, or one of the two gets none",
    right="dz times the query for the span, dz times the span for the query",
    families=CONVBERT,
)
for way, both in (
    ("exchanged", lambda dz, x, y: (dz * x, dz * y)),
    ("the query gets none", lambda dz, x, y: (dz * y, 0.0 * y)),
    ("the span gets none", lambda dz, x, y: (0.0 * x, dz * x)),
    ("dz for both", lambda dz, x, y: (dz, dz)),
    ("dz for the span", lambda dz, x, y: (dz, dz * x)),
    ("dz for the query", lambda dz, x, y: (dz * y, dz)),
    ("times the query for both", lambda dz, x, y: (dz * y, dz * y)),
    ("times the span for both", lambda dz, x, y: (dz * x, dz * x)),
    ("times the product for both", lambda dz, x, y: (dz * x * y, dz * x * y)),
):
    of_product.way(way, multiply)(lambda step, dz, z, x, y, both=both: both(dz, x, y))

of_joined = mistake(
    GRADIENTS_OF_CONVOLUTIONS,
    "gradient of joined features",
    does="heads and convolution get each other's part of the joined gradient, or one gets none",
    right="the first half for the heads, the second for the convolution",
    families=CONVBERT,
)


def interleaved(dz: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Every second feature."""
    return dz[..., ::2], dz[..., 1::2]


for way, both in (
    ("exchanged", lambda dz, x, y: (dz[..., y.shape[-1] :], dz[..., : y.shape[-1]])),
    ("the heads get none", lambda dz, x, y: (0.0 * x, dz[..., x.shape[-1] :])),
    ("the convolution gets none", lambda dz, x, y: (dz[..., : x.shape[-1]], 0.0 * y)),
    ("the first half for both", lambda dz, x, y: (dz[..., : x.shape[-1]], dz[..., : y.shape[-1]])),
    ("the second half for both", lambda dz, x, y: (dz[..., y.shape[-1] :], dz[..., x.shape[-1] :])),
    ("every second feature", interleaved),
):
    of_joined.way(way, join_features)(lambda step, dz, z, x, y, both=both: both(dz, x, y))

# ------------------------------------------------------------------------------------------------ kernels of each token

of_kernels = mistake(
    GRADIENTS_OF_CONVOLUTIONS,
    "gradient of the kernels' softmax",
    does="the gradient of the softmax over each kernel lacks a term, or sums over another axis",
    right="κ · (dκ − Σ dκ · κ), summed over the kernel",
    families=CONVBERT,
)


def kernels_of(function: Callable[[Any, Any], Any]) -> Change:
    """Another gradient of the kernels' scores, of dκ and κ, both (B, L, N, k)."""
    return lambda step, dy, y, scores, *, size: function(dy, y).reshape(scores.shape)


for way, of_scores in (
    ("without the sum", lambda dy, y: dy * y),
    ("as a sigmoid", lambda dy, y: dy * y * (1.0 - y)),
    ("none", lambda dy, y: 0.0 * dy),
    ("dκ itself", lambda dy, y: dy),
    ("over the kernels", less(2)),
    ("over the tokens", less(1)),
    ("over all numbers of a token", less((2, 3))),
    ("a mean in place of the sum", less(-1, np.mean)),
    ("the sum added", less(-1, sign=1.0)),
    ("Σ dκ in place of Σ dκ · κ", lambda dy, y: y * (dy - dy.sum(axis=-1, keepdims=True))),
    ("without the factor κ", lambda dy, y: dy - (dy * y).sum(axis=-1, keepdims=True)),
):
    of_kernels.way(way, convolution_kernels)(kernels_of(of_scores))

of_dynamic = mistake(
    GRADIENTS_OF_CONVOLUTIONS,
    "gradient of a dynamic convolution",
    does="values or kernels get the gradient of another window, of other kernels, or a mean",
    right="dκ_ij = dy_i · v_{i+j−c}, dv_m = Σ κ_ij dy_i with i = m − j + c",
    families=CONVBERT,
)


def by_kernel(x: Any, kernels: Any) -> Any:
    """(B, L, N·D) -> (B, L, N, D)."""
    return x.reshape(*kernels.shape[:3], -1)


def dynamic_of(dvalues: Callable[..., Any] | None = None, dkernels: Callable[..., Any] | None = None) -> Change:
    """Other gradients of the values, of dy (B, L, N, D) and kernels; and of the kernels, of the right one, dy and v."""

    def change(step: Step, dy: Any, y: Any, values: Any, kernels: Any) -> Any:
        own = step.right(dy, y, values, kernels)
        dy, v = by_kernel(dy, kernels), by_kernel(values, kernels)
        return (
            own[0] if dvalues is None else dvalues(dy, kernels).reshape(values.shape),
            own[1] if dkernels is None else dkernels(own[1], dy, v),
        )

    return change


def gathered(dy: Any, kernels: Any) -> Any:
    """Σ κ_mj dy_{m+j−c}: the convolution of the pass, of dy."""
    return np.einsum("jblnd,blnj->blnd", windows(dy, kernels.shape[-1]), kernels)


def own_kernels(dy: Any, kernels: Any) -> Any:
    """Σ κ_mj dy_{m−j+c}: the window turned, but each token's own kernel in place of its neighbour's."""
    return gathered(dy, kernels[..., ::-1])


def spread_out(dy: Any, kernels: Any, by: int = 0) -> Any:
    """Σ κ_ij dy_i with i = m − j + c, as it is right, moved by some tokens."""
    size = kernels.shape[-1]
    parts = [windows(kernels[..., j, None] * dy, size)[size - 1 - j] for j in range(size)]
    return shifted(sum(parts), by) if by else sum(parts)


def kernel_gradient(dy: Any, v: Any, size: int) -> Any:
    """Σ dy_i · v_{i+j−c} over the features."""
    return np.einsum("blnd,jblnd->blnj", dy, windows(v, size))


for way, changed in (
    ("dv with the window not turned", dynamic_of(gathered)),
    ("dv with each token's own kernel", dynamic_of(own_kernels)),
    ("dv with the kernels turned", dynamic_of(lambda dy, k: spread_out(dy, k[..., ::-1]))),
    ("dv one token later", dynamic_of(lambda dy, k: spread_out(dy, k, 1))),
    ("dv one token earlier", dynamic_of(lambda dy, k: spread_out(dy, k, -1))),
    ("dv of the middle of the window", dynamic_of(lambda dy, k: dy * k[..., k.shape[-1] // 2, None])),
    ("dv = dy", dynamic_of(lambda dy, k: dy)),
    ("dv none", dynamic_of(lambda dy, k: 0.0 * dy)),
    ("dv of the kernels' mean over heads", dynamic_of(
        lambda dy, k: spread_out(dy, np.broadcast_to(k.mean(axis=2, keepdims=True), k.shape)))),
    ("dκ turned", dynamic_of(dkernels=lambda own, dy, v: own[..., ::-1])),
    ("dκ of the next token", dynamic_of(dkernels=lambda own, dy, v: np.roll(own, -1, axis=-1))),
    ("dκ of the token before", dynamic_of(dkernels=lambda own, dy, v: np.roll(own, 1, axis=-1))),
    ("dκ a mean over the features", dynamic_of(dkernels=lambda own, dy, v: own / v.shape[-1])),
    ("dκ over √D", dynamic_of(dkernels=lambda own, dy, v: own / np.sqrt(v.shape[-1]))),
    ("dκ of the first feature alone", dynamic_of(
        dkernels=lambda own, dy, v: kernel_gradient(dy[..., :1], v[..., :1], own.shape[-1]))),
    ("dκ summed over the heads", dynamic_of(
        dkernels=lambda own, dy, v: np.broadcast_to(own.sum(axis=2, keepdims=True), own.shape))),
    ("dκ a mean over the heads", dynamic_of(
        dkernels=lambda own, dy, v: np.broadcast_to(own.mean(axis=2, keepdims=True), own.shape))),
    ("dκ of dy at the neighbour", dynamic_of(dkernels=lambda own, dy, v: kernel_gradient(v, dy, own.shape[-1]))),
    ("dκ of the token's own value", dynamic_of(
        dkernels=lambda own, dy, v: np.broadcast_to((dy * v).sum(axis=-1)[..., None], own.shape))),
    ("dκ none", dynamic_of(dkernels=lambda own, dy, v: 0.0 * own)),
):  # fmt: skip
    of_dynamic.way(way, dynamic_convolution)(changed)

# ------------------------------------------------------------------------------------------------------ grouped layers

of_groups = mistake(
    GRADIENTS_OF_CONVOLUTIONS,
    "gradient of a grouped layer",
    does="a group's gradient is made with another group's matrix, another order of the groups, or a mean over them",
    right="for each group as for a linear layer of its own",
    families=CONVBERT,
)


def split_groups(x: Any, groups: int) -> Any:
    """(…, I) -> (…, G, I / G)."""
    return x.reshape(*x.shape[:-1], groups, -1)


def grouped_of(
    dx: Callable[..., Any] | None = None,
    dweight: Callable[..., Any] | None = None,
) -> Change:
    """Other gradients of x, of dy (…, G, O / G) and the matrices; of these, of the right one, dy and x."""

    def change(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
        own, groups = step.right(dy, y, x, weight, bias), weight.shape[0]
        by_group, of_x = split_groups(dy, groups), split_groups(x, groups)
        return (
            own[0] if dx is None else dx(by_group, weight).reshape(x.shape),
            own[1] if dweight is None else np.broadcast_to(dweight(own[1], by_group, of_x), weight.shape),
            own[2],
        )

    return change


def through(dy: Any, weight: Any) -> Any:
    """Dy Wᵀ of each group."""
    return np.einsum("...go,gio->...gi", dy, weight)


for way, changed in (
    ("dx with the groups' matrices in reverse", grouped_of(lambda dy, w: through(dy, w[::-1]))),
    ("dx with the next group's matrix", grouped_of(lambda dy, w: through(dy, np.roll(w, -1, axis=0)))),
    ("dx with the first group's matrix", grouped_of(lambda dy, w: through(dy, np.broadcast_to(w[:1], w.shape)))),
    ("dx with the matrices' mean", grouped_of(
        lambda dy, w: through(dy, np.broadcast_to(w.mean(axis=0, keepdims=True), w.shape)))),
    ("dx with the matrices not transposed", grouped_of(lambda dy, w: np.einsum("...go,goi->...gi", dy, w))),
    ("dx with the groups interleaved", grouped_of(lambda dy, w: np.swapaxes(through(dy, w), -1, -2))),
    ("dx of the first group alone", grouped_of(
        lambda dy, w: through(dy, w) * (np.arange(len(w)) == 0)[:, None])),
    ("dW in reverse", grouped_of(dweight=lambda own, dy, x: own[::-1])),
    ("dW a mean over the groups", grouped_of(dweight=lambda own, dy, x: own.mean(axis=0, keepdims=True))),
    ("dW a sum over the groups", grouped_of(dweight=lambda own, dy, x: own.sum(axis=0, keepdims=True))),
    ("dW transposed", grouped_of(
        dweight=lambda own, dy, x: square_of(own[0], lambda _: own.swapaxes(1, 2)))),
    ("dW of the first group's x", grouped_of(
        dweight=lambda own, dy, x: np.einsum("blgi,blgo->gio", np.broadcast_to(x[..., :1, :], x.shape), dy))),
):  # fmt: skip
    of_groups.way(way, grouped_linear)(changed)
