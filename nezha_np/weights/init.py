"""New weights: every tensor drawn from a random stream of its own."""

from __future__ import annotations

from typing import Any

from nezha_np.arrays import check_dtype
from nezha_np.checks import check_integer
from nezha_np.families.config import Config, check_config
from nezha_np.families.family import family_of
from nezha_np.families.parameters import every_task, pretraining_shapes, pretraining_task, task_shapes
from nezha_np.weights.truncated_normal import draw
from nezha_np.weights.weights import Weights


def init(config: Config, head: str | None = None, seed: int = 0, dtype: Any = "float32") -> Weights:
    """Draw new weights: matrices from a normal distribution cut off at 2σ, biases 0, norms 1, the padding row 0.

    This is the authors' way; the reference's initialisation does not cut off. Each tensor has a random stream of its
    own, keyed by seed and name: the numbers are the same on every machine, whatever else is drawn.

    Parameters
    ----------
    config : NezhaConfig, BertConfig or ConvBertConfig
        The configuration; σ is ``config.initializer_range``.
    head : str, optional
        A head to add to backbone, pooler, language-model and next-sentence head (as far as the family has them):
        "sequence_classification", "multiple_choice", "token_classification", "question_answering", or one of those that
        are there anyway.
    seed : int
        The seed.
    dtype : str or dtype
        "float16", "float32" or "float64".

    Returns
    -------
    Weights
        The new weights.

    Raises
    ------
    TypeError
        If `config` is not a configuration or `seed` not an integer.
    ValueError
        If there is no such head or dtype, or the family does not have the head.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.NezhaConfig(hidden_size=8, num_attention_heads=2, vocab_size=11, num_hidden_layers=1)
    >>> weights = nz.init(config, head="question_answering", dtype="float64")
    >>> weights["qa_outputs.weight"].shape
    (2, 8)
    """
    check_config(config)
    if head is not None and head not in every_task():
        raise ValueError(f"head: expected one of {', '.join(every_task())} or None, got {head!r}")
    check_integer("seed", seed)
    name = check_dtype(dtype)
    shapes = pretraining_shapes(config)
    if head is not None:
        shapes |= task_shapes(config, head)
    tensors = {}
    for key, shape in shapes.items():
        tensors[key] = draw(key, shape, config, int(seed)).astype(name)
        tensors[key].flags.writeable = False
    reference = family_of(config).tasks[head or pretraining_task(config)].reference
    return Weights(tensors, config.replace(architectures=(reference,)))
