"""transformers, TensorFlow: `pip install 'transformers==4.37.2' 'tensorflow-cpu==2.21.0' tf-keras==2.21.0`."""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported

import numpy as np
from transformers import BertConfig, TFBertForMaskedLM, TFBertModel

import nezha_np as nz

PACKAGES, NAMES = ("transformers", "tf-keras", "tensorflow"), "tensorflow"
BUNDLES = ("bert-masked_lm", "bert-masked_lm-holes", "bert-forward-pairs", "bert-forward-relative_key")


def our_name(theirs):
    """Name a weight of theirs as ours."""
    *place, kind = theirs.partition(":")[0].split("/")[1:]
    name = ".".join(part for part in place if part != "bert")
    kind = "bias" if kind in ("bias", "beta") else "weight"
    return f"{name.replace('layer_._', 'layer.').replace('mlm___cls', 'cls')}.{kind}"


def run(bundle):
    inputs, weights = bundle.inputs, bundle.weights().to(dtype="float32")
    config = BertConfig(**{**bundle.config.to_dict(), "return_dict": True})
    model = (TFBertForMaskedLM if bundle.head == "masked_lm" else TFBertModel)(config)
    model(input_ids=inputs["input_ids"])  # Keras makes the weights at the first call
    for weight in model.weights:
        array = np.array(weights[our_name(weight.name)])
        weight.assign(array.T if "/kernel:" in weight.name else array)
    return nz.oracle.capture_tf(model, names=NAMES, **inputs)
