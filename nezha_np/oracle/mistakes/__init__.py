"""The catalogue of mistakes that porters make: for each a name, a sentence, and a small change to one layer.

A change is called in place of a layer's definition, with a `Step` first: ``change(step, *arguments, **options)``. The
definition is ``step.right``. A mistake that can be made in several ways has changes for each; where one cannot be made
at a step, its change raises ValueError.

Some mistakes depend on numbers that nobody knows from outside: the mask of a dropout, a table that was trained. Their
`recognise` is told what they have of a step, fits these numbers, and returns the ways that make them.
"""

from __future__ import annotations

from nezha_np.oracle.mistakes.activations import ACTIVATIONS
from nezha_np.oracle.mistakes.attention import ATTENTION
from nezha_np.oracle.mistakes.convbert import OF_CONVBERT
from nezha_np.oracle.mistakes.embeddings import EMBEDDINGS
from nezha_np.oracle.mistakes.everywhere import EVERYWHERE
from nezha_np.oracle.mistakes.heads import HEADS
from nezha_np.oracle.mistakes.linear import LINEAR, too_few_rows
from nezha_np.oracle.mistakes.losses import LOSSES
from nezha_np.oracle.mistakes.masks import MASKS
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake
from nezha_np.oracle.mistakes.norms import NORMS
from nezha_np.oracle.mistakes.positions import POSITIONS

__all__ = ["MISTAKES", "PARTS", "Evidence", "Mistake", "too_few_rows"]

PARTS: dict[str, tuple[Mistake, ...]] = {
    "Embeddings": EMBEDDINGS,
    "Norms and residuals": NORMS,
    "Linear layers": LINEAR,
    "Attention": ATTENTION,
    "Masks": MASKS,
    "Relative positions": POSITIONS,
    "Activations": ACTIVATIONS,
    "Heads": HEADS,
    "Losses": LOSSES,
    "ConvBERT": OF_CONVBERT,
    "Everywhere": EVERYWHERE,
}
MISTAKES: tuple[Mistake, ...] = tuple(mistake for part in PARTS.values() for mistake in part)
