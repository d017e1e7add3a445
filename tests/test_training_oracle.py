"""Training steps in golden bundles: they are those of the package's loop, files keep them, right ports pass."""

import json

import numpy as np
import pytest
import step_port
from pages import run_examples

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.oracle.bounded import Bounded
from nezha_np.oracle.bundle_document import KEY
from nezha_np.oracle.rounding import ARITHMETICS
from nezha_np.oracle.standard import STANDARD
from nezha_np.oracle.standard_inputs import lively_weights
from nezha_np.oracle.step_tolerances import derived_tolerances, rerun_steps
from nezha_np.training import first_step, train
from nezha_np.training.loop import OPTIMIZERS as MODULES
from nezha_np.weights.formats.entry import map_tensors
from nezha_np.weights.formats.safetensors import read_header, read_metadata, write_tensors

SIZES = {"vocab_size": 19, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 20}
IDS = [[2, 5, 9, 5, 3, 0], [2, 7, 8, 3, 11, 3]]
LABELS = [[-100, 4, -100, 6, -100, -100], [-100, -100, 8, -100, -100, -100]]
RECIPE = {"learning_rate": lambda steps: 1e-3 * (steps + 1), "steps": 2}


def record(config=None, step="adamw", tolerances="quick", **options):
    config = nz.NezhaConfig(**SIZES, max_relative_position=3) if config is None else config
    inputs = {"head": "masked_lm", "labels": LABELS, "input_ids": IDS}
    return nz.oracle.record(config, step=step, tolerances=tolerances, **{**inputs, **RECIPE, **options})


@pytest.mark.parametrize(
    ("name", "options"), [("lamb", {}), ("lamb", {"variant": "nezha"}), ("adamw", {}), ("bert_adam", {})]
)
def test_the_recorded_steps_are_those_of_the_training_loop(name, options):
    own = {"accumulation_steps": 2, "dropout_seed": 3, "loss_scale": 256.0, "clip_norm": 0.5}
    bundle = record(step=name, tolerances=None, **own, **options)
    parts = list(bundle.batches[0])
    run = train(
        first_step(bundle.weights(), MODULES[name]),
        nz.masked_lm,
        lambda number: parts,
        MODULES[name],
        steps=2,
        learning_rate=RECIPE["learning_rate"],
        clip_norm=0.5,
        dropout_seed=3,
        **options,
    )
    for number, step in enumerate(run, start=1):
        assert float(bundle.steps[f"{number}/loss"]) == pytest.approx(step.losses["loss"], rel=1e-12)
        assert float(bundle.steps[f"{number}/norm"]) == pytest.approx(step.norm, rel=1e-12)
        trained = [
            key.removeprefix(f"{number}/weights/") for key in bundle.steps if key.startswith(f"{number}/weights/")
        ]
        for key in trained:
            for stage, arrays in (
                ("weights", step.weights),
                ("first_moment", step.state.first_moments),
                ("second_moment", step.state.second_moments),
            ):
                np.testing.assert_allclose(bundle.steps[f"{number}/{stage}/{key}"], arrays[key], rtol=1e-9, atol=1e-15)
        assert int(bundle.steps[f"{number}/step"]) == number


@pytest.mark.parametrize("name", ["nezha-pretraining", "nezha-question_answering", "bert-token_classification"])
def test_steps_of_every_kind_of_loss_are_those_of_the_loop(name):
    one = next(standard for standard in STANDARD if standard.name == name)
    weights, head = lively_weights(one.config, one.head), getattr(nz, one.head)
    recipe = {"step": "adamw", "learning_rate": 1e-3, "accumulation_steps": 2, "tolerances": "quick"}
    bundle = nz.oracle.record(weights, head=one.head, **recipe, **one.inputs)
    parts, start = list(bundle.batches[0]), first_step(weights, MODULES["adamw"])
    own = {"steps": 1, "learning_rate": 1e-3, "dropout_seed": None}
    (step,) = train(start, head, lambda number: parts, MODULES["adamw"], **own)
    assert float(bundle.steps["1/loss"]) == pytest.approx(float(bundle.outputs["loss"]), rel=1e-12)
    for key in (key for key in bundle.steps if key.startswith("1/weights/")):
        trained = step.weights[key.removeprefix("1/weights/")]
        np.testing.assert_allclose(bundle.steps[key], trained, rtol=1e-9, atol=1e-11)
    assert nz.oracle.diagnose(bundle, bundle).agrees


def test_a_file_keeps_steps_batches_and_recipe(tmp_path):
    bundle = record(accumulation_steps=2, dropout_seed=1, tolerances="quick")
    bundle.save(tmp_path / "steps.safetensors")
    read = nz.oracle.load(tmp_path / "steps.safetensors")
    assert read.training == bundle.training
    assert read.tolerances == bundle.tolerances
    assert list(read.arrays) == list(bundle.arrays)
    assert all((np.asarray(read.arrays[name]) == array).all() for name, array in bundle.arrays.items())
    assert [[sorted(part) for part in parts] for parts in read.batches] == [[["input_ids", "labels"]] * 2] * 2
    assert nz.oracle.compare(read, bundle)
    trained = {name.removeprefix("1/weights/") for name in bundle.steps if name.startswith("1/weights/")}
    of_weights = sum(array.nbytes for name, array in bundle.weights().items() if name in trained)
    of_steps = sum(array.nbytes for name, array in bundle.steps.items() if name.count("/") > 1)
    assert of_steps == 6 * 2 * of_weights  # as docs/bundles.md says; what is not clipped is stored once


def take_batch(document, number):
    """Leave out the batch of a step, which is another name of that of the first."""
    for name in [name for name in document["aliases"] if name.startswith(f"batches/{number}/")]:
        del document["aliases"][name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["steps"].remove("2/norm"), "found no steps/2/norm"),
        (lambda document: document["training"].pop("beta1"), "expected a recipe of training steps under training"),
        (lambda document: document["training"].update(steps=3), "expected a recipe of training steps"),
        (lambda document: document["training"].update(optimizer="sgd"), "expected a recipe of training steps"),
        (lambda document: document.update(steps=None), "expected list under steps"),
        (lambda document: take_batch(document, 2), "expected a batch for each of 2 training steps"),
    ],
)
def test_a_file_whose_steps_are_not_whole_is_refused(tmp_path, change, message):
    path = tmp_path / "steps.safetensors"
    record(tolerances=None).save(path)
    document = json.loads(read_metadata(path)[KEY])
    del document["crc32"], document["document_crc32"]  # as in a file that another program wrote
    tensors = {name: np.array(array) for name, array in map_tensors(path, read_header(path)).items()}
    change(document)
    write_tensors(tmp_path / "changed.safetensors", tensors, {KEY: json.dumps(document)})
    with pytest.raises(ValueError, match=message):
        nz.oracle.load(tmp_path / "changed.safetensors")


def test_a_bundle_of_a_pass_alone_says_nothing_of_training(tmp_path):
    config = nz.NezhaConfig(**SIZES, max_relative_position=3)
    nz.oracle.record(config, IDS, tolerances=None, path=tmp_path / "pass.safetensors")
    read = nz.oracle.load(tmp_path / "pass.safetensors")
    assert (read.training, read.batches, read.steps) == (None, (), {})
    assert b'"training"' not in (tmp_path / "pass.safetensors").read_bytes()[:50_000]


def test_patterns_keep_the_arrays_of_some_tensors():
    bundle = record(parameters="**.query.*")
    assert {name.split("/")[2] for name in bundle.steps if name.startswith("1/weights/")} == {
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.0.attention.self.query.bias",
    }
    assert nz.oracle.compare(bundle, bundle)
    assert nz.oracle.diagnose(bundle, bundle).step is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": None}, "steps: expected with step="),
        ({"step": "sgd"}, "step: expected one of lamb, adamw, bert_adam"),
        ({"learning_rate": None}, "learning_rate: expected with step='"),
        ({"learning_rate": [1e-3]}, "learning_rate: expected a rate for each of 2 steps, got 1"),
        ({"variant": "nezha"}, "variant: expected options of adamw"),
        ({"steps": 0}, "steps: expected"),
        ({"labels": None}, "step: expected labels for masked_lm"),
        ({"head": "forward", "labels": None}, "step: expected a head that has a loss, such as masked_lm, got forward"),
        ({"accumulation_steps": 3}, "accumulation_steps: expected at most the 2 texts"),
        ({"batches": [{"input_ids": IDS, "labels": LABELS}]}, "batches: expected a batch for each of 2 steps, got 1"),
        ({"parameters": "no.such.tensor"}, "parameters: expected a pattern that fits a tensor"),
        ({"clip_norm": -1.0}, "clip_norm: expected"),
        ({"loss_scale": 0.0}, "loss_scale: expected a number above 0"),
    ],
)
def test_wrong_arguments_of_steps_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        record(**options)


def test_steps_that_would_take_gigabytes_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("nezha_np.oracle.step_recording.MOST_BYTES", 100_000)
    with pytest.raises(ValueError, match=r"steps: expected arrays of .* GiB at most"):
        record()
    assert record(parameters="**.query.bias").steps


def test_each_element_of_an_update_has_a_tolerance_of_its_own():
    bundle = record(
        tolerances="measured", step="adamw", eps=1e-12
    )  # no ε hides what a division by √v makes of roundings
    allowed = derived_tolerances(bundle, "float32")["steps/1/update/encoder.layer.0.attention.self.query.weight"]
    update = bundle.steps["1/update/encoder.layer.0.attention.self.query.weight"]
    assert np.median(allowed) < 1e-2 * np.abs(update).max()
    keys = derived_tolerances(bundle, "float32")["steps/1/update/encoder.layer.0.attention.self.key.bias"]
    assert (keys > 0.1).all()  # its gradient is 0 but for roundings, which an update makes as large as any other


def test_a_bound_covers_what_float32_makes_of_an_update():
    generator = np.random.default_rng(0)
    g = generator.normal(size=1000) * 10.0 ** generator.uniform(-9, 0, 1000)
    off = g * (1 + 1e-6 * generator.uniform(-1, 1, 1000)) + 1e-8 * generator.uniform(-1, 1, 1000)
    bounded = Bounded(g, 1e-6 * np.abs(g) + 1e-8, 2.0**-23)
    update = bounded / ((bounded * bounded).sqrt() + 1e-8)
    theirs = off.astype(np.float32) / (np.sqrt(off.astype(np.float32) ** 2) + np.float32(1e-8))
    assert (np.abs(theirs - update.value) <= update.error).all()
    assert np.median(update.error) < 1e-2


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_a_model_of_transformers_trained_by_torch_has_no_mistake(seed):
    torch = pytest.importorskip("torch", reason="the port is PyTorch's")
    transformers = pytest.importorskip("transformers", reason="the port is that of transformers")
    config = nz.BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    weights = nz.init(config, "masked_lm", seed, dtype="float32")
    bundle = nz.oracle.record(
        weights, IDS, head="masked_lm", labels=LABELS, step="adamw", steps=3, learning_rate=2e-3, tolerances="measured"
    )
    kind = transformers.BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = transformers.BertForMaskedLM(kind)
    state = {name: torch.tensor(np.array(array)) for name, array in weights.items()}
    named = {name.removeprefix("bert."): parameter for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(state[name])
    chosen = set(bundle.training.decayed)
    decayed, others = ([named[name] for name in named if (name in chosen) == of] for of in (True, False))
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer, theirs = torch.optim.AdamW(groups, lr=2e-3), {}
    for number in range(1, 4):
        optimizer.zero_grad()
        loss = model(input_ids=torch.tensor(IDS), labels=torch.tensor(LABELS)).loss
        loss.backward()
        theirs[f"steps/{number}/loss"] = loss.detach()
        theirs |= {f"steps/{number}/gradients/{name}": one.grad.clone() for name, one in named.items()}
        theirs[f"steps/{number}/norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        theirs |= {f"steps/{number}/clipped/{name}": one.grad.clone() for name, one in named.items()}
        optimizer.step()
        for name, one in named.items():
            theirs[f"steps/{number}/first_moment/{name}"] = optimizer.state[one]["exp_avg"].clone()
            theirs[f"steps/{number}/second_moment/{name}"] = optimizer.state[one]["exp_avg_sq"].clone()
            theirs[f"steps/{number}/weights/{name}"] = one.detach().clone()
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison, comparison.summary()
    assert not comparison.unknown
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.agrees, str(diagnosis)


def test_a_pass_in_half_precision_with_an_optimiser_in_float32_agrees():
    bundle = record(step="lamb", tolerances="measured", loss_scale=1024.0)
    for dtype in ("float16", "bfloat16"):
        theirs = rerun_steps(bundle, bundle.weights(), ARITHMETICS[dtype], nudge=11)
        comparison = nz.oracle.compare(bundle, theirs, dtype=dtype)
        assert comparison, comparison.summary()
        assert nz.oracle.diagnose(bundle, theirs, dtype=dtype).step is None


def steps_in_half(seed, family, optimizer, options):
    """Record steps of a small model in float64, and make them in float16 as another implementation does."""
    sizes = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    config = {
        "nezha": lambda: nz.NezhaConfig(**sizes, num_attention_heads=2, max_relative_position=3),
        "bert": lambda: nz.BertConfig(**sizes, num_attention_heads=2),
        "convbert": lambda: nz.ConvBertConfig(**sizes, num_attention_heads=4, embedding_size=12, conv_kernel_size=3),
    }[family]()
    generator = np.random.default_rng([seed, len(family), len(optimizer)])
    drawn, scale = nz.init(config, "masked_lm", seed, dtype="float64"), generator.choice([1.0, 5.0])
    tensors = {
        name: array * scale if array.ndim > 1 else array + 0.1 * generator.normal(size=array.shape)
        for name, array in drawn.items()
    }
    ids = generator.integers(4, 23, (3, 7))
    labels = np.where(generator.random((3, 7)) < 0.3, generator.integers(4, 23, (3, 7)), -100)
    labels[:, 0] = 5
    own = {"labels": labels, "steps": 2, "learning_rate": float(generator.choice([1e-4, 1e-3, 1e-2])), "clip_norm": 0.1}
    weights = nz.Weights({name: np.float32(array) for name, array in tensors.items()}, config)
    bundle = nz.oracle.record(weights, ids, head="masked_lm", step=optimizer, **own, **options)
    return bundle, rerun_steps(bundle, bundle.weights(), ARITHMETICS["float16"], nudge=seed + 20)


# Of the first one a trust ratio was called wrong, before an element whose gradient is 0 but for roundings could have
# an update of either sign: eight passes had the same. The others are drawn.
IN_HALF = [
    (6, "convbert", "lamb", {}),
    (7, "convbert", "adamw", {}),
    (10, "nezha", "lamb", {"variant": "nezha"}),
    (11, "bert", "bert_adam", {}),
]


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("seed", "family", "optimizer", "options"), IN_HALF)
def test_steps_in_float16_agree_whatever_sign_roundings_give_to_an_update(seed, family, optimizer, options):
    bundle, theirs = steps_in_half(seed, family, optimizer, options)
    comparison = nz.oracle.compare(bundle, theirs, dtype="float16")
    assert comparison, comparison.summary()


@pytest.mark.parametrize("seed", [5, 7])
def test_the_second_step_in_float16_agrees_whatever_sign_roundings_gave_to_the_first(seed):
    config = nz.ConvBertConfig(**SIZES, embedding_size=12)
    bundle = record(nz.init(config, "masked_lm", seed, dtype="float64"), tolerances="measured", loss_scale=1024.0)
    theirs = rerun_steps(bundle, bundle.weights(), ARITHMETICS["float16"], nudge=12)
    comparison = nz.oracle.compare(bundle, theirs, dtype="float16")
    assert comparison, comparison.summary()


def test_a_port_of_steps_is_a_function_of_the_bundle():
    bundle = record()
    assert nz.oracle.compare(bundle, lambda given: {f"steps/{name}": array for name, array in given.steps.items()})


# Of each optimiser, what step_port is told to do wrong, and how the doctor calls it.
STANDARD_STEPS = [
    ("steps_lamb_nezha", "ratio without decay", "trust ratio of the update without decay"),
    ("steps_lamb", "one ratio", "trust ratio of all parameters"),
    ("steps_adamw", "no correction", "bias correction missing"),
    ("steps_bert_adam", "rate of the next", "learning rate off by one step"),
]


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("what", "switch", "mistake"), STANDARD_STEPS, ids=[row[0] for row in STANDARD_STEPS])
def test_standard_steps_are_checked_from_the_command_line(what, switch, mistake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bundle = nz.oracle.record_standard(f"nezha-masked_lm-{what}")
    bundle.save("golden.safetensors")
    labels = [int((np.asarray(part["labels"]) != -100).sum()) for part in bundle.batches[0]]
    assert (len(set(labels)), len(set(bundle.training.learning_rates[:3]))) == (2, 3)
    assert min(float(bundle.steps[f"{t}/norm"]) for t in (1, 2, 3)) > bundle.training.clip_norm
    np.savez("right.npz", **step_port.run(bundle))
    np.savez("wrong.npz", **step_port.run(bundle, switch))
    assert main(["golden", "show", "golden.safetensors"]) == 0
    assert "of 3 training steps" in capsys.readouterr().out
    assert main(["golden", "check", "golden.safetensors", "right.npz"]) == 0
    assert main(["doctor", "golden.safetensors", "right.npz"]) == 0
    assert main(["golden", "check", "golden.safetensors", "wrong.npz"]) == 1
    assert main(["doctor", "golden.safetensors", "wrong.npz"]) == 1
    assert f"mistake: {mistake}" in capsys.readouterr().out


def test_the_example_of_the_page_runs():
    names = run_examples("howto/use_as_oracle.md", "A training step")
    assert names["diagnosis"].names == ("decay coupled into the gradient",)
