"""A picture of a run: what was measured of it over its steps, as SVG, which every browser shows.

Each panel has one kind of measurement, by its name: losses, what is measured from 0 to 1, the norm of the gradients,
the learning rate, the loss scale, and a panel for anything else. All panels have one axis of steps. The scale of a
panel is logarithmic where its largest number is more than 100 times its smallest one.

Where a number is missing, that of a step that was left out for example, the line has a gap. Points that have no
neighbours are dots. Where there are more points than pixels, the lowest and the highest of each pixel are drawn.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nezha_np.checks import check_path
from nezha_np.files.atomic import write_atomically
from nezha_np.training.measurements import Metrics

Point = tuple[int, float | None]  # a step, and what was measured; None where the number was not finite
Panel = dict[str, list[Point]]  # the lines of a panel by their names

PICTURE = "metrics.svg"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5c00", "#56b4e9", "#000000")  # for colour-blind readers too
INK, GRID = "#333333", "#dddddd"  # on white, so that it is equally readable on light and dark pages
WIDTH, LEFT, RIGHT = 760, 76, 20  # pixels
HEIGHT, ABOVE, BELOW = 120, 30, 44  # of a panel, the room for its title, and that for the axis of steps
MARGIN = 6  # between the frame and the smallest and the largest number
BETWEEN = "&#160;&#160;&#160;"  # two names
TINY, HUGE = 1e-30, 1e38  # what is smaller is drawn as 0, and what is larger not at all
FEW = 40  # points up to which each has a dot
# The panels in their order, and how the names end that they show. Any other name gets a panel of its own.
KINDS = {
    "loss": ("loss",),
    "held out, from 0 to 1": ("accuracy", "f1", "exact"),
    "norm of the gradients": ("norm",),
    "learning rate": ("learning_rate",),
    "loss scale": ("loss_scale",),
}
SHARES = "held out, from 0 to 1"
NO_LINE = ("step", "epoch", "skipped")


def plot_metrics(measured: Iterable[Mapping[str, Any]]) -> str:
    """Draw what was measured of a run.

    Parameters
    ----------
    measured : iterable of mapping
        The lines of a file ``metrics.jsonl``: each has its ``step``, and numbers by their names.

    Returns
    -------
    str
        The picture, as SVG. The same measurements give the same text.

    Examples
    --------
    >>> picture = plot_metrics([{"step": 10, "loss": 8.5}, {"step": 20, "loss": 7.25}])
    >>> picture.startswith("<svg"), "8.5 at step 10, 7.25 at step 20" in picture
    (True, True)
    """
    lines = sorted(measured, key=lambda line: line["step"])
    panels = _panels(lines)
    steps = [line["step"] for line in lines]
    height = max(1, len(panels)) * (ABOVE + HEIGHT) + BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}" role="img" aria-labelledby="what">',
        f'<title id="what">{html.escape(_in_words(panels))}</title>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    if not panels:
        parts.append(_text(WIDTH / 2, ABOVE + HEIGHT / 2, "Nothing was measured yet.", "middle"))
        return "\n".join([*parts, "</svg>"]) + "\n"
    across = Axis(min(steps), max(steps), LEFT, WIDTH - RIGHT, whole=True)
    left_out = [line["step"] for line in lines if line.get("skipped")]
    for index, (title, panel) in enumerate(panels.items()):
        top = index * (ABOVE + HEIGHT) + ABOVE
        parts += _panel(title, panel, across, top, left_out)
    bottom = len(panels) * (ABOVE + HEIGHT)
    parts += [_text(across.place(tick), bottom + 16, _number(tick), "middle") for tick in across.ticks(8)]
    label = "step; at each grey line a step was left out" if left_out else "step"
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, label, "middle"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def plot_run(folder: str | Path) -> str:
    """Draw what was measured of a run so far.

    Parameters
    ----------
    folder : str or Path
        The folder of the run.

    Returns
    -------
    str
        The picture, as SVG.

    Raises
    ------
    FileNotFoundError
        If the folder is not that of a run.
    ValueError
        If a line of its measurements is damaged.

    Examples
    --------
    >>> plot_run("no_such_folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: folder: expected the folder of a run, found no metrics.jsonl in no_such_folder
    """
    path = check_path(folder, "folder")
    file = path / "metrics.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"folder: expected the folder of a run, found no {file.name} in {path}")
    return plot_metrics(Metrics.read(file))


def save_plot(folder: Path) -> None:
    """Draw what was measured of a run, into its folder.

    Parameters
    ----------
    folder : Path
        The folder of the run.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> Metrics(folder / "metrics.jsonl", 0).add({"step": 1, "loss": 2.5})
    >>> save_plot(folder)
    >>> sorted(file.name for file in folder.iterdir())
    ['metrics.jsonl', 'metrics.svg']
    """
    picture = plot_run(folder)
    write_atomically(folder, lambda new: (new / PICTURE).write_text(picture, encoding="utf-8", newline="\n"))


class Axis:
    """An axis: which numbers it shows, and where they are.

    Parameters
    ----------
    low, high : float
        The smallest and the largest number.
    start, stop : float
        Where the axis starts and ends, in pixels.
    log : bool
        Whether it is logarithmic.
    whole : bool
        Whether only whole numbers are named.

    Examples
    --------
    >>> Axis(0, 10, 0, 100).place(2.5), Axis(0, 10, 0, 100).ticks(5), Axis(0.5, 3000, 0, 100, log=True).ticks(5)
    (25.0, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 10.0, 100.0, 1000.0])
    """

    def __init__(
        self, low: float, high: float, start: float, stop: float, *, log: bool = False, whole: bool = False
    ) -> None:
        largest = max(abs(low), abs(high))
        if high - low <= 1e-9 * largest or largest < TINY:  # one number alone stands in the middle
            margin = 1.0 if whole or largest < TINY else largest / 2
            low, high, log = low - margin, high + margin, False
        self._low, self._high, self._start, self._stop, self._log, self._whole = low, high, start, stop, log, whole

    def place(self, number: float) -> float:
        """Return where a number is, in pixels."""
        low, high = (math.log10(self._low), math.log10(self._high)) if self._log else (self._low, self._high)
        part = ((math.log10(number) if self._log else number) - low) / (high - low)
        return self._start + part * (self._stop - self._start)

    def ticks(self, count: int) -> list[float]:
        """Return about `count` round numbers on the axis."""
        if self._log:
            first, last = math.ceil(math.log10(self._low)), math.floor(math.log10(self._high))
            every = max(1, -(-(last - first + 1) // count))
            return [10.0**power for power in range(first, last + 1, every)]
        rough = (self._high - self._low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        width = next(width for width in (power, 2 * power, 5 * power, 10 * power) if width >= rough * 0.999)
        width = max(width, 1.0) if self._whole else width
        first, last = math.ceil(self._low / width - 1e-9), math.floor(self._high / width + 1e-9)
        return [number * width for number in range(first, last + 1)]


def _panels(lines: Sequence[Mapping[str, Any]]) -> dict[str, Panel]:
    """Sort measurements into panels; only numbers are drawn, and only lines with one number at least."""
    found: dict[str, Panel] = {title: {} for title in KINDS}
    for name in dict.fromkeys(name for line in lines for name in line if name not in NO_LINE):
        points = [(line["step"], _finite(line[name])) for line in lines if name in line]
        if any(value is not None for _, value in points):
            title = next((title for title, ends in KINDS.items() if _ends(name, ends)), name.replace("_", " "))
            found.setdefault(title, {})[name] = points
    return {title: panel for title, panel in found.items() if panel}


def _ends(name: str, ends: Sequence[str]) -> bool:
    return any(name == end or name.endswith(f"_{end}") for end in ends)


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) <= HUGE else None  # NaN is not


def _panel(title: str, panel: Panel, across: Axis, top: float, left_out: Sequence[int]) -> list[str]:
    numbers = [value for points in panel.values() for _, value in points if value is not None]
    low, high = min(numbers), max(numbers)
    if title == SHARES and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    log = low > 0 and high > 100 * low
    up = Axis(low, high, top + HEIGHT - MARGIN, top + MARGIN, log=log)
    parts = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{html.escape(title)}</text>']
    for tick in up.ticks(4):
        y = up.place(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 6, y + 4, _number(tick), "end"))
    parts += [f'<path d="M{across.place(step):.1f} {top}V{top + HEIGHT}" stroke="#999999"/>' for step in left_out]
    parts.append(f'<path d="M{LEFT} {top}V{top + HEIGHT}H{WIDTH - RIGHT}" fill="none" stroke="{INK}"/>')
    names = []
    for index, (name, points) in enumerate(panel.items()):
        colour = COLOURS[index % len(COLOURS)]
        parts += _line([(across.place(step), None if v is None else up.place(v)) for step, v in points], colour)
        names.append(f'<tspan fill="{colour}">{html.escape(name.replace("_", " "))}</tspan>')
    if len(panel) > 1 or title == SHARES:
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{top - 8}" text-anchor="end">{BETWEEN.join(names)}</text>')
    return parts


def _line(points: Sequence[tuple[float, float | None]], colour: str) -> list[str]:
    """Draw a line through points in pixels: in pieces, between those without a number."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append((x, y))
    pieces = [_thinned(piece) for piece in pieces if piece]
    few = sum(map(len, pieces)) <= FEW
    parts = []
    for piece in pieces:
        if len(piece) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in piece)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if few or len(piece) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in piece]
    return parts


def _thinned(piece: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave the lowest and the highest point of each pixel, where there are more."""
    if len(piece) <= 2 * WIDTH:
        return piece
    columns: dict[int, list[tuple[float, float]]] = {}
    for point in piece:
        columns.setdefault(int(point[0]), []).append(point)
    return [
        point
        for column in columns.values()
        for point in sorted({min(column, key=lambda one: one[1]), max(column, key=lambda one: one[1])})
    ]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _number(value: float) -> str:
    """Write a number shortly: 20,000, 0.001, 1e+09."""
    if value == 0 or 0.001 <= abs(value) < 1e7:
        return f"{value:,.10g}"
    return f"{value:.3g}"


def _in_words(panels: Mapping[str, Panel]) -> str:
    """Say what the picture shows, for readers who cannot see it: where each line begins and ends."""
    said = []
    for panel in panels.values():
        for name, points in panel.items():
            known = [(step, value) for step, value in points if value is not None]
            ends = dict.fromkeys((known[0], known[-1]))
            said.append(f"{name}: " + ", ".join(f"{value:.4g} at step {step}" for step, value in ends))
    return "; ".join(said) or "Nothing was measured yet."
