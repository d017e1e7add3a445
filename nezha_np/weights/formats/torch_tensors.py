"""What the calls in PyTorch's pickles mean: tensors, as views of storages.

`torch.save` describes a tensor by a call, ``torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, …)``, and
its storage, the numbers of one or more tensors, by a persistent id. Here each becomes a description, and no array is
made. A tensor is a view of a storage: it starts at an offset, and has a stride for each axis. Storages may be shared
and views may overlap, but none may reach outside its storage.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from nezha_np.weights.formats.entry import DTYPES, row_strides
from nezha_np.weights.formats.pickle_machine import (
    LONGEST_NAME,
    Name,
    Other,
    PickleMachine,
    refuse,
    refuse_arguments,
    shown,
)

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
REBUILD = (
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._tensor._rebuild_from_type_v2",
)
PLAIN_TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
# What training scripts keep beside the tensors: numbers of NumPy, options, devices. Where a pickle calls one of these,
# nothing is made: an `Other` holds its place, and is left out as every value that is no tensor.
BESIDE = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(
        f"{builtins}.{name}"
        for builtins in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "bytearray", "complex")
    ),
    *("numpy.dtype", "_codecs.encode", "torch.device", "torch.Size", "argparse.Namespace", "collections.Counter"),
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
    *("datetime.datetime", "datetime.timedelta"),
)
MOST_AXES = 64  # as many as NumPy has


@dataclasses.dataclass(frozen=True)
class Storage:
    """A part of a storage, in bytes: `size` of them from `first` on; `total` is the size of the full storage."""

    key: str
    dtype: str
    first: int
    size: int
    total: int

    def __repr__(self) -> str:
        return "storage"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor before it is known where its storage lies: from byte `first` to byte `last` of the storage."""

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int
    strides: tuple[int, ...] | None

    def __repr__(self) -> str:
        return "tensor"


class TensorMachine(PickleMachine):
    """Reads a pickle of `torch.save`; `storages` are those that it describes, by their keys.

    Examples
    --------
    >>> import io, pickle
    >>> machine = TensorMachine()
    >>> machine.run(io.BytesIO(pickle.dumps({"epoch": 3}))), machine.storages
    ({'epoch': 3}, {})
    """

    calls: ClassVar[frozenset[str]] = PickleMachine.calls | {*REBUILD, *BESIDE}
    names: ClassVar[frozenset[str]] = PickleMachine.names | {
        *calls,
        *STORAGES,
        *TENSOR_DTYPES,
        *PLAIN_TYPES,
        "numpy.ndarray",
    }

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[str, Storage] = {}

    def persistent(self, description: Any) -> Storage:
        """Return the storage that a persistent id describes: its key, its type, and its number of elements.

        The older format adds a part: the view of the storage that a tensor uses.
        """
        view: Any = None
        match description:
            case ("storage", Name(name=kind), str(key), str(), count):
                pass
            case ("storage", Name(name=kind), str(key), str(), count, view):
                pass
            case ("module", Name() as kind, *_):  # how the older format marks the classes of a whole model
                refuse("make", kind)
            case _:
                raise ValueError(f"expected the description of a storage in the pickle, got {shown(description)}")
        if len(key) > LONGEST_NAME:
            raise ValueError(f"expected the key of a storage, got {shown(key)}")
        if kind not in STORAGES:
            raise ValueError(f"expected storages of {', '.join(STORAGES)}, got {kind!r}")
        dtype = STORAGES[kind]
        item = DTYPES[dtype].itemsize
        if not _is_size(count):
            raise ValueError(f"expected the number of elements of storage {shown(key)}, got {shown(count)}")
        storage = Storage(key, dtype, first=0, size=count * item, total=count * item)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {shown(key)} has two types or sizes")
        if view is None:
            return storage
        match view:
            case (str(), first, elements) if _is_size(first) and _is_size(elements) and elements <= count - first:
                return dataclasses.replace(storage, first=first * item, size=elements * item)
        raise ValueError(f"expected a part of storage {shown(key)}, got {shown(view)}")

    def call(self, function: str, arguments: Any) -> Any:
        """Return the tensor that a call makes, or what stands for another value."""
        if function in BESIDE:
            return Other(function)
        match function.rpartition(".")[2], arguments:
            case "_rebuild_parameter" | "_rebuild_parameter_with_state", (Tensor() as tensor, *_):
                return tensor
            case "_rebuild_from_type_v2", (Name(name=rebuild), Name() as kind, tuple(inner), _) if (
                rebuild in REBUILD[:-1]
            ):
                if kind.name not in PLAIN_TYPES:
                    refuse("make", kind)
                return self.call(rebuild, inner)  # a tensor that has attributes
            case "_rebuild_tensor", (Storage() as storage, offset, tuple(shape), tuple(strides)):
                return self.view(storage, storage.dtype, offset, shape, strides)
            case (
                "_rebuild_tensor_v2",
                (Storage() as storage, offset, tuple(shape), tuple(strides), _, _, *_),
            ) if len(arguments) <= 7:
                _check_no_marks(arguments[6:])
                return self.view(storage, storage.dtype, offset, shape, strides)
            case (
                "_rebuild_tensor_v3",
                (Storage() as storage, offset, tuple(shape), tuple(strides), _, _, Name(name=dtype), *_),
            ) if dtype in TENSOR_DTYPES and len(arguments) <= 8:
                _check_no_marks(arguments[7:])
                return self.view(storage, TENSOR_DTYPES[dtype], offset, shape, strides)
            case "_rebuild_tensor_v3", (Storage(), _, _, _, _, _, Name(name=dtype), *_) if dtype not in TENSOR_DTYPES:
                raise ValueError(f"expected tensors of {', '.join(TENSOR_DTYPES)}, got {shown(arguments[6])}")
        refuse_arguments(function, arguments)

    def made(self, kind: Any, arguments: Any) -> Other:
        """Return what stands for a new object, where it is one that scripts keep beside the tensors."""
        if isinstance(kind, Name) and kind.name in BESIDE:
            return Other(kind.name)
        refuse("make", kind, arguments)

    def view(
        self, storage: Storage, dtype: str, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
    ) -> Tensor:
        """Describe a view of a storage."""
        self.work += len(shape) ** 2  # `row_strides` multiplies, for each axis, the sizes of those behind it
        return view_of(storage, dtype, offset, shape, strides)


def _check_no_marks(metadata: tuple[Any, ...]) -> None:
    """Refuse a tensor whose numbers are not what its bytes say: PyTorch's negative bit changes their signs."""
    if any(metadata):
        raise ValueError(
            f"expected plain numbers, got a tensor marked {shown(metadata[0])}, which changes what they mean: save "
            "what Tensor.resolve_neg() returns, with PyTorch"
        )


def _is_size(value: Any) -> bool:
    """Say whether a value counts something; True and False, which Python takes for 1 and 0, do not."""
    return type(value) is int and 0 <= value < 2**63


def view_of(storage: Storage, dtype: str, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> Tensor:
    """Describe a view of a storage, which must lie inside it.

    Parameters
    ----------
    storage : Storage
        The storage, or the part of one that the view may use.
    dtype : str
        What the view holds, by safetensors' names.
    offset : int
        Where it starts, in elements.
    shape, strides : tuple of int
        For each axis its size, and the number of elements from one index to the next.

    Returns
    -------
    Tensor
        The view, in bytes of the full storage.

    Raises
    ------
    ValueError
        If the numbers describe no tensor, or one that reaches outside its storage.

    Examples
    --------
    >>> view_of(Storage("0", "F32", 0, 24, 24), "F32", 1, (2, 2), (2, 1)).last
    20
    """
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > MOST_AXES or not all(map(_is_size, numbers)):
        raise ValueError(f"expected offset, shape and strides of a tensor, got {shown((offset, shape, strides))}")
    if 0 in shape:
        return Tensor(storage, dtype, shape, storage.first, storage.first, None)
    item = DTYPES[dtype].itemsize
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if (offset + reach + 1) * item > storage.size:
        raise ValueError(
            f"a tensor of shape {shown(shape)}, strides {shown(strides)} and offset {offset} reaches outside its "
            f"storage, which has {storage.size} bytes"
        )
    first = storage.first + offset * item
    in_rows = all(
        size == 1 or stride == row for size, stride, row in zip(shape, strides, row_strides(shape), strict=True)
    )
    # The stride of an axis of size 1 is never taken, and may be anything.
    steps = None if in_rows else tuple(stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True))
    return Tensor(storage, dtype, shape, first, first + (reach + 1) * item, steps)
