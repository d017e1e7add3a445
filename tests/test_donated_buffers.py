"""Optimisers that write in place: the same bits as without, and nothing is written that was not given away."""

import mmap

import numpy as np
import pytest
from test_training_loop import CONFIG, batches

import nezha_np as nz
from nezha_np.arrays import own_memory
from nezha_np.training import OptimizerState, adamw, bert_adam, clip_by_global_norm, lamb
from nezha_np.training.loop import first_step, train

OPTIMIZERS = {
    "lamb": (lamb, {}),
    "lamb nezha": (lamb, {"variant": "nezha"}),
    "adamw": (adamw, {}),
    "bert_adam": (bert_adam, {}),
}
every_optimizer = pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS.values(), ids=OPTIMIZERS)
LARGE = 3 * 65536 + 7  # of several blocks, the last of which is not full


def problem(dtype="float32"):
    generator = np.random.default_rng(0)
    shapes = {"a.weight": (LARGE,), "b.weight": (3, 4), "c.bias": (5,), "d.LayerNorm.weight": (), "e.weight": (0, 2)}
    weights = {name: generator.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    gradients = {name: generator.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    return {name: np.asarray(array) for name, array in weights.items()}, {
        name: np.asarray(array) for name, array in gradients.items()
    }


def arrays_of(weights, state):
    moments = {"first": state.first_moments, "second": state.second_moments}
    named = {f"{kind} {name}": array for kind, mapping in moments.items() for name, array in mapping.items()}
    return {**weights, **named}


def copied(mapping):
    return {name: np.array(array) for name, array in mapping.items()}


def copied_state(state):
    return OptimizerState(state.steps, copied(state.first_moments), copied(state.second_moments))


@every_optimizer
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_donated_buffers_get_the_bits_that_new_ones_get(optimizer, options, dtype):
    weights, gradients = problem(dtype)
    plain, plain_state = copied(weights), optimizer.init(weights)
    given = arrays_of(weights, state := optimizer.init(weights))
    for _ in range(3):
        plain, plain_state = optimizer.step(plain, gradients, plain_state, learning_rate=0.01, **options)
        weights, state = optimizer.step(weights, gradients, state, learning_rate=0.01, donate=True, **options)
        for name, expected in arrays_of(plain, plain_state).items():
            found = arrays_of(weights, state)[name]
            np.testing.assert_array_equal(found, expected, err_msg=name)
            assert found.dtype == expected.dtype
    for name, array in arrays_of(weights, state).items():
        assert array is given[name], name
    assert state.steps == 3


@every_optimizer
def test_what_is_not_given_away_is_not_written_to(optimizer, options):
    weights, gradients = problem()
    before, state = copied(weights), optimizer.init(weights)
    optimizer.step(weights, gradients, state, learning_rate=0.01, **options)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])
        assert not np.any(state.first_moments[name])


@every_optimizer
def test_tensors_that_share_memory_are_copied_and_come_to_what_they_would_without(optimizer, options):
    generator = np.random.default_rng(1)
    one, flat = generator.normal(size=6), generator.normal(size=10)
    weights = {"one": one, "same": one, "part": one[2:4], "left": flat[:6], "right": flat[5:], "apart": np.ones(3)}
    gradients = {name: generator.normal(size=array.shape) for name, array in weights.items()}
    gradients["apart"] = weights["apart"]  # a gradient may be the tensor itself
    expected, _ = optimizer.step(copied(weights), gradients, optimizer.init(weights), learning_rate=0.1, **options)
    new, _ = optimizer.step(weights, gradients, optimizer.init(weights), learning_rate=0.1, donate=True, **options)
    for name, array in expected.items():
        np.testing.assert_array_equal(new[name], array, err_msg=name)
        assert new[name] is not weights[name]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_file_that_weights_are_mapped_from_stays_as_it_is_and_the_next_step_writes_in_place(dtype, tmp_path):
    nz.init(CONFIG, dtype=dtype).save(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    weights = nz.load(tmp_path, dtype=dtype)
    gradients = {name: np.ones(array.shape, "float32") for name, array in weights.items()}
    first, state = adamw.step(weights, gradients, adamw.init(weights), learning_rate=0.1, donate=True)
    second, _ = adamw.step(first, gradients, state, learning_rate=0.1, donate=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert isinstance(second, nz.Weights)
    for name, array in weights.items():
        assert first[name] is not array and second[name] is first[name]


def test_a_writable_map_and_anothers_memory_are_not_ours_to_write(tmp_path):
    (tmp_path / "x").write_bytes(bytes(32))
    mapped = np.memmap(tmp_path / "x", "float32", "r+")
    with (tmp_path / "x").open("r+b") as file:
        buffer = mmap.mmap(file.fileno(), 0)
    by_buffer = np.frombuffer(buffer, "float32")
    read_only = np.ones(2)
    read_only.flags.writeable = False
    arrays = [mapped, by_buffer, mapped[2:4], np.asarray(mapped), read_only, np.ones((3, 4)).T[1:], np.ones(2)]
    assert own_memory(arrays) == [False, False, False, False, False, True, True]
    assert own_memory([read_only[:1], np.asarray(1.0), np.zeros((0, 2))]) == [False, True, True]
    x = np.zeros((4, 6))
    assert own_memory([x[:2], x[2:]]) == [True, True]
    assert own_memory([x[::2], x[1::2], x[:0]]) == [False, False, True]  # between each other's rows
    assert own_memory([x, x[3], x[1:2], np.ones(1)]) == [False, False, False, True]
    torch = pytest.importorskip("torch", reason="its memory is another library's")
    tensor = torch.zeros(4)
    assert own_memory([tensor, torch.ones(2), torch.ones(2, requires_grad=True)]) == [True, True, False]
    numpys = np.zeros(2, "float32")  # perhaps mapped from a file, where writing ends the process
    assert own_memory([torch.as_tensor(numpys), torch.from_numpy(numpys)]) == [False, False]
    assert own_memory([tensor[:2], tensor[2:]]) == [False, False]
    assert own_memory([tensor.numpy(), tensor]) == [False, False]  # it is both libraries' now


def test_pytorchs_tensors_are_written_in_place_and_jaxs_never():
    torch = pytest.importorskip("torch", reason="the arrays are its own")
    weights, gradients = ({name: torch.tensor(array) for name, array in part.items()} for part in problem("float64"))
    expected, _ = lamb.step(weights, gradients, lamb.init(weights), learning_rate=0.1)
    expected = {name: array.clone() for name, array in expected.items()}
    new, _ = lamb.step(weights, gradients, lamb.init(weights), learning_rate=0.1, donate=True)
    for name, array in expected.items():
        assert new[name] is weights[name]
        np.testing.assert_array_equal(new[name].numpy(), array.numpy())
    jax = pytest.importorskip("jax", reason="its arrays cannot be written to")
    weights = {"x": jax.numpy.ones(3)}
    new, _ = lamb.step(weights, weights, lamb.init(weights), learning_rate=0.1, donate=True)
    np.testing.assert_array_equal(np.asarray(weights["x"]), 1.0)
    assert not np.array_equal(np.asarray(new["x"]), np.ones(3))


@every_optimizer
def test_a_run_that_gives_its_steps_away_comes_to_the_same_bits(optimizer, options):
    def last(**more):
        start = first_step(nz.init(CONFIG), optimizer)
        run = train(start, nz.masked_lm, batches, optimizer, steps=4, learning_rate=0.01, **options, **more)
        return list(run), start

    expected, start = last()
    found, given = last(donate=True)
    for name, array in arrays_of(expected[-1].weights, expected[-1].state).items():
        np.testing.assert_array_equal(arrays_of(found[-1].weights, found[-1].state)[name], array, err_msg=name)
    for name, array in nz.init(CONFIG).items():
        np.testing.assert_array_equal(start.weights[name], array)
        np.testing.assert_array_equal(given.weights[name], array)  # those of init cannot be written to
        assert found[3].weights[name] is found[0].weights[name]
        assert found[3].state.second_moments[name] is given.state.second_moments[name]
    name = "encoder.layer.0.output.dense.weight"
    assert expected[3].weights[name] is not expected[0].weights[name]


def test_gradients_that_are_given_away_are_clipped_in_place_and_one_under_two_names_once():
    generator = np.random.default_rng(2)
    one = generator.normal(size=LARGE)
    gradients = {"a": generator.normal(size=(3, 4)), "b": one, "c": one}
    expected, norm = clip_by_global_norm(copied(gradients), 0.5)
    clipped, same = clip_by_global_norm(gradients, 0.5, donate=True)
    assert norm == same and clipped["a"] is gradients["a"]
    assert clipped["b"] is not one
    for name, array in expected.items():
        np.testing.assert_array_equal(clipped[name], array)


def test_donate_is_true_or_false():
    weights = {"x": np.ones(2)}
    with pytest.raises(TypeError, match="donate: expected True or False, got 1"):
        lamb.step(weights, weights, lamb.init(weights), learning_rate=0.1, donate=1)
