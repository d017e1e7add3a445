"""A new task head on trained weights: what a model lacks for a task is drawn, the rest stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nezha_np.arrays import asarray_like
from nezha_np.checks import check_integer
from nezha_np.families.family import family_of, table_of
from nezha_np.families.parameters import every_task, task_shapes
from nezha_np.families.trained_head import trained_as_another
from nezha_np.narrow.bfloat16 import NAME as BFLOAT16
from nezha_np.narrow.matrix import kept_in_bfloat16
from nezha_np.weights.truncated_normal import new_tensor
from nezha_np.weights.weights import Weights


def with_head(
    weights: Weights,
    head: str,
    *,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | Sequence[str] | None = None,
    seed: int = 0,
) -> Weights:
    """Add a task head, as `nezha_np.load` describes it.

    Parameters
    ----------
    weights : Weights
        The weights.
    head : str
        The task.
    num_labels, id2label, seed
        As for `nezha_np.load`.

    Returns
    -------
    Weights
        The weights with every tensor of the task. Those that were there are shared.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the family does not have the head.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = with_head(nz.load(), "token_classification", id2label=["O", "B", "I"])
    >>> weights["classifier.weight"].shape, weights.config.id2label[1]
    ((3, 256), 'B')
    """
    if head not in every_task():
        raise ValueError(f"head: expected one of {', '.join(every_task())} or None, got {head!r}")
    check_integer("seed", seed)
    before = weights.config
    changes: dict[str, Any] = {}
    if num_labels is not None:
        changes["num_labels"] = check_integer("num_labels", num_labels, least=1)
    if id2label is not None:
        is_sequence = isinstance(id2label, Sequence) and not isinstance(id2label, str)
        changes["id2label"] = dict(enumerate(id2label)) if is_sequence else id2label
    config = before.replace(**changes) if changes else before
    family = family_of(config)
    shapes = task_shapes(config, head)
    # The pooler is no head's own: it is drawn only where it is missing.
    own = table_of(family.tasks[head].tensors, config).keys() - family.pooler.keys()
    means_something_else = bool(trained_as_another(before, head))
    tensors = dict(weights)
    for name, shape in shapes.items():
        fits = name in tensors and tuple(tensors[name].shape) == shape
        if not fits or (means_something_else and name in own):
            if name in tensors and name not in own:  # a pooler of another shape: a later check says so
                continue
            drawn = asarray_like(weights.word_embeddings, new_tensor(name, shape, config, int(seed)))
            tensors[name] = kept_in_bfloat16(drawn) if weights.dtype == BFLOAT16 else drawn
    config = config.replace(architectures=(family.tasks[head].reference,))
    return Weights(tensors, config, source=weights.source)
