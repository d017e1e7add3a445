"""Their arrays under our names: prefixes, renamed tensors, axes in another order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.arrays import is_array, library, to_numpy
from nezha_np.checks import check_path, listed
from nezha_np.families.family import every_prefix, family_of
from nezha_np.mechanism.patterns import compile_pattern, count_stars, fill_stars
from nezha_np.oracle.bundle import Bundle, load_bundle
from nezha_np.oracle.bundle_document import KEY, TOLERANCES
from nezha_np.oracle.description import has_square_scores
from nezha_np.oracle.differences import difference, is_additive_mask, largest, magnitude
from nezha_np.oracle.name_tables import every_name, name_table
from nezha_np.oracle.nesting import check_levels, flattened
from nezha_np.weights.formats import npz as npz_file
from nezha_np.weights.formats import safetensors as safetensors_file
from nezha_np.weights.formats.entry import map_tensors

Rename = list[tuple[str, str]]  # patterns of their names, and ours for them


@dataclasses.dataclass(frozen=True, eq=False)
class Theirs:
    """Another implementation's arrays, aligned with a bundle.

    Attributes
    ----------
    arrays : dict of str to array
        Their arrays by the bundle's names, in the bundle's order.
    names : dict of str to str
        What they call each of these.
    axes : dict of str to tuple
        For each array whose axes were put in another order: that order.
    unknown : list of str
        Their names that the bundle does not have.
    wrong_shape : dict of str to array
        Their arrays that cannot be compared, because the bundle's have another shape.
    dtype : str
        What they compute in: "float64", "float32", "float16" or "bfloat16".
    dtype_by : str
        What says so: "argument", where it was given; "arrays", their dtypes; or "bits", those of float32 arrays.
    idle : dict of str to str
        For each rename that gives none of the bundle's arrays: why.
    """

    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    axes: dict[str, tuple[int, ...]]
    unknown: list[str]
    wrong_shape: dict[str, np.ndarray]
    dtype: str
    dtype_by: str
    idle: dict[str, str]


def align(
    bundle: Bundle,
    theirs: Mapping[str, Any] | Bundle | str | Path,
    *,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    transposed: bool = False,
    dtype: str | None = None,
) -> Theirs:
    """Find the bundle's name, shape and order for another implementation's arrays.

    Parameters
    ----------
    bundle : Bundle
        What to align with.
    theirs : mapping of str to array, Bundle, or path
        Their arrays, of any library: by trace names, by ``outputs/…`` or the name of an output, and by ``gradients/…``;
        a name may begin with the prefix of a model (``nezha.``, ``bert.``, ``convbert.``). A tuple of arrays counts
        as ``name.0``, ``name.1``, …; what is None is left out. Of another bundle, or the path of one, its arrays are
        taken.
    rename : mapping of str to str, optional
        Our names for theirs, as patterns (`nezha_np.mechanism.patterns`): ``*`` stands for any text within a part of a
        name, ``**`` for any text, and in our name each star for the text of theirs in its place. What lies below a
        name follows it: ``{"blocks.*.attn.q": "encoder.layer.*.attention.self.query"}`` is for the gradient of
        ``blocks.0.attn.q.weight`` too. Of several that fit, that with the most parts acts. One that fits none of their
        names is listed in `Theirs.idle`, and refused where no bundle has its name either.
    names : str, optional
        A table of names that ships with the package (`nezha_np.oracle.name_tables`), after `rename`.
    transposed : bool
        Whether an array is taken with its axes in whatever order fits best.
    dtype : str, optional
        What they compute in; None: what most of their float arrays are in, of as many the widest. float32 arrays
        count as bfloat16 where each number of each of them is one of bfloat16's.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If the two have nothing in common, two of their names mean one of ours, a rename fits neither, or an argument is
        wrong.
    """
    arrays, known = read_theirs(theirs) if isinstance(theirs, (str, Path)) else take_theirs(theirs)
    golden = bundle.arrays
    table, idle = check_names(rename, names), idle_renames(rename or {}, arrays, bundle)
    found: dict[str, np.ndarray] = {}
    their_names: dict[str, str] = {}
    axes: dict[str, tuple[int, ...]] = {}
    unknown: list[str] = []
    wrong_shape: dict[str, np.ndarray] = {}
    for their_name, array in arrays.items():
        name = _our_name(their_name, table, bundle, golden)
        if name is None:
            unknown.append(their_name)
            continue
        if name in their_names:
            raise ValueError(f"theirs: expected one array for {name}, got {their_names[name]} and {their_name}")
        if _once_for_all_texts(name, golden, array):
            if name.startswith("gradients/"):  # theirs is the sum over the texts
                unknown.append(their_name)
                continue
            array = np.broadcast_to(array, golden[name].shape)
        if golden[name].shape == () and array.size == 1:  # as libraries write a number that have no arrays without axes
            array = array.reshape(())
        their_names[name] = their_name
        order = _best_order(name, golden[name], array) if transposed else tuple(range(array.ndim))
        if order is None or array.transpose(order).shape != golden[name].shape:
            wrong_shape[name] = array
            continue
        if order != tuple(range(array.ndim)):
            axes[name] = order
        found[name] = array.transpose(order)
    if not their_names:
        advice = listed([f"{their!r} {why}" for their, why in idle.items()], 5) or "give a table of renames"
        raise ValueError(
            f"theirs: expected some of the bundle's names ({listed(list(golden), 5)}), "
            f"got {listed(list(arrays), 5) or 'no array'}: {advice}"
        )
    in_order = {name: found[name] for name in golden if name in found}
    said = {name: known[their_names[name]] for name in in_order if their_names[name] in known}
    theirs_in = dtype or most_frequent_dtype(in_order, said)
    if theirs_in not in TOLERANCES:
        raise ValueError(f"dtype: expected one of {', '.join(TOLERANCES)}, got {theirs_in!r}")
    by_bits = theirs_in == "bfloat16" and "bfloat16" not in said.values()
    dtype_by = "argument" if dtype else "bits" if by_bits else "arrays"
    unfit = {name: wrong_shape[name] for name in golden if name in wrong_shape}
    return Theirs(in_order, their_names, axes, unknown, unfit, theirs_in, dtype_by, idle)


def of_trace(bundle: Bundle, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take what belongs to the trace, in its order; an output by the name of the intermediate that it is."""
    taken = {name: array for name, array in arrays.items() if name in bundle.trace}
    for output, step in steps_of_outputs(bundle).items():
        if output in arrays:
            taken.setdefault(step, arrays[output])
    return {name: taken[name] for name in bundle.trace if name in taken}


def steps_of_outputs(bundle: Bundle) -> dict[str, str]:
    """Say which intermediate each output is; one whose intermediate was not recorded is left out."""
    names = {id(array): name for name, array in bundle.trace.items()}
    return {f"outputs/{name}": names[id(array)] for name, array in bundle.outputs.items() if id(array) in names}


def read_theirs(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read another implementation's arrays, a .safetensors or a .npz file; and what is known of their dtypes.

    Those of a file that is a golden bundle have all their names, and its dtype.
    """
    path = check_path(path, "theirs")
    reader = {".safetensors": safetensors_file, ".npz": npz_file}.get(path.suffix)
    if reader is None:
        raise ValueError(f"theirs: expected a .safetensors or a .npz file, got {path}")
    if not path.is_file():
        raise FileNotFoundError(f"theirs: expected a file of arrays, found no {path}")
    header = reader.read_header(path)
    if reader is safetensors_file and KEY in safetensors_file.read_metadata(path):
        return take_theirs(load_bundle(path))
    known = {name: "bfloat16" for name, entry in header.items() if entry.dtype == "BF16"}
    return {name: _real(name, array) for name, array in map_tensors(path, header).items()}, known


def take_theirs(theirs: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Take another implementation's arrays from a mapping or a bundle; and what is known of their dtypes."""
    if isinstance(theirs, Bundle):
        return theirs.arrays, dict.fromkeys(theirs.arrays, theirs.dtype)
    if not isinstance(theirs, Mapping):
        raise TypeError(f"theirs: expected a mapping of arrays or a path, got {type(theirs).__name__}")
    if odd := [name for name in theirs if not isinstance(name, str)]:
        raise TypeError(f"theirs: expected a name for each array, got {odd[0]!r}")
    for name, value in theirs.items():
        check_levels(name, value)
        if isinstance(value, (list, tuple)) and _all_numbers(value):  # each of them would be an array of its own
            raise TypeError(f"theirs: expected arrays by name, got {type(value).__name__} for {name}")
    arrays, known = {}, {}
    for name, value in flattened(theirs).items():
        if is_array(value) and "bfloat16" in str(value.dtype):
            value = value.float() if library(value) == "torch" else np.asarray(value).astype(np.float32)
            known[name] = "bfloat16"
        elif isinstance(value, (float, int)):
            known[name] = ""  # a number of Python's, which says nothing of the dtype
        elif not is_array(value):
            raise TypeError(f"theirs: expected arrays by name, got {type(value).__name__} for {name}")
        arrays[name] = _real(name, to_numpy(value) if is_array(value) else np.asarray(value))
    return arrays, known


def _all_numbers(values: Iterable[Any]) -> bool:
    """Whether nested lists hold numbers of Python's and nothing else."""
    values = list(values)
    return bool(values) and all(
        _all_numbers(value) if isinstance(value, (list, tuple)) else isinstance(value, (int, float)) for value in values
    )


def _real(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"theirs: expected real numbers, got {array.dtype} for {name}")
    return array


def most_frequent_dtype(arrays: Mapping[str, np.ndarray], known: Mapping[str, str]) -> str:
    """Say what most float arrays are in, of as many the widest; float32 where none tells.

    Masks and single numbers are asked where nothing else tells. One float32 array that bfloat16 cannot hold is enough
    for all of them to be float32: what a float32 pass looks up in a bfloat16 checkpoint has bfloat16's bits too.

    Examples
    --------
    >>> looked_up, computed = np.array([0.8984375, 0.5], "float32"), np.array([0.9, 0.5], "float32")
    >>> most_frequent_dtype({"q": looked_up}, {})  # eight significant bits
    'bfloat16'
    >>> most_frequent_dtype({"q": looked_up, "k": looked_up, "v": computed}, {})
    'float32'
    """
    asked = {name: array for name, array in arrays.items() if known.get(name) != ""}
    seen = {name: dtype_told(array) for name, array in asked.items() if array.size > 1 and not is_additive_mask(name)}
    if "float32" in seen.values():
        seen = {name: "float32" if told == "bfloat16" else told for name, told in seen.items()}
    told = [known.get(name) or seen.get(name) for name in asked]
    if not any(told):
        told = [array.dtype.name for array in asked.values()]
    return max(TOLERANCES, key=told.count) if set(told) & set(TOLERANCES) else "float32"


def dtype_told(array: np.ndarray) -> str:
    """Say what an array was computed in, bfloat16 by its bits; "" where it has no floats, or none that tells.

    Examples
    --------
    >>> dtype_told(np.array([0.9], "float32")), dtype_told(np.array([0.0, 1.0, 1.5], "float32"))
    ('float32', '')
    """
    if array.dtype.kind != "f":
        return ""
    if array.dtype.name != "float32":
        return array.dtype.name if array.dtype.name in TOLERANCES else "float64"
    bits = np.array(array, np.float32).view(np.uint32)
    telling = bits[np.isfinite(array) & (bits & 0x7FFFF != 0)]  # more than five significant bits: no 0, 1, 1.5
    if not telling.size:
        return ""
    return "float32" if (telling & 0xFFFF).any() else "bfloat16"


# ------------------------------------------------------------------------------------------------------------- names


def check_rename(rename: Mapping[str, str] | None) -> Rename:
    """Check a table of renames, and put those of many parts first.

    Examples
    --------
    >>> check_rename({"blocks.0": "encoder.layer.*"})
    Traceback (most recent call last):
    ...
    ValueError: rename: expected a * in 'blocks.0' for each in 'encoder.layer.*', got 0 for 1
    """
    if rename is not None and not isinstance(rename, Mapping):
        raise TypeError(f"rename: expected a mapping from their names to ours, got {type(rename).__name__}")
    found = []
    for their, our in (rename or {}).items():
        if not isinstance(their, str) or not isinstance(our, str):
            raise TypeError(f"rename: expected a mapping from their names to ours, got {their!r} for {our!r}")
        if count_stars(our) > count_stars(their):
            counts = f"{count_stars(their)} for {count_stars(our)}"
            raise ValueError(f"rename: expected a * in {their!r} for each in {our!r}, got {counts}")
        found.append((their, our))
    found.sort(key=lambda pair: -pair[0].count("."))
    return found


def check_names(rename: Mapping[str, str] | None, names: str | None) -> Rename:
    """Check a table of renames, and put a table that ships with the package after it.

    Examples
    --------
    >>> check_names({"mlmDense": "mine"}, "bert4torch")[0]
    ('mlmDense', 'mine')
    """
    return check_rename(rename) + check_rename(name_table(names))


def renamed(name: str, rename: Rename) -> str:
    """Give a name by a table of renames, with its group or after it.

    Examples
    --------
    >>> table = check_rename({"blocks.*.q": "encoder.layer.*.query", "outputs/0": "logits"})
    >>> renamed("gradients/blocks.1.q.weight", table), renamed("outputs/0", table), renamed("blocks.1", table)
    ('gradients/encoder.layer.1.query.weight', 'logits', 'blocks.1')
    """
    group, slash, rest = name.rpartition("/")
    for their, our in rename:
        for before, text in (("", name), (group + slash, rest)):
            stars = stars_of(text, their)
            if stars is not None:
                *texts, below = stars
                return before + fill_stars(our, texts) + below
    return name


def stars_of(name: str, pattern: str) -> tuple[str, ...] | None:
    """Return what the stars of a pattern stand for in a name, and what lies below it; None where it does not fit.

    Examples
    --------
    >>> stars_of("blocks.1.q.weight", "blocks.*.q"), stars_of("blocks.1.k", "blocks.*.q")
    (('1', '.weight'), None)
    """
    if found := compile_pattern(pattern).fullmatch(name):
        return (*found.groups(), "")
    if found := compile_pattern(f"{pattern}.**").fullmatch(name):
        *texts, below = found.groups()
        return (*texts, f".{below}")
    return None


def idle_renames(rename: Mapping[str, str], theirs: Iterable[str], bundle: Bundle) -> dict[str, str]:
    """List the renames that give none of the bundle's names, and say why: a table may be for several models.

    Raises
    ------
    ValueError
        If one fits none of their names, and neither this bundle nor one of another family or head has its name.
    """
    idle, lost = {}, []
    golden, names = bundle.arrays, [name.removeprefix("trace/") for name in theirs]
    for their, our in rename.items():
        table = check_rename({their: our})
        fitting = [name for name in names if _fits(table, name)]
        if any(_our_name(name, table, bundle, golden) for name in fitting):
            continue
        ours = check_rename({without_prefix(our).removeprefix("trace/"): ""})
        if fitting:
            idle[their] = f"gives none of the bundle's names, {our}"
        elif _our_name(our, [], bundle, golden) or any(_fits(ours, name) for name in golden):
            idle[their] = "fits none of your names"
        else:
            lost.append((their, our))
    if lost:  # one table may serve the bundles of all families and heads
        elsewhere = {their for their, our in lost if _any_bundle_has(our)}
        idle |= dict.fromkeys(elsewhere, "fits none of your names, and the bundle has none such")
        lost = [(their, our) for their, our in lost if their not in elsewhere]
    if lost:
        both = listed([f"{their!r} for {our!r}" for their, our in lost], 5)
        raise ValueError(f"rename: expected names of theirs or of the bundle, got neither in {both}")
    return idle


def _any_bundle_has(name: str) -> bool:
    """Whether a bundle of some family and head has a name, or what lies below it."""
    pattern = check_rename({without_prefix(name).removeprefix("trace/").rpartition("/")[2]: ""})
    return any(stars_of(other, pattern[0][0]) is not None for other in every_name())


def _fits(table: Rename, name: str) -> bool:
    """Whether a rename acts on a name, with its group or after it, with a model's prefix or without."""
    texts = [text for form in (name, without_prefix(name)) for text in (form, form.rpartition("/")[2])]
    return any(stars_of(text, pattern) is not None for pattern, _ in table for text in texts)


def without_prefix(name: str) -> str:
    """Take the prefix of a model off a name, in its group.

    Examples
    --------
    >>> without_prefix("gradients/bert.pooler.dense.bias")
    'gradients/pooler.dense.bias'
    """
    group, slash, rest = name.rpartition("/")
    for prefix in every_prefix():
        rest = rest.removeprefix(f"{prefix}.")
    return group + slash + rest


def _our_name(name: str, table: Rename, bundle: Bundle, golden: Mapping[str, Any]) -> str | None:
    """Find the bundle's name for theirs, None where it has none."""
    name = name.removeprefix("trace/")
    ours = renamed(name, table)
    if ours == name:
        ours = renamed(without_prefix(name), table)
    group, slash, rest = without_prefix(ours).removeprefix("trace/").rpartition("/")
    rest = family_of(bundle.config).second_names.get(rest, rest)
    choices = [group + slash + rest, f"outputs/{rest}" if not group else ""]
    if group == "gradients":  # of an output: it has those of the intermediate that it is
        output = bundle.outputs.get(rest)
        choices += [f"gradients/{own}" for own, array in bundle.trace.items() if array is output]
    return next((choice for choice in choices if choice in golden), None)


# -------------------------------------------------------------------------------------------------------------- axes


def _once_for_all_texts(name: str, golden: Mapping[str, np.ndarray], array: np.ndarray) -> bool:
    """Whether they make once what we make for each text, and it is the same for each: positions, for example."""
    shape = golden[name].shape
    if array.shape == shape or len(array.shape) != len(shape) or array.shape != (1, *shape[1:]):
        return False
    result = golden.get(name.removeprefix("gradients/"), golden[name])
    return bool((result == result[:1]).all())


def _best_order(name: str, golden: np.ndarray, array: np.ndarray) -> tuple[int, ...] | None:
    """Return the order of axes that has the golden shape, of several the one that comes closest.

    Where the axes fit as they are, another order has to come much closer: a wrong number moves none. Queries and keys
    of which there are as many are not exchanged: that is a mistake, not a layout.
    """
    if array.ndim != golden.ndim:
        return None
    as_it_is = tuple(range(array.ndim))
    apart = {}
    for order in itertools.permutations(as_it_is):
        exchanged = has_square_scores(name, golden) and order[2] > order[3]
        if array.transpose(order).shape == golden.shape and not exchanged:
            differences = difference(name, golden, array.transpose(order))
            most = largest(magnitude(name, golden))  # an infinite difference would outweigh all others
            apart[order] = float(np.minimum(differences, most).mean()) if differences.size else 0.0
    best = min(apart, key=apart.__getitem__, default=None)
    return as_it_is if as_it_is in apart and best is not None and apart[best] >= apart[as_it_is] / 2 else best
