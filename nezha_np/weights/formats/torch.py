"""PyTorch's files (``pytorch_model.bin``), read without PyTorch and without running what is in them.

`torch.save` writes the numbers of tensors, their storages, one after another, and a pickle that says how the tensors
lie in them; since PyTorch 1.6 as a zip archive, before that as a row of pickles with the storages behind. A pickle is a
program for a small stack machine, and one of its instructions calls any Python function by name: whoever loads a file
runs what its author liked.

So nothing is loaded here. The instructions are read one by one (`pickletools.genops`, which only parses) and carried
out on plain values: numbers, strings, tuples, lists, dicts, and descriptions of storages and tensors. No name in the
file is ever looked up in Python. A call is compared with the few that `torch.save` writes, each of which has its
meaning here; any other is refused with what it would have called, arguments included.

A tensor is a view of a storage: it starts at an offset and has for each axis a stride. Storages may be shared, views
may overlap, but none may reach outside its storage. What is large in the file stays there: only places are computed.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import mmap
import reprlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from nezha_np.checks import listed
from nezha_np.weights.formats.entry import DTYPES, GIT_LFS, POINTER, Entry, row_strides
from nezha_np.weights.formats.stored_zip import stored_files

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # what the first pickle of an old file holds
PROTOCOL = 1001  # and the second

# The types of storages by the names in pickles; one without a type is bytes, and its tensors say what theirs is.
STORAGES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    "torch.storage.UntypedStorage": "U8",
}
TENSOR_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint64": "U64",
    "torch.uint32": "U32",
    "torch.uint16": "U16",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}
CALLS = (
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
)
# Where checkpoints of training scripts keep the model, beside its optimiser for example.
INNER = ("state_dict", "model_state_dict", "model", "module")

MOST_INSTRUCTIONS = 2_000_000  # a model of 200 tensors takes 6,000
MOST_AXES = 64  # NumPy's
LONGEST_NAME = 200  # of a function or a storage; torch.save's have 40 letters at most
# Views may repeat a few bytes as often as they say: beyond twice the file, all tensors may take this much.
MOST_REPEATED = 2**30


class _Refused(ValueError):
    """What a pickle would have done that no file of tensors does."""


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name that a pickle gives a function or a class. It is never looked up."""

    name: str

    def __repr__(self) -> str:
        return self.name if self.name.isprintable() else repr(self.name)


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A part of a storage, in bytes: `size` of them from `first` on; `total` is the size of the whole."""

    key: str
    dtype: str
    first: int
    size: int
    total: int

    def __repr__(self) -> str:
        return "storage"


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor before it is known where its storage lies: `first` and `last` are bytes of the storage."""

    storage: _Storage
    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int
    strides: tuple[int, ...] | None

    def __repr__(self) -> str:
        return "tensor"


@dataclasses.dataclass(frozen=True, eq=False)
class _Key:
    """A key that is no text, told from others by its place in memory: a file may hold any number of equal hashes."""

    value: Any

    def __repr__(self) -> str:
        return _shown(self.value)


def read_header(path: Path) -> dict[str, Entry]:
    """Find the tensors of a file that `torch.save` wrote; nothing in the file is run.

    Parameters
    ----------
    path : Path
        The file: a dictionary of tensors (a ``state_dict``), or a dictionary that holds one under ``state_dict``,
        ``model_state_dict``, ``model`` or ``module``. Values beside the tensors are left out.

    Returns
    -------
    dict of str to Entry
        The tensors; `start` and `stop` count from the beginning of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file breaks the format, if it would call anything but what makes tensors, storages and OrderedDicts, or
        if it was written before PyTorch 0.1.10 (a tar archive) or on a big-endian machine. The message names the file.

    Examples
    --------
    A file that would run a command, with PyTorch and pickle:

    >>> import pickle, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "pytorch_model.bin"
    >>> _ = path.write_bytes(b"cos\\nsystem\\n(S'rm -r *'\\ntR.")
    >>> read_header(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...: expected tensors alone, got a pickle that would call os.system('rm -r *'): refused, nothing was run
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of torch.save, found no such file")
    with path.open("rb") as file:
        start = file.read(512)
        if not start:
            raise ValueError(f"{path}: expected a file of torch.save, got an empty one")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        if start.startswith(GIT_LFS):
            raise ValueError(POINTER)
        if start[257:262] == b"ustar":
            raise ValueError("it is a tar archive, from before PyTorch 0.1.10: load and save it again with PyTorch")
        value, starts = _read_zip(path, mapped) if start.startswith(b"PK") else _read_pickles(mapped)
        tensors = _find_tensors(value)
        entries = {name: _entry(tensor, starts) for name, tensor in tensors.items()}
        _refuse_repetition(entries, size=len(mapped))
    except _Refused as error:
        raise ValueError(f"{path}: expected tensors alone, got {error}: refused, nothing was run") from None
    except (ValueError, DeprecationWarning) as error:  # of odd escapes pickletools warns, which may be an error
        raise ValueError(f"{path}: expected a file of torch.save, got one that breaks the format: {error}") from None
    return entries


# ------------------------------------------------------------------------------------------------------ the two formats


def _read_zip(path: Path, mapped: mmap.mmap) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Read a zip archive: what its pickle holds, and where each storage starts and stops."""
    compressed = "what torch.jit.save wrote is a program, so load it with PyTorch and save its state_dict"
    places = stored_files(path, compressed=compressed)
    pickles = [name for name in places if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"expected one data.pkl in the zip archive, found {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in places:
        _refuse_big_endian(mapped[slice(*places[f"{folder}byteorder"])] == b"little")
    value = _run(io.BytesIO(mapped[slice(*places[pickles[0]])]))
    data = f"{folder}data/"
    return value, {name.removeprefix(data): place for name, place in places.items() if name.startswith(data)}


def _read_pickles(mapped: mmap.mmap) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Read the older format: five pickles (number, version, machine, tensors, keys of storages), then the storages."""
    if _run(mapped) != MAGIC_NUMBER:
        raise ValueError("it holds a pickle that torch.save did not write")
    if _run(mapped) != PROTOCOL:
        raise ValueError(f"expected version {PROTOCOL}")
    machine = _run(mapped)
    if not isinstance(machine, dict):
        raise ValueError("it does not say on what machine it was written")
    _refuse_big_endian(machine.get("little_endian") is True)
    storages: dict[str, _Storage] = {}
    value = _run(mapped, storages)
    keys = _run(mapped)
    places = {}
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in storages or key in places:
            raise ValueError(f"expected the storages of the tensors, each once, got {reprlib.repr(key)}")
        size = storages[key].total
        elements = mapped.read(8)
        start = mapped.tell()
        if len(elements) < 8 or start + size > len(mapped):
            raise ValueError(f"it is cut short at storage {key}")
        if struct.unpack("<q", elements)[0] * DTYPES[storages[key].dtype].itemsize != size:
            raise ValueError(f"storage {key} has another size than its tensors say")
        places[key] = (start, start + size)
        mapped.seek(start + size)
    return value, places


def _refuse_big_endian(is_little: bool) -> None:
    if not is_little:
        raise ValueError("its numbers are big-endian: load it with PyTorch and save it on a little-endian machine")


# --------------------------------------------------------------------------------------------------- the stack machine

VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NO_OPERATION = ("PROTO", "FRAME")


def _run(stream: Any, storages: dict[str, _Storage] | None = None) -> Any:
    """Carry out the instructions of one pickle, and return what is left on the stack.

    `storages` collects the storages of the older format, whose persistent ids have one part more.
    """
    import pickletools

    machine = _Machine({} if storages is None else storages)
    for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        if count + machine.work > MOST_INSTRUCTIONS:
            raise ValueError(f"expected at most {MOST_INSTRUCTIONS:,} instructions in a pickle, got more")
        if instruction.name == "STOP":
            break
        try:
            machine.step(instruction.name, argument)
        except (IndexError, KeyError):
            raise ValueError(f"instruction {instruction.name} of the pickle takes what is not there") from None
    if machine.foreign is not None:
        _refuse_call("import", machine.foreign)
    if len(machine.stack) != 1 or machine.marks:
        raise ValueError("expected one value in a pickle")
    return machine.stack[0]


class _Machine:
    """The state of a pickle that is being read: a stack, marks on it, and a memo of values to use again."""

    def __init__(self, storages: dict[str, _Storage]) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[str, Any] = {}
        self.storages = storages
        self.foreign: _Global | None = None  # the first name that no file of tensors has
        self.work = 0  # what takes time beside the instructions, counted as so many more of them

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        stack = self.stack
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[_memo_key(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[_memo_key(len(self.memo))] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[_memo_key(argument)])
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name == "TUPLE":
            self.push(tuple(self.since_mark()))
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[index] for index in range(-TUPLES[name], 0))]
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "DICT":
            items = self.since_mark()
            self.push({})
            self.set_items(items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.set_items([key, value])
        elif name == "SETITEMS":
            self.set_items(self.since_mark())
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "LIST":
            self.push(self.since_mark())
        elif name == "APPEND":
            self.extend([stack.pop()])
        elif name == "APPENDS":
            self.extend(self.since_mark())
        elif name == "GLOBAL":
            self.push_global(*argument.split(" ", 1))
        elif name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            self.push_global(module, function)
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(self.call(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            # OrderedDict's attributes (PyTorch keeps version numbers there) are of no use here.
            if not isinstance(stack[-1], dict):
                _refuse_call("set the state of", stack[-1], state)
        elif name == "NEWOBJ":
            arguments = stack.pop()
            _refuse_call("make", stack.pop(), arguments)
        elif name == "NEWOBJ_EX":
            options, arguments = stack.pop(), stack.pop()
            _refuse_call("make", stack.pop(), arguments, options)
        elif name == "OBJ":
            kind, *arguments = self.since_mark() or [None]
            _refuse_call("make", kind, tuple(arguments))
        elif name == "INST":
            _refuse_call("make", _Global(argument.replace(" ", ".", 1)), tuple(self.since_mark()))
        elif name == "POP":
            stack.pop()
        elif name not in NO_OPERATION:
            raise ValueError(f"expected the instructions that torch.save writes in a pickle, got {name}")

    def push(self, value: Any) -> None:
        """Push a value, on the stack that a mark may have changed."""
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Take the values since the last mark from the stack."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, in turn, into the dict on top of the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("expected keys and values for a dictionary in the pickle")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Not a tuple: one that holds another twice, and so on, takes forever to hash.
            if key is not None and not isinstance(key, (str, bytes, int, float)):
                raise ValueError(f"expected names and numbers as keys in the pickle, got {_shown(key)}")
            if isinstance(key, str):
                self.work += len(key) // 64  # which is compared with an equal one letter by letter
                target[key] = value
            else:
                target[_Key(key)] = value

    def extend(self, values: list[Any]) -> None:
        """Append values to the list on top of the stack."""
        if not isinstance(self.stack[-1], list):
            raise ValueError("expected a list to append to in the pickle")
        self.stack[-1].extend(values)

    def push_global(self, module: Any, name: Any) -> None:
        """Push what stands for a function or class."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("expected the name of a function in the pickle")
        if len(module) + len(name) > LONGEST_NAME:  # put together from the memo, again and again
            _refuse_call("import", _Global(f"{module[:LONGEST_NAME]}.{name[:LONGEST_NAME]}"))
        found = _Global(f"{module}.{name}")
        if self.foreign is None and not (found.name in CALLS or found.name in STORAGES or found.name in TENSOR_DTYPES):
            self.foreign = found
        self.push(found)

    def storage(self, description: Any) -> _Storage:
        """Return the storage that a persistent id describes: a key, a type, and how many elements."""
        view: Any = None
        match description:
            case ("storage", _Global(name=kind), str(key), str(), int(count)):
                pass
            case ("storage", _Global(name=kind), str(key), str(), int(count), view):
                pass
            case ("module", _Global() as kind, *_):  # how the older format marks the classes of a whole model
                _refuse_call("make", kind)
            case _:
                raise ValueError(f"expected the description of a storage in the pickle, got {_shown(description)}")
        if len(key) > LONGEST_NAME:
            raise ValueError(f"expected the key of a storage, got {_shown(key)}")
        if kind not in STORAGES:
            raise ValueError(f"expected storages of {', '.join(STORAGES)}, got {kind!r}")
        dtype = STORAGES[kind]
        item = DTYPES[dtype].itemsize
        if not 0 <= count < 2**63:
            raise ValueError(f"expected the number of elements of storage {_shown(key)}, got {_shown(count)}")
        whole = _Storage(key, dtype, first=0, size=count * item, total=count * item)
        if self.storages.setdefault(key, whole) != whole:
            raise ValueError(f"storage {_shown(key)} has two types or sizes")
        if view is None:
            return whole
        match view:
            case (str(), int(first), int(elements)) if first >= 0 and 0 <= elements <= count - first:
                return dataclasses.replace(whole, first=first * item, size=elements * item)
        raise ValueError(f"expected a part of storage {_shown(key)}, got {_shown(view)}")

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what a call stands for; refuse one that no file of tensors makes."""
        if not isinstance(function, _Global) or function.name not in CALLS:
            _refuse_call("call", function, arguments)
        match function.name.rpartition(".")[2], arguments:
            case "OrderedDict", ():
                return {}
            case "OrderedDict", ([*pairs],):  # Python 2's
                self.work += len(pairs)
                self.stack.append({})
                for pair in pairs:
                    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                        break
                    self.set_items(list(pair))
                else:
                    return self.stack.pop()
            case "_rebuild_parameter", (_Tensor() as tensor, *_):
                return tensor
            case "_rebuild_tensor", (_Storage() as storage, int(offset), tuple(shape), tuple(strides)):
                return self.view(storage, storage.dtype, offset, shape, strides)
            case (
                "_rebuild_tensor_v2",
                (_Storage() as storage, int(offset), tuple(shape), tuple(strides), _, _, *_),
            ) if len(arguments) <= 7:
                _refuse_marks(arguments[6:])
                return self.view(storage, storage.dtype, offset, shape, strides)
            case (
                "_rebuild_tensor_v3",
                (_Storage() as storage, int(offset), tuple(shape), tuple(strides), _, _, _Global(name=dtype), *_),
            ) if dtype in TENSOR_DTYPES and len(arguments) <= 8:
                _refuse_marks(arguments[7:])
                return self.view(storage, TENSOR_DTYPES[dtype], offset, shape, strides)
        raise ValueError(f"expected the arguments of {function.name} in the pickle, got {_shown(arguments)}")

    def view(
        self, storage: _Storage, dtype: str, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
    ) -> _Tensor:
        """Describe a view of a storage."""
        self.work += len(shape) ** 2  # the steps of rows are products of all sizes behind them
        return _view(storage, dtype, offset, shape, strides)


def _memo_key(index: int) -> str:
    """Return the key of a value in the memo: a text, because a file could choose numbers of equal hashes."""
    if not 0 <= index < 2**32:
        raise ValueError(f"expected the index of a value in the pickle's memo, got {_shown(index)}")
    return f"{index:d}"  # of True, too: so pickletools reads 01


def _refuse_marks(metadata: tuple[Any, ...]) -> None:
    """Refuse a tensor whose numbers mean something else than they say: PyTorch's negative bit turns their signs."""
    if any(metadata):
        raise ValueError(
            f"expected plain numbers, got a tensor marked {_shown(metadata[0])}, which changes what they mean: save "
            "what Tensor.resolve_neg() returns, with PyTorch"
        )


def _view(storage: _Storage, dtype: str, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> _Tensor:
    """Describe a view of a storage, which must lie inside it."""
    numbers = (offset, *shape, *strides)
    if (
        len(shape) != len(strides)
        or len(shape) > MOST_AXES
        or not all(isinstance(number, int) and 0 <= number < 2**63 for number in numbers)
    ):
        raise ValueError(f"expected offset, shape and strides of a tensor, got {_shown((offset, shape, strides))}")
    if 0 in shape:
        return _Tensor(storage, dtype, shape, storage.first, storage.first, None)
    item = DTYPES[dtype].itemsize
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if (offset + reach + 1) * item > storage.size:
        raise ValueError(
            f"a tensor of shape {_shown(shape)}, strides {_shown(strides)} and offset {offset} reaches outside its "
            f"storage, which has {storage.size} bytes"
        )
    first = storage.first + offset * item
    in_rows = all(
        size == 1 or stride == row for size, stride, row in zip(shape, strides, row_strides(shape), strict=True)
    )
    # The stride of an axis of size 1 is never taken, and may be anything.
    steps = None if in_rows else tuple(stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True))
    return _Tensor(storage, dtype, shape, first, first + (reach + 1) * item, steps)


def _refuse_call(verb: str, function: Any, *arguments: Any) -> NoReturn:
    """Refuse what a pickle would have done."""
    given = ""
    if verb in ("call", "make"):
        positional = arguments[0] if arguments and isinstance(arguments[0], tuple) else arguments[:1]
        given = f"({', '.join([_shown(value) for value in positional[:6]])})"
    raise _Refused(f"a pickle that would {verb} {_shown(function)}{given}")


class _Short(reprlib.Repr):
    """Shows the beginning of a value, and looks at no more of it."""

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:  # reprlib's sorts all keys
        if level <= 0:
            return "{...}"
        items = itertools.islice(value.items(), self.maxdict)
        shown = [f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}" for key, item in items]
        return f"{{{', '.join(shown + ['...'] * (len(value) > self.maxdict))}}}"

    def repr_bytes(self, value: bytes, level: int) -> str:
        return self.repr_instance(value[: self.maxother], level)

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if value.bit_length() <= 128 else "an enormous number"


def _shown(value: Any) -> str:
    """Show a value of a file, which may be enormous or hold itself, in an error."""
    short = _Short()
    short.maxlevel, short.maxstring, short.maxother = 3, 80, 80
    shown = short.repr(value)
    return shown if len(shown) <= 250 else f"{shown[:250]}..."


# ---------------------------------------------------------------------------------------------------------- the tensors


def _find_tensors(value: Any, depth: int = 0) -> dict[str, _Tensor]:
    """Find the dictionary of tensors in what a pickle holds."""
    if not isinstance(value, dict):
        kind = "a tensor" if isinstance(value, _Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"expected a dictionary of tensors, got {kind}")
    found = {name: tensor for name, tensor in value.items() if isinstance(tensor, _Tensor) and isinstance(name, str)}
    if found or not value:
        return found
    for name in INNER:
        if not depth and isinstance(value.get(name), dict) and (inner := _find_tensors(value[name], depth + 1)):
            return inner
    if depth:
        return {}
    keys = listed([_shown(key) if index < 20 else "" for index, key in enumerate(value)])
    raise ValueError(f"expected a dictionary of tensors, or one under {' or '.join(INNER)}, got {keys}")


def _entry(tensor: _Tensor, places: Mapping[str, tuple[int, int]]) -> Entry:
    """Say where in the file a tensor lies."""
    storage = tensor.storage
    start, stop = places.get(storage.key, (0, -1))
    if stop - start != storage.total:
        held = f"{stop - start} of them" if storage.key in places else "none"
        raise ValueError(f"expected {storage.total} bytes for storage {_shown(storage.key)}, found {held}")
    return Entry(tensor.dtype, tensor.shape, start + tensor.first, start + tensor.last, tensor.strides)


def _refuse_repetition(entries: Mapping[str, Entry], *, size: int) -> None:
    total = sum(entry.nbytes for entry in entries.values())
    if total > 2 * size + MOST_REPEATED:
        raise ValueError(f"its views repeat their storages until they take {total:,} bytes, in a file of {size:,}")
