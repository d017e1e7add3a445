"""What the model and its task heads return: arrays by name, None for what was not asked for.

Dimension letters: B batch, L length, Q query length, S key length, N heads, D head size, H hidden, V vocabulary,
C classes or choices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from nezha_np.arrays import Array, register_pytree
from nezha_np.model.arguments import KeysAndValues


class Output:
    """What the results of the model and of all heads can do.

    The fields that are not None stand in the order of the reference's ``to_tuple()``. They are reached by name, by
    number, and by unpacking. (To unpack the reference's own output gives the names, not the arrays.) JAX takes a result
    apart, a pytree: ``jax.jit`` may return one.

    Examples
    --------
    >>> import nezha_np as nz
    >>> out = nz.masked_lm(nz.load(), [[2, 318, 3]], labels=[[-100, 318, -100]])
    >>> loss, logits = out
    >>> out[0] is loss, out["logits"] is logits, "attentions" in out, len(out)
    (True, True, False, 2)
    """

    def __post_init__(self) -> None:
        """Tell JAX what this is, where it is imported."""
        register_pytree(type(self))

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are not None.

        Returns
        -------
        tuple of array, or of tuple of arrays
            The fields, in their order.

        Examples
        --------
        >>> import nezha_np as nz
        >>> last, pooled = nz.forward(nz.load(), [[2, 318, 3]]).to_tuple()
        >>> last.shape, pooled.shape
        ((1, 3, 256), (1, 256))
        """
        return tuple(value for value in vars(self).values() if value is not None)

    def __getitem__(self, index: int | slice | str) -> Any:
        """Return a field by its name, or by its number among those that are not None."""
        if not isinstance(index, str):
            return self.to_tuple()[index]
        if index not in self:
            raise KeyError(index)
        return getattr(self, index)

    def __contains__(self, name: object) -> bool:
        """Say whether there is a field of this name that is not None."""
        return isinstance(name, str) and vars(self).get(name) is not None

    def __iter__(self) -> Iterator[Any]:
        """Go through the fields that are not None."""
        return iter(self.to_tuple())

    def __len__(self) -> int:
        """Return the number of fields that are not None."""
        return len(self.to_tuple())


@dataclasses.dataclass(frozen=True, eq=False)
class ModelOutput(Output):
    """What `nezha_np.forward` returns; a field that was not asked for is None.

    Attributes
    ----------
    last_hidden_state : (B, L, H) array
        The hidden states of the last layer.
    pooler_output : (B, H) array or None
        The first token's hidden state after the pooler, a linear layer and tanh; None where the weights have no pooler.
    hidden_states : tuple of (B, L, H) arrays or None
        The embeddings, and the output of each layer.
    past_key_values : tuple or None
        A decoder's cache: for each layer keys and values, (B, N, S, D) each, and those of the cross-attention.
    attentions, cross_attentions : tuple of (B, N, Q, S) arrays or None
        The attention probabilities of each layer.

    Examples
    --------
    >>> import nezha_np as nz
    >>> out = nz.forward(nz.load(), [[2, 318, 3]])
    >>> isinstance(out, nz.ModelOutput), out.last_hidden_state.shape, out.attentions
    (True, (1, 3, 256), None)
    """

    last_hidden_state: Array
    pooler_output: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    past_key_values: tuple[KeysAndValues, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class HeadOutput(Output):
    """What most task heads return.

    Attributes
    ----------
    loss : () array or None
        The loss; None without labels.
    logits : array
        The scores before the softmax, in the shape that the head names.
    hidden_states, attentions : tuple of arrays or None
        As in `ModelOutput`.

    Examples
    --------
    >>> import nezha_np as nz
    >>> out = nz.masked_lm(nz.load(), [[2, 318, 3]])
    >>> isinstance(out, nz.HeadOutput), out.logits.shape, out.loss
    (True, (1, 3, 7000), None)
    """

    loss: Array | None
    logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class PretrainingOutput(Output):
    """What `nezha_np.pretraining` returns.

    Attributes
    ----------
    loss : () array or None
        The sum of both losses; None without both labels.
    prediction_logits : (B, L, V) array
        The scores of the language model.
    seq_relationship_logits : (B, 2) array
        The scores of whether the second text follows the first.
    hidden_states, attentions : tuple of arrays or None
        As in `ModelOutput`.

    Examples
    --------
    >>> import nezha_np as nz
    >>> out = nz.pretraining(nz.load(), [[2, 318, 3]])
    >>> isinstance(out, nz.PretrainingOutput), out.seq_relationship_logits.shape
    (True, (1, 2))
    """

    loss: Array | None
    prediction_logits: Array
    seq_relationship_logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class QuestionAnsweringOutput(Output):
    """What `nezha_np.question_answering` returns.

    Attributes
    ----------
    loss : () array or None
        The loss; None without both positions.
    start_logits, end_logits : (B, L) array
        The scores of each token as the first and as the last one of the answer.
    hidden_states, attentions : tuple of arrays or None
        As in `ModelOutput`.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.init(nz.load().config, "question_answering")
    >>> out = nz.question_answering(weights, [[2, 318, 3]])
    >>> isinstance(out, nz.QuestionAnsweringOutput), out.start_logits.shape
    (True, (1, 3))
    """

    loss: Array | None
    start_logits: Array
    end_logits: Array
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class CausalLMOutput(Output):
    """What `nezha_np.causal_lm` returns.

    Attributes
    ----------
    loss : () array or None
        The loss; None without labels.
    logits : (B, L, V) array
        The scores of each next token.
    past_key_values, hidden_states, attentions, cross_attentions : tuple or None
        As in `ModelOutput`.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> out = nz.causal_lm(weights, [[2, 318]], config=weights.config.replace(is_decoder=True))
    >>> isinstance(out, nz.CausalLMOutput), len(out.past_key_values)
    (True, 4)
    """

    loss: Array | None
    logits: Array
    past_key_values: tuple[KeysAndValues, ...] | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
