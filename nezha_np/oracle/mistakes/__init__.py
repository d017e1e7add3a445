"""The catalogue of mistakes that porters make: for each a name, a sentence, and a small change to one layer.

A change is called in place of a layer's definition, with a `Step` first: ``change(step, *arguments, **options)``. The
definition is ``step.right``. A mistake that can be made in several ways has changes for each; where one cannot be made
at a step, its change raises ValueError.

Some mistakes depend on numbers that nobody knows from outside: the mask of a dropout, a table that was trained. Their
recognisers are told what is known of a step, fit these numbers, and return the ways that make them.

`mistake` (the module) says how a mistake is written down; its part's list is joined to the others here.
"""

from __future__ import annotations

from nezha_np.oracle.mistakes.activations import ACTIVATIONS
from nezha_np.oracle.mistakes.altered import ALTERED
from nezha_np.oracle.mistakes.approximations import APPROXIMATIONS
from nezha_np.oracle.mistakes.attention import ATTENTION
from nezha_np.oracle.mistakes.clipping import OF_CLIPPING
from nezha_np.oracle.mistakes.coarse_numbers import COARSE_NUMBERS
from nezha_np.oracle.mistakes.convbert import OF_CONVBERT
from nezha_np.oracle.mistakes.embeddings import EMBEDDINGS
from nezha_np.oracle.mistakes.everywhere import EVERYWHERE
from nezha_np.oracle.mistakes.gradient_numbers import FITS, GRADIENT_NUMBERS, GradientEvidence
from nezha_np.oracle.mistakes.gradient_roundings import GRADIENT_ROUNDINGS
from nezha_np.oracle.mistakes.gradient_terms import GRADIENT_TERMS
from nezha_np.oracle.mistakes.gradient_uses import GRADIENT_USES
from nezha_np.oracle.mistakes.gradients_of_convolutions import GRADIENTS_OF_CONVOLUTIONS
from nezha_np.oracle.mistakes.gradients_of_distances import GRADIENTS_OF_DISTANCES
from nezha_np.oracle.mistakes.gradients_of_layers import GRADIENTS_OF_LAYERS
from nezha_np.oracle.mistakes.gradients_of_losses import GRADIENTS_OF_LOSSES
from nezha_np.oracle.mistakes.gradients_of_parameters import GRADIENTS_OF_PARAMETERS
from nezha_np.oracle.mistakes.learned_distances import LEARNED_DISTANCES
from nezha_np.oracle.mistakes.linear import LINEAR, too_few_rows
from nezha_np.oracle.mistakes.losses import LOSSES
from nezha_np.oracle.mistakes.masks import MASKS
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake, Sites
from nezha_np.oracle.mistakes.norms import NORMS
from nezha_np.oracle.mistakes.optimizers import OF_OPTIMIZERS
from nezha_np.oracle.mistakes.other_losses import OTHER_LOSSES
from nezha_np.oracle.mistakes.other_masks import OTHER_MASKS
from nezha_np.oracle.mistakes.other_softmax import OTHER_SOFTMAX
from nezha_np.oracle.mistakes.position_table import POSITION_TABLE
from nezha_np.oracle.mistakes.position_terms import POSITION_TERMS
from nezha_np.oracle.mistakes.step_mistake import StepMistake
from nezha_np.oracle.mistakes.task_heads import TASK_HEADS
from nezha_np.oracle.mistakes.training import OF_TRAINING
from nezha_np.oracle.mistakes.updates import OF_UPDATES
from nezha_np.oracle.mistakes.wrong_places import WRONG_PLACES

__all__ = [
    "FITS",
    "GRADIENT_MISTAKES",
    "MISTAKES",
    "PARTS",
    "STEP_MISTAKES",
    "Evidence",
    "GradientEvidence",
    "Mistake",
    "Sites",
    "StepMistake",
    "too_few_rows",
]

# Of mistakes that explain as much as one another, the first in this order is named first.
PARTS: dict[str, list[Mistake]] = {
    "Embeddings": EMBEDDINGS,
    "Norms and residuals": NORMS,
    "Linear layers": LINEAR,
    "Attention": [*ATTENTION, *OTHER_SOFTMAX],
    "Masks": [*MASKS, *OTHER_MASKS],
    "Relative positions": [*POSITION_TERMS, *POSITION_TABLE, *LEARNED_DISTANCES],
    "Activations": ACTIVATIONS,
    "Task heads": TASK_HEADS,
    "Losses": [*LOSSES, *OTHER_LOSSES],
    "ConvBERT": OF_CONVBERT,
    "Approximations": APPROXIMATIONS,
    "Wrong places": WRONG_PLACES,
    "Altered numbers": ALTERED,
    "Everywhere": [*EVERYWHERE, *COARSE_NUMBERS],
}
MISTAKES: tuple[Mistake, ...] = tuple(mistake for part in PARTS.values() for mistake in part)
# Made walking back, where the forward pass is right.
GRADIENT_MISTAKES: tuple[Mistake, ...] = (
    *GRADIENTS_OF_LAYERS,
    *GRADIENTS_OF_LOSSES,
    *GRADIENT_TERMS,
    *GRADIENTS_OF_PARAMETERS,
    *GRADIENTS_OF_DISTANCES,
    *GRADIENTS_OF_CONVOLUTIONS,
    *GRADIENT_ROUNDINGS,
    *GRADIENT_NUMBERS,
    *GRADIENT_USES,
)
# Made in a training step, where the pass and its walk back are right.
STEP_MISTAKES: tuple[StepMistake, ...] = (*OF_TRAINING, *OF_CLIPPING, *OF_OPTIMIZERS, *OF_UPDATES)
