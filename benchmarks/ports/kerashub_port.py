"""KerasHub's BertBackbone on JAX: `pip install keras-hub==0.32.0 'jax==0.10.2'`."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported

import keras_hub
import numpy as np

import nezha_np as nz

PACKAGES, NAMES, TRANSPOSED = ("keras-hub", "keras", "jax"), "kerashub", True
BUNDLES = ("bert-forward-pairs",)
PARTS = {"self_attention_layer/attention_output": "attention.output.dense", "self_attention_layer_norm":
         "attention.output.LayerNorm", "feedforward_layer_norm": "output.LayerNorm", "feedforward_intermediate_dense":
         "intermediate.dense", "feedforward_output_dense": "output.dense"}  # fmt: skip
EMBEDDINGS = {"token_embedding": "word_embeddings", "position_embedding": "position_embeddings", "segment_embedding":
              "token_type_embeddings", "embeddings_layer_norm": "LayerNorm"}  # fmt: skip


def our_name(path):
    """Name a weight of theirs as ours."""
    place, kind = path.rsplit("/", 1)
    kind = {"bias": "bias", "beta": "bias"}.get(kind, "weight")
    if place in EMBEDDINGS:
        return f"embeddings.{EMBEDDINGS[place]}.{kind}"
    if place == "pooled_dense":
        return f"pooler.dense.{kind}"
    layer, part = place.removeprefix("transformer_layer_").split("/", 1)
    part = PARTS.get(part) or part.replace("self_attention_layer/", "attention.self.")
    return f"encoder.layer.{layer}.{part}.{kind}"


def run(bundle):
    config, weights, inputs = bundle.config, bundle.weights().to(dtype="float32"), bundle.inputs
    model = keras_hub.models.BertBackbone(
        vocabulary_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        hidden_dim=config.hidden_size,
        intermediate_dim=config.intermediate_size,
        max_sequence_length=config.max_position_embeddings,
        num_segments=config.type_vocab_size,
    )
    for weight in model.weights:
        array = np.array(weights[our_name(weight.path)])
        weight.assign((array.T if weight.path.endswith("/kernel") else array).reshape(weight.shape))
    given = {
        "token_ids": inputs["input_ids"],
        "segment_ids": inputs["token_type_ids"],
        "padding_mask": inputs["attention_mask"],
    }
    return nz.oracle.capture_tf(model, given, names=NAMES)
