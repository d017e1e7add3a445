"""Softmaxes that are another function of the right scores: not divided, applied twice, of capped scores, in tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.attention import attention_probs, mask_heads
from nezha_np.layers.softmax import softmax
from nezha_np.oracle.mistakes.masks import is_attended
from nezha_np.oracle.mistakes.mistake import Mistake, mistake
from nezha_np.oracle.replay import Changes, Step

OTHER_SOFTMAX: list[Mistake] = []

not_divided = mistake(
    OTHER_SOFTMAX,
    "softmax not divided by its sum",
    does="the exponentials are not divided by their sum over all keys",
    right="exp(x − maximum) over the sum of these over all keys",
)


def exponentials(scores: Any, mask: Any, scale: float) -> tuple[Any, Any]:
    """Return the logits, and exp(x − maximum)."""
    logits = scores * scale if mask is None else np.maximum(scores * scale + mask, np.finfo(scores.dtype).min)
    return logits, np.exp(logits - logits.max(axis=-1, keepdims=True))


@not_divided.way("", attention_probs)
def powers_alone(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The exponentials alone."""
    return exponentials(scores, mask, scale)[1]


@not_divided.way("divided by the largest", attention_probs)
def over_the_largest(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Probabilities of which the largest is 1."""
    probs = step.right(scores, mask, scale=scale)
    return probs / probs.max(axis=-1, keepdims=True) * (1.0 - 1e-12)


@not_divided.way("divided by the number of keys", attention_probs)
def over_the_count(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The exponentials over S."""
    return exponentials(scores, mask, scale)[1] / scores.shape[-1]


@not_divided.way("divided by the root of the sum of squares", attention_probs)
def over_the_root(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The exponentials over their length."""
    power = exponentials(scores, mask, scale)[1]
    return power / np.sqrt((power * power).sum(axis=-1, keepdims=True))


def tiles_of(size: Callable[[int], int], rescaled: str, *, halved: bool = False) -> Changes:
    """A softmax in tiles of keys with a running maximum, of which the sums or the numbers before are not rescaled."""

    def change(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        logits, _ = exponentials(scores, mask, scale)
        keys, tile = scores.shape[-1], size(scores.shape[-1])
        if not 0 < tile < keys:
            raise ValueError("there is one tile alone")
        starts = [0, tile] if halved else range(0, keys, tile)
        own: Any = np.split(logits, starts[1:], axis=-1)
        highest = np.maximum.accumulate(np.stack([part.max(axis=-1, keepdims=True) for part in own]), axis=0)
        if rescaled == "nothing":  # each tile keeps the maximum that was known when it was computed
            powers = [np.exp(part - most) for part, most in zip(own, highest, strict=True)]
            total = sum(power.sum(axis=-1, keepdims=True) for power in powers)
            return np.concatenate(powers, axis=-1) / total
        if rescaled == "the numbers alone":
            powers = [np.exp(part - most) for part, most in zip(own, highest, strict=True)]
            total = sum(power.sum(axis=-1, keepdims=True) for power in powers)
            return np.exp(logits - highest[-1]) / total
        if rescaled == "nothing, each tile by itself":
            return np.concatenate([np.asarray(softmax(part)) for part in own], axis=-1)
        total = np.exp(own[-1] - highest[-1]).sum(axis=-1, keepdims=True)  # the last tile's
        return np.exp(logits - highest[-1]) / total

    return {attention_probs: change}


in_tiles = mistake(
    OTHER_SOFTMAX,
    "softmax in tiles",
    does="the softmax is made in tiles of keys, and what was computed of the first ones is not rescaled or added up",
    right="exp(x − maximum) over the sum of these over all keys",
)


def of_size(count: int) -> Callable[[int], int]:
    """Tiles of so many keys."""
    return lambda keys: count


SIZES: dict[str, Callable[[int], int]] = {
    "two halves": lambda keys: keys // 2,
    "two halves, the first one longer": lambda keys: (keys + 1) // 2,
    **{f"tiles of {count}": of_size(count) for count in (2, 3, 4, 8, 16, 32, 64)},
}
for what, size in SIZES.items():
    in_tiles.add_way(f"{what}, not rescaled", tiles_of(size, "nothing", halved="halves" in what))
    in_tiles.add_way(f"{what}, the sum not rescaled", tiles_of(size, "the numbers alone", halved="halves" in what))
    in_tiles.add_way(f"{what}, each by itself", tiles_of(size, "nothing, each tile by itself", halved="halves" in what))
    in_tiles.add_way(f"{what}, the last one's sum alone", tiles_of(size, "the last sum", halved="halves" in what))

applied_twice = mistake(
    OTHER_SOFTMAX,
    "softmax applied twice",
    does="the softmax is taken of the probabilities again, or its logarithm is returned",
    right="the probabilities",
)


@applied_twice.way("", attention_probs)
def of_probabilities(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The softmax of the softmax."""
    return np.asarray(softmax(step.right(scores, mask, scale=scale)))


@applied_twice.way("masked again", attention_probs)
def of_masked_probabilities(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The softmax of the probabilities, with the mask added to them."""
    if mask is None:
        raise ValueError("there is no mask")
    return step.right(step.right(scores, mask, scale=scale), mask, scale=1.0)


@applied_twice.way("its logarithm", attention_probs)
def logarithms(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The logarithm of the softmax."""
    return np.log(np.maximum(step.right(scores, mask, scale=scale), 1e-300))


capped = mistake(
    OTHER_SOFTMAX,
    "scores capped",
    does="scores are bent or cut off before the softmax: c · tanh(x / c), or no more than c",
    right="the scores as they are",
)


def of_bent(function: Callable[[Any], Any], *, scaled: bool = True) -> Changes:
    """Probabilities of a function of the scores, after their scale or before it."""

    def change(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        other = function(scores * scale) if scaled else function(scores) * scale
        if (other == scores * scale).all():
            raise ValueError("no score is changed")
        return step.right(other, mask, scale=1.0)

    return {attention_probs: change}


def bent(most: float) -> Callable[[Any], Any]:
    """c · tanh(x / c)."""
    return lambda x: most * np.tanh(x / most)


def cut_at(most: float) -> Callable[[Any], Any]:
    """No more than c, and no less than −c."""
    return lambda x: np.clip(x, -most, most)


for most in (1.0, 2.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0):
    capped.add_way(f"{most:g} · tanh(x / {most:g})", of_bent(bent(most)))
    capped.add_way(f"{most:g} · tanh(x / {most:g}) before the scale", of_bent(bent(most), scaled=False))
    capped.add_way(f"cut off at ±{most:g}", of_bent(cut_at(most)))
capped.add_way("cut off below 0", of_bent(lambda x: np.maximum(x, 0.0)))
capped.add_way("without signs", of_bent(np.abs))
capped.add_way("of another sign", of_bent(np.negative))

# ---------------------------------------------------------------------------------------------------------- head masks

of_another_layer = mistake(
    OTHER_SOFTMAX,
    "head mask of another layer or head",
    does="a head is multiplied by what the head mask has for another layer, or for another head",
    right="head_mask[layer, head]",
)


def masks_by(place: Callable[[int, int], int]) -> Changes:
    """The head mask of another layer: of its number and of how many there are."""

    def change(step: Step, probs: Any, head_mask: Any) -> Any:
        masks = np.asarray(step.inputs["head_mask"])
        if masks.ndim < 2 or not step.name.startswith("encoder.layer."):
            raise ValueError("all layers have one head mask")
        layer = int(step.name.removeprefix("encoder.layer.").partition(".")[0])
        return step.right(probs, np.asarray(masks[place(layer, len(masks))], probs.dtype).reshape(head_mask.shape))

    return {mask_heads: change}


of_another_layer.add_way("of the first layer", masks_by(lambda layer, count: 0))
of_another_layer.add_way("of the last layer", masks_by(lambda layer, count: count - 1))
of_another_layer.add_way("of the next layer", masks_by(lambda layer, count: (layer + 1) % count))
of_another_layer.add_way("layers in reverse", masks_by(lambda layer, count: count - 1 - layer))


@of_another_layer.way("heads in reverse", mask_heads)
def heads_in_reverse(step: Step, probs: Any, head_mask: Any) -> Any:
    """The mask of the last head for the first."""
    return step.right(probs, head_mask[::-1])


@of_another_layer.way("the next head's", mask_heads)
def of_next_head(step: Step, probs: Any, head_mask: Any) -> Any:
    """The mask of the next head."""
    return step.right(probs, np.roll(head_mask, -1))


@of_another_layer.way("as 0 and 1", mask_heads)
def of_zero_and_one(step: Step, probs: Any, head_mask: Any) -> Any:
    """1 for every factor that is not 0."""
    return step.right(probs, (head_mask != 0) * 1.0)


masked_keys_counted = mistake(
    OTHER_SOFTMAX,
    "masked keys counted",
    does="masked keys get no probability, but count in the sum that is divided by",
    right="to leave them out of both",
)


@masked_keys_counted.way("with a score of 0", attention_probs)
def counted_as_zero(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Exponentials of 1 for masked keys in the sum alone."""
    if mask is None or is_attended(mask).all():
        raise ValueError("there is no masked key")
    may = np.broadcast_to(is_attended(mask), scores.shape)
    logits = np.where(may, scores * scale, 0.0)
    power = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return power * may / power.sum(axis=-1, keepdims=True)
