"""New weights: every tensor comes from a random stream of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from nezha_np.checks import check_dtype, check_integer
from nezha_np.families.config import Config, check_config
from nezha_np.families.family import family_of
from nezha_np.families.parameters import every_task, pretraining_shapes, pretraining_task, task_shapes
from nezha_np.weights.memory import bytes_of_new_model, check_memory
from nezha_np.weights.truncated_normal import new_tensor
from nezha_np.weights.weights import Weights


def init(config: Config, head: str | None = None, seed: int = 0, dtype: Any = "float32") -> Weights:
    """Initialise new weights: matrices from a normal distribution truncated at 2σ, biases 0, norms 1, padding row 0.

    This is what the authors do; the reference does not truncate. Each tensor has a random stream of its own, whose key
    is the seed and the tensor's name: its numbers are the same on every machine, whichever head is added.

    Parameters
    ----------
    config : NezhaConfig, BertConfig or ConvBertConfig
        The configuration; σ is ``config.initializer_range``.
    head : str, optional
        The task head to add: "sequence_classification", "multiple_choice", "token_classification" or
        "question_answering". Backbone, pooler, language-model and next-sentence head are always there, as far as the
        family has them; to name one of them adds nothing.
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
        If there is no such head or dtype, the family does not have that head, or the tensors would need more memory
        than the machine has.

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
    check_memory("config", bytes_of_new_model(config, head, np.dtype(name).itemsize))
    shapes = pretraining_shapes(config)
    if head is not None:
        shapes |= task_shapes(config, head)
    tensors = {}
    for key, shape in shapes.items():
        tensors[key] = new_tensor(key, shape, config, int(seed)).astype(name)
        tensors[key].flags.writeable = False
    reference = family_of(config).tasks[head or pretraining_task(config)].reference
    return Weights(tensors, config.replace(architectures=(reference,)))
