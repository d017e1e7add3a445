"""Golden bundles: what is recorded comes back from a file, the format is what its page says, bad files are refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.families.parameters import tasks_of
from nezha_np.layers import losses
from nezha_np.model.tasks import TASKS
from nezha_np.oracle import bundle as bundle_module
from nezha_np.oracle import recording as recording_module
from nezha_np.oracle import standard
from nezha_np.oracle import tolerances as tolerances_module
from nezha_np.oracle.bundle_document import KEY, RECIPES
from nezha_np.oracle.differences import difference, largest
from nezha_np.oracle.passes import run
from nezha_np.oracle.rounding import ARITHMETICS, rounded, with_another_exponential
from nezha_np.oracle.tolerances import rerun

ROOT = Path(__file__).parents[1]
CONFIG = nz.NezhaConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6)
DTYPES = ("float64", "float32", "float16", "bfloat16")
# One of each kind of input: all switches, a cache, one with cross-attention, a head mask, embeddings, float labels.
KINDS = (
    "nezha-forward-pairs",
    "nezha-forward-cache_step",
    "bert-forward-cross_cache",
    "nezha-causal_lm-cross",
    "bert-masked_lm-head_mask",
    "convbert-forward-inputs_embeds",
    "nezha-sequence_classification-several_labels",
    "convbert-multiple_choice",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Record a small pass with a loss."""
    path = tmp_path_factory.mktemp("bundles") / "small.safetensors"
    nz.oracle.record(CONFIG, [[2, 5, 3]], head="masked_lm", labels=[[-100, 7, 1]], path=path)
    return path


def record_set_elsewhere(folder: Path) -> subprocess.Popen:
    """Record the standard set in another process, with one BLAS thread; at the end the folder has its name."""
    made = folder.with_suffix(".made")
    code = f"import os, nezha_np as nz; nz.oracle.record_all({str(made)!r}); os.rename({str(made)!r}, {str(folder)!r})"
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | threads)


@pytest.fixture(scope="module")
def standard_set(tmp_path_factory) -> tuple[Path, Path]:
    """Record the standard set twice, in two processes; the first worker of a run that needs it does so for all."""
    base = tmp_path_factory.getbasetemp()
    room = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "standard_set"
    folders = room / "first", room / "second"
    try:
        room.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 900
        while not all(folder.exists() for folder in folders):
            assert time.monotonic() < deadline, "the worker that records the standard set has failed"
            time.sleep(0.5)
    else:
        processes = [record_set_elsewhere(folder) for folder in folders]
        assert [process.wait() for process in processes] == [0, 0]
    return folders


def same(one, other) -> bool:
    """Whether two values are the same, to the last bit and in the same order."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


def header_of(path: Path) -> tuple[dict, bytes]:
    """Take a safetensors file apart: its header, and its data."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(path: Path, header: dict, data: bytes) -> Path:
    """Put a safetensors file together."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def with_document(source: Path, path: Path, change) -> Path:
    """Copy a bundle with a document that is changed in place, or replaced by what is returned; without checksums."""
    header, data = header_of(source)
    document = json.loads(header["__metadata__"][KEY])
    del document["crc32"], document["document_crc32"]
    changed = change(document)
    text = changed if isinstance(changed, str) else json.dumps(document if changed is None else changed)
    header["__metadata__"][KEY] = text
    return write(path, header, data)


# -------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", KINDS)
def test_a_bundle_comes_back_from_its_file_as_it_was(name, tmp_path):
    recorded = nz.oracle.record_standard(name)
    recorded.save(tmp_path / "bundle.safetensors")
    read = nz.oracle.load(tmp_path / "bundle.safetensors")
    for field in ("head", "config", "trace", "outputs", "gradients", "recipe", "dtype", "versions", "tolerances"):
        assert same(getattr(recorded, field), getattr(read, field)), field
    for field in ("inputs", "tensors"):  # whose order means nothing
        assert same(dict(sorted(getattr(recorded, field).items())), dict(sorted(getattr(read, field).items()))), field
    assert list(recorded.arrays) == list(read.arrays)
    read.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "bundle.safetensors").read_bytes()


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", KINDS)
def test_the_pass_can_be_run_again_from_the_file_alone(name, tmp_path):
    nz.oracle.record_standard(name).save(tmp_path / "bundle.safetensors")
    bundle = nz.oracle.load(tmp_path / "bundle.safetensors")
    with nz.trace() as t:
        getattr(nz, bundle.head)(bundle.weights(), **bundle.inputs)
    assert list(t) == list(bundle.trace)
    assert all(largest(difference(key, bundle.trace[key], t[key])) < 1e-12 for key in t)


def test_a_configuration_with_pruned_heads_and_keys_of_its_own_comes_back(tmp_path):
    config = CONFIG.replace(pruned_heads={0: [1]}, id2label={0: "差", 1: "好"}, extra={"task": {"name": "评论"}})
    nz.oracle.record(config, [[2, 3]], path=tmp_path / "bundle.safetensors")
    read = nz.oracle.load(tmp_path / "bundle.safetensors")
    assert read.config.to_dict() | {"architectures": None} == config.to_dict()
    assert read.weights()["encoder.layer.0.attention.self.query.bias"].shape == (4,)


def test_two_names_of_one_array_stay_two_names_of_one_array(small):
    bundle = nz.oracle.load(small)
    assert bundle.trace["embeddings"] is bundle.trace["embeddings.dropout"]
    assert bundle.outputs["logits"] is bundle.trace["cls.predictions"]
    header, _ = header_of(small)
    assert "trace/embeddings" not in header and "outputs/logits" not in header


def test_what_a_bundle_records_is_what_trace_and_value_and_grad_return(small):
    bundle = nz.oracle.load(small)
    weights = nz.init(CONFIG, head="masked_lm", dtype="float32").to(dtype="float64")
    run = nz.value_and_grad(nz.masked_lm, intermediates=True)
    out, gradients = run(weights, [[2, 5, 3]], labels=[[-100, 7, 1]])
    assert same(bundle.outputs["loss"], out.loss)
    assert set(bundle.gradients) == set(gradients)
    assert all(same(bundle.gradients[name], gradients[name]) for name in gradients)
    assert bundle.dtype == "float64" and bundle.head == "masked_lm" and bundle.config.hidden_size == 8


def test_a_pattern_that_fits_no_intermediate_is_refused():
    with pytest.raises(ValueError, match="output: expected a pattern that fits an intermediate, got prob"):
        nz.oracle.record(CONFIG, [[2, 5]], output="prob")


def test_patterns_choose_the_intermediates_and_outputs_are_kept():
    bundle = nz.oracle.record(CONFIG, [[2, 5]], output=["**.probs", "pooler"])
    assert list(bundle.trace) == ["encoder.layer.0.attention.self.probs", "pooler"]
    assert list(bundle.outputs) == ["last_hidden_state", "pooler_output"]
    assert set(bundle.tolerances["float32"]) == {*bundle.trace, "outputs/last_hidden_state", "outputs/pooler_output"}


def test_without_labels_or_on_request_there_are_no_gradients():
    assert nz.oracle.record(CONFIG, [[2, 5]], head="masked_lm").gradients == {}
    assert nz.oracle.record(CONFIG, [[2, 5]], head="masked_lm", labels=[[1, 1]], gradients=False).gradients == {}


def test_lists_and_arrays_of_any_float_dtype_are_taken_as_inputs():
    decoder = CONFIG.replace(is_decoder=True)
    cache = [[np.zeros((1, 2, 1, 4), "float32"), np.zeros((1, 2, 1, 4), "float16")]]
    bundle = nz.oracle.record(decoder, [[2]], past_key_values=cache, head_mask=[0.5, 1], use_cache=np.True_)
    assert bundle.inputs["past_key_values"][0][1].dtype == bundle.inputs["head_mask"].dtype == "float64"
    assert bundle.inputs["use_cache"] is True
    assert same(nz.oracle.record(decoder, [[2]], past_key_values=[[part.tolist() for part in cache[0]]]).inputs,
                nz.oracle.record(decoder, [[2]], past_key_values=cache).inputs)  # fmt: skip


def test_a_loss_over_no_labels_is_nan_in_the_file_and_equal_to_itself(tmp_path):
    path = tmp_path / "bundle.safetensors"
    nz.oracle.record(CONFIG, [[2, 5]], head="masked_lm", labels=[[-100, -100]], path=path)
    bundle = nz.oracle.load(path)
    assert np.isnan(bundle.outputs["loss"])
    assert nz.oracle.compare(bundle, bundle.arrays)


# ------------------------------------------------------------------------------------------------------------ weights


def test_weights_are_inside_drawn_or_of_a_checkpoint_and_are_had_again(tmp_path):
    ids = [[2, 5, 3]]
    weights = nz.init(CONFIG, seed=3)
    weights.save(tmp_path / "model")
    for given, seed, kind in ((weights, 0, "inside"), (CONFIG, 3, "init"), (tmp_path / "model", 0, "checkpoint")):
        path = tmp_path / f"{kind}.safetensors"
        nz.oracle.record(given, ids, seed=seed, path=path)
        bundle = nz.oracle.load(path)
        assert bundle.recipe["kind"] == kind
        again = bundle.weights(tmp_path / "model" if kind == "checkpoint" else None)
        assert again.dtype == "float64" and again.config == bundle.config
        assert set(again) == set(weights)
        assert all(np.array_equal(again[name], weights[name]) for name in weights)
        assert ("weights/pooler.dense.bias" in header_of(path)[0]) is (kind == "inside")


def test_a_head_is_drawn_with_the_weights():
    bundle = nz.oracle.record(CONFIG, [[2, 5]], head="question_answering", seed=5)
    assert bundle.recipe == {"kind": "init", "seed": 5, "head": "question_answering"}
    expected = nz.init(CONFIG, "question_answering", 5)["qa_outputs.weight"]
    assert np.array_equal(bundle.weights()["qa_outputs.weight"], expected)


@pytest.mark.exhaustive
def test_the_shipped_model_is_found_by_itself_and_another_is_refused(tmp_path):
    bundle = nz.oracle.record(None, [[2, 5, 3]], output="pooler")
    assert bundle.recipe["name"] == "nezha-tiny-zh"
    assert np.array_equal(bundle.weights()["pooler.dense.bias"], nz.load()["pooler.dense.bias"])
    nz.init(CONFIG).save(tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"checkpoint: expected the one that the bundle was recorded with, nezha-tiny-zh"
    ):
        bundle.weights(tmp_path / "other")
    other = nz.oracle.record(tmp_path / "other", [[2, 5, 3]], output="pooler")
    with pytest.raises(ValueError, match=r"recorded with, other with .* got the shipped model, because none was given"):
        other.weights()
    with pytest.raises(FileNotFoundError, match="checkpoint: expected a folder"):
        other.weights(tmp_path / "nowhere")


def test_weights_may_be_stored_in_float16_and_the_pass_is_of_these(tmp_path):
    weights, path = nz.init(CONFIG), tmp_path / "bundle.safetensors"
    nz.oracle.record(weights, [[2, 5]], stored_weights="float16", tolerances="quick", path=path)
    read, (header, _) = nz.oracle.load(path), header_of(path)
    assert header["weights/pooler.dense.weight"]["dtype"] == "F16" and header["trace/embeddings.sum"]["dtype"] == "F64"
    rounded_weights = weights.to(dtype="float16").to(dtype="float64")
    assert same(dict(sorted(read.weights().items())), dict(sorted(rounded_weights.items())))
    assert same(read.outputs["pooler_output"], nz.oracle.record(rounded_weights, [[2, 5]]).outputs["pooler_output"])


def test_a_checkpoints_weights_may_be_inside_and_a_hash_needs_a_checkpoint(tmp_path):
    nz.init(CONFIG).save(tmp_path / "model")
    inside = nz.oracle.record(tmp_path / "model", [[2, 5]], stored_weights="inside", tolerances=None)
    assert inside.recipe == {"kind": "inside"} and "pooler.dense.weight" in inside.weights()
    assert (
        nz.oracle.record(tmp_path / "model", [[2]], stored_weights="hash", tolerances=None).recipe["kind"]
        == "checkpoint"
    )
    with pytest.raises(ValueError, match=r"^stored_weights: expected 'hash' with the path of a checkpoint as weights"):
        nz.oracle.record(nz.init(CONFIG), [[2]], stored_weights="hash")
    with pytest.raises(ValueError, match=r"^stored_weights: expected inside, float16, hash or None, got 'int8'$"):
        nz.oracle.record(nz.init(CONFIG), [[2]], stored_weights="int8")


def test_before_a_large_file_is_recorded_a_warning_says_what_makes_it_smaller(monkeypatch):
    monkeypatch.setattr(recording_module, "LARGE_FILE", 1_000)
    labels = {"head": "masked_lm", "labels": [[2, 5]], "tolerances": None}
    with pytest.warns(
        UserWarning, match=r"MB of weights \(stored_weights='float16' or 'hash' .* and .* of their gradients"
    ):
        nz.oracle.record(nz.init(CONFIG), [[2, 5]], **labels)
    with pytest.warns(UserWarning, match=r"the bundle will hold 0 MB of their gradients \(none without labels\)$"):
        nz.oracle.record(CONFIG, [[2, 5]], **labels)
    nz.oracle.record(CONFIG, [[2, 5]], tolerances=None)  # a seed for the weights, and no gradients


def test_weights_themselves_are_taken_if_they_fit_the_configuration():
    bundle = nz.oracle.record(CONFIG, [[2, 5]])
    assert bundle.weights(nz.init(CONFIG, dtype="float16")).dtype == "float64"
    with pytest.raises(ValueError, match=r"weights: .*shape"):
        bundle.weights(nz.init(CONFIG.replace(intermediate_size=9)))


# --------------------------------------------------------------------------------------------------------- tolerances


@pytest.mark.one_in(13)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["nezha-masked_lm-holes", "bert-causal_lm-cache", "convbert-masked_lm"])
def test_other_roundings_than_those_that_were_measured_are_within_the_tolerances(name, dtype):
    bundle = nz.oracle.record_standard(name)
    for nudge in (11, 12, 13):
        other = rerun(bundle, bundle.weights(), ARITHMETICS[dtype], nudge)
        assert nz.oracle.compare(bundle, {key: other[key] for key in bundle.arrays}, dtype=dtype), nudge


def test_tolerances_grow_with_the_dtypes_and_are_small_beside_the_numbers():
    bundle = nz.oracle.record_standard("nezha-masked_lm")
    for name, array in bundle.arrays.items():
        allowed = [bundle.tolerances[dtype][name] for dtype in DTYPES]
        assert allowed == sorted(allowed)
        # What is added to all scores of a query changes no probability: a key's bias has the gradient 0, and roundings.
        if name != "attention_mask" and not name.endswith("key.bias"):
            assert allowed[1] <= 1e-4 * np.abs(array).max(), name


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_golden_pass_in_a_narrow_dtype_allows_a_wider_one_its_own_roundings(dtype):
    narrow = nz.oracle.record_standard("bert-masked_lm", dtype)
    assert narrow.trace["embeddings"].dtype == dtype and narrow.weights().dtype == dtype
    assert nz.oracle.compare(narrow, nz.oracle.record_standard("bert-masked_lm").arrays).agrees


@pytest.mark.one_in(11)
@pytest.mark.parametrize(
    "name", ["nezha-pretraining", "bert-masked_lm-relative_key_query", "convbert-masked_lm-groups"]
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("tolerances", ["measured", "quick"])
def test_the_reference_in_pytorch_is_within_the_tolerances(name, dtype, tolerances):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
    bundle = nz.oracle.record_standard(name, tolerances=tolerances)
    model = reference.reference_model(bundle.head, bundle.config, seed=0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(np.array(bundle.weights()[reference.our_name(key)])))
    model = model.to(getattr(torch, dtype))
    for module in model.modules():  # which the conversion does not reach
        if hasattr(module, "positions_encoding"):
            module.positions_encoding = module.positions_encoding.to(getattr(torch, dtype))
    out = reference.run_reference(model, bundle.head, {key: np.array(value) for key, value in bundle.inputs.items()})
    out.loss.backward()
    theirs = {f"outputs/{key}": value.detach().double().numpy() for key, value in out.items() if torch.is_tensor(value)}
    theirs |= {
        f"gradients/{reference.our_name(key)}": parameter.grad.double().numpy()
        for key, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    assert len(theirs) > 30
    found = nz.oracle.compare(bundle, theirs, dtype=dtype)
    assert found, found.summary()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name",
    [
        "nezha-pretraining",
        "nezha-masked_lm-holes",
        "nezha-sequence_classification-regression",
        "bert-causal_lm-cache",
        "bert-question_answering",
        "convbert-multiple_choice",
        "convbert-masked_lm-holes",
    ],
)
def test_a_right_port_in_any_dtype_is_within_quick_tolerances(name, dtype):
    bundle = nz.oracle.record_standard(name, tolerances="quick")
    for nudge in (0, 11, 12):
        theirs = rerun(bundle, bundle.weights(), ARITHMETICS[dtype], nudge)
        found = nz.oracle.compare(bundle, {key: theirs[key] for key in bundle.arrays}, dtype=dtype)
        assert found, found.summary()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_quick_tolerances_are_as_wide_as_measured_ones_or_a_few_times_wider(dtype):
    measured = nz.oracle.record_standard("nezha-masked_lm", dtype)
    quick = nz.oracle.record_standard("nezha-masked_lm", dtype, tolerances="quick")
    assert (measured.tolerances_by, quick.tolerances_by) == ("measured", "quick")
    assert same(quick.arrays, measured.arrays)
    for to in DTYPES:
        ratios = [
            quick.tolerances[to][name] / measured.tolerances[to][name]
            for name in measured.arrays
            if name != "attention_mask"
        ]
        assert min(ratios) > 0.72, to  # of the measured tolerances right ports were seen to need no more: 4.3 of 6
        if DTYPES.index(to) >= DTYPES.index(dtype):  # else the golden numbers' own roundings count for most
            assert np.median(ratios) < 6.0, to
        assert quick.tolerances[to]["attention_mask"] == 0.5


def test_a_wrong_port_is_beyond_quick_tolerances_and_is_named():
    bundle = nz.oracle.record_standard("nezha-masked_lm", tolerances="quick")
    with nz.trace() as theirs:
        config = bundle.config.replace(hidden_act="gelu_new")
        nz.masked_lm(nz.Weights(dict(bundle.weights().to(dtype="float32")), config), **bundle.inputs)
    assert nz.oracle.compare(bundle, theirs).first.name == "encoder.layer.0.intermediate.intermediate_act_fn"
    assert nz.oracle.diagnose(bundle, theirs).names == ("tanh GELU for erf",)


@pytest.mark.parametrize(("tolerances", "passes"), [("measured", 26), ("quick", 2), (None, 1)])
def test_quick_tolerances_cost_one_pass_more_and_measured_ones_25(tolerances, passes, monkeypatch):
    counted = []
    for module in (recording_module, tolerances_module):
        monkeypatch.setattr(module, "run", lambda *arguments: counted.append(1) or run(*arguments))
    nz.oracle.record(CONFIG, [[2, 5, 3]], head="masked_lm", labels=[[-100, 7, 1]], tolerances=tolerances)
    assert len(counted) == passes


def test_without_tolerances_a_comparison_needs_its_own_and_the_doctor_finds_some(tmp_path):
    inputs = {"head": "masked_lm", "labels": [[-100, 7, 1]], "tolerances": None}
    weights = standard.lively_weights(CONFIG, "masked_lm")
    recorded = nz.oracle.record(weights, [[2, 5, 3]], path=tmp_path / "bundle.safetensors", **inputs)
    loaded = nz.oracle.load(tmp_path / "bundle.safetensors")
    assert recorded.tolerances == loaded.tolerances == {} and loaded.tolerances_by is None
    for bundle in (recorded, loaded):
        theirs = {name: array.astype("float32") for name, array in bundle.arrays.items()}
        with pytest.raises(ValueError, match=r"^tolerance: expected a number, because the bundle was recorded with"):
            nz.oracle.compare(bundle, theirs)
        found = nz.oracle.compare(bundle, theirs, tolerance=1e-6)
        assert found and found.first is None
        assert not nz.oracle.compare(bundle, theirs | {"loss": theirs["loss"] * 1.1}, tolerance=1e-6)
        diagnosis = nz.oracle.diagnose(bundle, theirs)
        assert diagnosis.step is None and diagnosis.agrees, str(diagnosis)
        step = "gradients/encoder.layer.0.output.dense"
        assert nz.oracle.diagnose(bundle, theirs | {step: 2 * theirs[step]}).step == step
        wrong = nz.oracle.diagnose(bundle, {name: array[..., :1] for name, array in theirs.items() if array.ndim == 3})
        assert "it has shape" in str(wrong) and not wrong.agrees


def test_a_bundle_of_an_older_version_has_measured_tolerances(small, tmp_path):
    old = nz.oracle.load(with_document(small, tmp_path / "old.safetensors", remove("tolerances_by")))
    assert old.tolerances_by == "measured" and old.tolerances == nz.oracle.load(small).tolerances


def test_bfloat16_rounds_to_the_nearest_ties_to_even_and_never_beyond_its_largest_number():
    bfloat16, values = ARITHMETICS["bfloat16"], np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 3.4e38])
    largest_number = (2.0 - 2.0**-7) * 2.0**127
    assert rounded(values, bfloat16).tolist() == [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, largest_number]
    assert np.isnan(rounded(np.array([np.nan]), bfloat16)).all()


# --------------------------------------------------------------------------------------------------- the standard set


@pytest.mark.exhaustive
def test_the_standard_set_has_every_head_of_every_family_and_what_ports_get_wrong():
    names = standard.names()
    assert len(set(names)) == len(names)
    for config in (standard.NEZHA, standard.BERT, standard.CONVBERT):
        for head in ("forward", *tasks_of(config)):
            assert f"{config.model_type}-{head}" in names
    for family in ("nezha", "bert", "convbert"):
        for what in (
            "forward-pairs",
            "masked_lm-holes",
            "forward-holes_by_query",
            "forward-long",
            "masked_lm-head_mask",
        ):
            assert f"{family}-{what}" in names
    for family in ("nezha", "bert"):
        for what in ("causal_lm-cache", "forward-cache_step", "causal_lm-cross", "forward-cross_cache"):
            assert f"{family}-{what}" in names
    assert {one.steps["step"] for one in standard.STANDARD if one.steps} == {"lamb", "adamw", "bert_adam"}


@pytest.mark.exhaustive
def test_the_standard_set_is_under_24_megabytes_and_each_file_is_one_of_its_bundles(standard_set):
    files = list(standard_set[0].iterdir())
    assert sorted(file.stem for file in files) == sorted(standard.names())
    assert sum(file.stat().st_size for file in files) < 24e6


@pytest.mark.exhaustive
def test_two_processes_with_one_blas_thread_write_the_same_bytes(standard_set):
    first, second = standard_set
    for name in standard.names():
        file = f"{name}.safetensors"
        assert (first / file).read_bytes() == (second / file).read_bytes(), name


def all_of(bundle: nz.oracle.Bundle, weights: nz.Weights) -> dict[str, np.ndarray]:
    """Run a bundle's head by the package's public functions: intermediates, and gradients where there is a loss."""
    head, inputs = getattr(nz, bundle.head), dict(bundle.inputs)
    with nz.trace() as t:
        out = head(weights, **inputs)
    found = dict(t)
    if getattr(out, "loss", None) is not None:
        _, gradients = nz.value_and_grad(head, intermediates=True)(weights, **inputs)
        found |= {f"gradients/{name}": array for name, array in gradients.items()}
    return found


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", standard.names())
def test_the_standard_set_is_had_again_in_this_process_and_in_float32_within_its_tolerances(standard_set, name):
    bundle = nz.oracle.load(standard_set[0] / f"{name}.safetensors")
    for dtype in ("float64", "float32"):
        found = nz.oracle.compare(bundle, all_of(bundle, bundle.weights().to(dtype=dtype)), dtype=dtype)
        assert found, found.summary()


@pytest.mark.exhaustive
def test_two_blas_threads_stay_within_the_tolerances(standard_set):
    code = f"""
import sys; sys.path[:0] = [{str(ROOT / "tests")!r}]
import nezha_np as nz
from test_bundles import all_of
for name in nz.oracle.standard.names():
    bundle = nz.oracle.load({str(standard_set[0])!r} + f"/{{name}}.safetensors")
    assert nz.oracle.compare(bundle, all_of(bundle, bundle.weights())), name
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("one", standard.STANDARD, ids=lambda one: one.name)
def test_the_weights_of_the_standard_set_are_lively_and_exact_in_float16(one):
    weights = standard.lively_weights(one.config, one.head)
    for name, array in weights.items():
        assert np.array_equal(array, array.astype("float16")), name
        assert np.unique(array).size > array.size * 0.8 or name.startswith("embeddings."), name
        assert np.abs(array).min() < 1.3 and np.abs(array).max() > 0.01, name
        if name.endswith("LayerNorm.weight"):
            assert np.abs(array - 1).max() > 0.1, name
    matrix = weights["encoder.layer.0.attention.self.query.weight"]
    assert 1.2 < matrix.std() * math.sqrt(matrix.shape[1]) < 1.8
    assert one.config.head_size >= 4 and one.config.attention_heads >= 2


@pytest.mark.exhaustive
def test_texts_of_the_standard_set_show_lengths_types_distances_and_matrices():
    for config in (standard.NEZHA, standard.BERT, standard.CONVBERT):
        inputs = standard.pairs(config)
        ids, mask, types = inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"]
        assert ids.size > config.hidden_size + 1 and len(set(mask.sum(axis=1))) == len(ids) == 3
        assert all(set(row[kept == 1]) == {0, 1} for row, kept in zip(types, mask, strict=True))
        assert (ids[mask == 0] == config.pad_token_id).all()
    assert standard.pairs(standard.NEZHA)["input_ids"].shape[1] > 2 * standard.NEZHA.max_relative_position
    long = next(one for one in standard.STANDARD if one.name == "nezha-forward-long")
    assert long.inputs["input_ids"].shape[1] > long.config.max_position_embeddings > long.config.max_relative_position
    holes = next(one for one in standard.STANDARD if one.name == "bert-masked_lm-holes").inputs["attention_mask"]
    assert (holes.sum(axis=1) == 0).sum() == 1


@pytest.mark.exhaustive
def test_every_bundle_with_labels_has_gradients_and_ignored_labels_where_they_can_be(standard_set):
    for one in standard.STANDARD:
        labelled = any("label" in name or name.endswith("_positions") for name in one.inputs)
        assert labelled is (one.head != "forward")
        bundle = nz.oracle.load(standard_set[0] / f"{one.name}.safetensors")
        assert bool(bundle.gradients) is labelled
        if one.head in ("masked_lm", "causal_lm", "pretraining", "token_classification", "next_sentence_prediction"):
            assert (one.inputs["labels"] == -100).any() and (one.inputs["labels"] != -100).any()


# ----------------------------------------------------------------------------------------- the page: docs/bundles.md


def read_by_the_page(path: Path) -> dict:
    """Read a bundle as docs/bundles.md says it, with nothing but the standard library and NumPy."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "BOOL": "?"}
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length].decode("utf-8"))
    text = header.pop("__metadata__")["nezha_np_golden"]
    document = json.loads(text)
    assert document["format"] == 1
    assert zlib.crc32(text[: text.rindex(',"document_crc32":')].encode("utf-8")) == document["document_crc32"]
    data = content[8 + length :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"])
        assert zlib.crc32(data[begin:end]) == document["crc32"][name]
    tolerances = document["tolerances"]
    for alias, name in document["aliases"].items():
        tensors[alias] = tensors[name]
        for of_dtype in tolerances.values():
            if name in of_dtype:
                of_dtype[alias] = of_dtype[name]
    return document | {"tensors": tensors}


def agree_by_the_page(name: str, theirs: np.ndarray, golden: np.ndarray, tolerance: float | None) -> bool:
    """Compare as docs/bundles.md says it."""
    x, y = theirs.astype("float64"), golden.astype("float64")
    if name.endswith("attention_mask"):
        x, y = np.maximum(x, -50000), np.maximum(y, -50000)
    apart = [0.0 if a == b or (a != a and b != b) else abs(a - b) for a, b in zip(x.flat, y.flat, strict=True)]
    return tolerance is None or all(number <= tolerance for number in apart)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", KINDS)
def test_a_reader_written_from_the_page_reads_what_the_package_reads(standard_set, name):
    path = standard_set[0] / f"{name}.safetensors"
    ours, theirs = nz.oracle.load(path), read_by_the_page(path)
    for group in ("trace", "outputs", "gradients"):
        read = {key: theirs["tensors"][f"{group}/{key}"] for key in theirs[group]}
        assert same(read, getattr(ours, group))
    of_inputs = {key[7:]: array for key, array in theirs["tensors"].items() if key.startswith("inputs/")}
    assert same(dict(sorted((of_inputs | theirs["switches"]).items())),
                dict(sorted(bundle_module.flattened(ours.inputs).items())))  # fmt: skip
    assert all(same(theirs["tensors"][f"weights/{key}"], array) for key, array in ours.tensors.items())
    assert theirs["config"]["hidden_size"] == ours.config.hidden_size
    assert (theirs["head"], theirs["dtype"], theirs["weights"]) == (ours.head, ours.dtype, ours.recipe)
    assert list(theirs["tolerances"]) == list(ours.tolerances) == list(DTYPES)
    for dtype, of_dtype in theirs["tolerances"].items():
        assert {key.removeprefix("trace/"): value for key, value in of_dtype.items()} == ours.tolerances[dtype]


@pytest.mark.exhaustive
def test_a_comparison_written_from_the_page_finds_what_the_package_finds(standard_set):
    path = standard_set[0] / "nezha-masked_lm-holes.safetensors"
    ours, read = nz.oracle.load(path), read_by_the_page(path)
    with nz.trace() as t:
        nz.masked_lm(
            ours.weights().to(dtype="float32"), **ours.inputs, config=ours.config.replace(hidden_act="gelu_new")
        )
    verdicts = [
        agree_by_the_page(
            name, t[name], read["tensors"][f"trace/{name}"], read["tolerances"]["float32"][f"trace/{name}"]
        )
        for name in read["trace"]
    ]
    found = nz.oracle.compare(ours, dict(t), dtype="float32")
    assert verdicts == [row.agrees for row in found.rows]
    assert (
        read["trace"][verdicts.index(False)] == found.first.name == "encoder.layer.0.intermediate.intermediate_act_fn"
    )


def philox(key: tuple[int, int], count: int) -> list[int]:
    """Draw 64-bit words by Philox4x64-10 as docs/bundles.md says it."""
    m0, m1, w0, w1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157, 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
    below, words = (1 << 64) - 1, []
    for block in range(1, count // 4 + 2):
        (c0, c1, c2, c3), (k0, k1) = (block, 0, 0, 0), key
        for _ in range(10):
            one, two = m0 * c0, m1 * c2
            c0, c1, c2, c3 = (two >> 64) ^ c1 ^ k0, two & below, (one >> 64) ^ c3 ^ k1, one & below
            k0, k1 = (k0 + w0) & below, (k1 + w1) & below
        words += [c0, c1, c2, c3]
    return words[:count]


def draw_by_the_page(name: str, shape: list[int], seed: int, config: dict) -> np.ndarray:
    """Draw a tensor as docs/bundles.md says it."""
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape, "float32")
    if name.endswith("bias"):
        return np.zeros(shape, "float32")
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    p = (67.67033939311035, -509.38402658773265, 862.4381479441645, -615.9060796288474, 216.72311866411707,
         -37.264715056121425, 2.506628274712097)  # fmt: skip
    q = (105.0283098113521, -409.1223243673617, 528.6209338336848, -320.89407134003426, 100.82185978424863,
         -15.913667936228807, 1.0)  # fmt: skip

    def horner(coefficients, s):
        value = coefficients[0]
        for coefficient in coefficients[1:]:
            value = value * s + coefficient
        return value

    numbers = []
    for word in philox(key, math.prod(shape)):
        centred = ((word >> 11) * 2.0**-53 - 0.5) * 0.9544997361036416
        s = centred * centred
        numbers.append((centred * (horner(p, s) / horner(q, s))) * config["initializer_range"])
    drawn = np.array(numbers).reshape(shape)
    if name == "embeddings.word_embeddings.weight" and config["pad_token_id"] is not None:
        drawn[config["pad_token_id"]] = 0.0
    return drawn.astype("float32")


def test_weights_drawn_by_the_pages_recipe_are_those_of_the_bundle_to_the_last_bit(tmp_path):
    path = tmp_path / "bundle.safetensors"
    config = nz.ConvBertConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1,
                               intermediate_size=6, embedding_size=6, conv_kernel_size=3, pad_token_id=4)  # fmt: skip
    nz.oracle.record(config, [[2, 5]], head="sequence_classification", seed=17, path=path)
    read, weights = read_by_the_page(path), nz.oracle.load(path).weights()
    assert read["weights"] == {"kind": "init", "seed": 17, "head": "sequence_classification"}
    for name, array in weights.items():
        drawn = draw_by_the_page(name, list(array.shape), read["weights"]["seed"], read["config"])
        assert same(drawn.astype(read["dtype"]), np.array(array)), name


@pytest.mark.exhaustive
def test_the_pages_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "bundles.md").read_text(encoding="utf-8")
    block = text.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(block, "bundles.md", "exec"), names)
    assert names["bundle"].gradients and (tmp_path / "golden.safetensors").is_file()


@pytest.mark.exhaustive
def test_the_page_names_every_intermediate_of_the_standard_set(standard_set):
    text = (ROOT / "docs" / "bundles.md").read_text(encoding="utf-8")
    for name in standard.names():
        trace = nz.oracle.load(standard_set[0] / f"{name}.safetensors").trace
        modules = {key.rpartition(".")[0] for key in trace}
        for key in trace:
            last = key.rpartition(".")[2]
            is_module = key in modules or last.isdigit() or last.startswith("dropout") or "sequence_summary" in key
            assert is_module or f".{last}`" in text or f"`{key}`" in text, key


def test_the_page_names_every_key_of_the_document_every_head_and_every_variant(small):
    text = (ROOT / "docs" / "bundles.md").read_text(encoding="utf-8")
    header, _ = header_of(small)
    assert list(header["__metadata__"]) == ["nezha_np_golden"]
    for word in (*json.loads(header["__metadata__"][KEY]), *TASKS, *RECIPES):
        assert f"`{word}`" in text or f'"{word}"' in text, word
    for name in standard.names():
        for what in name.split("-")[2:]:
            assert f"`{what}`" in text or what.endswith("_cache"), what
    assert f"{len(standard.names())} bundles" in text


# ---------------------------------------------------------------------------------------------------------- bad files


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a safetensors file, found no such file"):
        nz.oracle.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_bundle_that_was_cut_off_is_refused_in_one_sentence(small, tmp_path, share):
    cut = tmp_path / "cut.safetensors"
    content = small.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        ValueError, match=r"cut.safetensors: expected a safetensors file, got one that breaks the format"
    ):
        nz.oracle.load(cut)


def test_a_safetensors_file_that_is_no_bundle_is_refused():
    with pytest.raises(ValueError, match=r"expected a golden bundle, got a safetensors file without nezha_np_golden"):
        nz.oracle.load(nz.weights.checkpoint.SHIPPED / "model.safetensors")


def remove(*keys):
    """Take an entry out of a document."""

    def change(document):
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return change


def put(value, *keys):
    """Put an entry into a document."""

    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(2, "format"), "expected a golden bundle of format 1, got format 2: record it anew"),
        (put(True, "format"), "expected a golden bundle of format 1, got format True"),
        (remove("format"), "expected a golden bundle of format 1, got format None"),
        (lambda document: "{'no': JSON", "expected JSON under nezha_np_golden in the metadata, got other text"),
        (lambda document: "[" * 100_000, "expected JSON under nezha_np_golden in the metadata, got other text"),
        (lambda document: [1, 2], "expected a JSON object under nezha_np_golden in the metadata, got [1, 2]"),
        (remove("trace"), "expected list under trace in the bundle's metadata, got nothing"),
        (put([1], "aliases"), "expected dict under aliases in the bundle's metadata, got list"),
        (
            put("trace/nothing", "aliases", "trace/embeddings"),
            "that the bundle's metadata name, found no trace/nothing",
        ),
        (put(["nothing"], "trace"), "expected every tensor that the bundle's metadata name, found no trace/nothing"),
        (put([3], "outputs"), "expected every tensor that the bundle's metadata name, found no outputs/3"),
        (put("dance", "head"), "expected one of the heads forward, pretraining"),
        (put({"kind": "prayer"}, "weights"), "expected a recipe for the weights (inside, init, checkpoint), got"),
        (put({"kind": "init"}, "weights"), "expected a recipe for the weights (inside, init, checkpoint), got"),
        (put({"kind": "inside"}, "weights"), "expected weights inside the file, as its metadata say, found none"),
        (put(True, "switches", "past_key_values.first"), "expected inputs by the names of arguments, got"),
        (put("float8", "dtype"), "expected one of float16, float32, float64 for dtype in the metadata"),
        (
            put(-3, "config", "hidden_size"),
            "expected a configuration in the bundle's metadata, got another: hidden_size",
        ),
        (put("gpt", "config", "model_type"), "expected a configuration in the bundle's metadata, got another"),
        (
            remove("tolerances", "float16", "trace/loss"),
            "expected a tolerance of float16 for each array, found none for",
        ),
        (
            remove("tolerances", "bfloat16"),
            "expected tolerances for float64, float32, float16, bfloat16, got none for bfloat16",
        ),
        (put("much", "tolerances", "float32", "trace/loss"), "expected numbers from 0 on for tolerances, got 'much'"),
        *[
            (put(value, "tolerances", "float32", "trace/loss"), f"expected numbers from 0 on for tolerances, got {got}")
            for value, got in ((-1, "-1"), (True, "True"), (math.nan, "nan"), (math.inf, "inf"), (10**400, "a number"))
        ],
        (put("guessed", "tolerances_by"), "expected 'measured', 'quick' or null for tolerances_by, got 'guessed'"),
        (put(["quick"], "tolerances_by"), "expected 'measured', 'quick' or null for tolerances_by, got ['quick']"),
        (put(None, "tolerances_by"), "expected no tolerances, because tolerances_by is null, got float64, float32"),
    ],
)
def test_a_bundle_with_other_metadata_is_refused_in_one_sentence(small, tmp_path, change, message):
    path = with_document(small, tmp_path / "bad.safetensors", change)
    with pytest.raises(ValueError) as caught:
        nz.oracle.load(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_keys_of_the_document_are_ignored(small, tmp_path):
    path = with_document(small, tmp_path / "later.safetensors", put({"mood": "good"}, "later"))
    assert same(nz.oracle.load(path).trace, nz.oracle.load(small).trace)


# ----------------------------------------------------------------------------------------------------------- checksums


def flipped(path: Path, target: Path, place: int) -> Path:
    """Copy a file with the lowest bit of one byte flipped."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("name", ["inputs/input_ids", "trace/encoder.layer.0.attention.self.probs", "gradients/loss"])
def test_a_flipped_bit_is_refused_by_the_name_of_its_tensor(small, tmp_path, name):
    header, data = header_of(small)
    begin, end = header[name]["data_offsets"]
    start_of_data = small.stat().st_size - len(data)
    for place in (begin, end - 1):
        bad = flipped(small, tmp_path / "bad.safetensors", start_of_data + place)
        with pytest.raises(
            ValueError, match=rf"bad.safetensors: expected the numbers that were recorded, .* for {name}"
        ):
            nz.oracle.load(bad)


def test_a_changed_digit_of_a_tolerance_is_refused(small, tmp_path):
    content = small.read_bytes()
    at = content.index(b"float32", content.index(b"tolerances"))
    digit = next(place for place in range(at + len("float32"), len(content)) if content[place : place + 1].isdigit())
    with pytest.raises(ValueError, match=r"bad.safetensors: expected the document that was recorded, got another"):
        nz.oracle.load(flipped(small, tmp_path / "bad.safetensors", digit))


def test_a_bundle_of_an_older_version_has_no_checksums_and_is_read(small, tmp_path):
    old = with_document(small, tmp_path / "old.safetensors", lambda document: None)
    assert "crc32" not in header_of(old)[0]["__metadata__"][KEY]
    assert same(nz.oracle.load(old).arrays, nz.oracle.load(small).arrays)


def test_a_tensor_more_or_less_than_the_checksums_name_is_refused(small, tmp_path):
    header, data = header_of(small)
    document = json.loads(header["__metadata__"][KEY])
    del document["document_crc32"]
    for change, message in (
        (remove("crc32", "inputs/labels"), "expected the tensors that were recorded, got inputs/labels too"),
        (put(7, "crc32", "inputs/more"), "expected every tensor that was recorded, found no inputs/more"),
        (put("7", "crc32", "inputs/labels"), "expected a number for each tensor under crc32"),
        (put([], "crc32"), "expected a number for each tensor under crc32"),
    ):
        changed = json.loads(json.dumps(document))
        change(changed)
        metadata = {KEY: json.dumps(changed)}
        bad = write(tmp_path / "bad.safetensors", header | {"__metadata__": metadata}, data)
        with pytest.raises(ValueError, match=message):
            nz.oracle.load(bad)


# ----------------------------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"head": "dance"}, ValueError, "head: expected one of forward, pretraining, masked_lm"),
        ({"head": ["forward"]}, ValueError, "head: expected one of forward, pretraining, masked_lm"),
        ({"head": "causal_lm"}, ValueError, "causal_lm: expected a config with is_decoder=True"),
        ({"dtype": "bfloat16"}, ValueError, "dtype: expected one of float16, float32, float64, got 'bfloat16'"),
        ({"seed": "one"}, TypeError, "seed: expected an integer, got 'one'"),
        ({"output": 3}, TypeError, "output: expected a pattern or a sequence of patterns, got 3"),
        ({"tolerances": "loose"}, ValueError, "tolerances: expected 'measured', 'quick' or None, got 'loose'"),
        ({"tolerances": ["quick"]}, ValueError, "tolerances: expected 'measured', 'quick' or None, got ['quick']"),
        ({"gradients": "no"}, TypeError, "gradients: expected True, False or None, got 'no'"),
        ({"path": "golden.npz"}, ValueError, "path: expected a name that ends in .safetensors, got golden.npz"),
        ({"path": 3}, TypeError, "path: expected a path, got int"),
        ({"config": CONFIG}, TypeError, "config: expected none, because weights bring their own"),
        ({"label": [1]}, TypeError, "unexpected keyword argument 'label'"),
        ({"input_ids": [[2], [3, 4]]}, ValueError, "input_ids: expected rows of the same length"),
        ({"input_ids": [["two"]]}, TypeError, "input_ids: expected numbers, got list"),
        ({"input_ids": [[99]]}, ValueError, "input_ids: expected values from 0 to 10, got 99"),
        ({"input_ids": None}, ValueError, "input_ids: expected either input_ids or inputs_embeds, got neither"),
        ({"attention_mask": [[1]]}, ValueError, "attention_mask: expected shape (1, 2), got (1, 1)"),
        ({"weights": {"a": 1}}, TypeError, "weights: expected Weights, a configuration, a path or None, got dict"),
        ({"weights": "nowhere"}, FileNotFoundError, "weights: expected a folder or a file that ends in"),
    ],
)
def test_record_names_the_argument_that_is_wrong(arguments, error, message):
    with pytest.raises(error) as caught:
        nz.oracle.record(**{"weights": CONFIG, "input_ids": [[2, 3]]} | arguments)
    assert message in str(caught.value)


def test_a_family_without_the_head_is_refused():
    with pytest.raises(ValueError, match="next_sentence_prediction: expected a model with this head, got ConvBERT"):
        nz.oracle.record(standard.CONVBERT, [[2, 3]], head="next_sentence_prediction")


def test_an_activation_that_is_a_function_is_refused_by_the_file_and_not_by_the_pass(tmp_path):
    bundle = nz.oracle.record(CONFIG.replace(hidden_act=lambda x: x), [[2, 3]])
    with pytest.raises(ValueError, match="hidden_act: expected a name, to write it into a file, got <function"):
        bundle.save(tmp_path / "bundle.safetensors")


def test_a_configuration_that_json_cannot_hold_is_refused(tmp_path):
    bundle = nz.oracle.record(CONFIG.replace(extra={"task": {1, 2}}), [[2, 3]])
    with pytest.raises(ValueError, match="config: expected values that JSON can hold, got others: Object of type set"):
        bundle.save(tmp_path / "bundle.safetensors")


def test_a_failure_to_write_leaves_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / "bundle.safetensors"
    path.write_bytes(small.read_bytes())

    def fail(path, *arguments):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(bundle_module, "write_tensors", fail)
    with pytest.raises(OSError, match="no space left"):
        nz.oracle.load(small).save(path)
    assert path.read_bytes() == small.read_bytes() and list(tmp_path.iterdir()) == [path]


def test_an_unknown_standard_bundle_and_a_file_in_the_place_of_the_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="name: expected one of nezha-forward, nezha-forward-pairs"):
        nz.oracle.record_standard("nezha-dance")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="folder: expected a folder, found a file"):
        nz.oracle.record_all(tmp_path / "file")


def test_a_tolerance_without_bound_is_null_in_the_file(small, tmp_path):
    bundle = nz.oracle.load(small)
    bundle.tolerances["float16"]["loss"] = math.inf
    bundle.save(tmp_path / "bundle.safetensors")
    assert read_by_the_page(tmp_path / "bundle.safetensors")["tolerances"]["float16"]["trace/loss"] is None
    assert nz.oracle.load(tmp_path / "bundle.safetensors").tolerances["float16"]["loss"] == math.inf


def test_a_gradient_of_a_cross_entropy_is_as_uncertain_as_the_probabilities_that_it_is_a_difference_of():
    logits, labels = np.array([[20.0, 0.0, 1.0], [0.0, 0.0, 0.0]], np.float32), np.array([0, -100])
    right = losses.cross_entropy.gradient(np.float32(1.0), None, logits, labels)
    assert 0.0 < np.abs(right).max() < 1e-7  # p is 1 but for a unit in its last place
    nudged = [
        with_another_exponential(right, np.float32(1.0), logits, labels, arithmetic=ARITHMETICS["float32"], nudge=nudge)
        for nudge in range(1, 8)
    ]
    apart = np.abs(np.array(nudged) - right).max(axis=0)
    assert 2.0**-23 < apart[0, 0] < 16.0 * 2.0**-23
    assert apart[0, 1:].max() < 1e-10  # of a probability near 0 little can be wrong
    assert not apart[1].any()  # a label that does not count
