"""One kind of mistake at many steps: numbers of another text, head or token, a reshape in place of a transpose.

What is here is tried as a way at queries, keys, values and context, where a fault shows in the final outputs alone too;
at every other step it is recognised by the step's own numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_context, content_scores, merge_heads, split_heads
from nezha_np.layers.dropout import unchanged
from nezha_np.layers.embedding import embedding
from nezha_np.layers.linear import linear
from nezha_np.layers.masks import additive_mask, as_constant
from nezha_np.mechanism import Layer
from nezha_np.model import model
from nezha_np.oracle.description import axes_of, has_square_scores
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake, Ways, mistake, of_every_layer
from nezha_np.oracle.replay import At, Changes, Step

WRONG_PLACES: list[Mistake] = []
QUERIES, KEYS, VALUES = "**.self.q", "**.self.k", "**.self.v"
HEADS = {"queries": QUERIES, "keys": KEYS, "values": VALUES}
AXES_OF_HEADS = {"text": 0, "head": 1, "token": 2}
MOST = 4096  # slices of an axis
MORE_THAN_A_FEW = 8
GARBAGE = 1e6  # times the largest right number: what was never written

# ----------------------------------------------------------------------------------- another text, head, token, feature

of_another = mistake(
    WRONG_PLACES,
    "numbers of another place",
    does="a text, head, token or feature has the numbers of another one: the first one's for all, or in another order",
    right="its own numbers",
    across_texts=("**text**",),
)


def taken(axis: int, order: Callable[[int], Any]) -> Callable[..., Any]:
    """Take the parts of an axis in another order: of how many there are."""

    def change(step: Step, *arguments: Any, **options: Any) -> Any:
        right = step.right(*arguments, **options)
        if right.shape[axis] < 2:
            raise ValueError("there is one alone")
        return np.take(right, order(right.shape[axis]), axis=axis)

    return change


def merged(axis: int, order: Callable[[int], Any]) -> Callable[..., Any]:
    """Heads merged after their parts were taken in another order."""

    def change(step: Step, x: Any) -> Any:
        if x.shape[axis] < 2:
            raise ValueError("there is one alone")
        return step.right(np.take(x, order(x.shape[axis]), axis=axis))

    return change


ORDERS: dict[str, Callable[[int], Any]] = {
    "first {0}'s for all": lambda count: np.zeros(count, int),
    "last {0}'s for all": lambda count: np.full(count, count - 1),
    "next {0}'s": lambda count: np.roll(np.arange(count), -1),
    "{0} before it": lambda count: np.roll(np.arange(count), 1),
    "{0}s in reverse": lambda count: np.arange(count)[::-1],
}
for (what, pattern), (axis, number), (way, order) in itertools.product(
    HEADS.items(), AXES_OF_HEADS.items(), ORDERS.items()
):
    of_another.add_way(f"{what}: {way.format(axis)}", {split_heads: At(pattern, taken(number, order))})
for (axis, number), (way, order) in itertools.product(AXES_OF_HEADS.items(), ORDERS.items()):
    of_another.add_way(f"context: {way.format(axis)}", {merge_heads: merged(number, order)})


@of_another.recogniser
def parts_of_others(evidence: Evidence) -> Ways:
    """Recognise the right numbers of other parts along one axis."""
    right, theirs = evidence.right, evidence.theirs
    if evidence.layer in (additive_mask, as_constant) or right.size < MORE_THAN_A_FEW:
        return {}
    for axis, what in enumerate(axes_of(evidence.step.name, right.ndim)):
        count = right.shape[axis]
        if not 1 < count <= MOST:
            continue
        order = nearest_parts(np.moveaxis(right, axis, 0), np.moveaxis(theirs, axis, 0))
        made = np.take(right, order, axis=axis)
        if (order == np.arange(count)).all() or not evidence.is_explained_by(made):
            continue
        return evidence.replace_result(made, f"{what}s {listed_order(order)}")
    return {}


def nearest_parts(right: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For each part of theirs the right one that comes closest."""
    a, b = right.reshape(len(right), -1), theirs.reshape(len(theirs), -1)
    apart = (b * b).sum(axis=1)[:, None] - 2.0 * (b @ a.T) + (a * a).sum(axis=1)[None, :]
    own = np.einsum("ij,ij->i", b - a, b - a)
    order: np.ndarray = apart.argmin(axis=1)
    return np.where(own <= apart.min(axis=1) + 1e-12 * (b * b).sum(axis=1), np.arange(len(a)), order)


def listed_order(order: np.ndarray) -> str:
    """Write an order in words."""
    if (order == order[0]).all():
        return f"all have the numbers of {order[0]}"
    return f"in the order {', '.join(map(str, order[:8]))}{' …' if len(order) > 8 else ''}"


# -------------------------------------------------------------------------------------------- a reshape for a transpose

reshaped = mistake(
    WRONG_PLACES,
    "reshaped in place of transposed",
    does="numbers are read in the order of another shape: a reshape where axes have to be exchanged, or other strides",
    right="to exchange the axes, so that each number keeps its place",
    across_texts=("**text**",),
)


def read_as(order: tuple[int, ...]) -> Callable[[Any], Any]:
    """Numbers of an array written in one order of axes, and read in another."""
    return lambda x: x.transpose(order).reshape(x.shape)


def batch_and_length(step: Step, x: Any, *, head_size: int) -> Any:
    """Read (B, L, H) as (L, B, H)."""
    return step.right(x.reshape(x.shape[1], x.shape[0], -1).transpose(1, 0, 2), head_size=head_size)


for what, pattern in HEADS.items():
    reshaped.add_way(f"{what}: texts and tokens", {split_heads: At(pattern, batch_and_length)})
reshaped.add_way("queries, keys and values: texts and tokens", {split_heads: batch_and_length})


@reshaped.way("context: texts and tokens", merge_heads)
def merged_batch_and_length(step: Step, x: Any) -> Any:
    """The context written as (L, B, H) and read as (B, L, H)."""
    y = step.right(x)
    return y.transpose(1, 0, 2).reshape(y.shape)


@reshaped.way("word embeddings: column by column", embedding, at="embeddings.word_embeddings")
def column_major(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """A table (V, E) that was written column by column."""
    return step.right(ids, weight.reshape(weight.shape[::-1]).T, **options)


@reshaped.way("word embeddings: written column by column", embedding, at="embeddings.word_embeddings")
def row_major(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """The table as a checkpoint would have it column by column, read row by row."""
    return step.right(ids, np.ascontiguousarray(weight.T).reshape(weight.shape), **options)


@reshaped.recogniser
def read_in_another_order(evidence: Evidence) -> Ways:
    """Recognise the right numbers, written in one order of axes and read in another."""
    right = evidence.right
    if right.ndim < 2 or evidence.layer is additive_mask:
        return {}
    for order in list(itertools.permutations(range(right.ndim)))[1:]:
        back = np.argsort(order)
        shape = tuple(right.shape[axis] for axis in order)
        for made in (right.transpose(order).reshape(right.shape), right.reshape(shape).transpose(back)):
            if evidence.is_explained_by(made):
                if has_square_scores(evidence.step.name, right) and (made == np.swapaxes(right, 2, 3)).all():
                    continue
                return evidence.replace_result(made, f"axes in the order {order}")
    return {}


# ---------------------------------------------------------------------------------------------------- fused projections

fused = mistake(
    WRONG_PLACES,
    "fused query, key and value cut otherwise",
    does="the one matrix of query, key and value is cut in another order than it was put together",
    right="three matrices of (N, D) rows each, one after another",
)


def cut(which: str, step: Step, put: tuple[int, ...], part: str) -> Any:
    """Read the rows of query, key and value after one another as (N, 3, D), or put them together so."""
    scope = step.name.rpartition(".")[0]
    arrays = [np.asarray(step.weights[f"{scope}.{name}.{part}"]) for name in ("query", "key", "value")]
    heads, size = int(step.config.attention_heads), int(step.config.head_size)
    if any(array.shape != arrays[0].shape or len(array) != heads * size for array in arrays):
        raise ValueError("query, key and value have other shapes")
    stacked = np.stack([array.reshape(heads, size, -1) for array in arrays])  # (3, N, D, …)
    index = ("query", "key", "value").index(which)
    if put == (3, 1):  # put together as (3, N, D), cut as (N, 3, D)
        found = stacked.reshape(heads, 3, size, -1)[:, index]
    elif put == (1, 3):  # put together as (N, 3, D), cut as (3, N, D)
        found = stacked.transpose(1, 0, 2, 3).reshape(3, heads, size, -1)[index]
    elif put == (3, 2):  # put together as (3, N, D), cut as (N, D, 3)
        found = stacked.reshape(heads, size, 3, -1)[:, :, index]
    else:  # put together as (N, D, 3), cut as (3, N, D)
        found = stacked.transpose(1, 2, 0, 3).reshape(3, heads, size, -1)[index]
    return found.reshape(arrays[0].shape)


def cutting(put: tuple[int, ...]) -> Changes:
    """Query, key and value from a fused matrix that is cut otherwise."""

    def change(step: Step, x: Any, *rest: Any) -> Any:
        which = step.name.rpartition(".")[2]
        return step.right(x, cut(which, step, put, "weight"), cut(which, step, put, "bias"))

    return {linear: At(("**.self.query", "**.self.key", "**.self.value"), change)}


fused.add_way("cut head by head, (N, 3, D)", cutting((3, 1)))
fused.add_way("put together head by head, (N, 3, D), and cut in three", cutting((1, 3)))
fused.add_way("cut row by row, (N, D, 3)", cutting((3, 2)))
fused.add_way("put together row by row, (N, D, 3), and cut in three", cutting((2, 3)))

# ------------------------------------------------------------------------------------------ parts that are not computed

not_written = mistake(
    WRONG_PLACES,
    "part not computed",
    does="a part of a step's result is left at 0 or not added up: what does not fill a tile",
    right="to compute all of it",
)


def zero_after(axis: int, size: int) -> Callable[..., Any]:
    """Zeros in what does not fill a tile of an axis."""

    def change(step: Step, *arguments: Any, **options: Any) -> Any:
        right = np.array(step.right(*arguments, **options))
        count = right.shape[axis]
        if count % size == 0:
            raise ValueError("the tiles are full")
        index = [slice(None)] * right.ndim
        index[axis] = slice(count // size * size, None)
        right[tuple(index)] = 0.0
        return right

    return change


def summed_to(size: int) -> Callable[..., Any]:
    """Products without the features that do not fill a tile."""

    def change(step: Step, x: Any, weight: Any, *rest: Any) -> Any:
        count = x.shape[-1]
        if count % size == 0 or count < size:
            raise ValueError("the tiles are full")
        whole = count // size * size
        last = -2 if step.name.endswith("context") else -1
        return step.right(x[..., :whole], np.take(weight, np.arange(whole), axis=last), *rest)

    return change


for size in (2, 4, 8, 16, 32, 64, 128):
    for layer, pattern in ((linear, "**"), (content_scores, "**"), (content_context, "**")):
        not_written.add_way(
            f"features beyond tiles of {size} not added up, in {layer.__name__}", {layer: At(pattern, summed_to(size))}
        )
    not_written.add_way(f"queries beyond tiles of {size}, in the context", {merge_heads: zero_after(1, size)})


def without_last(layer: Layer) -> Callable[..., Any]:
    """Products without the last feature."""

    def change(step: Step, x: Any, weight: Any, *rest: Any) -> Any:
        last = -2 if layer is content_context else -1
        return step.right(x[..., :-1], np.take(weight, np.arange(x.shape[-1] - 1), axis=last), *rest)

    return change


for layer in (linear, content_scores, content_context):
    not_written.way(f"the last feature not added up, in {layer.__name__}", layer)(without_last(layer))


@not_written.recogniser
def zeros_in_part(evidence: Evidence) -> Ways:
    """Recognise zeros, or absurdly large numbers, in some texts, heads, tokens or features; the others are right."""
    right, theirs = evidence.right, evidence.theirs
    if evidence.layer is additive_mask or right.size < MORE_THAN_A_FEW:
        return {}
    wrong = np.abs(theirs - right) > evidence.allowed
    garbage = bool((np.abs(theirs) > GARBAGE * np.abs(right).max()).any())
    if not wrong.any() or ((np.abs(theirs[wrong]) > 0.0).any() and not garbage):
        return {}
    for axis, what in enumerate(axes_of(evidence.step.name, right.ndim)):
        others = tuple(other for other in range(right.ndim) if other != axis)
        parts = wrong.any(axis=others)
        if parts.all():
            continue
        at = np.flatnonzero(parts)
        which = f"{what} {at[0]}{f' to {at[-1]}' if len(at) > 1 else ''}"
        made = np.where(np.expand_dims(parts, others), theirs if garbage else 0.0, right)
        if evidence.is_explained_by(made):
            left = f"whatever was in memory, up to {np.abs(theirs).max():.0e}" if garbage else "0"
            return evidence.replace_result(made, f"{which} left at {left}")
    return {}


# --------------------------------------------------------------------------------------------------- multiplied numbers

scaling_kept = mistake(
    WRONG_PLACES,
    "dropout's scaling left on",
    does="no number is dropped, but all are multiplied by 1 − p or divided by it",
    right="to leave them as they are outside of training",
)


def rate_of(step: Step) -> float:
    """Return p of a step's dropout, BERT's 0.1 where the configuration has none."""
    of_probs = step.name.endswith(".self.dropout")
    rate = float(step.config.attention_probs_dropout_prob if of_probs else step.config.hidden_dropout_prob)
    return rate if 0.0 < rate < 1.0 else 0.1


def multiplied_by(factor: Callable[[float], float]) -> Callable[..., Any]:
    """A dropout layer that multiplies all numbers by a function of p."""
    return lambda step, x: x * factor(rate_of(step))


for way, factor in (("by 1 − p", lambda p: 1.0 - p), ("by 1/(1 − p)", lambda p: 1.0 / (1.0 - p))):
    scaling_kept.way(f"multiplied {way}", unchanged)(multiplied_by(factor))
    scaling_kept.way(f"probabilities multiplied {way}", unchanged, at="**.self.dropout")(multiplied_by(factor))
    scaling_kept.way(f"hidden states multiplied {way}", unchanged, at=("**.output.dropout", "embeddings.dropout"))(
        multiplied_by(factor)
    )

multiplied = mistake(
    WRONG_PLACES,
    "result multiplied",
    does="a step's result is multiplied by a number",
    right="the result itself",
)


@multiplied.recogniser
def constant_factor(evidence: Evidence) -> Ways:
    """Recognise a multiple of the right numbers."""
    right, theirs = evidence.right, evidence.theirs
    if right.size < MORE_THAN_A_FEW or evidence.layer is additive_mask or not right.any():
        return {}
    size = float((right * right).sum())
    factor = float((right * theirs).sum()) / size
    if abs(factor - 1.0) < 1e-3 or not evidence.is_explained_by(factor * right, margin=max(1.0, abs(factor))):
        return {}
    return evidence.replace_result(factor * right, f"by {factor:.6g}")


# --------------------------------------------------------------------------------------------------------------- layers

layers_otherwise = mistake(
    WRONG_PLACES,
    "layers left out",
    does="a layer of the encoder is skipped",
    right="all num_hidden_layers layers, in their order",
)


def skipped(which: Callable[[int, int], bool]) -> Callable[..., Any]:
    """A layer that returns what it is given: of its number, and of how many there are."""

    def change(step: Step, x: Any, w: Any, **options: Any) -> Any:
        found = step.right(x, w, **options)
        index = int(step.name.rpartition(".")[2])
        return (x, *found[1:]) if which(index, int(step.config.num_hidden_layers)) else found

    return change


layers_otherwise.way("the last", model.encoder_layer)(skipped(lambda index, count: index == count - 1))
layers_otherwise.way("the first", model.encoder_layer)(skipped(lambda index, count: index == 0))
layers_otherwise.way("the last two", model.encoder_layer)(skipped(lambda index, count: index >= count - 2))
layers_otherwise.way("every second", model.encoder_layer)(skipped(lambda index, count: index % 2 == 1))

branch_left_out = mistake(
    WRONG_PLACES,
    "part of a sum left out",
    does="one of two summands is not added",
    right="their sum",
)


@branch_left_out.way("the block's result, in the residual", add, at="**.residual")
def residual_alone(step: Step, x: Any, y: Any) -> Any:
    """What came into a block alone."""
    return y


@branch_left_out.recogniser
def summands_otherwise(evidence: Evidence) -> Ways:
    """Recognise one summand alone, at every step that adds two."""
    if evidence.layer is not add:
        return {}
    x, y = evidence.arguments
    found = {"the second": x, "the first": y}
    return next(
        (
            {f"{which}, in {evidence.step.name}": {add: At(of_every_layer(evidence.step.name), CHANGES[which])}}
            for which, left in found.items()
            if evidence.is_explained_by(left)
        ),
        {},
    )


CHANGES: dict[str, Callable[..., Any]] = {"the second": lambda step, x, y: x, "the first": lambda step, x, y: y}


@branch_left_out.way("the first, in the embeddings", add, at="embeddings.sum")
def second_alone(step: Step, x: Any, y: Any) -> Any:
    """The token types alone."""
    return y


# --------------------------------------------------------------------------------------------------------------- rotary

rotary = mistake(
    WRONG_PLACES,
    "rotary positions applied",
    does="queries and keys are turned by angles of their positions (RoPE)",
    right="to leave them as they are: this model has positions of another kind",
)


def turned(*, halves: bool) -> Callable[..., Any]:
    """Queries or keys turned by their positions."""

    def change(step: Step, x: Any, *, head_size: int) -> Any:
        y = step.right(x, head_size=head_size)
        if head_size % 2:
            raise ValueError("the heads cannot be cut into pairs")
        angle = np.arange(y.shape[2])[:, None] * 10000.0 ** (-np.arange(0, head_size, 2) / head_size)
        cosine, sine = np.cos(angle), np.sin(angle)
        if halves:
            a, b = y[..., : head_size // 2], y[..., head_size // 2 :]
            return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)
        a, b = y[..., 0::2], y[..., 1::2]
        return np.stack([a * cosine - b * sine, b * cosine + a * sine], axis=-1).reshape(y.shape)

    return change


for way, halves in (("halves", True), ("neighbours in turn", False)):
    rotary.way(way, split_heads, at=(QUERIES, KEYS))(turned(halves=halves))
    rotary.way(f"{way}, queries alone", split_heads, at=QUERIES)(turned(halves=halves))
    rotary.way(f"{way}, keys alone", split_heads, at=KEYS)(turned(halves=halves))
