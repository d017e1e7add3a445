"""Changes of a model's shape: attention heads are removed, the vocabulary is resized.

The methods of `nezha_np.Weights` describe the two; these functions take and return tensors and a configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nezha_np.arrays import Array, asarray_like, namespace
from nezha_np.checks import check_integer
from nezha_np.families.config import Config
from nezha_np.families.parameters import sized_by_vocabulary
from nezha_np.weights.truncated_normal import draw

Tensors = dict[str, Array]
# What pruning a head removes a part of, and along which axis.
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
    ((64, 128), 2)
    """
    try:
        wanted = config.replace(pruned_heads=heads).pruned_heads
    except (TypeError, ValueError) as error:  # which speaks of the configuration's field
        raise type(error)(str(error).replace("pruned_heads", "heads", 1)) from None
    gone = {layer: {*config.pruned_heads.get(layer, ()), *more} for layer, more in wanted.items()}
    smaller = config.replace(pruned_heads=dict(config.pruned_heads) | gone)
    changed = dict(tensors)
    for layer in gone:
        before, after = (
            [head for head in range(config.attention_heads) if head not in one.pruned_heads.get(layer, ())]
            for one in (config, smaller)
        )
        size = config.head_size
        features = [before.index(head) * size + feature for head in after for feature in range(size)]
        for part, axis in PRUNED.items():
            name = f"encoder.layer.{layer}.attention.{part}"
            array = changed[name]
            changed[name] = namespace(array).take(array, asarray_like(array, features, "int64"), axis=axis)
    return changed, smaller


def resize_token_embeddings(tensors: Mapping[str, Array], config: Config, n: int, seed: int) -> tuple[Tensors, Config]:
    """Change the size of the vocabulary, as `nezha_np.Weights.resize_token_embeddings` describes it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> tensors, config = resize_token_embeddings(weights, weights.config, 7002, seed=0)
    >>> tensors["embeddings.word_embeddings.weight"].shape, config.vocab_size
    ((7002, 128), 7002)
    """
    check_integer("seed", seed)
    resized = config.replace(vocab_size=check_integer("n", n, least=1))
    changed = dict(tensors)
    for name in sized_by_vocabulary(resized):
        if name not in changed:
            continue
        old = changed[name]
        rows = min(old.shape[0], resized.vocab_size)
        new = draw(name, (resized.vocab_size, *old.shape[1:]), resized, int(seed))[rows:]
        changed[name] = namespace(old).concat([old[:rows, ...], asarray_like(old, new)], axis=0)
    return changed, resized
