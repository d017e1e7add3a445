"""Layers that pick a part of an array: the first token for the pooler, labelled tokens, the two ends of a span.

Their gradients put dy back in its place among zeros; that of the mean of all tokens gives each token an equal part.

Dimension letters: B batch, L length, H hidden, C choices.
"""

from __future__ import annotations

from nezha_np.arrays import Array, device_of, in_statistics_dtype, namespace, sum_rows
from nezha_np.layers.linear import flat_rows
from nezha_np.mechanism import gradient_of, primitive


@primitive
def first_token(x: Array) -> Array:
    """Take the first token of each sequence, ``[CLS]``.

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.

    Returns
    -------
    (B, H) float array
        The first of each row.

    Examples
    --------
    >>> import numpy as np
    >>> first_token(np.array([[[1.0], [2.0]]]))
    array([[1.]])
    """
    return x[:, 0, :]


@gradient_of(first_token)
def first_token_gradient(dy: Array, y: Array, x: Array) -> Array:
    """dy for the first token, 0 for the others.

    Parameters
    ----------
    dy : (B, H) float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `first_token`.

    Returns
    -------
    dx : (B, L, H) float array
        The gradient with respect to `x`.
    """
    xp = namespace(x)
    return xp.concat([dy[:, None, :], xp.zeros_like(x[:, 1:, :])], axis=1)


@primitive
def last_token(x: Array) -> Array:
    """Take the last token of each sequence, padding or not.

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.

    Returns
    -------
    (B, H) float array
        The last of each row.

    Examples
    --------
    >>> import numpy as np
    >>> last_token(np.array([[[1.0], [2.0]]]))
    array([[2.]])
    """
    return x[:, -1, :]


@gradient_of(last_token)
def last_token_gradient(dy: Array, y: Array, x: Array) -> Array:
    """dy for the last token, 0 for the others.

    Parameters
    ----------
    dy : (B, H) float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `last_token`.

    Returns
    -------
    dx : (B, L, H) float array
        The gradient with respect to `x`.
    """
    xp = namespace(x)
    return xp.concat([xp.zeros_like(x[:, :-1, :]), dy[:, None, :]], axis=1)


@primitive
def mean_of_tokens(x: Array) -> Array:
    """Average all tokens of each sequence, padding too.

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.

    Returns
    -------
    (B, H) float array
        The mean of each row, computed in float32 at least.

    Examples
    --------
    >>> import numpy as np
    >>> mean_of_tokens(np.array([[[1.0], [2.0]]]))
    array([[1.5]])
    """
    xp = namespace(x)
    return xp.astype(xp.mean(in_statistics_dtype(x), axis=1), x.dtype, copy=False)


@gradient_of(mean_of_tokens)
def mean_of_tokens_gradient(dy: Array, y: Array, x: Array) -> Array:
    """dx = dy / L for each token.

    Parameters
    ----------
    dy : (B, H) float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `mean_of_tokens`.

    Returns
    -------
    dx : (B, L, H) float array
        The gradient with respect to `x`.
    """
    return namespace(x).zeros_like(x) + dy[:, None, :] / x.shape[1]


@primitive
def all_but_last_token(x: Array) -> Array:
    """Take every token that has a next one.

    Parameters
    ----------
    x : (B, L, V) float array
        Logits.

    Returns
    -------
    (B, L - 1, V) float array
        All but the last token's.

    Examples
    --------
    >>> import numpy as np
    >>> all_but_last_token(np.array([[[1.0], [2.0]]]))
    array([[[1.]]])
    """
    return x[:, :-1, :]


@gradient_of(all_but_last_token)
def all_but_last_token_gradient(dy: Array, y: Array, x: Array) -> Array:
    """dy for all tokens but the last, and 0 for the last.

    Parameters
    ----------
    dy : (B, L - 1, V) float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `all_but_last_token`.

    Returns
    -------
    dx : (B, L, V) float array
        The gradient with respect to `x`.
    """
    xp = namespace(x)
    return xp.concat([dy, xp.zeros_like(x[:, -1:, :])], axis=1)


@primitive
def some_tokens(x: Array, numbers: Array) -> Array:
    """Take some tokens of a batch, such as those with a label.

    Parameters
    ----------
    x : (B, L, H) float array
        Hidden states.
    numbers : (n,) int array
        The numbers of the tokens, each once: token l of row b has the number b · L + l.

    Returns
    -------
    (n, H) float array
        The tokens.

    Examples
    --------
    >>> import numpy as np
    >>> some_tokens(np.array([[[1.0], [2.0]], [[3.0], [4.0]]]), np.array([1, 2]))
    array([[2.],
           [3.]])
    """
    return namespace(x).take(flat_rows(x), numbers, axis=0)


@gradient_of(some_tokens)
def some_tokens_gradient(dy: Array, y: Array, x: Array, numbers: Array) -> Array:
    """dy for the tokens that were taken, 0 for the others.

    Parameters
    ----------
    dy : (n, H) float array
        The gradient of the loss with respect to `y`.
    y, x, numbers
        The result and the arguments of `some_tokens`.

    Returns
    -------
    dx : (B, L, H) float array
        The gradient with respect to `x`.
    """
    return namespace(x).reshape(sum_rows(numbers, dy, x.shape[0] * x.shape[1]), x.shape)


@primitive
def column(x: Array, *, index: int) -> Array:
    """Take one feature of each token.

    Parameters
    ----------
    x : (B, L, C) float array
        Logits.
    index : int
        Which of the C features.

    Returns
    -------
    (B, L) float array
        That feature.

    Examples
    --------
    >>> import numpy as np
    >>> column(np.array([[[1.0, 2.0], [3.0, 4.0]]]), index=1)
    array([[2., 4.]])
    """
    return x[:, :, index]


@gradient_of(column)
def column_gradient(dy: Array, y: Array, x: Array, *, index: int) -> Array:
    """dy for this feature, 0 for the others.

    Parameters
    ----------
    dy : (B, L) float array
        The gradient of the loss with respect to `y`.
    y, x, index
        The result and the arguments of `column`.

    Returns
    -------
    dx : (B, L, C) float array
        The gradient with respect to `x`.
    """
    xp = namespace(x)
    this = xp.astype(xp.arange(x.shape[-1], device=device_of(x)) == index, x.dtype)  # (C), one-hot
    return dy[:, :, None] * this


@primitive
def by_choice(x: Array, *, choices: int) -> Array:
    """Put the scores of the choices of one question into one row.

    Parameters
    ----------
    x : (B·C, 1) float array
        A score for each choice.
    choices : int
        C.

    Returns
    -------
    (B, C) float array
        The same numbers.

    Examples
    --------
    >>> import numpy as np
    >>> by_choice(np.array([[1.0], [2.0], [3.0], [4.0]]), choices=2)
    array([[1., 2.],
           [3., 4.]])
    """
    return namespace(x).reshape(x, (x.shape[0] // choices, choices))


@gradient_of(by_choice)
def by_choice_gradient(dy: Array, y: Array, x: Array, *, choices: int) -> Array:
    """dx = dy in the shape of x.

    Parameters
    ----------
    dy : (B, C) float array
        The gradient of the loss with respect to `y`.
    y, x, choices
        The result and the arguments of `by_choice`.

    Returns
    -------
    dx : (B·C, 1) float array
        The gradient with respect to `x`.
    """
    return namespace(x).reshape(dy, x.shape)
