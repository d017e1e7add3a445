"""bert4torch: `pip install bert4torch==0.6.2 torch==2.13.0 transformers==4.37.2 pillow httpx regex requests`.

It imports torchvision for other models than these; where that is not installed, an empty module stands in for it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from unittest.mock import MagicMock

import numpy as np
import torch

import nezha_np as nz

PACKAGES, NAMES = ("bert4torch", "torch"), "bert4torch"
BUNDLES = ("bert-masked_lm", "bert-forward-pairs", "nezha-masked_lm", "nezha-forward-pairs")


def _models():
    if importlib.util.find_spec("torchvision") is None:
        for part in ("", ".io", ".transforms", ".transforms.functional", ".transforms.v2", ".transforms.v2.functional"):
            module = MagicMock()
            module.__spec__ = importlib.machinery.ModuleSpec(f"torchvision{part}", None)
            sys.modules[f"torchvision{part}"] = module
    import bert4torch.models

    return bert4torch.models


def load(bundle):
    models, config = _models(), bundle.config
    of_nezha = {
        "attn_type": "typical_relative",
        "max_relative_position": getattr(config, "max_relative_position", None),
    }
    model = (models.NEZHA if config.model_type == "nezha" else models.BERT)(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        hidden_act=config.hidden_act,
        max_position_embeddings=config.max_position_embeddings,
        segment_vocab_size=config.type_vocab_size,
        layer_norm_eps=config.layer_norm_eps,
        with_mlm="linear" if bundle.head == "masked_lm" else False,
        with_pool=bundle.head != "masked_lm",
        **(of_nezha if config.model_type == "nezha" else {}),
    )
    theirs = model.variable_mapping() if callable(model.variable_mapping) else model.variable_mapping
    weights, state = bundle.weights().to(dtype="float32"), model.state_dict()
    for name, parameter in state.items():
        ours = theirs.get(name, name).removeprefix("bert.")
        ours = "embeddings.word_embeddings.weight" if ours == "cls.predictions.decoder.weight" else ours
        if ours in weights:
            state[name] = torch.tensor(np.array(weights[ours]))
        elif name == "embeddings.position_embeddings.weight":  # NEZHA has none
            state[name] = torch.zeros_like(parameter)
    model.load_state_dict(state)
    return model.eval()


def run(bundle):
    ids = bundle.inputs["input_ids"]
    tokens = [torch.tensor(ids), torch.tensor(bundle.inputs.get("token_type_ids", np.zeros_like(ids)))]
    mask = bundle.inputs.get("attention_mask", np.ones_like(ids))
    found = nz.oracle.capture_torch(load(bundle), tokens, attention_mask=torch.tensor(mask), names=NAMES)
    return {name: array for name, array in found.items() if not name.startswith("outputs/")}  # which have no names
