"""The model: embeddings, then encoder layers, then the pooler (Wei et al. 2019; Devlin et al. 2019, figure 1).

`forward` checks its arguments and calls `backbone`, which runs `embeddings`, `encoder` and `pooler`. `encoder` stacks
`encoder_layer`, a layer is `attention` and `feed_forward`, and `self_attention` is where NEZHA's relative positions and
ConvBERT's convolutions enter. What differs between the families is in `nezha_np.families`.

The file has more than 400 lines because the model is to be read in one piece; more than half of it are docstrings.

Dimension letters: B batch, L length, Q query length, S key length, N heads, D head size, H hidden, E embedding (H, but
for ConvBERT), F feed-forward, I and O features in and out, K max relative position, P the
length of a cache (S = P + Q).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from nezha_np.mechanism import View, checkpointed, composite
from nezha_np.model.arguments import Call, Inputs, KeysAndValues, check_call
from nezha_np.model.outputs import ModelOutput
from nezha_np.weights.weights import Weights, as_weights

Arrays = tuple[Array, ...]


@composite
def embeddings(tokens: Array, token_type_ids: Array, position_ids: Array | None, w: View) -> Array:
    """Add up word, token type and position embeddings, then normalise: (B, L) -> (B, L, E).

    Parameters
    ----------
    tokens : (B, L) array of int or (B, L, E) float array
        Ids, or vectors in place of their word embeddings.
    token_type_ids : (B, L) array of int
        The token types.
    position_ids : (B, L) array of int or None
        The positions, where the family learns a vector for each.
    w : View
        ``embeddings``.

    Returns
    -------
    (B, L, E) float array
        The first hidden states.
    """
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
    """Multi-head attention, before its output layer: of `x` to itself, or to the encoder's `states` (cross-attention).

    Parameters
    ----------
    x : (B, Q, H) float array
        Hidden states, from which the queries are made.
    w : View
        ``encoder.layer.0.attention.self``, or ``crossattention.self``.
    table : (2K + 1, D) float array or None
        The table of relative positions, where the family has one.
    mask : (B or 1, 1, Q or 1, S) float array, optional
        The additive mask; None: every query attends to every key.
    head_mask : (N,) float array, optional
        A factor for each head.
    states : (B, S, H) float array, optional
        What keys and values are made from in cross-attention; None: from `x`.
    past : tuple of (B, N, P, D) float arrays, optional
        Cached keys and values: those of earlier tokens, or in cross-attention all of them.
    position : int
        The position of the first query.
    returns_probs : bool
        Whether to return the probabilities.

    Returns
    -------
    context : (B, Q, N·D) float array
        The context; (B, Q, 2·N·D) where the family has convolutions too.
    probs : (B, N, Q, S) float array or None
        The attention probabilities.
    keys_and_values : tuple of (B, N, S, D) float arrays
        All keys and values, for a cache.
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
    """Make queries, keys and values by three linear layers.

    Parameters
    ----------
    x, w, states, past
        As for `self_attention`.

    Returns
    -------
    query : (B, Q, N·D) float array
        The queries, before they are split into heads.
    q : (B, N, Q, D) float array
        The queries.
    k, v : (B, N, S, D) float array
        Keys and values, those of the cache first.
    """
    size = w.config.head_size
    query = linear(x, w["query.weight"], w["query.bias"])
    q = split_heads(query, head_size=size, name="q")  # (B, N, Q, D)
    if states is not None and past is not None:
        return query, q, past[0], past[1]
    source = x if states is None else states
    k = split_heads(linear(source, w["key.weight"], w["key.bias"]), head_size=size, name="k")
    v = split_heads(linear(source, w["value.weight"], w["value.bias"]), head_size=size, name="v")
    if past is not None:
        k = append_keys(past[0], k, name="all_k")  # (B, N, S, D)
        v = append_keys(past[1], v, name="all_v")
    return query, q, k, v


def dense(x: Array, w: View) -> Array:
    """Apply a linear layer to each token, a grouped one where the weight has an axis of groups.

    Parameters
    ----------
    x : (B, L, I) float array
        The tokens.
    w : View
        The view that holds ``dense.weight`` and ``dense.bias``.

    Returns
    -------
    (B, L, O) float array
        The mapped tokens.
    """
    layer = grouped_linear if w["dense.weight"].ndim == 3 else linear
    return layer(x, w["dense.weight"], w["dense.bias"])


@composite
def residual_output(x: Array, residual: Array, w: View) -> Array:
    """End a block (post-norm): linear, dropout, add the residual, normalise.

    Parameters
    ----------
    x : (B, L, I) float array
        The result of the block, with I features.
    residual : (B, L, H) float array
        The input of the block.
    w : View
        ``encoder.layer.0.attention.output`` or ``encoder.layer.0.output``.

    Returns
    -------
    (B, L, H) float array
        Hidden states.
    """
    x = dropout(dense(x, w), rate=w.config.hidden_dropout_prob)
    x = add(x, residual, name="residual")
    return layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)


@composite
def attention(x: Array, w: View, **options: Any) -> tuple[Array, Array | None, KeysAndValues]:
    """Apply attention and its output layer: (B, L, H) -> (B, L, H).

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.
    w : View
        ``encoder.layer.0.attention`` or ``encoder.layer.0.crossattention``.
    **options
        As for `self_attention`.

    Returns
    -------
    x : (B, L, H) float array
        Hidden states.
    probs, keys_and_values
        As for `self_attention`.
    """
    context, probs, keys_and_values = self_attention(x, w.at("self"), **options)
    return residual_output(context, x, w.at("output")), probs, keys_and_values


@composite
def intermediate(x: Array, w: View) -> Array:
    """Apply the first half of the position-wise feed-forward network, linear then activation: (B, L, H) -> (B, L, F).

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.
    w : View
        ``encoder.layer.0.intermediate``.

    Returns
    -------
    (B, L, F) float array
        The activations.
    """
    return activation(w.config.hidden_act)(dense(x, w), name="intermediate_act_fn")


@composite
def feed_forward(x: Array, w: View) -> Array:
    """Apply the position-wise feed-forward network: (B, L, H) -> (B, L, F) -> (B, L, H).

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.
    w : View
        ``encoder.layer.0``.

    Returns
    -------
    (B, L, H) float array
        Hidden states.
    """
    return residual_output(intermediate(x, w.at("intermediate")), x, w.at("output"))


@checkpointed
@composite
def encoder_layer(
    x: Array, w: View, *, table: Array | None, call: Call, head_mask: Array | None, past: KeysAndValues | None
) -> tuple[Array, Array | None, Array | None, KeysAndValues]:
    """Apply one layer: self-attention, in a decoder perhaps cross-attention, and the feed-forward network.

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.
    w : View
        ``encoder.layer.0``.
    table : (2K + 1, D) float array or None
        The table of relative positions, where the family has one.
    call : Call
        The checked arguments.
    head_mask : (N,) float array or None
        A factor for each head.
    past : tuple of arrays or None
        This layer's cached keys and values: two of self-attention, then those of cross-attention.

    Returns
    -------
    x : (B, L, H) float array
        Hidden states.
    probs, cross_probs : (B, N, Q, S) float array or None
        The probabilities of both attentions, where the call asks for them.
    keys_and_values : tuple of (B, N, S, D) float arrays
        All keys and values of both, for a cache.
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
def encoder(
    x: Array, w: View, *, table: Array | None, call: Call
) -> tuple[Array, Arrays, Arrays, Arrays, tuple[KeysAndValues, ...]]:
    """Apply all layers, one after the other: (B, L, H) -> (B, L, H).

    Only what the call asks for is held until the end: for a long text the rest would need more memory than the weights.

    Parameters
    ----------
    x : (B, L, H) float array
        The embeddings.
    w : View
        ``encoder``.
    table : (2K + 1, D) float array or None
        The table of relative positions, where the family has one.
    call : Call
        The checked arguments.

    Returns
    -------
    x : (B, L, H) float array
        The last hidden states.
    hidden_states, attentions, cross_attentions : tuple of arrays
        Those of each layer, the embeddings first, and the probabilities of both attentions; empty where the call does
        not ask for them.
    present : tuple of tuple of arrays
        The cache: keys and values of each layer; empty where the call does not ask for it.
    """
    hidden_states = [x] if call.returns_hidden_states else []
    attentions: list[Array] = []
    cross_attentions: list[Array] = []
    present: list[KeysAndValues] = []
    for index, (head_mask, past) in enumerate(zip(call.head_masks, call.caches, strict=True)):
        x, probs, cross_probs, keys_and_values = encoder_layer(
            x, w.at(f"layer.{index}"), table=table, call=call, head_mask=head_mask, past=past
        )
        if call.returns_hidden_states:
            hidden_states.append(x)
        if probs is not None:
            attentions.append(probs)
        if cross_probs is not None:
            cross_attentions.append(cross_probs)
        if call.returns_cache:
            present.append(keys_and_values)
    return x, tuple(hidden_states), tuple(attentions), tuple(cross_attentions), tuple(present)


@composite
def pooler(x: Array, w: View) -> Array:
    """Represent a text by its first token: tanh(W x₀ + b), (B, L, H) -> (B, H).

    Parameters
    ----------
    x : (B, L, H) float array
        The last hidden states.
    w : View
        ``pooler``.

    Returns
    -------
    (B, H) float array
        A vector for each text.
    """
    first = first_token(x)
    return tanh(linear(first, w["dense.weight"], w["dense.bias"]), name="activation")


def forward(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> ModelOutput:
    """Run the model (transformers NezhaModel, BertModel, ConvBertModel: the configuration says which).

    Parameters
    ----------
    weights : Weights or mapping of str to array
        The weights, arrays of one library, dtype and device; a plain mapping, a dict for example, needs `config`.
    input_ids : (B, L) array_like of int
        The ids of the tokens, from 0 to ``vocab_size - 1``.
    attention_mask : (B, S) or (B, L, S) array_like, optional
        1 for a token that may be attended to, 0 for padding; with a cache S counts its tokens too. A (B, L, S) mask
        has a row for each query, and replaces a decoder's causal mask.
    token_type_ids : (B, L) array_like of int, optional
        0 for the first text, 1 for the second; None: all 0.
    position_ids : (B, L) or (1, L) array_like of int, optional
        The position of each token, from 0 to ``max_position_embeddings - 1``, for ConvBERT and for BERT with absolute
        positions; None: one after another, after those of a cache. Models with relative positions take none.
    head_mask : (N,) or (layers, N) array_like, optional
        A factor for the probabilities of each head: 0 switches it off. It does not act on ConvBERT's convolutions.
    inputs_embeds : (B, L, E) float array, optional
        Vectors in place of the word embeddings of `input_ids`.
    encoder_hidden_states : (B, S, H) float array, optional
        What a decoder with cross-attention attends to; S may differ from L. ConvBERT is no decoder and refuses this
        argument, the next two and ``use_cache=True``.
    encoder_attention_mask : (B, S) or (B, L, S) array_like, optional
        1 for a token of the encoder that may be attended to.
    past_key_values : sequence, optional
        The cache that an earlier call returned: the tokens of this call follow its P tokens.
    use_cache : bool, optional
        Whether a decoder returns a cache; None: what the configuration says. An encoder never does.
    output_attentions, output_hidden_states : bool
        Whether to return the attention probabilities, or the hidden states, of each layer.
    config : NezhaConfig, BertConfig or ConvBertConfig, optional
        A configuration that replaces that of `weights`.

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
    ((1, 3, 256), 5)
    """
    w = as_weights(weights, config)
    return backbone(w, check_call(w, "forward", input_ids, inputs), pooled=True)


def backbone(weights: Weights, call: Call, *, pooled: bool) -> ModelOutput:
    """Run the model on checked arguments: the part that `forward` and all task heads share.

    Parameters
    ----------
    weights : Weights
        The weights.
    call : Call
        The checked arguments.
    pooled : bool
        Whether to run the pooler, where the weights have one.

    Returns
    -------
    ModelOutput
        Hidden states and what was asked for.
    """
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
    """Return the table of relative positions, which is made once and cached with the weights.

    Parameters
    ----------
    weights : Weights
        The weights.

    Returns
    -------
    (2K + 1, D) float array or None
        The table; None where the family has none.
    """
    config, make = weights.config, family_of(weights.config).position_table
    if make is None:
        return None
    table = weights.cached("relative_positions", lambda: make(weights.word_embeddings, config))
    return as_constant(table, name="relative_positions")
