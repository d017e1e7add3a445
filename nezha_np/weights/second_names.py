"""Second names: the reference has two names for some tensors, and a checkpoint may hold both, with different numbers.

`nezha_np.families.parameters.aliases` lists them. In memory every tensor has its first name alone. A checkpoint that
holds both becomes what the reference computes with it, where its versions agree:

- **The same numbers**: one of the two is dropped.
- **Other numbers under two names of a bias** (``cls.predictions.bias``, ``cls.predictions.decoder.bias``): the second
  is used. transformers 4 loads it last; transformers 5 keeps both and computes with it. Where they are in two files
  and that of the first name is read last, transformers 4 uses the first one: refused.
- **A tied decoder with another matrix than the word embeddings**: refused. transformers 4 uses the decoder's for both,
  but the embeddings' where it loads no head; transformers 5 uses each in its own place.

Numbers are equal if they compare as equal or are both NaN. transformers 5 does not tie the names of a bias where the
decoder is not tied, so that files which are written hold both there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from nezha_np.arrays import Array, is_array, share_memory, to_numpy
from nezha_np.checks import printable
from nezha_np.families.config import Config
from nezha_np.families.family import family_of
from nezha_np.families.parameters import aliases
from nezha_np.weights.formats.entry import DTYPES, Entry, map_tensors

Source = tuple[Path, str, Entry]  # the file of a tensor, its name there, and what the file says of it


@dataclasses.dataclass(frozen=True)
class TwoNames:
    """A tensor of a file under both of its names.

    Attributes
    ----------
    first, second : str
        Its names in memory.
    raw_first, raw_second : str
        Its names in the file.
    difference : float or None
        The largest difference of the two; 0 where they are equal, None where their shapes differ.
    refusal : str
        Why they are refused; empty where they are not.
    """

    first: str
    second: str
    raw_first: str
    raw_second: str
    difference: float | None
    refusal: str

    @property
    def kept(self) -> str:
        """The name in memory, first or second, of the one that is used."""
        return self.first if self.difference == 0 else self.second


def two_names(named: Mapping[str, Source], config: Config) -> Iterator[TwoNames]:
    """Compare the tensors that files hold under both of their names.

    Parameters
    ----------
    named : mapping of str to (Path, str, Entry)
        The tensors of files by their names in memory, in the order in which the files are read.
    config : Config
        The configuration, which says whether the decoder is tied.

    Yields
    ------
    TwoNames
        A tensor that is there under both names.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> list(two_names({}, NezhaConfig()))
    []
    """
    files = list(dict.fromkeys(file for file, _, _ in named.values()))
    for second, first in aliases(config).items():
        if first in named and second in named:
            one, other = named[first], named[second]
            difference = _difference(one, other)
            refusal = _refusal(first, one[1], other[1], difference, config)
            if difference != 0 and not refusal and files.index(one[0]) > files.index(other[0]):
                refusal = _different(one[1], other[1], difference) + (
                    ", in two files: transformers 4 keeps what it reads last, transformers 5 uses "
                    f"{printable(other[1])}: leave out the one that is not meant"
                )
            yield TwoNames(first, second, one[1], other[1], difference, refusal)


def sources_under_one_name(named: Mapping[str, Source], config: Config) -> dict[str, Source]:
    """Leave out the second names of tensors in files.

    Parameters
    ----------
    named : mapping of str to (Path, str, Entry)
        The tensors of files by their names in memory, in the order in which the files are read.
    config : Config
        The configuration, which says whether the decoder is tied.

    Returns
    -------
    dict of str to (Path, str, Entry)
        The same under one name each.

    Raises
    ------
    ValueError
        If both names are there with different numbers, and it is not clear which are meant.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> source = Path("f"), "cls.predictions.decoder.bias", Entry("F32", (2,), 0, 8)
    >>> list(sources_under_one_name({"cls.predictions.decoder.bias": source}, NezhaConfig()))
    ['cls.predictions.bias']
    """
    twice = list(two_names(named, config))
    for both in twice:
        if both.refusal:
            raise ValueError(f"{named[both.second][0]}: {both.refusal}")
    return keep_one_name(named, twice, config)


def keep_one_name(named: Mapping[str, Source], twice: Iterable[TwoNames], config: Config) -> dict[str, Source]:
    """Leave out the second names, of refused tensors too; a tensor that has only its second name gets the first.

    Parameters
    ----------
    named : mapping of str to (Path, str, Entry)
        The tensors of files by their names in memory.
    twice : iterable of TwoNames
        What `two_names` says of them.
    config : Config
        The configuration.

    Returns
    -------
    dict of str to (Path, str, Entry)
        The same under one name each.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> keep_one_name({}, [], NezhaConfig())
    {}
    """
    unique = dict(named) | {both.first: named[both.kept] for both in twice}
    for second, first in aliases(config).items():
        if second in unique:
            unique.setdefault(first, unique[second])
            del unique[second]
    return unique


def tensors_under_one_name(tensors: Mapping[str, Array], config: Config) -> dict[str, Array]:
    """Leave out the second names of arrays; a tensor that has only its second name gets the first.

    Parameters
    ----------
    tensors : mapping of str to array
        The tensors.
    config : Config
        The configuration, which says whether the decoder is tied.

    Returns
    -------
    dict of str to array
        The same under one name each.

    Raises
    ------
    ValueError
        If both names of the matrix of a tied decoder are there with different numbers, or with numbers that are not
        known because their library is tracing them.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> tensors_under_one_name({"cls.predictions.decoder.bias": np.ones(1)}, NezhaConfig())
    {'cls.predictions.bias': array([1.])}
    """
    unique = dict(tensors)
    for second, first in aliases(config).items():
        if second not in unique:
            continue
        array = unique.pop(second)
        if first not in unique:
            unique[first] = array
        elif unique[first] is not array:
            unique[first] = _chosen(first, second, unique[first], array, config)
    return unique


def second_names_in(tensors: Mapping[str, Array], config: Config) -> dict[str, str]:
    """List the second names under which tensors are used, by their first names.

    Parameters
    ----------
    tensors : mapping of str to array
        What `tensors_under_one_name` gets.
    config : Config
        The configuration.

    Returns
    -------
    dict of str to str
        For each first name that is left out, or whose second is used, the second name.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> second_names_in({"cls.predictions.decoder.bias": np.ones(1)}, NezhaConfig())
    {'cls.predictions.bias': 'cls.predictions.decoder.bias'}
    """
    return {
        first: second
        for second, first in aliases(config).items()
        if second in tensors and (first not in tensors or not _must_be_equal(first, config))
    }


def _chosen(first: str, second: str, one: Array, other: Array, config: Config) -> Array:
    """Choose between the arrays of both names of a tensor; one that is no array is left to later checks."""
    if not (is_array(one) and is_array(other)):
        return other if is_array(one) else one
    if share_memory(one, other):
        return one
    if not _must_be_equal(first, config):  # numbers need not be known: the second name is used in any case
        difference = 0.0 if tuple(one.shape) == tuple(other.shape) else None
    else:
        try:
            difference = largest_difference(to_numpy(one), to_numpy(other))
        except (TypeError, RuntimeError):  # of JAX, and of torch
            raise ValueError(
                f"weights: expected one of two names of one tensor, {first} and {second}, because their numbers cannot "
                f"be compared while they are traced: leave out {second}"
            ) from None
    if refusal := _refusal(first, first, second, difference, config):
        raise ValueError(f"weights: {refusal}")
    return one if _must_be_equal(first, config) else other


def _must_be_equal(first: str, config: Config) -> bool:
    """Say whether two names are those of a tied decoder, and not two names of a bias."""
    return first not in family_of(config).second_names.values()


def _refusal(first: str, raw_first: str, raw_second: str, difference: float | None, config: Config) -> str:
    """Say why a tensor that is there under two names is refused, and what to do; empty where it is not."""
    if difference == 0:
        return ""
    if _must_be_equal(first, config):
        return _different(raw_first, raw_second, difference) + (
            ", though tie_word_embeddings says that they are one: set tie_word_embeddings to false in the "
            "configuration if the model was trained with two matrices, or else leave out the one that is not meant "
            f"(transformers 4 uses {printable(raw_second)} for both, transformers 5 uses each in its own place)"
        )
    if difference is None:
        return _different(raw_first, raw_second, difference) + ": leave out the one that is not meant"
    return ""


def _different(raw_first: str, raw_second: str, difference: float | None) -> str:
    """Begin the error for two names of one tensor whose numbers differ."""
    both = f"{printable(raw_first)} and {printable(raw_second)}"
    how = "different shapes" if difference is None else f"a largest difference of {difference:.3g}"
    return f"expected the same numbers under both names of one tensor, got {both} with {how}"


def _difference(one: Source, other: Source) -> float | None:
    """Return the largest difference of two tensors of files, of which only those that NumPy can hold are read."""
    same_place = one[::2] == other[::2]
    dtypes = {one[2].dtype, other[2].dtype}
    if same_place or (len(dtypes) == 1 and not dtypes <= DTYPES.keys()):  # `load` refuses what NumPy cannot hold
        return 0.0
    if not dtypes <= DTYPES.keys():
        return math.nan
    first, second = (map_tensors(file, {raw: entry})[raw] for file, raw, entry in (one, other))
    return largest_difference(first, second)


def largest_difference(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return the largest difference of two arrays: 0 where both are NaN; None where their shapes differ.

    Examples
    --------
    >>> largest_difference(np.array([1.0, np.nan]), np.array([3.0, np.nan])), largest_difference(np.ones(2), np.ones(3))
    (2.0, None)
    """
    if one.shape != other.shape:
        return None
    if np.array_equal(one, other):  # the most frequent one, without a copy in float64
        return 0.0
    differs = (one != other) & ~(np.isnan(one) & np.isnan(other))
    if not differs.any():
        return 0.0
    return float(np.abs(one[differs].astype(np.float64) - other[differs].astype(np.float64)).max())


def with_second_names(arrays: Mapping[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """Add the second names that transformers 5 needs in a file: those of a bias, where the decoder is not tied.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        What is written, by its names in the file.
    config : Config
        The configuration.

    Returns
    -------
    dict of str to numpy.ndarray
        The same, and second names.

    Examples
    --------
    >>> from nezha_np.families.bert import BertConfig
    >>> bias = {"cls.predictions.bias": np.zeros(1)}
    >>> list(with_second_names(bias, BertConfig(tie_word_embeddings=False)))
    ['cls.predictions.bias', 'cls.predictions.decoder.bias']
    >>> list(with_second_names(bias, BertConfig()))
    ['cls.predictions.bias']
    """
    if config.tie_word_embeddings:
        return dict(arrays)
    second_names = family_of(config).second_names
    return dict(arrays) | {second: arrays[first] for second, first in second_names.items() if first in arrays}
