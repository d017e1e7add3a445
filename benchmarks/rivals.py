"""The other packages, with our weights: transformers on torch, and ONNX Runtime."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

import nezha_np as nz

Inputs = dict[str, np.ndarray]
Answer = Callable[[Inputs], np.ndarray]  # from ids and masks to last hidden states


def reference_model(weights: nz.Weights) -> torch.nn.Module:
    """Make the reference's backbone with our weights: the model that nz.forward runs."""
    name = type(weights.config).__name__
    kind = getattr(transformers, name.removesuffix("Config") + "Model")
    model = kind(getattr(transformers, name)(**weights.config.to_dict())).eval()
    state = model.state_dict()
    ours = {key: torch.tensor(array) for key, array in weights.items() if key in state}
    missing, _ = model.load_state_dict(ours, strict=False)
    parameters = {key for key, _ in model.named_parameters()}
    if lacking := parameters & set(missing):  # position tables are buffers, which the reference computes
        raise ValueError(f"the reference has parameters that we have not: {sorted(lacking)}")
    return model


def reference_answer(model: torch.nn.Module) -> Answer:
    """Return the reference as a function; torch.tensor copies ids and masks, which takes microseconds."""

    def answer(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            return model(**{name: torch.tensor(values) for name, values in inputs.items()}).last_hidden_state.numpy()

    return answer


def why_no_onnx() -> str | None:
    """Return what is missing for ONNX Runtime, or None."""
    for name in ("onnx", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            return f"{name} is not installed"
    return None


def onnx_answer(model: torch.nn.Module, inputs: Inputs, threads: int) -> Answer:
    """Export the reference for the shape of these inputs, and make ONNX Runtime run it.

    With dynamic axes the exported model contains the position table of the length at which it was exported, and is
    wrong at any other length. So each batch size and length has its own model. Both outputs are exported, because the
    others compute both too. Everything else is ONNX Runtime's default, its spinning threads included.
    """
    import onnxruntime

    names = ["last_hidden_state", "pooler_output"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns that it is old, and about intended constants
            tensors = tuple(torch.tensor(values) for values in inputs.values())
            torch.onnx.export(model, tensors, str(file), dynamo=False, input_names=list(inputs), output_names=names)
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(names, given)[0]
