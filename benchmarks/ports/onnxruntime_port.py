"""transformers' models, exported to ONNX and run by onnxruntime: `pip install '.[benchmarks]'`."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from transformers_port import load

import nezha_np as nz

PACKAGES, NAMES, TRANSPOSED = ("onnxruntime", "onnx", "transformers", "torch"), None, True
BUNDLES = (
    "nezha-masked_lm-holes",
    "nezha-forward-pairs",
    "bert-forward-pairs",
    "bert-forward-relative_key",
    "convbert-forward-pairs",
)
TOKENS = ("input_ids", "attention_mask", "token_type_ids")


def run(bundle):
    inputs = {name: torch.tensor(bundle.inputs[name]) for name in TOKENS if name in bundle.inputs}
    outputs = (
        ["logits"] if bundle.head == "masked_lm" else ["last_hidden_state", "pooler_output"][: len(bundle.outputs)]
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, that tracing keeps what Python decides
        path = Path(folder) / "model.onnx"
        if bundle.config.model_type == "convbert":
            outputs = ["last_hidden_state"]
        options = {"input_names": list(inputs), "output_names": outputs, "opset_version": 17, "dynamo": False}
        torch.onnx.export(load(bundle), (inputs,), path, **options)
        names = None if bundle.config.model_type == "convbert" else "transformers_onnx"
        return nz.oracle.capture_onnx(path, inputs, names=names)
