"""What a tape holds: what a gradient reads and no more, and with checkpoint_layers only the input of each layer."""

import dataclasses
import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from cases import EVERY_LABELLED_HEAD, cases, each_array, weights_for
from hypothesis import given
from hypothesis import strategies as st
from test_layers import PRIMITIVES
from tiers import examples

import nezha_np as nz
from nezha_np.arrays import own_memory
from nezha_np.kernels import numpy as kernels
from nezha_np.kernels import numpy_room
from nezha_np.layers.addition import add
from nezha_np.layers.linear import linear
from nezha_np.layers.losses import mse
from nezha_np.layers.masks import as_constant
from nezha_np.mechanism import Tape, View, checkpointed, composite, gradient_of, primitive, recording
from nezha_np.mechanism.calls import Unread
from nezha_np.mechanism.gradient_sums import RowSums
from nezha_np.mechanism.layer import gradient_by_kernel
from nezha_np.training import LossScale, adamw, lamb
from nezha_np.training.loop import first_step, train


@dataclasses.dataclass
class Output:
    """What a head returns."""

    loss: object


CONFIG = nz.NezhaConfig(
    vocab_size=30,
    hidden_size=32,
    num_hidden_layers=6,
    num_attention_heads=4,
    intermediate_size=64,
    max_relative_position=4,
)
IDS = 5 + np.arange(4 * 64).reshape(4, 64) % 25
LABELS = np.where(IDS % 3 == 0, IDS, -100)


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@examples(10, quick=1)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]))
def test_layers_that_run_again_give_the_same_bits_with_dropout(family, head, data, dtype):
    case = data.draw(cases(head, family, hidden_from=8, reference=False))
    weights = weights_for(head, case, dtype)
    inputs = each_array(lambda array: array.astype(dtype) if array.dtype == np.float64 else array, case.inputs)
    function = getattr(nz, head)
    out, expected = nz.value_and_grad(function, dropout_seed=3)(weights, **inputs)
    again, found = nz.value_and_grad(function, dropout_seed=3, checkpoint_layers=True)(weights, **inputs)
    np.testing.assert_array_equal(again.loss, out.loss)
    assert_same_bits(found, expected)
    with nz.definitions():
        _, expected = nz.value_and_grad(function, dropout_seed=3)(weights, **inputs)
        _, found = nz.value_and_grad(function, dropout_seed=3, checkpoint_layers=True)(weights, **inputs)
    assert_same_bits(found, expected)


@pytest.mark.parametrize("loss_scale", [None, LossScale(2.0**10)], ids=["float32", "mixed precision"])
@pytest.mark.parametrize("optimizer", [lamb, adamw], ids=["lamb", "adamw"])
def test_a_run_in_parts_comes_to_the_same_bits(optimizer, loss_scale):
    config = CONFIG.replace(hidden_size=8, intermediate_size=12, num_attention_heads=2, num_hidden_layers=2)
    parts = [{"input_ids": IDS[rows, :9], "labels": LABELS[rows, :9]} for rows in (slice(0, 1), slice(1, 4))]

    def last(**options):
        start = first_step(nz.init(config), optimizer, loss_scale)
        run = train(start, nz.masked_lm, lambda number: parts, optimizer, steps=2, learning_rate=0.01, **options)
        return list(run)[-1]

    expected, found = last(), last(checkpoint_layers=True)
    assert not expected.skipped and found.losses == expected.losses
    assert_same_bits(dict(found.weights), dict(expected.weights))


def peak(function):
    """The largest memory that Python and NumPy had at once, beyond what they have before."""
    gc.collect()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_only_the_input_of_each_layer_is_kept():
    """Twice as many layers: so much more memory for each of them."""

    def more_for_a_layer(**options):
        peaks = []
        for layers in (4, 8):
            weights = nz.init(CONFIG.replace(num_hidden_layers=layers))
            run = nz.value_and_grad(nz.masked_lm, dropout_seed=1, **options)
            run(weights, IDS, labels=LABELS)
            peaks.append(peak(lambda run=run, weights=weights: run(weights, IDS, labels=LABELS)))
        return (peaks[1] - peaks[0]) / 4

    one_input = IDS.size * CONFIG.hidden_size * 4
    gradients = sum(array.nbytes for name, array in nz.init(CONFIG).items() if name.startswith("encoder.layer.0."))
    assert more_for_a_layer(checkpoint_layers=True) < 1.5 * one_input + gradients
    assert more_for_a_layer() > 10 * one_input


@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_both_uses_of_the_table_of_words_are_summed_in_one_array(checkpoint_layers, monkeypatch):
    """The gradient of the decoder becomes that of the table: no second array of this size is ever made."""
    monkeypatch.setattr(numpy_room, "LARGE", np.inf)  # the chunk would be counted, though most of it is never written
    weights = nz.init(CONFIG.replace(vocab_size=40_000, num_hidden_layers=1))
    run = nz.value_and_grad(nz.masked_lm, dropout_seed=1, checkpoint_layers=checkpoint_layers)
    ids, labels = IDS[:1, :8] * 1000, np.where(np.arange(8) == 3, 7, -100)[None]
    _, gradients = run(weights, ids, labels=labels, labelled_only=True)
    table = gradients["embeddings.word_embeddings.weight"]
    others = sum(array.nbytes for array in gradients.values()) - table.nbytes
    assert others < table.nbytes / 4
    most = peak(lambda: run(weights, ids, labels=labels, labelled_only=True))
    assert table.nbytes < most < 1.5 * table.nbytes


def test_gradients_of_large_weights_stand_together_apart_from_what_is_made_and_dropped_between_them():
    """The feed-forward weights of both layers, of 1 MiB, are pieces of one chunk; smaller ones stand by themselves."""
    weights = nz.init(CONFIG.replace(hidden_size=256, intermediate_size=1024, num_hidden_layers=2))
    run = nz.value_and_grad(nz.masked_lm, dropout_seed=1, checkpoint_layers=True)
    _, gradients = run(weights, IDS[:2], labels=LABELS[:2])
    _, again = run(weights, IDS[:2], labels=LABELS[:2])

    def chunk(found, name):
        array = found[name]
        while array.base is not None:
            array = array.base
        return array

    large = [name for name, array in weights.items() if array.nbytes >= numpy_room.LARGE]
    assert len(large) == 4
    chunks = {id(chunk(gradients, name)) for name in large}
    assert len(chunks) == 1 and id(chunk(again, large[0])) not in chunks
    assert chunk(gradients, large[0]).nbytes == numpy_room.CHUNK
    assert all(own_memory(list(gradients.values())))
    small = chunk(gradients, "encoder.layer.0.attention.self.query.weight")
    assert small.nbytes < numpy_room.LARGE
    _, expected = nz.value_and_grad(nz.masked_lm, dropout_seed=1)(weights, IDS[:2], labels=LABELS[:2])
    assert chunk(expected, large[0]).nbytes == numpy_room.LARGE
    assert_same_bits(gradients, expected)


@given(sizes=st.lists(st.integers(0, 40), max_size=12), dtype=st.sampled_from(["float32", "float64"]))
def test_arrays_of_a_room_share_no_memory(sizes, dtype):
    room = numpy_room.Room()
    arrays = [room.empty((2**17, size), np.dtype(dtype)) for size in sizes]
    assert [array.shape[1] for array in arrays] == sizes and all(array.dtype == dtype for array in arrays)
    assert all(array.flags.c_contiguous and array.flags.aligned for array in arrays)
    assert all(own_memory([array for array in arrays if array.size]))


def test_what_the_walk_back_has_passed_is_let_go():
    seen = []

    @primitive
    def watched(x):
        return x + 1.0

    @gradient_of(watched, reads=("y",))
    def watched_gradient(dy, y, x):
        gc.collect()
        seen.append([reference() is None for reference in references])
        return dy

    references = []

    def head(weights):
        w = View(weights, "pooler.")
        x = in_a_row(as_constant(np.ones((1, 4), "float32"), name="x"), w)
        return Output(mse(x, as_constant(np.zeros((1, 4), "float32"), name="zero")))

    @composite
    def in_a_row(x, w):
        x = linear(x, w["dense.weight"], w["dense.bias"])
        for index in range(3):
            x = watched(x, name=f"watched.{index}")
            references.append(weakref.ref(x))
        return x

    config = CONFIG.replace(hidden_size=4, num_attention_heads=1, num_hidden_layers=1)
    nz.value_and_grad(head)(nz.init(config))
    assert seen == [[False, False, False], [False, False, True], [False, True, True]]


def test_what_no_gradient_reads_is_not_held_by_the_forward_pass():
    references = []

    @primitive
    def three_times(x):
        references.append(weakref.ref(x))
        return 3.0 * x

    @gradient_of(three_times, reads=())
    def three_times_gradient(dy, y, x):
        assert isinstance(x, Unread) and isinstance(y, Unread) and (x.shape, x.ndim) == ((2,), 1)
        return 3.0 * dy

    tape = Tape(None, ())
    x = np.ones(2)
    with recording(tape):
        x = as_constant(x, name="x")
        first = three_times(x, name="first")
        second = three_times(first, name="second")
        del first
        gc.collect()
        assert references[1]() is None
        loss = mse(second, as_constant(np.zeros(2), name="zero"))
    assert tape.walk_back(loss) == {}
    assert not tape.calls


@pytest.mark.parametrize(("layer", "arguments", "options"), PRIMITIVES, ids=lambda part: getattr(part, "__name__", ""))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_gradient_and_its_kernel_read_what_they_say_alone(layer, arguments, options, dtype):
    with np.errstate(over="ignore"):  # the mask of float64
        arrays = [array.astype(dtype) if array.dtype == np.float64 else array for array in map(np.asarray, arguments)]
    y = layer.definition(*arrays, **options)
    dy = np.ones_like(y)
    kept, *others = Tape(None, ())._read(layer, (y, *arrays))

    def by_kernel(dy, y, *arguments, **options):
        return [
            part.dense() if isinstance(part, RowSums) else part
            for part in gradient_by_kernel(layer, dy, y, arguments, options) or ()
        ]

    for gradient in (layer.gradient, by_kernel):
        expected, found = gradient(dy, y, *arrays, **options), gradient(dy, kept, *others, **options)
        if not isinstance(expected, tuple | list):
            expected, found = (expected,), (found,)
        for theirs, ours in zip(expected, found, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_composite_of_ones_own_may_run_again():
    runs = []

    @checkpointed
    @composite
    def block(x, w):
        runs.append(1)
        y = linear(x, w["dense.weight"], w["dense.bias"])
        return add(x, y), (None, y)

    def head(weights):
        x = as_constant(np.linspace(0.0, 1.0, 8, dtype="float32").reshape(2, 4), name="x")
        _, (_, y) = block(x, View(weights, "pooler."))
        return Output(mse(y, as_constant(np.zeros((2, 4), "float32"), name="zero")))

    weights = nz.init(CONFIG.replace(hidden_size=4, num_attention_heads=1, num_hidden_layers=1))
    _, expected = nz.value_and_grad(head)(weights)
    assert len(runs) == 1
    _, found = nz.value_and_grad(head, checkpoint_layers=True)(weights)
    assert len(runs) == 3
    assert_same_bits(found, expected)


def test_layers_that_no_gradient_comes_to_do_not_run_again():
    """The loss depends on the pooler's input, the first layer, alone."""
    weights, runs = nz.init(CONFIG), []
    layer = nz.model.model.encoder_layer
    kept = layer.definition

    def counted(*arguments, **options):
        runs.append(1)
        return kept(*arguments, **options)

    def head(weights):
        hidden = nz.forward(weights, IDS, output_hidden_states=True).hidden_states
        zeros = as_constant(np.zeros(hidden[1].shape, "float32"), name="zeros")
        return Output(mse(hidden[1], zeros))

    layer.definition = counted
    try:
        nz.value_and_grad(head, checkpoint_layers=True)(weights)
    finally:
        layer.definition = kept
    assert len(runs) == CONFIG.num_hidden_layers + 1


def test_an_error_in_a_layer_that_runs_again_leaves_no_recorder_behind():
    weights = nz.init(CONFIG)
    layer, runs = nz.model.model.encoder_layer, []
    kept = layer.definition

    def fails_later(*arguments, **options):
        runs.append(1)
        if len(runs) > CONFIG.num_hidden_layers:
            raise ZeroDivisionError
        return kept(*arguments, **options)

    layer.definition = fails_later
    try:
        with pytest.raises(ZeroDivisionError):
            nz.value_and_grad(nz.masked_lm, checkpoint_layers=True)(weights, IDS, labels=LABELS)
    finally:
        layer.definition = kept
    with nz.trace() as t:
        nz.forward(weights, IDS)
    assert len(t) > CONFIG.num_hidden_layers


def test_a_wrong_argument_is_named():
    with pytest.raises(TypeError, match="checkpoint_layers: expected True or False, got 1"):
        nz.value_and_grad(nz.masked_lm, checkpoint_layers=1)
    with pytest.raises(ValueError, match="checkpoint_layers: expected False with intermediates=True"):
        nz.value_and_grad(nz.masked_lm, checkpoint_layers=True, intermediates=True)
    with pytest.raises(ValueError, match="reads: expected parameters of add_gradient, got w"):
        gradient_of(add, reads=("w",))(add.gradient)


def test_kernels_of_gradients_are_among_the_primitives_that_are_tested_here():
    assert kernels.GRADIENT_KERNELS.keys() <= {layer for layer, _, _ in PRIMITIVES}
