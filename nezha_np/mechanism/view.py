"""The weights below one prefix: what a composite reads its parameters from."""

from __future__ import annotations

from typing import Any

from nezha_np.arrays import Array


class View:
    """The weights below one prefix: ``w["query.weight"]``, ``w.at("output")``.

    Parameters
    ----------
    weights : Weights
        All weights, with their configuration.
    prefix : str
        What the names begin with; it ends in a dot, or is empty.

    Examples
    --------
    >>> import nezha_np as nz
    >>> w = View(nz.load(), "encoder.layer.0.")
    >>> w.at("attention.self")["query.bias"].shape
    (256,)
    """

    __slots__ = ("prefix", "weights")

    def __init__(self, weights: Any, prefix: str = "") -> None:
        self.weights, self.prefix = weights, prefix

    @property
    def config(self) -> Any:
        """The configuration of the weights."""
        return self.weights.config

    def __getitem__(self, name: str) -> Array:
        array: Array = self.weights[self.prefix + name]
        return array

    def at(self, path: str) -> View:
        """Return the view of what lies below `path`.

        Parameters
        ----------
        path : str
            Parts of names, joined by dots.

        Returns
        -------
        View
            The view whose prefix is this one's and `path`.
        """
        return View(self.weights, f"{self.prefix}{path}.")


def view_among(arguments: tuple[Any, ...]) -> View | None:
    """Find the view that a composite was called with.

    Parameters
    ----------
    arguments : tuple
        What it was called with by position.

    Returns
    -------
    View or None
        The view; None where there is none.

    Examples
    --------
    >>> view_among((1, View({}, "pooler."))).prefix
    'pooler.'
    """
    return next((argument for argument in arguments if isinstance(argument, View)), None)
