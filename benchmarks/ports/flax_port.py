"""transformers, Flax: `pip install 'transformers==4.37.2' 'jax==0.10.2' flax==0.12.8`."""

from __future__ import annotations

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import BertConfig, FlaxBertForMaskedLM, FlaxBertModel

import nezha_np as nz

PACKAGES, NAMES = ("transformers", "flax", "jax"), "flax"
BUNDLES = ("bert-masked_lm", "bert-masked_lm-holes", "bert-forward-pairs")


def run(bundle):
    inputs, weights = bundle.inputs, bundle.weights().to(dtype="float32")
    config = BertConfig(**{**bundle.config.to_dict(), "return_dict": True})
    model = (FlaxBertForMaskedLM if bundle.head == "masked_lm" else FlaxBertModel)(config)
    params = flatten_dict(model.params)
    for path in params:
        name = ".".join(path).removeprefix("bert.")
        for theirs in ("kernel", "scale", "embedding"):
            name = name.removesuffix(theirs) + "weight" if name.endswith(f".{theirs}") else name
        array = np.array(weights[name])
        params[path] = array.T if path[-1] == "kernel" else array
    ids = inputs["input_ids"]
    given = {
        "attention_mask": inputs.get("attention_mask", np.ones_like(ids)),
        "token_type_ids": inputs.get("token_type_ids", np.zeros_like(ids)),
        "position_ids": np.broadcast_to(np.arange(ids.shape[-1]), ids.shape),
        "head_mask": None,
    }

    @jax.jit
    def captured(ids):
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        return model.module.apply({"params": unflatten_dict(params)}, ids, **given, **options)[1]["intermediates"]

    return nz.oracle.capture_jax(captured, ids, names=NAMES)
