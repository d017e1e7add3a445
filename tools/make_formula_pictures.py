"""Draw a picture for each formula of docs/how_nezha_works.md, from the shipped model where the formula is the model's.

    python tools/make_formula_pictures.py [NAME …]

needs ``pip install ".[notebooks]"``, and writes docs/_static/formulas/NAME.svg. The files have a light and a dark
style: matplotlib draws with the colours of `INK`, `PAPER` and `LINES`, which are then replaced by names of the style.
They are narrow, so that their letters can be read on a phone. No line is told from another by its colour alone.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager

import nezha_np as nz
from nezha_np.training import adamw, lamb, warmup_polynomial_decay
from nezha_np.training.optimizers.lamb import trust_ratio

ROOT = Path(__file__).parents[1]
FOLDER, FONT = ROOT / "docs" / "_static" / "formulas", ROOT / "notebooks" / "fonts" / "notebooks-cjk.otf"
INK, PAPER = "#1c2733", "#fefefe"
LINES = {
    "#0072b1": "#4db2ec",
    "#d55e01": "#ff8f3f",
    "#009e72": "#3fd0a4",
}  # light, and dark; for colour-blind readers too
ONE, TWO, THREE = LINES
ON_LIGHT = "".join(f" --line{number}: {light};" for number, light in enumerate(LINES))
ON_DARK = "".join(f" --line{number}: {dark};" for number, dark in enumerate(LINES.values()))
STYLE = f"""
  svg {{ --ink: {INK}; --paper: #ffffff;{ON_LIGHT} }}
  @media (prefers-color-scheme: dark) {{ svg {{ --ink: #e4eaf0; --paper: #0e1419;{ON_DARK} }} }}
"""
TOKENS = ["[CLS]", *"房间很干净。", "[SEP]"]
LAYER, HEAD = "encoder.layer.2.attention.self.", 3
WIDE = 4.7  # inches: 338 points, so that 10 points stay 10 on a screen of 390 pixels

font_manager.fontManager.addfont(FONT)
plt.rcParams.update(
    {
        "font.family": ["DejaVu Sans", font_manager.FontProperties(fname=FONT).get_name()],
        "svg.fonttype": "none",
        "svg.hashsalt": "nezha_np",
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": PAPER,
        "axes.unicode_minus": False,
        "legend.frameon": False,
        **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    }
)


def new(columns: int = 1, *, high: float, rows: int = 1, **options: Any) -> tuple[Any, Any]:
    """Make a figure of the usual width and its axes."""
    return plt.subplots(rows, columns, figsize=(WIDE, high), layout="constrained", **options)


def heat(
    axis: Any,
    array: np.ndarray,
    title: str,
    rows: list[str] | None = None,
    columns: list[str] | None = None,
    most: float | None = None,
) -> None:
    """Draw an array: blue below 0, red above, up to `most`."""
    most = most or np.abs(array).max()
    axis.imshow(array, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    axis.set_title(title)
    axis.set_xticks(range(len(columns or ())), columns or [], rotation=90)
    axis.set_yticks(range(len(rows or ())), rows or [])
    axis.tick_params(length=0, labelsize=8)


def arrow(axis: Any, end: Any, name: str, colour: str, style: str = "-", start: Any = (0.0, 0.0)) -> None:
    """Draw an arrow, with its name beside its tip."""
    axis.annotate(
        "", end, start, arrowprops={"arrowstyle": "->", "color": colour, "linestyle": style, "linewidth": 1.8}
    )
    axis.annotate(name, end, xytext=(5, 2), textcoords="offset points")


def trace_of(pad: int = 0) -> tuple[nz.Weights, Mapping[str, np.ndarray]]:
    """Run the shipped model on one text, with padding after it."""
    weights, tok = nz.load(dtype="float64"), nz.load_tokenizer()
    ids = np.array([[tok.token_to_id(token) for token in TOKENS] + [0] * pad])
    with nz.trace() as trace:
        nz.forward(weights, ids, attention_mask=np.array([[1] * len(TOKENS) + [0] * pad]))
    return weights, {name: np.asarray(array) for name, array in trace.items()}


# ------------------------------------------------------------------------------------------------------------ the model


def embeddings() -> Any:
    """x = LayerNorm(W + S)."""
    weights, trace = trace_of()
    types = np.broadcast_to(weights["embeddings.token_type_embeddings.weight"][0], (8, 256))
    figure, axes = new(high=5.2, rows=3)
    for axis, title, array in zip(
        axes,
        ("W: a row for each token", "S: one row for all of the first text", "x = LayerNorm(W + S)"),
        (trace["embeddings.word_embeddings"][0], types, trace["embeddings"][0]),
        strict=True,
    ):
        heat(axis, array[:, :32], f"{title} (deviation {array.std():.2f})", TOKENS)
    axes[-1].set_xlabel("32 of 256 features")
    return figure


def layer_norm() -> Any:
    """γ (x − μ) / σ + β, step by step."""
    weights, trace = trace_of()
    x = trace["embeddings.sum"][0, TOKENS.index("净")]
    centred = x - x.mean()
    scaled = centred / centred.std()
    last = weights["embeddings.LayerNorm.weight"] * scaled + weights["embeddings.LayerNorm.bias"]
    figure, axis = new(high=2.6)
    spread = np.linspace(-0.3, 0.3, 64)
    for place, values in enumerate((x, centred, scaled, last)):
        axis.plot(place + spread, values[::4], ".", color=ONE, markersize=3)
        axis.plot([place - 0.4, place + 0.4], [values.mean()] * 2, color=TWO, linewidth=2)
    axis.set_xticks(range(4), ["x", "x − μ", "(x − μ) / σ", "γ … + β"])
    axis.set_title("64 of the 256 features of 净, and the mean (line)")
    return figure


def rows_of_the_table() -> Any:
    """r = clip(j − i, −K, K) + K, and T."""
    figure, axes = new(2, high=2.5, width_ratios=(1, 1.25))
    at, reach = np.arange(8), 3
    row = np.clip(at[None] - at[:, None], -reach, reach) + reach
    axes[0].imshow(row, cmap="Blues", vmin=-2, vmax=12)
    for i in range(8):
        for j in range(8):
            axes[0].text(j, i, row[i, j], ha="center", va="center", fontsize=8, color="#000000")
    axes[0].set(title="row r for K = 3", xlabel="key j", ylabel="query i", xticks=[], yticks=[])
    r = np.arange(129)
    for feature, style, colour in ((0, "-", ONE), (14, "--", TWO), (24, ":", THREE)):
        axes[1].plot(r - 64, np.sin(r / 10000 ** (feature / 32)), style, color=colour, label=f"feature {feature}")
    axes[1].set(title="T for K = 64, D = 32", xlabel="distance", xlim=(-64, 64), ylim=(-1.1, 2.4), yticks=[-1, 0, 1])
    axes[1].legend(loc="upper right", fontsize=8)
    return figure


def scores() -> Any:
    """The content part, the position part, and their sum."""
    _, trace = trace_of()
    parts = [trace[f"{LAYER}{kind}_scores"][0, HEAD] / np.sqrt(32) for kind in ("content", "position")]
    shown = [array - array.mean(axis=-1, keepdims=True) for array in (*parts, sum(parts))]
    most = max(np.abs(array).max() for array in shown)  # one scale for all three
    figure, axes = new(3, high=2.5)
    for axis, title, array in zip(axes, ("q · k / √D", "q · t / √D", "their sum"), shown, strict=True):
        heat(axis, array, title, TOKENS if axis is axes[0] else None, TOKENS, most)
    axes[0].set_ylabel("query")
    figure.suptitle(f"head {HEAD} of the third layer, each row less its mean", fontsize=9)
    return figure


def context() -> Any:
    """Probabilities that leave padding out, and what they average."""
    _, trace = trace_of(pad=2)
    probs = trace[f"{LAYER}probs"][0, HEAD][:8]
    figure, axes = new(2, high=2.6)
    axes[0].imshow(probs, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
    axes[0].set_xticks(range(10), [*TOKENS, "[PAD]", "[PAD]"], rotation=90)
    axes[0].set_yticks(range(8), TOKENS)
    axes[0].set(title="p: rows sum to 1", ylabel="query")
    query = TOKENS.index("干")
    axes[1].bar(range(10), probs[query], color=ONE)
    axes[1].set_xticks(range(10), [*TOKENS, "[PAD]", "[PAD]"], rotation=90)
    axes[1].set(title="its row for 干: the weights\nof vⱼ + tᵢⱼ in its context", ylim=(0, 1))
    return figure


def gelu() -> Any:
    """GELU(u)."""
    u = np.linspace(-4, 4, 201)
    values = nz.layers.activations.gelu(u)
    figure, axis = new(high=2.4)
    axis.plot(u, values, color=ONE, linewidth=2, label="GELU(u) = u Φ(u)")
    axis.plot(u, np.maximum(u, 0), "--", color=TWO, label="ReLU: max(u, 0)")
    axis.set(xlabel="u", ylim=(-0.5, 4))
    axis.legend(loc="upper left")
    return figure


def cross_entropy() -> Any:
    """The loss of one label against the probability of the right class."""
    p = np.linspace(0.005, 1, 200)
    figure, axis = new(high=2.4)
    axis.plot(p, -np.log(p), color=ONE, linewidth=2)
    for chance in (0.9, 0.5, 0.1):
        axis.plot(chance, -np.log(chance), "o", color=TWO)
        axis.annotate(
            f"p = {chance}: {-np.log(chance):.2f}",
            (chance, -np.log(chance)),
            xytext=(8, 12) if chance > 0.8 else (6, 6),
            textcoords="offset points",
            ha="right" if chance > 0.8 else "left",
        )
    axis.set(xlabel="probability p of the right class", ylabel="−log p", xlim=(0, 1.05), ylim=(0, 5))
    return figure


def convolution() -> Any:
    """A kernel for each token, as a band."""
    config = nz.ConvBertConfig(
        vocab_size=9, hidden_size=32, embedding_size=32, num_attention_heads=4, num_hidden_layers=1, conv_kernel_size=5
    )
    weights = nz.Weights({name: 5 * array for name, array in nz.init(config, dtype="float64").items()}, config)
    with nz.trace() as trace:
        nz.forward(weights, [[2, 5, 6, 4, 6, 7, 8, 3]])
    kernels = np.asarray(trace["encoder.layer.0.attention.self.conv_kernels"])[0, :, 0]  # (L, k)
    band = np.zeros((8, 8))
    for i in range(8):
        for j in range(5):
            if 0 <= i + j - 2 < 8:
                band[i, i + j - 2] = kernels[i, j]
    figure, axis = new(high=2.6)
    shown = axis.imshow(band, cmap="Blues", vmin=0, aspect="equal")
    figure.colorbar(shown, label="κᵢⱼ")
    axis.set(
        title="k = 5, random weights:\nevery token has its own kernel",
        xlabel="token whose value is read",
        ylabel="token i",
        xticks=[],
        yticks=[],
    )
    return figure


# ----------------------------------------------------------------------------------------------------------- the recipe


def masked_tokens() -> Any:
    """n = min(20, max(1, round(0.15 L)))."""
    length = np.arange(1, 201)
    figure, axis = new(high=2.2)
    axis.step(length, np.minimum(20, np.maximum(1, np.round(0.15 * length))), where="mid", color=ONE, linewidth=2)
    axis.plot(length, 0.15 * length, "--", color=TWO, label="0.15 L")
    axis.axvline(128, color=INK, linewidth=0.8, linestyle=":")
    axis.annotate("L = 128: 19", (128, 19), xytext=(-64, 6), textcoords="offset points")
    axis.set(xlabel="L", ylabel="n", xlim=(0, 200), ylim=(0, 32))
    axis.legend(loc="upper left")
    return figure


def pretraining_loss() -> Any:
    """The mean over the masked tokens, and the pairs beside it."""
    weights, tok = nz.load(dtype="float64"), nz.load_tokenizer()
    right, hidden = "房间很干净，服务态度也好，早餐不错。", "房间很[MASK]净，服务态[MASK]也好，早[MASK]不错。"
    batch, wanted = nz.encode(tok, [hidden]), nz.encode(tok, [right])["input_ids"][0]
    gaps = np.flatnonzero(batch["input_ids"][0] == tok.token_to_id("[MASK]"))
    logits = nz.masked_lm(weights, **batch).logits[0, gaps]
    losses = np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(gaps.size), wanted[gaps]]
    pair = nz.encode(tok, ["酒店的位置很方便，离火车站很近。"], ["下次去还会住这里。"])
    follows = nz.next_sentence_prediction(weights, **pair).logits[0]
    names = [f"the gap for {tok.id_to_token(int(index))}" for index in wanted[gaps]]
    figure, axis = new(high=2.2)
    axis.barh(
        [*names, "their mean"],
        [*losses, losses.mean()],
        color=[ONE] * len(names) + [TWO],
        hatch=[""] * len(names) + ["//"],
    )
    axis.barh(["a pair that belongs together"], [np.log(np.exp(follows).sum()) - follows[0]], color=THREE)
    axis.invert_yaxis()
    axis.set(xlabel="−log p", title="loss = their mean + the pairs")
    return figure


def parts() -> Any:
    """Gradients of two parts, added by their counts."""
    one, nine = np.array([0.3, 2.0]), np.array([2.2, 0.5])
    figure, axis = new(high=2.8)
    arrow(axis, one, "g₁, of 1 masked token", ONE, "--")
    arrow(axis, nine, "g₂, of 9", ONE, "--")
    arrow(axis, (one + nine) / 2, "their plain mean", TWO, ":")
    arrow(axis, 0.1 * one + 0.9 * nine, "g = g₁ / 10 + 9 g₂ / 10", THREE)
    axis.set(xlim=(-0.2, 4), ylim=(-0.1, 2.3), xticks=[], yticks=[])
    return figure


def clipping() -> Any:
    """A long gradient is shortened to c, a short one stays."""
    figure, axis = new(high=2.8)
    turn = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(turn), np.sin(turn), ":", color=INK)
    axis.annotate("‖g‖ = c", (-0.72, 0.72), xytext=(-48, 4), textcoords="offset points")
    long, short = np.array([2.2, 1.3]), np.array([0.35, -0.6])
    arrow(axis, long, "g, too long", TWO, "--")
    arrow(axis, long / np.linalg.norm(long), "g · c / ‖g‖", ONE)
    arrow(axis, short, "shorter than c: as it is", THREE)
    axis.set(xlim=(-2, 3.4), ylim=(-1.15, 1.6), xticks=[], yticks=[], aspect="equal")
    return figure


def moments() -> Any:
    """m and v of a gradient that is always 1, and what the corrections make of them."""
    t = np.arange(1, 41)
    figure, axis = new(high=2.4)
    axis.plot(t, np.ones(t.size), color=ONE, linewidth=2, label="m / (1 − β₁ᵗ) and v / (1 − β₂ᵗ)")
    axis.plot(t, 1 - 0.9**t, "--", color=TWO, label="m, β₁ = 0.9")
    axis.plot(t, 1 - 0.999**t, ":", color=THREE, linewidth=2, label="v, β₂ = 0.999")
    axis.set(xlabel="step t; g = 1 in all of them", ylim=(0, 1.55), xlim=(0, 40))
    axis.legend(loc="upper left", fontsize=9)
    return figure


def gradients_of_a_guess(right: str, *, intermediates: bool = False) -> tuple[nz.Weights, dict[str, np.ndarray]]:
    """Return the shipped model, and its gradients where one character is to be guessed."""
    weights, tok = nz.load(dtype="float64"), nz.load_tokenizer()
    ids = nz.encode(tok, ["房间很[MASK]净。"])["input_ids"]
    labels = np.where(ids == tok.token_to_id("[MASK]"), tok.token_to_id(right), -100)
    _, gradients = nz.value_and_grad(nz.masked_lm, intermediates=intermediates)(weights, ids, labels=labels)
    return weights, {name: np.asarray(gradient) for name, gradient in gradients.items()}


def step_lengths() -> Any:
    """How far each matrix moves, as a part of its length, with AdamW and with LAMB."""
    weights, gradients = gradients_of_a_guess("安")
    names = [name for name in gradients if weights[name].ndim == 2 and "token_type" not in name]
    figure, axis = new(high=2.6)
    for title, optimizer, marker, colour in (("AdamW", adamw, "x", TWO), ("LAMB", lamb, "o", ONE)):
        new_weights, _ = optimizer.step(weights, gradients, optimizer.init(weights), learning_rate=0.01)
        moved = sorted(np.linalg.norm(new_weights[n] - weights[n]) / np.linalg.norm(weights[n]) for n in names)
        axis.semilogy(range(len(names)), moved, marker, color=colour, label=title, markersize=5)
    axis.set(xlabel="matrices of the shipped model, sorted", ylabel="step / length", xticks=[], ylim=(1e-3, 2))
    axis.set_title("learning rate 0.01: LAMB moves each by a hundredth")
    axis.legend(loc="upper left")
    return figure


def trust_ratios() -> Any:
    """ρ of each tensor; the authors' code bounds it."""
    weights, gradients = gradients_of_a_guess("安")
    ratios = {"matrices": [], "norms": [], "biases": []}
    for name, g in gradients.items():
        x = weights[name]
        kind = "matrices" if x.ndim == 2 else "norms" if "LayerNorm.weight" in name else "biases"
        ratios[kind].append(float(trust_ratio(x, g / np.sqrt(g * g + 1e-6) + 0.01 * x)))
    figure, axis = new(high=2.4)
    for place, (values, marker, colour) in enumerate(zip(ratios.values(), "osd", LINES, strict=True)):
        axis.plot(
            np.full(len(values), place) + np.linspace(-0.25, 0.25, len(values)),
            values,
            marker,
            color=colour,
            markersize=4,
        )
    axis.axhline(10, color=INK, linestyle="--", linewidth=1)
    axis.annotate("the authors' code cuts here, at 10", (-0.4, 10), xytext=(0, 4), textcoords="offset points")
    axis.set(yscale="log", ylabel="ρ", ylim=(1e-2, 300), xlim=(-0.5, 2.5))
    axis.set_xticks(range(3), ratios)
    return figure


def learning_rate() -> Any:
    """Warm-up and decay, with and without the division."""
    t = np.arange(0, 1000)
    options = {"learning_rate": 1.0, "warmup_steps": 200, "total_steps": 1000}
    figure, axis = new(high=2.3)
    axis.plot(
        t,
        [warmup_polynomial_decay(int(step), **options) for step in t],
        color=ONE,
        linewidth=2,
        label="NEZHA's authors, and here",
    )
    late = t >= 200
    axis.plot(t[late], 1 - t[late] / 1000, "--", color=TWO, label="BERT's code after the warm-up")
    axis.set(xlabel="step t; w = 200, T = 1,000", ylabel="ηₜ / η", ylim=(0, 1.6))
    axis.legend(loc="upper right")
    return figure


def loss_scale() -> Any:
    """Gradients that float16 loses, and the same times a scale."""
    _, gradients = gradients_of_a_guess("干", intermediates=True)
    sizes = np.abs(np.concatenate([np.ravel(g) for name, g in gradients.items() if name.startswith("encoder.")]))
    sizes = np.log2(sizes[sizes > 1e-14])
    figure, axis = new(high=2.5)
    bins = np.arange(-46, 20, 1)
    axis.hist(sizes, bins, color=ONE, label="gradients")
    axis.hist(sizes + 15, bins, histtype="step", color=TWO, linewidth=2, label="times 2¹⁵")
    axis.axvspan(-46, -24, color=INK, alpha=0.25)
    axis.axvspan(-24, -14, color=INK, alpha=0.1)
    axis.axvline(16, color=INK, linestyle="--")
    top = axis.get_ylim()[1] * 1.35
    axis.text(-45, 0.92 * top, "0 in float16")
    axis.text(-23.5, 0.92 * top, "fewer bits")
    axis.text(15.5, 0.92 * top, "∞", ha="right")
    axis.set(xlabel="log₂ |g|", yticks=[], xlim=(-46, 20), ylim=(0, top))
    axis.legend(loc="upper center", fontsize=9, ncols=2, bbox_to_anchor=(0.7, 0.9))
    return figure


PICTURES: dict[str, Callable[[], Any]] = {
    function.__name__: function
    for function in (
        *(embeddings, layer_norm, rows_of_the_table, scores, context, gelu, cross_entropy, convolution, masked_tokens),
        *(pretraining_loss, parts, clipping, moments, step_lengths, trust_ratios, learning_rate, loss_scale),
    )
}


def themed(figure: Any, title: str) -> str:
    """Write a figure as SVG whose colours follow the reader's light or dark style."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Title": title})
    plt.close(figure)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, name in ((INK, "ink"), (PAPER, "paper"), *((line, f"line{n}") for n, line in enumerate(LINES))):
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"font: ([^;\"]*)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, sans-serif", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    return svg.replace("<defs>", f"<style>{STYLE}</style>\n <defs>", 1)


def main() -> None:
    """Draw the pictures that the command line names, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        draw = PICTURES[name]
        text = themed(draw(), (draw.__doc__ or name).strip())
        (FOLDER / f"{name}.svg").write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}.svg: {len(text) // 1000} KB")


if __name__ == "__main__":
    main()
