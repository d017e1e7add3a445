"""The logit lens: what the language-model head says of the hidden states after each layer.

    logits_l = head(x_l),    x_0 the embeddings, x_l the hidden states after layer l

The head was trained on the last layer's states alone; that it makes sense of earlier ones says that the layers write in
one language (nostalgebraist 2020, "interpreting GPT: the logit lens").

Dimension letters: B batch, L length, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nezha_np.arrays import Array
from nezha_np.families.family import family_of
from nezha_np.mechanism import View
from nezha_np.weights.weights import Weights


def logit_lens(weights: Weights, hidden_states: Iterable[Array]) -> Iterator[Array]:
    """Apply the language-model head to hidden states.

    Parameters
    ----------
    weights : Weights
        The weights, with a language-model head.
    hidden_states : iterable of (B, L, H) float array
        Those of each layer, the embeddings first: ``out.hidden_states``.

    Yields
    ------
    (B, L, V) float array
        The logits of each; one after the other, for all together may be large.

    Raises
    ------
    ValueError
        If the weights have no language-model head.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights, tokenizer = nz.load(), nz.load_tokenizer()
    >>> out = nz.forward(weights, **nz.encode(tokenizer, ["房间很[MASK]净。"]), output_hidden_states=True)
    >>> best = [int(logits[0, 4].argmax()) for logits in nz.inside.logit_lens(weights, out.hidden_states)]
    >>> " ".join(map(tokenizer.id_to_token, best))
    '， ， 大 干 干'
    """
    weights.require("masked_lm")
    head, view = family_of(weights.config).language_model, View(weights)
    return (head(states, view) for states in hidden_states)
