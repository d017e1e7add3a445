"""No wrong name: what only looks like a mistake, what is none at all, and fewer or more arrays."""

import numpy as np
import pytest
from test_doctor import bundle_of, by_module, named, plant, up_to

import nezha_np as nz
from nezha_np.layers import activations, addition, attention, layer_norm, linear, masks
from nezha_np.oracle.diagnosis import Diagnosis, Finding
from nezha_np.oracle.replay import At
from nezha_np.oracle.rounding import ARITHMETICS, rounded
from nezha_np.randomness import uniform

HOLES = "nezha-masked_lm-holes"


def logits_of(theirs):
    return {"logits": theirs["cls.predictions.decoder"]}


def of_table(make):
    return {masks.as_constant: At("relative_positions", lambda step, right: make(right))}


# --------------------------------------------------------------------------------------------------------- near misses


def crude_erf(step, x):
    """Abramowitz and Stegun 7.1.25: right to 2.5e-5."""
    z = np.abs(x) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.47047 * z)
    erf = 1.0 - (0.3480242 * t - 0.0958798 * t**2 + 0.7478556 * t**3) * np.exp(-z * z)
    return 0.5 * x * (1.0 + np.sign(x) * erf)


def angles_in_bfloat16(right):
    rows, size = right.shape
    angle = np.arange(rows)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
    angle = rounded(angle.astype(np.float32), ARITHMETICS["bfloat16"]).astype(np.float64)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(right.shape)


def exponent_of_each_feature(right):
    rows, size = right.shape
    angle = np.arange(rows)[:, None] / 10000.0 ** (np.arange(size) / size)
    return np.where(np.arange(size) % 2 == 0, np.sin(angle), np.cos(angle))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda right: right.astype(np.float16).astype(np.float64), "table in a narrower dtype"),
        (angles_in_bfloat16, "table in a narrower dtype"),
        (exponent_of_each_feature, "other wavelengths in the table"),
    ],
    ids=["rounded to float16", "angles in bfloat16", "an exponent for each feature"],
)
def test_a_table_close_to_the_right_one_is_no_trained_one(make, name):
    bundle = bundle_of(HOLES)
    diagnosis = nz.oracle.diagnose(bundle, plant(bundle, of_table(make), "float32"))
    assert diagnosis.names[:1] == (name,), str(diagnosis)


def test_a_table_of_waves_that_are_in_no_list_is_not_called_trained():
    bundle = bundle_of(HOLES)
    changes = of_table(lambda right: np.sin(np.arange(len(right))[:, None] * 0.7 + np.arange(right.shape[1])))
    assert nz.oracle.diagnose(bundle, plant(bundle, changes, "float32")).findings == ()


@pytest.mark.parametrize("within", ["all", "logits"])
def test_a_crude_error_function_is_no_untied_decoder(within):
    bundle = bundle_of(HOLES)
    theirs = plant(bundle, {activations.gelu: crude_erf}, "float32")
    diagnosis = nz.oracle.diagnose(bundle, theirs if within == "all" else logits_of(theirs))
    assert not {"decoder untied", "another weight", "tanh GELU for erf"} & set(diagnosis.names), str(diagnosis)


@pytest.mark.parametrize("factor", [1.001, 1.00001])
def test_a_result_that_is_nearly_that_of_a_mistake_has_not_its_name(factor):
    """Tanh GELU, and then a little more: what is left is more than rounding, and the name would be wrong."""
    bundle = bundle_of(HOLES)
    changes = {activations.gelu: lambda step, x: activations.gelu_new.definition(x) * factor}
    assert "tanh GELU for erf" not in nz.oracle.diagnose(bundle, plant(bundle, changes, "float32")).names


def written_by_garbage(step, x):
    """A head whose context was never written: what was in memory."""
    return step.right(np.concatenate([x[:, :-1], np.full_like(x[:, -1:], 1e10)], axis=1))


@pytest.mark.parametrize("within", ["all", "logits"])
def test_memory_that_was_never_written_is_no_other_weight(within):
    bundle = bundle_of("nezha-masked_lm")
    theirs = plant(bundle, {attention.merge_heads: written_by_garbage}, "float32")
    names = nz.oracle.diagnose(bundle, theirs if within == "all" else logits_of(theirs)).names
    assert names == (("part not computed",) if within == "all" else ()), names


def test_numbers_that_bfloat16_holds_are_called_so():
    bundle, step = bundle_of("nezha-masked_lm"), "encoder.layer.0.attention.self.probs"
    theirs = up_to(plant(bundle, {}, "float32"), step)
    theirs[step] = rounded(theirs[step], ARITHMETICS["bfloat16"])
    finding = nz.oracle.diagnose(bundle, theirs).findings[0]
    assert finding.name == "softmax in half precision" and finding.way.endswith("in bfloat16")


def test_of_masks_that_make_the_same_numbers_the_plainer_is_named_first():
    bundle = bundle_of("nezha-forward-pairs")  # the first text has no padding
    for theirs in (plant(bundle, named("mask missing").ways[way], "float32") for way in ("", "made, and not added")):
        assert nz.oracle.diagnose(bundle, theirs).names[0] == "mask missing"


# ------------------------------------------------------------------------------------------------ tied, untied decoders


def by_other_matrix(step, x, weight, bias):
    other = uniform(weight.size, 3, "decoder").reshape(weight.shape) * 2.0 - 1.0
    return step.right(x, other, bias)


def by_words(step, x, weight, bias):
    return step.right(x, step.weights["embeddings.word_embeddings.weight"], bias)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (HOLES, by_other_matrix, "decoder untied"),
        ("nezha-masked_lm-untied", by_words, "decoder tied"),
        ("nezha-masked_lm-untied", by_other_matrix, "another decoder"),
    ],
)
def test_of_a_decoder_the_configuration_says_whether_it_is_tied(name, change, said):
    bundle = bundle_of(name)
    theirs = plant(bundle, {linear.linear: At("cls.predictions.decoder", change)}, "float32")
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.names == (said,), str(diagnosis)
    assert ("tie_word_embeddings = false" in str(diagnosis)) == (said == "decoder tied")


# -------------------------------------------------------------------------------------------- what is no mistake at all


def test_logits_before_their_bias_are_a_matter_of_names_where_what_follows_is_right():
    bundle = bundle_of(HOLES)
    theirs = plant(bundle, {}, "float32")
    theirs["cls.predictions.decoder"] = theirs["cls.predictions.decoder"] - np.float32(
        bundle.weights()["cls.predictions.bias"]
    )
    theirs["cls.predictions"] = plant(bundle, {}, "float32")["cls.predictions"]
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.step is None and diagnosis.findings == (), str(diagnosis)
    assert "cls.predictions.decoder of yours is another number" in str(diagnosis)
    assert "a matter of names" in str(diagnosis)


def test_logits_of_padding_that_are_masked_are_no_matter_of_names_where_the_loss_follows_from_them():
    bundle = bundle_of("nezha-question_answering")
    theirs = plant(bundle, named("logits of masked tokens set").ways["−10000 added"], "float32")
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert (diagnosis.step, diagnosis.names) == ("start_logits", ("logits of masked tokens set",)), str(diagnosis)
    assert "a matter of names" not in str(diagnosis)


def skipping_padding(bundle):
    """What an engine returns that computes no padded row: zeros there."""
    attended = bundle.inputs["attention_mask"]
    theirs = {
        name: array
        for name, array in plant(bundle, {}, "float32").items()
        if array.ndim == 3 and array.shape[:2] == attended.shape
    }
    return {name: array * attended[:, :, None].astype(np.float32) for name, array in theirs.items()}


def test_differences_at_masked_tokens_alone_are_said_and_can_be_left_out():
    bundle = bundle_of("nezha-forward-pairs")
    theirs = skipping_padding(bundle)
    compared = nz.oracle.compare(bundle, theirs)
    assert not compared and compared.at_masked_alone
    assert "differ at masked tokens alone" in compared.summary()
    assert nz.oracle.compare(bundle, theirs, ignore_masked=True)
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.step is None and not diagnosis.agrees, str(diagnosis)
    assert "differ at masked tokens alone" in str(diagnosis)
    assert nz.oracle.diagnose(bundle, theirs, ignore_masked=True).agrees


def test_a_difference_elsewhere_is_not_hidden_by_masked_tokens():
    bundle = bundle_of("nezha-forward-pairs")
    theirs = skipping_padding(bundle)
    last = bundle.trace["encoder.layer.1.output"]
    for name in theirs:
        if bundle.trace[name] is last:  # it has several names
            theirs[name] = theirs[name] + np.float32(0.5) * np.eye(len(last), 7)[:, :, None]
    for ignore_masked in (False, True):
        compared = nz.oracle.compare(bundle, theirs, ignore_masked=ignore_masked)
        assert not compared and not compared.at_masked_alone
        assert nz.oracle.diagnose(bundle, theirs, ignore_masked=ignore_masked).step is not None


def test_masked_tokens_of_convbert_are_never_left_out_because_its_convolutions_read_them():
    bundle = bundle_of("convbert-forward-pairs")
    compared = nz.oracle.compare(bundle, skipping_padding(bundle), ignore_masked=True)
    assert not compared and not compared.at_masked_alone


# ------------------------------------------------------------------------------------------------- altered arguments

KEYS, VALUES = attention.content_scores, attention.content_context
ALTERED = {
    "k: the mean of all heads for each": {
        KEYS: lambda step, q, k: step.right(q, np.broadcast_to(k.mean(axis=1, keepdims=True), k.shape))
    },
    "both: of length one": {
        KEYS: lambda step, q, k: step.right(*(x / np.sqrt((x * x).sum(axis=-1, keepdims=True)) for x in (q, k)))
    },
    "probs: queries and keys exchanged": {VALUES: lambda step, probs, v: step.right(np.swapaxes(probs, -1, -2), v)},
    "weight: without signs": {
        linear.linear: At("**.self.query", lambda step, x, weight, bias: step.right(x, np.abs(weight), bias))
    },
}


@pytest.mark.parametrize("within", ["all", "modules"])
@pytest.mark.parametrize("way", ALTERED)
def test_an_argument_that_is_altered_near_their_arrays_is_named_with_what_is_done_to_it(way, within):
    bundle = bundle_of("nezha-masked_lm-holes")
    theirs = plant(bundle, ALTERED[way], "float32", within=by_module if within == "modules" else lambda name: True)
    finding = nz.oracle.diagnose(bundle, theirs).findings[0]
    assert (finding.name, finding.unexplained) == ("argument altered", 0)
    assert way in (finding.way, *finding.or_else)


def test_weights_of_another_module_are_named_with_it():
    bundle = bundle_of("nezha-masked_lm-holes")

    def of_values(step, x, weight, bias):
        return step.right(x, step.weights[step.name.replace("query", "value") + ".weight"], bias)

    theirs = plant(bundle, {linear.linear: At("**.self.query", of_values)}, "float32")
    finding = nz.oracle.diagnose(bundle, theirs).findings[0]
    assert (finding.name, finding.unexplained) == ("weights of another module", 0)
    assert finding.way == "encoder.layer.0.attention.self.value.weight"


# ------------------------------------------------------------------------------------------------- fewer or more arrays


def residual_after_the_norm(step, x, weight, bias, *, eps):
    """What follows the right residual: the norm, and the sum once more."""
    return step.right(x, weight, bias, eps=eps) + x


PLANTED = {
    "tanh GELU for erf": named("tanh GELU for erf").ways[""],
    "scale missing": named("scale missing").ways[""],
    "residual missing": {addition.add: At("**.residual", lambda step, x, y: x)},
    "norm before the residual": named("norm before the residual").ways["of the block's result"],
    "relative distance reversed": named("relative distance reversed").ways[""],
    "position term of another factor": named("position term of another factor").ways["multiplied by √D in the scores"],
    "softmax applied twice": named("softmax applied twice").ways[""],
    "": {layer_norm.layer_norm: At("encoder.**", residual_after_the_norm)},
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", PLANTED)
def test_a_name_is_never_wrong_with_more_arrays_where_it_was_right_with_fewer(name):
    bundle = bundle_of("nezha-forward-pairs")
    theirs = plant(bundle, PLANTED[name], "float32")
    ends = {step: theirs[step] for step in ("embeddings", "encoder.layer.0", "encoder.layer.1") if step in theirs}
    for seed in range(6):
        kept = uniform(len(theirs), seed, "kept") < (seed + 1) / 6.0
        some = ends | {step: array for (step, array), keep in zip(theirs.items(), kept, strict=True) if keep}
        said = nz.oracle.diagnose(bundle, some).names
        assert not said or name in said[:2], f"{sorted(some)}: {said}"


def test_what_a_port_dumped_before_a_wrong_step_does_not_change_its_name():
    bundle, name = bundle_of(HOLES), "encoder.layer.0.attention.output.LayerNorm"
    theirs = up_to(plant(bundle, named("norm without the mean").ways[""], "float32"), name)
    for step in list(theirs)[::5]:
        some = {other: array for other, array in theirs.items() if other != step or other == name}
        assert nz.oracle.diagnose(bundle, some).names[0] == "norm without the mean"


def test_a_wrong_output_whose_step_was_not_recorded_is_said_to_be_unexamined():
    bundle = nz.oracle.record(
        nz.init(nz.BertConfig(vocab_size=19, hidden_size=8, num_attention_heads=2, num_hidden_layers=2)),
        [[2, 3, 4]],
        head="masked_lm",
        output="encoder.layer.0.output.LayerNorm",
    )
    diagnosis = nz.oracle.diagnose(bundle, {"logits": 2.0 * bundle.outputs["logits"]})
    assert not diagnosis.agrees and diagnosis.step is None
    assert "recorded without the step that makes it" in str(diagnosis) and "roundings" not in str(diagnosis)
    assert nz.oracle.diagnose(bundle, {"logits": bundle.outputs["logits"]}).agrees


@pytest.mark.parametrize(("unexplained", "said"), [(0, "(in encoder.layer.0 alone)"), (3, "(in encoder.layer.0)")])
def test_a_mistake_that_may_be_made_elsewhere_too_is_not_said_to_be_made_in_one_place_alone(unexplained, said):
    finding = Finding("norm missing", "a norm is left out", "", "encoder.layer.0", 1.0, 0.0, unexplained)
    assert said in str(Diagnosis("encoder.layer.0.output", (finding,), (), (), ()))
