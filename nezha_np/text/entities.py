"""Tags of tokens read as entities: BIO, BIOES, BMES, BILOU and IO."""

from __future__ import annotations

from collections.abc import Sequence

SAME_PREFIX = {"B": "B", "I": "I", "E": "E", "S": "S", "M": "I", "L": "E", "U": "S"}
OUTSIDE = "O"


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Find the entities in the tags of a text: B-, I-, E- and S- before a kind, and O outside of entities.

    M- is another name of I-, as in BMES; L- and U- are those of E- and S-, as in BILOU.

    A tag without such a prefix is a kind by itself: neighbours of one kind are one entity. An I- or E- that continues
    nothing begins an entity, as in conlleval and seqeval.

    Parameters
    ----------
    tags : sequence of str
        A tag for each token.

    Returns
    -------
    list of (str, int, int)
        Of each entity its kind, its first token, and the one after its last.

    Examples
    --------
    >>> entities(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    found: list[tuple[str, int, int]] = []
    before = (OUTSIDE, "")
    for index, tag in enumerate(tags):
        prefix, kind = (SAME_PREFIX[tag[0]], tag[2:]) if tag[1:2] == "-" and tag[0] in SAME_PREFIX else ("I", tag)
        if tag == OUTSIDE:
            prefix, kind = OUTSIDE, ""
        begins = prefix in ("B", "S") or kind != before[1] or before[0] in (OUTSIDE, "E", "S")
        if prefix != OUTSIDE:
            if begins:
                found.append((kind, index, index + 1))
            else:
                found[-1] = (kind, found[-1][1], index + 1)
        before = (prefix, kind)
    return found
