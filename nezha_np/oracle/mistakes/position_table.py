"""Mistakes in NEZHA's table of relative positions: its rows, its sines and cosines, other numbers altogether."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.masks import as_constant
from nezha_np.layers.relative_position import relative_position_table
from nezha_np.oracle.mistakes.distances import by_rows, by_vectors, clipped
from nezha_np.oracle.mistakes.mistake import NEZHA, Evidence, Mistake, Ways, mistake
from nezha_np.oracle.mistakes.narrowing import HALF, narrow
from nezha_np.oracle.mistakes.sinusoids import frequencies, halves, interleaved
from nezha_np.oracle.mistakes.their_table import (
    ARRANGEMENTS,
    angles_by_row,
    bases,
    is_float32_table,
    of_table,
    right_table,
    table_explains,
    their_table,
)
from nezha_np.oracle.replay import At, Changes

POSITION_TABLE: list[Mistake] = []

# ---------------------------------------------------------------------------------------------------------------- rows

row_off = mistake(
    POSITION_TABLE,
    "row of the table off",
    does="a distance gets another row of the table than its own",
    right="clip(key − query, −K, K) + K",
    families=NEZHA,
)
row_off.add_way("by −1", by_rows(lambda distance, K: np.maximum(clipped(distance, K) - 1, 0)))
row_off.add_way("by 1", by_rows(lambda distance, K: np.minimum(clipped(distance, K) + 1, 2 * K)))
row_off.add_way(
    "by −1, the first row's being the last", by_rows(lambda distance, K: (clipped(distance, K) - 1) % (2 * K + 1))
)
row_off.add_way("not clipped, but modulo 2K + 1", by_rows(lambda distance, K: (distance + K) % (2 * K + 1)))
row_off.add_way("K not added", by_rows(lambda distance, K: np.clip(distance, -K, K)))
row_off.add_way("negative ones cut off", by_rows(lambda distance, K: np.clip(distance, 0, 2 * K)))


@row_off.recogniser
def other_rows(evidence: Evidence) -> Ways:
    """Recognise a table that has the right rows in other places."""
    table = their_table(evidence)
    if table is None:
        return {}
    right = right_table(evidence)
    count = len(right)
    table = np.where(np.isnan(table), right, table)
    order = np.array([np.abs(right - row).max(axis=-1).argmin() for row in table])
    if (order == np.arange(count)).all() or not table_explains(evidence, right[order]):
        return {}
    by_one = (order - np.arange(count)) % count
    if (order == np.arange(count)[::-1]).all():
        way = "rows from the last to the first"
    elif (by_one == by_one[0]).all():
        way = f"rows from {order[0]} on, and the first after the last"
    else:
        way = f"rows in another order, the first {', '.join(map(str, order[:5]))} …"
    return {way: of_table(evidence, right[order])}


def with_table(make: Callable[[Any, int, int], Any]) -> Changes:
    """Another table, made from the configuration, K and D."""
    return {
        as_constant: At(
            "relative_positions", lambda step, table: make(step.config, table.shape[0] // 2, table.shape[1])
        )
    }


def with_table_by(function: Callable[[Any], Any]) -> Changes:
    """A function of the right table."""
    return {as_constant: At("relative_positions", lambda step, table: function(table))}


def narrowed_table(dtype: str) -> Callable[[Any], Any]:
    """Rounding to a dtype."""
    return lambda table: narrow(table, dtype)


another_reach = mistake(
    POSITION_TABLE,
    "K from another config",
    does="the table is that of another max_relative_position",
    right="the configuration's",
    families=NEZHA,
)


def with_reach(reach: Callable[[Any], int]) -> Changes:
    """The table of another K."""
    return with_table(
        lambda config, K, D: relative_position_table(np.zeros(1), head_size=D, max_relative_position=reach(config))
    )


def always(reach: int) -> Callable[[Any], int]:
    """The same K for every configuration."""
    return lambda config: reach


for reach in (64, 128, 127, 16, 32, 8, 256, 512):
    another_reach.add_way(f"K = {reach}", with_reach(always(reach)))
another_reach.add_way("K = max_position_embeddings", with_reach(lambda config: int(config.max_position_embeddings)))
another_reach.add_way(
    "K = max_position_embeddings − 1", with_reach(lambda config: int(config.max_position_embeddings) - 1)
)
another_reach.add_way("K + 1", with_reach(lambda config: int(config.max_relative_position) + 1))
another_reach.add_way("K − 1", with_reach(lambda config: max(1, config.max_relative_position - 1)))
another_reach.add_way("2K", with_reach(lambda config: 2 * int(config.max_relative_position)))

# --------------------------------------------------------------------------------------------------- sines and cosines

concatenated = mistake(
    POSITION_TABLE,
    "sine and cosine halves concatenated",
    does="the table has all sines and then all cosines, or each cosine before its sine",
    right="sine and cosine in turn, the sine first",
    families=NEZHA,
)


def with_angles(
    arrange: Callable[..., np.ndarray], frequency: Callable[[int], Any] = frequencies, **options: Any
) -> Changes:
    """Another arrangement of sines and cosines, or other frequencies."""
    return with_table(lambda config, K, D: arrange(np.arange(2 * K + 1)[:, None] * frequency(D), **options))


concatenated.add_way("sines, then cosines", with_angles(halves))
concatenated.add_way("cosines, then sines", with_angles(halves, cosine_first=True))
concatenated.add_way("in turn, cosine first", with_angles(interleaved, cosine_first=True))

other_wavelengths = mistake(
    POSITION_TABLE,
    "other wavelengths in the table",
    does="the table has sines and cosines of other angles",
    right="row / 10000^(2i/D), with i from 0 to D/2 − 1 and rows from 0 to 2K",
    families=NEZHA,
)


def of_base(base: float) -> Callable[[int], Any]:
    """The frequencies of another base than 10000."""
    return lambda size: frequencies(size, base)


def check_divisor(number: int) -> int:
    """Check that a number can be divided by."""
    if number < 1:
        raise ValueError("the heads are too small")
    return number


for name, number in (("1000", 1e3), ("1e5", 1e5), ("1e6", 1e6)):
    other_wavelengths.add_way(f"base {name}", with_angles(interleaved, of_base(number)))
other_wavelengths.add_way(
    "exponent 4i/D", with_angles(interleaved, lambda size: 10000.0 ** (-2.0 * np.arange(0, size, 2) / size))
)
other_wavelengths.add_way(
    "exponent i/D", with_angles(interleaved, lambda size: 10000.0 ** (-np.arange(size // 2) / size))
)
other_wavelengths.add_way(
    "exponent i/(D/2 − 1)",
    with_angles(interleaved, lambda size: 10000.0 ** (-np.arange(size // 2) / check_divisor(size // 2 - 1))),
)
other_wavelengths.add_way(
    "rows from 1",
    with_table(lambda config, K, D: interleaved(np.arange(1, 2 * K + 2)[:, None] * frequencies(D))),
)


def of_hidden_size(config: Any, K: int, D: int) -> Any:
    """Angles whose exponents are divided by H in place of D."""
    return np.arange(2 * K + 1)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / config.hidden_size)


def by_feature(factor: float) -> Callable[[int], Any]:
    """An exponent for each feature: factor · j/D for feature j, so that sine and cosine have no angle in common."""
    return lambda size: 10000.0 ** (-factor * np.arange(size) / size)


def of_each_feature(angle: np.ndarray) -> np.ndarray:
    """The sine of the angles of even features, the cosine of those of odd ones."""
    of_each: np.ndarray = np.where(np.arange(angle.shape[-1]) % 2 == 0, np.sin(angle), np.cos(angle))
    return of_each


other_wavelengths.add_way("exponent j/D for each feature j", with_angles(of_each_feature, by_feature(1.0)))
other_wavelengths.add_way("exponent 2j/D for each feature j", with_angles(of_each_feature, by_feature(2.0)))
other_wavelengths.add_way("sines alone", with_angles(lambda angle: np.repeat(np.sin(angle), 2, axis=-1)))
other_wavelengths.add_way("cosines alone", with_angles(lambda angle: np.repeat(np.cos(angle), 2, axis=-1)))
other_wavelengths.add_way(
    "sines, then sines", with_angles(lambda angle: np.concatenate([np.sin(angle), np.sin(angle)], axis=-1))
)
other_wavelengths.add_way("exponent 2i/H", with_table(lambda config, K, D: interleaved(of_hidden_size(config, K, D))))
other_wavelengths.add_way(
    "a whole turn shorter, 2π in the angle",
    with_angles(interleaved, lambda size: 2.0 * np.pi * frequencies(size)),
)

left_at_zero = mistake(
    POSITION_TABLE,
    "table left at 0",
    does="the table is never made: it has zeros, or ones",
    right="the fixed table, which is in no checkpoint",
    families=NEZHA,
)
left_at_zero.add_way("", with_table_by(np.zeros_like))
left_at_zero.add_way("ones", with_table_by(np.ones_like))

narrow_table = mistake(
    POSITION_TABLE,
    "table in a narrower dtype",
    does="the table, its angles or their frequencies are rounded to a narrower dtype",
    right="to compute them in float64, and to round the table to the port's dtype",
    families=NEZHA,
)


def angles_in(dtype: str, *, of_frequencies: bool) -> Changes:
    """Angles rounded to a dtype, and the frequencies that they are made of too."""

    def make(config: Any, K: int, D: int) -> np.ndarray:
        frequency = narrow(frequencies(D), dtype) if of_frequencies else frequencies(D)
        return interleaved(narrow(np.arange(2.0 * K + 1)[:, None] * frequency, dtype))

    return with_table(make)


def frequencies_in(dtype: str) -> Changes:
    """Frequencies in a dtype, and the rest exact."""
    return with_angles(interleaved, lambda size: narrow(frequencies(size), dtype))


for dtype in HALF:
    narrow_table.add_way(f"rounded to {dtype}", with_table_by(narrowed_table(dtype)))
    narrow_table.add_way(f"angles in {dtype}", angles_in(dtype, of_frequencies=False))
    narrow_table.add_way(f"angles and frequencies in {dtype}", angles_in(dtype, of_frequencies=True))
    narrow_table.add_way(f"frequencies in {dtype}", frequencies_in(dtype))


@other_wavelengths.recogniser
def other_waves(evidence: Evidence) -> Ways:
    """Recognise a table of sines and cosines of other angles: of row · base^(−2i/D), or of any multiple of the row."""
    table = their_table(evidence)
    if table is None or len(table) < 3:
        return {}
    for arrangement, arrange in ARRANGEMENTS.items():
        step = angles_by_row(table, arrange)
        # Angles of sine and cosine in the wrong order run backwards, and those of no sine and cosine nowhere.
        if step is None or not (step[0] > 0.0 and np.isfinite(step).all()):
            continue
        for base in bases(step):
            waves = arrange(np.arange(len(table))[:, None] * base ** (-np.arange(len(step)) / len(step)))
            if table_explains(evidence, waves):
                return {f"base {base:g}{arrangement}": of_table(evidence, waves)}
        waves = arrange(np.arange(len(table))[:, None] * step)
        if table_explains(evidence, waves):
            first_ones = ", ".join(f"{frequency:.3g}" for frequency in step[:4])
            return {f"row · {first_ones}{' …' if len(step) > 4 else ''}{arrangement}": of_table(evidence, waves)}
    return {}


of_the_distance = mistake(
    POSITION_TABLE,
    "angles of the distance itself",
    does="sine and cosine are taken of key − query, as in the paper's formula",
    right="what the checkpoints were trained with, the authors' code: sine and cosine of clip(key − query, −K, K) + K",
    families=NEZHA,
)
of_the_distance.add_way(
    "clipped", with_table(lambda config, K, D: interleaved(np.arange(-K, K + 1)[:, None] * frequencies(D)))
)
of_the_distance.add_way(
    "not clipped",
    by_vectors(lambda distance, table: interleaved(distance[:, :, None] * frequencies(table.shape[1]))),
)

in_float32 = mistake(
    POSITION_TABLE,
    "table computed in float32",
    does="the table's angles are computed in float32, as in transformers, and are 1e-5 away",
    right="to compute them in float64, as NEZHA's authors do, and to round the table",
    families=NEZHA,
)


@in_float32.recogniser
def float32_table(evidence: Evidence) -> Ways:
    """Recognise a table whose angles were computed in float32."""
    if evidence.step.name != "relative_positions" or not is_float32_table(evidence):
        return {}
    return evidence.replace_result(evidence.theirs)


# ------------------------------------------------------------------------------------------------------- other numbers

trained_table = mistake(
    POSITION_TABLE,
    "another table, trained instead of fixed",
    does="the relative positions come from another table, whose rows are neither NEZHA's nor sines and cosines: "
    "perhaps a trained one",
    right="the fixed table, which is in no checkpoint",
    families=NEZHA,
    fits_any_numbers=True,
)


def is_of_other_numbers(evidence: Evidence, table: np.ndarray) -> bool:
    """Whether a table is neither close to the right one nor made of waves: those have a reason of their own."""
    known = ~np.isnan(table)
    right = right_table(evidence)
    if not (np.abs(table - right)[known] > 0.1 * np.abs(right).max()).mean() > 0.5:
        return False
    middle, around = table[1:-1], table[2:] + table[:-2]  # sin and cos of p f: t(p + 1) + t(p − 1) = 2 cos(f) t(p)
    whole = ~np.isnan(middle + around).any(axis=1)
    middle, around = middle[whole], around[whole]
    if len(middle) < 3:
        return True
    with np.errstate(all="ignore"):
        turn = (middle * around).sum(axis=0) / (middle * middle).sum(axis=0)
        left = np.sqrt(((around - turn * middle) ** 2).mean(axis=0) / (around * around).mean(axis=0))
    return bool(np.nanmedian(left) > 0.1)


@trained_table.recogniser
def fitted_table(evidence: Evidence) -> Ways:
    """Recognise a table of other numbers, where they are no rows of the right one, and no sines and cosines."""
    table = their_table(evidence)
    if table is None or other_rows(evidence) or other_waves(evidence) or not is_of_other_numbers(evidence, table):
        return {}
    return {"": of_table(evidence, np.where(np.isnan(table), right_table(evidence), table))}
