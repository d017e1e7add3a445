"""Mistakes in relative positions: NEZHA's table, and BERT's learned distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.masks import as_constant
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import collect, position_context, position_scores, relative_position_table
from nezha_np.oracle.mistakes.embeddings import past_of, positions_from
from nezha_np.oracle.mistakes.mistake import BERT, ENOUGH, NEZHA, Evidence, Mistake, Ways, first, nothing
from nezha_np.oracle.mistakes.sinusoids import frequencies, halves, in_turn
from nezha_np.oracle.replay import At, Change, Changes, Step


def distances(queries: int, keys: int, past: int) -> np.ndarray:
    """Key − query, (Q, S), the first query being at position `past`."""
    return np.arange(keys)[None, :] - np.arange(queries)[:, None] - past


def by_vectors(vector_of: Callable[[Any, Any], Any]) -> Changes:
    """Take other vectors: `vector_of` distance, key − query, and the table."""

    def vectors(table: Any, queries: int, keys: int, past: int = 0) -> Any:
        return vector_of(distances(queries, keys, past), table)  # (Q, S, D)

    def scores(step: Step, q: Any, table: Any, *, keys: int, past: int = 0) -> Any:
        return np.einsum("bnqd,qsd->bnqs", q, vectors(table, q.shape[2], keys, past))

    def context(step: Step, probs: Any, table: Any, *, past: int = 0) -> Any:
        return np.einsum("bnqs,qsd->bnqd", probs, vectors(table, probs.shape[2], probs.shape[3], past))

    return {position_scores: scores, position_context: context}


def by_rows(row_of: Callable[[Any, int], Any]) -> Changes:
    """Take another row of the table: `row_of` distance, key − query, and K."""
    return by_vectors(lambda distance, table: table[row_of(distance, table.shape[0] // 2)])


def clipped(distance: Any, reach: int) -> Any:
    """The right row."""
    return np.clip(distance, -reach, reach) + reach


def within_reach(step: Step, *arguments: Any, **options: Any) -> Any:
    """The position term without the rows of −K and K, where what is beyond them goes too."""
    return step.right(arguments[0], np.pad(arguments[1][1:-1], ((1, 1), (0, 0))), **options)


def with_table(make: Callable[[Any, int, int], Any]) -> Changes:
    """Another table, made from the configuration, K and D."""
    return {
        as_constant: At(
            "relative_positions", lambda step, table: make(step.config, table.shape[0] // 2, table.shape[1])
        )
    }


def with_angles(
    make: Callable[..., np.ndarray], frequency: Callable[[int], Any] = frequencies, **options: Any
) -> Changes:
    """Another arrangement of sines and cosines, or other frequencies."""
    return with_table(lambda config, K, D: make(np.arange(2 * K + 1)[:, None] * frequency(D), **options))


def of_base(base: float) -> Callable[[int], Any]:
    """The frequencies of another base than 10000."""
    return lambda size: frequencies(size, base)


def with_reach(reach: Callable[[Any], int]) -> Changes:
    """The table of another K."""
    return with_table(
        lambda config, K, D: relative_position_table(np.zeros(1), head_size=D, max_relative_position=reach(config))
    )


def their_table(evidence: Evidence) -> np.ndarray | None:
    """Return their table: itself, or fitted to the position terms by least squares, NaN in rows of no distance."""
    if evidence.step.name == "relative_positions":
        return None if float32_table(evidence) else evidence.theirs
    if evidence.layer is position_scores:
        return table_of_scores(evidence)
    if evidence.layer is position_context:
        probs, right = evidence.arguments
        buckets = collect(probs, rows=len(right), past=evidence.options.get("past", 0))
        return least_squares(buckets.reshape(-1, len(right)), evidence.theirs.reshape(-1, right.shape[1]))
    return None


def of_table(evidence: Evidence, table: np.ndarray) -> Changes:
    """Another table where it is made, or in both position terms."""
    if evidence.layer is as_constant:
        return {as_constant: At(evidence.step.name, lambda step, right: table)}
    change: Change = lambda step, x, right, **options: step.right(x, table, **options)  # noqa: E731
    return {position_scores: change, position_context: change}


def makes_theirs(evidence: Evidence, table: np.ndarray) -> bool:
    """Whether a table makes their numbers."""
    x = evidence.arguments[0]
    made = table if evidence.layer is as_constant else evidence.step.right(x, table, **evidence.options)
    return evidence.is_explained_by(made)


def other_rows(evidence: Evidence) -> Ways:
    """Recognise a table that has the right rows in other places."""
    table = their_table(evidence)
    if table is None:
        return {}
    right = evidence.right if evidence.layer is as_constant else evidence.arguments[1]
    count = len(right)
    table = np.where(np.isnan(table), right, table)
    order = np.array([np.abs(right - row).max(axis=-1).argmin() for row in table])
    if (order == np.arange(count)).all() or not makes_theirs(evidence, right[order]):
        return {}
    by_one = (order - np.arange(count)) % count
    if (order == np.arange(count)[::-1]).all():
        way = "rows from the last to the first"
    elif (by_one == by_one[0]).all():
        way = f"rows from {order[0]} on, and the first after the last"
    else:
        way = f"rows in another order, the first {', '.join(map(str, order[:5]))} …"
    return {way: of_table(evidence, right[order])}


ARRANGEMENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": in_turn,
    ", cosine first": lambda angle: in_turn(angle, cosine_first=True),
    ", sines, then cosines": halves,
    ", cosines, then sines": lambda angle: halves(angle, cosine_first=True),
}


def other_waves(evidence: Evidence) -> Ways:
    """Recognise a table of sines and cosines of other angles: of row · base^(−2i/D), or of any multiple of the row."""
    table = their_table(evidence)
    if table is None or len(table) < 3:
        return {}
    for arrangement, make in ARRANGEMENTS.items():
        step = angles_by_row(table, make)
        # Angles of sine and cosine in the wrong order run backwards, and those of no sine and cosine nowhere.
        if step is None or not (step[0] > 0.0 and np.isfinite(step).all()):
            continue
        for base in bases(step):
            waves = make(np.arange(len(table))[:, None] * base ** (-np.arange(len(step)) / len(step)))
            if makes_theirs(evidence, waves):
                return {f"base {base:g}{arrangement}": of_table(evidence, waves)}
        waves = make(np.arange(len(table))[:, None] * step)
        if makes_theirs(evidence, waves):
            first_ones = ", ".join(f"{frequency:.3g}" for frequency in step[:4])
            return {f"row · {first_ones}{' …' if len(step) > 4 else ''}{arrangement}": of_table(evidence, waves)}
    return {}


def angles_by_row(table: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """Return by how much the angle of each pair grows from row to row; None where they are no sines and cosines."""
    size = table.shape[1]
    # An arrangement of the angles 0 says which columns are sines.
    sines = np.flatnonzero(make(np.zeros(size // 2)) == 0.0)
    cosines = np.flatnonzero(make(np.zeros(size // 2)) == 1.0)
    sine, cosine = table[:, sines], table[:, cosines]
    if size % 2 or not np.abs(np.nanmedian(sine * sine + cosine * cosine, axis=0) - 1.0).max() < 0.05:
        return None
    turned = np.diff(np.arctan2(sine, cosine), axis=0)
    turned = turned[~np.isnan(turned[:, 0])]
    return np.median((turned + np.pi) % (2.0 * np.pi) - np.pi, axis=0) if len(turned) else None


def bases(step: np.ndarray) -> list[float]:
    """Estimate the base of base^(−2i/D), and round it to 1, 2 and 3 digits; [] where the angles have none."""
    place = np.arange(len(step)) / len(step)
    known = (step > 1e-9) & (place > 0)
    if not known.any() or abs(step[0] - 1.0) > 1e-2:
        return []
    # What rounding does to a small angle is large beside it: such an angle weighs less.
    weight = step[known] ** 2
    exponent = -(weight * np.log(step[known]) * place[known]).sum() / (weight * place[known] ** 2).sum()
    base = np.exp(np.clip(exponent, -100.0, 100.0))
    return [float(f"{base:.{digits}e}") for digits in range(3)]


def fitted_table(evidence: Evidence) -> Ways:
    """Recognise a table of other numbers, where they are no rows of the right one, and no sines and cosines."""
    table = their_table(evidence)
    if table is None or other_rows(evidence) or other_waves(evidence):
        return {}
    right = evidence.right if evidence.layer is as_constant else evidence.arguments[1]
    return {"": of_table(evidence, np.where(np.isnan(table), right, table))}


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Solve x · table = y, where there are enough equations."""
    table, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    table[~x.any(axis=0)] = np.nan
    return table if len(np.unique(x, axis=0)) >= rank + ENOUGH else None


def table_of_scores(evidence: Evidence) -> np.ndarray | None:
    """Fit each row of the table to the scores at its distance."""
    q, right = evidence.arguments
    distance = distances(q.shape[2], evidence.options["keys"], evidence.options.get("past", 0))
    row, table, surplus = clipped(distance, len(right) // 2), np.full_like(right, np.nan), 0
    for index in np.unique(row):
        query, key = np.nonzero(row == index)
        asked = np.moveaxis(q[:, :, query], 3, 0).reshape(q.shape[3], -1).T  # (equations, D)
        answered = evidence.theirs[:, :, query, key].reshape(-1)
        table[index] = np.linalg.lstsq(asked, answered, rcond=None)[0]
        surplus += max(0, len(np.unique(asked, axis=0)) - q.shape[3])
    return table if surplus >= ENOUGH else None


def float32_table(evidence: Evidence) -> Ways:
    """Recognise a table whose angles were computed in float32: they are rounded, the larger the more."""
    if evidence.step.name != "relative_positions":
        return {}
    angle = np.arange(len(evidence.right))[:, None]
    if (np.abs(evidence.theirs - evidence.right) > 2.0**-22 * (1.0 + angle)).any():
        return {}
    return evidence.instead(evidence.theirs)


def twice(step: Step, *arguments: Any, **options: Any) -> Any:
    """The result times 2."""
    return 2.0 * step.right(*arguments, **options)


def added_twice(endings: str | tuple[str, ...]) -> Changes:
    """The second summand times 2."""
    return {add: At(endings, lambda step, x, y: step.right(x, 2.0 * y))}


def term_of_keys(evidence: Evidence) -> Ways:
    """Recognise k · t in place of q · t: the key that is scored, by its distance from the query."""
    if evidence.layer is not position_scores:
        return {}
    scope = evidence.step.name.rpartition(".")[0]
    k = evidence.others.get(f"{scope}.all_k", evidence.others.get(f"{scope}.k"))
    q, table = evidence.arguments
    keys, past = evidence.options["keys"], evidence.options.get("past", 0)
    if k is None or k.shape[2] != keys:
        return {}
    distance = distances(q.shape[2], keys, past)
    return evidence.instead(np.einsum("bnsd,qsd->bnqs", k, table[clipped(distance, len(table) // 2)]))


def flipped_distances(step: Step, x: Any, weight: Any, **options: Any) -> Any:
    """Distances counted from key to query."""
    return step.right(x, weight[::-1], **options)


def counted_from(position: Callable[[int], int]) -> Changes:
    """The first query at another position than P, the number of tokens in the cache."""

    def elsewhere(step: Step, x: Any, table: Any, *, past: int = 0, **options: Any) -> Any:
        return step.right(x, table, past=position(cached(past)), **options)

    return {
        **dict.fromkeys((position_scores, position_context, query_distance_scores, key_distance_scores), elsewhere),
        **positions_from(lambda step, ids: ids + position(cached(past_of(step))) - past_of(step)),
    }


def cached(past: int) -> int:
    """A number of tokens in a cache."""
    if past == 0:
        raise ValueError("there is no cache")
    return past


def next_distance(step: Step, x: Any, weight: Any, **options: Any) -> Any:
    """The row of the next distance."""
    return step.right(x, np.roll(weight, -1, axis=0), **options)


def of_both(change: Change) -> Changes:
    """Change both terms of BERT's learned distances."""
    return {query_distance_scores: change, key_distance_scores: change}


def always(reach: int) -> Callable[[Any], int]:
    """The same K for every configuration."""
    return lambda config: reach


def positive(number: int) -> int:
    """A divisor."""
    if number < 1:
        raise ValueError("the heads are too small")
    return number


REACHES: dict[str, Callable[[Any], int]] = {
    **{f"K = {reach}": always(reach) for reach in (64, 128, 127, 16, 32, 8, 256, 512)},
    "K = max_position_embeddings": lambda config: config.max_position_embeddings,
    "K = max_position_embeddings − 1": lambda config: config.max_position_embeddings - 1,
    "K + 1": lambda config: config.max_relative_position + 1,
    "K − 1": lambda config: max(1, config.max_relative_position - 1),
    "2K": lambda config: 2 * config.max_relative_position,
}

POSITIONS = (
    Mistake(
        "position term missing in keys",
        "the scores are q · k alone; NEZHA adds the position term, q · t",
        {
            "left out": {position_scores: nothing},
            "computed, not added": {add: At(".scores", first)},
        },
        NEZHA,
    ),
    Mistake(
        "position term missing in values",
        "the context is made of the values alone; NEZHA adds the relative positions to the values too",
        {
            "left out": {position_context: nothing},
            "computed, not added": {add: At("attention.self.context", first)},
        },
        NEZHA,
    ),
    Mistake(
        "position terms missing",
        "no relative position enters attention; NEZHA adds them to keys and to values",
        {
            "left out": {
                position_scores: nothing,
                position_context: nothing,
            },
            "computed, not added": {add: At((".scores", "attention.self.context"), first)},
        },
        NEZHA,
    ),
    Mistake(
        "position term doubled",
        "the position term counts twice in the scores or in the context; right is once",
        {
            "in keys": {position_scores: twice},
            "in values": {position_context: twice},
            "in both": {position_scores: twice, position_context: twice},
            "added twice to the scores": added_twice(".scores"),
            "added twice to the context": added_twice("attention.self.context"),
            "added twice to both": added_twice((".scores", "attention.self.context")),
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "position term of the keys",
        "the position term of the scores is made of the keys, k · t; right is that of the queries, q · t",
        {},
        NEZHA,
        term_of_keys,
    ),
    Mistake(
        "relative distance reversed",
        "the distance is taken as query − key; right is key − query",
        {"": by_rows(lambda distance, K: clipped(-distance, K))},
        NEZHA,
    ),
    Mistake(
        "relative distance without its sign",
        "keys before and after the query look alike; right is the row clip(key − query, −K, K) + K",
        {
            "|distance| + K": by_rows(lambda distance, K: clipped(np.abs(distance), K)),
            "|distance|": by_rows(lambda distance, K: np.minimum(np.abs(distance), K)),
        },
        NEZHA,
    ),
    Mistake(
        "cached queries at another position",
        "the first query of a call is taken to stand at 0, or beside its place; right is P, after the P tokens of the "
        "cache",
        {
            "from 0": counted_from(lambda past: 0),
            "from P − 1": counted_from(lambda past: past - 1),
            "from P + 1": counted_from(lambda past: past + 1),
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "clip off by one",
        "distances are clipped one too early; right is to clip them at −K and K",
        {
            "at K − 1": by_rows(lambda distance, K: np.clip(distance, 1 - K, K - 1) + K),
            "at K − 1 to the right": by_rows(lambda distance, K: np.clip(distance, -K, K - 1) + K),
            "at K − 1 to the left": by_rows(lambda distance, K: np.clip(distance, 1 - K, K) + K),
            "no term from K on": {
                position_scores: within_reach,
                position_context: within_reach,
            },
        },
        NEZHA,
    ),
    Mistake(
        "row of the table off",
        "a distance gets another row of the table than its own; right is clip(key − query, −K, K) + K",
        {
            "by −1": by_rows(lambda distance, K: np.maximum(clipped(distance, K) - 1, 0)),
            "by 1": by_rows(lambda distance, K: np.minimum(clipped(distance, K) + 1, 2 * K)),
            "by −1, the first row's being the last": by_rows(
                lambda distance, K: (clipped(distance, K) - 1) % (2 * K + 1)
            ),
            "not clipped, but modulo 2K + 1": by_rows(lambda distance, K: (distance + K) % (2 * K + 1)),
            "K not added": by_rows(lambda distance, K: np.clip(distance, -K, K)),
            "negative ones cut off": by_rows(lambda distance, K: np.clip(distance, 0, 2 * K)),
        },
        NEZHA,
        other_rows,
    ),
    Mistake(
        "K from another config",
        "the table is that of another max_relative_position",
        {name: with_reach(reach) for name, reach in REACHES.items()},
        NEZHA,
    ),
    Mistake(
        "sine and cosine halves concatenated",
        "the table has all sines and then all cosines, or each cosine before its sine; right are sine and cosine in "
        "turn, the sine first",
        {
            "sines, then cosines": with_angles(halves),
            "cosines, then sines": with_angles(halves, cosine_first=True),
            "in turn, cosine first": with_angles(in_turn, cosine_first=True),
        },
        NEZHA,
    ),
    Mistake(
        "other wavelengths in the table",
        "the table has sines and cosines of other angles; right are row / 10000^(2i/D), with i from 0 to D/2 − 1 and "
        "rows from 0 to 2K",
        {
            **{
                f"base {name}": with_angles(in_turn, of_base(base))
                for name, base in (("1000", 1e3), ("1e5", 1e5), ("1e6", 1e6))
            },
            "exponent 4i/D": with_angles(in_turn, lambda size: 10000.0 ** (-2.0 * np.arange(0, size, 2) / size)),
            "exponent i/D": with_angles(in_turn, lambda size: 10000.0 ** (-np.arange(size // 2) / size)),
            "exponent i/(D/2 − 1)": with_angles(
                in_turn, lambda size: 10000.0 ** (-np.arange(size // 2) / positive(size // 2 - 1))
            ),
            "rows from 1": with_table(lambda config, K, D: in_turn(np.arange(1, 2 * K + 2)[:, None] * frequencies(D))),
        },
        NEZHA,
        other_waves,
    ),
    Mistake(
        "angles of the distance itself",
        "sine and cosine are taken of key − query, as in the paper's formula; right is what the checkpoints were "
        "trained with, the authors' code: sine and cosine of clip(key − query, −K, K) + K",
        {
            "clipped": with_table(lambda config, K, D: in_turn(np.arange(-K, K + 1)[:, None] * frequencies(D))),
            "not clipped": by_vectors(
                lambda distance, table: in_turn(distance[:, :, None] * frequencies(table.shape[1]))
            ),
        },
        NEZHA,
    ),
    Mistake(
        "table computed in float32",
        "the table's angles are computed in float32, as in transformers, and are 1e-5 away; NEZHA's authors compute "
        "them in float64, and round the table",
        {},
        NEZHA,
        float32_table,
    ),
    Mistake(
        "another table, trained instead of fixed",
        "the relative positions come from another table, with rows that are not NEZHA's, and no sines and cosines: a "
        "trained one, it may be; right is the fixed table, which is in no checkpoint",
        {},
        NEZHA,
        fitted_table,
    ),
    Mistake(
        "learned distance reversed",
        "the row of distance_embedding is taken by key − query; right is query − key",
        {
            "": of_both(flipped_distances),
            "for the queries": {query_distance_scores: flipped_distances},
            "for the keys": {key_distance_scores: flipped_distances},
        },
        BERT,
    ),
    Mistake(
        "learned distance off by one",
        "the row of distance_embedding is the next one; right is the row max_position_embeddings − 1 for distance 0",
        {"": of_both(next_distance)},
        BERT,
    ),
    Mistake(
        "learned distances missing",
        "the scores have no term for the distance, or not the keys' one; relative_key has the queries', "
        "relative_key_query both",
        {
            "both": of_both(nothing),
            "the keys'": {key_distance_scores: nothing},
            "the queries'": {query_distance_scores: nothing},
            "computed, not added": {add: At(".scores", first)},
        },
        BERT,
    ),
)
