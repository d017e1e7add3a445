"""PyTorch's files: what torch.save writes is read as it is, what would call anything is refused and never run."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import io
import itertools
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpu_seconds import within
from hypothesis import example, given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz
from nezha_np.weights.formats.entry import DTYPES, map_tensors
from nezha_np.weights.formats.pickle_machine import PickleMachine, Refused
from nezha_np.weights.formats.torch import MAGIC_NUMBER, PROTOCOL, read_header
from nezha_np.weights.formats.torch_tensors import STORAGES

# ------------------------------------------------------------------------------- files made by hand, without PyTorch


@dataclasses.dataclass
class Name:
    """What a pickle calls a function by."""

    module: str
    name: str


@dataclasses.dataclass
class Call:
    """A call of a function that a pickle makes."""

    function: Any
    arguments: Any = ()


@dataclasses.dataclass
class Persistent:
    """A persistent id: a storage, in torch.save's files."""

    description: Any


@dataclasses.dataclass
class Raw:
    """Instructions as they are."""

    instructions: bytes


ORDERED_DICT = Name("collections", "OrderedDict")
REBUILD = Name("torch._utils", "_rebuild_tensor_v2")


def instructions(value: Any) -> bytes:
    """Write the instructions that put a value on the stack."""
    match value:
        case Raw(raw):
            return raw
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8b" + struct.pack("<i", size) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(map(instructions, value)) + b"t"
        case list():
            return b"](" + b"".join(map(instructions, value)) + b"e"
        case dict():
            return b"}(" + b"".join(map(instructions, itertools.chain(*value.items()))) + b"u"
        case Name(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return instructions(function) + instructions(arguments) + b"R"
        case Persistent(description):
            return instructions(description) + b"Q"
    raise TypeError(type(value))


def pickle_of(value: Any) -> bytes:
    return b"\x80\x02" + instructions(value) + b"."


def storage(kind: str, key: str, count: int, *view: Any) -> Persistent:
    module, _, name = f"torch.{kind}".rpartition(".")
    return Persistent(("storage", Name(module, name), key, "cpu", count, *view))


def tensor(
    count: int, shape: Any, strides: Any, offset: Any = 0, *, kind: str = "FloatStorage", key: str = "0", view: Any = ()
) -> Call:
    """Make the call that makes a tensor; `count` is the number of elements of its storage."""
    return Call(REBUILD, (storage(kind, key, count, *view), offset, shape, strides, False, Call(ORDERED_DICT)))


def zip_of(value: Any, storages: Mapping[str, bytes], **records: bytes) -> bytes:
    """Make a file of the format since PyTorch 1.6."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_of(value))
        for name, content in {"byteorder": b"little", "version": b"3\n", **records}.items():
            archive.writestr(f"archive/{name}", content)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return file.getvalue()


def pickles_of(value: Any, storages: Mapping[str, bytes], *, item: int = 4, little: bool = True) -> bytes:
    """Make a file of the format before; `item` is the size of the storages' elements."""
    machine = {"protocol_version": PROTOCOL, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    pickles = b"".join(map(pickle_of, (MAGIC_NUMBER, PROTOCOL, machine, value, list(storages))))
    return pickles + b"".join(struct.pack("<q", len(raw) // item) + raw for raw in storages.values())


def either(value: Any, storages: Mapping[str, bytes], item: int = 4) -> list[bytes]:
    """Make a file of each format; in the older, a storage's description has one part more, and none is unused."""
    used = {}

    def older(part: Any) -> Any:
        match part:
            case Persistent((*description,)) if len(description) == 5:
                used.update({key: raw for key, raw in storages.items() if key == description[2]})
                return Persistent((*description, None))
            case Call(function, arguments):
                return Call(function, older(arguments))
            case tuple() | list():
                return type(part)(map(older, part))
            case dict():
                return {key: older(value) for key, value in part.items()}
        return part

    value_of_older = older(value)
    return [zip_of(value, storages), pickles_of(value_of_older, used, item=item)]


def read(path: Path, content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    return map_tensors(path, read_header(path))


def refused(path: Path, content: bytes) -> str:
    """Check that a file is refused, with its name, and return the message."""
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_header(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ") and len(message) < len(str(path)) + 2000
    return message.removeprefix(f"{path}: ")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("torch") / "pytorch_model.bin"


NUMBERS = np.arange(24, dtype=np.float32)
HELD = {"0": NUMBERS.tobytes()}  # the storages of most files here
SIMPLE = {"a": tensor(24, (2, 3, 4), (12, 4, 1)), "b": tensor(24, (4, 2), (1, 12), 4)}
FILES = either(SIMPLE, HELD)


@pytest.mark.parametrize("content", FILES, ids=["zip", "pickles"])
def test_a_file_made_by_hand_is_read_without_pytorch(path, content):
    tensors = read(path, content)
    assert list(tensors) == ["a", "b"]
    np.testing.assert_array_equal(tensors["a"], NUMBERS.reshape(2, 3, 4))
    np.testing.assert_array_equal(tensors["b"], NUMBERS.reshape(2, 12)[:, 4:8].T)
    assert not any(array.flags.writeable for array in tensors.values())


@pytest.mark.parametrize("kind", STORAGES)
def test_every_type_of_storage_is_read_by_its_bytes(path, kind):
    raw = bytes(range(0, 64, 2)) if kind != "torch.BoolStorage" else bytes([0, 1] * 16)
    dtype = DTYPES[STORAGES[kind]]
    count = 32 // dtype.itemsize
    value = {"x": tensor(count, (count,), (1,), kind=kind.removeprefix("torch."))}
    for content in either(value, {"0": raw}, dtype.itemsize):
        array = read(path, content)["x"]
        if kind == "torch.BFloat16Storage":
            raw_pairs = [b"\0\0" + raw[start : start + 2] for start in range(0, 32, 2)]
            assert array.dtype == np.float32 and array.tobytes() == b"".join(raw_pairs)
        else:
            assert array.dtype == dtype and array.tobytes() == raw


def test_a_tensor_with_a_dtype_of_its_own_lies_in_bytes(path):
    of_bytes = storage("storage.UntypedStorage", "0", 16)
    arguments = (of_bytes, 1, (3,), (2,), False, Call(ORDERED_DICT), Name("torch", "uint16"), None)
    value = {"x": Call(Name("torch._utils", "_rebuild_tensor_v3"), arguments)}
    raw = np.arange(8, dtype=np.uint16)
    assert read(path, zip_of(value, {"0": raw.tobytes()}))["x"].tolist() == [1, 3, 5]


def test_the_oldest_calls_are_read(path):
    value = {
        "x": Call(Name("torch._utils", "_rebuild_tensor"), (storage("FloatStorage", "0", 4), 1, (2,), (2,))),
        "y": Call(Name("torch._utils", "_rebuild_parameter"), (tensor(4, (4,), (1,)), True, Call(ORDERED_DICT))),
    }
    tensors = read(path, zip_of(Call(ORDERED_DICT, ([list(pair) for pair in value.items()],)), {"0": HELD["0"][:16]}))
    assert tensors["x"].tolist() == [1, 3] and tensors["y"].tolist() == [0, 1, 2, 3]


def test_a_storage_that_is_part_of_another_is_read(path):
    value = {"x": tensor(24, (2, 2), (3, 1), 1, view=(("part", 5, 10),))}
    assert read(path, pickles_of(value, HELD))["x"].tolist() == [[6, 7], [9, 10]]
    for view in (("part", 5, 20), ("part", -1, 10), ("part", 5, -1), ("part", 5, 4), (), "part", 5):
        message = refused(path, pickles_of({"x": tensor(24, (2, 2), (3, 1), 1, view=(view,))}, HELD))
        assert "storage" in message


def test_attributes_of_a_dictionary_are_left_out(path):
    metadata = Call(ORDERED_DICT)
    state = {"_metadata": metadata, "items": 5, "__class__": "x", "get": Name("torch", "float32")}
    value = Raw(instructions(Call(ORDERED_DICT)) + instructions("a") + instructions(SIMPLE["a"]) + b"s")
    built = Raw(value.instructions + instructions(state) + b"b")
    assert list(read(path, zip_of(built, HELD))) == ["a"]


def test_what_is_no_tensor_is_left_out(path):
    value = {
        **SIMPLE,
        "step": 5,
        "lr": 0.1,
        "name": "干",
        "list": [1, None, True],
        "dtype": Name("torch", "float16"),
        7: 8,
    }
    for content in either(value, HELD):
        assert list(read(path, content)) == ["a", "b"]


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "module"])
def test_tensors_in_a_training_scripts_checkpoint_are_found(path, name):
    optimiser = {"state": {0: {"exp_avg": tensor(24, (24,), (1,))}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    value = {"epoch": 3, "optimizer": optimiser, name: SIMPLE}
    for content in either(value, HELD):
        assert list(read(path, content)) == ["a", "b"]


def test_tensors_beside_the_model_do_not_hide_it(path):
    # What scripts keep: the loss, the step, the state of an optimiser without a dictionary of its own.
    single = {"loss": tensor(24, (), ()), "step": tensor(24, (1,), (1,), 3)}
    for name in ("model_state_dict", "state_dict", "model", "net", "params"):
        for content in either({**single, "optimizer": {"state": {}}, name: SIMPLE, "ema": SIMPLE}, HELD):
            assert list(read(path, content)) == ["a", "b"]
    # Of a dictionary under another name it is not clear that it is the model.
    message = refused(path, zip_of({"loss": single["loss"], "teacher": SIMPLE}, HELD))
    assert message.endswith("got 'loss', 'teacher' (2 tensors)")
    assert list(read(path, zip_of({**SIMPLE, **single, "extra": {"c": SIMPLE["a"]}}, HELD))) == [
        "a",
        "b",
        "loss",
        "step",
    ]


def test_of_several_models_in_one_file_it_is_said_which_is_read(path):
    content = zip_of({"model": {"b": SIMPLE["b"]}, "module": SIMPLE, "state_dict": SIMPLE}, HELD)
    said = r"there are tensors under state_dict and under model: those under state_dict are read; to have others, save"
    with pytest.warns(UserWarning, match=rf"pytorch_model\.bin: {said}"):
        assert list(read(path, content)) == ["a", "b"]
    turned = {"a": SIMPLE["a"], "b": tensor(24, (4, 2), (2, 1))}
    with pytest.warns(UserWarning, match=r"under model and under 'ema': those under model are read"):
        assert read(path, zip_of({"ema": turned, "model": SIMPLE}, HELD))["b"].tolist()[1] == [5.0, 17.0]
    for same in ({"module": SIMPLE, "model": SIMPLE}, {"ema": SIMPLE, "model": SIMPLE, "head": {"c": SIMPLE["a"]}}):
        assert list(read(path, zip_of(same, HELD))) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ([SIMPLE["a"]], "a list"),
        (SIMPLE["a"], "a tensor"),
        (5, "a int"),
        (None, "a NoneType"),
        ({"epoch": 3}, "'epoch'"),
        ({"optimizer": SIMPLE, "model": {}}, "'optimizer' (2 tensors), 'model'"),
        ({"model": {"model": SIMPLE}}, "'model' (tensors under 'model' in it)"),
        ({5: SIMPLE["a"]}, "5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_dictionary_of_tensors_is_refused(path, value, got):
    for content in either(value, HELD):
        message = refused(path, content)
        assert "expected a dictionary of tensors" in message and message.endswith(f"got {got}")


def test_an_empty_dictionary_is_read(path):
    for content in either({}, {}):
        assert read(path, content) == {}


# ------------------------------------------------------------------------------------------------------ hostile files

COMMAND = "touch was-run"
SYSTEM = Name("os", "system")


class Reduced:
    """An object that pickle writes as a call."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def pickled(*reduced: Any, protocol: int = 2) -> Raw:
    """Return the instructions that Python's own pickle writes for a call."""
    content = pickle.dumps(Reduced(*reduced), protocol)
    start = 2 if protocol >= 2 else 0
    if protocol >= 4:
        start += 9  # the frame
    return Raw(content[start:-1])


GETATTR = Name("builtins", "getattr")
HOSTILE: dict[str, tuple[Any, str]] = {
    "a command": (Call(SYSTEM, (COMMAND,)), f"call os.system('{COMMAND}')"),
    "code": (Call(Name("builtins", "eval"), ("1+1",)), "call builtins.eval('1+1')"),
    "code to run": (Call(Name("builtins", "exec"), ("import os",)), "call builtins.exec('import os')"),
    "an attribute": (Call(GETATTR, (Name("os", "system"), "x")), "call builtins.getattr(os.system, 'x')"),
    "a chain": (Call(Call(GETATTR, (Name("builtins", "eval"), "__call__")), ("1",)), "call builtins.getattr("),
    "a process": (Call(Name("subprocess", "Popen"), (["touch", "x"],)), "call subprocess.Popen(['touch', 'x'])"),
    "a download": (
        Call(Name("torch.hub", "load"), ("evil/repository", "model")),
        "call torch.hub.load('evil/repository', 'model')",
    ),
    "another file": (Call(Name("torch", "load"), ("other.bin",)), "call torch.load('other.bin')"),
    "a function that looks like NumPy's": (Call(Name("numpy.core", "_reconstruct")), "call numpy.core._reconstruct()"),
    "a codec by its name": (Call(Name("_codecs", "lookup"), ("x",)), "call _codecs.lookup('x')"),
    "the state of a type": (Raw(instructions(Name("argparse", "Namespace")) + b"}b"), "set the state of argparse."),
    "a tensor of any type": (
        Call(Name("torch._tensor", "_rebuild_from_type_v2"), (REBUILD, SYSTEM, SIMPLE["a"].arguments, {})),
        "make os.system()",
    ),
    "an import alone": (Raw(instructions(Name("antigravity", "x")) + b"0N"), "import antigravity.x"),
    "a function left over": ({"a": SIMPLE["a"], "f": SYSTEM}, "import os.system"),
    "an attribute of a module": (Name("os", "path.join"), "import os.path.join"),
    "a class of this package": (
        Call(Name("nezha_np.weights.formats.pickle_machine", "Name"), ("os.system",)),
        "call nezha_np.weights.formats.pickle_machine.Name('os.system')",
    ),
    "no tuple": (Call(SYSTEM, [COMMAND]), "call os.system("),
    "a call of a call": (Call(Call(ORDERED_DICT), (COMMAND,)), "call {}("),
    "a call of a tensor": (Call(SIMPLE["a"], ()), "call tensor()"),
    "a call of a storage": (Call(storage("FloatStorage", "0", 24)), "call storage()"),
    "a call of a storage's type": (Call(Name("torch", "FloatStorage"), (5,)), "call torch.FloatStorage(5)"),
    "a call of a name in a string": (Call("os.system", (COMMAND,)), "call 'os.system'("),
    "names from the stack": (
        Raw(instructions("os") + instructions("system") + b"\x93" + instructions((COMMAND,)) + b"R"),
        f"call os.system('{COMMAND}')",
    ),
    "an instance": (Raw(b"(" + instructions(COMMAND) + b"ios\nsystem\n"), f"make os.system('{COMMAND}')"),
    "an object": (Raw(b"(" + instructions(SYSTEM) + instructions(COMMAND) + b"o"), f"make os.system('{COMMAND}')"),
    "a new object": (Raw(instructions(SYSTEM) + instructions((COMMAND,)) + b"\x81"), f"make os.system('{COMMAND}')"),
    "a new dictionary": (Raw(instructions(ORDERED_DICT) + b")\x81"), "make collections.OrderedDict()"),
    "a new object with options": (
        Raw(instructions(SYSTEM) + instructions((COMMAND,)) + b"}\x92"),
        f"make os.system('{COMMAND}')",
    ),
    "a state": (Raw(instructions(SYSTEM) + instructions({"x": 1}) + b"b"), "set the state of os.system"),
    "a tensor's state": (Raw(instructions(SIMPLE["a"]) + instructions({"x": 1}) + b"b"), "set the state of tensor"),
    "a storage's state": (
        Raw(instructions(storage("FloatStorage", "0", 24)) + b"}b"),
        "set the state of storage",
    ),
    "a whole model": (
        Persistent(("module", Name("transformers.models.nezha.modeling_nezha", "NezhaModel"), "model.py", "class…")),
        "make transformers.models.nezha.modeling_nezha.NezhaModel()",
    ),
    "a command among tensors": ({**SIMPLE, "c": Call(SYSTEM, (COMMAND,))}, "call os.system("),
    "a command as a key": (Raw(b"}" + instructions(Call(SYSTEM, (COMMAND,))) + b"Ns"), "call os.system("),
    "a command as a size": ({"x": tensor(24, Call(SYSTEM, (COMMAND,)), (1,))}, "call os.system("),
    "a command as a storage": (Persistent(Call(SYSTEM, (COMMAND,))), "call os.system("),
    "a command in a state": (Raw(b"}" + instructions({"x": Call(SYSTEM, (COMMAND,))}) + b"b"), "call os.system("),
    "a command thrown away": (Raw(instructions(Call(SYSTEM, (COMMAND,))) + b"0}"), "call os.system("),
    **{
        f"pickle's protocol {protocol}": (pickled(os.system, (COMMAND,), protocol=protocol), ".system('touch was-run')")
        for protocol in range(6)
    },
    "pickle's array": (pickled(np.frombuffer, (b"12345678",)), "call numpy.frombuffer("),
    "items of its own": (pickled(OrderedDict, (), None, None, iter([("f", os.system)])), "import posix.system"),
    "a setter of its own": (pickled(dict, (), {"x": 1}, None, None, os.system), ""),
}  # fmt: skip


@pytest.mark.parametrize(("value", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_with_what_it_would_have_done(path, monkeypatch, value, said):
    monkeypatch.chdir(path.parent)
    for content in [*either(value, HELD), pickle_of(value), instructions(value) + b"."]:
        message = refused(path, content)
        assert message.startswith("expected tensors alone, got a pickle that would ")
        assert said in message and message.removesuffix("; save its state_dict alone, with PyTorch").endswith(
            ": refused, nothing was run"
        )
    assert os.listdir() == [path.name]


def test_reading_hostile_files_imports_and_runs_nothing(tmp_path):
    """Python itself reports every import, process and look-up of a pickle: none may happen."""
    script = """
import json, pickletools, sys, zipfile
from pathlib import Path
from nezha_np.weights.formats.pickle_machine import PickleMachine, Refused
from nezha_np.weights.formats.torch import read_header
for codec in ("cp437", "raw-unicode-escape"):  # which Python loads when a name or a string is decoded
    b"x".decode(codec)
WATCHED = ("import", "pickle", "os", "subprocess", "exec", "compile", "marshal", "socket", "ctypes")
seen = []
def watch(event, arguments):
    if event.split(".")[0] in WATCHED:
        seen.append(f"{event} {arguments}")
sys.addaudithook(watch)
files = [Path(name) for name in sys.argv[1:]]
refused = 0
for file in files:
    try:
        read_header(file)
    except ValueError:
        refused += 1
assert "torch" not in sys.modules
print(json.dumps([refused, seen]))
"""
    for index, (value, _) in enumerate(HOSTILE.values()):
        for kind, content in enumerate(either(value, HELD)):
            (tmp_path / f"{index}-{kind}.bin").write_bytes(content)
    files = sorted(map(str, tmp_path.glob("*.bin")))
    environment = os.environ | {"PYTHONPATH": str(Path(nz.__file__).parents[1])}
    command = [sys.executable, "-c", script, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert json.loads(done.stdout) == [len(files), []]


def test_the_machine_by_itself_knows_no_tensors():
    with pytest.raises(ValueError, match="expected no persistent id"):
        PickleMachine().run(io.BytesIO(instructions(storage("FloatStorage", "0", 24)) + b"."))
    with pytest.raises(Refused, match=r"would call torch\._utils\._rebuild_parameter\(1\)"):
        PickleMachine().run(io.BytesIO(instructions(Call(Name("torch._utils", "_rebuild_parameter"), (1,))) + b"."))
    items = [["a", 1], ["b", (2, 3)]]
    assert PickleMachine().run(io.BytesIO(instructions(Call(ORDERED_DICT, (items,))) + b".")) == {"a": 1, "b": (2, 3)}


def test_terminal_codes_in_a_name_are_not_printed(path):
    name = Raw(instructions("os\x1b[2J") + instructions("system\n") + b"\x93")
    message = refused(path, zip_of(Call(name, ("\x1b[2J",)), {}))
    assert message.isprintable() and r"\x1b" in message


ABUSED: dict[str, Any] = {
    "a dictionary of a number": Call(ORDERED_DICT, (5,)),
    "a dictionary of numbers": Call(ORDERED_DICT, ([5],)),
    "a dictionary of three": Call(ORDERED_DICT, ([("a", 1, 2)],)),
    "a dictionary of two arguments": Call(ORDERED_DICT, ([], [])),
    "a tensor of nothing": Call(REBUILD),
    "a tensor of numbers": Call(REBUILD, (1, 2, 3, 4, 5, 6)),
    "a tensor of a tensor": Call(REBUILD, (SIMPLE["a"], 0, (1,), (1,), False, None)),
    "a tensor with attributes and no arguments": Call(Name("torch._tensor", "_rebuild_from_type_v2"), (REBUILD,)),
    "a tensor with attributes of one with attributes": Call(
        Name("torch._tensor", "_rebuild_from_type_v2"),
        (Name("torch._tensor", "_rebuild_from_type_v2"), Name("torch", "Tensor"), (), {}),
    ),
    "a parameter of a number": Call(Name("torch._utils", "_rebuild_parameter"), (5, True, None)),
    "an item of a list": Raw(b"]" + instructions("a") + instructions(1) + b"s"),
    "an item of a tensor": Raw(instructions(SIMPLE["a"]) + b"(" + instructions("a") + instructions(1) + b"u"),
    "an odd number of items": Raw(b"}(" + instructions("a") + b"u"),
    "an element of a dictionary": Raw(b"}" + instructions("a") + b"a"),
    "elements of a tensor": Raw(instructions(SIMPLE["a"]) + b"(NNe"),
    "a list as a key": Raw(b"}" + instructions([]) + b"Ns"),
    "a tuple as a key": Raw(b"}" + instructions((1,)) + b"Ns"),
    "a tensor as a key": Raw(b"}" + instructions(SIMPLE["a"]) + b"Ns"),
    "no stack": Raw(b"R"),
    "no mark": Raw(b"t"),
    "a mark too many": Raw(b"N("),
    "two values": Raw(b"NN"),
    "no value": Raw(b""),
    "an empty memo": Raw(b"h\x05"),
    "an empty stack to memorise": Raw(b"q\x05"),
    "a tuple of too few": Raw(b"N\x87"),
    "a text instruction for a persistent id": Raw(b"Pstorage\n"),
    "an extension": Raw(b"\x82\x05"),
    "a buffer": Raw(b"\x97"),
    "a set": Raw(b"\x8f"),
    "a frozen set": Raw(b"(\x91"),
    "a byte array": Raw(b"\x96" + struct.pack("<Q", 1) + b"x"),
    "an unknown instruction": Raw(b"\xff"),
    "a protocol to come": Raw(b"\x80\x09"),
    "a name of a number": Raw(b"NN\x93"),
    "an odd name": Raw(b"cos\n\xff\n"),
    "an odd escape": Raw(b"cos\\\nsystem\\z\n"),
    "an odd string": Raw(b"X\x01\0\0\0\xff"),
    "an enormous string": Raw(b"\x8d" + struct.pack("<Q", 2**62)),
    "an enormous string of bytes": Raw(b"\x8e" + struct.pack("<Q", 2**64 - 1)),
    "a negative length": Raw(b"\x8b" + struct.pack("<i", -1)),
    "no storage": Persistent(5),
    "a storage of five numbers": Persistent((1, 2, 3, 4, 5)),
    "a storage without a type": Persistent(("storage", "torch.FloatStorage", "0", "cpu", 24)),
    "a storage of an unknown type": storage("ComplexFloatStorage", "0", 24),
    "a storage of a quantised type": storage("QInt8Storage", "0", 24),
    "a storage of a negative size": {"x": tensor(-1, (1,), (1,))},
    "a storage of an enormous size": {"x": tensor(2**64, (1,), (1,))},
    "a storage of two sizes": {"x": tensor(24, (1,), (1,)), "y": tensor(23, (1,), (1,))},
    "a storage of two types": {"x": tensor(24, (1,), (1,)), "y": tensor(12, (1,), (1,), kind="DoubleStorage")},
    "a storage that is too small": {"x": tensor(23, (1,), (1,))},
    "a storage that is too large": {"x": tensor(25, (1,), (1,))},
    "a storage that is not there": {"x": tensor(24, (1,), (1,), key="1")},
    "a storage in another place": {"x": tensor(24, (1,), (1,), key="../data/0")},
}


@pytest.mark.parametrize("value", ABUSED.values(), ids=ABUSED)
def test_instructions_that_torch_save_does_not_write_are_refused(path, value):
    for content in either(value, HELD):
        assert "breaks the format" in refused(path, content)


OUTSIDE: dict[str, tuple[Any, Any, Any]] = {
    "a row too many": ((7, 4), (4, 1), 0),
    "an offset too far": ((24,), (1,), 1),
    "an offset far too far": ((1,), (1,), 2**62),
    "a step too long": ((2, 2), (23, 1), 0),
    "a step that overflows": ((3,), (2**63 - 1,), 0),
    "a negative step": ((2,), (-1,), 5),
    "a negative size": ((-2,), (1,), 0),
    "a negative offset": ((2,), (1,), -1),
    "no steps": ((2,), (), 0),
    "too many steps": ((2,), (1, 1), 0),
    "a size of a float": ((2.0,), (1,), 0),
    "a step of None": ((2,), (None,), 0),
    "an offset of None": ((2,), (1,), None),
    "a size of True": ((True,), (1,), 0),
    "a step of True": ((2,), (True,), 0),
    "an offset of True": ((2,), (1,), True),
    "a size of a list": ([2], (1,), 0),
    "too many axes": ((1,) * 65, (1,) * 65, 0),
    "an enormous size": ((2**64,), (0,), 0),
    "an enormous size of none": ((0, 2**64), (1, 1), 0),
    "an enormous repetition": ((10**9, 10**9), (0, 0), 0),
    "a large repetition": ((2**29,), (0,), 0),
    "a repetition that takes more than a small file has": ((2**23,), (0,), 0),
    "an enormous repetition of rows": ((10**9, 24), (0, 1), 0),
}


@pytest.mark.parametrize(("shape", "strides", "offset"), OUTSIDE.values(), ids=OUTSIDE)
def test_a_tensor_outside_its_storage_or_larger_than_memory_is_refused(path, shape, strides, offset):
    value = {"x": tensor(24, shape, strides, offset)}
    for content in either(value, HELD):
        assert "breaks the format" in refused(path, content)


def test_many_views_cannot_take_more_memory_together_than_one(path):
    value = {f"x{index}": tensor(24, (2**16,), (0,)) for index in range(63)}
    assert len(read(path, zip_of(value, HELD))) == 63
    assert "take" in refused(path, zip_of({**value, "y": tensor(24, (2**19,), (0,))}, HELD))


def test_a_part_of_a_storage_is_told_by_numbers_alone(path):
    for count, view in ((True, ()), (24, ("1", 0, True)), (24, ("1", True, 2))):
        value = {"x": tensor(count, (1,), (1,), view=view)}
        assert "breaks the format" in refused(path, zip_of(value, HELD))


@pytest.mark.exhaustive
def test_a_small_file_takes_little_memory_whatever_it_says(path, monkeypatch):
    monkeypatch.setattr("nezha_np.weights.formats.pickle_machine.MOST_INSTRUCTIONS", 100_000)
    # Ten times the same tuple in a tuple, 300 times: quickly written, and never hashed, copied or printed as a whole.
    nested = b"N" + b"".join(b"q\x01" + b"(" + b"h\x01" * 10 + b"t" for _ in range(300))
    contents = {
        "laughs": zip_of(Raw(nested), {}),
        "laughs in a call": zip_of(Call(SYSTEM, Raw(b"(" + nested + b"t")), {}),
        "laughs as a key": zip_of(Raw(b"}" + nested + b"Ns"), {}),
        "pairs again and again": zip_of(
            Raw(instructions([[index, index] for index in range(2_000)]) + b"q\x01" +
                (instructions(ORDERED_DICT) + b"h\x01\x85R") * 1000), {}
        ),
        "a memo of any number": zip_of(Raw(b"Nr" + b"\xff" * 4), {"0": b""}),
        "itself": zip_of(Raw(b"}q\x01" + instructions("model") + b"h\x01s"), {}),
        "itself in a list": zip_of(Raw(b"]q\x01h\x01a"), {}),
        "itself in a call": zip_of(Call(SYSTEM, Raw(b"(]q\x01h\x01at")), {}),
        "a number of a million digits": zip_of(Call(SYSTEM, (1 << 3_000_000,)), {}),
        "a size of a million digits": zip_of({"x": tensor(24, (1 << 3_000_000,), (1,))}, HELD),
    }  # fmt: skip
    for name, content in contents.items():
        path.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(ValueError):
            read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * len(content) + 2**24, name


LONG = "k" * 100_000


def again(value: Any, *others: Any, times: int, do: bytes) -> Raw:
    """Write values into the memo, from 1 on, and then the same instructions again and again."""
    stored = b"".join(instructions(one) + b"q" + bytes([index]) for index, one in enumerate((value, *others), 1))
    return Raw(stored + b"}" + do * times)


# What a few instructions would make Python do, in a file of a few bytes: each took minutes, or would have.
LABORIOUS: dict[str, tuple[Any, str]] = {
    "pairs of thousands": (
        again((("a", 1) * 100_000,), ORDERED_DICT, times=20_000, do=b"h\x02h\x01\x85R0"),
        "arguments of collections.OrderedDict",
    ),
    "thousands of unused arguments": (
        again((*SIMPLE["a"].arguments, *[None] * 200_000), REBUILD, times=20_000, do=b"h\x02h\x01R0"),
        "arguments of torch._utils._rebuild_tensor_v2",
    ),
    "axes of enormous sizes": (
        again((*SIMPLE["a"].arguments[:2], (2**62,) * 64, (0,) * 64, False, None), REBUILD, times=20_000,
              do=b"h\x02h\x01R0"),
        "at most 2,000,000 instructions",
    ),
    "equal names of thousands of letters": (
        again(LONG, LONG[:-1] + "k", times=20_000, do=b"h\x01Ns" + b"h\x02Ns"), "at most 2,000,000 instructions"
    ),
    "a storage's key of thousands of letters": (
        again(("storage", Name("torch", "FloatStorage"), LONG, "cpu", 24), times=20_000, do=b"h\x01Q0"),
        "expected the key of a storage, got 'kkk",
    ),
    "a function's name of thousands of letters": (
        again(LONG, "x", times=20_000, do=b"h\x01h\x02\x930"), "would import kkk"
    ),
    "keys of one hash": (Raw(b"}" + b"".join(instructions(k * (2**61 - 1)) + b"Ns" for k in range(50_000))), "50,000"),
    "a key of a million digits": (again(1 << 8_000_000, times=20_000, do=b"h\x01Ns"), "an enormous number"),
    "places in the memo of one hash": (
        Raw(b"N" + b"".join(b"p%d\n" % (k * (2**61 - 1)) for k in range(50_000))), "expected the index of a value"
    ),
    "a place in the memo of many digits": (Raw(b"Np" + b"9" * 4000 + b"\n"), "got an enormous number"),
    "a place before the memo": (Raw(b"Np-1\n"), "got -1"),
    "names of one large dictionary": (
        Raw(
            instructions({f"{key}": SIMPLE["a"] for key in range(20_000)}) + b"q\x010}" +
            b"".join(instructions(f"{key}") + b"h\x01s" for key in range(20_000))
        ),
        "expected a dictionary of tensors, or one under",
    ),
    "a call with bytes, again and again": (
        Call(SYSTEM, Raw(
            b"B" + struct.pack("<I", 10**7) + bytes(10**7) + b"q\x010" +
            b"".join(b"(" + b"h%c" % n * 6 + b"tq%c0" % (n + 1) for n in (1, 2, 3)) + b"(" + b"h\x04" * 6 + b"t"
        )),
        "would call os.system(",
    ),
    "a call with a large dictionary, again and again": (
        Call(SYSTEM, Raw(
            instructions({f"{key * 7919 % 50_000}": None for key in range(50_000)}) + b"q\x010" +
            b"".join(b"(" + b"h%c" % n * 6 + b"lq%c0" % (n + 1) for n in (1, 2)) + b"(" + b"h\x03" * 6 + b"t"
        )),
        "would call os.system([[{'0': None, ",
    ),
}  # fmt: skip


@pytest.mark.one_in(5)
@pytest.mark.parametrize(("value", "said"), LABORIOUS.values(), ids=LABORIOUS)
def test_a_small_file_takes_little_time_whatever_it_says(path, value, said):
    content = zip_of(value, HELD)
    with within(5):  # most take a hundredth of it
        message = refused(path, content)
    if said == "50,000":
        assert message.endswith(" and 49980 more")
    elif said == "an enormous number":
        assert "breaks the format" in message  # more than one value is left
    else:
        assert said in message


def test_keys_that_are_numbers_of_any_size_are_left_out(path):
    # PyTorch's optimisers once took the places of their parameters in memory for keys.
    state = {139_872_345_678_912: {"exp_avg": SIMPLE["a"]}, -1: 0.1, 2**64: 1, 0.5: 2, True: 3, None: 4}
    for content in either({"optimizer": {"state": state}, "model": SIMPLE}, HELD):
        assert list(read(path, content)) == ["a", "b"]
    assert refused(path, zip_of(state, HELD)).endswith(
        "got 139872345678912 (1 tensor), -1, 18446744073709551616, 0.5, True, None"
    )


@pytest.mark.parametrize("metadata", [{"neg": True}, {"conj": True}, {"neg": False}, True, "neg"])
def test_a_tensor_that_is_marked_as_meaning_other_numbers_is_refused(path, metadata):
    plain = SIMPLE["a"].arguments
    of_dtype = (storage("storage.UntypedStorage", "0", 96), *plain[1:], Name("torch", "float32"))
    for name, arguments in (("_rebuild_tensor_v2", plain), ("_rebuild_tensor_v3", of_dtype)):
        rebuild = Name("torch._utils", name)
        message = refused(path, zip_of({"a": Call(rebuild, (*arguments, metadata))}, HELD))
        assert f"got a tensor marked {metadata!r}, which changes what they mean" in message
        for nothing in ({}, None):
            assert read(path, zip_of({"a": Call(rebuild, (*arguments, nothing))}, HELD))["a"].shape == (2, 3, 4)
        refused(path, zip_of({"a": Call(rebuild, (*arguments, None, metadata))}, HELD))


def test_endless_instructions_are_refused(path, monkeypatch):
    monkeypatch.setattr("nezha_np.weights.formats.pickle_machine.MOST_INSTRUCTIONS", 1000)
    assert "at most 1,000 instructions" in refused(path, zip_of(Raw(b"N0" * 501 + b"N"), {}))
    assert "a dictionary of tensors" in refused(path, zip_of(Raw(b"N0" * 400 + b"N"), {}))


# ------------------------------------------------------------------------------------------------------- broken files


@pytest.mark.exhaustive
@pytest.mark.parametrize("content", FILES, ids=["zip", "pickles"])
def test_a_file_cut_anywhere_is_refused(path, content):
    for length in range(len(content)):
        refused(path, content[:length])


def judge(path: Path, content: bytes) -> None:
    """Check that any file is either read or refused by a ValueError."""
    path.write_bytes(content)
    try:
        entries = read_header(path)
        tensors = map_tensors(path, entries)
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith(f"{path}: expected ")
        return
    for name, entry in entries.items():
        assert 0 <= entry.start <= entry.stop <= len(content)
        assert tensors[name].shape == entry.shape
        np.array(tensors[name])  # every byte is there to be read


@given(st.sampled_from(FILES), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4))
@examples(600)
def test_changed_bytes_never_raise_anything_but_a_value_error(path, content, mutations):
    changed = bytearray(content)
    for place, value in mutations:
        changed[int(place * len(changed))] = value
    judge(path, bytes(changed))


@pytest.mark.exhaustive
@pytest.mark.parametrize("content", FILES, ids=["zip", "pickles"])
def test_every_byte_changed_to_its_opposite_never_raises_anything_but_a_value_error(path, content):
    for place in range(len(content)):
        judge(path, content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])


@given(st.sampled_from(FILES), st.floats(0, 1), st.integers(0, 30), st.binary(max_size=30))
@examples(300)
def test_a_piece_replaced_by_another_never_raises_anything_but_a_value_error(path, content, place, count, piece):
    start = int(place * len(content))
    judge(path, content[:start] + piece + content[start + count :])


@given(st.binary(max_size=300))
@example(b"\x80\x02")
@example(b"PK\x03\x04")
@example(b"PK\x05\x06" + bytes(18))
def test_any_bytes_at_all_are_read_or_refused(path, content):
    judge(path, content)
    judge(path, zip_of(Raw(content), HELD))
    judge(path, pickles_of(Raw(content), HELD))


numbers = st.sampled_from([-1, 0, 1, 2, 3, 4, 8, 23, 24, 25, 2**31, 2**62, 2**63, 2**64]) | st.integers(0, 30)


@given(
    st.lists(st.tuples(numbers, numbers), max_size=4),
    numbers,
    st.sampled_from(sorted(STORAGES)),
    numbers,
    st.booleans(),
)
@examples(400)
def test_any_view_of_a_storage_is_read_or_refused(path, axes, offset, kind, count, right):
    item = DTYPES[STORAGES[kind]].itemsize
    if right:
        count = 96 // item
    value = {"x": tensor(count, *(tuple(axis[n] for axis in axes) for n in (0, 1)), offset, kind=kind[6:])}
    for content in either(value, HELD, item):
        judge(path, content)


def test_what_is_no_file_of_torch_save_is_refused_in_one_sentence(path):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    assert "tar archive, from before PyTorch 0.1.10: load and save it again" in refused(path, tar.getvalue())
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 1234\n"
    assert "a Git LFS pointer, which stands for it: fetch it" in refused(path, pointer)
    assert "an empty one" in refused(path, b"")
    assert "that torch.save did not write" in refused(path, pickle.dumps({"a": 1}))
    assert "got a web page (HTML): download the file, not" in refused(path, b"<!DOCTYPE html><html></html>")
    assert "breaks the format" in refused(path, b"\x89HDF\r\n\x1a\n" + bytes(300))


def test_a_missing_file_and_a_folder_are_not_found(path):
    for missing in (path.parent / "nowhere.bin", path.parent):
        with pytest.raises(FileNotFoundError, match=r"expected a file of torch\.save, found no such file"):
            read_header(missing)


def test_big_endian_files_are_refused(path):
    assert "big-endian" in refused(path, zip_of(SIMPLE, HELD, byteorder=b"big"))
    value = {"x": tensor(24, (1,), (1,), view=(None,))}
    assert "big-endian" in refused(path, pickles_of(value, HELD, little=False))


def test_other_zip_archives_are_refused(path):
    def archive(compression: int = zipfile.ZIP_STORED, **files: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as made:
            for name, content in files.items():
                made.writestr(name.replace("_", "/"), content)
        return file.getvalue()

    assert "expected one data.pkl in the zip archive, found 0" in refused(path, archive())
    assert "found 0" in refused(path, archive(**{"word/document.xml": b""}))
    assert "found 0" in refused(path, archive(**{"data.pkl": pickle_of({})}))
    assert "found 2" in refused(path, archive(**{"a/data.pkl": pickle_of({}), "b/data.pkl": pickle_of({})}))
    compressed = archive(zipfile.ZIP_BZIP2, **{"a/data.pkl": pickle_of({})})
    assert "holds a/data.pkl encrypted, or compressed by something else than deflate" in refused(path, compressed)
    content = bytearray(archive(**{"a/data.pkl": pickle_of({})}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "holds a/data.pkl encrypted, or" in refused(path, bytes(content))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = io.BytesIO()
        with zipfile.ZipFile(twice, "w") as made:
            made.writestr("a/data.pkl", pickle_of({}))
            made.writestr("a/data.pkl", pickle_of(SIMPLE))
    assert "holds a/data.pkl twice" in refused(path, twice.getvalue())


def deflated(content: bytes) -> bytes:
    """Write a zip archive again, with compressed files."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return file.getvalue()


def test_a_compressed_zip_archive_is_read_as_pytorch_reads_it(path):
    value = {**SIMPLE, "none": tensor(0, (0, 3), (3, 1), key="1")}
    content = deflated(zip_of(value, {**HELD, "1": b""}))
    tensors = read(path, content)
    np.testing.assert_array_equal(tensors["a"], NUMBERS.reshape(2, 3, 4))
    np.testing.assert_array_equal(tensors["b"], NUMBERS.reshape(2, 12)[:, 4:8].T)
    assert tensors["none"].shape == (0, 3) and not any(array.flags.writeable for array in tensors.values())
    torch = pytest.importorskip("torch", reason="torch.load reads these files")
    value = {"x": torch.randn(30, 40), "y": torch.ones(7, dtype=torch.bfloat16), "z": torch.arange(6).reshape(2, 3).T}
    path.write_bytes(deflated(save(path, value).read_bytes()))
    assert_read(path, torch.load(path, weights_only=True))


def test_a_compressed_zip_archive_takes_no_more_memory_than_a_bound_whatever_it_says(path, monkeypatch):
    count = 2**18
    content = deflated(zip_of({"x": tensor(count, (count,), (1,))}, {"0": bytes(4 * count)}))
    assert len(content) < 5000 and read(path, content)["x"].shape == (count,)
    monkeypatch.setattr("nezha_np.weights.formats.zip_archive.MOST_EXPANDED", 2**19)
    assert "its compressed files would take 1,04" in refused(path, content)


def test_a_compressed_zip_archive_that_lies_or_is_broken_is_refused(path):
    content = deflated(zip_of(SIMPLE, HELD))
    entry = content.rindex(b"archive/data/0") - 46  # in the directory, at the end of the archive
    (right,) = struct.unpack("<I", content[entry + 24 : entry + 28])
    for size in (right - 4, right + 4):
        changed = bytearray(content)
        changed[entry + 24 : entry + 28] = struct.pack("<I", size)
        assert f"expected {right} bytes for storage '0', found {size} of them" in refused(path, bytes(changed))
        value = {"x": tensor(size // 4, (2,), (1,))}
        changed = bytearray(deflated(zip_of(value, HELD)))
        place = changed.rindex(b"archive/data/0") - 46
        changed[place + 24 : place + 28] = struct.pack("<I", size)
        path.write_bytes(changed)
        with pytest.raises(
            ValueError, match=rf"bin: expected a compressed tensor x, got another: expected {size} bytes"
        ):
            map_tensors(path, read_header(path))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        info = archive.getinfo("archive/data/0")
    start = info.header_offset + 30 + len(info.filename)
    for place in range(start, start + info.compress_size):
        changed = bytearray(content)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"bin: expected a compressed tensor a, got another: "):
            map_tensors(path, read_header(path))


def test_a_zip_archive_whose_files_overlap_is_refused(path):
    content = zip_of(SIMPLE, {**HELD, "1": HELD["0"] + zip_of({}, {"0": HELD["0"]})})
    assert list(read(path, content)) == ["a", "b"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        places = {info.filename: info.header_offset for info in archive.infolist()}
    inside = content.index(b"archive/data/0", places["archive/data/1"]) - 30  # a file of this name in the other one
    entry = content.rindex(b"archive/data/0") - 46  # in the directory, at the end of the archive
    overlap, name = "the zip archive holds files that overlap", "calls archive/data/0 by another name where it lies"
    for place, size, said in ((places["archive/data/1"], 96, name), (inside, 1, overlap), (inside, 0, overlap)):
        changed = bytearray(content)
        changed[entry + 20 : entry + 28] = struct.pack("<II", size, size)
        changed[entry + 42 : entry + 46] = struct.pack("<I", place)
        assert said in refused(path, bytes(changed))


def test_importing_the_package_imports_no_reader_of_zip_archives_or_pickles():
    code = "import sys, nezha_np; print([name for name in ('zipfile', 'pickletools') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------- what PyTorch writes

KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


def save(path: Path, value: Any, zipped: bool = True) -> Path:
    """Write a file by torch.save, as it is today or as it was before 1.6."""
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def assert_read(path: Path, expected: Mapping[str, Any]) -> None:
    """Check that what is read of a file is what PyTorch holds."""
    found = map_tensors(path, read_header(path))
    assert list(found) == list(expected)
    for name, value in expected.items():
        value = value.detach()
        array = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes() and not found[name].flags.writeable


@st.composite
def views(draw: st.DrawFn) -> dict[str, Any]:
    """Draw tensors of any dtype, views of a few storages that they share."""
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    storages = []
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3)):
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        drawn = torch.randint(-100, 100, shape, generator=generator).to(getattr(torch, kind))
        storages.append(drawn / 7 if drawn.is_floating_point() else drawn)
    tensors: dict[str, Any] = OrderedDict()
    for index in range(draw(st.integers(1, 6))):
        value = draw(st.sampled_from(storages))
        for _ in range(draw(st.integers(0, 3))):
            axis = draw(st.integers(0, max(value.ndim - 1, 0)))
            match draw(st.sampled_from(["turn", "slice", "pick", "repeat", "flat", "as it is"])):
                case "turn":
                    value = value.permute(draw(st.permutations(range(value.ndim))))
                case "slice" if value.ndim:
                    start, step = draw(st.integers(0, 2)), draw(st.integers(1, 3))
                    value = value[(slice(None),) * axis + (slice(start, None, step),)]
                case "pick" if value.ndim and value.shape[axis]:
                    value = value.select(axis, draw(st.integers(0, value.shape[axis] - 1)))
                case "repeat":
                    value = value.expand(draw(st.integers(1, 3)), *value.shape)
                case "flat" if value.is_contiguous():
                    value = value.view(-1)
        if value.is_floating_point() and draw(st.booleans()):
            value = torch.nn.Parameter(value)
        tensors[f"{index}.{draw(st.text(max_size=5))}"] = value
    return tensors


@given(views(), st.booleans())
@examples(200)
def test_what_torch_save_writes_is_read_bit_for_bit(path, tensors, zipped):
    assert_read(save(path, tensors, zipped), tensors)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickles"])
def test_every_protocol_of_pickle_is_read(path, protocol, zipped):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    value = torch.nn.Linear(3, 2).state_dict()
    value["more"] = torch.arange(5)
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert_read(path, value)


def test_a_checkpoint_in_a_stream_of_any_name_is_read(path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    stream = io.BytesIO()
    value = {"x": torch.arange(5.0)}
    torch.save(value, stream)  # whose folder in the archive is called archive, not by the file's name
    path.write_bytes(stream.getvalue())
    assert_read(path, value)


def test_unsigned_numbers_are_read(path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    value = {kind: torch.tensor([1, 2, 3], dtype=getattr(torch, kind)) for kind in ("uint16", "uint32", "uint64")}
    value["step"] = torch.tensor([1, 2, 3, 4, 5], dtype=torch.uint16)[1::2]
    assert_read(save(path, value), value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickles"])
def test_a_tensor_with_pytorchs_negative_bit_is_refused(path, zipped):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    negative = torch._neg_view(torch.ones(3))
    assert "marked {'neg': True}" in refused(path, save(path, {"a": negative}, zipped).read_bytes())
    assert_read(save(path, {"a": negative.resolve_neg()}, zipped), {"a": -torch.ones(3)})


def test_numbers_that_numpy_lacks_are_refused(path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    for kind in ("complex64", "float8_e4m3fn"):
        save(path, {"x": torch.zeros(2, dtype=getattr(torch, kind))})
        assert "breaks the format" in refused(path, path.read_bytes())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickles"])
def test_what_scripts_keep_beside_the_tensors_is_left_out(path, zipped):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    tensors = {"x": torch.arange(3.0), "y": torch.ones(2)}
    beside = {
        "loss": np.float64(0.5),
        "rng": np.random.default_rng(0).normal(size=3),
        "random": np.random.RandomState(0).get_state(),
        "steps": {np.int64(3): np.bool_(True)},
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu"), out=Path("out")),
        "shape": torch.Size([2, 3]),
        "seen": {1, 2},
        "counts": Counter("aab"),
        "when": datetime.datetime(2020, 2, 29),
    }
    for value in (tensors | beside, {"state_dict": tensors, **beside}):
        assert_read(save(path, value, zipped), tensors)
    message = refused(path, save(path, {"state_dict": {"x": np.zeros(3)}, **beside}, zipped).read_bytes())
    assert "got 'state_dict' (arrays of NumPy, no tensors), 'loss' (of NumPy), " in message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickles"])
def test_tensors_with_attributes_are_read_as_pytorch_reads_them(path, zipped):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    parameter, tensor, buffer = torch.nn.Parameter(torch.arange(4.0)), torch.arange(5), torch.nn.Buffer(torch.ones(2))
    parameter.partition_dim, tensor.owner = 1, "somebody"
    value = {"parameter": parameter, "tensor": tensor, "buffer": buffer}
    assert_read(save(path, value, zipped), torch.load(save(path, value, zipped), weights_only=True))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickles"])
def test_what_is_more_than_tensors_is_refused_by_name(path, zipped):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    linear = torch.nn.Linear(2, 2)
    for value, said in (
        (linear, "make torch.nn.modules.linear.Linear("),
        ({"x": torch.zeros(2).to_sparse()}, "call torch.serialization._get_layout('torch.sparse_coo')"),
    ):
        message = refused(path, save(path, value, zipped).read_bytes())
        assert said in message


def test_a_program_of_torchscript_is_refused(path):
    torch = pytest.importorskip("torch", reason="torch.jit.save writes this file")
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert "torch.jit.save wrote is a program, so load it with PyTorch" in refused(path, path.read_bytes())


@pytest.mark.exhaustive
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickles"])
def test_a_real_file_cut_anywhere_is_refused(path, zipped):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    content = save(path, {"x": torch.arange(5.0)}, zipped).read_bytes()
    for length in range(len(content)):
        refused(path, content[:length])


def test_an_aligned_tensor_is_the_mapped_file_itself(path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    value = torch.arange(24.0).reshape(4, 6)
    save(path, {"x": value, "turned": value.T, "half": value.half()})
    for array in map_tensors(path, read_header(path)).values():
        assert not array.flags.owndata
        while isinstance(array, np.ndarray):
            array = array.base
        assert type(array).__name__ in ("mmap", "memoryview", "DummyArray")
