"""Every mistake of the catalogue is planted in a pass, as a port makes it in its dtype; the doctor must name it."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.layers import addition, attention, dropout, layer_norm, linear, masks, relative_position
from nezha_np.oracle.differences import difference, largest
from nezha_np.oracle.mistakes import GRADIENT_MISTAKES, MISTAKES
from nezha_np.oracle.replay import CANNOT, At, replay
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.oracle.standard import (
    STANDARD,
    from_to,
    lively_weights,
    pairs,
)
from nezha_np.randomness import uniform

# The standard bundles that are tried: of those that are alike, one.
NAMES = [
    standard.name
    for standard in STANDARD
    if not standard.name.endswith(("long", "inputs_embeds", "position_ids", "mean", "untied", "head_ratio"))
    and (standard.config.model_type != "bert" or standard.name.startswith(("bert-forward", "bert-causal_lm")))
]


def planted_ways(mistake):
    """The ways that are planted: all, or of many two that are far from one another in the catalogue."""
    ways = list(mistake.ways)
    return ways if len(ways) <= 4 else [ways[0], ways[len(ways) // 2]]


# A port that leaves out a layer makes none of its arrays, and a replay makes them all: that has a test of its own.
WAYS = [(mistake, way) for mistake in MISTAKES if mistake.name != "layers left out" for way in planted_ways(mistake)]
IDS = [f"{mistake.name}, {way}" if way else mistake.name for mistake, way in WAYS]
# A number so large means never in float32 and float16 as well as their minimum does.
UNSEEN = {
    ("mask of −1e4", "−1e9"),
    ("decoder tied", ""),  # no bundle of the standard set has a decoder of its own
    # The vocabulary is smaller than these integers.
    ("ids in a narrow integer", "the last 16 bits"),
    ("ids in a narrow integer", "int8, negative ones from the end"),
    ("ids in a narrow integer", "int16, negative ones as 0"),
    ("part not computed", "features beyond tiles of 2 not added up, in linear"),  # there are 16 and 24 of them
}
# In float16 nothing tells these: what comes before it is rounded, and where it is rounded again a half becomes a whole
# unit; a few numbers differ by a little more than roundings; a number becomes NaN.
UNTOLD_IN_FLOAT16 = {
    ("softmax in half precision", "in bfloat16"),
    ("quantised linear layers", "weights int8 per tensor"),
    ("quantised linear layers", "weights int8 per tensor, activations int8 per tensor"),
    ("activation approximated", "Φ(x) alone"),
    # Its numbers are float16's least: the doctor says that masked tokens alone differ.
    ("logits of masked tokens set", "−1e30 in their place, of the linear layer"),
}
# What a hook on each torch module sees: its result, and nothing of what is computed between modules.
MODULES = {
    *("embeddings", "word_embeddings", "token_type_embeddings", "position_embeddings", "embeddings_project"),
    *("encoder", "attention", "self", "query", "key", "value", "intermediate", "output", "dense", "LayerNorm"),
    *("pooler", "predictions", "transform", "decoder", "seq_relationship", "classifier", "qa_outputs", "out_proj"),
    *("key_conv_attn_layer", "conv_kernel_layer", "conv_out_layer", "generator_predictions", "generator_lm_head"),
    *("summary", "loss"),
}


# The standard set's weights are exact in float16: of a mistake that rounds them nothing would show.
FINER = ", with finer weights"


@functools.cache
def bundle_of(name):
    """A standard bundle without its gradients."""
    standard = next(standard for standard in STANDARD if standard.name == name.removesuffix(FINER))
    weights = lively_weights(standard.config, standard.head)
    if name.endswith(FINER):
        weights = nz.Weights({tensor: array * 1.1 for tensor, array in weights.items()}, weights.config)
    return nz.oracle.record(weights, head=standard.head, gradients=False, **standard.inputs)


def bundles_for(mistake):
    """The names of the bundles of a mistake's families: those first that have most of what can go wrong."""
    models = {standard.name: standard.config.model_type for standard in STANDARD}
    names = sorted(NAMES, key=lambda name: (name.count("-") < 2, "cache" in name))
    finer = FINER if mistake.name == "weights rounded" else ""
    return [name + finer for name in names if models[name] in mistake.families]


def plant(bundle, changes, dtype, *, within=lambda name: True):
    """Run a bundle's pass with a mistake, in a port's dtype; None where the mistake cannot be made there."""
    arithmetic = ARITHMETICS[dtype]
    if dtype == "float16" and bundle.config.hidden_size > 100:  # NumPy's products of float16 matrices take seconds
        arithmetic = dataclasses.replace(arithmetic, computed_in="float32")
    try:
        done = replay(
            bundle,
            weights_in(bundle.weights(), arithmetic),
            inputs_in(bundle.inputs, arithmetic),
            {},
            changes=changes,
            arithmetic=arithmetic,
            nudge=5,  # an implementation that rounds in other places
        )
    except CANNOT:
        return None
    if changes and (not done.changed or (done.refused and len(changes) > 1)):
        return None
    with np.errstate(over="ignore"):  # the minimum of a float32 mask is −∞ in float16
        return {
            name: np.asarray(array).astype(ARITHMETICS[dtype].computed_in)
            for name, array in done.made.items()
            if name in bundle.trace and within(name)
        }


LEFT_OUT = {"the first": ("0",), "the last": ("1",), "the last two": ("0", "1"), "every second": ("1",)}  # of two


def of_other_layers(theirs, way):
    """What a port that leaves out layers makes: none of their arrays."""
    return {
        name: array
        for name, array in theirs.items()
        if not name.startswith("encoder.layer.") or name.split(".")[2] not in LEFT_OUT[way]
    }


def up_to(theirs, step):
    """What a port dumped until it made a step: what it makes of that is not known."""
    names = list(theirs)
    return {name: theirs[name] for name in names[: names.index(step) + 1]}


def by_module(name):
    """Whether a hook on a torch module sees an array."""
    last = name.rpartition(".")[2]
    return last in MODULES or last.isdigit()


def assert_every_step_is_right(bundle, theirs, dtype):
    """Compare each step with the right one, made of their own inputs to it, by the bundle's tolerances."""
    exact, own = ARITHMETICS["float64"], ARITHMETICS[dtype]
    weights = weights_in(weights_in(bundle.weights(), own), exact)
    inputs = inputs_in(inputs_in(bundle.inputs, own), exact)
    arrays = {
        name: array.astype(np.float64)
        for name, array in theirs.items()
        if array.shape == bundle.trace[name].shape and not name.endswith("attention_mask")
    }
    right = replay(bundle, weights, inputs, arrays).made
    for name, array in arrays.items():
        assert largest(difference(name, right[name], array)) <= bundle.tolerances[dtype][name], name


def seen_in(mistake, changes, dtype, *, most, tries=99, within=lambda name: True):
    """Plant a mistake in bundle after bundle, and list diagnoses of those passes of which the doctor sees it."""
    seen = []
    for name in bundles_for(mistake):
        bundle = bundle_of(name)
        theirs = plant(bundle, changes, dtype, within=within)
        if theirs is None:
            continue
        diagnosis = nz.oracle.diagnose(bundle, theirs, dtype=dtype)
        tries -= 1
        if diagnosis.step is None:
            assert_every_step_is_right(bundle, theirs, dtype)
        else:
            seen.append((name, diagnosis))
        if len(seen) == most or not tries:
            break
    return seen


# ------------------------------------------------------------------------------------------------- mistakes, one by one


@pytest.mark.one_in(61)
@pytest.mark.parametrize(("mistake", "way"), WAYS, ids=IDS)
def test_a_planted_mistake_shows_in_float32_and_is_named_first(mistake, way):
    seen = seen_in(mistake, mistake.ways[way], "float32", most=2)
    assert seen or (mistake.name, way) in UNSEEN
    for name, diagnosis in seen:
        assert mistake.name in diagnosis.names[:2], f"{name}: {diagnosis}"
        assert diagnosis.findings[0].unexplained == 0, f"{name}: {diagnosis}"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("mistake", "way"),
    [
        pytest.param(*pair, id=name)
        for pair, name in zip(WAYS[::2], IDS[::2], strict=True)  # and the others where modules alone are known
        if (pair[0].name, pair[1]) not in UNTOLD_IN_FLOAT16
    ],
)
def test_a_planted_mistake_is_named_in_float16_wherever_it_moves_a_step_beyond_the_tolerance(mistake, way):
    for name, diagnosis in seen_in(mistake, mistake.ways[way], "float16", most=1, tries=6):
        assert mistake.name in diagnosis.names[:2], f"{name}: {diagnosis}"


@pytest.mark.exhaustive
@pytest.mark.parametrize(("mistake", "way"), WAYS[1::2], ids=IDS[1::2])
def test_a_planted_mistake_is_named_where_only_the_results_of_modules_are_known(mistake, way):
    for name, diagnosis in seen_in(mistake, mistake.ways[way], "float32", most=1, tries=6, within=by_module):
        assert mistake.name in diagnosis.names[:3], f"{name}: {diagnosis}"


@pytest.mark.one_in(9)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("within", [lambda name: True, by_module], ids=["all steps", "modules"])
def test_a_right_port_has_no_mistake(dtype, within):
    for name in NAMES[::2]:
        bundle = bundle_of(name)
        diagnosis = nz.oracle.diagnose(bundle, plant(bundle, {}, dtype, within=within), dtype=dtype)
        assert diagnosis.step is None, f"{name}: {diagnosis}"


def test_a_mask_of_a_billion_shows_in_float64():
    mistake = named("mask of −1e4")
    bundle = bundle_of("nezha-masked_lm-holes")
    diagnosis = nz.oracle.diagnose(bundle, plant(bundle, mistake.ways["−1e9"], "float64"))
    assert [(finding.name, finding.way) for finding in diagnosis.findings] == [(mistake.name, "−1e9")]


def named(name):
    """The mistake of a name."""
    return next(mistake for mistake in MISTAKES if mistake.name == name)


# ------------------------------------------------------------------------- mistakes that depend on numbers of the port


def numbers(shape, *key, low=-1.0, high=1.0):
    return from_to(low, high, shape, "planted", *key)


def kept(shape, *key, rate=0.25):
    """A dropout's mask: 0 or 1 / (1 − rate)."""
    return (uniform(int(np.prod(shape)), 7, *key) >= rate).reshape(shape) / (1.0 - rate)


def of_another_weight(step, x, weight, bias):
    return step.right(x, numbers(weight.shape, step.name), bias)


def of_another_bias(step, x, weight, bias):
    return step.right(x, weight, numbers(bias.shape, step.name))


def of_another_norm(step, x, weight, bias, *, eps):
    return step.right(x, numbers(weight.shape, "weight"), numbers(bias.shape, "bias"), eps=eps)


NOTED = []


def noting(place):
    """Note what a layer is given, for a later step."""

    def change(step, *arguments):
        NOTED.append(arguments[place])
        return step.right(*arguments)

    return change


def of_the_keys(step, q, table, *, keys, past=0):
    """The keys' term, k · t."""
    row = np.clip(np.arange(keys)[None, :] - np.arange(q.shape[2])[:, None], -3, 3) + 3
    return np.einsum("bnsd,qsd->bnqs", NOTED[-1], table[row])


def attended(step):
    """Where the mask has 1."""
    return np.asarray(step.inputs["attention_mask"])[:, None, None, :] != 0


def sines(frequencies, shape):
    """A table of sines and cosines in turn."""
    angle = np.arange(shape[0])[:, None] * frequencies
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(shape)


def waves(base, shape):
    """NEZHA's table with another base."""
    return sines(base ** (-np.arange(0, shape[1], 2) / shape[1]), shape)


OWN_NUMBERS = {
    "dropout": (
        "dropout left on",
        {dropout.unchanged: lambda step, x: x * kept(x.shape, step.name)},
    ),
    "dropout, seen after the residual": (
        "dropout left on",
        {addition.add: At("**.residual", lambda step, x, y: x * kept(x.shape, step.name) + y)},
    ),
    "a trained table": (
        "another table, trained instead of fixed",
        {masks.as_constant: At("relative_positions", lambda step, table: numbers(table.shape, "table"))},
    ),
    "a table of another base": (
        "other wavelengths in the table",
        {masks.as_constant: At("relative_positions", lambda step, table: waves(2e4, table.shape))},
    ),
    "a table of frequencies of its own": (
        "other wavelengths in the table",
        {
            masks.as_constant: At(
                "relative_positions", lambda step, table: sines(np.array([1.0, 0.3, 0.2, 0.1]), table.shape)
            )
        },
    ),
    "a table turned round": (
        "row of the table off",
        {masks.as_constant: At("relative_positions", lambda step, table: np.roll(table, 2, axis=0))},
    ),
    "another residual": (
        "another input",
        {
            linear.linear: At("**.attention.output.dense", noting(0)),
            addition.add: At("**.attention.output.residual", lambda step, x, y: x + NOTED[-1]),
        },
    ),
    "the token types added again": (
        "another input",
        {addition.add: At("embeddings.sum", lambda step, x, y: x + 2.0 * y)},
    ),
    "a residual of its own factor": (
        "residual scaled",
        {addition.add: At("**.residual", lambda step, x, y: x + 0.8 * y)},
    ),
    "the keys in place of the queries": (
        "position term of the keys",
        {
            attention.content_scores: noting(1),
            relative_position.position_scores: of_the_keys,
        },
    ),
    "scores masked by −5e3": (
        "mask before the position term",
        {addition.add: At("**.scores", lambda step, x, y: np.where(attended(step), x, -5e3) + y)},
    ),
    "learned absolute positions": (
        "absolute positions added",
        {addition.add: At("embeddings.sum", lambda step, x, y: x + y + numbers(x.shape[1:], "positions"))},
    ),
    "a mask of −37": (
        "mask of −1e4",
        {masks.additive_mask: lambda step, *arguments, **options: np.maximum(step.right(*arguments, **options), -37.0)},
    ),
    "a mask of −5, seen in the probabilities": (
        "mask of −1e4",
        {
            attention.attention_probs: lambda step, scores, mask, *, scale: step.right(
                scores, np.maximum(mask, -5.0), scale=scale
            )
        },
    ),
    "a decoder of its own": (
        "decoder untied",
        {linear.linear: At("cls.predictions.decoder", of_another_weight)},
    ),
    "another matrix": (
        "another weight",
        {linear.linear: At("**.intermediate.dense", of_another_weight)},
    ),
    "another bias": (
        "another bias",
        {linear.linear: At("**.intermediate.dense", of_another_bias)},
    ),
    "another norm": (
        "another weight or bias of a norm",
        {layer_norm.layer_norm: At("**.attention.output.LayerNorm", of_another_norm)},
    ),
}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("what", OWN_NUMBERS)
def test_a_mistake_that_depends_on_numbers_of_the_port_is_recognised(what, dtype):
    name, changes = OWN_NUMBERS[what]
    bundle = bundle_of("nezha-masked_lm-holes")
    diagnosis = nz.oracle.diagnose(bundle, plant(bundle, changes, dtype), dtype=dtype)
    assert diagnosis.names == (name,), str(diagnosis)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("encoder.layer.0.attention.self.probs", "softmax in half precision"),
        ("encoder.layer.0.attention.output.LayerNorm", "results of few bits"),
        ("encoder.layer.1.attention.self.context", "results of few bits"),
        ("cls.predictions.decoder", "logits in half precision"),
    ],
)
def test_a_result_of_a_narrower_dtype_than_the_others_is_recognised(step, name):
    bundle = bundle_of("nezha-masked_lm")
    theirs = up_to(plant(bundle, {}, "float32"), step)
    theirs |= {step: theirs[step].astype(np.float16).astype(np.float32)}
    finding = nz.oracle.diagnose(bundle, theirs).findings[0]
    assert finding.name == name
    assert finding.way.endswith("in float16")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("last", ["position_scores", "position_context"])
def test_a_trained_table_is_recognised_by_its_position_terms(last, dtype):
    bundle = bundle_of("nezha-masked_lm-holes")
    theirs = plant(bundle, OWN_NUMBERS["a trained table"][1], dtype, within=lambda name: "position" not in name)
    step = f"encoder.layer.0.attention.self.{last}"
    theirs[step] = plant(bundle, OWN_NUMBERS["a trained table"][1], dtype)[step]
    if last == "position_context":  # the scores have the term too: without it they are right
        scores = plant(bundle, {}, dtype)
        theirs = up_to({name: scores[name] for name in scores}, step)
        probs = theirs["encoder.layer.0.attention.self.probs"].astype(np.float64)
        table = numbers((7, bundle.config.head_size), "table")
        made = nz.layers.relative_position.position_context(probs, table)
        theirs[step] = made.astype(dtype)
    diagnosis = nz.oracle.diagnose(bundle, theirs, dtype=dtype)
    assert diagnosis.step == step
    assert diagnosis.names == ("another table, trained instead of fixed",), str(diagnosis)


@pytest.mark.parametrize(
    ("table", "name", "way"),
    [
        (lambda right: waves(2e4, right.shape), "other wavelengths in the table", "base 20000"),
        (lambda right: waves(500.0, right.shape), "other wavelengths in the table", "base 500"),
        (
            lambda right: sines(np.array([1.0, 0.3, 0.2, 0.1]), right.shape),
            "other wavelengths in the table",
            "row · 1, 0.3, 0.2, 0.1",
        ),
        (lambda right: right[::-1], "row of the table off", "rows from the last to the first"),
        (
            lambda right: np.roll(right, 2, axis=0),
            "row of the table off",
            "rows from 5 on, and the first after the last",
        ),
        (
            lambda right: right[[3, 4, 5, 6, 1, 2, 0]],
            "row of the table off",
            "rows in another order, the first 3, 4, 5, 6, 1 …",
        ),
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["table", "position terms"])
def test_another_table_is_named_by_what_it_is_made_of(table, name, way, known):
    bundle = bundle_of("nezha-masked_lm-holes")
    changes = {masks.as_constant: At("relative_positions", lambda step, right: table(right))}
    theirs = plant(bundle, changes, "float32", within=lambda name: known or name != "relative_positions")
    if not known and way == "rows from the last to the first":
        name, way = "relative distance reversed", ""  # the same, for the position terms
    finding = nz.oracle.diagnose(bundle, theirs).findings[0]
    assert (finding.name, finding.way, finding.unexplained) == (name, way, 0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_table_of_transformers_is_recognised_as_computed_in_float32(dtype):
    config = nz.NezhaConfig(
        vocab_size=9,
        hidden_size=64,
        num_attention_heads=1,
        num_hidden_layers=1,
        intermediate_size=4,
        max_relative_position=64,
    )
    bundle = nz.oracle.record(lively_weights(config), [[2, 3, 4]])
    frequency = np.exp(np.arange(0, 64, 2, dtype=np.float32) * np.float32(-np.log(10000.0) / 64))
    angle = np.arange(129, dtype=np.float32)[:, None] * frequency
    table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(129, 64)
    theirs = plant(
        bundle, {masks.as_constant: At("relative_positions", lambda step, right: table.astype(dtype))}, dtype
    )
    assert nz.oracle.diagnose(bundle, theirs).names == ("table computed in float32",)


@pytest.mark.filterwarnings("error")
def test_right_numbers_that_are_mostly_0_are_no_trouble():
    bundle = bundle_of("nezha-masked_lm-head_mask")
    theirs = plant(bundle, {}, "float32")
    step = "encoder.layer.0.attention.self.masked_probs"
    assert (theirs[step] == 0.0).mean() > 0.5
    altered = np.where(theirs[step] > 0.2, 0.0, theirs[step] + 0.01).astype(np.float32)
    assert nz.oracle.diagnose(bundle, up_to(theirs, step) | {step: altered}).findings == ()


# ------------------------------------------------------------------------------------------- several and unknown


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_of_two_mistakes_the_first_is_named(dtype):
    bundle = bundle_of("nezha-masked_lm-holes")
    pairs_of_mistakes = [
        ("token types ignored", "query, key or value swapped"),
        ("relative distance reversed", "norm before the residual"),
        ("scale missing", "heads merged in the wrong order"),
        ("heads split in the wrong order", "loss counting −100"),
        ("mask inverted", "another activation"),
    ]
    for first, second in pairs_of_mistakes:
        changes = [next(iter(named(name).ways.values())) for name in (first, second)]
        assert changes[0].keys().isdisjoint(changes[1])
        diagnosis = nz.oracle.diagnose(bundle, plant(bundle, changes[0] | changes[1], dtype), dtype=dtype)
        assert diagnosis.names[0] == first, str(diagnosis)


def test_a_mistake_in_one_layer_alone_is_named_with_its_place():
    bundle = bundle_of("nezha-masked_lm")
    change = {linear.linear: At("**.layer.1.attention.self.query", lambda step, x, w, b: step.right(x, w))}
    diagnosis = nz.oracle.diagnose(bundle, plant(bundle, change, "float32"))
    assert diagnosis.names == ("bias missing",)
    assert diagnosis.findings[0].only == "encoder.layer.1.attention.self.query"
    assert "in encoder.layer.1.attention.self.query alone" in str(diagnosis)


@pytest.mark.exhaustive
def test_a_mistake_is_named_where_the_hidden_states_of_the_layers_are_all_that_is_known():
    bundle = bundle_of("nezha-forward-pairs")
    for name in ("tanh GELU for erf", "relative distance reversed", "variance with n − 1", "residual missing"):
        theirs = plant(
            bundle,
            next(iter(named(name).ways.values())),
            "float32",
            within=lambda name: name == "embeddings" or name.removeprefix("encoder.layer.").isdigit(),
        )
        diagnosis = nz.oracle.diagnose(bundle, theirs)
        assert name in diagnosis.names[:3], f"{name}: {diagnosis}"


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["tanh GELU for erf", "relative distance reversed", "bias missing", "mask of −∞"])
def test_a_mistake_is_named_where_the_logits_are_all_that_is_known(name):
    bundle = bundle_of("nezha-masked_lm-holes")
    theirs = plant(bundle, named(name).ways[""], "float32")
    logits = {"logits": theirs["cls.predictions.decoder"]}
    diagnosis = nz.oracle.diagnose(bundle, logits)
    assert diagnosis.names[0] == name, str(diagnosis)
    assert diagnosis.findings[0].only is None


@pytest.mark.parametrize("way", ["the first", "the last"])
def test_a_layer_that_is_left_out_is_named_by_the_arrays_of_the_others(way):
    bundle = bundle_of("nezha-forward-pairs")
    theirs = of_other_layers(plant(bundle, named("layers left out").ways[way], "float32"), way)
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert [(finding.name, finding.way) for finding in diagnosis.findings][:1] == [("layers left out", way)]


def test_ids_in_eight_bits_are_named_where_the_vocabulary_is_larger():
    config = nz.NezhaConfig(
        vocab_size=400, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=24
    )
    bundle = nz.oracle.record(lively_weights(config), gradients=False, input_ids=[[2, 7, 130, 299, 3]])
    theirs = plant(bundle, named("ids in a narrow integer").ways["the last 8 bits"], "float32")
    for dumped in (theirs, {"last_hidden_state": theirs["encoder"]}):
        finding = nz.oracle.diagnose(bundle, dumped).findings[0]
        assert (finding.name, finding.way) == ("ids in a narrow integer", "the last 8 bits")


PROBS = "encoder.layer.1.attention.self.probs"
BENT = "encoder.layer.0.intermediate.intermediate_act_fn"
UNKNOWN = {
    "noise on one head": (
        PROBS,
        lambda x: x + np.eye(2)[1][:, None, None] * numbers(x.shape, "noise", low=0.1),
        "head 1 alone",
    ),
    "noise from one token on": (
        BENT,
        lambda x: x + (np.arange(x.shape[1]) >= 5)[:, None] * numbers(x.shape, "noise", low=0.1),
        "token 5 to 6 alone",
    ),
    "an added constant": (BENT, lambda x: x + 0.5 * (np.arange(x.shape[0]) == 1)[:, None, None], "right ones and 0.5"),
    "other places": (BENT, lambda x: np.roll(x.ravel(), 3).reshape(x.shape), "same numbers in other places"),
    "NaN": (
        BENT,
        lambda x: np.where(np.arange(x.shape[-1]) == 3, np.nan, x),
        "NaN or infinite, the first at [0, 0, 3]",
    ),
    "all NaN": (BENT, lambda x: x * np.nan, "NaN or infinite"),
    "zeros": (BENT, lambda x: x * 0.0, "yours are 0"),
}


def test_another_order_of_features_is_named_with_the_order():
    bundle = bundle_of("nezha-masked_lm")
    theirs = up_to(plant(bundle, {}, "float32"), BENT)
    theirs[BENT] = theirs[BENT][..., ::-1]
    (finding,) = nz.oracle.diagnose(bundle, theirs).findings
    assert finding.name == "numbers of another place" and finding.way.startswith("features in the order 23, 22, 21")


@pytest.mark.parametrize("what", UNKNOWN)
def test_an_unknown_difference_is_not_in_the_catalogue_and_what_can_be_seen_is_said(what):
    step, alter, said = UNKNOWN[what]
    bundle = bundle_of("nezha-masked_lm")
    theirs = up_to(plant(bundle, {}, "float32"), step)
    theirs[step] = alter(theirs[step].astype(np.float64)).astype(np.float32)
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.step == step
    assert diagnosis.findings == (), str(diagnosis)
    assert "not in the catalogue of mistakes" in str(diagnosis)
    assert said in str(diagnosis)


@pytest.mark.parametrize(
    ("step", "what"), [("cls.predictions.decoder", "an untied decoder"), ("**.intermediate.dense", "another matrix")]
)
def test_of_too_few_tokens_to_tell_another_matrix_the_doctor_says_how_many_it_takes(step, what):
    config = nz.NezhaConfig(
        vocab_size=40, hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=24
    )
    weights = lively_weights(config, "masked_lm")
    bundle = nz.oracle.record(weights, head="masked_lm", gradients=False, input_ids=[[2, 7, 9, 3]])
    theirs = plant(bundle, {linear.linear: At(step, of_another_weight)}, "float32")
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.findings == ()
    assert f"{what} may have made them: that takes 37 different tokens to tell, and these are 4" in str(diagnosis)
    theirs = plant(bundle, {}, "float32")
    name = diagnosis.step
    theirs[name][0, 1] += 1.0  # one token is no question of a matrix
    assert "may have made them" not in str(nz.oracle.diagnose(bundle, theirs))


# -------------------------------------------------------------------------------------------------- models of base size


@functools.cache
def base_like():
    """Two layers of a base model."""
    config = nz.NezhaConfig(vocab_size=40, num_hidden_layers=2, intermediate_size=1536, max_relative_position=8)
    inputs = pairs(config, (16, 12))
    inputs["attention_mask"][1] = 0
    return nz.oracle.record(lively_weights(config), gradients=False, **inputs)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("within", [lambda name: True, by_module], ids=["all steps", "modules"])
@pytest.mark.parametrize(
    "name",
    [
        "relative distance reversed",
        "K from another config",
        "heads split in the wrong order",
        "mask of −1e4",
        "norm before the residual",
        "tanh GELU for erf",
        "weight transposed",
    ],
)
def test_a_mistake_in_a_model_of_base_size_is_named(name, within, dtype):
    bundle = base_like()
    theirs = plant(bundle, next(iter(named(name).ways.values())), dtype, within=within)
    diagnosis = nz.oracle.diagnose(bundle, theirs, dtype=dtype)
    if diagnosis.step is None:
        assert_every_step_is_right(bundle, theirs, dtype)
        assert dtype == "float16"
    else:
        assert name in diagnosis.names[:2], str(diagnosis)


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_page_lists_every_mistake():
    page = (Path(__file__).parents[1] / "docs" / "mistakes.md").read_text(encoding="utf-8")
    for mistake in (*MISTAKES, *GRADIENT_MISTAKES):
        assert mistake.name in page
        assert mistake.sentence in page
        for way in mistake.ways:
            assert way in page, way


def test_names_of_mistakes_are_unique_and_their_sentences_say_what_is_right():
    known = (*MISTAKES, *GRADIENT_MISTAKES)
    names = [mistake.name for mistake in known]
    assert len(set(names)) == len(names)
    assert all(mistake.sentence[-1].isalnum() or mistake.sentence[-1] in ")²]" for mistake in known)
    assert all(mistake.ways or mistake.recognise or mistake.near for mistake in MISTAKES)
