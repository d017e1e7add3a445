"""What the kernels know of families: which functions of attention they compute, and in what way.

A family says by functions how it scores keys and what its context is made of (`nezha_np.families.family.Family`). A
kernel that fuses attention cannot call them, it stands for them: so it must know both, and it knows them by identity.
Every other function, of a family that was registered later for example, is left to the definition. What stands beside
the heads is called by the kernels as by the definition, and `Family.texts_apart` is what allows a batch to be divided.
Nothing else of a family matters to a kernel: tensors come through the view of the weights, the rest from the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nezha_np.arrays import Array
from nezha_np.families.bert import bert_scores
from nezha_np.families.family import family_of
from nezha_np.families.nezha import nezha_context, nezha_scores
from nezha_np.families.shared import plain_context, plain_scores
from nezha_np.mechanism import View


class AddedRows(NamedTuple):
    """Rows by distance, key − query from −K to K, that attention adds to what it computes by content.

    Attributes
    ----------
    to_keys : (2K + 1, D) array or None
        score = q · (k + row).
    to_values : (2K + 1, D) array or None
        context = Σ prob · (v + row).
    """

    to_keys: Array | None
    to_values: Array | None


def _no_rows(w: View, table: Array | None, cross: bool) -> tuple[Array | None]:
    return (None,)


def _table_rows(w: View, table: Array | None, cross: bool) -> tuple[Array] | None:
    return None if table is None else (table,)


def _bert_rows(w: View, table: Array | None, cross: bool) -> tuple[Array | None] | None:
    kind = w.config.position_embedding_type
    if cross or kind == "absolute":
        return (None,)
    if kind != "relative_key":  # relative_key_query multiplies the keys with rows too
        return None
    return (w["distance_embedding.weight"][::-1],)  # which counts from key to query


# Each function that is known -> the rows that it adds, in a tuple, or None where the kernels do not compute it.
Rows = Callable[[View, "Array | None", bool], "tuple[Array | None] | tuple[Array] | None"]
SCORES: dict[Callable[..., Array], Rows] = {
    plain_scores: _no_rows,
    bert_scores: _bert_rows,
    nezha_scores: _table_rows,
}
CONTEXTS: dict[Callable[..., Array], Rows] = {plain_context: _no_rows, nezha_context: _table_rows}


def added_rows(w: View, *, table: Array | None, cross: bool) -> AddedRows | None:
    """Find out what a family's attention adds to content, if the kernels know the functions it is made of.

    Parameters
    ----------
    w : View
        The weights of a self-attention.
    table : array or None
        The family's table of positions.
    cross : bool
        Whether the keys are an encoder's.

    Returns
    -------
    AddedRows or None
        None where the kernels do not know the family's scores or its context, or cannot add both: the definition must
        run.

    Examples
    --------
    >>> import nezha_np as nz
    >>> w = nz.load().at("encoder.layer.0.attention.self")
    >>> rows = added_rows(w, table="a table", cross=False)
    >>> rows.to_keys, rows.to_values
    ('a table', 'a table')
    """
    family = family_of(w.config)
    scores, context = SCORES.get(family.scores), CONTEXTS.get(family.context)
    keys = None if scores is None else scores(w, table, cross)
    values = None if context is None else context(w, table, cross)
    if keys is None or values is None:
        return None
    rows = AddedRows(*keys, *values)
    # Rows of values are found by the distances that the keys have rows for: without those, or with others, no kernel.
    return rows if rows.to_values is None or rows.to_keys is rows.to_values else None
