"""Safetensors files: what keeps the format's promises is mapped as it is, what breaks one is a ValueError."""

from __future__ import annotations

import json
import mmap
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import example, given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz
from nezha_np.files.atomic import write_atomically
from nezha_np.weights.formats.entry import DTYPES, FLOATS, Entry, map_tensors
from nezha_np.weights.formats.safetensors import read_header, write_tensors

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(5, dtype=np.float16),
    "c": np.array(1.5),
    "d": np.zeros((0, 3), np.float32),
    "e": np.arange(4, dtype=np.int64),
}
VALID = safetensors.numpy.save(TENSORS, metadata={"format": "pt"})
LENGTH = struct.unpack("<Q", VALID[:8])[0]
HEADER, DATA = json.loads(VALID[8 : 8 + LENGTH]), VALID[8 + LENGTH :]


def file_of(header: object, data: bytes = DATA, *, length: int | None = None) -> bytes:
    """Put a file together: a header in JSON, or its bytes, and the data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def changed(name: str, **fields: object) -> bytes:
    """Make the valid file with other fields for one tensor."""
    return file_of(HEADER | {name: HEADER[name] | fields})


def one(text: str, data: bytes = bytes(8)) -> bytes:
    """Make a file with one tensor x, described in JSON by hand."""
    return file_of(b'{"x":%s}' % text.encode(), data)


def places(*offsets: list[int]) -> bytes:
    """Make a file of tensors at these places."""
    shapes = [[(stop - start) // 4] for start, stop in offsets]
    described = [
        {"dtype": "F32", "shape": shape, "data_offsets": pair} for shape, pair in zip(shapes, offsets, strict=True)
    ]
    return file_of(dict(zip("xyz", described, strict=False)), bytes(max(stop for _, stop in offsets)))


def library_accepts(path: Path) -> bool:
    try:
        with safetensors.safe_open(path, framework="numpy"):
            return True
    except Exception:
        return False


def read(path: Path, content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    return map_tensors(path, read_header(path))


def refused(path: Path, content: bytes) -> str:
    """Check that a file is refused, with its name, and return the message."""
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_header(path)
    assert type(caught.value) is ValueError and str(caught.value).startswith(f"{path}: expected ")
    return str(caught.value)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("safetensors") / "x.safetensors"


# -------------------------------------------------------------------------------------------------------- valid files


def test_a_valid_file_is_read_as_it_was_written(path):
    path.write_bytes(VALID)
    entries, tensors = read_header(path), read(path, VALID)
    assert set(tensors) == set(entries) == set(TENSORS)
    for name, array in TENSORS.items():
        assert entries[name].shape == tensors[name].shape == array.shape
        assert entries[name].stop - entries[name].start == array.nbytes
        assert tensors[name].dtype == array.dtype and tensors[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_read_by_its_bytes(path, name):
    raw = bytes(range(0, 64, 2)) if name != "BOOL" else bytes([0, 1] * 16)
    count = 32 // DTYPES[name].itemsize
    array = read(path, one(json.dumps({"dtype": name, "shape": [count], "data_offsets": [0, 32]}), raw))["x"]
    if name == "BF16":
        assert array.dtype == np.float32 and array.tobytes() == b"".join(
            b"\0\0" + raw[start : start + 2] for start in range(0, 32, 2)
        )
    else:
        assert array.dtype == DTYPES[name] and array.tobytes() == raw


def test_the_floats_are_the_dtypes_that_weights_can_have():
    assert set(FLOATS) == {name for name, dtype in DTYPES.items() if dtype.kind == "f"} | {"BF16"}


def test_an_aligned_tensor_is_the_mapped_file_itself(path):
    array = read(path, VALID)["a"]
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


@pytest.mark.parametrize("padding", range(8))
def test_a_header_of_any_length_gives_the_right_values(path, padding):
    header = json.dumps(HEADER).encode()
    header += b" " * (8 - len(header) % 8 + padding)
    tensors = read(path, file_of(header))
    for name, array in TENSORS.items():
        assert tensors[name].tobytes() == array.tobytes() and tensors[name].flags.aligned


def test_nothing_that_is_read_can_be_written_to(path):
    for content in (VALID, file_of(json.dumps(HEADER).encode() + b" " * 3)):
        for array in read(path, content).values():
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 1


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (file_of({}, b""), []),
        (file_of({"__metadata__": {"format": "pt"}}, b""), []),
        (one('{"dtype":"F64","shape":[],"data_offsets":[0,8]}'), ["x"]),
        (one('{"dtype":"F32","shape":[2],"data_offsets":[0,8],"author":[1]}'), ["x"]),
        (file_of(b'{"\\u5e72":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}', bytes(8)), ["干"]),
        (file_of(HEADER | {"__metadata__": None}), list(TENSORS)),
        (file_of(json.dumps(HEADER).encode() + b"\n \t"), list(TENSORS)),
    ],
    ids=["empty", "metadata-alone", "a-number", "more-fields", "escaped", "no-metadata", "padded"],
)
def test_unusual_but_valid_files_are_read(path, content, names):
    assert sorted(read(path, content)) == sorted(names)


# ------------------------------------------------------------------------------------------------------ broken files

DEEP = b"[" * 10_000 + b"]" * 10_000
DESCRIBED = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
BROKEN = {
    "nothing": b"",
    "seven bytes": b"\x02\0\0\0\0\0\0",
    "no header": bytes(8),
    "a header beyond the file": file_of(HEADER, length=len(VALID)),
    "a header far beyond the file": file_of(HEADER, length=2**63),
    "a header of any length": file_of(HEADER, length=2**64 - 1),
    "a header beyond the limit": file_of(HEADER, length=100_000_001),
    "a header cut short": file_of(HEADER, length=LENGTH - 9),
    "not JSON": file_of(b"{]", b""),
    "two values": file_of(b"{} {}", b""),
    "a list": file_of([], b""),
    "null": file_of(None, b""),
    "a string": file_of("a", b""),
    "no UTF-8": file_of(b'{"\xff\xfe":' + DESCRIBED + b"}", bytes(8)),
    "half a surrogate": file_of(b'{"\\ud800":' + DESCRIBED + b"}", bytes(8)),
    "UTF-16": file_of(json.dumps(HEADER).encode("utf-16-le")),
    "a byte order mark": file_of(b"\xef\xbb\xbf" + json.dumps(HEADER).encode()),
    "space before the header": file_of(b" " + json.dumps(HEADER).encode()),
    "deep nesting": file_of(b'{"x":' + DEEP + b"}", b""),
    "deep nesting in a field": one('{"dtype":"F32","shape":[2],"data_offsets":[0,8],"y":' + DEEP.decode() + "}"),
    "a name twice": file_of(b'{"x":%s,"x":%s}' % (DESCRIBED, DESCRIBED), bytes(8)),
    "a name twice, in two spellings": file_of(b'{"x":%s,"\\u0078":%s}' % (DESCRIBED, DESCRIBED), bytes(8)),
    "a field twice": one('{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}'),
    "metadata twice": file_of(b'{"__metadata__":{},"__metadata__":{}}', b""),
    "metadata of numbers": file_of(HEADER | {"__metadata__": {"a": 1}}),
    "metadata in a list": file_of(HEADER | {"__metadata__": []}),
    "a number for a tensor": one("1"),
    "a list for a tensor": one('["F32",[2],[0,8]]'),
    "null for a tensor": one("null"),
    "no dtype": one('{"shape":[2],"data_offsets":[0,8]}'),
    "no shape": one('{"dtype":"F32","data_offsets":[0,8]}'),
    "no offsets": one('{"dtype":"F32","shape":[2]}'),
    "an unknown dtype": changed("a", dtype="F31"),
    "a small dtype": changed("a", dtype="f32"),
    "a dtype of null": changed("a", dtype=None),
    "a dtype that is an object": changed("a", dtype={"F32": None}),
    "a dtype of another size": changed("a", dtype="F64"),
    "a shape of another size": changed("a", shape=[2, 4]),
    "a shape that overflows": changed("a", shape=[2**32, 2**32, 2]),
    "a shape that overflows to the right size": changed("a", shape=[2**63, 2, 6]),
    "a negative shape": changed("a", shape=[-2, -3]),
    "a shape of floats": one('{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}'),
    "a shape of strings": changed("a", shape=["2", "3"]),
    "a shape of true": changed("a", shape=[True, 6]),
    "a shape that is a number": changed("a", shape=6),
    "one offset": changed("a", data_offsets=[0]),
    "three offsets": changed("a", data_offsets=[0, 24, 24]),
    "offsets that are a string": changed("a", data_offsets="08"),
    "offsets of floats": one('{"dtype":"F32","shape":[2],"data_offsets":[0.0,8.0]}'),
    "a negative zero": one('{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}'),
    "negative offsets": changed("a", data_offsets=[-24, 0]),
    "reversed offsets": changed("a", data_offsets=HEADER["a"]["data_offsets"][::-1]),
    "offsets beyond the file": one('{"dtype":"F32","shape":[2],"data_offsets":[8,16]}'),
    "huge offsets": changed("a", data_offsets=[2**64 - 24, 2**64]),
    "offsets that wrap around": changed("a", data_offsets=[2**64 - 12, 12]),
    "an overlap": places([0, 8], [4, 12]),
    "one place for two": places([0, 8], [0, 8]),
    "one place inside another": places([0, 12], [4, 8]),
    "a gap": places([0, 4], [8, 12]),
    "a gap before the first": one('{"dtype":"F32","shape":[1],"data_offsets":[4,8]}'),
    "a byte too few": VALID[:-1],
    "a byte too many": VALID + b"\0",
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_with_its_name(path, content):
    refused(path, content)


def test_a_file_cut_anywhere_is_refused(path):
    for length in range(len(VALID)):
        refused(path, VALID[:length])


def test_a_header_length_altered_in_any_bit_is_refused(path):
    for bit in range(64):
        refused(path, struct.pack("<Q", LENGTH ^ (1 << bit)) + VALID[8:])


def test_a_header_beyond_the_librarys_limit_is_refused_though_the_file_holds_it(path):
    with path.open("wb") as file:  # sparse: it takes no space
        file.write(struct.pack("<Q", 100_000_001) + b"{}")
        file.truncate(8 + 100_000_001)
    with pytest.raises(ValueError, match=r"(?i)header ?too ?large"):
        read_header(path)


def test_the_message_says_which_promise_is_broken(path):
    assert "a name stands twice" in refused(path, BROKEN["a name twice"])
    assert "begin with {" in refused(path, BROKEN["space before the header"])
    assert "x is not described by dtype, shape and data_offsets" in refused(path, BROKEN["a list for a tensor"])


def test_a_missing_file_and_a_folder_are_not_found(path):
    for missing in (path.parent / "y.safetensors", path.parent):
        with pytest.raises(FileNotFoundError, match="expected a safetensors file, found no such file") as caught:
            read_header(missing)
        assert str(missing) in str(caught.value)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64"])
def test_a_dtype_that_numpy_lacks_is_refused_with_the_name_of_the_tensor(path, dtype):
    bits = {"F4": 4, "F6_E2M3": 6, "C64": 64}.get(dtype, 8)
    path.write_bytes(one(json.dumps({"dtype": dtype, "shape": [192 // bits], "data_offsets": [0, 24]}), bytes(24)))
    if not library_accepts(path):
        pytest.skip(f"safetensors {safetensors.__version__} does not know {dtype}")
    entries = read_header(path)
    assert entries["x"].dtype == dtype
    with pytest.raises(ValueError, match=f"got {dtype} for x$"):
        map_tensors(path, entries)


@pytest.mark.parametrize("shape", [[0, 2**64 - 1], [2**63, 0], [0, 2**62, 2**62], [1] * 65 + [2]])
def test_a_shape_that_numpy_lacks_is_refused_with_the_name_of_the_tensor(path, shape):
    size = 8 if 0 not in shape else 0
    path.write_bytes(one(json.dumps({"dtype": "F32", "shape": shape, "data_offsets": [0, size]}), bytes(size)))
    assert library_accepts(path)
    with pytest.raises(ValueError, match=r"expected a shape that NumPy can hold, got \(.* for x$"):
        map_tensors(path, read_header(path))


# ------------------------------------------------------------------------------------------------------------ fuzzing

EDGES = [-1, 0, 1, 2, 4, 8, 23, 24, 25, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70]
numbers = st.sampled_from(EDGES) | st.integers(-50, 120)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=3) | st.sampled_from([*DTYPES, "F8_E4M3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
dtypes = st.sampled_from([*DTYPES, "F8_E4M3", "F4", "C64", "F31"])
described = st.fixed_dictionaries(
    {
        "dtype": dtypes | anything,
        "shape": st.lists(numbers, max_size=4) | anything,
        "data_offsets": st.tuples(numbers, numbers) | anything,
    }
)


def judge(path: Path, content: bytes) -> None:
    """Check that any file is either read or refused by a ValueError, and never read where the library refuses it."""
    path.write_bytes(content)
    try:
        entries = read_header(path)
    except ValueError:
        return
    assert library_accepts(path)
    with safetensors.safe_open(path, framework="numpy") as theirs:
        assert set(theirs.keys()) == set(entries)
        for name, entry in entries.items():
            part = theirs.get_slice(name)
            assert (entry.dtype, list(entry.shape)) == (part.get_dtype(), part.get_shape())
            assert 8 <= entry.start <= entry.stop <= len(content)
            try:
                array = map_tensors(path, {name: entry})[name]
            except ValueError as error:  # what NumPy cannot hold
                assert name in str(error)
                continue
            assert array.shape == entry.shape
            copy = np.array(array)  # every byte is there to be read
            if entry.dtype in ("F64", "F32", "F16"):
                assert copy.tobytes() == theirs.get_tensor(name).tobytes()


@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_read_or_refused(path, content):
    judge(path, content)


@given(st.dictionaries(st.text(max_size=3), described | anything, max_size=4), st.binary(max_size=40), st.data())
@examples(300)
def test_any_header_at_all_is_read_or_refused(path, header, data, drawn):
    exact = [
        fields["data_offsets"] for fields in header.values() if isinstance(fields, dict) and "data_offsets" in fields
    ]
    ends = [pair[1] for pair in exact if isinstance(pair, tuple) and isinstance(pair[1], int) and 0 <= pair[1] < 200]
    if ends and drawn.draw(st.booleans()):
        data = bytes(max(ends))  # as long as the offsets say
    judge(path, file_of(header, data))


@given(st.sampled_from([name for name in HEADER if name != "__metadata__"]), described)
@examples(200)
def test_any_description_of_one_tensor_is_read_or_refused(path, name, fields):
    judge(path, file_of(HEADER | {name: fields}))


@given(st.sampled_from(sorted(TENSORS)), st.integers(-9, 9), st.integers(-9, 9))
def test_offsets_that_are_moved_at_all_are_refused(path, name, start, stop):
    before = HEADER[name]["data_offsets"]
    content = changed(name, data_offsets=[before[0] + start, before[1] + stop])
    if start or stop:
        refused(path, content)
    else:
        assert set(read(path, content)) == set(TENSORS)


@given(st.lists(st.tuples(st.integers(0, 8 + LENGTH - 1), st.integers(0, 255)), min_size=1, max_size=4))
@examples(400)
def test_bytes_changed_in_length_or_header_never_raise_anything_but_a_value_error(path, mutations):
    content = bytearray(VALID)
    for place, value in mutations:
        content[place] = value
    judge(path, bytes(content))


@given(
    st.integers(0, len(VALID)),
    st.integers(0, 12),
    st.binary(max_size=12),
)
@examples(200)
def test_a_piece_replaced_by_another_never_raises_anything_but_a_value_error(path, place, count, piece):
    judge(path, VALID[:place] + piece + VALID[place + count :])


@given(st.binary(min_size=len(DATA), max_size=len(DATA)))
@example(b"\xff" * len(DATA))
def test_changed_data_bytes_change_values_and_nothing_else(path, data):
    tensors = read(path, VALID[: 8 + LENGTH] + data)
    for name, array in TENSORS.items():
        start, stop = HEADER[name]["data_offsets"]
        assert (tensors[name].shape, tensors[name].dtype) == (array.shape, array.dtype)
        assert tensors[name].tobytes() == data[start:stop]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A folder with a small model, whose file the tests below break."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = nz.NezhaConfig(
        vocab_size=5, hidden_size=4, num_attention_heads=2, num_hidden_layers=1, intermediate_size=3, type_vocab_size=1
    )
    nz.init(config).save(folder)
    return folder


@given(data=st.data())
@examples(200)
def test_loading_a_mutated_checkpoint_works_or_raises_a_value_error(checkpoint, data):
    valid = (checkpoint / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", valid[:8])[0]
    end = data.draw(st.sampled_from([8, 8 + length, len(valid)]))
    content = bytearray(valid)
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, end - 1), st.integers(0, 255)), min_size=1, max_size=3)
    ):
        content[place] = value
    broken = checkpoint.parent / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes(content)
    try:
        weights = nz.load(broken, dtype=None)
    except ValueError as error:
        assert str(error).startswith(str(broken))
        assert bytes(content[: 8 + length]) != valid[: 8 + length]
    else:
        expected = nz.load(checkpoint)
        assert {name: array.shape for name, array in weights.items()}.items() >= {
            name: expected[name].shape for name in nz.families.parameters.backbone_shapes(expected.config)
        }.items()


# ------------------------------------------------------------------------------------------------------------ writing


def test_what_is_written_is_read_by_us_and_by_the_library(path):
    write_tensors(path, TENSORS)
    theirs = safetensors.numpy.load_file(path)
    ours = map_tensors(path, read_header(path))
    for name, array in TENSORS.items():
        for tensor in (theirs[name], ours[name]):
            assert (tensor.shape, tensor.dtype, tensor.tobytes()) == (array.shape, array.dtype, array.tobytes())
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_arrays_in_any_order_and_byte_order_are_written_by_value(path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    views = {"turned": array.T, "thinned": array[:, ::2], "reversed": array[::-1], "big": array.astype(">f4")}
    write_tensors(path, views)
    for name, tensor in map_tensors(path, read_header(path)).items():
        np.testing.assert_array_equal(tensor, views[name])


def test_a_written_file_is_as_readable_as_any_new_file(tmp_path):
    (tmp_path / "new").touch()
    write_tensors(tmp_path / "x.safetensors", TENSORS)
    write_atomically(tmp_path / "made", lambda beside: write_tensors(beside / "x.safetensors", TENSORS))
    for file in (tmp_path / "x.safetensors", tmp_path / "made" / "x.safetensors"):
        assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "new").stat().st_mode)


def test_files_written_beside_replace_the_old_ones_together(tmp_path):
    (tmp_path / "a").write_text("old")

    def write(beside: Path) -> None:
        (beside / "a").write_text("new")
        assert (tmp_path / "a").read_text() == "old"
        (beside / "b").write_text("new")

    write_atomically(tmp_path, write)
    assert {file: (tmp_path / file).read_text() for file in os.listdir(tmp_path)} == {"a": "new", "b": "new"}


def test_a_failure_while_writing_beside_leaves_the_old_files_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")

    def write(beside: Path) -> None:
        (beside / "a").write_text("new")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(tmp_path, write)
    assert {file: (tmp_path / file).read_text() for file in os.listdir(tmp_path)} == {"a": "old"}


def test_an_entry_says_where_its_bytes_are(path):
    path.write_bytes(VALID)
    start, stop = HEADER["a"]["data_offsets"]
    assert read_header(path)["a"] == Entry("F32", (2, 3), 8 + LENGTH + start, 8 + LENGTH + stop)
