"""Changes of a model's shape: attention heads are pruned, the vocabulary is resized.

These functions take and return tensors and a configuration. The methods of `nezha_np.Weights` of the same names call
them, and describe arguments and errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from nezha_np.arrays import Array, asarray_like, namespace
from nezha_np.checks import check_integer
from nezha_np.families.config import Config
from nezha_np.families.parameters import sized_by_vocabulary
from nezha_np.weights.memory import check_memory
from nezha_np.weights.truncated_normal import new_tensor

Tensors = dict[str, Array]
# The tensors that pruning a head cuts, and the axis that it cuts them along.
PRUNED = {
    **{f"self.{part}.{kind}": 0 for part in ("query", "key", "value") for kind in ("weight", "bias")},
    "output.dense.weight": 1,
}


def prune_heads(
    tensors: Mapping[str, Array], config: Config, heads: Mapping[int, Iterable[int]]
) -> tuple[Tensors, Config]:
    """Remove attention heads, as `nezha_np.Weights.prune_heads` describes it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> tensors, config = prune_heads(weights, weights.config, {0: [1, 3]})
    >>> tensors["encoder.layer.0.attention.self.query.weight"].shape, config.heads(0)
    ((192, 256), 6)
    """
    try:
        to_prune = config.replace(pruned_heads=heads).pruned_heads
    except (TypeError, ValueError) as error:  # its message names the field of the configuration
        raise type(error)(str(error).replace("pruned_heads", "heads", 1)) from None
    pruned = {layer: {*config.pruned_heads.get(layer, ()), *more} for layer, more in to_prune.items()}
    smaller = config.replace(pruned_heads=dict(config.pruned_heads) | pruned)
    changed = dict(tensors)
    for layer in pruned:
        before, after = _heads_left(config, layer), _heads_left(smaller, layer)
        size = config.head_size
        features = [before.index(head) * size + feature for head in after for feature in range(size)]
        for part, axis in PRUNED.items():
            name = f"encoder.layer.{layer}.attention.{part}"
            array = changed[name]
            changed[name] = namespace(array).take(array, asarray_like(array, features, "int64"), axis=axis)
    return changed, smaller


def _heads_left(config: Config, layer: int) -> list[int]:
    """List the attention heads of a layer that are not pruned, by their numbers before any was pruned."""
    return [head for head in range(config.attention_heads) if head not in config.pruned_heads.get(layer, ())]


def resize_token_embeddings(tensors: Mapping[str, Array], config: Config, n: int, seed: int) -> tuple[Tensors, Config]:
    """Change the size of the vocabulary, as `nezha_np.Weights.resize_token_embeddings` describes it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> tensors, config = resize_token_embeddings(weights, weights.config, 7002, seed=0)
    >>> tensors["embeddings.word_embeddings.weight"].shape, config.vocab_size
    ((7002, 256), 7002)
    """
    check_integer("seed", seed)
    n = check_integer("n", n, least=1)
    changed = dict(tensors)
    sized = [name for name in sized_by_vocabulary(config) if name in changed]
    # New numbers are float64 before they are those of the other rows.
    check_memory("n", sum(8 * n * math.prod(changed[name].shape[1:]) for name in sized))
    resized = config.replace(vocab_size=n)
    for name in sized:
        old = changed[name]
        rows = min(old.shape[0], resized.vocab_size)
        new = new_tensor(name, (resized.vocab_size, *old.shape[1:]), resized, int(seed))[rows:]
        changed[name] = namespace(old).concat([old[:rows, ...], asarray_like(old, new)], axis=0)
    return changed, resized
