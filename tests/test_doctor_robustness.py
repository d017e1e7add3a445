"""The doctor has a word for every dump: it never fails, and never blames what it has not seen."""

import numpy as np
import pytest
from test_doctor import bundle_of, named, plant
from test_kernels import threads_of_blas

import nezha_np as nz
from nezha_np.layers import addition, attention, layer_norm, linear
from nezha_np.mechanism.patterns import matches
from nezha_np.oracle import search
from nezha_np.oracle.replay import At, replay
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.oracle.search import groups_of
from nezha_np.oracle.standard import record_standard


@pytest.fixture(scope="module")
def bundle():
    return record_standard("nezha-pretraining")


def noisy(array, seed=0):
    return (array + 0.01 * np.random.default_rng(seed).normal(size=array.shape)).astype("float32")


@pytest.mark.exhaustive
def test_each_step_alone_may_be_wrong_in_a_full_dump(bundle):
    right = {name: array.astype("float32") for name, array in bundle.trace.items() if "attention_mask" not in name}
    for name in list(right)[::7]:
        diagnosis = nz.oracle.diagnose(bundle, right | {name: noisy(bundle.trace[name])})
        if diagnosis.step is None:  # what follows from it is right, so it is an array of another name
            assert not diagnosis.agrees and f"{name} " in str(diagnosis) and "a matter of names" in str(diagnosis)
            continue
        assert "not in the catalogue" in str(diagnosis) or diagnosis.findings


@pytest.mark.exhaustive
def test_each_step_alone_may_be_all_that_there_is(bundle):
    for name in [name for name in bundle.trace if name.startswith(("encoder", "cls", "pooler"))][::9]:
        assert nz.oracle.diagnose(bundle, {name: noisy(bundle.trace[name])}).step == name


@pytest.mark.exhaustive
def test_the_output_of_a_layer_alone_may_be_wrong_or_nan(bundle):
    name = "encoder.layer.0.output"
    assert nz.oracle.diagnose(bundle, {name: noisy(bundle.trace[name])}).step == name
    lost = np.full_like(bundle.trace[name], np.nan)
    assert "NaN" in str(nz.oracle.diagnose(bundle, {name: lost}))


@pytest.mark.exhaustive
def test_an_array_of_another_shape_is_the_first_to_mend_where_all_others_are_right(bundle):
    first, second = "encoder.layer.0.output", "encoder.layer.1.output"
    theirs = {first: bundle.trace[first], second: bundle.trace[second][:1]}
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.step == second
    assert "it has shape (1, 7, 16), expected (3, 7, 16)" in str(diagnosis)
    assert nz.oracle.diagnose(bundle, theirs | {first: noisy(bundle.trace[first])}).step == first


def test_of_numbers_that_were_cut_into_rows_otherwise_the_doctor_says_so(bundle):
    name = "encoder.layer.1.output"
    said = str(nz.oracle.diagnose(bundle, {name: bundle.trace[name].reshape(21, 16)}))
    assert "yours are the right ones: reshape them to (3, 7, 16)" in said


@pytest.mark.exhaustive
def test_of_logits_alone_the_doctor_says_which_array_would_tell_more(bundle):
    name = "outputs/prediction_logits"
    diagnosis = nz.oracle.diagnose(bundle, {name: noisy(bundle.outputs["prediction_logits"])})
    said = next(line for line in diagnosis.seen if "would tell in which half" in line)
    (asked,) = [name for name in bundle.trace if f" {name} of yours" in said]
    assert asked.startswith("encoder.layer.")


def test_numbers_that_were_rounded_to_a_narrower_dtype_are_recognised(bundle):
    name = "encoder.layer.0.attention.self.scores"
    theirs = {key: bundle.trace[key].astype("float32") for key in ("embeddings", name)}
    theirs[name] = theirs[name].astype("float16").astype("float32")
    assert "results of few bits, sums of scores in float16" in str(nz.oracle.diagnose(bundle, theirs))


# ---------------------------------------------------------------------- what looks like a mistake of the catalogue only


def port_of(bundle, changes):
    """The pass in float32, with changes."""
    float32 = ARITHMETICS["float32"]
    done = replay(bundle, weights_in(bundle.weights(), float32), inputs_in(bundle.inputs, float32), {}, changes=changes)
    return {name: done.made[name].astype("float32") for name in done.made if name in bundle.trace}


def test_queries_that_are_scaled_and_scaled_again_are_not_taken_for_scaled_early(bundle):
    scaled = {
        attention.split_heads: At("**.q", lambda step, x, *, head_size: step.right(x, head_size=head_size) / 8**0.5)
    }
    diagnosis = nz.oracle.diagnose(bundle, port_of(bundle, scaled))
    assert "scale applied early" not in diagnosis.names
    assert diagnosis.step == "encoder.layer.0.attention.self.q"


def test_a_mistake_that_a_right_step_contradicts_is_not_named(bundle):
    """The feed-forward's residual is what came before the norm of attention, which itself is right."""
    known = {}

    def before_the_norm(step, x, *weights, **options):
        known[step.name] = x
        return step.right(x, *weights, **options)

    def other_residual(step, x, y):
        norm = step.name.replace("output.residual", "attention.output.LayerNorm")
        return step.right(x, known.get(norm, y) if "attention" not in step.name else y)

    changes = {
        layer_norm.layer_norm: before_the_norm,
        addition.add: At("**.output.residual", other_residual),
    }
    diagnosis = nz.oracle.diagnose(bundle, port_of(bundle, changes))
    assert diagnosis.step == "encoder.layer.0.output.residual"
    assert "norm before the residual" not in diagnosis.names


def test_a_mistake_in_the_same_step_of_every_layer_is_named_so(bundle):
    swapped = {linear.linear: At("**.self.value", lambda step, x, weight, bias: step.right(x, weight))}
    finding = nz.oracle.diagnose(bundle, port_of(bundle, swapped)).findings[0]
    assert (finding.name, finding.only) == ("bias missing", "encoder.layer.*.attention.self.value")
    assert finding.unexplained == 0


def test_the_doctors_groups_take_the_same_step_of_every_layer_and_no_other():
    site = "encoder.layer.0.output.dense"
    alike, of_layer = groups_of([site], layers=2)
    assert matches("encoder.layer.1.output.dense", [alike]) and matches(site, [of_layer])
    assert not matches("encoder.layer.0.attention.output.dense", [alike])
    assert matches("encoder.layer.0.attention.output.dense", [of_layer])
    assert not matches("encoder.layer.1.output.dense", [of_layer])
    assert groups_of([site], layers=1) == [of_layer]
    assert groups_of(["embeddings.sum", "pooler.dense"], layers=2) == []


@pytest.mark.parametrize(
    ("only", "at"),
    [
        ("encoder.layer.*.output.dense", "encoder.layer.*.output.dense"),
        ("encoder.layer.1.**", ("encoder.layer.1.**.query", "encoder.layer.1.**.dense", "encoder.layer.1.**.key",
                                "encoder.layer.1.**.value")),
    ],
)  # fmt: skip
def test_a_mistake_at_a_group_of_steps_is_named_with_the_pattern_of_the_group(bundle, only, at):
    without_bias = {linear.linear: At(at, lambda step, x, weight, bias: step.right(x, weight))}
    theirs = port_of(bundle, without_bias)
    ends = {"encoder.layer.1.output", "encoder.layer.0.output"} if only.endswith("**") else set(theirs)
    known = {name: theirs[name] for name in theirs if name in ends}
    finding = nz.oracle.diagnose(bundle, known).findings[0]
    assert (finding.name, finding.only, finding.unexplained) == ("bias missing", only, 0)


@pytest.mark.exhaustive
def test_a_loss_is_as_uncertain_as_the_logits_it_is_made_of():
    weights, tokenizer = nz.load(), nz.load_tokenizer()
    batch = nz.encode(tokenizer, ["房间很[MASK]净。"])
    labels = np.where(batch["input_ids"] == tokenizer.token_to_id("[MASK]"), tokenizer.token_to_id("干"), -100)
    bundle = nz.oracle.record(weights, head="masked_lm", gradients=False, **batch, labels=labels)
    logits = np.abs(bundle.outputs["logits"]).max()
    assert bundle.tolerances["float32"]["loss"] >= 6 * 2.0**-23 * logits
    assert list(bundle.outputs) == [
        "logits",
        "loss",
    ]  # the order in which they are made: the first wrong one is the fault


@pytest.mark.parametrize("name", ["loss counting −100", "loss summed instead of averaged", "loss averaged by text"])
def test_a_mistake_of_the_loss_is_named_from_logits_and_loss(name):
    bundle = bundle_of("nezha-masked_lm-holes")
    theirs = plant(bundle, next(iter(named(name).ways.values())), "float32")
    given = {step: theirs[step] for step in ("cls.predictions.decoder", "loss")}
    diagnosis = nz.oracle.diagnose(bundle, given)
    assert (diagnosis.step, diagnosis.names[0]) == ("loss", name)


def test_trials_that_run_side_by_side_find_what_they_find_one_by_one(monkeypatch):
    bundle = bundle_of("nezha-masked_lm-holes")
    theirs = plant(bundle, named("relative distance reversed").ways[""], "float32")
    logits = {"logits": theirs["cls.predictions.decoder"]}
    one_by_one = nz.oracle.diagnose(bundle, logits)
    monkeypatch.setattr(search, "WIDE", 1)
    with threads_of_blas(3):
        assert str(nz.oracle.diagnose(bundle, logits)) == str(one_by_one)
    assert one_by_one.names[0] == "relative distance reversed"
