"""Training steps as an oracle: every mistake is planted in the steps of a port, and the doctor names it."""

import functools
import itertools

import numpy as np
import pytest
import step_port

import nezha_np as nz
from nezha_np.oracle.bounded import Bounded
from nezha_np.oracle.mistakes import STEP_MISTAKES
from nezha_np.oracle.rounding import ARITHMETICS
from nezha_np.oracle.step_passes import Passes
from nezha_np.oracle.training_steps import run_steps
from nezha_np.randomness import uniform

SIZES = {
    "vocab_size": 19,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 20,
    "max_relative_position": 3,
}
INPUTS = {
    "input_ids": [[2, 5, 9, 5, 3, 0], [2, 7, 8, 3, 11, 3]],
    "attention_mask": [[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]],
    "token_type_ids": [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]],
    "labels": [[-100, 4, -100, 6, -100, -100], [-100, -100, 8, -100, -100, -100]],  # two of one part, one of the other
}
OPTIMIZERS = {
    "LAMB": ("lamb", {}),
    "LAMB of NEZHA's authors": ("lamb", {"variant": "nezha"}),
    "AdamW": ("adamw", {}),
    "BERT's Adam": ("bert_adam", {}),
}
# What one recipe shows of some mistakes, another one shows of others: dropout and a norm that is clipped, or neither.
RECIPES = {
    "clipped": {"accumulation_steps": 2, "loss_scale": 1024.0, "dropout_seed": 3, "clip_norm": 0.5},
    "not clipped": {"accumulation_steps": 2, "clip_norm": 100.0},
}
WAYS = [(mistake, way) for mistake in STEP_MISTAKES for way in mistake.ways]


def lively():
    """Weights whose norms and biases matter, but for a bias of zeros and a matrix whose trust ratio is large."""
    drawn = nz.init(nz.NezhaConfig(**SIZES), dtype="float64")
    tensors = {}
    for name, array in drawn.items():
        draw = uniform(array.size, 1, name).reshape(array.shape) * 2.0 - 1.0
        tensors[name] = (1.0 + 0.3 * draw) if name.endswith("LayerNorm.weight") else 0.5 * draw
    tensors["cls.predictions.bias"] = np.zeros_like(tensors["cls.predictions.bias"])
    tensors["encoder.layer.0.attention.self.query.weight"] *= 40.0
    return nz.Weights(tensors, drawn.config)


@functools.cache
def bundle_of(optimizer, recipe):
    step, options = OPTIMIZERS[optimizer]
    return nz.oracle.record(
        lively(),
        **INPUTS,
        head="masked_lm",
        tolerances="quick",
        step=step,
        steps=3,
        learning_rate=lambda number: 1e-3 * (number + 1),
        **options,
        **RECIPES[recipe],
    )


def plant(bundle, changes, dtype):
    """Make the steps of a port that has a mistake, its passes in a dtype and its optimiser in float32 at least."""
    arithmetic = ARITHMETICS[dtype]
    own = np.float64 if dtype == "float64" else np.float32
    start = {name: Bounded(np.asarray(array, own), 0.0, 0.0) for name, array in bundle.weights().items()}
    passes = Passes(bundle.head, bundle.config, bundle.batches, arithmetic)
    with np.errstate(all="ignore"):
        made = run_steps(bundle.training, start, passes, unit=0.0, changes=changes)
    return {name: np.asarray(value.value, own) for name, value in made.items()}


def planted(mistake, way):
    """Each bundle in which a mistake can be made, with the arrays of a port that makes it, in float32 first."""
    for dtype, optimizer, recipe in itertools.product(("float32", "float64"), OPTIMIZERS, RECIPES):
        theirs = planted_in(optimizer, recipe, mistake, way, dtype)
        if theirs is not None:
            yield bundle_of(optimizer, recipe), theirs


def planted_in(optimizer, recipe, mistake, way, dtype):
    """The arrays of a port that makes a mistake in one bundle, None where it cannot be made there."""
    bundle = bundle_of(optimizer, recipe)
    if not mistake.fits(bundle.training):
        return None
    try:
        return plant(bundle, mistake.ways[way], dtype)
    except (ValueError, KeyError):
        return None


def is_named(bundle, theirs, mistake, way):
    """Whether the doctor names a planted mistake; False where it moves nothing by more than rounding."""
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    if diagnosis.step is None:
        assert nz.oracle.compare(bundle, theirs)
        return False
    assert (mistake.name, way) in [(finding.name, finding.way) for finding in diagnosis.findings], str(diagnosis)
    return True


# The exhaustive tier plants all of them, below.
@pytest.mark.parametrize(
    ("mistake", "way"), WAYS[::11], ids=[f"{mistake.name} {way}".strip() for mistake, way in WAYS[::11]]
)
def test_a_planted_mistake_of_a_training_step_is_named(mistake, way):
    assert any(is_named(bundle, theirs, mistake, way) for bundle, theirs in planted(mistake, way))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("mistake", "way"), WAYS, ids=[f"{mistake.name} {way}".strip() for mistake, way in WAYS])
def test_a_mistake_is_named_with_every_optimizer_with_which_it_shows(mistake, way):
    """Where float32's roundings hide it, float64 is to show it."""
    named, before_the_optimizer = 0, list(mistake.ways[way]) == ["gradients"]  # then one of the optimisers shows all
    for optimizer in ["AdamW"] if before_the_optimizer else OPTIMIZERS:
        for dtype, recipe in itertools.product(("float32", "float64"), RECIPES):
            theirs = planted_in(optimizer, recipe, mistake, way, dtype)
            if theirs is not None and is_named(bundle_of(optimizer, recipe), theirs, mistake, way):
                named += 1
                break
    assert named


# Of a port written apart from the catalogue: its mistake, the doctor's name of it, where it can be made.
OF_PORT = [
    ("no correction", "bias correction missing", "AdamW", "clipped"),
    ("t from 0", "wrong step count", "LAMB", "clipped"),
    ("eps under", "epsilon under the root", "BERT's Adam", "clipped"),
    ("eps under", "epsilon under the root", "AdamW", "clipped"),
    ("L2", "decay coupled into the gradient", "AdamW", "clipped"),
    ("decay everywhere", "decay on norms and biases", "LAMB", "clipped"),
    ("one ratio", "trust ratio of all parameters", "LAMB", "clipped"),
    ("ratio not clipped", "trust ratio not clipped", "LAMB of NEZHA's authors", "clipped"),
    ("ratio without decay", "trust ratio of the update without decay", "LAMB", "clipped"),
    ("ratio without decay", "trust ratio of the update without decay", "LAMB of NEZHA's authors", "clipped"),
    ("clip after", "clipped after the step", "AdamW", "clipped"),
    ("clip by tensor", "clipped by tensor", "AdamW", "clipped"),
    ("rate of the next", "learning rate off by one step", "AdamW", "clipped"),
    ("mean of parts", "accumulated loss averaged by parts", "LAMB", "not clipped"),
    ("tied", "gradient of the tied embedding", "AdamW", "not clipped"),
    ("scale", "loss scale not divided out", "AdamW", "clipped"),
    ("mask of the next step", "dropout mask of another step", "AdamW", "clipped"),
    ("moments anew", "moments not carried between steps", "AdamW", "clipped"),
    ("not set to zero", "gradients not set to zero", "AdamW", "clipped"),
    ("tied stepped twice", "tied matrix stepped twice", "AdamW", "clipped"),
    ("mean over tokens", "loss averaged over all tokens", "AdamW", "not clipped"),
]
SEEN_IN_A_PORT = ("loss", "gradients", "first_moment", "second_moment", "weights")


def stages(theirs, kept):
    return {name: array for name, array in theirs.items() if name.split("/")[2] in kept}


@pytest.mark.parametrize(
    ("switch", "name", "optimizer", "recipe"), OF_PORT, ids=[f"{row[0]} {row[2]}" for row in OF_PORT]
)
def test_the_mistake_of_a_port_of_its_own_is_named(switch, name, optimizer, recipe):
    bundle = bundle_of(optimizer, recipe)
    theirs = stages(step_port.run(bundle, switch), SEEN_IN_A_PORT)
    assert not nz.oracle.compare(bundle, theirs)
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert name in diagnosis.names, str(diagnosis)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_right_port_of_its_own_has_no_mistake(optimizer, recipe):
    bundle = bundle_of(optimizer, recipe)
    theirs = step_port.run(bundle)
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison, comparison.summary()
    assert not comparison.unknown
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.step is None, str(diagnosis)


@pytest.mark.parametrize(("switch", "name"), [("no correction", "bias correction missing"), ("L2", "decay coupled")])
def test_new_weights_alone_are_enough_to_name_a_mistake(switch, name):
    bundle = bundle_of("AdamW", "clipped")
    diagnosis = nz.oracle.diagnose(bundle, stages(step_port.run(bundle, switch), ("weights",)))
    assert any(found.startswith(name) for found in diagnosis.names), str(diagnosis)


def test_a_mistake_that_makes_one_number_by_chance_and_spoils_others_is_not_named():
    bundle = bundle_of("AdamW", "clipped")  # whose second learning rate is twice the first
    diagnosis = nz.oracle.diagnose(bundle, step_port.run(bundle, "tied stepped twice"))
    assert diagnosis.names == ("tied matrix stepped twice",), str(diagnosis)


def test_what_no_mistake_makes_is_told_by_rows_and_columns():
    bundle = bundle_of("AdamW", "not clipped")
    theirs = step_port.run(bundle)
    theirs["steps/1/gradients/embeddings.word_embeddings.weight"][3] = 0.0
    said = str(nz.oracle.diagnose(bundle, stages(theirs, ("loss", "gradients"))))
    assert "at row 3 alone" in said
    assert "yours are 0" in said
    assert "the pass makes loss and gradients" in said


def test_mistakes_that_make_the_same_numbers_are_named_as_one_of_them():
    bundle = bundle_of("AdamW", "clipped")
    diagnosis = nz.oracle.diagnose(bundle, step_port.run(bundle, "clip after"))
    assert {"gradients not clipped", "clipped after the step"} <= set(diagnosis.names)
    assert "one of" in str(diagnosis)
