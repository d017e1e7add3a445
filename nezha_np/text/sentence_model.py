"""What makes a vector of a text, besides the transformer and its tokenizer, and what is done after the pooling.

    Normalize  v / |v|
    Dense      f(W v + b), and with a residual + v, or + R v where the sizes differ
    LayerNorm  γ (v − mean(v)) / √(var(v) + ε) + β

These are the modules of sentence-transformers 2.7.0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.layers.activations import gelu, relu, selu, sigmoid, silu, tanh
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear

SHORTEST = 1e-12  # a vector that is shorter is divided by this number, as torch.nn.functional.normalize does
NORM_EPS = 1e-5  # ε of torch.nn.LayerNorm
ACTIVATIONS: dict[str, Callable[[Any], Any] | None] = {
    "Identity": None,
    "Tanh": tanh,
    "GELU": gelu,
    "ReLU": relu,
    "SELU": selu,
    "SiLU": silu,
    "Sigmoid": sigmoid,
}


@dataclasses.dataclass(frozen=True)
class Step:
    """What is done to a vector after the pooling.

    Attributes
    ----------
    kind : str
        "Normalize", "Dense" or "LayerNorm".
    folder : Path, optional
        Where it was read from.
    arrays : dict of str to array
        Its tensors, by their names in the file.
    activation : str
        Of a Dense: one of `ACTIVATIONS`.
    residual : bool
        Whether a Dense adds its input to its output.
    """

    kind: str
    folder: Path | None = None
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    activation: str = "Identity"
    residual: bool = False


@dataclasses.dataclass(frozen=True)
class SentenceModel:
    """All that decides how a text becomes a vector, besides the transformer and its tokenizer.

    Attributes
    ----------
    pooling : tuple of str
        The poolings whose vectors are joined.
    steps : tuple of Step
        What is done to the vector then.
    max_length : int or None
        After how many tokens a text is cut.
    cut_by : str
        What says `max_length`, if it is not the call.
    prompt : str or None
        What is put before each text.
    include_prompt : bool
        Whether the tokens of the prompt are pooled too.
    strip, lower : bool
        Whether white space around a text is taken off, and whether it is put in lower case.
    """

    pooling: tuple[str, ...] = ("mean",)
    steps: tuple[Step, ...] = ()
    max_length: int | None = None
    cut_by: str = ""
    prompt: str | None = None
    include_prompt: bool = True
    strip: bool = False
    lower: bool = False

    def prepare(self, text: str) -> str:
        """Return the text that is tokenised."""
        text = (self.prompt or "") + text
        text = text.strip() if self.strip else text
        return text.lower() if self.lower else text


def vector_size(model: SentenceModel, hidden_size: int) -> int:
    """Return how many numbers a vector has, and check that each step gets as many as it takes.

    Parameters
    ----------
    model : SentenceModel
        How texts become vectors.
    hidden_size : int
        That of the transformer.

    Returns
    -------
    int
        The size.

    Raises
    ------
    ValueError
        If a step takes vectors of another size.

    Examples
    --------
    >>> vector_size(SentenceModel(pooling=("cls", "mean")), 128)
    256
    """
    size = len(model.pooling) * hidden_size
    for step in model.steps:
        if step.arrays:
            tensor = step.arrays["norm.weight" if step.kind == "LayerNorm" else "linear.weight"]
            if tensor.shape[-1] != size:
                raise ValueError(
                    f"{step.folder}: expected a {step.kind} for the vectors of {size} numbers that pooling "
                    f"{'+'.join(model.pooling)} makes, got one for {tensor.shape[-1]}"
                )
            size = tensor.shape[0]
    return size


def apply_steps(steps: tuple[Step, ...], vectors: Any) -> Any:
    """Do to pooled vectors what follows the pooling.

    Parameters
    ----------
    steps : tuple of Step
        What follows.
    vectors : (n, H) NumPy array
        The vectors.

    Returns
    -------
    (n, size) NumPy array
        The vectors, in the same dtype.

    Examples
    --------
    >>> apply_steps((Step("Normalize"),), np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    for step in steps:
        arrays = {name: array.astype(vectors.dtype, copy=False) for name, array in step.arrays.items()}
        if step.kind == "Normalize":
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), SHORTEST)
        elif step.kind == "LayerNorm":
            vectors = layer_norm(vectors, arrays["norm.weight"], arrays["norm.bias"], eps=NORM_EPS)
        else:
            activation = ACTIVATIONS[step.activation]
            mapped = linear(vectors, arrays["linear.weight"], arrays.get("linear.bias"))
            mapped = mapped if activation is None else activation(mapped)
            if step.residual:
                projected = arrays.get("residual.weight")
                mapped = mapped + (vectors if projected is None else linear(vectors, projected))
            vectors = mapped
    return vectors
