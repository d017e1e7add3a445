"""The optimisers, each equal step by step to a twin: PyTorch's, optax's, or one written out for single numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.arrays import to_numpy
from nezha_np.training import (
    OptimizerState,
    adamw,
    bert_adam,
    clip_by_global_norm,
    global_norm,
    lamb,
    load_state,
    save_state,
    warmup_polynomial_decay,
)

OPTIMIZERS = {"lamb": lamb, "adamw": adamw, "bert_adam": bert_adam}
STEPS = 50


@st.composite
def problems(draw):
    """Tensors and 50 gradients of each: some tensors are zero, some gradients are, now and then or always."""
    shapes = draw(st.lists(st.sampled_from([(), (1,), (3,), (2, 3), (2, 1, 2)]), min_size=1, max_size=3))
    names = ["a.weight", "b.LayerNorm.weight", "c.bias"]
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights, gradients = {}, {}
    for name, shape in zip(names, shapes, strict=False):
        weights[name] = generator.normal(size=shape) * draw(st.sampled_from([0.0, 1.0, 100.0]))
        gradients[name] = generator.normal(size=(STEPS, *shape)) * draw(st.sampled_from([0.0, 1e-9, 1.0, 1e6]))
        gradients[name][generator.random(STEPS) < draw(st.sampled_from([0.0, 0.5]))] = 0.0
    return weights, gradients, draw(st.sampled_from([0.0, 0.01, 0.3]))


def run(step, weights, gradients, **options):
    """Make the steps, and return the weights after each."""
    state = lamb.init(weights)
    for index in range(STEPS):
        weights, state = step(weights, {name: parts[index] for name, parts in gradients.items()}, state, **options)
        yield weights
    assert state.steps == STEPS


def twin_for_single_numbers(kind, weights, gradients, weight_decay, learning_rate):
    """Each optimiser in Python's floats, one element after another, from the papers and the authors' code."""
    x = {name: array.ravel().tolist() for name, array in weights.items()}
    m = {name: [0.0] * len(values) for name, values in x.items()}
    v = {name: [0.0] * len(values) for name, values in x.items()}

    def norm(values):
        return math.sqrt(math.fsum(value * value for value in values))

    for t in range(1, STEPS + 1):
        for name, values in x.items():
            g = gradients[name][t - 1].ravel().tolist()
            m[name] = [0.9 * old + 0.1 * new for old, new in zip(m[name], g, strict=True)]
            v[name] = [0.999 * old + 0.001 * new * new for old, new in zip(v[name], g, strict=True)]
            corrected = kind != "bert_adam"
            m_hat = [one / (1 - 0.9**t) if corrected else one for one in m[name]]
            v_hat = [one / (1 - 0.999**t) if corrected else one for one in v[name]]
            own_decay = weight_decay if name == "a.weight" else 0.0
            triples = list(zip(m_hat, v_hat, values, strict=True))
            update = [a / (math.sqrt(b) + 1e-6) + own_decay * c for a, b, c in triples]
            ratio = 1.0
            if kind == "lamb paper" and norm(values) and norm(update):
                ratio = norm(values) / norm(update)
            if kind == "lamb nezha":
                measured = norm([a / math.sqrt(b + 1e-6) + weight_decay * c for a, b, c in triples])
                if norm(values) and measured:
                    ratio = min(max(norm(values) / measured, 0.0), 10.0)
            x[name] = [c - learning_rate * ratio * u for c, u in zip(values, update, strict=True)]
        yield {name: np.array(values).reshape(weights[name].shape) for name, values in x.items()}


def assert_equal(ours, theirs):
    """Within 1e-12 of the largest value of each tensor, or of 1."""
    for name, expected in theirs.items():
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "step", "options"),
    [
        ("lamb paper", lamb.step, {}),
        ("lamb nezha", lamb.step, {"variant": "nezha"}),
        ("bert_adam", bert_adam.step, {}),
        ("adamw", adamw.step, {"eps": 1e-6}),
    ],
)
@given(problem=problems())
@settings(max_examples=20, deadline=None)
def test_every_step_equals_its_formula_for_single_numbers(kind, step, options, problem):
    weights, gradients, weight_decay = problem
    twin = twin_for_single_numbers(kind, weights, gradients, weight_decay, 0.02)
    ours = run(step, weights, gradients, learning_rate=0.02, weight_decay=weight_decay, **options)
    for one, other in zip(ours, twin, strict=True):
        assert_equal(one, other)


@given(problem=problems())
@settings(max_examples=20, deadline=None)
def test_adamw_is_that_of_pytorch(problem):
    torch = pytest.importorskip("torch", reason="the twin is PyTorch's")
    weights, gradients, weight_decay = problem
    theirs = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in weights.items()}
    groups = [
        {"params": [theirs[name]], "weight_decay": weight_decay if name == "a.weight" else 0.0} for name in weights
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.02)
    for index, ours in enumerate(run(adamw.step, weights, gradients, learning_rate=0.02, weight_decay=weight_decay)):
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradients[name][index])
        optimizer.step()
        assert_equal(ours, {name: parameter.detach().numpy() for name, parameter in theirs.items()})


@given(problem=problems())
@settings(max_examples=10, deadline=None)
def test_lamb_is_that_of_optax(problem):
    optax = pytest.importorskip("optax", reason="the twin is optax's")
    jax = pytest.importorskip("jax", reason="optax computes with JAX")
    weights, gradients, weight_decay = problem
    with jax.enable_x64():
        mask = {name: name == "a.weight" for name in weights}
        optimizer = optax.lamb(0.02, eps=1e-6, weight_decay=weight_decay, mask=mask)
        theirs = {name: jax.numpy.asarray(array) for name, array in weights.items()}
        state = optimizer.init(theirs)
        for index, ours in enumerate(run(lamb.step, weights, gradients, learning_rate=0.02, weight_decay=weight_decay)):
            now = {name: jax.numpy.asarray(parts[index]) for name, parts in gradients.items()}
            updates, state = optimizer.update(now, state, theirs)
            theirs = optax.apply_updates(theirs, updates)
            assert_equal(ours, {name: np.asarray(array) for name, array in theirs.items()})


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_runs_on_the_device_of_the_weights_and_writes_into_nothing(optimizer):
    xp = pytest.importorskip("array_api_strict", reason="it stands in for a GPU")
    device = xp.Device("device1")
    host = {"a.weight": np.array([[1.0, -2.0]]), "c.bias": np.array([3.0])}
    weights = {name: xp.asarray(array, device=device) for name, array in host.items()}
    gradients = {name: xp.asarray(array + 1.0, device=device) for name, array in host.items()}
    state = optimizer.init(weights)
    new, new_state = optimizer.step(weights, gradients, state, learning_rate=0.1)
    expected, _ = optimizer.step(
        host, {name: array + 1.0 for name, array in host.items()}, optimizer.init(host), learning_rate=0.1
    )
    for name, array in new.items():
        assert array.device == new_state.first_moments[name].device == device
        np.testing.assert_allclose(to_numpy(array), expected[name], rtol=1e-15)
        np.testing.assert_array_equal(to_numpy(weights[name]), host[name])
        np.testing.assert_array_equal(to_numpy(state.first_moments[name]), 0.0)


def test_weights_stay_weights_and_float16_tensors_keep_moments_in_float32():
    weights = nz.load(dtype="float16")
    ids = [[2, 100, 200, 3]]
    _, gradients = nz.value_and_grad(nz.masked_lm)(weights, ids, labels=ids)
    new, state = lamb.step(weights, gradients, lamb.init(weights), learning_rate=1e-3)
    assert isinstance(new, nz.Weights)
    assert new.dtype == np.float16 and new.config == weights.config
    assert {array.dtype for array in state.second_moments.values()} == {np.dtype("float32")}


def test_a_tensor_without_a_gradient_stays_as_it_is():
    weights = {"a.weight": np.ones(2), "b.weight": np.ones(2)}
    new, state = adamw.step(weights, {"a.weight": np.ones(2)}, adamw.init(weights), learning_rate=0.1)
    assert new["b.weight"] is weights["b.weight"]
    assert not np.array_equal(new["a.weight"], weights["a.weight"])
    np.testing.assert_array_equal(state.first_moments["b.weight"], 0.0)


def test_a_saved_state_goes_on_to_the_same_bits(tmp_path):
    weights = {"a.weight": np.linspace(-1.0, 1.0, 6).reshape(2, 3), "c.bias": np.zeros(3)}
    gradients = {"a.weight": np.cos(np.arange(6.0)).reshape(2, 3), "c.bias": np.ones(3)}
    weights, state = lamb.step(weights, gradients, lamb.init(weights), learning_rate=0.1)
    save_state(state, tmp_path / "state.safetensors")
    read = load_state(tmp_path / "state.safetensors", weights)
    assert read.steps == 1
    through, _ = lamb.step(weights, gradients, read, learning_rate=0.1)
    direct, _ = lamb.step(weights, gradients, state, learning_rate=0.1)
    for name, array in direct.items():
        np.testing.assert_array_equal(through[name], array)


def test_a_file_that_is_no_state_is_refused(tmp_path):
    nz.load().save(tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors: expected the state of an optimiser, found tensors of"):
        load_state(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate: expected a finite number from 0 on, got -1.0"),
        ({"learning_rate": math.nan}, "learning_rate: expected a finite number from 0 on, got nan"),
        ({"learning_rate": None}, "learning_rate: expected a number, got None"),
        ({"beta1": 1.0}, "beta1: expected a number from 0 to below 1, got 1.0"),
        ({"eps": -1e-6}, "eps: expected a finite number from 0 on, got -1e-06"),
        ({"variant": "google"}, "variant: expected one of paper, nezha, got 'google'"),
        ({"weights": [1.0]}, "weights: expected a mapping from names to arrays, got list"),
        ({"gradients": {"y": np.ones(2)}}, "gradients: expected names of the weights, got also y"),
        ({"gradients": {"x": np.ones(3)}}, r"gradients: expected shape \(2,\) for x, got \(3,\)"),
        ({"state": {}}, "state: expected an OptimizerState, which init makes, got dict"),
        ({"state": OptimizerState(0, {}, {})}, r"state: expected the moments of x, of shape \(2,\), found none"),
        (
            {"state": lamb.init({"x": np.ones(2), "y": np.ones(2)})},
            "state: expected moments of the weights only, found",
        ),
    ],
)
def test_a_wrong_argument_is_named(changes, message):
    weights = {"x": np.ones(2)}
    arguments = {
        "weights": weights,
        "gradients": weights,
        "state": lamb.init(weights),
        "learning_rate": 0.1,
        **changes,
    }
    with pytest.raises((TypeError, ValueError), match=message):
        lamb.step(**arguments)


def test_clipping_keeps_the_direction_and_a_norm_that_is_not_finite_is_returned():
    gradients = {"x": np.array([3.0, 0.0]), "y": np.array([[4.0]])}
    clipped, norm = clip_by_global_norm(gradients)
    assert float(norm) == 5.0 and float(global_norm(clipped)) == pytest.approx(1.0, abs=1e-15)
    np.testing.assert_allclose(clipped["x"], [0.6, 0.0], rtol=1e-15)
    short, _ = clip_by_global_norm(gradients, most=5.0)
    np.testing.assert_array_equal(short["x"], gradients["x"])
    _, norm = clip_by_global_norm({"x": np.array([np.inf])})
    assert not np.isfinite(norm)


def test_the_norm_does_not_depend_on_the_order_of_the_names():
    generator = np.random.default_rng(0)
    gradients = {f"{number}": generator.normal(size=7).astype("float32") for number in range(20)}
    backwards = dict(reversed(gradients.items()))
    assert global_norm(gradients) == global_norm(backwards)


@pytest.mark.parametrize("seed", range(5))  # one sum may have the same last bit in both orders
def test_the_norms_do_not_depend_on_the_layout_in_memory(seed):
    generator = np.random.default_rng(seed)
    shape = (300, 400)  # larger than a block, so the step's own arrays lie by rows, whatever layout it got
    weights, gradients = ({"x": generator.normal(size=shape).astype("float32")} for _ in range(2))
    by_columns = [{"x": np.asfortranarray(mapping["x"])} for mapping in (weights, gradients)]
    assert global_norm(gradients) == global_norm(by_columns[1])
    rows, _ = lamb.step(weights, gradients, lamb.init(weights), learning_rate=0.1)
    columns, _ = lamb.step(*by_columns, lamb.init(by_columns[0]), learning_rate=0.1)
    with nz.definitions():
        defined, _ = lamb.step(*by_columns, lamb.init(by_columns[0]), learning_rate=0.1)
    np.testing.assert_array_equal(columns["x"], rows["x"])
    np.testing.assert_array_equal(defined["x"], rows["x"])


def test_the_norm_of_float16_gradients_does_not_overflow():
    assert float(global_norm({"x": np.full(4, 60000.0, "float16")})) == pytest.approx(120000.0, rel=1e-3)


@given(
    warmup=st.integers(0, 20), decay=st.integers(1, 100), power=st.sampled_from([0.5, 1.0, 2.0]), rate=st.floats(0, 1)
)
def test_warm_up_and_decay_meet_without_a_jump_and_end_at_zero(warmup, decay, power, rate):
    options = {"learning_rate": rate, "warmup_steps": warmup, "total_steps": warmup + decay, "power": power}
    rates = [warmup_polynomial_decay(steps, **options) for steps in range(warmup + decay + 2)]
    assert rates[warmup] == max(rates) == rate
    assert rates[:warmup] == sorted(rates[:warmup]) and rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-2:] == [0.0, 0.0]
