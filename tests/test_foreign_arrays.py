"""Arrays of libraries that layers cannot compute with are refused in one sentence, which says what to do.

The libraries are not installed for the tests. The stand-ins have what is looked at: the module of the class, a shape,
and the methods that make an array of NumPy.
"""

import sys
import types
from unittest import mock

import numpy as np
import pytest

import nezha_np as nz
from nezha_np import arrays

IDS = np.array([[2, 3, 4]])


def stand_in(module, name, *methods):
    """Make an array of a library that is not installed."""
    kind = type(name, (), dict.fromkeys(methods, lambda self, *_, **__: np.asarray(IDS)))
    kind.__module__ = module
    value = kind()
    value.shape, value.ndim, value.dtype = IDS.shape, IDS.ndim, IDS.dtype
    return value


FOREIGN = [
    (stand_in("dask.array.core", "Array", "__array__"), "dask.Array: pass np.asarray(x)"),
    (stand_in("mlx.core", "array", "__array__", "__array_namespace__"), "mlx.array: pass np.asarray(x)"),
    (stand_in("scipy.sparse._csr", "csr_array", "toarray", "todense"), "scipy.csr_array: pass x.toarray()"),
    (
        stand_in("sparse.numba_backend._coo.core", "COO", "todense", "__array__", "__array_namespace__"),
        "sparse.COO: pass x.todense()",
    ),
    (stand_in("pandas.core.frame", "DataFrame", "__array__"), "pandas.DataFrame: pass np.asarray(x)"),
    (
        stand_in("tensorflow.python.framework.ops", "EagerTensor", "__array__"),
        "tensorflow.EagerTensor: pass np.asarray(x)",
    ),
    (np.ma.masked_array(IDS, mask=[[False, True, False]]), "numpy.MaskedArray: pass x.filled(value)"),
    (IDS.view(np.matrix), "numpy.matrix: pass np.asarray(x)"),
]
NAMES = [found.partition(":")[0] for _, found in FOREIGN]


@pytest.fixture(scope="module")
def weights():
    return nz.load()


@pytest.mark.parametrize(("array", "found"), FOREIGN, ids=NAMES)
def test_an_array_that_layers_cannot_compute_with_is_refused_with_what_to_do(weights, array, found):
    def refused(call):
        with pytest.raises(TypeError) as error:
            call()
        return str(error.value)

    numbers = f"expected an array or lists of numbers, got {found}"
    assert refused(lambda: nz.forward(weights, array)) == f"input_ids: {numbers}"
    assert refused(lambda: nz.forward(weights, IDS, attention_mask=array)) == f"attention_mask: {numbers}"
    assert refused(lambda: nz.masked_lm(weights, IDS, labels=array)) == f"labels: {numbers}"
    assert refused(lambda: nz.forward(weights, inputs_embeds=array)) == (
        f"inputs_embeds: expected a float array of numpy, as the weights are, got {found}"
    )
    kind, _, advice = found.partition(":")
    tensors = {**weights, "pooler.dense.bias": array}
    assert refused(lambda: nz.forward(tensors, IDS, config=weights.config)) == (
        f"weights: expected arrays of floats, got {kind} for pooler.dense.bias:{advice}"
    )
    assert not arrays.is_array(array)
    if not isinstance(array, np.ndarray):  # a layer that is called by itself
        assert refused(lambda: arrays.namespace(array)) == (
            f"expected an array of a library that speaks the array-API standard, got {found}"
        )


def test_a_subclass_that_is_a_plain_array_is_one(weights, tmp_path):
    mapped = np.memmap(tmp_path / "ids", dtype=np.int64, mode="w+", shape=IDS.shape)
    mapped[...] = IDS
    expected = nz.forward(weights, IDS).last_hidden_state
    assert np.array_equal(nz.forward(weights, mapped).last_hidden_state, expected)
    assert np.array_equal(nz.forward(weights, memoryview(IDS)).last_hidden_state, expected)


@pytest.mark.parametrize("texts", ["房间", ["房间", "很大"], [["2", "3"]], np.array(["房间"]).tolist()])
def test_texts_are_not_ids_and_the_error_says_what_makes_them_ids(weights, texts):
    with pytest.raises(TypeError, match=r"^input_ids: expected .* got str: nezha_np\.encode makes ids of texts$"):
        nz.forward(weights, texts)


# -------------------------------------------------------------------------------------- libraries that are not complete


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_without_array_api_compat_an_array_that_needs_it_is_refused_with_the_command(weights, library, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    monkeypatch.delitem(sys.modules, f"array_api_compat.{library}", raising=False)
    arrays._wrapped_namespace.cache_clear()
    array = stand_in(library, "Tensor")
    message = f"arrays of {library} need the package array-api-compat: pip install array-api-compat"
    try:
        with pytest.raises(ModuleNotFoundError) as error:
            nz.Weights({**weights, "pooler.dense.bias": array}, weights.config)
    finally:
        arrays._wrapped_namespace.cache_clear()
    assert str(error.value) == message
    with pytest.raises(TypeError, match=rf"^input_ids: expected lists or numpy arrays, got {library}\.Tensor"):
        nz.forward(weights, array)


def test_real_tensors_of_torch_without_array_api_compat_are_refused_with_the_command(weights, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    monkeypatch.delitem(sys.modules, "array_api_compat.torch", raising=False)
    arrays._wrapped_namespace.cache_clear()
    tensors = {name: torch.tensor(np.array(array)) for name, array in weights.items()}
    try:
        with pytest.raises(
            ModuleNotFoundError, match=r"^arrays of torch need the package array-api-compat: pip install"
        ):
            nz.forward(tensors, IDS, config=weights.config)
    finally:
        arrays._wrapped_namespace.cache_clear()


def test_a_gpu_without_cupy_is_refused_with_the_command(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    for call in (lambda: weights.to(device="cuda"), lambda: nz.load(device="cuda:1")):
        with pytest.raises(ModuleNotFoundError, match=r"^device: 'cuda(:1)?' needs CuPy: pip install .nezha-np\["):
            call()


class NoGpu(RuntimeError):
    """What CuPy raises where CUDA finds no GPU."""


def cupy_that(fails_with, message):
    def device(number):
        raise fails_with(message)

    runtime = types.SimpleNamespace(CUDARuntimeError=NoGpu)
    found = types.ModuleType("cupy")
    found.cuda = types.SimpleNamespace(Device=device, runtime=runtime)
    found.__spec__ = mock.Mock()
    return found


def test_cupy_where_there_is_no_gpu_is_refused_in_one_sentence(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy_that(NoGpu, "cudaErrorNoDevice: no CUDA-capable device is detected"))
    with pytest.raises(ValueError, match=r"^device: expected a GPU that CUDA can use, got 'cuda:1': cudaErrorNoDevice"):
        weights.to(device="cuda:1")


def test_cupy_that_cannot_be_imported_is_refused_in_one_sentence(weights, monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"^device: expected a CuPy that can be imported, got ImportError: libcudart"):
        weights.to(device="cuda")
