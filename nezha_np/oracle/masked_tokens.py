"""Numbers of masked tokens, which an engine may skip: nothing that is attended to reads them.

An engine that packs its texts leaves out padded rows, and what it returns for them is whatever was there. In NEZHA and
BERT no other token reads these rows; ConvBERT's convolutions do, so there they have to be right.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.description import OF_KEYS

BY_TOKEN = 3  # how many axes (B, L, H) has


def masked_tokens(bundle: Bundle) -> np.ndarray | None:
    """Return where a bundle's inputs have masked tokens, (B, L); None where there are none that may be skipped.

    Parameters
    ----------
    bundle : Bundle
        The golden pass. Of a decoder with a cache, of a mask for each query and of ConvBERT nothing may be skipped.

    Returns
    -------
    (B, L) array of bool or None
        True where a token is masked.
    """
    mask = bundle.inputs.get("attention_mask")
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or bundle.config.model_type == "convbert":
        return None
    if bundle.inputs.get("past_key_values") is not None or (mask != 0).all():
        return None
    return np.asarray(mask == 0)


def of_masked(name: str, array: np.ndarray, masked: np.ndarray) -> np.ndarray | None:
    """Return where an array has the numbers of masked tokens, of its own shape; None where it has none.

    Parameters
    ----------
    name : str
        Its name in the bundle.
    array : array
        The array.
    masked : (B, L) array of bool
        Where tokens are masked.

    Returns
    -------
    array of bool or None
        True at the numbers of masked tokens, as queries and as keys.

    Examples
    --------
    >>> of_masked("embeddings", np.zeros((1, 2, 1)), np.array([[False, True]])).ravel()
    array([False,  True])
    """
    batch, length = masked.shape
    name = name.removeprefix("outputs/").removeprefix("gradients/")
    if name.endswith("attention_mask") or "/" in name or "crossattention" in name:
        return None
    if array.ndim == 4 and array.shape[0] == batch:
        scores = name.rpartition(".")[2] in OF_KEYS or name.startswith("attentions")
        if scores and array.shape[2:] == (length, length):
            of_either = masked[:, None, :, None] | masked[:, None, None, :]
            return np.broadcast_to(of_either, array.shape)
        if not scores and array.shape[2] == length:
            return np.broadcast_to(masked[:, None, :, None], array.shape)
    if array.ndim == BY_TOKEN and array.shape[:2] == (batch, length):
        return np.broadcast_to(masked[:, :, None], array.shape)
    if array.ndim == 2 and array.shape == (batch, length) and name.endswith(("start_logits", "end_logits")):
        return masked
    return None


def without_masked(bundle: Bundle, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Put the golden numbers in the place of theirs at masked tokens.

    Parameters
    ----------
    bundle : Bundle
        The golden pass.
    arrays : mapping of str to array
        Their arrays, aligned with it.

    Returns
    -------
    dict of str to array
        The same, which differ at tokens alone that are not masked.
    """
    masked = masked_tokens(bundle)
    if masked is None:
        return dict(arrays)
    found = {}
    for name, array in arrays.items():
        where = of_masked(name, array, masked) if array.dtype.kind == "f" else None
        found[name] = array if where is None else np.where(where, bundle.arrays[name], array).astype(array.dtype)
    return found
