"""The kernels for CuPy are their definitions: on a GPU where there is one, and on the CPU in any case.

On the CPU their CUDA C is compiled as C++, as it stands: a small header gives it threads (fibers, which take turns at
barriers) and float16. A stand-in for CuPy drives it, so that the Python side runs too, with every head. It counts
launches, refuses what a GPU would refuse (a wrong number of arguments, too large a block, an array that is not
contiguous), notices what is written or read outside of an array, and raises where the host would wait for the device.
"""

import contextlib
import ctypes
import functools
import importlib
import shutil
import subprocess
import sys
import tempfile
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cases import EVERY_HEAD, LONGEST, arrays_of, cases, each_array, weights_for
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz
from nezha_np import arrays
from nezha_np.layers.activations import gelu
from nezha_np.layers.attention import attention_probs
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.relative_position import position_context, relative_position_table
from nezha_np.mechanism import layer
from nezha_np.model import model

COMPILER = shutil.which("g++") or shutil.which("c++")
NVCC = shutil.which("nvcc")
TOLERANCES = {"float32": 2e-6, "float16": 2e-3}  # relative to the largest number that goes in or comes out

# --------------------------------------------------------------------------------------------- CUDA C on the CPU

HEADER = r"""
#include <cmath>
#include <cstring>
#include <functional>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__ static
#define __shared__ static

struct Place { unsigned x; };
static Place threadIdx, blockIdx, blockDim, gridDim;

struct __half { _Float16 value; };
static inline float __half2float(__half x) { return (float)x.value; }
static inline __half __float2half_rn(float x) { return {(_Float16)x}; }

// Threads are fibers: each runs up to a barrier, of its warp or of its block, then the next one does.
enum State { AT_WARP, AT_BLOCK, ENDED };
static ucontext_t scheduler, fibers[1024];
static State states[1024];
static std::function<void()> body;

static void leave(State state) {
    states[threadIdx.x] = state;
    swapcontext(&fibers[threadIdx.x], &scheduler);
}

static void __syncthreads() { leave(AT_BLOCK); }

static float __shfl_xor_sync(unsigned, float value, int step) {
    static float exchanged[1024];
    exchanged[threadIdx.x] = value;
    leave(AT_WARP);
    float other = exchanged[threadIdx.x ^ step];
    leave(AT_WARP);
    return other;
}
"""

LAUNCHER = r"""
static void run_fiber() {
    body();
    leave(ENDED);
}

// A warp runs until all its threads are at a barrier of the block, or ended: a warp ahead of the others shows where one
// is missing. Every other round goes backwards, so that each is ahead once. False: threads are at different places.
static bool run_warp(unsigned first) {
    for (unsigned round = 0; round == 0 || states[first] == AT_WARP; ++round) {
        for (unsigned i = 0; i < 32; ++i) {
            threadIdx.x = first + (round % 2 ? 31 - i : i);
            swapcontext(&scheduler, &fibers[threadIdx.x]);
        }
        for (unsigned i = 1; i < 32; ++i) {
            if (states[first + i] != states[first]) return false;
        }
    }
    return true;
}

static bool run_block(unsigned threads) {
    static std::vector<char> stacks(1024 * 65536);
    for (unsigned i = 0; i < threads; ++i) {
        getcontext(&fibers[i]);
        fibers[i].uc_stack.ss_sp = stacks.data() + i * 65536;
        fibers[i].uc_stack.ss_size = 65536;
        fibers[i].uc_link = nullptr;
        makecontext(&fibers[i], run_fiber, 0);
        states[i] = AT_BLOCK;
    }
    for (unsigned round = 0; states[0] != ENDED; ++round) {
        for (unsigned first = 0; first < threads; first += 32) {
            if (!run_warp(round % 2 ? threads - 32 - first : first)) return false;
        }
        for (unsigned i = 1; i < threads; ++i) {
            if (states[i] != states[0]) return false;
        }
    }
    return true;
}

template <typename Kind> bool fits(char given, void* value) {
    if (std::is_pointer<Kind>::value) return given == 'p' || (given == 'i' && *(long long*)value == 0);
    return given == (std::is_same<Kind, double>::value ? 'f' : std::is_same<Kind, long long>::value ? 'i' : '?');
}

template <typename... Kinds, std::size_t... I>
int run_grid(void (*kernel)(Kinds...), long long blocks, unsigned threads, const char* given, void** values,
             std::index_sequence<I...>) {
    if (std::strlen(given) != sizeof...(Kinds) || !(fits<Kinds>(given[I], values[I]) && ...)) return 1;
    body = [=] { kernel(*static_cast<Kinds*>(values[I])...); };
    gridDim.x = blocks, blockDim.x = threads;
    for (long long block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        if (!run_block(threads)) return 2;
    }
    return 0;
}

template <typename... Kinds>
int run(void (*kernel)(Kinds...), long long blocks, unsigned threads, const char* given, void** values) {
    return run_grid(kernel, blocks, threads, given, values, std::index_sequence_for<Kinds...>());
}
"""

ENTRANCE = """
extern "C" int run_{name}(long long blocks, unsigned threads, const char* given, void** values) {{
    return run({name}, blocks, threads, given, values);
}}
"""
FAILURES = {1: "wrong arguments", 2: "some threads wait at a barrier that others do not come to"}


@functools.cache
def compiled_for_the_host(code, options, names):
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        Path(folder, "cuda_fp16.h").write_text(HEADER)
        source.write_text(code + LAUNCHER + "".join(ENTRANCE.format(name=name) for name in names))
        command = [COMPILER, "-O1", "-shared", "-fPIC", f"-I{folder}", *options, "-o", library, source]
        compiled = subprocess.run(command, capture_output=True, text=True)
        assert compiled.returncode == 0, compiled.stderr
        return ctypes.CDLL(str(library))


def why_no_stand_in():
    if COMPILER is None:
        return "no C++ compiler to stand in for CUDA's"
    command = [COMPILER, "-std=c++17", "-x", "c++", "-fsyntax-only", "-"]
    if subprocess.run(command, input=HEADER, capture_output=True, text=True).returncode:
        return f"{COMPILER} has no _Float16 or no ucontext.h: it cannot stand in for CUDA's compiler"
    return None


# ------------------------------------------------------------------------------------------ a stand-in for CuPy

GUARD = 64  # numbers before and after an array
LAUNCHES = Counter()  # of each kernel


class ndarray:
    """An array that is not to be read: what NumPy computes with, hidden from the host."""

    __module__ = "cupy"
    device = "a stand-in for a GPU"

    def __init__(self, data, guarded=None):
        self.data, self.guarded = data, guarded

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    flags = property(lambda self: self.data.flags)
    T = property(lambda self: ndarray(self.data.T))

    def reshape(self, *shape):
        return ndarray(self.data.reshape(*shape))

    def swapaxes(self, one, other):
        return ndarray(self.data.swapaxes(one, other))

    def __getitem__(self, index):
        return ndarray(self.data[unwrapped(index)])

    def __iadd__(self, other):
        self.data += unwrapped(other)
        return self

    def refuse(self, *arguments, **options):
        raise AssertionError("a device array was read back inside a forward pass")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __array__ = refuse
    get = item = tolist = refuse


def operator(name):
    def apply(self, *others):
        return wrapped(getattr(self.data, name)(*map(unwrapped, others)))

    return apply


for operation in ["add", "sub", "mul", "truediv", "mod", "matmul", "pow", "and", "or"]:
    for side in ("", "r"):
        setattr(ndarray, f"__{side}{operation}__", operator(f"__{side}{operation}__"))
for operation in ["lt", "le", "gt", "ge", "eq", "ne", "neg", "invert", "abs"]:
    setattr(ndarray, f"__{operation}__", operator(f"__{operation}__"))


def unwrapped(value):
    if isinstance(value, ndarray):
        return value.data
    if isinstance(value, (tuple, list)):
        return type(value)(map(unwrapped, value))
    if isinstance(value, np.ndarray):
        raise TypeError("an array of the host among arrays of the device: CuPy does not take it")
    return value


def wrapped(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    return type(value)(map(wrapped, value)) if isinstance(value, (tuple, list)) else value


def empty(shape, dtype):
    """Make an array among guards, all of it NaN: what is not written, or read from outside, shows."""
    whole = np.full(int(np.prod(shape)) + 2 * GUARD, np.nan, dtype)
    return ndarray(whole[GUARD:-GUARD].reshape(shape), whole)


def asarray(values, dtype=None, device=None):
    values = np.asarray(values.data if isinstance(values, ndarray) else values, dtype)
    if values.dtype.kind != "f" or not values.flags.c_contiguous:
        return ndarray(values.copy(order="K"))
    new = empty(values.shape, values.dtype)
    new.data[...] = values
    return new


class Namespace:
    """NumPy's functions on hidden arrays."""

    def __getattr__(self, name):
        value = getattr(np, name)
        if isinstance(value, type) or not callable(value):
            return value

        def call(*arguments, **options):
            options.pop("device", None)
            options = {key: unwrapped(option) for key, option in options.items()}
            return wrapped(value(*map(unwrapped, arguments), **options))

        if isinstance(value, np.ufunc):
            call.at = lambda *arguments: value.at(*map(unwrapped, arguments))
        return call

    asarray = staticmethod(asarray)


class RawModule:
    """The kernels of a source, run on the CPU."""

    def __init__(self, *, code, options):
        self.code, self.options = code, options

    def get_function(self, name):
        def launch(grid, block, values):
            cuda = sys.modules["nezha_np.kernels.cuda"]
            library = compiled_for_the_host(self.code, self.options, cuda.FUNCTIONS)
            assert len(grid) == len(block) == 1
            assert 1 <= grid[0] <= cuda.BLOCKS < 2**31 and block[0] in range(32, 1025, 32)
            kinds, held = "", []
            for value in values:
                if isinstance(value, ndarray):
                    assert value.flags.c_contiguous
                    kinds, held = kinds + "p", [*held, ctypes.c_void_p(value.data.ctypes.data)]
                else:
                    assert type(value) in (int, float)
                    kind, c_type = ("i", ctypes.c_longlong) if type(value) is int else ("f", ctypes.c_double)
                    kinds, held = kinds + kind, [*held, c_type(value)]
            pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
            function = getattr(library, f"run_{name}")
            failure = function(ctypes.c_longlong(grid[0]), ctypes.c_uint(block[0]), kinds.encode(), pointers)
            assert not failure, f"{name}: {FAILURES[failure]}"
            for value in values:
                if isinstance(value, ndarray) and value.guarded is not None:
                    assert np.isnan([value.guarded[:GUARD], value.guarded[-GUARD:]]).all(), f"{name} wrote outside"
            LAUNCHES[name] += 1

        return launch


class StandIn(Namespace):
    """What the kernels use of CuPy."""

    ndarray, RawModule = ndarray, RawModule
    empty = staticmethod(empty)


def host(array):
    """Bring an array of CuPy or of its stand-in to NumPy, outside of a forward."""
    return array.data if isinstance(array, ndarray) else array.get()


# ----------------------------------------------------------------------------------------------------- both of them


def why_no_gpu():
    try:
        import cupy

        return None if cupy.cuda.runtime.getDeviceCount() else "CuPy finds no CUDA device"
    except Exception as error:  # CuPy missing, or no driver: each is a reason of its own
        return f"{type(error).__name__}: {error}".splitlines()[0]


@contextlib.contextmanager
def kernels_with(modules):
    """Load the kernels anew with `modules` in place of those of their names."""
    files = ("cuda", "cupy_rows", "cupy_attention", "cupy_gradients", "cupy")
    names = [f"nezha_np.kernels.{name}" for name in files]
    with pytest.MonkeyPatch.context() as patch:
        for title, module in modules.items():
            patch.setitem(sys.modules, title, module)
        patch.setattr(layer, "_kernels", {})
        before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        arrays._wrapped_namespace.cache_clear()
        module = importlib.import_module(names[-1])
        yield types.SimpleNamespace(**vars(module), cuda=sys.modules[names[0]], cupy=sys.modules["cupy"])
        arrays._wrapped_namespace.cache_clear()
        for name in names:
            sys.modules.pop(name)
        sys.modules.update(before)


NO_STAND_IN, NO_GPU = why_no_stand_in(), why_no_gpu()
with_the_stand_in = pytest.mark.skipif(NO_STAND_IN is not None, reason=str(NO_STAND_IN))
on_a_gpu = pytest.mark.skipif(NO_GPU is not None, reason=str(NO_GPU))
PLACES = [pytest.param("host", marks=with_the_stand_in), pytest.param("gpu", marks=[pytest.mark.gpu, on_a_gpu])]


@pytest.fixture(scope="module", params=PLACES)
def kernels(request):
    stand_ins = {"cupy": StandIn(), "array_api_compat.cupy": Namespace()} if request.param == "host" else {}
    with kernels_with(stand_ins) as module:
        yield module


def close(found, expected, dtype, *given, layers=1):
    """Hold a result equal to the definition's on the same numbers in float64; each of several layers rounds."""
    found = host(found)
    assert found.shape == expected.shape and found.dtype == dtype
    largest = max(np.abs(array).max(initial=1e-30) for array in (expected, *given))
    assert np.abs(found - expected).max(initial=0.0) <= layers * TOLERANCES[dtype] * largest


def drawn(seed, shape, dtype, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


def laid_out(kernels, array, how):
    """Put an array on the device: contiguous, every other number of a larger one, or with its last axes turned."""
    cupy = kernels.cupy
    if how == "strided":
        there = cupy.asarray(np.repeat(array, 2, axis=-1))[..., ::2]
    elif how == "turned" and array.ndim > 1:
        there = cupy.asarray(np.ascontiguousarray(array.swapaxes(-1, -2))).swapaxes(-1, -2)
    else:
        there = cupy.asarray(array)
    assert np.array_equal(host(there), array)
    return there


DTYPES = st.sampled_from(sorted(TOLERANCES))
LAYOUTS = st.sampled_from(["contiguous", "strided", "turned"])
SEEDS = st.integers(0, 99)
WIDTHS = st.one_of(st.integers(1, 40), st.sampled_from([64, 255, 256, 257, 600]))


# ---------------------------------------------------------------------------------------------- kernel == definition


@examples(25)
@given(dtype=DTYPES, layout=LAYOUTS, seed=SEEDS, rows=st.integers(0, 5), width=WIDTHS, scale=st.floats(0.01, 30.0))
def test_gelu(kernels, dtype, layout, seed, rows, width, scale):
    x = drawn(seed, (rows, width), dtype, scale)
    there = laid_out(kernels, x, layout)
    close(kernels.KERNELS[gelu][0](there), gelu.definition(x.astype(float)), dtype, x)
    assert np.array_equal(host(there), x)


def test_gelu_of_nan_of_infinity_and_of_one_number(kernels):
    x = np.array([np.nan, np.inf, -np.inf], "float32")
    with np.errstate(invalid="ignore"):
        expected = gelu.definition(x)
    assert np.array_equal(host(kernels.gelu_kernel(kernels.cupy.asarray(x))), expected, equal_nan=True)
    one = np.array(1.0, "float32")
    close(kernels.gelu_kernel(kernels.cupy.asarray(one)), gelu.definition(one), "float32")


@examples(25)
@given(dtype=DTYPES, layout=LAYOUTS, seed=SEEDS, rows=st.integers(0, 4), width=WIDTHS, mean=st.floats(-3.0, 3.0))
def test_layer_norm(kernels, dtype, layout, seed, rows, width, mean):
    x = drawn(seed, (rows, width), dtype) + np.dtype(dtype).type(mean)
    x[:, : min(width, 2)] += np.array([1.0, -1.0], dtype)[:width]  # a norm of equal numbers would amplify a rounding
    gamma, beta = drawn(seed + 1, width, dtype), drawn(seed + 2, width, dtype)
    there = laid_out(kernels, x, layout)
    vectors = [laid_out(kernels, vector, layout) for vector in (gamma, beta)]
    found = kernels.KERNELS[layer_norm][0](there, *vectors, eps=1e-5)
    close(found, layer_norm.definition(x.astype(float), gamma.astype(float), beta.astype(float), eps=1e-5), dtype, x)
    assert np.array_equal(host(there), x)


@examples(15)
@given(dtype=DTYPES, layout=LAYOUTS, seed=SEEDS, shape=st.tuples(*[st.integers(1, 6)] * 4), biased=st.booleans())
def test_linear(kernels, dtype, layout, seed, shape, biased):
    batch, length, features, out = shape
    x, weight = drawn(seed, (batch, length, features), dtype), drawn(seed + 1, (out, features), dtype)
    given_ = [x, weight, drawn(seed + 2, out, dtype)][: 2 + biased]
    there = [laid_out(kernels, array, layout) for array in given_]
    found = kernels.KERNELS[linear][0](*there)
    close(found, linear.definition(*(array.astype(float) for array in given_)), dtype, *given_)
    assert all(np.array_equal(host(one), array) for one, array in zip(there, given_, strict=True))


def masks(seed, batch, queries, keys, kind):
    """Draw an additive mask of each shape that the model makes, with a row that sees no key."""
    if kind is None:
        return None
    shape = (batch if "texts" in kind else 1, 1, queries if "queries" in kind else 1, keys)
    attended = np.random.default_rng(seed).random(shape) < 0.6
    attended[0, 0, 0] = False
    return (1.0 - attended.astype("float32")) * np.finfo("float32").min


MASKS = st.sampled_from([None, "one", "texts", "queries", "texts and queries"])


@examples(25)
@given(dtype=DTYPES, layout=LAYOUTS, seed=SEEDS, shape=st.tuples(*[st.integers(1, 3)] * 3), keys=WIDTHS, kind=MASKS)
def test_attention_probs(kernels, dtype, layout, seed, shape, keys, kind):
    scores = drawn(seed, (*shape, keys), dtype, 4.0)
    mask = masks(seed, shape[0], shape[2], keys, kind)
    there = laid_out(kernels, scores, layout)
    mask_there = None if mask is None else laid_out(kernels, mask, layout)
    found = kernels.KERNELS[attention_probs][0](there, mask_there, scale=0.3)
    close(found, attention_probs.definition(scores.astype(float), mask, scale=0.3), dtype, np.ones(1))
    assert np.array_equal(host(there), scores)
    if mask is not None:
        assert np.allclose(host(found)[0, :, 0], 1.0 / keys, rtol=1e-3)  # a row that sees no key is uniform


@pytest.mark.parametrize("largest", [0, 3, 40, 299, 599])
def test_a_score_that_would_overflow_is_the_largest_wherever_it_stands(kernels, largest):
    scores = np.zeros((1, 1, 1, 600), "float32")
    scores[..., largest] = 400.0
    found = kernels.attention_probs_kernel(kernels.cupy.asarray(scores), scale=1.0)
    close(found, attention_probs.definition(scores.astype(float), scale=1.0), "float32")


def test_attention_probs_leave_masks_of_other_kinds_to_the_definition(kernels):
    scores = kernels.cupy.asarray(np.ones((2, 2, 3, 3), "float32"))
    for mask in (np.zeros((2, 2, 3, 3), "float32"), np.zeros((2, 1, 1, 1), "float32"), np.zeros((2, 1, 3, 3))):
        assert kernels.attention_probs_kernel(scores, kernels.cupy.asarray(mask), scale=1.0) is NotImplemented


@examples(40)
@given(
    dtype=DTYPES,
    layout=LAYOUTS,
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 9)),
    keys=WIDTHS,
    reach=st.sampled_from([0, 1, 2, 5, 64]),
    past=st.integers(0, 300),
)
def test_position_context(kernels, dtype, layout, seed, shape, keys, reach, past):
    probs = np.random.default_rng(seed).dirichlet(np.ones(keys), shape).astype(dtype)
    table = relative_position_table(np.zeros(1, dtype), head_size=4, max_relative_position=reach)
    there = laid_out(kernels, probs, layout)
    found = kernels.KERNELS[position_context][0](there, kernels.cupy.asarray(table), past=past)
    close(found, position_context.definition(probs.astype(float), table.astype(float), past=past), dtype, np.ones(1))
    assert np.array_equal(host(there), probs)


def test_a_block_takes_several_rows_where_there_are_more_than_blocks(kernels, monkeypatch):
    monkeypatch.setattr(kernels.cuda, "BLOCKS", 3)
    x = drawn(0, (11, 5), "float32")
    there, ones = kernels.cupy.asarray(x), kernels.cupy.asarray(np.ones(5, "float32"))
    close(kernels.gelu_kernel(there), gelu.definition(x.astype(float)), "float32")
    found = kernels.layer_norm_kernel(there, ones, ones, eps=1e-5)
    close(found, layer_norm.definition(x.astype(float), np.ones(5), np.ones(5), eps=1e-5), "float32")
    table = relative_position_table(np.zeros(1, "float32"), head_size=4, max_relative_position=2)
    probs = np.random.default_rng(0).dirichlet(np.ones(6), (2, 2, 4)).astype("float32")
    expected = attention_probs.definition(probs.astype(float), scale=1.0)
    close(kernels.attention_probs_kernel(kernels.cupy.asarray(probs), scale=1.0), expected, "float32")
    found = kernels.position_context_kernel(kernels.cupy.asarray(probs), kernels.cupy.asarray(table))
    close(found, position_context.definition(probs.astype(float), table.astype(float)), "float32")
    config = small("nezha")
    weights = weights_of(config, "float32")
    x = drawn(1, (3, 4, config.hidden_size), "float32")
    close(model_there(kernels, weights, x), model_here(weights, x), "float32", layers=5)


def small(family, **options):
    return nz.families.family.FAMILIES[family].config(
        vocab_size=11,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=400,
        **options,
    )


def weights_of(config, dtype, seed=0):
    drawn_, generator = nz.init(config), np.random.default_rng(seed)
    tensors = {
        name: (0.4 * generator.normal(size=array.shape) + name.endswith("LayerNorm.weight")).astype(dtype)
        for name, array in drawn_.items()
    }
    return nz.Weights(tensors, config)


def moved(kernels, weights):
    return nz.Weights({name: kernels.cupy.asarray(array) for name, array in weights.items()}, weights.config)


def model_there(kernels, weights, x):
    return nz.forward(moved(kernels, weights), inputs_embeds=kernels.cupy.asarray(x)).last_hidden_state


def model_here(weights, x):
    with nz.definitions():
        return nz.forward(weights.to(dtype="float64"), inputs_embeds=x.astype(float)).last_hidden_state


ATTENTIONS = {
    "nezha": ("nezha", {"max_relative_position": 3}),
    "nezha, far": ("nezha", {"max_relative_position": 64}),
    "bert": ("bert", {}),
    "bert, relative_key": ("bert", {"position_embedding_type": "relative_key"}),
    "convbert": ("convbert", {"embedding_size": 16}),
}


@pytest.mark.parametrize("title", ATTENTIONS)
@examples(8)
@given(
    dtype=DTYPES,
    seed=SEEDS,
    batch=st.integers(1, 2),
    queries=st.integers(1, 4),
    past=st.sampled_from([0, 1, 7, 70, 300]),
    crossed=st.booleans(),
    kind=MASKS,
    switched=st.booleans(),
)
def test_self_attention(kernels, title, dtype, seed, batch, queries, past, crossed, kind, switched):
    family, options = ATTENTIONS[title]
    config = small(family, **options)
    weights = weights_of(config, dtype, seed)
    path, heads, size = "encoder.layer.1.attention.self", config.attention_heads, config.head_size
    x = drawn(seed, (batch, queries, 16), dtype)
    given_ = {}
    if family != "convbert" and past:
        if crossed:
            given_["states"] = drawn(seed + 1, (batch, past, 16), dtype)
        else:
            given_["past"] = tuple(drawn(seed + i, (batch, heads, past, size), dtype) for i in (2, 3))
    keys = past if "states" in given_ else queries + (past if "past" in given_ else 0)
    if kind is not None:
        given_["mask"] = masks(seed, batch, queries, keys, kind)
    if switched:
        given_["head_mask"] = np.random.default_rng(seed).random(heads).astype(dtype)
    position = past if "past" in given_ else 0

    def run(convert, weights, **options):
        def take(value):
            return tuple(map(take, value)) if isinstance(value, tuple) else convert(value)

        there = {name: take(value) for name, value in given_.items()}
        table = model.cached_table(weights)
        found = model.self_attention(take(x), weights.at(path), table=table, position=position, **there, **options)
        return found, there

    with nz.definitions():
        (context, probs, cache), _ = run(lambda array: array.astype(float), weights.to(dtype="float64"))
    weights = moved(kernels, weights)
    found, there = run(kernels.cupy.asarray, weights)
    for one, expected in zip((*found[:2], *found[2]), (context, probs, *cache), strict=True):
        close(one, expected, dtype, np.full(1, 4.0), layers=5)
    for name, array in given_.items():  # none is written to
        pairs = zip(there[name], array, strict=True) if name == "past" else [(there[name], array)]
        assert all(np.array_equal(host(one), before) for one, before in pairs), name
    (again, none, _), _ = run(kernels.cupy.asarray, weights, returns_probs=False)
    assert none is None and np.array_equal(host(again), host(found[0]))


# ------------------------------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(6, quick=2)
@given(data=st.data())
def test_every_head_computes_what_its_definitions_compute(kernels, family, head, dtype, data):
    case = data.draw(cases(head, family, hidden_from=8, reference=False))
    config = case.config.replace(layer_norm_eps=1e-3, hidden_act=data.draw(st.sampled_from(["gelu", "relu"])))
    weights = weights_for(head, case, dtype)
    weights = nz.Weights(weights, config)
    inputs = each_array(lambda array: array.astype(dtype) if array.dtype == np.float64 else array, case.inputs)
    names = ("inputs_embeds", "encoder_hidden_states", "past_key_values")
    arrays = {name: value for name, value in inputs.items() if name in names}
    exact = inputs | each_array(lambda array: array.astype(float), arrays)
    with nz.definitions():
        expected = arrays_of(getattr(nz, head)(weights.to(dtype="float64"), **exact))
    there = inputs | each_array(kernels.cupy.asarray, arrays)
    found = arrays_of(getattr(nz, head)(moved(kernels, weights), **there))
    assert set(found) == set(expected)
    for name, array in found.items():
        if name == "loss" and dtype == "float16":
            continue  # of logits that are as far away as their tolerance says
        exact_array, array = expected[name], host(array)
        largest = max(1.0, np.abs(exact_array).max(initial=0.0, where=np.isfinite(exact_array)))
        tolerance = {"float32": 1e-5, "float16": 0.05}[dtype] * largest
        np.testing.assert_allclose(array, exact_array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("family", ["nezha", "bert"])
@examples(5)
@given(data=st.data())
def test_steps_with_a_cache_are_the_whole_pass(kernels, family, data):
    case = data.draw(cases("causal_lm", family, labelled=False, from_ids=True, hidden_from=8))
    ids = np.concatenate([case.inputs["input_ids"][:, : LONGEST - 2]] + 2 * [case.inputs["input_ids"][:, :1]], axis=1)
    weights = weights_for("causal_lm", case, "float32")
    weights = moved(kernels, nz.Weights(weights, case.config.replace(layer_norm_eps=1e-3)))
    whole = host(nz.causal_lm(weights, ids).logits)
    step, found = nz.causal_lm(weights, ids[:, :-2], use_cache=True), []
    for column in (-2, -1):
        token = ids[:, [column]]
        step = nz.causal_lm(weights, token, past_key_values=step.past_key_values, use_cache=True)
        found.append(host(step.logits))
    assert np.abs(np.concatenate(found, axis=1) - whole[:, -2:]).max() <= 1e-5 * max(1.0, np.abs(whole).max())


@with_the_stand_in
@pytest.mark.parametrize("family", ["nezha", "bert", "convbert"])
def test_a_layer_takes_eight_launches_besides_its_products(family):
    with kernels_with({"cupy": StandIn(), "array_api_compat.cupy": Namespace()}) as kernels:
        weights = moved(kernels, weights_of(small(family), "float32"))
        LAUNCHES.clear()
        nz.forward(weights, [[1, 2, 3]])
        a_layer = {"split_heads": 3, "softmax": 1, "merge_heads": 1, "bias_gelu": 1, "normalise": 2}
        expected = {name: 2 * count for name, count in a_layer.items()}
        assert dict(LAUNCHES) == expected | {"normalise": 5}  # with the norm of the embeddings
        LAUNCHES.clear()
        with nz.definitions():
            nz.forward(weights, [[1, 2, 3]])
        assert not LAUNCHES


def test_the_stand_in_notices_what_is_read_back_and_what_is_written_outside():
    array = asarray(np.ones(3, "float32"))
    for read_back in (bool, float, int, np.asarray, ndarray.get, ndarray.item):
        with pytest.raises(AssertionError, match="read back"):
            read_back(array)
    with pytest.raises(TypeError, match="host"):
        array + np.ones(3, "float32")
    assert np.isnan(array.guarded[:GUARD]).all() and np.isnan(array.guarded[-GUARD:]).all()


@pytest.mark.skipif(NVCC is None, reason="no nvcc: CUDA's own compiler")
@pytest.mark.parametrize("number", ["float", "__half"])
def test_the_source_compiles_as_cuda(number, tmp_path):
    with kernels_with({"cupy": StandIn()}) as kernels:
        source = tmp_path / "kernels.cu"
        source.write_text(kernels.cuda.SOURCE.read_text(encoding="utf-8"))
    options = ["-std=c++17", f"-DNUMBER={number}", "-Werror=all-warnings", "-ptx", "-o", tmp_path / "kernels.ptx"]
    compiled = subprocess.run([NVCC, *options, source], capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr


@pytest.mark.skipif(NO_GPU is None, reason="there is a GPU, which takes minutes")
def test_the_benchmark_says_in_one_sentence_that_there_is_no_gpu():
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr == ""
    assert ended.stdout.startswith("There is no GPU to run on: ") and len(ended.stdout.splitlines()) == 1
