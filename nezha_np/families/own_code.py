"""Checkpoints that bring code of their own: ``auto_map`` of the configuration names it, and it is never run.

The reference runs it only where it is told to (``trust_remote_code=True``). What such code computes may be another
model whose tensors have the same names, with other positions for example.
"""

from __future__ import annotations

from collections.abc import Mapping

from nezha_np.families.config import Config
from nezha_np.families.family import family_of


def own_code(config: Config) -> str:
    """Say that a checkpoint has code of its own for the model.

    Parameters
    ----------
    config : Config
        The configuration.

    Returns
    -------
    str
        What is to be said; empty where it names no code, or code for its configuration or tokenizer alone.

    Examples
    --------
    >>> from nezha_np.families.bert import BertConfig
    >>> own_code(BertConfig(extra={"auto_map": {"AutoModel": "modeling_mine.MyModel"}}))[:65]
    'config.json names code of its own for the model, modeling_mine.My'
    """
    named = config.extra.get("auto_map")
    if not isinstance(named, Mapping):
        return ""
    models = sorted({str(code) for kind, code in named.items() if str(kind).startswith("AutoModel")})
    if not models:
        return ""
    return (
        f"config.json names code of its own for the model, {', '.join(models)} (auto_map): it is not run, and where it "
        f"computes anything else than {family_of(config).title}, the numbers here are others"
    )
