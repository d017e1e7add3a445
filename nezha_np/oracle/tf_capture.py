"""Recording a model of Keras: what each of its layers returns, under the names of our traces.

Nothing is imported here: whoever has a model has its library.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import kind_of
from nezha_np.oracle.alignment import Rename, check_names, renamed, without_prefix
from nezha_np.oracle.nesting import flattened, named

METHODS = ("call", "quantized_call")  # what Keras calls of a layer, the second where its weights were quantised


def capture_tf(
    model: Any,
    *inputs: Any,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    **kwargs: Any,
) -> dict[str, np.ndarray]:
    """Run a model of TensorFlow's Keras once, and record what each of its layers returns.

    It runs as it does by itself, which is without dropout, and eagerly: meanwhile this is so for every `tf.function`. A
    model that has no weights yet runs twice. Its layers are afterwards as they were.

    Parameters
    ----------
    model : keras.layers.Layer or keras.Model
        The model, of Keras 2 (``tf_keras``, as transformers has it) or Keras 3, there on TensorFlow or JAX.
    *inputs, **kwargs
        What the model takes. NumPy's floats, in tuples, lists and mappings too, come in the dtype that it computes in:
        a bundle's inputs fit as they are.
    rename : mapping of str to str, optional
        Our names for its layers, as for `nezha_np.oracle.compare`.
    names : str, optional
        A table of renames that ships with the package, as for `nezha_np.oracle.compare`: ``"tensorflow"`` knows the
        layers of transformers, ``"kerashub"`` those of KerasHub.

    Returns
    -------
    dict of str to array
        For each layer the first array that it returns, in the order of the calls, by the names of the layers around it
        and its own, with dots between them, without the model's own name and without ``bert.`` or ``convbert.``; a
        second call's is ``name_2``. What the model itself returns is ``outputs/logits``, …, by number where it has no
        names. Gradients are not recorded. bfloat16 becomes float32.

    Raises
    ------
    TypeError
        If the model is none of Keras.
    ValueError
        If two layers have one name, or the model calls none.

    Examples
    --------
    With ``model``, transformers' TFBertForMaskedLM for example, and a bundle of its weights::

        theirs = nz.oracle.capture_tf(model, names="tensorflow", **bundle.inputs)
        print(nz.oracle.compare(bundle, theirs).summary())
    """
    if not hasattr(model, "_flatten_layers"):
        raise TypeError(f"model: expected a layer or a model of Keras, got {kind_of(model)}")
    table = check_names(rename, names)
    captured: dict[str, np.ndarray] = {}
    calls: Counter[str] = Counter()

    def record(name: str, output: Any) -> None:
        array = next(_arrays(output), None)
        if array is not None:
            calls[name] += 1
            captured[name if calls[name] == 1 else f"{name}_{calls[name]}"] = array

    arguments = [_in_dtype_of(model, value) for value in inputs]
    options = {key: _in_dtype_of(model, value) for key, value in kwargs.items()}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_eagerly())
        if not model.built:  # some layers are made when their inputs are known
            model(*arguments, **options)
        for layer, name in _layer_names(model, table):
            stack.enter_context(_listening(layer, functools.partial(record, name)))
        returned = flattened(named(model(*arguments, **options)))
    if not captured:
        raise ValueError(f"model: expected one that calls layers, got {kind_of(model)}, which calls none")
    return captured | {f"outputs/{name}": array for name, value in returned.items() for array in _arrays(value)}


def _layer_names(model: Any, rename: Rename) -> list[tuple[Any, str]]:
    """Name each layer below a model as our traces do; one in two places by the first. A backbone has no name."""
    seen: set[int] = set()
    first: dict[str, str] = {}
    found = []

    def walk(parent: Any, above: str) -> None:
        for layer in parent._flatten_layers(recursive=False, include_self=False):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = above + layer.name.replace("/", ".")
            name = without_prefix(renamed(without_prefix(f"{path}."), rename))[:-1]
            if name:
                if name in first:
                    raise ValueError(f"model: expected one layer for each name, got {first[name]} and {path}: {name}")
                first[name] = path
                found.append((layer, name))
            walk(layer, f"{path}.")

    walk(model, "")
    return found


@contextlib.contextmanager
def _listening(layer: Any, record: Callable[[Any], None]) -> Iterator[None]:
    """Have what a layer returns recorded: what Keras calls of it stands before its class's, in the layer itself."""
    own = vars(layer)
    before = {method: own.get(method) for method in METHODS if hasattr(layer, method)}
    for method in before:
        own[method] = _recorded(getattr(layer, method), record)
    try:
        yield
    finally:
        for method, function in before.items():
            if function is None:
                del own[method]
            else:
                own[method] = function


def _recorded(function: Callable[..., Any], record: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*inputs: Any, **kwargs: Any) -> Any:
        output = function(*inputs, **kwargs)
        record(output)
        return output

    return run


@contextlib.contextmanager
def _eagerly() -> Iterator[None]:
    """Let each function of TensorFlow run line by line, where arrays have numbers."""
    tensorflow = sys.modules.get("tensorflow")  # a model of Keras on JAX needs none
    before = tensorflow is None or tensorflow.config.functions_run_eagerly()
    if tensorflow is not None and not before:
        tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        if tensorflow is not None and not before:
            tensorflow.config.run_functions_eagerly(False)


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """Go through the arrays of numbers that a layer returns, in tuples and mappings too."""
    if isinstance(value, (Mapping, tuple, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _arrays(part)
    elif hasattr(value, "__array__"):
        array = np.array(value)
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        if array.dtype.kind in "biuf":
            yield array


def _in_dtype_of(model: Any, value: Any) -> Any:
    """Bring NumPy's floats, in tuples, lists and mappings too, to what a model computes in."""
    if isinstance(value, Mapping):
        return {key: _in_dtype_of(model, part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_in_dtype_of(model, part) for part in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and model.compute_dtype:
        return value.astype(model.compute_dtype)
    return value
