"""The page that shows what the model computes for a text: one traced pass, and the file that draws it.

`explain` runs the model once inside `nezha_np.trace`, applies the language-model head to the hidden states after each
layer (the logit lens: nostalgebraist 2020), and puts the arrays into ``page.html``, whose style and script are
``page.css`` and ``page.js`` (`nezha_np.pages`).

    attention of one head, query i and key j, both parts divided by √D:
        score(i, j) = content(i, j) + position(i, j)        content = q_i · k_j / √D,   position = q_i · t_ij / √D
        prob(i, j)  = softmax over j of score(i, j)

Each layer moves the vector of a token in two steps, and the page shows how far:

        y = LayerNorm(x + added by attention)               z = LayerNorm(y + added by the feed-forward network)

To make the page small, arrays are rounded to whole numbers of 16 or 8 bits between the smallest and the largest value
of each head or token (`pack`): 16 bits, unless the attention would then take more than `SMALL` characters. Norms,
cosines and probabilities of word pieces have four decimals.

What a token stands for in the text is taken from the tokenizer's offsets: an unknown token does not say it by itself.

What a family has is read from the trace: an array is shown if it was recorded under its name.

Dimension letters: L length, N heads, D head size, E and H features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.arrays import Array, to_numpy
from nezha_np.checks import check_switches
from nezha_np.explanation.live.live import live_page
from nezha_np.families.config import Config
from nezha_np.families.family import family_of
from nezha_np.families.parameters import task_shapes
from nezha_np.inside.logit_lens import logit_lens
from nezha_np.layers.softmax import softmax
from nezha_np.mechanism import trace
from nezha_np.model.model import forward
from nezha_np.model.outputs import ModelOutput
from nezha_np.pages.page import fill_page
from nezha_np.text.defaults import choose_model
from nezha_np.text.encode import check_text, encode
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST = 128  # tokens; a map of more is too fine to read
TOP = 5  # word pieces for each token and layer
SMALL = 1_500_000  # characters: attention that would take more in 16 bits is rounded to 8 bits
PAGE = Path(__file__).with_name("page.html")
DRAWING = Path(__file__).with_name("drawing.js")

# The parts of the embeddings by their trace names, in the order in which they are computed.
EMBEDDINGS = {
    "embeddings.word_embeddings": "word",
    "embeddings.token_type_embeddings": "token type",
    "embeddings.position_embeddings": "position",
    "embeddings.sum_with_positions": "sum",
    "embeddings.sum": "sum",
    "embeddings.LayerNorm": "norm",
    "embeddings_project": "projection",
}
# The two steps of a layer: what each adds to a token's vector, and the vector after it, by their trace names.
STEPS = {
    "attention": ("attention.output.dense", "attention.output.LayerNorm"),
    "feed-forward": ("output.dense", "output.LayerNorm"),
}


def explain(
    text: str,
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    pair: str | None = None,
    live: bool = False,
) -> str:
    """Write a page that shows what the model computes for a text, layer by layer and head by head.

    Parameters
    ----------
    text : str
        A text of up to 128 tokens, special tokens included.
    weights : Weights, optional
        A model; None: the one that ships with the package. Without a language-model head the page shows no predictions.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    pair : str, optional
        A second text; the model gets the two as a pair.
    live : bool
        Whether the page carries the model and computes in the browser, with any text that is typed there; `text` is
        the one with which it opens, and there is no pair. Only for NEZHA with a language-model head, the activation
        gelu and a tokenizer with BERT's parts; weights are rounded to float16.

    Returns
    -------
    str
        HTML, to be written as UTF-8: one self-contained page.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If a text has no token; if text and pair have more than 128 tokens, or more than a model with learned positions
        has positions; if there is no tokenizer, or it does not fit the weights; if the model computes NaN or
        infinity; or if the live page cannot compute the model, or is asked for a pair.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> page = nz.explain("房间很[MASK]净。")
    >>> page[:15], len(page) < 200_000
    ('<!doctype html>', True)
    """
    check_switches(live=live)
    if live:
        if pair is not None:
            raise ValueError(f"pair: expected None with live, because the live page reads one text, got {pair!r}")
        return live_page(text, weights, tokenizer)
    shown = compute(text, weights, tokenizer, pair=pair)
    return fill_page(PAGE, " · ".join(part for part in (text, pair) if part), shown, [DRAWING])


def compute(
    text: str, weights: Weights | None = None, tokenizer: Tokenizer | None = None, *, pair: str | None = None
) -> dict[str, Any]:
    """Compute what the page shows.

    Parameters
    ----------
    text, weights, tokenizer, pair
        The arguments of `explain`, which describes them.

    Returns
    -------
    dict
        The data of the page, which can be written as JSON.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As `explain` does.

    Examples
    --------
    >>> shown = compute("房间很[MASK]净。")
    >>> shown["tokens"], len(shown["layers"]), shown["layers"][0]["position"]["shape"]
    (['[CLS]', '房', '间', '很', '[MASK]', '净', '。', '[SEP]'], 4, [8, 8, 8])
    """
    check_text("text", text)
    if pair is not None:
        check_text("pair", pair)
    weights, tokenizer = choose_model(weights, tokenizer)
    batch: dict[str, Any] = dict(
        encode(
            tokenizer,
            [text],
            None if pair is None else [pair],
            padding=False,
            return_offsets_mapping=True,
            return_sequence_ids=True,
        )
    )
    written = _written(batch.pop("sequence_ids")[0], batch.pop("offset_mapping")[0], text, pair or "")
    _check_tokens({"text": text, "pair": pair}, batch["input_ids"], tokenizer, weights.config)
    with trace() as t:
        out = forward(weights, **batch, output_hidden_states=True)
    arrays = {"embeddings": _embeddings(t), **_attention(t, weights.config), **_changes(out), "steps": _steps(out, t)}
    ids = batch["input_ids"][0].tolist()
    lens = _lens(out, weights)
    named = {*ids, *(index for layer in lens or [] for guesses in layer for index, _ in guesses)}
    return {
        "text": text,
        "pair": pair,
        "model": _describe(weights, t),
        "ids": ids,
        "types": batch["token_type_ids"][0].tolist(),
        "tokens": [tokenizer.id_to_token(index) for index in ids],
        "written": written,
        "unknown": getattr(tokenizer.model, "unk_token", None),
        "pieces": {str(index): tokenizer.id_to_token(index) or f"#{index}" for index in sorted(named)},
        **arrays,
        "lens": lens,
    }


def pack(array: np.ndarray, bits: int) -> dict[str, Any]:
    """Round an array to whole numbers of 16 or 8 bits, in base64: value = low + step · number in each block.

    Parameters
    ----------
    array : (N, …) float array
        N blocks, each with its own range.
    bits : int
        16 or 8.

    Returns
    -------
    dict
        ``shape``, ``bits``, ``low`` and ``step`` of each block, and ``data``, little-endian. A step is the range of the
        block divided by 65,535 or 255, and a value is at most half a step away from the array's.

    Examples
    --------
    >>> pack(np.array([[0.0, 1.0, 2.0]]), 8)
    {'shape': [1, 3], 'bits': 8, 'low': [0.0], 'step': [0.00784313725490196], 'data': 'AID/'}
    """
    import base64

    blocks = array.reshape(array.shape[0], -1).astype(np.float64)
    low = blocks.min(axis=1)
    step = (blocks.max(axis=1) - low) / (2**bits - 1)
    numbers = np.rint((blocks - low[:, None]) / np.where(step == 0.0, 1.0, step)[:, None])
    return {
        "shape": list(array.shape),
        "bits": bits,
        "low": low.tolist(),
        "step": step.tolist(),
        "data": base64.b64encode(numbers.astype(f"<u{bits // 8}").tobytes()).decode(),
    }


def _check_tokens(texts: dict[str, str | None], ids: np.ndarray, tokenizer: Tokenizer, config: Config) -> None:
    special = tokenizer.num_special_tokens_to_add(False)
    for name, text in texts.items():
        if text is not None and encode(tokenizer, [text], padding=False)["input_ids"].size <= special:
            raise ValueError(f"{name}: expected at least one token, got none in {text!r}")
    most, why = LONGEST, "maps of more tokens are too fine to read"
    if config.longest_text is not None and config.longest_text < most:
        most, why = config.longest_text, "the model has no more positions"
    if ids.size > most:
        what = "text" if texts["pair"] is None else "text and pair"
        raise ValueError(f"{what}: expected at most {most} tokens, special tokens included, got {ids.size}; {why}")
    if ids.max() >= config.vocab_size:
        raise ValueError(
            f"tokenizer: expected ids from 0 to {config.vocab_size - 1}, got id {ids.max()}: this vocabulary belongs "
            "to another model"
        )


def _describe(weights: Weights, t: Mapping[str, Array]) -> dict[str, Any]:
    """Describe the model, and how positions enter it."""
    config = weights.config
    return {
        "title": family_of(config).title,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "head_size": config.head_size,
        "vocab_size": config.vocab_size,
        "adds_positions": "embeddings.position_embeddings" in t,
        "learns_distances": any(name.endswith("attention.self.distance_embedding.weight") for name in weights),
        "keys_score_distances": any(name.endswith("attention.self.key_position_scores") for name in t),
        "is_decoder": config.is_decoder,
        "dtype": str(to_numpy(weights.word_embeddings[:1, :1]).dtype),
    }


def _embeddings(t: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Pack the parts of the embeddings, (L, E) or (L, H), in the order in which they are computed."""
    names = [name for name in EMBEDDINGS if name in t]
    if "embeddings.sum_with_positions" in names:
        names.remove("embeddings.sum")  # of word and token type alone
    arrays = {name: _finite(name, t[name]) for name in names}
    norms = {name: np.linalg.norm(array, axis=-1).round(4).tolist() for name, array in arrays.items()}
    return [
        {"name": name, "part": EMBEDDINGS[name], "norms": norms[name], "values": pack(array, 8)}
        for name, array in arrays.items()
    ]


def _attention(t: Mapping[str, Array], config: Config) -> dict[str, Any]:
    """Pack of each layer the parts of the scores and the probabilities, (N, L, L), and what else was recorded."""
    layers: list[dict[str, np.ndarray]] = []
    for index in range(config.num_hidden_layers):
        at = f"encoder.layer.{index}.attention.self."
        scaled = {"content": "content_scores", "position": "position_scores"}
        found = {key: _finite(at + name, t[at + name]) for key, name in scaled.items() if at + name in t}
        layer = {key: scores / np.sqrt(config.head_size) for key, scores in found.items()}
        layer["probs"] = _finite(at + "probs", t[at + "probs"])
        if at + "conv_kernels" in t:
            layer["kernels"] = _finite(at + "conv_kernels", t[at + "conv_kernels"]).swapaxes(0, 1)  # (N, L, k)
        if at + "position_context" in t:
            parts = [_finite(at + name, t[at + name]) for name in ("content_context", "position_context")]
            layer["context"] = np.stack([np.linalg.norm(part, axis=-1) for part in parts], axis=-1)  # (N, L, 2)
        layers.append(layer)
    characters = sum(array.size for layer in layers for array in layer.values()) * 2 * 4 / 3
    bits = 16 if characters <= SMALL else 8
    return {"bits": bits, "layers": [{key: pack(array, bits) for key, array in layer.items()} for layer in layers]}


def _written(sequence_ids: np.ndarray, offsets: np.ndarray, *texts: str) -> list[str | None]:
    """Return for each token the piece of the text that it stands for; None: the tokenizer has added the token."""
    places = zip(sequence_ids.tolist(), offsets.tolist(), strict=True)
    return [None if which < 0 else texts[which][start:end] for which, (start, end) in places]


def _changes(out: ModelOutput) -> dict[str, Any]:
    """Compute the norms of the hidden states, and the cosine between those after a layer and those before it."""
    states = np.stack([_finite("the hidden states", state) for state in out.hidden_states or ()])  # (layers + 1, L, H)
    norms = np.linalg.norm(states, axis=-1)
    return {"norms": norms.round(4).tolist(), "cosines": _cosines(states[1:], states[:-1]).round(4).tolist()}


def _steps(out: ModelOutput, t: Mapping[str, Array]) -> list[dict[str, dict[str, list[float]]]]:
    """Compute for each step of each layer, and each token, how far it moves the token's vector.

    ``added``: the norm of what the step adds, divided by the norm of the vector to which it is added. ``cosines``: the
    cosine between the vector after the step, which is normalised, and the one before it.
    """
    layers = []
    for index, state in enumerate((out.hidden_states or ())[:-1]):
        before, layer = _finite("the hidden states", state), {}  # (L, H)
        for step, names in STEPS.items():
            added, after = (_finite(name, t[name]) for name in (f"encoder.layer.{index}.{part}" for part in names))
            lengths = np.maximum(np.linalg.norm(before, axis=-1), np.finfo(np.float64).tiny)
            ratio = np.linalg.norm(added, axis=-1) / lengths
            layer[step] = {"added": ratio.round(4).tolist(), "cosines": _cosines(after, before).round(4).tolist()}
            before = after
        layers.append(layer)
    return layers


def _cosines(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(after, axis=-1) * np.linalg.norm(before, axis=-1)
    cosines: np.ndarray = np.sum(after * before, axis=-1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return cosines


def _lens(out: ModelOutput, weights: Weights) -> list[list[list[tuple[int, float]]]] | None:
    """Apply the language-model head after each layer: for each token the likeliest ids and their probabilities.

    None if the weights have no language-model head.
    """
    if any(name not in weights for name in task_shapes(weights.config, "masked_lm")):
        return None
    layers = []
    for every_logit in logit_lens(weights, out.hidden_states or ()):
        probs = to_numpy(softmax(_finite("the language model", every_logit)))  # (L, V)
        best = np.argsort(-probs, axis=-1, kind="stable")[:, :TOP]
        rows = zip(probs, best, strict=True)
        layers.append([[(int(index), round(float(row[index]), 4)) for index in order] for row, order in rows])
    return layers


def _finite(name: str, array: Array) -> np.ndarray:
    """Return the array of the one text of the batch, in float64; refuse NaN and infinity."""
    numbers: np.ndarray = to_numpy(array)[0].astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"weights: expected finite numbers in every layer, got NaN or infinity in {name}")
    return numbers
