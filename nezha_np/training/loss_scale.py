"""The loss scale of mixed precision (Micikevicius et al. 2018, section 3.2; NEZHA, section 2.4).

In float16 a gradient below 3e-8 is 0, and most gradients of a large model are near that. So the loss is multiplied by a
scale s before the walk back, which multiplies every gradient by s, and the gradients are divided by s in float32. The
larger s, the fewer gradients vanish; where s is too large they overflow, and that is seen: a gradient is not finite.

So s is found while training. After 1,000 steps whose gradients were finite it is doubled. A step whose gradients are
not finite is left out, and after 2 of these s is halved. NEZHA's authors begin with 2³² (TensorFlow's
ExponentialUpdateLossScaleManager): the first steps are left out until s fits.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class LossScale:
    """A loss scale and what decides when it changes.

    Attributes
    ----------
    scale : float
        s.
    finite : int
        How many steps in a row were finite since s changed.
    not_finite : int
        How many steps were not finite since s changed.
    growth_steps, backoff_steps : int
        After how many finite steps s grows, and after how many that are not finite it shrinks.
    growth, backoff : float
        By which factors.

    Examples
    --------
    >>> LossScale(8.0, backoff_steps=1).after(finite=False).scale
    4.0
    """

    scale: float = 2.0**32
    finite: int = 0
    not_finite: int = 0
    growth_steps: int = 1000
    backoff_steps: int = 2
    growth: float = 2.0
    backoff: float = 0.5

    def after(self, *, finite: bool) -> LossScale:
        """Return the loss scale after one more step.

        Parameters
        ----------
        finite : bool
            Whether all gradients of the step were finite.

        Returns
        -------
        LossScale
            The new one; s is never less than 1.

        Examples
        --------
        >>> LossScale(8.0, growth_steps=2).after(finite=True).after(finite=True)  # doctest: +ELLIPSIS
        LossScale(scale=16.0, finite=0, not_finite=0, ...)
        """
        if finite and self.finite + 1 < self.growth_steps:
            return dataclasses.replace(self, finite=self.finite + 1)
        if not finite and self.not_finite + 1 < self.backoff_steps:
            return dataclasses.replace(self, finite=0, not_finite=self.not_finite + 1)
        factor = self.growth if finite else self.backoff
        return dataclasses.replace(self, scale=max(1.0, self.scale * factor), finite=0, not_finite=0)
