"""Recording an ONNX model: what its nodes make in onnxruntime, by the names of our traces."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nezha_np as nz

onnx = pytest.importorskip("onnx", reason="onnx is not installed: it is in the extra [benchmarks]")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: it is in the extra [benchmarks]")

pytest_plugins = "pytest_nezha_np"  # the fixture nezha_golden, where the package is not installed
ADD, RELU = "/bert/encoder/layer.0/output/dense/Add", "/bert/encoder/layer.0/output/Relu"


@pytest.fixture
def model():
    """Make a graph of three nodes, two of them named as PyTorch's exporter names them."""
    make, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
    nodes = [
        make("Add", ["x", "one"], ["sum"], name=ADD),
        make("Relu", ["sum"], ["positive"], name=RELU),
        make("Mul", ["positive", "one"], ["logits"], name="Mul_7"),
    ]
    value = onnx.helper.make_tensor_value_info
    one = onnx.numpy_helper.from_array(np.ones(2, np.float32), "one")
    graph = onnx.helper.make_graph(
        nodes, "port", [value("x", floats, [None, 2])], [value("logits", floats, [None, 2])], [one]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def test_nodes_go_by_their_paths_and_the_last_below_a_module_is_its_result(model):
    found = nz.oracle.capture_onnx(model, {"x": [[-3.0, 2.0]], "attention_mask": [[1]]})
    assert {name: array.tolist() for name, array in found.items()} == {
        "encoder.layer.0.output.dense.Add": [[-2.0, 3.0]],
        "encoder.layer.0.output.dense": [[-2.0, 3.0]],
        "encoder.layer.0.output.Relu": [[0.0, 3.0]],
        "encoder.layer.0.output": [[0.0, 3.0]],
        "encoder.layer.0": [[0.0, 3.0]],
        "encoder": [[0.0, 3.0]],
        "logits": [[0.0, 3.0]],
        "outputs/logits": [[0.0, 3.0]],
    }


def test_the_model_is_left_as_it_was_and_may_be_a_file(model, tmp_path):
    before = model.SerializeToString()
    path = tmp_path / "port.onnx"
    onnx.save(model, path)
    found = nz.oracle.capture_onnx(model, {"x": np.ones((1, 2))})  # float64 is converted
    assert model.SerializeToString() == before
    assert list(nz.oracle.capture_onnx(path, {"x": np.ones((1, 2))})) == list(found)


def test_renames_and_tables_of_names_are_for_nodes_too(model):
    found = nz.oracle.capture_onnx(model, {"x": np.ones((1, 2))}, rename={"encoder.layer.*.output.Relu": "mine.*"})
    assert "mine.0" in found and "encoder.layer.0.output.Relu" not in found


def test_what_is_no_model_and_an_input_that_is_missing_are_refused(model):
    with pytest.raises(TypeError, match=r"^model: expected a path or an onnx.ModelProto, got dict$"):
        nz.oracle.capture_onnx({}, {})
    with pytest.raises(ValueError, match=r"^inputs: expected x, an input of the model, got input_ids$"):
        nz.oracle.capture_onnx(model, {"input_ids": [[2]]})


def test_a_session_of_onnxruntime_is_checked_by_the_fixture(nezha_golden):
    bundle = nz.oracle.record_standard("nezha-forward-pairs", tolerances="quick")
    weights = bundle.weights().to(dtype="float32")
    tables = [name for name in weights if name.startswith("embeddings.")]
    node, value, types = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto
    kinds = {"word_embeddings": "input_ids", "token_type_embeddings": "token_type_ids"}
    norm = [f"embeddings.LayerNorm.{kind}" for kind in ("weight", "bias")]
    nodes = [node("Gather", [f"embeddings.{kind}.weight", kinds[kind]], [kind], name=f"/{kind}") for kind in kinds]
    nodes += [node("Add", list(kinds), ["sum"], name="/sum")]
    nodes += [node("LayerNormalization", ["sum", *norm], ["norm"], name="/LayerNorm", epsilon=1e-12)]
    graph = onnx.helper.make_graph(
        nodes,
        "port",
        [value(ids, types.INT64, [None, None]) for ids in kinds.values()],
        [value("norm", types.FLOAT, [None, None, None])],
        [onnx.numpy_helper.from_array(weights[name], name) for name in tables],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    steps = (*kinds, "sum", "LayerNorm")
    rename = {name: f"embeddings.{name}" for name in steps}
    comparison = nezha_golden(lambda **inputs: nz.oracle.capture_onnx(model, inputs, rename=rename), bundle)
    assert [row.name for row in comparison.rows] == [f"embeddings.{name}" for name in steps]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["nezha-masked_lm-holes", "bert-forward-pairs"])
def test_the_reference_exported_to_onnx_agrees_and_the_doctor_finds_nothing(name, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    bundle = nz.oracle.record_standard(name, tolerances="quick")
    bundle.weights().to(dtype="float32").save(tmp_path / "model")
    model = {"nezha": transformers.NezhaForMaskedLM, "bert": transformers.BertModel}[bundle.config.model_type]
    wanted = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {key: torch.tensor(bundle.inputs[key]) for key in wanted if key in bundle.inputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, that tracing keeps what Python decides
        torch.onnx.export(
            model.from_pretrained(tmp_path / "model").eval(),
            (inputs,),
            tmp_path / "model.onnx",
            input_names=list(inputs),
            output_names=["logits"] if bundle.head == "masked_lm" else ["last_hidden_state", "pooler_output"],
            opset_version=17,
            dynamo=False,
        )
    theirs = nz.oracle.capture_onnx(tmp_path / "model.onnx", bundle.inputs, names="transformers_onnx")
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison, comparison.summary()
    steps = [row.name for row in comparison.rows]
    assert "encoder.layer.1.attention.self.probs" in steps and "encoder.layer.1.output.residual" in steps
    assert len(steps) > 30
    assert nz.oracle.diagnose(bundle, theirs).agrees
