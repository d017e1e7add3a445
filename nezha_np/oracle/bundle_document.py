"""The JSON document of a bundle: its keys, and what is checked of one that is read. `docs/bundles.md` specifies it."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nezha_np.checks import DTYPES, parse_json, shortened
from nezha_np.model.tasks import TASKS

FORMAT = 1  # the number of the format; a reader refuses other numbers
KEY = "nezha_np_golden"  # where the metadata hold the JSON document
# What the document holds under each key.
KINDS: dict[str, type] = {
    "head": str,
    "config": dict,
    "switches": dict,
    "weights": dict,
    "dtype": str,
    "versions": dict,
    "aliases": dict,
    "trace": list,
    "outputs": list,
    "gradients": list,
    "tolerances": dict,
}
TOLERANCES = ("float64", "float32", "float16", "bfloat16")  # the widest first
RECIPES = {"inside": (), "init": ("seed", "head"), "checkpoint": ("sha256", "name")}  # and what each needs
SEAL = ',"document_crc32":'  # what stands between the document and its own checksum, at its end
TOLERANCES_BY = ("measured", "quick", None)  # how `record` found them


def tensor_name(name: str) -> str:
    """Return what the file calls one of `Bundle.arrays`.

    Examples
    --------
    >>> tensor_name("embeddings.sum"), tensor_name("outputs/logits")
    ('trace/embeddings.sum', 'outputs/logits')
    """
    return name if name.startswith(("outputs/", "gradients/", "steps/")) else f"trace/{name}"


def checksum(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's bytes, as the file has them.

    Examples
    --------
    >>> hex(checksum(np.frombuffer(b"123456789", np.uint8)))
    '0xcbf43926'
    """
    return zlib.crc32(np.asarray(array, order="C").data)


def check_checksums(document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Check that the tensors of a file are those that were written; bundles of older versions have no checksums.

    Raises
    ------
    ValueError
        If a tensor has other bytes, is missing or is not among those that were written; the message names it.

    Examples
    --------
    >>> x = np.zeros(3)
    >>> check_checksums({"crc32": {"trace/x": checksum(x)}}, {"trace/x": x + 1e-300})
    Traceback (most recent call last):
    ...
    ValueError: expected the numbers that were recorded, with CRC-32 a3c1ca20, got others with ca448efe for trace/x: \
the file was changed or damaged
    """
    if "crc32" not in document:
        return
    for name, recorded in document["crc32"].items():
        if name not in tensors:
            raise ValueError(f"expected every tensor that was recorded, found no {name}")
        if recorded != (found := checksum(tensors[name])):
            raise ValueError(
                f"expected the numbers that were recorded, with CRC-32 {recorded:08x}, got others with {found:08x} for "
                f"{name}: the file was changed or damaged"
            )
    if added := sorted(set(tensors) - set(document["crc32"])):
        raise ValueError(f"expected the tensors that were recorded, got {added[0]} too")


def seal(text: str) -> str:
    """Add to the text of a document the CRC-32 of what stands before it.

    Examples
    --------
    >>> seal('{"format":1}')
    '{"format":1,"document_crc32":464651762}'
    """
    return f"{text[:-1]}{SEAL}{zlib.crc32(text[:-1].encode())}}}"


def read_document(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read the JSON document of a bundle, and check that it is one of this format."""
    if KEY not in metadata:
        raise ValueError(f"expected a golden bundle, got a safetensors file without {KEY} in its metadata")
    text = metadata[KEY]
    try:
        document = parse_json(text)
    except ValueError as error:
        raise ValueError(f"expected JSON under {KEY} in the metadata, got other text: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object under {KEY} in the metadata, got {text[:40]}")
    if type(document.get("format")) is not int or document["format"] != FORMAT:  # JSON's true is no 1
        raise ValueError(
            f"expected a golden bundle of format {FORMAT}, got format {document.get('format')!r}: record it anew, or "
            "read it with the version of nezha_np that wrote it"
        )
    if "document_crc32" in document and zlib.crc32(text.rpartition(SEAL)[0].encode()) != document["document_crc32"]:
        raise ValueError(
            f"expected the document that was recorded, got another under {KEY} in the metadata: its CRC-32 is not "
            "that in its end; the file was changed or damaged"
        )
    checksums = document.get("crc32", {})
    if not isinstance(checksums, dict) or not all(type(value) is int for value in checksums.values()):
        raise ValueError("expected a number for each tensor under crc32 in the bundle's metadata, got something else")
    for key, kind in KINDS.items():
        if not isinstance(document.get(key), kind):
            got = type(document[key]).__name__ if key in document else "nothing"
            raise ValueError(f"expected {kind.__name__} under {key} in the bundle's metadata, got {got}")
    if document["head"] not in TASKS:
        raise ValueError(f"expected one of the heads {', '.join(TASKS)}, got {document['head']!r}")
    if document["dtype"] not in DTYPES:
        raise ValueError(f"expected one of {', '.join(DTYPES)} for dtype in the metadata, got {document['dtype']!r}")
    if document.get("training") is None:
        document.pop("training", None)
    elif not isinstance(document.get("steps"), list):
        raise ValueError(f"expected list under steps in the bundle's metadata, got {document.get('steps')!r}"[:200])
    recipe, tolerances = document["weights"], document["tolerances"]
    if recipe.get("kind") not in tuple(RECIPES) or not recipe.keys() >= set(RECIPES[recipe["kind"]]):
        raise ValueError(f"expected a recipe for the weights ({', '.join(RECIPES)}), got {recipe}")
    if document.setdefault("tolerances_by", "measured") not in TOLERANCES_BY:  # bundles of older versions have no key
        raise ValueError(f"expected 'measured', 'quick' or null for tolerances_by, got {document['tolerances_by']!r}")
    if document["tolerances_by"] is None:
        if tolerances:
            raise ValueError(f"expected no tolerances, because tolerances_by is null, got {', '.join(tolerances)}")
        return document
    if missing := [dtype for dtype in TOLERANCES if not isinstance(tolerances.get(dtype), dict)]:
        raise ValueError(f"expected tolerances for {', '.join(TOLERANCES)}, got none for {', '.join(missing)}")
    return document


def tolerance_of(document: Mapping[str, Any], dtype: str, tensor: str) -> float:
    """Read the tolerance of a tensor for a dtype; that of an alias is that of its tensor."""
    tensor, tolerances = document["aliases"].get(tensor, tensor), document["tolerances"][dtype]
    if tensor not in tolerances:
        raise ValueError(f"expected a tolerance of {dtype} for each array, found none for {tensor}")
    value = tolerances[tensor]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 <= value <= sys.float_info.max):  # written so that NaN is refused too
        got = shortened(value) if isinstance(value, int) else repr(value)
        raise ValueError(f"expected numbers from 0 on for tolerances, got {got} for {tensor}")
    return math.inf if value is None else float(value)
