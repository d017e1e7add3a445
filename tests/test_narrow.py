"""Matrices that are kept in 16 bits: the float32 model on rounded weights, in half the memory."""

import copy
import json
import pickle
import tracemalloc

import array_api_strict as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kernels import threads_of_blas
from tiers import examples

import nezha_np as nz
from nezha_np import threads
from nezha_np.arrays import is_array, library, namespace, own_memory, share_memory, to_numpy
from nezha_np.model import model
from nezha_np.narrow import float16
from nezha_np.narrow import matrix as narrow_matrix
from nezha_np.narrow.bfloat16 import round_to_bits, widened
from nezha_np.narrow.matrix import BFLOAT16, FLOAT16, NarrowMatrix, kept_in_bfloat16
from nezha_np.narrow.tiles import TILE
from nezha_np.training import lamb
from nezha_np.training.loop import first_step
from nezha_np.weights.convert import convert
from nezha_np.weights.formats.safetensors import read_header

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
}
CONFIGS = {
    "nezha": nz.NezhaConfig(**SIZES, max_relative_position=4),
    "nezha, untied": nz.NezhaConfig(**SIZES, tie_word_embeddings=False),
    "bert": nz.BertConfig(**SIZES),
    "bert, relative keys": nz.BertConfig(**SIZES, position_embedding_type="relative_key_query"),
    "convbert": nz.ConvBertConfig(**SIZES, embedding_size=16, conv_kernel_size=3),
}
IDS = np.random.default_rng(0).integers(1, 60, (3, 9))
MASK = np.arange(9) < [[9], [4], [1]]


def rounded(weights):
    """The same weights in float32, each rounded."""
    tensors = {name: widened(round_to_bits(to_numpy(array))) for name, array in weights.items()}
    return nz.Weights(tensors, weights.config)


@pytest.fixture(params=CONFIGS)
def drawn(request):
    return nz.init(CONFIGS[request.param], seed=3)


@examples(200)
@given(values=st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_floats_are_rounded_as_pytorch_rounds_them(values):
    torch = pytest.importorskip("torch", reason="it rounds the same numbers")
    array = np.array(values, np.float32)
    expected = torch.tensor(array).bfloat16().float().numpy()
    np.testing.assert_array_equal(widened(round_to_bits(array)), expected)


def test_ties_are_rounded_to_even_and_large_numbers_to_infinity():
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x7F800001, 0x80000000], np.uint32)
    found = round_to_bits(bits.view(np.float32))
    assert [hex(one) for one in found[:4]] == ["0x3f80", "0x3f82", "0x3f81", "0x7f80"]
    assert np.isnan(widened(found[4:5]))[0] and np.signbit(widened(found[5:]))[0]


def kept_in_float16(array):
    return NarrowMatrix(array.astype(np.float16), FLOAT16)


@pytest.mark.parametrize("kept", [kept_in_bfloat16, kept_in_float16])
@given(data=st.data(), tile=st.integers(1, 60), parts=st.integers(1, 3))
def test_a_product_is_that_of_the_numbers(kept, data, tile, parts):
    rows, inner, columns = (data.draw(st.integers(0, 9)) for _ in range(3))
    draw = np.random.default_rng(data.draw(st.integers(0, 9))).normal
    matrix = kept(draw(size=(rows, inner)))
    other = draw(size=(inner, columns)).astype(np.float32)
    other = other if data.draw(st.booleans()) else np.asfortranarray(other)
    expected = np.asarray(matrix) @ other
    out = np.empty_like(expected, order=data.draw(st.sampled_from("CF")))
    with pytest.MonkeyPatch.context() as patch, threads_of_blas(parts):
        for name, value in {"TILE": tile, "TILE_OF_MANY": tile, "MANY": 4, "SHARED": 8}.items():
            patch.setattr(narrow_matrix, name, value)
        for found in (matrix @ other, (other.T @ matrix.T).T, np.matmul(matrix, other, out=out)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(other.T @ np.asarray(matrix).T, other.T @ matrix.T, rtol=0, atol=1e-5)
        left = draw(size=(2, rows)).astype(np.float32)
        np.testing.assert_allclose(left @ matrix, left @ np.asarray(matrix), rtol=0, atol=1e-5)
    assert found is out


def test_a_product_with_what_does_not_fit_is_refused_as_numpy_refuses_it():
    with pytest.raises(ValueError, match="matmul"):
        kept_in_bfloat16(np.ones((2, 3))) @ np.ones((2, 2), np.float32)


def test_a_matrix_in_bfloat16_passes_for_one_of_numpys():
    matrix = kept_in_bfloat16(np.arange(6.0).reshape(2, 3))
    assert is_array(matrix) and library(matrix) == "numpy" and namespace(matrix) is np
    assert (matrix.shape, matrix.ndim, matrix.size, matrix.nbytes, len(matrix)) == ((2, 3), 2, 6, 12, 2)
    assert matrix.dtype == np.float32 and matrix.device == np.ones(1).device
    assert share_memory(matrix, matrix[...]) and not share_memory(matrix, kept_in_bfloat16(np.ones((2, 3))))
    assert own_memory([matrix, np.zeros(2)]) == [False, True]
    assert repr(matrix[:1]) == "NarrowMatrix(bfloat16, array([[0., 1., 2.]], dtype=float32))"
    for found, expected in (
        (matrix + 1, [[1, 2, 3], [4, 5, 6]]),
        (np.take(matrix, np.array([1, 1]), axis=0), [[3, 4, 5], [3, 4, 5]]),
        (np.concatenate([matrix, matrix[:1]]), [[0, 1, 2], [3, 4, 5], [0, 1, 2]]),
        (np.matrix_transpose(matrix), [[0, 3], [1, 4], [2, 5]]),
        (matrix[1], [3, 4, 5]),
        (matrix[1, 2], 5),
    ):
        np.testing.assert_array_equal(np.asarray(found), expected)
    assert np.asarray(matrix, dtype=np.float64).dtype == np.float64 and np.shape(matrix) == (2, 3)
    with pytest.raises(ValueError, match="expected copy=None or True"):
        np.asarray(matrix, copy=False)
    for wrong in (np.zeros(3, np.uint16), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="expected a matrix of uint16, got shape"):
            NarrowMatrix(wrong, BFLOAT16)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("ids", [IDS[:1, :1], IDS, np.tile(IDS, (40, 4))], ids=["one token", "few", "many"])
def test_a_pass_is_that_of_the_float32_model_on_rounded_weights(drawn, ids, parts):
    with threads_of_blas(parts):
        found = nz.forward(drawn.to(dtype="bfloat16"), ids)
        expected = nz.forward(rounded(drawn), ids)
    assert found.last_hidden_state.dtype == np.float32
    np.testing.assert_allclose(found.last_hidden_state, expected.last_hidden_state, rtol=0, atol=2e-5)


@pytest.mark.parametrize("task", ["masked_lm", "sequence_classification", "question_answering", "token_classification"])
def test_a_head_its_trace_and_its_gradients_are_those_of_the_rounded_weights(drawn, task):
    weights = drawn if task == "masked_lm" else nz.init(drawn.config, task, seed=3)
    kept, expected = weights.to(dtype="bfloat16"), rounded(weights)
    labels = {"sequence_classification": {"labels": [0, 1, 0]}, "question_answering": {}}.get(task, {"labels": IDS % 2})
    if task == "question_answering":
        labels = {"start_positions": [0, 1, 2], "end_positions": [1, 2, 3]}
    head, given = getattr(nz, task), {"input_ids": IDS, "attention_mask": MASK, **labels}
    loss, right = head(kept, **given).loss, head(expected, **given).loss
    assert abs(loss - right) < 1e-5
    with nz.trace() as ours:
        head(kept, **given)
    with nz.trace() as theirs:
        head(expected, **given)
    assert list(ours) == list(theirs)
    for name, array in theirs.items():
        largest = np.abs(array[array > -1e9]).max(initial=1.0)  # but for masks
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=2e-5 * largest)
    _, gradients = nz.value_and_grad(head)(kept, **given)
    _, others = nz.value_and_grad(head)(expected, **given)
    assert gradients.keys() == others.keys()
    for name, array in others.items():
        assert gradients[name].dtype == np.float32
        np.testing.assert_allclose(gradients[name], array, rtol=0, atol=2e-5)


def test_generation_with_a_cache_chooses_the_tokens_of_the_rounded_weights():
    weights = nz.init(nz.BertConfig(**SIZES, is_decoder=True), "causal_lm", seed=3)
    found, expected = (
        nz.generate(of, IDS[:2, :4], max_new_tokens=6) for of in (weights.to(dtype="bfloat16"), rounded(weights))
    )
    np.testing.assert_array_equal(found, expected)


def test_matrices_take_half_the_memory(drawn):
    kept = nz.init(nz.NezhaConfig(num_hidden_layers=1)).to(dtype="bfloat16")
    assert sum(array.nbytes for array in kept.values()) < 0.502 * 4 * sum(array.size for array in kept.values())
    assert kept.dtype == "bfloat16" and repr(kept).endswith("parameters, bfloat16)")
    assert all(isinstance(array, NarrowMatrix) == (array.ndim == 2) for array in drawn.to(dtype="bfloat16").values())


def test_what_is_saved_is_bfloat16_and_comes_back_bit_by_bit(drawn, tmp_path):
    kept = drawn.to(dtype="bfloat16")
    kept.save(tmp_path)
    assert {entry.dtype for entry in read_header(tmp_path / "model.safetensors").values()} == {"BF16"}
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    for again in (nz.load(tmp_path, dtype="bfloat16"), nz.load(tmp_path, dtype="bfloat16", mmap=False)):
        assert again.keys() == kept.keys() and again.dtype == "bfloat16"
        for name, array in kept.items():
            np.testing.assert_array_equal(np.asarray(again[name]), np.asarray(array))
    wide = nz.load(tmp_path)
    assert wide.dtype == np.float32
    for name, array in kept.items():
        np.testing.assert_array_equal(wide[name], np.asarray(array))


def test_pytorch_reads_what_is_saved_and_its_dtype_is_known(tmp_path):
    torch = pytest.importorskip("torch", reason="it reads the file")
    from safetensors.torch import load_file

    kept = nz.init(CONFIGS["bert"], seed=3).to(dtype=torch.bfloat16)
    kept.save(tmp_path)
    tensors = {name.removeprefix("bert."): tensor for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    for name, array in kept.items():
        np.testing.assert_array_equal(tensors[name].float().numpy(), np.asarray(array))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_file_of_another_dtype_is_rounded(drawn, dtype, tmp_path):
    drawn.to(dtype=dtype).save(tmp_path)
    loaded, expected = nz.load(tmp_path, dtype="bfloat16"), drawn.to(dtype=dtype).to(dtype="bfloat16")
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(loaded[name]), np.asarray(array))


def test_a_mapped_file_that_is_changed_in_place_is_noticed(tmp_path):
    nz.init(CONFIGS["nezha"]).to(dtype="bfloat16").save(tmp_path)
    loaded = nz.load(tmp_path, dtype="bfloat16")
    with open(tmp_path / "model.safetensors", "ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="changed in place"):
        nz.forward(loaded, IDS)


def test_weights_go_into_bfloat16_and_out_of_it(drawn):
    kept = drawn.to(dtype="bfloat16")
    assert all(kept.to(device="cpu")[name] is array for name, array in kept.items())
    assert kept.to(dtype=kept.dtype).dtype == "bfloat16"
    for dtype in ("float16", "float32", "float64"):
        back = kept.to(dtype=dtype)
        assert back.dtype == dtype
        for name, array in kept.items():
            np.testing.assert_array_equal(back[name], np.asarray(array).astype(dtype))
    larger = kept.resize_token_embeddings(70)
    assert nz.forward(larger, [[65, 2]]).last_hidden_state.shape == (1, 2, 32)


def test_a_head_that_is_drawn_is_kept_in_bfloat16_and_named_alone(tmp_path):
    nz.init(CONFIGS["nezha"]).save(tmp_path)
    with pytest.warns(nz.HeadWarning, match=r"classifier\.weight, classifier\.bias drawn with seed 0"):
        loaded = nz.load(tmp_path, dtype="bfloat16", head="token_classification", num_labels=3)
    assert isinstance(loaded["classifier.weight"], NarrowMatrix)
    assert nz.token_classification(loaded, IDS).logits.shape == (3, 9, 3)


def test_a_checkpoint_is_converted_to_bfloat16(tmp_path):
    done = convert(nz.weights.checkpoint.SHIPPED, tmp_path / "new", dtype="bfloat16")
    assert done.dtype == "bfloat16" and done.bytes_after < 2.01 * 3975386
    assert nz.load(tmp_path / "new", dtype="bfloat16").dtype == "bfloat16"


def test_vectors_of_texts_are_nearly_those_of_the_float32_model():
    texts = ["房间很干净。", "服务太差了", "早餐不错，下次还来，交通也方便。"]
    found, expected = (nz.embed(texts, nz.load(dtype=dtype), nz.load_tokenizer()) for dtype in ("bfloat16", "float32"))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert found.dtype == np.float32 and ((found * expected).sum(axis=1) / lengths).min() > 0.999


@pytest.mark.parametrize("donate", [False, True])
def test_a_step_of_an_optimizer_begins_at_the_rounded_numbers(donate):
    weights = nz.init(CONFIGS["nezha"], seed=3)
    kept, expected = weights.to(dtype="bfloat16"), rounded(weights)
    steps = []
    for of in (kept, expected):
        _, gradients = nz.value_and_grad(nz.masked_lm)(of, IDS, labels=IDS)
        steps.append(lamb.step(of, gradients, lamb.init(of), learning_rate=1e-2, donate=donate)[0])
    for name, array in steps[1].items():
        np.testing.assert_allclose(np.asarray(steps[0][name]), np.asarray(array), rtol=0, atol=2e-5)


def trained(weights, *frozen):
    _, gradients = nz.value_and_grad(nz.masked_lm)(weights, IDS, labels=IDS)
    moved = {name: array for name, array in gradients.items() if name not in frozen}
    return lamb.step(weights, moved, lamb.init(weights), learning_rate=1e-3)[0]


def only_a_vector(weights):
    vector = "encoder.layer.0.output.dense.bias"
    return nz.Weights(
        {**weights, vector: np.float32(1.001) * np.asarray(weights[vector]) + np.float32(1e-4)}, weights.config
    )


@pytest.mark.parametrize(
    "change",
    [
        trained,
        lambda weights: trained(weights, "embeddings.word_embeddings.weight"),
        only_a_vector,
        lambda weights: weights.resize_token_embeddings(70),
        lambda weights: weights.resize_token_embeddings(40),
        lambda weights: weights.prune_heads({0: [1]}),
    ],
    ids=["a step", "a step without the embeddings", "one vector", "more words", "fewer words", "fewer heads"],
)
def test_no_number_is_lost_where_changed_weights_are_saved(change, tmp_path):
    made = change(nz.init(CONFIGS["nezha"], seed=3).to(dtype="bfloat16"))
    made.save(tmp_path)
    again = nz.load(tmp_path)
    for name, array in made.items():
        np.testing.assert_array_equal(again[name], np.asarray(array))


def test_weights_are_called_bfloat16_only_where_all_matrices_are():
    kept = nz.init(CONFIGS["nezha"], seed=3).to(dtype="bfloat16")
    for changed in (kept.resize_token_embeddings(70), kept.resize_token_embeddings(40), kept.prune_heads({0: [1]})):
        assert changed.dtype == "bfloat16"
    assert trained(kept).dtype == trained(kept, "embeddings.word_embeddings.weight").dtype == np.float32
    with pytest.raises(ValueError, match="expected float32 or float64 to train, got bfloat16"):
        first_step(kept, lamb)


def test_a_matrix_in_bfloat16_cannot_be_written_to():
    matrix = kept_in_bfloat16(np.arange(9.0).reshape(3, 3))
    for write in (
        lambda: np.add(matrix, 1, out=matrix),
        lambda: matrix.__iadd__(1),
        lambda: np.matmul(np.ones((3, 3), "float32"), matrix, out=matrix),
    ):
        with pytest.raises(TypeError, match="out: expected an array of NumPy"):
            write()
    for write in (
        lambda: np.copyto(matrix, 7.0),
        lambda: np.add.at(matrix, 0, 1.0),
        lambda: np.put(matrix, [0], 9.0),
        lambda: np.fill_diagonal(matrix, 9.0),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    np.testing.assert_array_equal(np.asarray(matrix), np.arange(9.0).reshape(3, 3))
    with pytest.raises(AttributeError, match=r"has no astype: np\.asarray\(matrix\)"):
        matrix.astype("float64")
    with pytest.raises(ValueError, match="ambiguous"):
        bool(matrix)


def test_a_product_may_be_written_over_its_factor(monkeypatch):
    monkeypatch.setattr(narrow_matrix, "TILE", 3)
    matrix, other = kept_in_bfloat16(np.arange(9.0).reshape(3, 3)), np.arange(9, dtype="float32").reshape(3, 3)
    expected = np.asarray(matrix) @ other
    np.testing.assert_array_equal(np.matmul(matrix, other, out=other), expected)


def test_rows_are_taken_in_any_way_that_numpy_knows():
    matrix = kept_in_bfloat16(np.arange(6.0).reshape(2, 3))
    expected, into = [[3, 4, 5]], np.empty((1, 3), np.float32)
    for found in (
        np.take(matrix, [1], axis=0),
        np.take(matrix, [1], 0),
        np.take(a=matrix, indices=[1], axis=0),
        np.take(matrix, [1], axis=-2),
        np.take(matrix, [1], axis=0, out=into),
    ):
        np.testing.assert_array_equal(found, expected)


def peak_of(run):
    """Return the most bytes that a function had at once."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_neither_rounding_nor_a_gradient_needs_a_large_matrix_in_float32():
    wide = np.random.default_rng(0).normal(size=(4000, 500))
    matrix, left = kept_in_bfloat16(wide), np.ones((3, 4000), np.float32)
    for run in (lambda: round_to_bits(wide), lambda: left @ matrix):
        assert peak_of(run) < 4 * wide.size + 8 * narrow_matrix.TILE * 4 - 2 * wide.size


def test_bfloat16_is_for_numpy_alone():
    weights = nz.init(CONFIGS["nezha"])
    with pytest.raises(ValueError, match="dtype: expected another one than bfloat16 with device='cuda'"):
        nz.load(dtype="bfloat16", device="cuda")
    strict = nz.Weights({name: xp.asarray(array) for name, array in weights.items()}, weights.config)
    with pytest.raises(ValueError, match='expected bfloat16 for arrays of NumPy alone: give device="cpu"'):
        strict.to(dtype="bfloat16")
    assert strict.to(dtype="bfloat16", device="cpu").dtype == "bfloat16"
    with pytest.raises(ValueError, match=r"^dtype: expected one of float16, float32, float64, got 'bfloat16'"):
        nz.init(CONFIGS["nezha"], dtype="bfloat16")


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_tile_of_float16_with_one_number_that_is_not_finite_is_the_same_in_float32(special):
    x = np.linspace(-3, 3, 5000).astype(np.float16)
    x[1234] = special
    np.testing.assert_array_equal(float16.widened(x), x.astype(np.float32))


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-7], ids=["normal", "few subnormal", "all subnormal"])
def test_small_numbers_of_float16_are_the_same_in_float32(scale):
    x = (scale * np.random.default_rng(0).normal(size=5000)).astype(np.float16)
    np.testing.assert_array_equal(float16.widened(x), x.astype(np.float32))


@pytest.mark.parametrize("rows", [1, TILE, TILE + 1, 3 * TILE - 1])
def test_no_number_is_left_out_at_the_edge_of_a_tile(rows):
    bits = (np.arange(rows) % 2**15).astype(np.uint16)
    np.testing.assert_array_equal(round_to_bits(widened(bits)), np.where(bits > 0x7F80, bits | 0x40, bits))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda weights: pickle.loads(pickle.dumps(weights))])
def test_copies_of_weights_in_bfloat16_are_in_bfloat16(copied):
    kept = nz.init(CONFIGS["nezha"], seed=3).to(dtype="bfloat16")
    found = copied(kept)
    assert found.dtype == "bfloat16"
    for name, array in kept.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(array))


def test_a_product_of_many_columns_is_divided_among_threads_with_blas_held_to_one_and_few_columns_are_not():
    matrix, seen = kept_in_bfloat16(np.ones((2048, 1024))), []

    def watched(most, run):
        seen.append(threads._blas().num_threads)
        return share_out(most, run)

    share_out = narrow_matrix.share_out
    with threads_of_blas(4), pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow_matrix, "share_out", watched)
        for columns, expected in ((narrow_matrix.MANY - 1, []), (narrow_matrix.MANY, [1])):
            matrix @ np.ones((1024, columns), np.float32)
            assert seen == expected
        with threads.BLAS_THREADS.held_to_one() as share:  # a pass: its share of the threads stays whole
            matrix @ np.ones((1024, narrow_matrix.MANY), np.float32)
            assert (seen, share, threads._free.get()) == ([1, 1], 4, 4)
        assert threads._blas().num_threads == 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_pass_of_few_tokens_holds_blas_to_one_thread_where_the_encoders_matrices_are_narrow(dtype):
    wide, seen = nz.init(CONFIGS["nezha"], seed=3), []
    narrow = wide.to(dtype=dtype)
    embeddings = "embeddings.word_embeddings.weight"
    mixture = nz.Weights({**wide, embeddings: kept_in_bfloat16(wide[embeddings])}, wide.config)

    def watched(*arguments, **options):
        seen.append(threads._blas().num_threads)
        return definition(*arguments, **options)

    definition = model.encoder.definition
    for weights, expected in ((narrow, 1), (wide, 4), (mixture, 4)):
        for ids in (IDS[:1, :1], IDS):
            with threads_of_blas(4), pytest.MonkeyPatch.context() as patch:
                patch.setattr(model.encoder, "definition", watched)
                nz.forward(weights, ids)
            assert set(seen) == {expected}
            seen.clear()


@pytest.mark.parametrize("kept", [kept_in_bfloat16, kept_in_float16])
def test_a_product_of_many_columns_needs_a_tile_for_each_thread(kept):
    matrix = kept(np.ones((6000, 500)))
    left, right = np.ones((narrow_matrix.MANY, 6000), np.float32), np.ones((500, narrow_matrix.MANY), np.float32)
    tile = 2**18
    for run, result in ((lambda: matrix @ right, 6000), (lambda: left @ matrix, 2 * 500)):
        with threads_of_blas(2), pytest.MonkeyPatch.context() as patch:
            patch.setattr(narrow_matrix, "TILE_OF_MANY", tile)
            peak = peak_of(run)
        assert peak < 4 * (2 * tile + narrow_matrix.MANY * result + 2 * TILE) < 4 * matrix.size
