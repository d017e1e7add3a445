"""One call of the model: its arguments are checked, moved to the weights' device, and put into the layers' form.

Dimension letters: B batch, L length, Q query length, S key length, P the length of a cache, N heads, D head size,
H hidden, E embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypedDict

from nezha_np.arrays import Array, kind_of, namespace
from nezha_np.checks import check_switches
from nezha_np.families.family import family_of
from nezha_np.layers.masks import additive_mask, as_constant
from nezha_np.model.inputs import check_floats, check_integers, check_numbers, count_axes, count_rows, which_tokens
from nezha_np.weights.weights import Weights

KeysAndValues = tuple[Array, ...]  # of one layer: keys and values, and perhaps those of the cross-attention


class Inputs(TypedDict, total=False):
    """The arguments that `nezha_np.forward` and every task head take besides `input_ids`; `forward` describes them."""

    attention_mask: Any
    token_type_ids: Any
    position_ids: Any
    head_mask: Any
    inputs_embeds: Array | None
    encoder_hidden_states: Array | None
    encoder_attention_mask: Any
    past_key_values: Sequence[KeysAndValues] | None
    use_cache: bool | None
    output_attentions: bool
    output_hidden_states: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """The checked arguments of `nezha_np.forward`.

    Attributes
    ----------
    tokens : (B, L) array of int or (B, L, E) float array
        Ids, or vectors in their place.
    token_type_ids : (B, L) array of int
        The token types.
    position_ids : (B, L) array of int or None
        The position of each token, for families that learn a vector for each position.
    position : int
        P, the position of the first token: the number of tokens in the cache.
    mask, states_mask : (B or 1, 1, L or 1, S) float array or None
        The additive masks of self-attention and cross-attention; None: every query may attend to every key.
    states : (B, S, H) float array or None
        What the cross-attention attends to.
    head_masks : list of ((N,) float array or None)
        A factor for each head of each layer.
    caches : list of (tuple of arrays or None)
        Cached keys and values for each layer.
    returns_cache, returns_attentions, returns_hidden_states : bool
        What is to be returned besides the last hidden states.
    first_token_alone : bool
        Whether nothing but the first token of the last hidden states is read: a kernel may leave out the others.
    """

    tokens: Array
    token_type_ids: Array
    position_ids: Array | None
    position: int
    mask: Array | None
    states: Array | None
    states_mask: Array | None
    head_masks: list[Array | None]
    caches: list[KeysAndValues | None]
    returns_cache: bool
    returns_attentions: bool
    returns_hidden_states: bool
    first_token_alone: bool = False


def check_call(weights: Weights, function: str, input_ids: Any, inputs: Inputs) -> Call:
    """Check the arguments of `nezha_np.forward` or of a task head; `forward` describes them.

    Parameters
    ----------
    weights : Weights
        The weights, whose configuration says what is expected.
    function : str
        The name of the public function that was called, for an error.
    input_ids : array_like of int or None
        The ids of the tokens.
    inputs : Inputs
        The other arguments, those that were passed.

    Returns
    -------
    Call
        The checked arguments.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> check_call(nz.load(), "forward", [[2, 3]], {}).tokens
    array([[2, 3]])
    """
    if unknown := sorted(inputs.keys() - Inputs.__optional_keys__):
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown[0]!r}")
    config, family = weights.config, family_of(weights.config)
    use_cache = inputs.get("use_cache")
    output_attentions, output_hidden_states = (
        inputs.get(name, False) for name in ("output_attentions", "output_hidden_states")
    )
    check_switches(use_cache=use_cache, output_attentions=output_attentions, output_hidden_states=output_hidden_states)
    if not family.decodes:
        _refuse_decoding(family.title, inputs)
    inputs_embeds = inputs.get("inputs_embeds")
    tokens = _tokens(weights, input_ids, inputs_embeds)
    batch, length = tokens.shape[:2]
    states, states_mask = _states(
        weights, inputs.get("encoder_hidden_states"), inputs.get("encoder_attention_mask"), batch, length
    )
    caches = _caches(weights, inputs.get("past_key_values"), batch, None if states is None else states.shape[1])
    position = 0 if caches[0] is None else caches[0][0].shape[2]
    token_type_ids = inputs.get("token_type_ids")
    if token_type_ids is None:
        token_type_ids = [[0] * length] * batch
    return Call(
        tokens=tokens,
        token_type_ids=check_integers(
            "token_type_ids", token_type_ids, weights.word_embeddings, (batch, length), below=config.type_vocab_size
        ),
        position_ids=_position_ids(
            weights,
            inputs.get("position_ids"),
            batch,
            length,
            position,
            tokens=which_tokens(input_ids, inputs_embeds),
        ),
        position=position,
        mask=_mask(
            weights,
            "attention_mask",
            inputs.get("attention_mask"),
            (batch, length, position + length),
            causal=config.is_decoder,
        ),
        states=states,
        states_mask=states_mask,
        head_masks=_head_masks(weights, inputs.get("head_mask")),
        caches=caches,
        returns_cache=config.is_decoder and bool(config.use_cache if use_cache is None else use_cache),
        returns_attentions=bool(output_attentions),
        returns_hidden_states=bool(output_hidden_states),
    )


def _tokens(weights: Weights, input_ids: Any, inputs_embeds: Any) -> Array:
    """Check the tokens of a call: ids (B, L) or vectors (B, L, E)."""
    like, config = weights.word_embeddings, weights.config
    if which_tokens(input_ids, inputs_embeds) == "input_ids":
        return check_integers("input_ids", input_ids, like, (None, None), below=config.vocab_size)
    embeds = check_floats("inputs_embeds", inputs_embeds, like, (None, None, like.shape[1]))
    return as_constant(embeds, name="inputs_embeds")


def _position_ids(
    weights: Weights, position_ids: Any, batch: int, length: int, past: int, *, tokens: str
) -> Array | None:
    """Check the positions of the tokens, (B, L) or (1, L), and that the model has learned so many of them."""
    config, limit = weights.config, weights.config.longest_text
    if not config.learns_positions and position_ids is not None:
        kind = kind_of(position_ids)
        raise ValueError(
            f"position_ids: expected None, because this {config.model_type} model's positions are relative, got {kind}"
        )
    if limit is None:
        return None
    if position_ids is None and past + length > limit:
        after = f" after {past} of the cache" if past else ""
        raise ValueError(
            f"{tokens}: expected at most max_position_embeddings ({limit}) tokens, because the model has learned no "
            f"more positions, got {length}{after}"
        )
    if not config.learns_positions:
        return None
    if position_ids is None:
        position_ids = [list(range(past, past + length))]
    rows = 1 if count_rows(position_ids) == 1 else batch
    ids = check_integers("position_ids", position_ids, weights.word_embeddings, (rows, length), below=limit)
    return namespace(ids).concat([ids] * batch, axis=0) if rows < batch else ids


def _refuse_decoding(title: str, inputs: Inputs) -> None:
    """Refuse arguments that only a decoder takes."""
    of_decoders = {
        "encoder_hidden_states": inputs.get("encoder_hidden_states"),
        "encoder_attention_mask": inputs.get("encoder_attention_mask"),
        "past_key_values": inputs.get("past_key_values"),
        "use_cache": inputs.get("use_cache") or None,
    }
    for name, value in of_decoders.items():
        if value is not None:
            raise ValueError(f"{name}: expected None, because {title} is no decoder, got {kind_of(value)}")


def _mask(weights: Weights, name: str, mask: Any, shape: tuple[int, int, int], *, causal: bool = False) -> Array | None:
    """Check a mask, (B, S) or (B, L, S), and make it additive; None where every query may attend to every key."""
    batch, queries, keys = shape
    if mask is None and not causal:
        return None
    if mask is not None:
        by_query = count_axes(mask) == 3
        expected = shape if by_query else (batch, keys)
        mask = check_numbers(name, mask, weights.word_embeddings, expected, from_0_to_1=True)
    return additive_mask(weights.word_embeddings, mask, queries=queries, keys=keys, causal=causal, name=name)


def _states(
    weights: Weights, states: Any, states_mask: Any, batch: int, queries: int
) -> tuple[Array | None, Array | None]:
    """Check the encoder's hidden states and their mask, which a decoder's cross-attention takes."""
    if states is None:
        if states_mask is not None:
            raise ValueError("encoder_attention_mask: expected encoder_hidden_states with it, got none")
        return None, None
    if not weights.config.add_cross_attention:
        raise ValueError(
            "encoder_hidden_states: expected a config with is_decoder and add_cross_attention, got one without"
        )
    shape = (batch, None, weights.config.hidden_size)
    states = as_constant(
        check_floats("encoder_hidden_states", states, weights.word_embeddings, shape), name="encoder_hidden_states"
    )
    return states, _mask(weights, "encoder_attention_mask", states_mask, (batch, queries, states.shape[1]))


def _head_masks(weights: Weights, head_mask: Any) -> list[Array | None]:
    """Check the head mask and cut it into one of (N,) for each layer."""
    config = weights.config
    layers = config.num_hidden_layers
    if head_mask is None:
        return [None] * layers
    counts = {config.heads(index) for index in range(layers)}
    if config.add_cross_attention:  # whose heads are never pruned
        counts.add(config.attention_heads)
    if len(counts) > 1:
        raise ValueError(f"head_mask: expected None, because layers differ in their heads, got {kind_of(head_mask)}")
    axes, heads = count_axes(head_mask), counts.pop()
    shape = (layers, heads) if axes == 2 else (heads,)
    mask = check_numbers("head_mask", head_mask, weights.word_embeddings, shape)
    if axes != 2:
        return [as_constant(mask, name="head_mask")] * layers
    return [as_constant(mask[index, :], name=f"head_mask.{index}") for index in range(layers)]


def _caches(weights: Weights, past_key_values: Any, batch: int, encoded: int | None) -> list[KeysAndValues | None]:
    """Check a cache: for each layer keys and values, (B, N, P, D), and perhaps those of the cross-attention.

    `encoded` is the length of the encoder's states, None where there are none.
    """
    config = weights.config
    layers, counts = config.num_hidden_layers, (2, 4) if config.add_cross_attention else (2,)
    if past_key_values is None:
        return [None] * layers
    if not isinstance(past_key_values, (tuple, list)):
        raise TypeError(f"past_key_values: expected a tuple of arrays for each layer, got {kind_of(past_key_values)}")
    if len(past_key_values) != layers:
        raise ValueError(f"past_key_values: expected one tuple for each of {layers} layers, got {len(past_key_values)}")
    tokens = None  # P: that of the first array, which all others must have too
    caches: list[KeysAndValues | None] = []
    for index, arrays in enumerate(past_key_values):
        layer = f"past_key_values.{index}"
        if not isinstance(arrays, (tuple, list)):
            raise TypeError(f"{layer}: expected a tuple of arrays, got {kind_of(arrays)}")
        if len(arrays) not in counts:
            raise ValueError(f"{layer}: expected {' or '.join(map(str, counts))} arrays, got {len(arrays)}")
        checked: list[Array] = []
        for array, what in zip(arrays, ("key", "value", "cross_key", "cross_value"), strict=False):
            own = what in ("key", "value")
            heads = config.heads(index) if own else config.attention_heads
            shape = (batch, heads, tokens if own else encoded, config.head_size)
            name = f"{layer}.{what}"
            checked.append(as_constant(check_floats(name, array, weights.word_embeddings, shape), name=name))
            tokens = checked[0].shape[2] if tokens is None else tokens
        caches.append(tuple(checked))
    return caches
