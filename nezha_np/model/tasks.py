"""The registry of tasks: the model alone and the eight task heads, in one table.

The command line, golden bundles, the doctor and the tables of the documentation are made from it. A family says which
tasks it has, and for each the tensors that it needs and the reference's class (`nezha_np.families.family.Family`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from nezha_np.families.config import Config
from nezha_np.families.family import FAMILIES, family_of
from nezha_np.families.parameters import Shapes, task_shapes
from nezha_np.model import heads
from nezha_np.model.arguments import Inputs
from nezha_np.model.model import forward


@dataclasses.dataclass(frozen=True)
class Task:
    """One task: the model alone (`forward`), or a task head with its loss.

    Attributes
    ----------
    function : callable
        The public function of `nezha_np`.
    labels : tuple of str
        The arguments that its loss needs, all of them; () for `forward`, which has none.
    label_is : str
        A short description of the labels.
    loss : str
        The name of the loss.
    """

    function: Callable[..., Any]
    labels: tuple[str, ...] = ()
    label_is: str = ""
    loss: str = ""

    @property
    def name(self) -> str:
        """The name of the task, that of its function."""
        return self.function.__name__

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the function besides weights and configuration: inputs, then labels."""
        return ("input_ids", *Inputs.__annotations__, *self.labels)

    @property
    def families(self) -> tuple[str, ...]:
        """The families that have the task, by the `model_type` of their configurations."""
        return tuple(name for name, family in FAMILIES.items() if self.name in family.tasks)

    def tensors(self, config: Config) -> Shapes:
        """Return name and shape of every tensor that the task needs besides embeddings and encoder.

        Parameters
        ----------
        config : Config
            The configuration.

        Returns
        -------
        dict of str to tuple of int
            The shapes; none for `forward`.

        Raises
        ------
        ValueError
            If the family does not have the task.
        """
        return {} if self.name == "forward" else task_shapes(config, self.name)

    def architecture(self, config: Config) -> str:
        """Return the name of the reference's class.

        Parameters
        ----------
        config : Config
            The configuration.

        Returns
        -------
        str
            The class of transformers.
        """
        return family_of(config).tasks[self.name].reference


_ENDS = ("start_positions", "end_positions")
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(forward),
        Task(
            heads.pretraining,
            ("labels", "next_sentence_label"),
            "a token id for each token, 0 or 1 for each pair",
            "sum of both tasks' cross-entropies",
        ),
        Task(heads.masked_lm, ("labels",), "a token id for each token", "cross-entropy"),
        Task(heads.next_sentence_prediction, ("labels",), "0 or 1 for each pair", "cross-entropy"),
        Task(
            heads.sequence_classification,
            ("labels",),
            "numbers, a class, or several labels for each text",
            "squared error, cross-entropy, or binary cross-entropy",
        ),
        Task(heads.multiple_choice, ("labels",), "the right choice", "cross-entropy over the choices"),
        Task(heads.token_classification, ("labels",), "a class for each token", "cross-entropy"),
        Task(heads.question_answering, _ENDS, "first and last token of the answer", "mean of two cross-entropies"),
        Task(heads.causal_lm, ("labels",), "a token id for each token, shifted by one", "cross-entropy"),
    )
}
