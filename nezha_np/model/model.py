"""The model: embeddings, then encoder layers, then the pooler (Wei et al. 2019; Devlin et al. 2019, figure 1).

Read it from the bottom up: `forward` checks its arguments, `encoder` stacks `encoder_layer`, a layer is `attention` and
`feed_forward`, and `self_attention` is where NEZHA's relative positions and ConvBERT's convolutions enter. What differs
between the three families is in `nezha_np.families`.

Dimension letters: B batch, L length, Q query length, S key length, N heads, D head size, H hidden, E embedding (H, but
for ConvBERT), F feed-forward, P the length of a cache (S = P + Q).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Unpack

from nezha_np.arrays import Array
from nezha_np.families.config import Config
from nezha_np.families.family import family_of
from nezha_np.layers.activations import activation, tanh
from nezha_np.layers.addition import add
from nezha_np.layers.attention import (
    append_keys,
    attention_probs,
    mask_heads,
    merge_heads,
    split_heads,
)
from nezha_np.layers.dropout import dropout
from nezha_np.layers.embedding import embedding
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.masks import as_constant
from nezha_np.layers.selection import first_token
from nezha_np.layers.span_convolution import join_features
from nezha_np.mechanism import View, composite
from nezha_np.model.arguments import Call, Inputs, KeysAndValues, check_call
from nezha_np.weights.weights import Weights, as_weights

Arrays = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class ModelOutput:
    """What `forward` returns; a field that was not asked for is None.

    Attributes
    ----------
    last_hidden_state : (B, L, H) array
        The hidden states of the last layer.
    pooler_output : (B, H) array or None
        The first token's, through a linear layer and tanh; None where the weights have no pooler.
    past_key_values : tuple or None
        A decoder's cache: for each layer keys and values, (B, N, S, D) each, and those of the cross-attention.
    hidden_states : tuple of (B, L, H) arrays or None
        The embeddings, and the output of each layer.
    attentions, cross_attentions : tuple of (B, N, Q, S) arrays or None
        The attention probabilities of each layer.
    """

    last_hidden_state: Array
    pooler_output: Array | None = None
    past_key_values: tuple[KeysAndValues, ...] | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None


@composite
def embeddings(tokens: Array, token_type_ids: Array, position_ids: Array | None, w: View) -> Array:
    """Make the first hidden states, (B, L, E): word, token type, and position where the family learns its vectors."""
    if tokens.ndim == 2:  # ids, and not vectors in their place
        tokens = embedding(
            tokens, w["word_embeddings.weight"], padding_idx=w.config.pad_token_id
        )  # (B, L) -> (B, L, E)
    x = add(tokens, embedding(token_type_ids, w["token_type_embeddings.weight"]), name="sum")
    if position_ids is not None:
        x = add(x, embedding(position_ids, w["position_embeddings.weight"]), name="sum_with_positions")
    x = layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)
    return dropout(x, rate=w.config.hidden_dropout_prob)


@composite
def self_attention(
    x: Array,
    w: View,
    *,
    table: Array | None,
    mask: Array | None = None,
    head_mask: Array | None = None,
    states: Array | None = None,
    past: KeysAndValues | None = None,
    position: int = 0,
    returns_probs: bool = True,
) -> tuple[Array, Array | None, KeysAndValues]:
    """Let each token of `x` look at all tokens, or at the encoder's `states`, by content and by position.

    `past` holds keys and values that came before (or, with `states`, all of them); the first query is at `position`.
    Returns the context (B, Q, N·D), with convolutions beside the heads (B, Q, 2·N·D), the probabilities (B, N, Q, S) if
    they are asked for, and keys and values for a cache.
    """
    config, family = w.config, family_of(w.config)
    query, q, k, v = queries_keys_values(x, w, states=states, past=past)
    scores = family.scores(q, k, w, table=table, past=position, cross=states is not None)  # (B, N, Q, S)
    probs = attention_probs(scores, mask, scale=1.0 / math.sqrt(config.head_size), name="probs")
    probs = dropout(probs, rate=config.attention_probs_dropout_prob)
    if head_mask is not None:
        probs = mask_heads(probs, head_mask, name="masked_probs")
    context = family.context(probs, v, table=table, past=position)  # (B, N, Q, D)
    context = merge_heads(context, name="merged")
    if family.beside_heads is not None:
        context = join_features(context, family.beside_heads(x, query, w), name="joined")
    return context, probs if returns_probs else None, (k, v)


def queries_keys_values(
    x: Array, w: View, *, states: Array | None, past: KeysAndValues | None
) -> tuple[Array, Array, Array, Array]:
    """Map tokens to queries, (B, Q, N·D) and in heads (B, N, Q, D), and to keys and values in heads, (B, N, S, D)."""
    size = w.config.head_size
    query = linear(x, w["query.weight"], w["query.bias"])
    q = split_heads(query, head_size=size, name="q")  # (B, N, Q, D)
    if states is not None and past is not None:
        return query, q, *past
    source = x if states is None else states
    k = split_heads(linear(source, w["key.weight"], w["key.bias"]), head_size=size, name="k")
    v = split_heads(linear(source, w["value.weight"], w["value.bias"]), head_size=size, name="v")
    if past is not None:
        k = append_keys(past[0], k, name="all_k")  # (B, N, S, D)
        v = append_keys(past[1], v, name="all_v")
    return query, q, k, v


def dense(x: Array, w: View) -> Array:
    """Map each token by a linear layer, one with groups where the matrix has them."""
    layer = grouped_linear if w["dense.weight"].ndim == 3 else linear
    return layer(x, w["dense.weight"], w["dense.bias"])


@composite
def residual_output(x: Array, residual: Array, w: View) -> Array:
    """Map back to H features, add what came in, and normalise: the end of every block (post-norm)."""
    x = dropout(dense(x, w), rate=w.config.hidden_dropout_prob)
    x = add(x, residual, name="residual")
    return layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)


@composite
def attention(x: Array, w: View, **options: Any) -> tuple[Array, Array | None, KeysAndValues]:
    """Look around, and add what was seen to each token: (B, L, H) -> (B, L, H)."""
    context, probs, keys_and_values = self_attention(x, w.at("self"), **options)
    return residual_output(context, x, w.at("output")), probs, keys_and_values


@composite
def intermediate(x: Array, w: View) -> Array:
    """Widen each token and bend it: (B, L, H) -> (B, L, F)."""
    return activation(w.config.hidden_act)(dense(x, w), name="intermediate_act_fn")


@composite
def feed_forward(x: Array, w: View) -> Array:
    """Think about each token by itself: (B, L, H) -> (B, L, F) -> (B, L, H)."""
    return residual_output(intermediate(x, w.at("intermediate")), x, w.at("output"))


@composite
def encoder_layer(
    x: Array, w: View, *, table: Array | None, call: Call, head_mask: Array | None, past: KeysAndValues | None
) -> tuple[Array, Array | None, Array | None, KeysAndValues]:
    """Apply one layer: attention, in a decoder cross-attention too, and feed-forward.

    Returns hidden states (B, L, H), the probabilities of both attentions if they are asked for, and all keys and values
    for a cache.
    """
    shared = {
        "table": table,
        "head_mask": head_mask,
        "position": call.position,
        "returns_probs": call.returns_attentions,
    }
    own, encoded = (None, None) if past is None else (past[:2], past[2:] or None)
    x, probs, present = attention(x, w.at("attention"), mask=call.mask, past=own, **shared)
    cross_probs = None
    if call.states is not None:
        x, cross_probs, cross_present = attention(
            x, w.at("crossattention"), mask=call.states_mask, states=call.states, past=encoded, **shared
        )
        present = (*present, *cross_present)
    return feed_forward(x, w), probs, cross_probs, present


@composite
def encoder(x: Array, w: View, *, table: Array | None, call: Call) -> tuple[Array, Arrays, Arrays, Arrays, Arrays]:
    """Apply all layers, one after the other: (B, L, H) -> (B, L, H).

    Returns the last hidden states, and what was asked for of each layer: hidden states (the embeddings first), both
    attentions' probabilities, and keys and values. The rest is let go: of a long text it outweighs the weights.
    """
    hidden_states = [x] if call.returns_hidden_states else []
    attentions, cross_attentions, present = [], [], []
    for index, (head_mask, past) in enumerate(zip(call.head_masks, call.caches, strict=True)):
        x, probs, cross_probs, keys_and_values = encoder_layer(
            x, w.at(f"layer.{index}"), table=table, call=call, head_mask=head_mask, past=past
        )
        if call.returns_hidden_states:
            hidden_states.append(x)
        if call.returns_attentions:
            attentions.append(probs)
            cross_attentions.append(cross_probs)
        if call.returns_cache:
            present.append(keys_and_values)
    return x, tuple(hidden_states), tuple(attentions), tuple(cross_attentions), tuple(present)


@composite
def pooler(x: Array, w: View) -> Array:
    """Summarise a text by its first token: tanh(W x₀ + b), (B, L, H) -> (B, H)."""
    first = first_token(x)
    return tanh(linear(first, w["dense.weight"], w["dense.bias"]), name="activation")


def forward(
    weights: Weights | Any,
    input_ids: Any = None,
    *,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> ModelOutput:
    """Run the model (transformers NezhaModel, BertModel, ConvBertModel: the configuration says which).

    Parameters
    ----------
    weights : Weights or mapping of str to array
        The weights; a plain mapping needs `config`.
    input_ids : (B, L) array_like of int
        The ids of the tokens, from 0 to ``vocab_size - 1``.
    attention_mask : (B, S) or (B, L, S) array_like, optional
        1 for a token that may be attended to, 0 for padding; with a cache S counts its tokens too. A (B, L, S) mask
        says it for each query, and replaces a decoder's causal mask.
    token_type_ids : (B, L) array_like of int, optional
        0 for the first text, 1 for the second; None: all 0.
    position_ids : (B, L) or (1, L) array_like of int, optional
        Where each token stands, from 0 to ``max_position_embeddings - 1``, for ConvBERT and for BERT with absolute
        positions; None: one after another, after those of a cache. Relative positions have none.
    head_mask : (N,) or (layers, N) array_like, optional
        A factor for the probabilities of each head: 0 switches it off. ConvBERT's convolutions are no heads.
    inputs_embeds : (B, L, E) float array, optional
        Vectors in place of the word embeddings of `input_ids`.
    encoder_hidden_states : (B, S, H) float array, optional
        What a decoder with cross-attention attends to; S may differ from L. ConvBERT is no decoder: this, the next, a
        cache and ``use_cache=True`` are refused there.
    encoder_attention_mask : (B, S) or (B, L, S) array_like, optional
        1 for a token of the encoder that may be attended to.
    past_key_values : sequence, optional
        The cache that an earlier call returned: the tokens of this call come after its P tokens.
    use_cache : bool, optional
        Whether a decoder returns a cache; None: what the configuration says. An encoder never does.
    output_attentions, output_hidden_states : bool
        What to return besides.
    config : NezhaConfig, BertConfig or ConvBertConfig, optional
        A configuration in place of that of `weights`.

    Returns
    -------
    ModelOutput
        Hidden states and what was asked for, in the dtype of the weights.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument has a wrong shape or value, or arguments do not go together; the message names it.

    Notes
    -----
    A row with every key masked attends uniformly. NEZHA's texts may be longer than ``max_position_embeddings``.
    ConvBERT's convolutions read padding like text, masked or not, as in the reference.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> out = nz.forward(weights, [[2, 3, 4]], output_hidden_states=True)
    >>> out.last_hidden_state.shape, len(out.hidden_states)
    ((1, 3, 128), 5)
    """
    w = as_weights(weights, config)
    return backbone(w, check_call(w, "forward", input_ids, inputs), pooled=True)


def backbone(weights: Weights, call: Call, *, pooled: bool) -> ModelOutput:
    """Run the model on checked arguments, with its pooler if it has one, or without: the part that all heads share."""
    w = View(weights)
    x = embeddings(call.tokens, call.token_type_ids, call.position_ids, w.at("embeddings"))  # (B, L, E)
    if "embeddings_project.weight" in weights:
        x = linear(x, w["embeddings_project.weight"], w["embeddings_project.bias"])  # (B, L, H)
    x, hidden_states, attentions, cross_attentions, present = encoder(
        x, w.at("encoder"), table=cached_table(weights), call=call
    )
    return ModelOutput(
        last_hidden_state=x,
        pooler_output=pooler(x, w.at("pooler")) if pooled and weights.has_pooler else None,
        past_key_values=present if call.returns_cache else None,
        hidden_states=hidden_states if call.returns_hidden_states else None,
        attentions=attentions if call.returns_attentions else None,
        cross_attentions=cross_attentions if call.returns_attentions and call.states is not None else None,
    )


def cached_table(weights: Weights) -> Array | None:
    """Return the table of relative positions, made once and kept with the weights; None where the family has none."""
    config, make = weights.config, family_of(weights.config).position_table
    if make is None:
        return None
    table = weights.cached("relative_positions", lambda: make(weights.word_embeddings, config))
    return as_constant(table, name="relative_positions")
