"""The notebooks' pictures: a Chinese font, heat maps labelled with tokens, lines, bars, and lines between tokens.

Every function draws one picture and shows it; `alt` describes the picture in plain text, for readers who cannot see it.
It is the alternative text of the picture on the site, in the pages that nbconvert makes, and in VS Code. JupyterLab 4.6
gives pictures none: there the words stand in the cell above.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.ticker import MaxNLocator
from PIL import Image

FONT = Path(__file__).parent / "fonts" / "notebooks-cjk.otf"
font_manager.fontManager.addfont(FONT)
# Latin letters come from matplotlib's own font. A character that the shipped subset lacks is looked up in the fonts of
# the reader's machine; where the notebooks are built and tested, it is an error.
INSTALLED = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Microsoft YaHei", "WenQuanYi Micro Hei")
FAMILIES = ["DejaVu Sans", font_manager.FontProperties(fname=FONT).get_name()]
if "NEZHA_NOTEBOOKS_SHIPPED_FONT_ALONE" not in os.environ:
    FAMILIES += [name for name in INSTALLED if name in font_manager.fontManager.get_font_names()]
INK, PAPER = "#333333", "white"
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]  # safe for colour-blind readers
STYLES, MARKERS = ["-", "--", "-.", ":"], "os^Dv"  # beside the colours, for readers who see none
DPI = 80  # of the page; a picture has two pixels for one of the page, and is sharp on screens that have so many

plt.rcParams.update(
    {
        "font.family": FAMILIES,
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.facecolor": PAPER,  # set, so that a picture is equally readable on light and dark pages
        "axes.unicode_minus": False,
        "axes.prop_cycle": plt.cycler(color=COLOURS),
    }
)


def show(figure: Any, alt: str) -> None:
    """Show a figure and its plain text in the notebook, as a PNG of few colours: half the size of a full-colour one."""
    from IPython.display import display

    drawn, written = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=2 * DPI)
    plt.close(figure)
    # The colours furthest from each other are kept: a median cut paints the rare end of a colour bar in another hue.
    picture = Image.open(drawn).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE)
    picture.save(written, format="png", optimize=True)
    shown = {"alt": alt, "width": picture.width // 2}
    display({"image/png": written.getvalue(), "text/plain": alt}, metadata={"image/png": shown}, raw=True)


def new(columns: int = 1, *, size: tuple[float, float], rows: int = 1, **options: Any) -> tuple[Any, Any]:
    """Make a figure and its axes; the size is in inches."""
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def heat(
    arrays: Any,
    *,
    alt: str,
    size: tuple[float, float],
    titles: Sequence[str] | str = "",
    rows: Sequence[Any] | None = None,
    columns: Sequence[Any] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    numbers: str | None = None,
    wrap: int = 4,
    shared: bool = True,
) -> None:
    """Draw one matrix, or several (a list, or an array of three axes) side by side, as heat maps.

    The colours go from blue to red, with white at 0, if there are negative numbers, and from white to blue if there
    are none. `numbers` is a format, ".2f" for example, to write each number into its cell. `rows` are the labels for
    all matrices, or one list of labels for each matrix.
    """
    several = [np.asarray(array) for array in ([arrays] if getattr(arrays, "ndim", 3) == 2 else arrays)]
    titles = [titles] if isinstance(titles, str) else list(titles)
    across = min(wrap, len(several))
    down = -(-len(several) // across)
    figure, axes = new(across, rows=down, size=size, squeeze=False)
    signed = any((array < 0).any() for array in several)
    highest = max(np.abs(array).max() for array in several)
    for index, axis in enumerate(axes.ravel()):
        if index >= len(several):
            axis.set_axis_off()
            continue
        top = highest if shared else np.abs(several[index]).max()
        limits = {"vmin": -top if signed else 0.0, "vmax": top}
        image = axis.imshow(
            several[index], cmap="RdBu_r" if signed else "Blues", aspect="auto", interpolation="nearest", **limits
        )
        axis.spines[:].set_visible(False)
        axis.set_title(titles[index] if index < len(titles) else "")
        each = rows is not None and not isinstance(rows[0], str) and isinstance(rows[0], Sequence)
        left = rows[index] if each and rows is not None else rows if index % across == 0 or not shared else None
        _label(axis.set_yticks, left, axis, "y", rows)
        _label(axis.set_xticks, columns, axis, "x", columns)
        for side, labels in ((axis.xaxis, columns), (axis.yaxis, rows)):
            if labels is None:
                side.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel if index % across == 0 else "")
        if numbers is not None:
            _write_numbers(axis, several[index], numbers, top)
        if not shared:
            figure.colorbar(image, ax=axis, shrink=0.8, pad=0.02)
    if shared:
        figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    show(figure, alt)


def _label(put: Any, labels: Sequence[Any] | None, axis: Any, side: str, wanted: Sequence[Any] | None) -> None:
    if labels is not None:
        texts = [str(label) for label in labels]
        put(range(len(texts)), texts)
        if side == "x":
            for label in axis.get_xticklabels():
                label.set_rotation(90 if len(label.get_text()) > 2 and len(texts) > 6 else 0)  # [CLS], not characters
    elif wanted is not None:  # the first picture of the row has the labels
        put([])
    axis.tick_params(axis=side, length=0 if wanted is not None else 3)


def _write_numbers(axis: Any, array: np.ndarray, numbers: str, top: float) -> None:
    for (row, column), value in np.ndenumerate(array):
        dark = abs(value) > 0.6 * top
        axis.text(
            column, row, format(value, numbers), ha="center", va="center", fontsize=8, color=PAPER if dark else INK
        )


def lines(
    x: Any,
    ys: dict[str, Any],
    *,
    alt: str,
    xlabel: str,
    ylabel: str,
    title: str = "",
    ticks: Sequence[Any] | None = None,
    marker: str = "",
    zero: bool = False,
    log: str = "",
    size: tuple[float, float] = (7.5, 3.0),
) -> None:
    """Draw a line for each entry of `ys`, named in the legend; `log` names the logarithmic axes, "y" or "xy"."""
    figure, axis = new(size=size)
    for index, (name, y) in enumerate(ys.items()):
        axis.plot(x, y, label=name, marker=marker, linestyle=STYLES[index % len(STYLES)])
    if zero:
        axis.axhline(0.0, color=INK, linewidth=0.6)
    for side in log:
        axis.set(**{f"{side}scale": "log"})
    if ticks is not None:
        axis.set_xticks(list(x), [str(tick) for tick in ticks])
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if len(ys) > 1:
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    show(figure, alt)


def panels(
    x: Any,
    groups: dict[str, dict[str, Any]],
    *,
    alt: str,
    xlabel: str,
    ylabel: str,
    size: tuple[float, float],
) -> None:
    """Draw lines over the same x in a panel for each entry of `groups`: title -> name -> y. Each has its own scale."""
    figure, axes = new(len(groups), size=size, squeeze=False)
    for axis, (title, ys) in zip(axes[0], groups.items(), strict=True):
        for index, (name, y) in enumerate(ys.items()):
            axis.plot(x, y, label=name, linestyle=STYLES[index % len(STYLES)])
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel if axis is axes[0, 0] else "")
        if len(ys) > 1:
            axis.legend(frameon=False, fontsize=8)
    show(figure, alt)


def bars(
    groups: dict[str, tuple[Sequence[str], Any]],
    *,
    alt: str,
    xlabel: str = "",
    size: tuple[float, float] | None = None,
    limit: float | None = None,
    numbers: str = ".2f",
    log: bool = False,
) -> None:
    """Draw horizontal bars, one panel for each entry of `groups`: title -> (names, values)."""
    most = max(len(names) for names, _ in groups.values())
    figure, axes = new(len(groups), size=size or (min(11.0, 0.6 + 3.6 * len(groups)), 0.9 + 0.32 * most), squeeze=False)
    for axis, (title, (names, values)) in zip(axes[0], groups.items(), strict=True):
        values = np.asarray(values, dtype=float)
        drawn = axis.barh(
            range(len(values)), values, color=[COLOURS[0] if value >= 0 else COLOURS[1] for value in values]
        )
        axis.bar_label(drawn, [format(value, numbers) for value in values], padding=3, fontsize=8)
        axis.set_yticks(range(len(values)), [str(name) for name in names])
        axis.invert_yaxis()
        axis.tick_params(axis="y", length=0)
        axis.set(title=title, xlabel=xlabel)
        if log:
            axis.set_xscale("log")
        axis.margins(x=0.25)
        if limit is not None:
            axis.set_xlim(min(0.0, values.min() * 1.3), limit)
        if (values < 0).any():
            axis.axvline(0.0, color=INK, linewidth=0.6)
    show(figure, alt)


def links(
    weights: Any,
    left: Sequence[str],
    right: Sequence[str],
    *,
    alt: str,
    size: tuple[float, float],
    titles: Sequence[str] = ("",),
) -> None:
    """Draw lines from the tokens on the left to those on the right; a larger weight (0 to 1) gives a darker line."""
    several = list(weights) if np.ndim(weights) == 3 else [weights]
    figure, axes = new(len(several), size=size, squeeze=False)
    for axis, matrix, title in zip(axes[0], several, titles, strict=True):
        for (row, column), weight in np.ndenumerate(matrix):
            axis.plot([0, 1], [row, column], color=COLOURS[0], alpha=float(np.clip(weight, 0, 1)), linewidth=2)
        for row, token in enumerate(left):
            axis.text(-0.06, row, token, ha="right", va="center")
        for row, token in enumerate(right):
            axis.text(1.06, row, token, ha="left", va="center")
        axis.set(title=title, xlim=(-0.5, 1.5), ylim=(max(len(left), len(right)) - 0.5, -0.7))
        axis.set_axis_off()
    show(figure, alt)


def points(
    xy: np.ndarray,
    names: Sequence[str],
    groups: Sequence[str],
    *,
    alt: str,
    title: str = "",
    size: tuple[float, float] = (6.5, 4.5),
) -> None:
    """Draw named points in the plane, with a colour and a shape for each group; a legend names the groups."""
    figure, axis = new(size=size)
    for number, (colour, group) in enumerate(zip(COLOURS, dict.fromkeys(groups), strict=False)):
        chosen = [index for index, each in enumerate(groups) if each == group]
        marker = MARKERS[number % len(MARKERS)]
        axis.scatter(xy[chosen, 0], xy[chosen, 1], s=14, color=colour, marker=marker, label=group)
        for index in chosen:
            axis.annotate(names[index], xy[index], xytext=(4, 2), textcoords="offset points", fontsize=11, color=colour)
    axis.set(title=title, xticks=[], yticks=[])
    axis.margins(0.1)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    show(figure, alt)
