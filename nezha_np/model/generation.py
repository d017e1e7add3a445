"""Generation: a decoder predicts one token after another, and each is appended to the text.

    next token = argmax of the last token's logits                            (greedy)
    next token ~ softmax(logits / temperature), of the top_k likeliest tokens (sampled)

Each step is one call of `nezha_np.causal_lm`: of the whole text, or with a cache of the last token alone.

Dimension letters: B batch, L the length of the prompts, V vocabulary, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nezha_np.arrays import Array, asarray_like, kind_of, to_numpy
from nezha_np.checks import check_integer
from nezha_np.families.config import Config
from nezha_np.layers.softmax import softmax
from nezha_np.model.heads import causal_lm, require_decoder
from nezha_np.model.inputs import check_integers, check_numbers, count_axes
from nezha_np.randomness import uniform
from nezha_np.weights.weights import Weights, as_weights


def generate(
    weights: Weights | Mapping[str, Array],
    input_ids: Any,
    *,
    attention_mask: Any = None,
    max_new_tokens: int = 20,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    use_cache: bool | None = True,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    token_type_ids: Any = None,
    encoder_hidden_states: Array | None = None,
    encoder_attention_mask: Any = None,
    config: Config | None = None,
) -> Array:
    """Continue prompts token by token (transformers GenerationMixin: greedy_search and sample).

    Parameters
    ----------
    weights : Weights or mapping of str to array
        The weights of a decoder with a language-model head; a plain mapping needs `config`.
    input_ids : (B, L) array_like of int, or B lists of different lengths
        The prompts. Lists of different lengths are padded on the left, and the padding is masked.
    attention_mask : (B, L) array_like, optional
        1 for a token that may be attended to, 0 for padding, which stands on the left, because a new token is appended
        after the last column (`nezha_np.encode` has a `padding_side`). None: every token is part of its prompt, except
        the padding of lists of different lengths.
    max_new_tokens : int
        The largest number of tokens to add. BERT has room for ``max_position_embeddings - L + 1``; NEZHA's positions
        have no limit.
    eos_token_id : int or sequence of int, optional
        The id, or the ids, that end a row; the id itself is part of the result. None: the configuration's; an empty
        sequence: none. NEZHA's default, 3, is ``[SEP]`` in the model that comes with this package but ``[unused3]`` in
        the vocabulary of the authors' checkpoints, whose ``[SEP]`` is 102: pass the tokenizer's.
    pad_token_id : int, optional
        The id that fills a row after its end. None: the configuration's, or, where it has none, the first of
        `eos_token_id`.
    use_cache : bool, optional
        Whether to cache keys and values, so that a step computes the new token alone, instead of the whole text anew:
        the result is the same. None: what the configuration says.
    temperature : float
        0: greedy, the likeliest token, the lowest id of equally likely ones. More: sample from
        softmax(logits / temperature).
    top_k : int, optional
        Sample from the `top_k` likeliest tokens alone, and those as likely as the last of them; more than V means all.
        Greedy steps ignore it.
    seed : int
        The seed of the random numbers, whose key is the seed, the number of the step and that of the row.
    token_type_ids : (B, L) array_like of int, optional
        The token types, lists of different lengths where the prompts are; a new token has that of the token before it.
        None: all 0.
    encoder_hidden_states, encoder_attention_mask, config
        As for `nezha_np.forward`; the mask has shape (B, S).

    Returns
    -------
    (B, L + n) array of int64
        The prompts, and n new tokens, in the weights' library and on their device. n is less than `max_new_tokens`
        where all rows have ended before.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong shape or value, a prompt is padded on the right, there is no room for
        `max_new_tokens`, the configuration is not a decoder's, or logits are not finite; the message names what it is.

    Notes
    -----
    The host chooses each token: every step copies the last token's logits, (B, V), to the host, and so waits for the
    device. Tokens are sampled in float64, with random numbers that are the same on every machine and that do not depend
    on the other rows. Logits differ between machines in their last bits, so a number that falls very near to the border
    between two tokens may give another token on another machine.

    With relative positions (NEZHA without an encoder, BERT's ``relative_key``) a row that is padded on the left gets
    the same tokens as alone. BERT's absolute positions count the padding, as in the reference, and so do NEZHA's
    distances to an encoder's tokens.

    ``docs/generation.md`` has examples of all of this.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> decoder = weights.config.replace(is_decoder=True)
    >>> ids = nz.generate(weights, [[2, 318], [2, 318, 1161]], max_new_tokens=4, eos_token_id=[], config=decoder)
    >>> ids.shape, ids[:, :3].tolist()
    ((2, 7), [[0, 2, 318], [2, 318, 1161]])
    """
    w = as_weights(weights, config)
    require_decoder(w)
    like, vocabulary = w.word_embeddings, w.config.vocab_size
    max_new_tokens = check_integer("max_new_tokens", max_new_tokens, least=1)
    temperature, seed = _temperature(temperature), check_integer("seed", seed)
    if top_k is not None:
        top_k = min(check_integer("top_k", top_k, least=1), vocabulary)
    ends, fill = _ends_and_fill(w.config, eos_token_id, pad_token_id)

    if _differ_in_length(input_ids):
        input_ids, attention_mask, token_type_ids = _padded_on_the_left(input_ids, attention_mask, token_type_ids, fill)
    ids = to_numpy(check_integers("input_ids", input_ids, like, (None, None), below=vocabulary))
    mask = types = None
    if attention_mask is not None:
        mask = to_numpy(check_numbers("attention_mask", attention_mask, like, ids.shape, from_0_to_1=True))
        _refuse_padding_on_the_right(mask)
    if token_type_ids is not None:
        below = w.config.type_vocab_size
        types = to_numpy(check_integers("token_type_ids", token_type_ids, like, ids.shape, below=below))
    _check_room(w.config, ids.shape[1], max_new_tokens)
    if encoder_attention_mask is not None and count_axes(encoder_attention_mask) != 2:
        axes = count_axes(encoder_attention_mask)
        raise ValueError(f"encoder_attention_mask: expected shape ({len(ids)}, any), got {axes} axes")

    ended, past = np.zeros(len(ids), bool), None
    for step in range(max_new_tokens):
        new = slice(None) if past is None else slice(-1, None)  # the tokens that are not in the cache
        out = causal_lm(
            w,
            ids[:, new],
            attention_mask=mask,
            token_type_ids=None if types is None else types[:, new],
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past,
            use_cache=use_cache,
            last_only=True,
        )
        past = out.past_key_values
        logits = to_numpy(out.logits).astype(np.float64)  # (B, V)
        _check_logits(logits, step)
        if temperature > 0:
            numbers = np.array([uniform(1, seed, "generate", step, row)[0] for row in range(len(ids))])
            chosen = sample(logits, numbers, temperature=temperature, top_k=top_k)
        else:
            chosen = np.argmax(logits, axis=-1)
        chosen = np.where(ended, fill, chosen)  # (B,)
        ids = np.concatenate([ids, chosen[:, None]], axis=1)
        if mask is not None:
            mask = np.concatenate([mask, np.ones_like(mask[:, :1])], axis=1)
        if types is not None:
            types = np.concatenate([types, types[:, -1:]], axis=1)
        ended = ended | np.isin(chosen, ends)
        if ended.all():
            break
    return asarray_like(like, ids, "int64")


def sample(logits: np.ndarray, numbers: np.ndarray, *, temperature: float, top_k: int | None = None) -> np.ndarray:
    """Choose a token for each row: the first one whose cumulative probability is more than the row's random number.

    Parameters
    ----------
    logits : (B, V) float64 array
        The scores; the largest of each row is finite.
    numbers : (B,) float64 array
        Uniform random numbers, 0 or more and less than 1.
    temperature : float
        What the scores are divided by, more than 0.
    top_k : int, optional
        The number of likeliest tokens to choose from, and besides them those as likely as the last of them.

    Returns
    -------
    (B,) array of int64
        The ids.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.log([[0.2, 0.5, 0.3]] * 3)
    >>> sample(logits, np.array([0.1, 0.6, 0.9]), temperature=1.0)
    array([0, 1, 2])
    >>> sample(logits, np.array([0.1, 0.6, 0.9]), temperature=1.0, top_k=2)
    array([1, 1, 2])
    """
    with np.errstate(over="ignore"):  # a small temperature makes scores infinite, whose probability is 0
        scores = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    if top_k is not None:
        last = np.partition(scores, -top_k, axis=-1)[:, -top_k, None]  # (B, 1)
        scores = np.where(scores < last, -np.inf, scores)
    cumulative = np.cumsum(np.asarray(softmax(scores)), axis=-1)  # (B, V)
    # The last one is 1 up to rounding. A number is 1 − 2⁻⁵³ at most, and so its product is less than the last one.
    chosen: np.ndarray = (cumulative <= numbers[:, None] * cumulative[:, -1:]).sum(axis=-1, dtype=np.int64)
    return chosen


def _ends_and_fill(config: Config, eos_token_id: Any, pad_token_id: Any) -> tuple[list[int], int]:
    """Check the ids that end a row, and the id that fills it then."""
    most = config.vocab_size - 1
    if eos_token_id is None:
        given = config.eos_token_id
        ends = [] if given is None else [given] if isinstance(given, int) else list(given)
        if beyond := [each for each in ends if each > most]:
            raise ValueError(
                f"eos_token_id: expected an id from 0 to {most}, or an empty list for none, got None, and "
                f"{beyond[0]} in the configuration"
            )
    elif count_axes(eos_token_id) == 1:
        ends = [check_integer("eos_token_id", each, least=0, most=most) for each in eos_token_id]
    else:
        ends = [check_integer("eos_token_id", eos_token_id, least=0, most=most)]
    if pad_token_id is not None:
        return ends, check_integer("pad_token_id", pad_token_id, least=0, most=most)
    if config.pad_token_id is not None:
        return ends, config.pad_token_id
    return ends, ends[0] if ends else 0  # with no end there is padding on the left alone, which is masked


def _differ_in_length(rows: Any) -> bool:
    """Say whether these are lists of different lengths."""
    return (
        isinstance(rows, (list, tuple))
        and all(isinstance(row, (Sequence, np.ndarray)) and count_axes(row) > 0 for row in rows)
        and len({len(row) for row in rows}) > 1
    )


def _padded_on_the_left(
    rows: Sequence[Any], attention_mask: Any, token_type_ids: Any, fill: int
) -> tuple[Any, Any, Any]:
    """Pad lists of different lengths, mask the padding, and give it token type 0."""
    if attention_mask is not None:
        raise ValueError(
            "attention_mask: expected None, because lists of different lengths are padded and masked here, got "
            f"{kind_of(attention_mask)}"
        )
    lengths = [len(row) for row in rows]
    if 0 in lengths:
        raise ValueError(f"input_ids: expected at least one token in each prompt, got none in row {lengths.index(0)}")
    padding = [max(lengths) - length for length in lengths]
    if token_type_ids is not None:
        if not _differ_in_length(token_type_ids) or [len(row) for row in token_type_ids] != lengths:
            raise ValueError(
                f"token_type_ids: expected lists as long as the prompts, {lengths}, got {kind_of(token_type_ids)}"
            )
        token_type_ids = [[0] * pad + list(row) for pad, row in zip(padding, token_type_ids, strict=True)]
    ids = [[fill] * pad + list(row) for pad, row in zip(padding, rows, strict=True)]
    mask = [[0] * pad + [1] * length for pad, length in zip(padding, lengths, strict=True)]
    return ids, mask, token_type_ids


def _refuse_padding_on_the_right(mask: np.ndarray) -> None:
    wrong = np.flatnonzero(mask[:, -1] == 0)
    if wrong.size:
        raise ValueError(
            "attention_mask: expected padding on the left, because a new token comes after the last column, got 0 at "
            f"the end of row {wrong[0]}: pass input_ids as lists of different lengths, without a mask"
        )


def _check_room(config: Config, length: int, max_new_tokens: int) -> None:
    """Check that there are positions for all tokens but the last, which the model is not given any more."""
    if config.longest_text is None:
        return
    room = config.longest_text - length + 1
    if 1 <= room < max_new_tokens:  # a prompt without room for one is refused by `causal_lm`
        raise ValueError(
            f"max_new_tokens: expected at most {room} after {length} tokens, because max_position_embeddings is "
            f"{config.max_position_embeddings}, got {max_new_tokens}"
        )


def _check_logits(logits: np.ndarray, step: int) -> None:
    wrong = np.flatnonzero(~np.isfinite(logits.max(axis=-1)))  # the largest of numbers with NaN is NaN
    if wrong.size:
        row = wrong[0]
        raise ValueError(
            f"weights: expected finite logits, got {logits[row].max()} for token {step} after prompt {row}"
        )


def _temperature(value: Any) -> float:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise TypeError(f"temperature: expected a number, got {value!r}")
    if not 0 <= value < math.inf:  # written so that NaN is refused too
        raise ValueError(f"temperature: expected a number from 0 on, got {value}")
    return float(value)
