"""The live page's data: the model and its tokenizer, as the page's script reads them.

The weights go into the page as a safetensors file in base64, rounded to float16, the vocabulary as a list. The script
computes the rest: ``live.html``, ``live.css`` and ``live.js`` are the page, and `PORT` lists the files of the model.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.families.config import Config
from nezha_np.families.nezha import NezhaConfig
from nezha_np.pages.page import fill_page
from nezha_np.text.defaults import choose_model
from nezha_np.text.encode import check_text, check_tokenizer
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_PARAMETERS = 30_000_000  # a page of 80 MB, which a browser still opens
PAGE = Path(__file__).with_name("live.html")
PORT = [Path(__file__).with_name(f"{name}.mjs") for name in ("safetensors", "wordpiece", "nezha")]
DRAWING = Path(__file__).parents[1] / "drawing.js"
# What the script reads of the configuration.
FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_relative_position",
    "layer_norm_eps",
)


def live_page(text: str, weights: Weights | None = None, tokenizer: Tokenizer | None = None) -> str:
    """Write a page that computes with the model whatever is typed in it.

    Parameters
    ----------
    text : str
        The text with which the page opens.
    weights, tokenizer
        As for `carry_model`.

    Returns
    -------
    str
        HTML, to be written as UTF-8: one self-contained page, 11 MB with the model that ships with the package.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As for `carry_model`; and if the text is not a str, or not valid Unicode.

    Examples
    --------
    >>> page = live_page("房间很[MASK]净。")
    >>> page[:15], len(page) < 12_000_000
    ('<!doctype html>', True)
    """
    check_text("text", text)
    return fill_page(PAGE, "NEZHA, live", {"text": text, **carry_model(weights, tokenizer)}, [*PORT, DRAWING])


def carry_model(weights: Weights | None = None, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """Write a model and its tokenizer as the script reads them.

    Parameters
    ----------
    weights : Weights, optional
        A NEZHA model with a language-model head; None: the one that ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.

    Returns
    -------
    dict
        ``config``, ``tokenizer`` and ``weights``, which can be written as JSON.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If the script cannot compute the model, or tokenise as its tokenizer does; the message says why.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> carried = carry_model()
    >>> carried["config"]["num_attention_heads"], carried["tokenizer"]["vocabulary"][4]
    (8, '[MASK]')
    """
    weights, tokenizer = choose_model(weights, tokenizer)
    check_tokenizer(tokenizer)
    _check_model(weights)
    settings = describe_wordpiece(tokenizer)
    if len(settings["vocabulary"]) > weights.config.vocab_size:
        raise ValueError(
            f"tokenizer: expected a vocabulary of at most {weights.config.vocab_size}, as the weights have, got "
            f"{len(settings['vocabulary'])}: it belongs to another model"
        )
    config = {name: getattr(weights.config, name) for name in FIELDS}
    return {"config": config, "tokenizer": settings, "weights": _in_base64(weights)}


def describe_wordpiece(tokenizer: Tokenizer) -> dict[str, Any]:
    """Describe a tokenizer in the settings of ``wordpiece.mjs``.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        One with the parts of BERT's.

    Returns
    -------
    dict
        The settings.

    Raises
    ------
    ValueError
        If the tokenizer has other parts, or ids without a token.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> settings = describe_wordpiece(load_tokenizer())
    >>> settings["special_tokens"], settings["strip_accents"], settings["longest_word"]
    (['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'], True, 100)
    """
    parts = json.loads(tokenizer.to_str())
    kinds = [(parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
        raise ValueError(f"tokenizer: expected BERT's normalizer, pre-tokenizer and WordPiece, got {kinds}")
    ids = tokenizer.get_vocab()
    vocabulary = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in vocabulary] != list(range(len(ids))):
        raise ValueError(f"tokenizer: expected a token for each id below {max(ids.values()) + 1}, got {len(ids)}")
    for token in ("[CLS]", "[SEP]"):
        if token not in ids:
            raise ValueError(f"tokenizer: expected the token {token}, got a vocabulary without it")
    normalizer, model = parts["normalizer"], parts["model"]
    accents = normalizer["strip_accents"]
    return {
        "vocabulary": vocabulary,
        "special_tokens": [token["content"] for token in parts["added_tokens"]],
        "unknown": model["unk_token"],
        "prefix": model["continuing_subword_prefix"],
        "longest_word": model["max_input_chars_per_word"],
        "clean_text": normalizer["clean_text"],
        "chinese_characters": normalizer["handle_chinese_chars"],
        "strip_accents": normalizer["lowercase"] if accents is None else accents,
        "lower_case": normalizer["lowercase"],
    }


def _check_model(weights: Weights) -> None:
    """Refuse what ``nezha.mjs`` does not compute."""
    config: Config = weights.config
    if not isinstance(config, NezhaConfig) or config.is_decoder:
        what = "a decoder" if config.is_decoder else config.model_type
        raise ValueError(f"weights: expected a NEZHA encoder, which the live page computes, got {what}")
    if config.hidden_act != "gelu" or config.pruned_heads:
        what = f"hidden_act {config.hidden_act!r}" if config.hidden_act != "gelu" else "pruned heads"
        raise ValueError(f"weights: expected gelu and all heads, which the live page computes, got {what}")
    weights.require("masked_lm")
    if not config.tie_word_embeddings:
        raise ValueError("weights: expected a language-model head tied to the word embeddings, got one of its own")
    size = sum(math.prod(array.shape) for array in weights.values())
    if size > MOST_PARAMETERS:
        raise ValueError(f"weights: expected at most {MOST_PARAMETERS:,} parameters in a page, got {size:,}")


def _in_base64(weights: Weights) -> str:
    """Write the tensors of the encoder and of the language-model head as a safetensors file, float16, in base64."""
    import base64

    import safetensors.numpy

    tensors = {}
    for name in sorted(name for name in weights if name.startswith(("embeddings.", "encoder.", "cls.predictions."))):
        with np.errstate(over="ignore"):  # it is named below
            tensors[name] = np.asarray(to_numpy(weights[name]).astype(np.float16), order="C")
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"weights: expected numbers that float16 can hold, got others in {name}")
    return base64.b64encode(safetensors.numpy.save(tensors)).decode()
