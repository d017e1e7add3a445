"""Weights: a read-only mapping from the reference's parameter names to arrays, with the model's configuration.

The names are those of the reference without the model's prefix: ``encoder.layer.0.attention.self.query.weight``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.arrays import Array, device_of, has_kind, is_array, namespace, to_numpy
from nezha_np.config import NezhaConfig, read_config
from nezha_np.layers.activations import polynomial
from nezha_np.mechanism import View
from nezha_np.parameters import (
    ARCHITECTURES,
    HEADS,
    POOLER,
    Shapes,
    aliases,
    backbone_shapes,
    head_shapes,
    is_backbone,
    pooler_shapes,
)
from nezha_np.randomness import uniform
from nezha_np.safetensors_file import FLOATS, Entry, map_tensors, read_header, write_beside, write_tensors

SHIPPED = Path(__file__).parent / "checkpoints" / "nezha-tiny-zh"  # the small model that comes with the package

DTYPES = ("float16", "float32", "float64")


class Weights(Mapping[str, Array]):
    """The tensors of a model by name, with its configuration; neither can be changed.

    Parameters
    ----------
    tensors : mapping of str to array
        The tensors, of one array library, dtype and device. A tied decoder may be among them or not: it is the table
        of word embeddings.
    config : NezhaConfig
        The configuration.
    source : Path, optional
        The folder they were loaded from.

    Raises
    ------
    TypeError
        If `tensors` is no mapping, a tensor is not an array of floats, or `config` is not a configuration.
    ValueError
        If embeddings, encoder or pooler are incomplete, a shape is not the configuration's, or dtypes or devices
        differ.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> weights.config.num_hidden_layers, weights["embeddings.word_embeddings.weight"].shape
    (4, (7000, 128))
    """

    def __init__(self, tensors: Mapping[str, Array], config: NezhaConfig, *, source: Path | None = None) -> None:
        if not isinstance(config, NezhaConfig):
            raise TypeError(f"config: expected a NezhaConfig, got {type(config).__name__}")
        if not isinstance(tensors, Mapping):
            raise TypeError(f"tensors: expected a mapping from names to arrays, got {type(tensors).__name__}")
        self._config = config
        self.source = source
        self._tensors = _without_aliases(tensors, config)
        self._aliases = aliases(config)
        self._kept: dict[object, Array] = {}
        self._complete_heads: set[str] = set()
        _check_tensors(self._tensors, config)
        self._tensors = _each_its_own(self._tensors)

    # Weights are the same when they are the same object: to compare arrays is the caller's business.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def config(self) -> NezhaConfig:
        """The configuration."""
        return self._config

    def __getitem__(self, name: str) -> Array:
        return self._tensors[self._aliases.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        count = sum(int(np.prod(array.shape)) for array in self._tensors.values())
        return f"Weights({self.config.model_type}, {len(self)} tensors, {count:,} parameters, {self.dtype})"

    @property
    def word_embeddings(self) -> Array:
        """The (V, H) table of word embeddings: the neighbour that new arrays are made like."""
        return self._tensors["embeddings.word_embeddings.weight"]

    @property
    def dtype(self) -> Any:
        """The dtype of all tensors."""
        return self.word_embeddings.dtype

    def at(self, path: str) -> View:
        """Return a view of the tensors below `path`.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load().at("encoder.layer.0.attention.self")["query.bias"].shape
        (128,)
        """
        return View(self, f"{path}.")

    def kept(self, key: object, make: Callable[[], Array]) -> Array:
        """Return a constant that goes with these weights (the position table), made when it is first asked for."""
        if key in self._kept:
            return self._kept[key]
        made = make()
        if device_of(made) is None:  # its library is tracing it, and it must not outlive the trace
            return made
        return self._kept.setdefault(key, made)

    def require(self, head: str) -> None:
        """Check that the tensors of a head are there.

        Raises
        ------
        ValueError
            If not; the message names them.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load().require("question_answering")
        Traceback (most recent call last):
        ...
        ValueError: question_answering needs tensors that the weights do not have: qa_outputs.weight, qa_outputs.bias
        """
        if head in self._complete_heads:
            return
        shapes = head_shapes(self.config, head)
        missing = [name for name in shapes if name not in self._tensors]
        if missing:
            raise ValueError(f"{head} needs tensors that the weights do not have: {', '.join(missing)}")
        _refuse_shapes(self._tensors, shapes)
        self._complete_heads.add(head)

    def to(self, *, device: str | None = None, dtype: Any = None) -> Weights:
        """Move to another device or convert to another dtype.

        Parameters
        ----------
        device : str, optional
            "cpu" (NumPy arrays), "cuda" or "cuda:1" (CuPy arrays); None: where they are.
        dtype : str or dtype, optional
            "float16", "float32" or "float64"; None: what they are.

        Returns
        -------
        Weights
            New weights; a tensor that is right already is shared, not copied.

        Raises
        ------
        TypeError, ValueError
            If device or dtype is not one of these.
        ModuleNotFoundError
            If the device is a GPU and CuPy is not installed.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load().to(dtype="float16").dtype
        dtype('float16')
        """
        name = None if dtype is None else _dtype_name(dtype)
        gpu = _gpu(device)
        tensors = {}
        for key, array in self._tensors.items():
            if name is not None:  # before the move, so that less is moved where the dtype shrinks
                xp = namespace(array)
                array = xp.astype(array, getattr(xp, name), copy=False)
            tensors[key] = array if device is None else to_numpy(array) if gpu is None else _to_gpu(array, gpu)
        return Weights(tensors, self.config, source=self.source)

    def save(self, path: str | Path) -> None:
        """Write what `nezha_np.load` and transformers both read.

        Parameters
        ----------
        path : str or Path
            A folder, which is made if need be and gets ``model.safetensors`` and ``config.json``, or a
            ``.safetensors`` file, which gets ``config.json`` beside it. Files are written beside and moved into place,
            so that a failure leaves the old ones, and these weights may be mapped from them.

        Raises
        ------
        TypeError
            If `path` is no path.
        ValueError
            If `hidden_act` is a function, which no file can hold.

        Examples
        --------
        >>> import tempfile
        >>> import nezha_np as nz
        >>> folder = tempfile.mkdtemp()
        >>> nz.load().save(folder)
        >>> nz.load(folder)
        Weights(nezha, 77 tensors, 1,730,138 parameters, float32)
        """
        path = _as_path(path)
        file = path if path.suffix == ".safetensors" and not path.is_dir() else path / "model.safetensors"
        values = self.config.to_dict()
        values["architectures"] = list(self.config.architectures or [_architecture(self)])
        values["torch_dtype"] = to_numpy(self.word_embeddings[:1, :1]).dtype.name
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        # transformers looks for a prefix on every tensor of the backbone as soon as there is a head.
        prefix = "" if all(map(is_backbone, self)) else f"{self.config.model_type}."
        tensors = {
            prefix + name if is_backbone(name) else name: to_numpy(array) for name, array in self._tensors.items()
        }

        def write(beside: Path) -> None:
            write_tensors(beside / file.name, tensors)
            (beside / "config.json").write_text(text, encoding="utf-8")

        write_beside(file.parent, write)


def as_weights(weights: Any, config: NezhaConfig | None) -> Weights:
    """Return the weights of a call: a plain dict works with a configuration, and a configuration may replace one.

    Raises
    ------
    TypeError
        If the argument is no mapping, or a plain mapping came without a configuration.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> as_weights(dict(weights), weights.config)
    Weights(nezha, 77 tensors, 1,730,138 parameters, float32)
    """
    if isinstance(weights, Weights):
        return (
            weights if config is None or config == weights.config else Weights(weights, config, source=weights.source)
        )
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: expected Weights or a mapping from names to arrays, got {type(weights).__name__}")
    if config is None:
        raise TypeError("config: expected a configuration, because weights is a plain mapping, got None")
    return Weights(weights, config)


def _without_aliases(named: Mapping[str, Any], config: NezhaConfig) -> dict[str, Any]:
    """Keep one name for each tensor, its own; where it goes by a second name alone, it gets its own."""
    kept = dict(named)
    for alias, name in aliases(config).items():
        if alias in kept:
            kept.setdefault(name, kept[alias])
            del kept[alias]
    return kept


def _each_its_own(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Give each name an array object of its own: the tape knows weights by identity, and some share one array."""
    own: dict[int, str] = {}
    return {name: array if own.setdefault(id(array), name) == name else array[...] for name, array in tensors.items()}


def _check_tensors(tensors: Mapping[str, Array], config: NezhaConfig) -> None:
    needed, parts = backbone_shapes(config), "embeddings and encoder"
    if any(name in tensors for name in POOLER):  # which may be left out as a whole
        needed, parts = needed | pooler_shapes(config), "embeddings, encoder and pooler"
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise ValueError(f"weights: expected all tensors of {parts}, missing {_listed(missing)}")
    wrong = [name for name, array in tensors.items() if not is_array(array) or not has_kind(array, "real floating")]
    if wrong:
        raise TypeError(f"weights: expected arrays of floats, got something else for {_listed(wrong)}")
    for name, array in tensors.items():
        if isinstance(array, np.ndarray) and not (array.dtype.name in DTYPES and array.dtype.isnative):
            raise TypeError(f"weights: expected {', '.join(DTYPES)} in native byte order, got {array.dtype} for {name}")
    _refuse_shapes(tensors, needed)
    first = next(iter(needed))
    for name, array in tensors.items():
        for what in ("dtype", "device"):  # an array that its library is tracing has no device yet
            one, other = getattr(tensors[first], what, None), getattr(array, what, None)
            if one != other:
                raise ValueError(f"weights: expected one {what}, got {one} for {first} and {other} for {name}")


def _refuse_shapes(tensors: Mapping[str, Any], shapes: Shapes) -> None:
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise ValueError(f"weights: expected the shapes of the configuration, got {_listed(wrong)}")


def _listed(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _as_path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected a path, got {type(path).__name__}")
    return Path(path)


def _dtype_name(dtype: Any) -> str:
    try:
        name = None if dtype is None else np.dtype(dtype).name  # which takes None for float64
    except (TypeError, ValueError):
        name = str(dtype).rpartition(".")[2]  # other libraries' dtypes say "torch.float32"
    if name not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    return name


def _gpu(device: str | None) -> int | None:
    """Return the number of the GPU that a device names, None where it names none; refuse what is no device."""
    if device is None or device == "cpu":
        return None
    if not isinstance(device, str):
        raise TypeError(f"device: expected 'cpu', 'cuda' or 'cuda:1', got {device!r}")
    match = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if match is None:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:1', got {device!r}")
    if importlib.util.find_spec("cupy") is None:
        raise ModuleNotFoundError(
            f"device: {device!r} needs CuPy: pip install 'nezha-np[cuda12]' or 'nezha-np[cuda13]'", name="cupy"
        )
    return int(match[1] or 0)


def _to_gpu(array: Array, gpu: int) -> Array:
    import cupy

    with cupy.cuda.Device(gpu):
        return cupy.asarray(array)


def _architecture(weights: Weights) -> str:
    for head, architecture in ARCHITECTURES.items():
        try:
            weights.require(head)
        except ValueError:
            continue
        return architecture
    return "NezhaModel"


# -------------------------------------------------------------------------------------------------------------- reading

# Tensors that old files hold though they are computed: ids of positions and token types, tables of positions.
COMPUTED = re.compile(r"embeddings\.(position_ids|token_type_ids)|.*\.relative_positions_encoding\.positions_encoding")


def load(path: str | Path | None = None, dtype: Any = "float32", device: str = "cpu") -> Weights:
    """Load a checkpoint.

    Parameters
    ----------
    path : str or Path, optional
        A folder with ``config.json`` and ``model.safetensors`` (or shards and ``model.safetensors.index.json``), or a
        ``.safetensors`` file with ``config.json`` beside it. None: the small model that ships with the package.
    dtype : str or dtype, optional
        "float16", "float32" or "float64". None keeps the file's, which must then be one (bfloat16 becomes float32).
    device : str
        "cpu", "cuda" or "cuda:1".

    Returns
    -------
    Weights
        The tensors under the reference's names without prefix. The file is mapped into memory: where neither dtype nor
        device changes, nothing is copied. Tensors that a file holds besides those of the model are kept if they are
        floats (F16, BF16, F32, F64).

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names it.
    ModuleNotFoundError
        If the device is a GPU and CuPy is not installed.
    TypeError
        If an argument has a wrong type.
    ValueError
        If a file breaks its format, or a tensor is missing, has another shape than the configuration says, or is of a
        wrong type; the message names them. A head's own tensors are checked when it is called.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.load()
    Weights(nezha, 77 tensors, 1,730,138 parameters, float32)
    """
    _gpu(device)  # a wrong device or dtype is refused before any file is read
    name = None if dtype is None else _dtype_name(dtype)
    files = list_files(path)
    folder = files[0].parent
    config = read_config(folder / "config.json")
    named = name_tensors({file: read_header(file) for file in files}, config)
    known = {*backbone_shapes(config), *(key for head in HEADS for key in head_shapes(config, head))}
    floats = {key: source for key, source in named.items() if source[2].dtype in FLOATS}
    if wrong := [f"{key} ({named[key][2].dtype})" for key in known & (named.keys() - floats.keys())]:
        raise ValueError(f"{folder}: expected tensors of floats, got {_listed(sorted(wrong))}")
    mapped = {
        file: map_tensors(file, {raw: entry for source, raw, entry in floats.values() if source == file})
        for file in files
    }
    tensors = {key: _converted(mapped[file][raw], name) for key, (file, raw, _) in floats.items()}
    try:
        weights = Weights(tensors, config, source=folder)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {error}") from None
    return weights if device == "cpu" else weights.to(device=device)


def _converted(array: np.ndarray, dtype: str | None) -> np.ndarray:
    if dtype is not None and array.dtype != dtype:
        array = array.astype(dtype)
        array.flags.writeable = False
    return array


def list_files(path: str | Path | None) -> list[Path]:
    """List the safetensors files of a checkpoint.

    Parameters
    ----------
    path : str or Path, optional
        What `load` takes.

    Returns
    -------
    list of Path
        One file, or the shards.

    Raises
    ------
    FileNotFoundError
        If there is no such path, no checkpoint in it, or a shard is missing.
    ValueError
        If the index of the shards is not one.

    Examples
    --------
    >>> [file.name for file in list_files(None)]
    ['model.safetensors']
    """
    folder = SHIPPED if path is None else _as_path(path)
    if folder.is_file():
        if folder.suffix != ".safetensors":
            raise ValueError(f"path: expected a folder or a .safetensors file, got {folder}")
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"path: expected a folder or a .safetensors file, found no {folder}")
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise FileNotFoundError(
            f"path: expected model.safetensors or model.safetensors.index.json, found neither in {folder}"
        )
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{index}: expected a JSON object with a weight_map from tensors to files") from None
    if not names or any(Path(name).name != name for name in names):
        raise ValueError(f"{index}: expected the names of files in the same folder, got {_listed(names)}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{index}: expected all shards in the same folder, missing {_listed(missing)}")
    return [folder / name for name in names]


def name_tensors(
    headers: Mapping[Path, Mapping[str, Entry]], config: NezhaConfig
) -> dict[str, tuple[Path, str, Entry]]:
    """Give the tensors of files their names in memory.

    A prefix goes (``nezha.``, and ``bert.``, as NEZHA's authors say), ``gamma`` and ``beta`` of older files become
    ``weight`` and ``bias``, and what is computed or tied is left out.

    Parameters
    ----------
    headers : mapping of Path to (mapping of str to Entry)
        What `read_header` says of each file.
    config : NezhaConfig
        The configuration.

    Returns
    -------
    dict of str to (Path, str, Entry)
        For each name in memory the file, the name in the file, and the header's entry.

    Raises
    ------
    ValueError
        If two tensors get the same name.

    Examples
    --------
    >>> from pathlib import Path
    >>> entry = Entry("F32", (2,), 0, 8)
    >>> named = name_tensors({Path("f"): {"bert.embeddings.LayerNorm.gamma": entry}}, NezhaConfig())
    >>> list(named)
    ['embeddings.LayerNorm.weight']
    """
    named: dict[str, tuple[Path, str, Entry]] = {}
    for file, header in headers.items():
        for raw, entry in header.items():
            name = re.sub(r"^(nezha|bert)\.", "", raw)
            name = re.sub(r"(?<=LayerNorm\.)gamma$", "weight", name)
            name = re.sub(r"(?<=LayerNorm\.)beta$", "bias", name)
            if COMPUTED.fullmatch(name):
                continue
            if name in named:
                raise ValueError(f"{file}: expected one tensor for {name}, got {named[name][1]} and {raw}")
            named[name] = (file, raw, entry)
    return _without_aliases(named, config)


# -------------------------------------------------------------------------------------------------------------- drawing

# The inverse of the normal distribution's function between −2σ and 2σ: x = q P(q²)/Q(q²), q = p − ½, highest power
# first. A rational fit, within 7e-11 of it, so that a draw needs no logarithm, whose last bit differs from machine to
# machine.
QUANTILE = (
    (67.67033939311035, -509.38402658773265, 862.4381479441645, -615.9060796288474, 216.72311866411707,
     -37.264715056121425, 2.506628274712097),
    (105.0283098113521, -409.1223243673617, 528.6209338336848, -320.89407134003426, 100.82185978424863,
     -15.913667936228807, 1.0),
)  # fmt: skip
WITHIN_TWO_SIGMA = 0.9544997361036416


def init(config: NezhaConfig, head: str | None = None, seed: int = 0, dtype: Any = "float32") -> Weights:
    """Draw new weights: matrices from a normal distribution cut off at 2σ, biases 0, norms 1, the padding row 0.

    This is the authors' way; the reference's initialisation does not cut off. Each tensor has a random stream of its
    own, keyed by seed and name: the numbers are the same on every machine, whatever else is drawn.

    Parameters
    ----------
    config : NezhaConfig
        The configuration; σ is ``config.initializer_range``.
    head : str, optional
        A head to add to backbone, pooler, language-model and next-sentence head: "sequence_classification",
        "multiple_choice", "token_classification", "question_answering", or one of those that are there anyway.
    seed : int
        The seed.
    dtype : str or dtype
        "float16", "float32" or "float64".

    Returns
    -------
    Weights
        The new weights.

    Raises
    ------
    TypeError
        If `config` is not a configuration or `seed` not an integer.
    ValueError
        If there is no such head or dtype.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.NezhaConfig(hidden_size=8, num_attention_heads=2, vocab_size=11, num_hidden_layers=1)
    >>> weights = nz.init(config, head="question_answering", dtype="float64")
    >>> weights["qa_outputs.weight"].shape
    (2, 8)
    """
    if not isinstance(config, NezhaConfig):
        raise TypeError(f"config: expected a NezhaConfig, got {type(config).__name__}")
    if head is not None and head not in tuple(HEADS):
        raise ValueError(f"head: expected one of {', '.join(HEADS)} or None, got {head!r}")
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool):
        raise TypeError(f"seed: expected an integer, got {seed!r}")
    name = _dtype_name(dtype)
    shapes = backbone_shapes(config) | head_shapes(config, "pretraining")
    if head is not None:
        shapes |= head_shapes(config, head)
    tensors = {}
    for key, shape in shapes.items():
        tensors[key] = _draw(key, shape, config, int(seed)).astype(name)
        tensors[key].flags.writeable = False
    return Weights(tensors, config.replace(architectures=(ARCHITECTURES[head or "pretraining"],)))


def _draw(name: str, shape: tuple[int, ...], config: NezhaConfig, seed: int) -> np.ndarray:
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape)
    if name.endswith("bias"):
        return np.zeros(shape)
    q = (uniform(int(np.prod(shape)), seed, name) - 0.5) * WITHIN_TWO_SIGMA
    square = q * q
    normal = q * (polynomial(square, QUANTILE[0]) / polynomial(square, QUANTILE[1]))
    values = (normal * config.initializer_range).reshape(shape)
    if name == "embeddings.word_embeddings.weight" and config.pad_token_id is not None:
        values[config.pad_token_id] = 0.0
    return values
