"""Any step with one of its arguments altered: moved, in another order, averaged, or put through a function.

These are tried near the fault, where a few steps alone lie between their arrays: at each step, for each argument and
each alteration. None has a number that is fitted.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nezha_np.layers import activations
from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_context, content_scores
from nezha_np.layers.dropout import unchanged
from nezha_np.layers.embedding import embedding
from nezha_np.layers.losses import average, bce_with_logits, cross_entropy, mse
from nezha_np.layers.masks import additive_mask, as_constant
from nezha_np.layers.softmax import softmax
from nezha_np.mechanism import Layer
from nezha_np.oracle.description import OF_KEYS, axes_of
from nezha_np.oracle.mistakes.coarse_numbers import FLOATS, integers, last, whole
from nezha_np.oracle.mistakes.everywhere import INPUTS, same, wrong_input
from nezha_np.oracle.mistakes.mistake import LAYER, Mistake, Near, Sites, mistake, of_every_layer
from nezha_np.oracle.replay import At, Step

ALTERED: list[Mistake] = []
Alteration = Callable[[Any], Any]
NO_ARITHMETIC = (unchanged, as_constant, additive_mask, embedding)
OF_LABELS = (cross_entropy, mse, bce_with_logits, average)
MOST_OTHERS = 12  # arrays that are tried in place of an argument
MOST_MOVED = 4  # by how many places numbers may have moved


# -------------------------------------------------------------------------------------------------------- other places

ORDERS: dict[str, Callable[[int], Any]] = {
    "{1} in reverse": lambda count: np.arange(count)[::-1],
    "that of the first {0} for all": lambda count: np.zeros(count, int),
    "that of the last {0} for all": lambda count: np.full(count, count - 1),
    "that of the next {0}": lambda count: np.roll(np.arange(count), -1),
    "that of the {0} before": lambda count: np.roll(np.arange(count), 1),
    "{1} exchanged in pairs": lambda count: np.arange(count).reshape(-1, 2)[:, ::-1].ravel(),
    "{1} of even and odd number apart": lambda count: np.arange(count).reshape(-1, 2).T.ravel(),
    "{1} of two halves in turn": lambda count: np.arange(count).reshape(2, -1).T.ravel(),
}


def plural(what: str) -> str:
    """Write a word for several.

    Examples
    --------
    >>> plural("query"), plural("head")
    ('queries', 'heads')
    """
    return f"{what.removesuffix('y')}ies" if what == "query" else f"{what}s"


def in_order(axis: int, order: Callable[[int], Any]) -> Alteration:
    """The parts of an axis in another order."""
    return lambda x: np.take(x, order(x.shape[axis]), axis=axis)


def moved(axis: int, by: int) -> Alteration:
    """Numbers moved along an axis, with 0 where none come in."""

    def alter(x: Any) -> Any:
        if abs(by) >= x.shape[axis]:
            raise ValueError("nothing would be left")
        y = np.roll(x, by, axis=axis)
        index = [slice(None)] * x.ndim
        index[axis] = slice(None, by) if by > 0 else slice(by, None)
        y[tuple(index)] = 0.0
        return y

    return alter


def left_out(axis: int, index: int) -> Alteration:
    """0 for one part of an axis."""

    def alter(x: Any) -> Any:
        y = np.array(x)
        np.moveaxis(y, axis, 0)[index] = 0.0
        return y

    return alter


def averaged(axis: int) -> Alteration:
    """The mean over an axis for each of its parts."""
    return lambda x: np.broadcast_to(x.mean(axis=axis, keepdims=True), x.shape)


def cut_as(axis: int, parts: int) -> Alteration:
    """An axis of (parts, rest) read as (rest, parts)."""
    return in_order(axis, lambda count: np.arange(count).reshape(parts, -1).T.ravel())


def written_as(order: tuple[int, ...]) -> Alteration:
    """Numbers written in one order of axes, and read in another."""
    return lambda x: x.transpose(order).reshape(x.shape)


def read_as(order: tuple[int, ...]) -> Alteration:
    """Numbers read as an array of other axes, which are then exchanged."""
    return lambda x: x.reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))


def exchanged(order: tuple[int, ...]) -> Alteration:
    """The axes in another order."""
    return lambda x: x.transpose(order)


def along_axes(axes: tuple[str, ...], x: np.ndarray, heads: int) -> Iterator[tuple[str, Alteration]]:
    """List what may be done along one axis."""
    for axis, what in enumerate(axes):
        count = x.shape[axis]
        if count < 2:
            continue
        for way, order in ORDERS.items():
            yield way.format(what, plural(what)), in_order(axis, order)
        yield f"the mean of all {plural(what)} for each", averaged(axis)
        yield f"the first {what} left out", left_out(axis, 0)
        yield f"the last {what} left out", left_out(axis, -1)
        if what in ("token", "key", "query", "feature"):
            for by in (1, -1, 2, -2, 3, -3, 4, -4)[: 2 * MOST_MOVED]:
                yield f"{plural(what)} moved by {by}, and 0 from beyond".replace("-", "−"), moved(axis, by)
        if what in ("feature", "row", "column") and count % heads == 0 and 1 < heads < count:
            yield f"{plural(what)} cut as (D, N)", cut_as(axis, count // heads)
            yield f"{plural(what)} cut as (N, D) of (D, N)", cut_as(axis, heads)


def between_axes(axes: tuple[str, ...], x: np.ndarray) -> Iterator[tuple[str, Alteration]]:
    """List what may be done with two axes: exchanged where they are as long, or read in another order."""
    for a, b in itertools.combinations(range(x.ndim), 2):
        order = list(range(x.ndim))
        order[a], order[b] = b, a
        if x.shape[a] == x.shape[b] and x.shape[a] > 1:
            yield f"{plural(axes[a])} and {plural(axes[b])} exchanged", exchanged(tuple(order))
        elif min(x.shape[a], x.shape[b]) > 1:
            yield f"{plural(axes[a])} and {plural(axes[b])} read in another order", written_as(tuple(order))
            yield f"{plural(axes[a])} and {plural(axes[b])} written in another order", read_as(tuple(order))


# ----------------------------------------------------------------------------------------------------------- functions


def of_length_one(x: Any) -> Any:
    """Divided by the root of the sum of squares over the last axis."""
    return x / np.maximum(np.sqrt((x * x).sum(axis=-1, keepdims=True)), 1e-12)


def normalised(x: Any) -> Any:
    """The mean subtracted, and divided by the deviation, over the last axis."""
    if x.shape[-1] < 3:
        raise ValueError("of two numbers nothing would be left")
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-12)


def probabilities(x: Any) -> Any:
    """The softmax over the last axis."""
    if x.shape[-1] < 2:
        raise ValueError("there is one number alone")
    return np.asarray(softmax(x))


FUNCTIONS: dict[str, Alteration] = {
    "without signs": np.abs,
    "of another sign": np.negative,
    "cut off below 0": lambda x: np.maximum(x, 0.0),
    "cut off above 0": lambda x: np.minimum(x, 0.0),
    "cut off at ±1": lambda x: np.clip(x, -1.0, 1.0),
    "squared": np.square,
    "put through tanh": np.tanh,
    "put through gelu": lambda x: np.asarray(activations.gelu.definition(x)),
    "put through a sigmoid": lambda x: np.asarray(activations.sigmoid(x)),
    "put through a softmax": probabilities,
    "of length one": of_length_one,
    "normalised": normalised,
    "doubled": lambda x: 2.0 * x,
    "halved": lambda x: 0.5 * x,
    "one more": lambda x: 1.0 + x,
    "one less": lambda x: x - 1.0,
    "in int8": integers(8, whole),
    "in int8 with a scale for each row": integers(8, last),
    **{f"in {name}": FLOATS[name] for name in ("float16", "bfloat16", "fp8 e4m3")},
}


def alterations(name: str, parameter: str, x: Any, step_config: Any, *, is_weight: bool) -> Iterator[Any]:
    """List what may be done to an argument, by what it is called: (way, function)."""
    axes = axes_of_argument(name, parameter, x, is_weight=is_weight)
    heads = int(step_config.attention_heads)
    yield from along_axes(axes, x, heads)
    yield from between_axes(axes, x)
    yield from FUNCTIONS.items()
    root = math.sqrt(step_config.head_size)
    yield "multiplied by √D", lambda x: x * root
    yield "divided by √D", lambda x: x / root
    yield "divided by D", lambda x: x / step_config.head_size


def axes_of_argument(name: str, parameter: str, x: Any, *, is_weight: bool) -> tuple[str, ...]:
    """Say what the axes of an argument are."""
    if is_weight or parameter in ("table", "head_mask"):
        return {1: ("element",), 2: ("row", "column"), 3: ("group", "row", "column")}.get(x.ndim, ())
    if x.ndim == 4 and (parameter in ("scores", "probs") or (name.rpartition(".")[2] in OF_KEYS and parameter == "")):
        return ("text", "head", "query", "key")
    if parameter == "kernels":
        return ("text", "token", "head", "place")
    return axes_of(name, x.ndim)


# ------------------------------------------------------------------------------------------------------------- mistakes

altered = mistake(
    ALTERED,
    "argument altered",
    does="a step takes one of its arguments altered: moved, in another order, averaged, cut off or rounded",
    right="the argument as it is",
)


def parameters_of(layer: Layer, count: int) -> list[str]:
    """Name the arguments that are given by position."""
    return list(inspect.signature(layer.definition).parameters)[:count]


def with_argument(place: int, alter: Alteration) -> Callable[..., Any]:
    """A step of an argument that is altered."""

    def change(step: Step, *arguments: Any, **options: Any) -> Any:
        other = checked(alter(arguments[place]), arguments[place])
        return step.right(*arguments[:place], other, *arguments[place + 1 :], **options)

    return change


def with_both(alter: Alteration) -> Callable[..., Any]:
    """A step of two arguments that are altered alike."""

    def change(step: Step, x: Any, y: Any, *rest: Any, **options: Any) -> Any:
        return step.right(checked(alter(x), x), checked(alter(y), y), *rest, **options)

    return change


def with_result(alter: Alteration) -> Callable[..., Any]:
    """A step whose result is altered."""

    def change(step: Step, *arguments: Any, **options: Any) -> Any:
        right = step.right(*arguments, **options)
        return checked(alter(right), right)

    return change


def checked(other: Any, own: Any) -> Any:
    """Check that an alteration alters."""
    if np.shape(other) != np.shape(own) or (other == own).all():
        raise ValueError("nothing is altered")
    return other


def is_array(x: Any) -> bool:
    """Whether an argument is an array of floats that can be altered."""
    return isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.ndim > 0 and x.size > 1


@altered.near_the_fault
def arguments_altered(sites: Sites) -> Near:
    """Each argument of each step, altered in each way; and the result of the last step."""
    weights = {id(array) for array in sites.weights.values()}
    for name, (layer, arguments, _) in sites.calls.items():
        if layer in NO_ARITHMETIC:
            continue
        at = of_every_layer(name)
        for place, (parameter, x) in enumerate(zip(parameters_of(layer, len(arguments)), arguments, strict=True)):
            if not is_array(x) or (layer in OF_LABELS and place > 0) or (layer is add and place > 1):
                continue
            for way, alter in alterations(name, parameter, x, sites.weights.config, is_weight=id(x) in weights):
                yield f"{parameter}: {way}", {layer: At(at, with_argument(place, alter))}
        if layer in (content_scores, content_context):
            for way, alter in FUNCTIONS.items():
                yield f"both: {way}", {layer: At(at, with_both(alter))}


result_altered = mistake(
    ALTERED,
    "result altered",
    does="a step's result is altered: moved, in another order, averaged, cut off or put through a function",
    right="the result as it is",
)


@result_altered.near_the_fault
def results_altered(sites: Sites) -> Near:
    """The last result, altered in each way."""
    right = sites.right
    if not is_array(right) or sites.layer is None or sites.layer in NO_ARITHMETIC:
        return
    at = of_every_layer(sites.step)
    for way, alter in alterations(sites.step, "", right, sites.weights.config, is_weight=False):
        yield way, {sites.layer: At(at, with_result(alter))}


left_out_altogether = mistake(
    ALTERED,
    "step left out",
    does="a step is left out: what it is given goes on as it is",
    right="to make it",
)


@left_out_altogether.near_the_fault
def steps_left_out(sites: Sites) -> Near:
    """Each step whose result has the shape of its first argument."""
    for name, (layer, arguments, _) in sites.calls.items():
        x = arguments[0]
        if layer is add or layer in NO_ARITHMETIC or not is_array(x) or name not in sites.made:
            continue
        if np.shape(sites.made[name]) == x.shape:
            yield name, {layer: At(of_every_layer(name), lambda step, x, *rest, **options: x)}


# --------------------------------------------------------------------------------------------------- weights of another

of_another_module = mistake(
    ALTERED,
    "weights of another module",
    does="a layer has weight or bias of another one",
    right="its own",
)


def renumbered(tensor: str, own: str) -> str:
    """Give the name of a tensor the layer of a step."""
    if not (tensor.startswith(LAYER) and own.startswith(LAYER)):
        return tensor
    index = own.removeprefix(LAYER).partition(".")[0]
    return f"{LAYER}{index}.{tensor.removeprefix(LAYER).partition('.')[2]}"


def with_tensors(tensors: dict[int, str], *, of_own_layer: bool) -> Callable[..., Any]:
    """A step with other tensors, by the places of its arguments."""

    def change(step: Step, *arguments: Any, **options: Any) -> Any:
        taken = list(arguments)
        for place, tensor in tensors.items():
            other = step.weights[renumbered(tensor, step.name) if of_own_layer else tensor]
            taken[place] = checked(other, arguments[place])
        return step.right(*taken, **options)

    return change


def number_of(name: str) -> str:
    """Return the number of the layer that a name belongs to, "" where it belongs to none."""
    return name.removeprefix(LAYER).partition(".")[0] if name.startswith(LAYER) else ""


@of_another_module.near_the_fault
def tensors_of_others(sites: Sites) -> Near:
    """Each tensor of a step taken from another module: weight and bias, or one of them."""
    names = {id(array): name for name, array in sites.weights.items()}
    for name, (layer, arguments, _) in sites.calls.items():
        own = {place: names[id(x)] for place, x in enumerate(arguments) if id(x) in names}
        if not own or layer is embedding:
            continue
        for place, tensor in own.items():
            shape, part = arguments[place].shape, tensor.rpartition(".")[2]
            for other, array in sites.weights.items():
                if other == tensor or array.shape != shape or other.rpartition(".")[2] != part:
                    continue
                alike = number_of(other) == number_of(tensor)
                if not alike and of_every_layer(other) != of_every_layer(tensor):
                    continue  # of another layer the same module alone
                module, own_module = other.rpartition(".")[0], tensor.rpartition(".")[0]
                whole_module = {at: known.replace(own_module, module) for at, known in own.items()}
                for tensors in ({place: other}, whole_module):
                    if all(known in sites.weights for known in tensors.values()):
                        what = " and ".join(tensors.values())
                        yield (
                            what,
                            {
                                layer: At(
                                    of_every_layer(name), with_tensors(tensors, of_own_layer=alike and module != "")
                                )
                            },
                        )


# -------------------------------------------------------------------------------------------------------- another input


@wrong_input.near_the_fault
def other_arrays(sites: Sites) -> Near:
    """Each argument of each step between their arrays replaced by another array of its shape."""
    if len(sites.calls) < 2:
        return  # the step's own numbers tell
    for name, (layer, arguments, _) in sites.calls.items():
        for place, own in enumerate(arguments[: INPUTS.get(layer, 0)]):
            others = [
                (other, array)
                for other, array in sites.others.items()
                if np.shape(array) == np.shape(own) and array.dtype.kind == "f" and not same(array, own)
            ]
            for other, array in others[:MOST_OTHERS]:
                if other == name:
                    continue
                yield f"{other} in {name}", {layer: At(name, replaced(place, array))}


def replaced(place: int, array: Any) -> Callable[..., Any]:
    """A step of another array."""
    return lambda step, *arguments, **options: step.right(*arguments[:place], array, *arguments[place + 1 :], **options)
