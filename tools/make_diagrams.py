"""Draw the block diagrams: layer_nezha.svg in docs/_static, its siblings, and recipe.svg.

    python tools/make_diagrams.py

Which blocks a layer has, which function makes each, what it reads and its shape is taken from a pass on a tape, so a
picture cannot say anything that the code does not do. Where a block stands and its formula are written down here. A
block that another family does not have has a heavy, dashed frame and its family's name, besides its colour. The files
have a light and a dark style, and each block is a link to its function in the site's reference.
"""

from __future__ import annotations

import importlib
import re
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import nezha_np as nz
from nezha_np.layers.masks import additive_mask
from nezha_np.layers.relative_position import relative_position_table
from nezha_np.mechanism import Tape, recording

DOCS = Path(__file__).parents[1] / "docs"
CONSTANTS = {"attention_mask": additive_mask, "relative_positions": relative_position_table}
TITLES = {"nezha": "NEZHA", "bert": "BERT", "convbert": "ConvBERT"}
SMALL = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 4, "num_hidden_layers": 1}
CONFIGS: dict[str, nz.Config] = {
    "nezha": nz.NezhaConfig(**SMALL),
    "bert": nz.BertConfig(**SMALL),
    "convbert": nz.ConvBertConfig(**SMALL, embedding_size=SMALL["hidden_size"]),
}
INPUTS = {"input_ids": [[2, 3, 4]], "attention_mask": [[1, 1, 0]]}
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 186, 50, 210, 80, 60  # of a block, and from one to the next

SELF, LAYER = "encoder.layer.0.attention.self.", "encoder.layer.0."
# Column and row of each block; a family's own places come after the colon of its name.
PLACES: dict[str, tuple[float, float]] = {
    "embeddings.word_embeddings": (0.5, 0),
    "embeddings.token_type_embeddings": (1.5, 0),
    "embeddings.position_embeddings": (2.5, 0),
    "embeddings.sum": (1, 1),
    "embeddings.sum_with_positions": (1.5, 2),
    "embeddings.LayerNorm": (1, 3),
    "relative_positions": (3.1, 4),
    "attention_mask": (0, 7),
    f"{SELF}key": (0, 4),
    f"{SELF}query": (1, 4),
    f"{SELF}value": (2, 4),
    f"{SELF}k": (0, 5),
    f"{SELF}q": (1, 5),
    f"{SELF}v": (2, 5),
    f"{SELF}content_scores": (0.5, 6),
    f"{SELF}position_scores": (1.5, 6),
    f"{SELF}scores": (1, 7),
    f"{SELF}probs": (1, 8),
    f"{SELF}content_context": (1.5, 9),
    f"{SELF}position_context": (2.55, 9),
    f"{SELF}context": (2, 10),
    f"{SELF}merged": (1, 11),
    f"{SELF}key_conv_attn_layer": (3.1, 4),
    f"{SELF}conv_out_layer": (4.15, 4),
    f"{SELF}conv_attn": (3.1, 6),
    f"{SELF}conv_kernel_layer": (3.1, 7),
    f"{SELF}conv_kernels": (3.1, 8),
    f"{SELF}conv_context": (3.6, 9),
    f"{SELF}joined": (2, 12),
    f"{LAYER}attention.output.dense": (1, 13),
    f"{LAYER}attention.output.residual": (1, 14),
    f"{LAYER}attention.output.LayerNorm": (1, 15),
    f"{LAYER}intermediate.dense": (1, 16),
    f"{LAYER}intermediate.intermediate_act_fn": (1, 17),
    f"{LAYER}output.dense": (1, 18),
    f"{LAYER}output.residual": (1, 19),
    f"{LAYER}output.LayerNorm": (1, 20),
}
OTHER_PLACES = {"bert": {f"{SELF}context": (1.5, 9)}, "convbert": {f"{SELF}context": (1.5, 9)}}
OWN = {
    "nezha": ("relative_positions", "position_scores", "scores", "position_context", "context"),
    "bert": ("position_embeddings", "sum_with_positions"),
    "convbert": (
        "key_conv_attn_layer",
        "conv_attn",
        "conv_kernel_layer",
        "conv_kernels",
        "conv_out_layer",
        "conv_context",
        "joined",
    ),
}
FORMULAS = {
    "embedding": "the row of each id",
    "add": "x + y",
    "layer_norm": "γ (x − μ) / σ + β",
    "linear": "W x + b",
    "split_heads": "N heads of D features",
    "content_scores": "qᵢ · kⱼ",
    "position_scores": "qᵢ · tᵢⱼ",
    "attention_probs": "softmaxⱼ (score / √D + mⱼ)",
    "content_context": "Σⱼ pᵢⱼ vⱼ",
    "position_context": "Σⱼ pᵢⱼ tᵢⱼ",
    "merge_heads": "heads side by side",
    "gelu": "x Φ(x)",
    "relative_position_table": "sines, cosines of each row r",
    "additive_mask": "0; padding: smallest number",
    "separable_convolution": "keys of k neighbours",
    "multiply": "x · y",
    "convolution_kernels": "softmax over k places",
    "dynamic_convolution": "Σ of k neighbours",
    "join_features": "side by side",
}
SHAPES = {
    "relative_positions": "(2K + 1, D)",
    **dict.fromkeys(("query", "key", "value", "merged", "conv_attn", "conv_context"), "(B, L, N·D)"),
    **dict.fromkeys(("key_conv_attn_layer", "conv_out_layer"), "(B, L, N·D)"),
    "conv_kernel_layer": "(B, L, N·k)",
    "conv_kernels": "(B, L, N, k)",
    "joined": "(B, L, 2·N·D)",
    "attention_mask": "(B, 1, 1, L)",
    **dict.fromkeys(("q", "k", "v", "content_context", "position_context", "context"), "(B, N, L, D)"),
    **dict.fromkeys(("content_scores", "position_scores", "scores", "probs"), "(B, N, L, L)"),
    **dict.fromkeys(("intermediate.dense", "intermediate_act_fn"), "(B, L, F)"),
}
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1c2733 }
  .name { font: 600 12.5px ui-monospace, Menlo, Consolas, monospace }
  .long { font-size: 10px; letter-spacing: -0.3px }
  .shape, .frame-name { fill: #5a6a7a }
  .title { font-size: 16px; font-weight: 600 }
  rect.paper { fill: #ffffff }
  rect.block { fill: #ffffff; stroke: #6b7c8d; stroke-width: 1.2 }
  rect.own { fill: #fff1d6; stroke: #9a5b00; stroke-width: 2.4; stroke-dasharray: 7 3 }
  rect.frame { fill: #f3f6f9; stroke: #c2ccd6 }
  .family { font-size: 10px; font-weight: 600; fill: #9a5b00 }
  path { fill: none; stroke: #6b7c8d; stroke-width: 1.3 }
  path.head { fill: #6b7c8d; stroke: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4eaf0 } .shape, .frame-name { fill: #9fb0c0 }
    rect.block { fill: #1d2731; stroke: #8aa0b4 } rect.own { fill: #3b2c10; stroke: #f0b04f }
    rect.frame { fill: #141b22; stroke: #3a4855 } .family { fill: #f0b04f }
    path { stroke: #8aa0b4 } path.head { fill: #8aa0b4 } rect.paper { fill: #0e1419 }
  }
"""


# The recipe: the function of each block, what stands on it, its place, and what it reads.
RECIPE: dict[str, tuple[str, str, str, tuple[float, float], tuple[str, ...]]] = {
    "text": ("training.corpus.make_corpus", "documents as ids", "", (1, 0), ()),
    "order": ("training.data.order_of", "shuffled in a window", "", (0, 1), ("text",)),
    "pairs": ("training.pairs.draw_pair", "A, then B or another text", "", (1, 1), ("text",)),
    "masks": ("training.masking.mask_words", "15 %, whole words", "", (2, 1), ("text",)),
    "batch": (
        "training.data.make_batch",
        "ids and labels",
        "(B, L)",
        (1, 2),
        ("order", "pairs", "masks"),
    ),
    "weights": ("weights.weights.Weights", "float32, as float16", "of each tensor", (2.2, 2), ()),
    "loss": ("model.heads.pretraining", "of masked tokens + of pairs", "()", (1.6, 3), ("batch", "weights")),
    "gradients": ("mechanism.gradients.value_and_grad", "of the loss × scale", "of each tensor", (1.6, 4), ("loss",)),
    "sum": ("training.accumulation.accumulate", "Σ of parts, each nⱼ / N", "of each tensor", (1.6, 5), ("gradients",)),
    "scale": ("training.loss_scale.LossScale", "÷ scale; skip if not finite", "of each tensor", (1.6, 6), ("sum",)),
    "clipped": (
        "training.clipping.clip_by_global_norm",
        "norm of all at most 1",
        "of each tensor",
        (1.6, 7),
        ("scale",),
    ),
    "rate": ("training.schedule.warmup_polynomial_decay", "rises, then decays", "()", (2.7, 7), ()),
    "step": (
        "training.optimizers.lamb.step",
        "w − η ρ u,  ρ = ‖w‖ / ‖u‖",
        "of each tensor",
        (1.6, 8),
        ("clipped", "rate"),
    ),
}


class Block(NamedTuple):
    """A block: its full name, what stands on it, where its centre is, its function, and the names of what it reads."""

    name: str
    title: str
    formula: str
    shape: str
    centre: tuple[float, float]
    function: Any
    reads: tuple[str, ...]
    family: str = ""  # whose own it is


# ------------------------------------------------------------------------------------------------- what the blocks are


def layer_blocks(family: str) -> list[Block]:
    """List the blocks of a family's embeddings and its first layer, in the order in which they are made."""
    with recording(Tape(None)) as tape:
        nz.forward(nz.init(CONFIGS[family]), **INPUTS)
    first_name: dict[int, str] = {}
    for name, array in tape.arrays.items():
        first_name.setdefault(id(array), name)
    made = {name: (CONSTANTS[name], ()) for name in CONSTANTS if name in tape.arrays}
    for call in tape.calls:
        reads = tuple(first_name[id(argument)] for argument in call.arguments if id(argument) in first_name)
        made[first_name[id(call.result)]] = call.layer.definition, tuple(dict.fromkeys(reads))
    found = {name: what for name, what in made.items() if name in CONSTANTS or name.startswith(("embeddings.", LAYER))}
    places = {name: OTHER_PLACES.get(family, {}).get(name, PLACES[name]) for name in found}
    rows = sorted({row for _, row in places.values()})  # without those in which this family has no block
    blocks = []
    for name, (function, reads) in found.items():
        last, (column, row) = short(name), places[name]
        shape = SHAPES.get(last, SHAPES.get(last.rpartition(".")[2], "(B, L, H)"))
        check_shape(name, shape, tape.arrays[name].shape, CONFIGS[family])
        down = rows.index(row) + (0.4 if name.startswith(LAYER) or name in CONSTANTS else 0.0)
        own = TITLES[family] if last in OWN[family] else ""
        formula = FORMULAS[function.__name__]
        known = tuple(read for read in reads if read in found)
        blocks.append(Block(name, last, formula, shape, centre(column, down), function, known, own))
    return blocks


def recipe_blocks() -> list[Block]:
    """List the blocks of the recipe."""
    blocks = []
    for path, formula, shape, (column, row), reads in RECIPE.values():
        module, _, function = path.rpartition(".")
        found = getattr(importlib.import_module(f"nezha_np.{module}"), function)
        title = "lamb.step" if function == "step" else function
        read = tuple(RECIPE[one][0] for one in reads)
        blocks.append(Block(path, title, formula, shape, centre(column, row), found, read))
    return blocks


def short(name: str) -> str:
    """Shorten a name to what tells it apart within the diagram."""
    return name.removeprefix(SELF).removeprefix(LAYER).removeprefix("embeddings.")


def centre(column: float, row: float) -> tuple[float, float]:
    """Return where the centre of a block is, in pixels."""
    return MARGIN + 40 + WIDTH / 2 + column * ACROSS, MARGIN + 20 + HEIGHT / 2 + row * DOWN


def check_shape(name: str, letters: str, shape: tuple[int, ...], config: Any) -> None:
    """Check that the letters of a shape stand for the numbers that it has in the pass."""
    batch, length = len(INPUTS["input_ids"]), len(INPUTS["input_ids"][0])
    heads = config.num_attention_heads // getattr(config, "head_ratio", 1)
    values = {"B": batch, "L": length, "H": config.hidden_size, "N": heads, "D": config.head_size}
    values |= {"F": config.intermediate_size, "k": getattr(config, "conv_kernel_size", 0)}
    values["K"] = getattr(config, "max_relative_position", 0)
    found = eval(letters.replace("·", "*").replace("2K", "2*K"), {}, values)  # of the texts of this file
    if found != shape:
        raise SystemExit(f"{name}: expected the shape {shape}, got {letters}, which is {found}")


# ------------------------------------------------------------------------------------------------------ how it is drawn


def pages() -> dict[str, str]:
    """Return which page of the reference holds each module."""
    found: dict[str, str] = {}
    for page in sorted((DOCS / "api").glob("*.md")):
        for module in re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8")):
            found.setdefault(module, page.stem)
    return found


def address(function: Any, page_of: dict[str, str]) -> str:
    """Return the address of a function in the reference."""
    module, name = function.__module__, function.__qualname__
    page = page_of.get(module) or {"Weights": "weights", "pretraining": "model", "value_and_grad": "mechanism"}[name]
    return f"../api/{page}.html#{module if module in page_of else 'nezha_np'}.{name}"


def draw_block(block: Block, page_of: dict[str, str]) -> str:
    (x, y), own = block.centre, block.family != ""
    lines = [
        f'<a href="{address(block.function, page_of)}">',
        f"<title>{escape(block.name)}, made by {block.function.__name__}</title>",
        f'<rect class="block{" own" if own else ""}" x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" '
        f'width="{WIDTH}" height="{HEIGHT}" rx="7"/>',
        f'<text class="name{" long" if len(block.title) > 24 else ""}" x="{x:g}" y="{y - 9:g}" text-anchor="middle">'
        f"{escape(block.title)}</text>",
        f'<text x="{x:g}" y="{y + 5:g}" text-anchor="middle">{escape(block.formula)}</text>',
        f'<text class="shape" x="{x + 16 * own:g}" y="{y + 19:g}" text-anchor="middle">{block.shape}</text>',
    ]
    if own:
        lines.append(f'<text class="family" x="{x - WIDTH / 2 + 5:g}" y="{y + 19:g}">{block.family}</text>')
    return "\n".join([*lines, "</a>"])


def draw_arrow(source: Block, target: Block, entry: int, entries: int) -> str:
    """Draw an arrow: down from its source, across above its target, and down; past many rows by the left side."""
    (x1, y1), (x2, y2) = source.centre, target.centre
    into = x2 + 36.0 * (entry - (entries - 1) / 2)
    y1, y2 = y1 + HEIGHT / 2, y2 - HEIGHT / 2
    across = y2 - 12 - 6 * (entries - 1 - entry)  # so that arrows to one block do not run into each other
    side = ""
    if x1 == x2 and y2 - y1 > 2 * DOWN:
        side = f"V{y1 + 9:g}H{MARGIN - 26 if y2 - y1 > 5 * DOWN else MARGIN + 70:g}"
    way = f"M{x1:g} {y1:g}{side}V{across:g}H{into:g}V{y2 - 7:g}"
    return f'<path d="{way}"/><path class="head" d="M{into - 4:g} {y2 - 8:g}h8l-4 8z"/>'


def draw(title: str, blocks: list[Block], frame: str = "") -> str:
    """Draw a diagram; a frame with a name is around all of a layer."""
    page_of, named = pages(), {block.name: block for block in blocks}
    arrows = []
    for block in blocks:
        sources = sorted((named[name] for name in block.reads), key=lambda source: source.centre)
        arrows += [draw_arrow(source, block, place, len(sources)) for place, source in enumerate(sources)]
    width = max(block.centre[0] for block in blocks) + WIDTH / 2 + MARGIN
    bottom = max(block.centre[1] for block in blocks) + HEIGHT / 2 + 14
    lines = []
    if frame:
        top = min(block.centre[1] for block in blocks if not block.name.startswith("embeddings.")) - HEIGHT / 2 - 32
        lines = [
            f'<rect class="frame" x="14" y="{top:g}" width="{width - 28:g}" height="{bottom - top:g}" rx="10"/>',
            f'<text class="frame-name" x="{width - 24:g}" y="{bottom - 10:g}" text-anchor="end">{frame}</text>',
        ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {bottom + 24:g}" width="{width:g}" '
            f'height="{bottom + 24:g}" role="img" aria-labelledby="title">',
            f'<title id="title">{title}</title>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{width:g}" height="{bottom + 24:g}"/>',
            f'<text class="title" x="14" y="28">{title}</text>',
            *lines,
            *arrows,
            *(draw_block(block, page_of) for block in blocks),
            "</svg>\n",
        ]
    )


def diagrams() -> dict[str, str]:
    """Draw all: the text of each file by its name."""
    found = {
        f"layer_{family}.svg": draw(
            f"{title}: embeddings and a layer of the encoder",
            layer_blocks(family),
            "encoder.layer.0, and so each layer",
        )
        for family, title in TITLES.items()
    }
    return found | {"recipe.svg": draw("A step of pre-training", recipe_blocks())}


def main() -> None:
    for name, text in diagrams().items():
        (DOCS / "_static" / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
