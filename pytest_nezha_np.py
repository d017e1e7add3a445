"""A pytest plugin: the fixture ``nezha_golden`` checks a port of NEZHA, BERT or ConvBERT in one line.

Where nezha_np is installed, pytest loads this module in every project: so it imports nothing but pytest until the
fixture is used. `docs/oracle.md` shows it at work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def nezha_golden(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Check a port: ``nezha_golden(theirs, weights, input_ids, head="masked_lm", labels=labels)``.

    Parameters of the function
    --------------------------
    theirs : mapping of str to array, callable, or path
        Their arrays, or a function that is called with the inputs by keyword, as NumPy arrays, and returns them or the
        path of a file of them; as for `nezha_np.oracle.compare`.
    weights : Weights, configuration, path, str, Bundle or None
        What to record, as for `nezha_np.oracle.record`; or the name of a standard bundle, the path of a bundle, or a
        bundle, which bring their own inputs.
    input_ids, head, seed, tolerances, **inputs
        As for `nezha_np.oracle.record`: ``tolerances="quick"`` records in less time. What was recorded is stored in
        pytest's cache, by the content of all of these. With ``step=`` training steps are recorded too, and the function
        is called with the bundle.
    rename, names, transposed, dtype, tolerance, files
        As for `nezha_np.oracle.compare`: with ``files=True`` the function gets the bundle's file and the path of the
        file that it writes its arrays to, for a port that is a process of its own.

    Returns
    -------
    callable
        It returns a `nezha_np.oracle.Comparison`, or fails the test with the first difference and what the doctor says.
    """

    def check(
        theirs: Any,
        weights: Any,
        input_ids: Any = None,
        *,
        head: str = "forward",
        seed: int = 0,
        tolerances: str | None = "measured",
        rename: Any = None,
        names: str | None = None,
        transposed: bool = False,
        dtype: str | None = None,
        tolerance: float | None = None,
        files: bool = False,
        **inputs: Any,
    ) -> Any:
        __tracebackhide__ = True
        from nezha_np.oracle.comparison import call, call_with_files, compare

        inputs = {key: value for key, value in {"input_ids": input_ids, **inputs}.items() if value is not None}
        inputs |= _plain(inputs)
        bundle, file = _bundle(request.config, weights, head, seed, tolerances, inputs)
        arrays = theirs
        if files:
            folder = request.getfixturevalue("tmp_path_factory").mktemp("nezha_golden")
            arrays = call_with_files(theirs, bundle, file, folder)
        elif callable(theirs):
            arrays = call(theirs, bundle)
        options = {"rename": rename, "names": names, "transposed": transposed, "dtype": dtype}
        comparison = compare(bundle, arrays, **options, tolerance=tolerance)
        if not comparison:
            pytest.fail(
                f"{comparison.summary()}\n{_what_the_doctor_says(bundle, arrays, weights, options)}", pytrace=False
            )
        return comparison

    return check


def _what_the_doctor_says(bundle: Any, arrays: Any, weights: Any, options: dict[str, Any]) -> str:
    from nezha_np.oracle.doctor import diagnose

    checkpoint = weights if isinstance(weights, (str, Path)) and not _is_bundle_file(weights) else None
    try:
        return f"the doctor: {diagnose(bundle, arrays, weights=checkpoint, **options)}"
    except Exception as error:  # the checkpoint of a bundle that was recorded elsewhere, or a fault of the doctor's own
        return f"the doctor cannot say why: {type(error).__name__}: {error}"


def _bundle(
    config: pytest.Config, weights: Any, head: str, seed: int, tolerances: str | None, inputs: dict[str, Any]
) -> tuple[Any, Path | None]:
    """Take a bundle as it is, or from the cache; else record it. Return it and its file, where it has one."""
    import difflib

    from nezha_np.oracle.bundle import Bundle, load_bundle
    from nezha_np.oracle.recording import record
    from nezha_np.oracle.standard import names, record_standard

    is_standard = isinstance(weights, str) and weights in names()
    if is_standard or isinstance(weights, Bundle) or _is_bundle_file(weights):
        own = {"head": head != "forward", "seed": seed, "tolerances": tolerances != "measured"}
        if extra := [*inputs, *(name for name, is_set in own.items() if is_set)]:
            raise TypeError(f"{extra[0]}: expected none with a bundle, which has its own")
        if not is_standard:
            return (weights, None) if isinstance(weights, Bundle) else (load_bundle(weights), Path(weights))
    if isinstance(weights, str) and not is_standard and not Path(weights).exists():
        near = difflib.get_close_matches(weights, names(), n=3) or ["see nezha_np.oracle.standard.names()"]
        raise FileNotFoundError(
            f"weights: expected a path or the name of a standard bundle, got {weights!r}, which is neither: "
            f"{', '.join(near)}?"
        )
    cached = _place_in_cache(config, weights, head, seed, tolerances, inputs)
    if cached is not None and cached.is_file():
        try:
            return load_bundle(cached), cached
        except (ValueError, OSError):  # a broken file is recorded anew
            pass
    if is_standard:
        bundle = record_standard(weights)
    else:
        bundle = record(weights, head=head, seed=seed, tolerances=tolerances, **inputs)
    if cached is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written to is none
            bundle.save(cached)
            return bundle, cached
    return bundle, None


def _plain(inputs: dict[str, Any]) -> dict[str, Any]:
    """Give the optimiser by its name and a schedule by its rates: what a cache can be told apart by."""
    from nezha_np.oracle.recipe import optimizer_name

    if "step" not in inputs:
        return {}
    plain: dict[str, Any] = {"step": optimizer_name(inputs["step"])}
    if callable(rate := inputs.get("learning_rate")):
        plain["learning_rate"] = [float(rate(number)) for number in range(inputs.get("steps", 1) + 1)]
    return plain


def _is_bundle_file(weights: Any) -> bool:
    from nezha_np.oracle.bundle_document import KEY
    from nezha_np.weights.formats.safetensors import read_header, read_metadata

    if not isinstance(weights, (str, Path)) or Path(weights).suffix != ".safetensors" or not Path(weights).is_file():
        return False
    read_header(Path(weights))
    return KEY in read_metadata(Path(weights))


def _place_in_cache(config: pytest.Config, weights: Any, *call: Any) -> Path | None:
    """Name the file of a recording by all that it depends on; None where pytest has no cache."""
    import hashlib

    import numpy

    import nezha_np
    from nezha_np.oracle.bundle import checkpoint_hash
    from nezha_np.oracle.bundle_document import FORMAT
    from nezha_np.oracle.standard import names

    cache = getattr(config, "cache", None)  # which -p no:cacheprovider takes away
    if cache is None or any(callable(value) for part in call if isinstance(part, dict) for value in part.values()):
        return None  # or a function is given, ``decays=``: nothing tells it from another
    if isinstance(weights, (str, Path)) and weights not in names():
        weights = checkpoint_hash(weights, name="weights")
    digest = hashlib.sha256()
    _add_content((nezha_np.__version__, numpy.__version__, FORMAT, weights, *call), digest.update)
    try:
        return Path(cache.mkdir("nezha_golden")) / f"{digest.hexdigest()[:32]}.safetensors"
    except OSError:  # a folder that cannot be written to
        return None


def _add_content(value: Any, add: Callable[[bytes], None]) -> None:
    """Add what a value holds to a hash."""
    from nezha_np.arrays import is_array, to_numpy
    from nezha_np.weights.weights import Weights

    if isinstance(value, Weights):
        value = (value.config, dict(value))
    if isinstance(value, dict):
        value = tuple(part for key in sorted(value) for part in (key, value[key]))
    if isinstance(value, (tuple, list)):
        add(f"{len(value)} parts".encode())
        for part in value:
            _add_content(part, add)
    elif is_array(value):
        array = to_numpy(value)
        add(f"{array.dtype} {array.shape}".encode())
        add(array.tobytes())
    else:
        add(repr(value).encode())
