"""Weights: a read-only mapping from the reference's parameter names to arrays, with the model's configuration.

The names are those of the reference without the model's prefix: ``encoder.layer.0.attention.self.query.weight``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.arrays import (
    DTYPES,
    Array,
    check_device,
    check_dtype,
    device_of,
    has_kind,
    is_array,
    namespace,
    to_numpy,
)
from nezha_np.checks import check_path, listed
from nezha_np.families.config import Config, check_config
from nezha_np.families.family import FAMILIES, family_of
from nezha_np.families.parameters import (
    Shapes,
    aliases,
    backbone_shapes,
    is_backbone,
    pooler_shapes,
    task_shapes,
    tasks_of,
    without_aliases,
)
from nezha_np.files.atomic import write_atomically
from nezha_np.mechanism import View
from nezha_np.weights.formats.safetensors import write_tensors
from nezha_np.weights.surgery import prune_heads, resize_token_embeddings


class Weights(Mapping[str, Array]):
    """The tensors of a model by name, with its configuration; neither can be changed.

    Parameters
    ----------
    tensors : mapping of str to array
        The tensors, of one array library, dtype and device. A tied decoder may be among them or not: it is the table
        of word embeddings.
    config : NezhaConfig, BertConfig or ConvBertConfig
        The configuration.
    source : Path, optional
        The folder they were loaded from.

    Raises
    ------
    TypeError
        If `tensors` is no mapping, a tensor is not an array of floats, or `config` is not a configuration.
    ValueError
        If embeddings, encoder or pooler are incomplete, a tensor is another kind of model's, a shape is not the
        configuration's, or dtypes or devices differ.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> weights.config.num_hidden_layers, weights["embeddings.word_embeddings.weight"].shape
    (4, (7000, 128))
    """

    def __init__(self, tensors: Mapping[str, Array], config: Config, *, source: Path | None = None) -> None:
        check_config(config)
        if not isinstance(tensors, Mapping):
            raise TypeError(f"tensors: expected a mapping from names to arrays, got {type(tensors).__name__}")
        self._config = config
        self.source = source
        self._tensors = without_aliases(tensors, config)
        self._aliases = aliases(config)
        self._kept: dict[object, Array] = {}
        self._complete_heads: set[str] = set()
        _check_tensors(self._tensors, config)
        self._tensors = _each_its_own(self._tensors)

    # Weights are the same when they are the same object: to compare arrays is the caller's business.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def config(self) -> Config:
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
        """The (V, E) table of word embeddings: the neighbour that new arrays are made like."""
        return self._tensors["embeddings.word_embeddings.weight"]

    @property
    def has_pooler(self) -> bool:
        """Whether there is a pooler, which a family may lack and a checkpoint may leave out."""
        return bool(pooler_shapes(self.config)) and "pooler.dense.weight" in self

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

    def cached(self, key: object, make: Callable[[], Array]) -> Array:
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
        shapes = task_shapes(self.config, head)
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
        name = None if dtype is None else check_dtype(dtype)
        gpu = check_device(device)
        tensors = {}
        for key, array in self._tensors.items():
            if name is not None:  # before the move, so that less is moved where the dtype shrinks
                xp = namespace(array)
                array = xp.astype(array, getattr(xp, name), copy=False)
            tensors[key] = array if device is None else to_numpy(array) if gpu is None else _to_gpu(array, gpu)
        return Weights(tensors, self.config, source=self.source)

    def prune_heads(self, heads: Mapping[int, Iterable[int]]) -> Weights:
        """Remove attention heads: their rows of query, key and value, and their columns of the output.

        Parameters
        ----------
        heads : mapping of int to iterable of int
            For each layer the heads to remove, numbered as they were before any was removed; those that are gone
            already are passed over, as in the reference. Cross-attention keeps all its heads.

        Returns
        -------
        Weights
            New weights, whose ``config.pruned_heads`` says what is gone.

        Raises
        ------
        TypeError
            If `heads` is not such a mapping.
        ValueError
            If there is no such layer or head, a layer would lose its last head, or the family is ConvBERT, whose heads
            and convolutions share their maps (the reference breaks there).

        Examples
        --------
        >>> import nezha_np as nz
        >>> smaller = nz.load().prune_heads({0: [1, 3]})
        >>> smaller["encoder.layer.0.attention.self.query.weight"].shape, smaller.config.pruned_heads
        ((64, 128), {0: (1, 3)})
        """
        return Weights(*prune_heads(self._tensors, self.config, heads), source=self.source)

    def resize_token_embeddings(self, n: int, seed: int = 0) -> Weights:
        """Change the size of the vocabulary: rows are cut off at its end, or drawn there.

        Parameters
        ----------
        n : int
            The new size.
        seed : int
            New rows are those that `nezha_np.init` draws for this size with this seed; the new part of a bias is zero.

        Returns
        -------
        Weights
            New weights, whose ``config.vocab_size`` is `n`. The matrix of a language-model head that is not tied to the
            embeddings, and the head's bias, change with them.

        Raises
        ------
        TypeError
            If `n` or `seed` is not an integer.
        ValueError
            If `n` is less than 1, or the padding id would lie outside.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load().resize_token_embeddings(7002).word_embeddings.shape
        (7002, 128)
        """
        return Weights(*resize_token_embeddings(self._tensors, self.config, n, seed), source=self.source)

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
        FileExistsError
            If a file is where a folder is needed.
        ValueError
            If `path` names a file of another kind (.bin, .pt, .pth, .npz), or `hidden_act` is a function, which no file
            can hold.

        Examples
        --------
        >>> import tempfile
        >>> import nezha_np as nz
        >>> folder = tempfile.mkdtemp()
        >>> nz.load().save(folder)
        >>> nz.load(folder)
        Weights(nezha, 77 tensors, 1,730,138 parameters, float32)
        """
        path = check_path(path)
        if path.suffix in (".bin", ".pt", ".pth", ".npz") and not path.is_dir():
            raise ValueError(f"path: expected a folder or a .safetensors file, got {path}")
        file = path if path.suffix == ".safetensors" and not path.is_dir() else path / "model.safetensors"
        for folder in file.parents:
            if folder.exists() and not folder.is_dir():
                raise FileExistsError(
                    f"path: expected a folder or a .safetensors file, found a file in the way: {folder}"
                )
        values = self.config.to_dict()
        values["architectures"] = list(self.config.architectures or [_architecture(self)])
        values["torch_dtype"] = to_numpy(self.word_embeddings[:1, :1]).dtype.name
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        # transformers looks for a prefix on every tensor of the backbone as soon as there is a head.
        prefix = "" if all(map(is_backbone, self)) else f"{family_of(self.config).prefixes[0]}."
        tensors = {
            prefix + name if is_backbone(name) else name: to_numpy(array) for name, array in self._tensors.items()
        }

        def write(beside: Path) -> None:
            write_tensors(beside / file.name, tensors)
            (beside / "config.json").write_text(text, encoding="utf-8")

        write_atomically(file.parent, write)


def as_weights(weights: Any, config: Config | None) -> Weights:
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


def _each_its_own(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Give each name an array object of its own: the tape knows weights by identity, and some share one array."""
    own: dict[int, str] = {}
    return {name: array if own.setdefault(id(array), name) == name else array[...] for name, array in tensors.items()}


def _check_tensors(tensors: Mapping[str, Array], config: Config) -> None:
    if strange := [name for name in tensors if not isinstance(name, str)]:
        raise TypeError(f"weights: expected names of tensors, got {strange[0]!r}")
    needed, parts = backbone_shapes(config), "embeddings and encoder"
    pooler = pooler_shapes(config)
    if any(name in tensors for name in pooler):  # which may be left out as a whole
        needed, parts = needed | pooler, "embeddings, encoder and pooler"
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise ValueError(f"weights: expected all tensors of {parts}, missing {listed(missing)}")
    # Parts of names that this model has not, and others have.
    foreign = {mark for family in FAMILIES.values() for mark in family.marks}.difference(
        *(n.split(".") for n in needed)
    )
    superfluous = [name for name in tensors if foreign & set(name.split("."))]
    if superfluous:
        kind = f"{family_of(config).title} as the configuration describes it"
        raise ValueError(f"weights: expected the tensors of {kind}, superfluous {listed(superfluous)}")
    wrong = [name for name, array in tensors.items() if not is_array(array) or not has_kind(array, "real floating")]
    if wrong:
        raise TypeError(f"weights: expected arrays of floats, got something else for {listed(wrong)}")
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
        raise ValueError(f"weights: expected the shapes of the configuration, got {listed(wrong)}")


def _to_gpu(array: Array, gpu: int) -> Array:
    import cupy

    with cupy.cuda.Device(gpu):
        return cupy.asarray(array)


def _architecture(weights: Weights) -> str:
    """Name the reference's class for the first head that is complete; a decoder's is rather the causal one."""
    heads = tasks_of(weights.config)
    for head in reversed(heads) if weights.config.is_decoder else heads:  # causal_lm is the last
        try:
            weights.require(head)
        except ValueError:
            continue
        return family_of(weights.config).tasks[head].reference
    return family_of(weights.config).tasks["forward"].reference
