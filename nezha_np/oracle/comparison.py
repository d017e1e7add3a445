"""Comparing another implementation with a bundle, in the order in which the numbers are made."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.arrays import kind_of
from nezha_np.checks import check_path, check_switches, listed
from nezha_np.mechanism.summary import format_table
from nezha_np.oracle.alignment import Theirs, align, dtype_told
from nezha_np.oracle.bundle import Bundle, load_bundle
from nezha_np.oracle.differences import difference, is_additive_mask, largest, magnitude, worst_place
from nezha_np.oracle.masked_tokens import without_masked
from nezha_np.oracle.step_tolerances import allowed_differences


@dataclasses.dataclass(frozen=True)
class Row:
    """One array compared.

    Attributes
    ----------
    name, their_name : str
        What we call it, and what they do.
    shape : tuple of int
        Its shape; `their_shape` is another where the two cannot be compared.
    absolute, relative : float
        The largest difference, and this over the largest golden number; infinite where only one is NaN.
    tolerance : float
        The largest difference that rounding explains.
    where : tuple of int
        Where the largest difference is.
    agrees : bool
        Whether the difference is within the tolerance.
    largest : float
        The largest golden number; 0 where all that the golden array holds is float64's own rounding of 0, as in the
        gradient of the keys' bias.
    axes : tuple of int
        In which order their axes were taken, () where they were taken as they are.
    typical : float or None
        Where each element has a tolerance of its own, as in what an optimiser makes: that of most elements, the median.
        `tolerance`, `absolute` and `where` are then those of the element that differs by the largest part of its own.
    """

    name: str
    their_name: str
    shape: tuple[int, ...]
    their_shape: tuple[int, ...]
    dtype: str
    absolute: float
    relative: float
    tolerance: float
    where: tuple[int, ...]
    golden: float
    theirs: float
    agrees: bool
    largest: float
    axes: tuple[int, ...] = ()
    typical: float | None = None

    @property
    def telling(self) -> bool:
        """Whether the tolerance is less than half of the largest golden number: else nearly anything agrees.

        Where the golden array is 0 it is telling that theirs is.
        """
        most = self.tolerance if self.typical is None else self.typical
        return self.largest == 0.0 or not most >= self.largest / 2


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What was compared, in the order in which it is made.

    Attributes
    ----------
    rows : tuple of Row
        The arrays that both have.
    dtype : str
        The dtype whose tolerances were applied.
    tolerance : float or None
        What was allowed in place of these, over the largest golden number.
    unknown : tuple of str
        Their names that the bundle does not have.
    missing : tuple of str
        The bundle's names that they do not have.
    dtype_by : str
        What says that it is this dtype: "argument", where it was given; "arrays", their dtypes; or "bits", those of
        float32 arrays.
    idle : dict of str to str
        For each rename that gives none of the bundle's arrays: why.
    in_bfloat16 : int
        How many arrays hold numbers of bfloat16 alone, though others made all count as float32.
    at_masked_alone : bool
        Whether they differ at masked tokens alone, which nothing else reads.
    """

    rows: tuple[Row, ...]
    dtype: str
    tolerance: float | None
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    dtype_by: str
    idle: dict[str, str]
    in_bfloat16: int
    at_masked_alone: bool = False

    @property
    def first(self) -> Row | None:
        """The first array beyond its tolerance, None where all agree."""
        return next((row for row in self.rows if not row.agrees), None)

    @property
    def agrees(self) -> bool:
        """Whether all arrays are within their tolerances."""
        return self.first is None

    def __bool__(self) -> bool:
        return self.agrees

    def table(self, *, differing: bool = False) -> str:
        """Return a table of all arrays: name, shape, largest absolute and relative difference, tolerance, and where.

        With `differing`, of those alone that are beyond their tolerances.

        ✓ is for what agrees, ✗ for what does not, and ~ for what agrees and says little: see `Row.telling`. Where axes
        were taken in another order, a column says in which.
        """
        axes = ("axes",) if any(row.axes for row in self.rows) else ()
        rows: list[tuple[str, ...]] = [("", "name", "shape", "absolute", "relative", "tolerance", "where", *axes)]
        for row in self.rows:
            if differing and row.agrees:
                continue
            shape = " × ".join(map(str, row.shape)) or "()"
            if row.their_shape != row.shape:
                theirs = " × ".join(map(str, row.their_shape)) or "()"
                rows.append(("✗", row.name, f"{shape}, not {theirs}"))
                continue
            numbers = (f"{row.absolute:.2e}", f"{row.relative:.2e}", f"{row.tolerance:.2e}")
            mark = "✗" if not row.agrees else "✓" if row.telling else "~"
            rows.append((mark, row.name, shape, *numbers, str(list(row.where)), *([str(row.axes)] if row.axes else [])))
        return format_table(rows, right=(3, 4, 5))

    def summary(self) -> str:
        """Say in a few lines whether they agree, and where they part first."""
        within = f"the tolerances of {self.dtype}" if self.tolerance is None else f"{self.tolerance:g} of the largest"
        first = self.first
        if first is None:
            agree = f"all {len(self.rows)} arrays agree" if len(self.rows) > 1 else "the array agrees"
            lines = [f"{agree} within {within}"]
        else:
            wrong = sum(not row.agrees for row in self.rows)
            lines = [
                f"{wrong} of {len(self.rows)} arrays {'is' if wrong == 1 else 'are'} beyond {within}",
                f"the first, in the order in which they are made: {describe_row(first)}",
            ]
        lines += self._notes()
        if self.missing:
            of_all = len(self.rows) + len(self.missing)
            lines.append(f"of the bundle's {of_all} arrays, {len(self.missing)} were not given")
        if self.unknown:
            lines.append(f"not in the bundle, and not compared: {listed(list(self.unknown), 5)}")
        if self.idle:
            idle = [f"{their!r} {why}" for their, why in self.idle.items()]
            lines.append(f"renames that change nothing: {listed(idle, 5)}")
        return "\n".join(lines)

    def _notes(self) -> Iterator[str]:
        """Say what the result depends on besides the numbers: a dtype that was guessed, axes, wide tolerances."""
        if self.at_masked_alone:
            yield (
                "they differ at masked tokens alone, which nothing else reads: ignore_masked=True (--ignore-masked) "
                "leaves them out"
            )
        if self.tolerance is None and self.dtype_by == "bits":
            yield f"{self.dtype} is a guess, by the bits of arrays in float32: dtype= says what it is"
        if self.tolerance is None and self.dtype_by == "arrays" and self.dtype in ("bfloat16", "float16"):
            yield f"{self.dtype} is a guess, because most arrays are in it: dtype= says what it is"
        if not self.agrees and self.tolerance is None and 2 * self.in_bfloat16 > len(self.rows):
            yield (
                f"{self.in_bfloat16} of them hold numbers of bfloat16 alone: dtype='bfloat16' is for a pass in it with "
                "some steps in float32"
            )
        if moved := [f"{row.name} {row.axes}" for row in self.rows if row.axes]:
            yield f"taken with axes in another order: {listed(moved, 5)}"
        if little := sum(row.agrees and not row.telling for row in self.rows):
            where = f"in {self.dtype}" if self.tolerance is None else f"at {self.tolerance:g} of the largest"
            which, whose = ("1 array says", "its") if little == 1 else (f"{little} arrays say", "their")
            explained = "rounding explains" if self.tolerance is None else "that is"
            yield f"{which} little {where}: {explained} half of {whose} largest number or more"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, texts and lists, for JSON: what is NaN or infinite is None."""
        return {
            "agrees": self.agrees,
            "dtype": self.dtype,
            "dtype_by": self.dtype_by,
            "in_bfloat16": self.in_bfloat16,
            "tolerance": self.tolerance,
            "first": None if self.first is None else self.first.name,
            "rows": [
                {
                    key: list(value) if isinstance(value, tuple) else _finite(value)
                    for key, value in {**dataclasses.asdict(row), "telling": row.telling}.items()
                }
                for row in self.rows
            ],
            "unknown": list(self.unknown),
            "missing": list(self.missing),
            "idle": self.idle,
            "at_masked_alone": self.at_masked_alone,
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_row(row: Row) -> str:
    """Say in one line how an array differs."""
    called = "" if row.their_name.endswith(row.name) else f" ({row.their_name})"
    if row.their_shape != row.shape:
        return f"{row.name}{called} has shape {row.their_shape}, expected {row.shape}{_hint(row)}"
    numbers = f"it is {row.theirs:.6g}, expected {row.golden:.6g}"
    if not math.isfinite(row.absolute):
        return f"{row.name}{called} differs: at {list(row.where)} {numbers}"
    return (
        f"{row.name}{called} differs by {row.absolute:.2e}, {row.relative:.2e} of its largest, where rounding explains "
        f"{row.tolerance:.2e}; at {list(row.where)} {numbers}"
    )


def _hint(row: Row) -> str:
    """Say what another shape may come from: the mask of the inputs, or axes in another order."""
    if is_additive_mask(row.name) and len(row.their_shape) < len(row.shape):
        return (
            ": the bundle's is the additive mask, (B, 1, 1, S) or (B, 1, Q, S), 0 where attended to and the minimum "
            "elsewhere"
        )
    return ": transposed=True takes axes in another order" if sorted(row.their_shape) == sorted(row.shape) else ""


def compare(
    bundle: Bundle | str | Path,
    theirs: Mapping[str, Any] | Callable[..., Any] | Bundle | str | Path,
    *,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    transposed: bool = False,
    dtype: str | None = None,
    tolerance: float | None = None,
    ignore_masked: bool = False,
    files: bool = False,
) -> Comparison:
    """Compare another implementation with a bundle.

    Parameters
    ----------
    bundle : Bundle or path
        The golden pass.
    theirs : mapping of str to array, callable, Bundle, or path
        Their arrays by name, some or all; or a .safetensors or .npz file of them; or another bundle, or its path; or a
        function that takes the bundle's inputs by keyword, as NumPy arrays, and returns one of these (where the bundle
        has training steps, it takes the bundle alone; with `files` it takes files). A name is that of the trace, with a
        model's prefix or without; that of an output, ``logits`` or ``outputs/logits``; ``gradients/…`` or ``steps/…``.
    rename : mapping of str to str, optional
        Our names for theirs, as patterns: ``{"blocks.*.q": "encoder.layer.*.attention.self.q"}``, where ``*`` stands
        for any text within a part of a name, ``**`` for any text, dots included. What lies below a name follows it. A
        rename that fits none of their names is listed in the summary, and refused where no bundle has its name: one
        table may serve the bundles of all families and heads.
    names : str, optional
        A table of renames that ships with the package, "bert4torch" or "paddlenlp" for example: see
        `nezha_np.oracle.name_tables`. Those of `rename` come before it.
    transposed : bool
        Whether an array is taken with its axes in whatever order fits best.
    dtype : str, optional
        "float64", "float32", "float16" or "bfloat16": whose tolerances to apply; None: what most of their arrays are
        in, of as many the widest. Arrays in float32 count as bfloat16 where the numbers of all are bfloat16's. The
        summary says where it was guessed.
    tolerance : float, optional
        The largest difference over the largest golden number, in place of the bundle's tolerances; needed where it was
        recorded without.
    ignore_masked : bool
        Whether to leave out what an engine that skips padding does not compute: the numbers of masked tokens, which in
        NEZHA and BERT nothing else reads.
    files : bool
        Whether `theirs` is a function of two paths, for a port that is a process of its own: the bundle's file, which
        it reads, and the .safetensors file that it writes its arrays to, unless it returns the path of another.

    Returns
    -------
    Comparison
        True where all agree.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If an argument is wrong, or the two have nothing in common; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> bundle = nz.oracle.record(config, [[2, 3]])
    >>> hidden = bundle.trace["embeddings"].astype("float32")
    >>> bool(nz.oracle.compare(bundle, {"embeddings": hidden}))
    True
    >>> nz.oracle.compare(bundle, {"embeddings": hidden + 1}).first.name
    'embeddings'
    """
    check_tolerance(tolerance)
    check_switches(files=files)
    file = None if isinstance(bundle, Bundle) else check_path(bundle, "bundle")
    bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    with tempfile.TemporaryDirectory(prefix="nezha-golden-", ignore_cleanup_errors=True) as folder:
        if callable(theirs) and not isinstance(theirs, Mapping):
            theirs = call_with_files(theirs, bundle, file, Path(folder)) if files else call(theirs, bundle)
        elif files:
            raise TypeError(f"theirs: expected a function of two paths, because files=True, got {kind_of(theirs)}")
        found = align(bundle, theirs, rename=rename, names=names, transposed=transposed, dtype=dtype)
        return compare_with_masked(bundle, _at_other_tokens(bundle, found) if ignore_masked else found, tolerance)


def _at_other_tokens(bundle: Bundle, theirs: Theirs) -> Theirs:
    """Leave out what theirs have at masked tokens."""
    return dataclasses.replace(theirs, arrays=without_masked(bundle, theirs.arrays))


def compare_with_masked(bundle: Bundle, theirs: Theirs, tolerance: float | None = None) -> Comparison:
    """Compare arrays that were aligned, and say whether they differ at masked tokens alone."""
    compared = compare_aligned(bundle, theirs, tolerance)
    if compared.agrees:
        return compared
    others = compare_aligned(bundle, _at_other_tokens(bundle, theirs), tolerance)
    return dataclasses.replace(compared, at_masked_alone=others.agrees)


def taken(
    bundle: Bundle | str | Path,
    theirs: Mapping[str, Any] | Callable[..., Any] | Bundle | str | Path,
    *,
    ignore_masked: bool = False,
    **matching: Any,
) -> tuple[Bundle, Theirs]:
    """Read a bundle where it is a path, call theirs where it is a function, and align the two.

    The arguments are those of `compare`.
    """
    bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    if callable(theirs) and not isinstance(theirs, Mapping):
        theirs = call(theirs, bundle)
    found = align(bundle, theirs, **matching)
    return bundle, _at_other_tokens(bundle, found) if ignore_masked else found


def call_with_files(function: Callable[..., Any], bundle: Bundle, file: Path | None, folder: Path) -> Path:
    """Call a function with a bundle's file and the file that it is to write, and return that or the one it returns.

    Parameters
    ----------
    function : callable
        What it raises is not caught.
    bundle : Bundle
        The bundle.
    file : Path or None
        Its file; None: it is written into the folder.
    folder : Path
        Where files are written.

    Raises
    ------
    TypeError, FileNotFoundError
        If it returns something else, or there is no such file.
    """
    if file is None:
        file = folder / "golden.safetensors"
        bundle.save(file)
    written = folder / "theirs.safetensors"
    returned = function(file, written)
    if returned is not None and not isinstance(returned, (str, Path)):
        raise TypeError(f"theirs: expected a function that returns a path or None, got {kind_of(returned)}")
    found = written if returned is None else Path(returned)
    if not found.is_file():
        raise FileNotFoundError(f"theirs: expected a function that writes its arrays to a file, found no {found}")
    return found


def call(function: Callable[..., Any], bundle: Bundle) -> Mapping[str, Any] | Bundle | str | Path:
    """Call a function with copies of a bundle's inputs, and return its arrays; what it raises is not caught.

    Training steps need more than inputs: their batches and their recipe, and the weights. So a function that is to make
    them gets the bundle.
    """
    if bundle.training is not None:
        theirs = function(bundle)
    else:
        theirs = function(**{name: _copied(value) for name, value in bundle.inputs.items()})
    if not isinstance(theirs, (Mapping, Bundle, str, Path)):
        got = type(theirs).__name__
        raise TypeError(f"theirs: expected a function that returns a mapping of arrays or a path, got {got}")
    return theirs


def _copied(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    return value.copy() if isinstance(value, np.ndarray) else value


def check_tolerance(tolerance: Any) -> None:
    """Check a relative tolerance.

    Examples
    --------
    >>> check_tolerance(-1.0)
    Traceback (most recent call last):
    ...
    ValueError: tolerance: expected a number from 0 on, got -1.0
    """
    if tolerance is None:
        return
    if not isinstance(tolerance, (int, float, np.integer, np.floating)) or isinstance(tolerance, bool):
        raise TypeError(f"tolerance: expected a number or None, got {type(tolerance).__name__}")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance: expected a number from 0 on, got {tolerance}")


def compare_aligned(bundle: Bundle, theirs: Theirs, tolerance: float | None = None) -> Comparison:
    """Compare arrays that are aligned with a bundle."""
    if tolerance is None and not bundle.tolerances:
        raise ValueError(
            "tolerance: expected a number, because the bundle was recorded with tolerances=None and has none of its "
            "own, got None"
        )
    tolerances = {} if tolerance is not None else allowed_differences(bundle, theirs.dtype, theirs.names)
    rows = []
    for name, golden in bundle.arrays.items():
        if name not in theirs.names:
            continue
        if name in theirs.wrong_shape:
            other, nan = theirs.wrong_shape[name].shape, float("nan")
            size = _above_rounding(bundle, name, largest(magnitude(name, golden)))
            rows.append(
                Row(name, theirs.names[name], golden.shape, other, "", nan, nan, nan, (), nan, nan, False, size)
            )
            continue
        array = theirs.arrays[name]
        apart, size = difference(name, golden, array), largest(magnitude(name, golden))
        of_each = tolerances[name] if tolerance is None else tolerance * size
        place = worst_place(apart, of_each)
        where = tuple(int(index) for index in np.unravel_index(place, apart.shape)) if apart.size else ()
        absolute = float(apart[where]) if apart.size else 0.0
        allowed = float(np.broadcast_to(of_each, apart.shape)[where]) if apart.size else largest(np.atleast_1d(of_each))
        rows.append(
            Row(
                name,
                theirs.names[name],
                golden.shape,
                array.shape,
                str(array.dtype),
                absolute,
                absolute / size if size else (0.0 if absolute == 0.0 else float("inf")),
                allowed,
                where,
                float(golden[where]) if apart.size else 0.0,
                float(array[where]) if apart.size else 0.0,
                bool(absolute <= allowed),
                _above_rounding(bundle, name, size),
                theirs.axes.get(name, ()),
                float(np.median(of_each)) if isinstance(of_each, np.ndarray) and of_each.size else None,
            )
        )
    missing = tuple(name for name in bundle.arrays if name not in theirs.names)
    mixed = theirs.dtype == "float32" and theirs.dtype_by == "arrays"
    return Comparison(
        tuple(rows),
        theirs.dtype,
        tolerance,
        tuple(theirs.unknown),
        missing,
        theirs.dtype_by,
        theirs.idle,
        sum(dtype_told(array) == "bfloat16" for array in theirs.arrays.values()) if mixed else 0,
    )


def _above_rounding(bundle: Bundle, name: str, size: float) -> float:
    """Return the largest number of an array, 0 where float64's own rounding explains it."""
    exact = bundle.tolerances.get("float64", {}).get(name, -1.0)  # of what has one for each element there is none
    return 0.0 if exact >= size / 2 else size
