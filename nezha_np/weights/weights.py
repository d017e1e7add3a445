"""Weights: a read-only mapping from the reference's parameter names to arrays, with the model's configuration.

The names are those of the reference without the model's prefix: ``encoder.layer.0.attention.self.query.weight``. Here
stands what can be done with weights, as methods; how it is done stands in files of their own: `tensor_checks`,
`surgery`, `saving`. `checkpoint` and `init` make weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.arrays import Array, device_of, library, namespace, to_numpy
from nezha_np.checks import KEPT_DTYPES, check_device, check_dtype, check_path
from nezha_np.families.config import Config, check_config
from nezha_np.families.parameters import aliases, pooler_shapes, task_shapes
from nezha_np.families.trained_head import HeadWarning, advice, frames_of_the_package, trained_as_another
from nezha_np.mechanism import View
from nezha_np.narrow.bfloat16 import NAME as BFLOAT16
from nezha_np.narrow.matrix import NarrowMatrix, is_kept_in_bfloat16, kept_in_bfloat16
from nezha_np.weights.mapped_files import MappedFile, check_unchanged, files_under
from nezha_np.weights.saving import write_checkpoint
from nezha_np.weights.second_names import second_names_in, tensors_under_one_name
from nezha_np.weights.surgery import prune_heads, resize_token_embeddings
from nezha_np.weights.tensor_checks import check_shapes, check_tensors


class Weights(Mapping[str, Array]):
    """The tensors of a model by name, with its configuration; neither can be changed.

    Parameters
    ----------
    tensors : mapping of str to array
        The tensors, of one array library, dtype and device. A tied decoder may be among them or not: its matrix is
        the table of word embeddings, and has the same numbers. Of two names of a bias ``cls.predictions.decoder.bias``
        is used.
    config : NezhaConfig, BertConfig or ConvBertConfig
        The configuration.
    source : Path, optional
        The folder that they were loaded from.

    Attributes
    ----------
    given_names : mapping of str to str
        For a plain mapping that was given to a head: the names of its tensors that are second names, by their first
        ones. `nezha_np.value_and_grad` names gradients by them.

    Raises
    ------
    TypeError
        If `tensors` is no mapping, a tensor is not an array of floats, or `config` is not a configuration.
    ValueError
        If embeddings, encoder or pooler are incomplete, a tensor is another kind of model's, a shape is not the
        configuration's, dtypes or devices differ, or a tied decoder has other numbers than the word embeddings.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> weights.config.num_hidden_layers, weights["embeddings.word_embeddings.weight"].shape
    (4, (7000, 256))
    """

    def __init__(self, tensors: Mapping[str, Array], config: Config, *, source: Path | None = None) -> None:
        check_config(config)
        if not isinstance(tensors, Mapping):
            raise TypeError(f"tensors: expected a mapping from names to arrays, got {type(tensors).__name__}")
        self._config = config
        self.source = source
        self.given_names: Mapping[str, str] = {}
        self._aliases = aliases(config)
        self._cached: dict[object, Array] = {}
        self._files: tuple[MappedFile, ...] | None = None  # that are mapped, listed when the first pass begins
        self._complete_tasks: dict[str, str] = {}  # each with what its head was trained as, if that is another head
        unique = tensors_under_one_name(tensors, config)
        check_tensors(unique, config)
        self._tensors = _distinct_objects(unique)

    # Two Weights are equal only if they are the same object: so they can be keys, and no comparison reads all numbers.
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
        """The (V, E) table of word embeddings. Masks and tables are made in its library and on its device."""
        return self._tensors["embeddings.word_embeddings.weight"]

    @property
    def has_pooler(self) -> bool:
        """Whether there is a pooler; a family may have none, and a checkpoint may leave it out."""
        return bool(pooler_shapes(self.config)) and "pooler.dense.weight" in self

    @property
    def dtype(self) -> Any:
        """The dtype of all tensors; ``"bfloat16"`` where all matrices are kept in it (`nezha_np.narrow`)."""
        return BFLOAT16 if is_kept_in_bfloat16(self._tensors) else self.word_embeddings.dtype

    def at(self, path: str) -> View:
        """Return a view of the tensors whose names begin with `path`.

        Parameters
        ----------
        path : str
            The path of a module, without the final dot.

        Returns
        -------
        View
            The tensors by the rest of their names, with the configuration.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load().at("encoder.layer.0.attention.self")["query.bias"].shape
        (256,)
        """
        return View(self, f"{path}.")

    def cached(self, key: object, make: Callable[[], Array]) -> Array:
        """Return a constant that goes with these weights, such as the table of relative positions; it is made once.

        Parameters
        ----------
        key : hashable
            The name of the constant.
        make : callable
            Makes it, when it is first asked for.

        Returns
        -------
        array
            The constant. An array that its library is tracing is not cached, because it must not outlive the trace.

        Examples
        --------
        >>> import nezha_np as nz
        >>> weights = nz.load()
        >>> first = weights.cached("ones", lambda: np.ones(2))
        >>> weights.cached("ones", lambda: np.ones(2)) is first
        True
        """
        if key in self._cached:
            return self._cached[key]
        made = make()
        if device_of(made) is None:  # its library is tracing it
            return made
        return self._cached.setdefault(key, made)

    def check_files(self) -> None:
        """Check that the files that these weights are mapped from were not changed in place since `load`.

        Raises
        ------
        ValueError
            If one was; the message names it.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load(dtype=None).check_files()
        """
        if self._files is None:
            self._files = files_under(self._tensors)
        check_unchanged(self._files)

    def require(self, task: str) -> None:
        """Check that the tensors of a task head are there and have the configuration's shapes.

        A `nezha_np.HeadWarning` says where they were trained as those of another head, as the configuration's
        ``architectures`` tell.

        Parameters
        ----------
        task : str
            The task, such as "question_answering".

        Raises
        ------
        ValueError
            If a tensor is missing or has another shape, or the family does not have the task; the message names it.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load().require("question_answering")
        Traceback (most recent call last):
        ...
        ValueError: question_answering needs tensors that the weights do not have: qa_outputs.weight, qa_outputs.bias
        """
        if task not in self._complete_tasks:
            shapes = task_shapes(self.config, task)
            missing = [name for name in shapes if name not in self._tensors]
            if missing:
                raise ValueError(f"{task} needs tensors that the weights do not have: {', '.join(missing)}")
            check_shapes(self._tensors, shapes)
            self._complete_tasks[task] = trained_as_another(self.config, task)
        if trained := self._complete_tasks[task]:
            warnings.warn(advice(task, trained), HeadWarning, stacklevel=frames_of_the_package())

    def to(self, *, device: str | None = None, dtype: Any = None) -> Weights:
        """Move to another device or convert to another dtype.

        Parameters
        ----------
        device : str, optional
            "cpu" (NumPy arrays), "cuda" or "cuda:1" (CuPy arrays); None: where they are now.
        dtype : str or dtype, optional
            "float16", "float32", "float64" or, on the CPU, "bfloat16": then matrices are kept in 16 bits, and all is
            computed in float32 with the rounded numbers. None: the dtype that they have; on a GPU bfloat16 becomes
            float32.

        Returns
        -------
        Weights
            New weights. A tensor that needs no change is shared, not copied.

        Raises
        ------
        TypeError, ValueError
            If device or dtype is not one of these, there is no such GPU, or bfloat16 is asked of other arrays than
            NumPy's.
        ModuleNotFoundError
            If the device is a GPU and CuPy is not installed.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load().to(dtype="float16").dtype
        dtype('float16')
        """
        name = None if dtype is None else check_dtype(dtype, KEPT_DTYPES)
        gpu = check_device(device)
        if name == BFLOAT16 and (gpu is not None or (device is None and library(self.word_embeddings) != "numpy")):
            raise ValueError('dtype: expected bfloat16 for arrays of NumPy alone: give device="cpu"')
        tensors: dict[str, Array] = {}
        for key, array in self._tensors.items():
            if name == BFLOAT16:
                array = kept_in_bfloat16(array if isinstance(array, NarrowMatrix) else to_numpy(array))
            elif name is not None:  # before the move, so that less is moved where the dtype becomes narrower
                xp = namespace(array)
                array = xp.astype(array, getattr(xp, name), copy=False)
            if gpu is not None:
                array = _to_gpu(array, gpu)
            elif device is not None and library(array) != "numpy":
                array = to_numpy(array)
            tensors[key] = array
        return Weights(tensors, self.config, source=self.source)

    def prune_heads(self, heads: Mapping[int, Iterable[int]]) -> Weights:
        """Remove attention heads: their rows of query, key and value, and their columns of the output.

        Parameters
        ----------
        heads : mapping of int to iterable of int
            For each layer the heads to remove, by their numbers before any was removed; negative numbers count from the
            end. A head that is pruned already is ignored, as in the reference. Cross-attention keeps all its heads.

        Returns
        -------
        Weights
            New weights, whose ``config.pruned_heads`` lists all pruned heads.

        Raises
        ------
        TypeError
            If `heads` is not such a mapping.
        ValueError
            If there is no such layer or head, a layer would lose its last head, or the family is ConvBERT, whose
            attention heads and convolutions share their matrices (the reference fails there).

        Examples
        --------
        >>> import nezha_np as nz
        >>> smaller = nz.load().prune_heads({0: [1, 3]})
        >>> smaller["encoder.layer.0.attention.self.query.weight"].shape, smaller.config.pruned_heads
        ((192, 256), {0: (1, 3)})
        """
        return self._like(Weights(*prune_heads(self._tensors, self.config, heads), source=self.source))

    def resize_token_embeddings(self, n: int, seed: int = 0) -> Weights:
        """Change the size of the vocabulary: rows are removed from its end, or new ones are added there.

        Parameters
        ----------
        n : int
            The new size.
        seed : int
            New rows are those that `nezha_np.init` gives a vocabulary of this size with this seed; the new part of a
            bias is zero.

        Returns
        -------
        Weights
            New weights, whose ``config.vocab_size`` is `n`. The bias of the language-model head is resized with the
            embeddings, and so is its matrix where it is not tied to them.

        Raises
        ------
        TypeError
            If `n` or `seed` is not an integer.
        ValueError
            If `n` is less than 1, not greater than the padding id, or more than the machine's memory holds.

        Examples
        --------
        >>> import nezha_np as nz
        >>> nz.load().resize_token_embeddings(7002).word_embeddings.shape
        (7002, 256)
        """
        return self._like(Weights(*resize_token_embeddings(self._tensors, self.config, n, seed), source=self.source))

    def _like(self, made: Weights) -> Weights:
        """Keep matrices that were made of these in bfloat16, where these are."""
        return made.to(dtype=BFLOAT16) if self.dtype == BFLOAT16 else made

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that `nezha_np.load` and transformers both read.

        Parameters
        ----------
        path : str or Path
            A folder, which is made if it is not there and gets ``model.safetensors`` and ``config.json``; or a
            ``.safetensors`` file, which gets ``config.json`` next to it. Both files are written under another path and
            then moved, both or none, so that a failure leaves the old ones, and these weights may be mapped from them
            (except on Windows, which refuses to replace a file that is mapped).

        Raises
        ------
        TypeError
            If `path` is no path.
        FileExistsError
            If a file is where a folder is needed.
        OSError
            If a file cannot be written or replaced; then both are as they were.
        ValueError
            If `path` names a file of another format (.bin, .pt, .pth, .npz), `hidden_act` is a function, which cannot
            be written to a file, or the folder's ``modules.json`` has the transformer in another folder.

        Examples
        --------
        >>> import tempfile
        >>> import nezha_np as nz
        >>> folder = tempfile.mkdtemp()
        >>> nz.load().save(folder)
        >>> nz.load(folder)
        Weights(nezha, 77 tensors, 3,975,386 parameters, float32)
        """
        write_checkpoint(check_path(path), self._tensors, self.config)


def as_weights(weights: Any, config: Config | None) -> Weights:
    """Return the weights of a call, made of its arguments `weights` and `config`.

    Parameters
    ----------
    weights : Weights or mapping of str to array
        The weights, or the tensors of a model.
    config : Config or None
        The configuration: a plain mapping needs one; that of Weights is replaced by it.

    Returns
    -------
    Weights
        The same object where it is Weights and its configuration does not change.

    Raises
    ------
    TypeError
        If the argument is no mapping, or a plain mapping came without a configuration.
    ValueError
        If a file that the weights are mapped from was changed in place since it was loaded.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> as_weights(dict(weights), weights.config)
    Weights(nezha, 77 tensors, 3,975,386 parameters, float32)
    """
    if isinstance(weights, Weights):
        weights.check_files()
        return (
            weights if config is None or config == weights.config else Weights(weights, config, source=weights.source)
        )
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: expected Weights or a mapping from names to arrays, got {type(weights).__name__}")
    if config is None:
        raise TypeError("config: expected a configuration, because weights is a plain mapping, got None")
    made = Weights(weights, config)
    made.check_files()
    made.given_names = second_names_in(weights, config)
    return made


def _distinct_objects(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Give each name its own array object, where two names share one: the tape tells weights apart by identity."""
    first: dict[int, str] = {}
    return {name: array if first.setdefault(id(array), name) == name else array[...] for name, array in tensors.items()}


def _to_gpu(array: Array, gpu: int) -> Array:
    try:
        import cupy
    except ImportError as error:  # it is installed, but not the CUDA that it was made for
        raise ImportError(
            f"device: expected a CuPy that can be imported, got {type(error).__name__}: {error}"
        ) from None
    try:
        with cupy.cuda.Device(gpu):
            moved: Array = cupy.asarray(to_numpy(array) if isinstance(array, NarrowMatrix) else array)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ValueError(f"device: expected a GPU that CUDA can use, got 'cuda:{gpu}': {error}") from None
    return moved
