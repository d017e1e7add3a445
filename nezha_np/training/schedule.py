"""The learning rate: a warm-up, then a decay (NEZHA's ``optimization.py``; BERT, Devlin et al. 2019, appendix A.2).

    η(t) = η t / w                          for t < w
    η(t) = η ((1 − t / T) / (1 − w / T))ᵖ    for w ≤ t < T, and 0 from T on

t steps were made, w of T are the warm-up. The division by 1 − w / T is the correction of NEZHA's authors: without it
the warm-up ends at η and the decay goes on from η (1 − w / T), with a jump.
"""

from __future__ import annotations

from nezha_np.checks import check_finite, check_integer


def warmup_polynomial_decay(
    steps: int, *, learning_rate: float, warmup_steps: int, total_steps: int, power: float = 1.0
) -> float:
    """Return the learning rate of the next step.

    Parameters
    ----------
    steps : int
        t, how many steps were made. With a warm-up the first step has the rate 0, as in the authors' code.
    learning_rate : float
        η, the largest rate.
    warmup_steps : int
        w; 0: no warm-up.
    total_steps : int
        T.
    power : float
        p; 1: a straight line.

    Returns
    -------
    float
        The rate.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> options = {"learning_rate": 1.0, "warmup_steps": 2, "total_steps": 10}
    >>> [warmup_polynomial_decay(steps, **options) for steps in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    check_finite("learning_rate", learning_rate)
    check_finite("power", power)
    steps = check_integer("steps", steps, least=0)
    total = check_integer("total_steps", total_steps, least=1)
    warmup = check_integer("warmup_steps", warmup_steps, least=0, most=total - 1)
    if steps < warmup:
        return learning_rate * steps / warmup
    return float(learning_rate * ((total - min(steps, total)) / (total - warmup)) ** power)
