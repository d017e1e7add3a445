"""Where a port loses its precision: `nz.oracle.attribute`, and the linear layers in int8 that it compares with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.layers.int8_linear import ENGINES, Quantization, dequantized, int8_linear, quantize
from nezha_np.layers.linear import linear
from nezha_np.oracle.replay import replay

CONFIG = nz.BertConfig(vocab_size=40, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=24)
IDS = np.random.default_rng(0).integers(3, 40, (2, 7))
FLOATS = st.floats(-1e3, 1e3, width=32)


@pytest.fixture(scope="module")
def bundle() -> nz.oracle.Bundle:
    generator = np.random.default_rng(1)
    tensors = {
        name: (0.3 * generator.normal(size=array.shape) + name.endswith("LayerNorm.weight")).astype("float32")
        for name, array in nz.init(CONFIG).items()
    }
    return nz.oracle.record(nz.Weights(tensors, CONFIG), IDS, head="masked_lm", tolerances="quick")


def port(bundle: nz.oracle.Bundle, engine: str, only: str | None = None) -> dict[str, np.ndarray]:
    """Run a port whose linear layers are those of an engine, all or one."""
    in_int8 = {linear: lambda step, *arguments: int8_linear(*arguments, engine=engine)}
    return replay(bundle, bundle.weights().to(dtype="float64"), bundle.inputs, {}, changes=in_int8, only=only).made


# ---------------------------------------------------------------------------------------------------------------- int8


@pytest.mark.parametrize("how", [Quantization(*how) for how in (("tensor", True), ("tensor", False), ("row", True))])
@given(x=arrays("float64", (3, 5), elements=FLOATS))
def test_the_integers_are_in_range_and_half_a_step_away_at_most(how, x):
    q, scale, zero_point = quantize(x, how)
    low, high = (-127, 127) if how.symmetric else (0, 255)
    assert (q == np.round(q)).all() and q.min() >= low and q.max() <= high
    # The zero point is rounded too, so of an asymmetric range the ends may be cut by half a step.
    steps = 0.5 if how.symmetric else 1.0
    assert (np.abs(scale * (q - zero_point) - x) <= steps * scale * (1 + 1e-9)).all()
    assert (dequantized(np.zeros((2, 3)), how) == 0).all()


@pytest.mark.parametrize("engine", ENGINES)
@given(x=arrays("float64", (3, 5), elements=FLOATS), weight=arrays("float64", (4, 5), elements=FLOATS))
def test_the_layer_is_linear_on_what_its_integers_say(engine, x, weight):
    of_activations, of_weights = ENGINES[engine]
    bias = np.arange(4.0)
    expected = linear.definition(dequantized(x, of_activations), dequantized(weight, of_weights), bias)
    found = int8_linear(x, weight, bias, engine=engine)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9 * max(np.abs(expected).max(), 1e-30))


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_numbers_are_those_of_onnx_runtime(per_channel):
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    generator = np.random.default_rng(3)
    x, weight = (generator.normal(size=shape).astype("float32") for shape in ((6, 16), (8, 16)))
    how = ENGINES["onnxruntime, per channel" if per_channel else "onnxruntime"][1]
    q, scale, _ = quantize(weight.astype("float64"), how)
    nodes = [
        onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        onnx.helper.make_node("MatMulInteger", ["q", "w", "z"], ["sums"]),
        onnx.helper.make_node("Cast", ["sums"], ["floats"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", ["floats", "s"], ["scaled"]),
        onnx.helper.make_node("Mul", ["scaled", "sw"], ["y"]),
    ]
    constants = {"w": q.T.astype("int8"), "sw": np.reshape(scale, -1).astype("float32")}
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "linear", [value("x", 1, list(x.shape))], [value("y", 1, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"x": x})
    ours = int8_linear(x, weight, engine="onnxruntime, per channel" if per_channel else "onnxruntime")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_an_engine_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"^engine: expected one of onnxruntime, .*, got 'tflite'"):
        int8_linear(np.ones((1, 2)), np.ones((3, 2)), engine="tflite")


# ----------------------------------------------------------------------------------------------------------- attribute


def test_a_right_port_has_no_error_of_its_own(bundle):
    found = nz.oracle.attribute(bundle, bundle.trace)
    assert all(step.error < 1e-12 and step.own < 1e-12 and step.cosine == pytest.approx(1.0) for step in found.steps)


def test_an_error_made_at_one_step_is_its_own_there_and_inherited_after_it(bundle):
    where = "encoder.layer.0.attention.self.value"
    found = nz.oracle.attribute(bundle, port(bundle, "onnxruntime", where), dtype="float64")
    steps = {step.name: step for step in found.steps}
    assert found.costly[0].name == where and steps[where].own == pytest.approx(steps[where].error, rel=1e-6)
    later = steps["encoder.layer.1.output.LayerNorm"]
    assert later.own < 1e-12 < later.inherited == pytest.approx(later.error)
    # followed to the end, it is all that is wrong there
    assert found.costly[0].cost == pytest.approx(steps[found.end].error, rel=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engine_of_a_port_is_recognised_with_the_two_parts_of_its_error(bundle, engine):
    found = nz.oracle.attribute(bundle, port(bundle, engine), dtype="float64")
    told = [step for step in found.costly if step.int8 is not None]
    assert len(told) >= 8 and {step.int8.engine for step in told} == {engine}
    for step in told:
        assert step.int8.left < 1e-9
        assert np.hypot(step.int8.of_weights, step.int8.of_activations) == pytest.approx(step.own, rel=0.5)


def test_roundings_to_half_precision_are_no_integers(bundle):
    theirs = replay(bundle, bundle.weights().to(dtype="float16"), bundle.inputs, {}).made
    found = nz.oracle.attribute(bundle, theirs)
    assert found.dtype == "float16" and all(step.int8 is None for step in found.steps)
    assert 40 < next(step for step in found.steps if step.name == found.end).snr < 90


def test_the_numbers_are_what_their_names_say(bundle):
    name = "encoder.layer.1.intermediate.dense"
    golden = np.asarray(bundle.trace[name], np.float64)
    theirs = golden + 1e-3 * np.abs(golden).max() * np.sign(np.sin(np.arange(golden.size))).reshape(golden.shape)
    (step,) = nz.oracle.attribute(bundle, {name: theirs}).steps
    error = np.linalg.norm(theirs - golden) / np.linalg.norm(golden)
    assert step.error == pytest.approx(error) == step.own == step.cost
    assert step.snr == pytest.approx(-20 * np.log10(error))
    assert step.quantiles == pytest.approx((1e-3,) * 4, rel=1e-6)
    assert step.inherited < 1e-12


def test_an_array_of_two_names_is_one_step(bundle):
    names = [step.name for step in nz.oracle.attribute(bundle, bundle.trace).steps]
    assert "encoder.layer.0.output.LayerNorm" in names and "encoder.layer.0.output" not in names


def test_without_intermediates_there_is_nothing_to_attribute(bundle):
    mask = {"encoder_attention_mask": np.zeros(3)}
    with pytest.raises(ValueError, match=r"^theirs: expected "):
        nz.oracle.attribute(bundle, mask)


def test_the_command_prints_the_table_and_json(bundle, tmp_path, capsys):
    bundle.save(tmp_path / "golden.safetensors")
    np.savez(tmp_path / "int8.npz", **port(bundle, "ctranslate2"))
    files = [str(tmp_path / name) for name in ("golden.safetensors", "int8.npz")]
    assert main(["golden", "attribute", *files]) == 0
    printed = capsys.readouterr().out
    assert "ctranslate2: weights" in printed and "costs most" in printed
    assert main(["golden", "attribute", *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["quantiles"] == [0.5, 0.9, 0.99, 1.0] and told["steps"][0]["name"] == "embeddings.word_embeddings"
