"""The loop: a run that goes on from any saved step comes to the same bits, and loses nothing."""

import dataclasses
import json
import math
from unittest import mock

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.mechanism.tape import Tape
from nezha_np.training import LossScale, adamw, bert_adam, lamb
from nezha_np.training.accumulation import accumulate
from nezha_np.training.loop import Step, first_step, train
from nezha_np.training.measurements import Metrics
from nezha_np.training.run_folder import check_options, load_step, save_step, saved_steps

CONFIG = nz.NezhaConfig(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=16,
    max_relative_position=4,
)


def batches(number):
    """Two parts; the ids depend on the number of the step alone."""
    ids = 5 + (np.arange(16).reshape(2, 1, 8) * (number + 1)) % 25
    return [{"input_ids": part, "labels": np.where(part % 3 == 0, part, -100)} for part in ids]


def run(start, steps, optimizer=lamb, **options):
    return list(train(start, nz.masked_lm, batches, optimizer, steps=steps, learning_rate=0.01, **options))


def assert_same_bits(one, other):
    assert one.number == other.number and one.state.steps == other.state.steps
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name], err_msg=name)
        np.testing.assert_array_equal(one.state.second_moments[name], other.state.second_moments[name], err_msg=name)


@pytest.mark.parametrize("optimizer", [lamb, adamw, bert_adam], ids=lambda module: module.__name__.rpartition(".")[2])
@pytest.mark.parametrize("loss_scale", [None, LossScale(2.0**40)], ids=["float32", "mixed"])
def test_a_run_goes_on_from_a_saved_step_to_the_same_bits(optimizer, loss_scale, tmp_path):
    with np.errstate(over="ignore", invalid="ignore"):
        through = run(first_step(nz.init(CONFIG), optimizer, loss_scale), 8, optimizer)
        half = run(first_step(nz.init(CONFIG), optimizer, loss_scale), 5, optimizer)[-1]
        save_step(tmp_path, half, keep=1)
        loaded = load_step(saved_steps(tmp_path)[-1])
        assert_same_bits(loaded, half)
        assert loaded.loss_scale == half.loss_scale
        assert_same_bits(run(loaded, 8, optimizer)[-1], through[-1])


def test_a_step_that_overflows_is_left_out_and_loses_nothing():
    with np.errstate(over="ignore", invalid="ignore"):
        first, second = run(first_step(nz.init(CONFIG), lamb, LossScale(2.0**60, backoff_steps=1)), 2)
    assert first.skipped and not math.isfinite(first.norm)
    assert (first.number, first.state.steps, first.loss_scale.scale) == (1, 0, 2.0**59)
    assert second.number == 2
    start = nz.init(CONFIG)
    for name, array in start.items():
        np.testing.assert_array_equal(first.weights[name], array)


def test_the_loss_scale_is_that_of_the_authors():
    """2³², doubled after 1,000 steps in a row that are finite, halved after 2 that are not since it changed."""
    scale = LossScale()
    assert scale.scale == 2.0**32
    for finite, expected in ((False, 32), (True, 32), (False, 31), (False, 31), (False, 30)):
        scale = scale.after(finite=finite)
        assert scale.scale == 2.0**expected
    for count, expected in ((999, 30), (1, 31), (999, 31)):
        for _ in range(count):
            scale = scale.after(finite=True)
        assert scale.scale == 2.0**expected
    scale = scale.after(finite=False)  # the count of finite steps begins anew
    for count, expected in ((999, 31), (1, 32)):
        for _ in range(count):
            scale = scale.after(finite=True)
        assert scale.scale == 2.0**expected
    scale = scale.after(finite=False)  # and that of the others too, when the scale changes
    assert scale.scale == 2.0**32


def test_in_mixed_precision_the_weights_stay_float32_and_small_updates_are_kept():
    start = first_step(nz.init(CONFIG), adamw, LossScale(2.0**10))
    *_, last = train(start, nz.masked_lm, batches, adamw, steps=20, learning_rate=1e-7)
    name = "encoder.layer.0.output.dense.weight"
    assert last.weights.dtype == np.float32 and not last.skipped
    moved = np.abs(last.weights[name] - start.weights[name]).max()
    assert 1e-6 < moved < 3e-6
    in_float16 = start.weights[name].astype("float16")
    assert np.array_equal((in_float16 - np.float16(1e-7)).astype("float16")[np.abs(in_float16) > 1e-3],
                          in_float16[np.abs(in_float16) > 1e-3])  # fmt: skip


def test_gradients_that_are_not_finite_stop_a_run_without_mixed_precision():
    weights = dict(nz.init(CONFIG))
    weights["encoder.layer.0.output.dense.bias"] = np.full(8, np.nan, "float32")
    with pytest.raises(FloatingPointError, match="step 1: expected finite gradients, got a global norm of nan"):
        run(first_step(nz.Weights(weights, CONFIG), lamb), 1)
    with pytest.raises(ValueError, match="weights: expected float32 or float64 to train, got float16"):
        first_step(nz.init(CONFIG, dtype="float16"), lamb)


def test_the_learning_rate_may_be_a_function_of_the_steps_that_were_made():
    steps = train(
        first_step(nz.init(CONFIG), lamb), nz.masked_lm, batches, lamb, steps=3, learning_rate=lambda n: n / 10
    )
    assert [step.learning_rate for step in steps] == [0.0, 0.1, 0.2]


def test_no_two_parts_of_a_run_have_the_same_dropout_masks_however_many_a_step_has():
    seeds = []

    def noted(*arguments, dropout_seeds, **options):
        seeds.extend(dropout_seeds)
        return accumulate(*arguments, dropout_seeds=dropout_seeds, **options)

    with mock.patch("nezha_np.training.loop.accumulate", noted):
        list(
            train(
                first_step(nz.init(CONFIG), lamb),
                nz.masked_lm,
                lambda number: batches(number)[: 1 + (number == 1)],
                lamb,
                steps=4,
                learning_rate=0.0,
                dropout_seed=7,
            )
        )
    assert len(seeds) == 5 == len(set(seeds))
    assert [seed for seed in seeds if len(seed) == 2] == [(7, number) for number in range(4)]  # as value_and_grad's


def test_what_is_not_finite_is_null_in_the_measurements(tmp_path):
    Metrics(tmp_path / "metrics.jsonl", 0).add({"step": 1, "norm": math.nan, "loss": math.inf, "skipped": True})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "norm": null, "loss": null, "skipped": true}\n'


def test_the_last_steps_are_kept_and_a_half_written_one_is_none(tmp_path):
    step = first_step(nz.init(CONFIG), lamb)
    for number in range(4):
        save_step(tmp_path, Step(number, step.weights, step.state), keep=2)
    assert [path.name for path in saved_steps(tmp_path)] == ["step-00000002", "step-00000003"]
    (tmp_path / ".step-00000004").mkdir()
    assert [path.name for path in saved_steps(tmp_path)] == ["step-00000002", "step-00000003"]
    save_step(tmp_path, Step(4, step.weights, step.state), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_seed_is_any_integer_wherever_there_is_one(tmp_path):
    batch = {"input_ids": [[2, 7, 9, 3]], "labels": [[-100, 8, -100, -100]]}
    weights = nz.init(CONFIG.replace(hidden_dropout_prob=0.5), seed=-1)

    def loss(seed):
        (step,) = train(first_step(weights, lamb), nz.masked_lm, lambda _: [batch], lamb, steps=1, learning_rate=0.1,
                        dropout_seed=seed)  # fmt: skip
        return step.losses["loss"]

    assert len({loss(seed) for seed in (-1, 0, 1)}) == 3
    out, _ = nz.value_and_grad(nz.masked_lm, dropout_seed=-1)(weights, **batch)
    assert float(out.loss) == pytest.approx(loss(-1), rel=1e-6)
    (tmp_path / "train.tsv").write_text("好\tgood\n差\tbad\n" * 5, encoding="utf-8")
    words = [str(tmp_path / "train.tsv"), "-o", str(tmp_path / "run"), "--task", "classify", "--epochs", "1"]
    assert main(["finetune", *words, "--seed", "-1", "--max-length", "8"]) == 0
    bundle = str(tmp_path / "bundle.safetensors")
    steps = ["--head", "masked_lm", "--labels", "[[-100, 8, -100]]", "--step", "lamb", "--learning-rate", "0.1"]
    options = ["--text", "好", "--tolerances", "none", "--dropout-seed", "-2", "--parameters", "cls.predictions.bias"]
    assert main(["golden", "record", "-o", bundle, *options, *steps]) == 0
    assert nz.oracle.load(bundle).training.dropout_seed == -2


def test_a_run_with_other_options_is_refused(tmp_path):
    check_options(tmp_path, {"seed": 0, "betas": (0.9, 0.999)})
    check_options(tmp_path, {"seed": 0, "betas": (0.9, 0.999)})
    (tmp_path / "step-00000001").mkdir()
    with pytest.raises(ValueError, match="seed: 0 in the run, 1 now"):
        check_options(tmp_path, {"seed": 1, "betas": (0.9, 0.999)})


def test_measurements_after_the_saved_step_are_removed_and_a_cut_line_too(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    Metrics(file, 2).add({"step": 3, "loss": 0.5})
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3, "loss": 0.5},
    ]


@pytest.mark.parametrize("optimizer", [lamb, adamw, bert_adam], ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_frozen_tensor_keeps_its_bits_and_counts_in_no_norm(optimizer):
    start = first_step(nz.init(CONFIG), optimizer)
    (free,) = run(start, 1, optimizer)
    (frozen,) = run(start, 1, optimizer, freeze=["embeddings.**", "encoder.layer.*.output.dense.bias"])
    same = {name for name, array in frozen.weights.items() if np.array_equal(array, start.weights[name])}
    named = {name for name in start.weights if name.startswith("embeddings.")} | {"encoder.layer.0.output.dense.bias"}
    moved = {name for name, array in free.weights.items() if not np.array_equal(array, start.weights[name])}
    assert named & moved == named and same & moved == named
    _, gradients = accumulate(nz.masked_lm, start.weights, batches(0), dropout_seeds=[(0, 0), (0, 0, 1)])
    squares = [float((gradient**2).sum()) for name, gradient in gradients.items() if name not in named]
    assert frozen.norm == pytest.approx(math.sqrt(sum(squares))) and frozen.norm < free.norm


def test_a_pattern_that_freezes_nothing_or_everything_is_refused():
    start = first_step(nz.init(CONFIG), lamb)
    with pytest.raises(ValueError, match=r"freeze: .* got encoder\.layer\.1\.\*\*, which fits none"):
        run(start, 1, freeze=["embeddings.**", "encoder.layer.1.**"])
    with pytest.raises(
        ValueError, match=r"freeze: expected a tensor at least that is trained, got \*\*, which fit all"
    ):
        run(start, 1, freeze="**")
    with pytest.raises(TypeError, match="freeze: expected a pattern or a sequence of patterns, got 3"):
        run(start, 1, freeze=3)


@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_the_walk_back_ends_above_frozen_layers_and_changes_no_other_gradient(checkpoint_layers):
    weights = nz.init(dataclasses.replace(CONFIG, num_hidden_layers=3))
    options = {"dropout_seeds": [(0, 0), (0, 0, 1)], "checkpoint_layers": checkpoint_layers}
    below = ("embeddings.", "encoder.layer.0.", "encoder.layer.1.", "encoder.layer.2.attention.self.query.")
    frozen = {name for name in weights if name.startswith(below)}
    passed = []

    def note(self, call, *arguments):
        passed.append(call.layer.__name__)
        return step_back(self, call, *arguments)

    step_back = Tape._step_back
    with mock.patch.object(Tape, "_step_back", note):
        _, every = accumulate(nz.masked_lm, weights, batches(0), **options)
        whole, passed[:] = passed.copy(), []
        _, gradients = accumulate(nz.masked_lm, weights, batches(0), frozen=frozen, **options)
    assert gradients.keys() == every.keys() - frozen
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, every[name], err_msg=name)
    assert "embedding" in whole and "embedding" not in passed
    assert checkpoint_layers or len(passed) < len(whole) / 2


def test_what_a_run_is_given_is_checked_before_its_first_step():
    start = first_step(nz.load(), lamb)
    for wrong, error, message in (
        ({"clip_norm": -1.0}, ValueError, "clip_norm: expected a finite number from 0 on, got -1.0"),
        ({"dropout_seed": 1.5}, TypeError, "dropout_seed: expected an integer, got 1.5"),
        ({"checkpoint_layers": "no"}, TypeError, "checkpoint_layers: expected True, False or None, got 'no'"),
    ):
        with pytest.raises(error, match=f"^{message}$"):
            next(
                train(
                    start, nz.masked_lm, lambda number: pytest.fail("a step"), lamb, steps=1, learning_rate=0.1, **wrong
                )
            )
