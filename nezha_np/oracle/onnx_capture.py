"""Recording an ONNX model: what each of its nodes makes in onnxruntime, under the names of our traces.

onnx and onnxruntime are imported here alone, and only when a model is recorded.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.arrays import kind_of
from nezha_np.families.family import every_prefix
from nezha_np.oracle.alignment import check_names, renamed, without_prefix


def capture_onnx(
    model: Any,
    inputs: Mapping[str, Any],
    *,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> dict[str, np.ndarray]:
    """Run an ONNX model once in onnxruntime, and record every floating-point array that its nodes make.

    Each node's result is made an output of a copy of the graph. onnxruntime fuses no nodes across an output: what it
    computes with the whole graph optimised can differ by roundings.

    Parameters
    ----------
    model : path or onnx.ModelProto
        The model, smaller than 2 GiB with its weights.
    inputs : mapping of str to array
        A bundle's inputs. What the model has no input for is left out, and what differs in its integer or float dtype
        is converted to that of the model's input.
    rename, names
        As for `nezha_np.oracle.compare`: ``names="transformers_onnx"`` knows the nodes of transformers' models.
    providers : sequence of str
        What onnxruntime computes on.

    Returns
    -------
    dict of str to array
        In the order of the nodes. PyTorch's exporter by tracing (``torch.onnx.export(..., dynamo=False)``) calls a node
        by the path of its module: ``/bert/encoder/layer.0/output/dense/Add`` is ``encoder.layer.0.output.dense.Add``,
        and the last node below a module is that module's result too, ``encoder.layer.0.output.dense``. Any other node
        is called by its result. What the model returns is ``outputs/logits``, ….

    Raises
    ------
    ModuleNotFoundError
        If onnx or onnxruntime is not installed.
    TypeError, ValueError
        If the model is none of ONNX's, or an input of it is not given.

    Examples
    --------
    With ``nezha.onnx``, an exported NezhaForMaskedLM, and a bundle of its weights::

        theirs = nz.oracle.capture_onnx("nezha.onnx", bundle.inputs, names="transformers_onnx")
        print(nz.oracle.compare(bundle, theirs).summary())
    """
    onnx, onnxruntime = _module("onnx"), _module("onnxruntime")
    table = check_names(rename, names)
    if isinstance(model, (str, Path)):
        copy = onnx.load(str(model))
    elif isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
    else:
        raise TypeError(f"model: expected a path or an onnx.ModelProto, got {kind_of(model)}")
    own_outputs = [output.name for output in copy.graph.output]
    results = {node.output[0]: node.name for node in copy.graph.node if node.op_type != "Constant" and node.output[0]}
    for result in results:
        if result not in own_outputs:
            copy.graph.output.add(name=result)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=list(providers))
    given = dict(_inputs(session, inputs))
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, given), strict=True))
    captured: dict[str, np.ndarray] = {}
    last: dict[str, str] = {}  # of each module, the last result below it
    for result, node in results.items():
        if not isinstance(found[result], np.ndarray) or found[result].dtype.kind != "f":
            continue
        scope, leaf = _path(node, result)
        captured[".".join((*scope, leaf))] = found[result]
        for depth in range(1, len(scope) + 1):
            last[".".join(scope[:depth])] = result
    captured |= {module: found[result] for module, result in last.items() if module not in every_prefix()}
    ours = {without_prefix(renamed(without_prefix(name), table)): array for name, array in captured.items()}
    return ours | {f"outputs/{name}": found[name] for name in own_outputs if isinstance(found[name], np.ndarray)}


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"capture_onnx: needs {name}, which is not installed", name=error.name) from None


def _path(node: str, result: str) -> tuple[tuple[str, ...], str]:
    """Take the name of a node apart: the path of its module, and its own name; its result's where it has no path.

    Examples
    --------
    >>> _path("/bert/encoder/layer.0/output/dense/Add", "x")
    (('bert', 'encoder', 'layer.0', 'output', 'dense'), 'Add')
    >>> _path("Add_3", "scores/1")
    ((), 'scores.1')
    """
    if node.startswith("/"):
        *scope, leaf = node[1:].split("/")
        return tuple(scope), leaf
    return (), result.replace("/", ".")


DTYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32", "tensor(double)": "float64",
          "tensor(float16)": "float16", "tensor(bool)": "bool"}  # fmt: skip


def _inputs(session: Any, given: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Give each input of a model its array, in its dtype."""
    for wanted in session.get_inputs():
        if wanted.name not in given:
            raise ValueError(f"inputs: expected {wanted.name}, an input of the model, got {', '.join(given) or 'none'}")
        yield wanted.name, np.asarray(given[wanted.name], DTYPES.get(wanted.type))
