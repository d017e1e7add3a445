"""Recording models of Keras: what their layers return, by the names of our traces."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz

# ------------------------------------------------------------- what Keras has of a layer, for tests where it is not


class Layer:
    """A layer as Keras calls it: its own `call`, and the layers that are its attributes."""

    built, compute_dtype = True, "float16"

    def __init__(self, name, **parts):
        self.name = name
        self.parts = parts

    def _flatten_layers(self, recursive, include_self):
        assert not recursive and not include_self
        return iter(self.parts.values())

    def __call__(self, *inputs, **kwargs):
        return self.call(*inputs, **kwargs)


class Adding(Layer):
    def call(self, x):
        return {"sum": x + 1, "nothing": None}


class Twice(Layer):
    def call(self, x):
        return self.parts["dense"](self.parts["dense"](x)["sum"])["sum"], "text"


class Model(Layer):
    def call(self, x, labels=None):
        logits, _ = self.parts["bert"].parts["block"](x)
        return {"logits": logits, "states": (x, logits), "loss": labels}


def model_of(**more):
    return Model("model", bert=Layer("bert", block=Twice("encoder/layer_._0", dense=Adding("dense"))), **more)


def test_layers_go_by_their_paths_without_a_models_prefix_and_a_second_call_by_a_number():
    found = nz.oracle.capture_tf(model_of(), np.zeros(2), names="tensorflow")
    assert {name: array.tolist() for name, array in found.items()} == {
        "encoder.layer.0.dense": [1.0, 1.0],
        "encoder.layer.0.dense_2": [2.0, 2.0],
        "encoder.layer.0": [2.0, 2.0],
        "outputs/logits": [2.0, 2.0],
        "outputs/states.0": [0.0, 0.0],
        "outputs/states.1": [2.0, 2.0],
    }
    assert {array.dtype.name for array in found.values()} == {"float16"}  # NumPy's floats come in the model's dtype
    assert "mine.0" in nz.oracle.capture_tf(model_of(), np.zeros(2), rename={"encoder.layer_._*": "mine.*"})


def test_layers_are_left_as_they_were_also_by_a_model_that_raises():
    model = model_of()
    dense = model.parts["bert"].parts["block"].parts["dense"]
    dense.call = own = lambda x: {"sum": x + 2}  # one that somebody set
    layers = (model.parts["bert"].parts["block"], dense)
    before = [dict(vars(layer)) for layer in layers]
    assert nz.oracle.capture_tf(model, np.zeros(2))["outputs/logits"].tolist() == [4.0, 4.0]
    with pytest.raises(TypeError):
        nz.oracle.capture_tf(model, "text")
    assert [dict(vars(layer)) for layer in layers] == before and dense.call is own


def test_a_layer_in_two_places_goes_by_the_first_and_two_layers_of_one_name_are_refused():
    model = model_of()
    model.parts["tail"] = Layer("tail", dense=model.parts["bert"].parts["block"].parts["dense"])
    assert list(nz.oracle.capture_tf(model, np.zeros(2))) == list(nz.oracle.capture_tf(model_of(), np.zeros(2)))
    with pytest.raises(ValueError, match=r"^model: expected one layer for each name, got head and tail: x$"):
        nz.oracle.capture_tf(
            model_of(first=Layer("head"), second=Layer("tail")), np.zeros(2), rename={"head": "x", "tail": "x"}
        )
    with pytest.raises(ValueError, match=r"^model: expected one layer for each name, got tail and tail: tail$"):
        nz.oracle.capture_tf(model_of(first=Layer("tail"), second=Layer("tail")), np.zeros(2))


def test_what_is_no_model_and_a_model_without_layers_are_refused():
    with pytest.raises(TypeError, match=r"^model: expected a layer or a model of Keras, got function$"):
        nz.oracle.capture_tf(lambda: None)
    with pytest.raises(ValueError, match=r"^model: expected one that calls layers, got Adding, which calls none$"):
        nz.oracle.capture_tf(Adding("dense"), np.zeros(1))
    with pytest.raises(ValueError, match=r"^names: expected one of bert4torch, "):
        nz.oracle.capture_tf(model_of(), np.zeros(1), names="keras")


# ------------------------------------------------------------------------------------------------------------- Keras


@pytest.fixture(scope="module")
def tensorflow():
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # for transformers; `import keras` is Keras 3 all the same
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed: it is in none of our extras")


@pytest.fixture
def small(tensorflow):
    """Make a model of Keras 3 with a layer that is made when its inputs are known, and a compiled one."""
    keras = pytest.importorskip("keras", minversion="3", reason="Keras 3 is not installed")

    class Block(keras.layers.Layer):
        def build(self, shape):
            self.dense = keras.layers.Dense(shape[-1], name="dense")
            self.dropout = keras.layers.Dropout(0.5, name="dropout")

        @tensorflow.function
        def call(self, x):
            return self.dropout(self.dense(x))

    class Model(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.block = Block(name="block")

        def call(self, x):
            return self.block(x)

    return lambda **options: Model(**options)


def test_a_model_without_weights_yet_and_a_compiled_layer_are_recorded(small, tensorflow):
    model, x = small(), np.ones((2, 4))
    found = nz.oracle.capture_tf(model, x)
    assert list(found) == ["block.dense", "block.dropout", "block", "outputs/0"]
    np.testing.assert_array_equal(found["block.dense"], model.block.dense(x))
    np.testing.assert_array_equal(found["block.dropout"], found["block.dense"])  # nothing is dropped
    assert not tensorflow.config.functions_run_eagerly()
    assert "call" not in vars(model.block)


def test_a_quantised_layer_is_recorded_and_bfloat16_becomes_float32(small, tensorflow):
    found = nz.oracle.capture_tf(small(dtype="bfloat16"), np.ones((2, 4)))
    assert {array.dtype.name for array in found.values()} == {"float32"}
    model = small()
    model(np.ones((2, 4)))
    model.block.dense.quantize("int8")
    found = nz.oracle.capture_tf(model, np.ones((2, 4)))
    np.testing.assert_array_equal(found["block.dense"], found["outputs/0"])


@pytest.fixture(scope="module")
def ports(tensorflow):
    pytest.importorskip("tf_keras", reason="tf-keras is not installed, without which transformers has no TFBertModel")
    pytest.importorskip("transformers", reason="transformers is not installed")
    folder = str(Path(__file__).parents[1] / "benchmarks" / "ports")
    sys.path.insert(0, folder)
    yield importlib.import_module("tensorflow_port")
    sys.path.remove(folder)


def test_every_layer_of_tfbert_agrees_and_a_planted_fault_is_found(ports, monkeypatch):
    from transformers.models.bert import modeling_tf_bert

    bundle = nz.oracle.record_standard("bert-masked_lm", tolerances="quick")
    right = ports.run(bundle)
    comparison = nz.oracle.compare(bundle, right)
    assert comparison, comparison.summary()
    steps = [row.name for row in comparison.rows]
    assert "encoder.layer.1.attention.self.dropout" in steps and "cls.predictions.transform.LayerNorm" in steps
    assert len(steps) == 44 and nz.oracle.diagnose(bundle, right).agrees
    tanh = modeling_tf_bert.get_tf_activation("gelu_new")
    monkeypatch.setattr(modeling_tf_bert, "get_tf_activation", lambda name: tanh)
    diagnosis = nz.oracle.diagnose(bundle, ports.run(bundle))
    assert diagnosis.step == "encoder.layer.0.intermediate" and diagnosis.names[0] == "tanh GELU for erf"


def test_a_mask_of_minus_ten_thousand_is_found_in_tfbert(ports):
    bundle = nz.oracle.record_standard("bert-masked_lm-holes", tolerances="quick")
    assert nz.oracle.diagnose(bundle, ports.run(bundle)).names == ("mask of −1e4",)
