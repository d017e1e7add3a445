"""What stands before all names of a file, where the model was a part of something larger when it was saved.

A class of somebody's own that holds the model as ``self.model`` or ``self.bert_model`` saves it under these names, and
so do training frameworks and sentence-transformers (``0.auto_model.``). The names themselves tell where the model is in
such a file: every family has word embeddings, and their name has a known end. What stands before it is taken off.

    in a file                                       for `nezha_np.weights.names`
    model.bert.pooler.dense.bias                    bert.pooler.dense.bias
    model.classifier.bias                           classifier.bias
    0.auto_model.embeddings.LayerNorm.weight        embeddings.LayerNorm.weight
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nezha_np.checks import listed, printable
from nezha_np.families.family import every_prefix
from nezha_np.weights.formats.entry import Entry
from nezha_np.weights.names import SCOPE_OF_ELECTRA, WRAPPER

# The ends of two names that every model has, with the dots of PyTorch or the slashes of TensorFlow.
ENDS = (
    re.compile(r"((?:.*[./])?)embeddings[./]word_embeddings(?:\.weight)?(?::0)?", re.DOTALL),
    re.compile(
        r"((?:.*[./])?)encoder[./]layer[._]0[./]attention[./]self[./]query[./](?:weight|kernel)(?::0)?", re.DOTALL
    ),
)
# Models that have such names too and compute something else: RoBERTa, for example, counts its positions from 2.
OTHER_MODELS = (
    "roberta",
    "xlm_roberta",
    "data2vec_text",
    "electra",
    "ernie",
    "layoutlm",
    "splinter",
    "roformer",
    "esm",
)


def without_outer_prefix(headers: Mapping[Path, Mapping[str, Entry]]) -> tuple[dict[Path, dict[str, Entry]], str]:
    """Take off what stands before the names of the model, and before all names.

    Parameters
    ----------
    headers : mapping of Path to (mapping of str to Entry)
        The tensors of each file, by their names in the file.

    Returns
    -------
    (dict of Path to (dict of str to Entry), str)
        The same by the shorter names, and the prefix that was taken off; "" where the names began with the model's own
        prefix, or with none.

    Raises
    ------
    ValueError
        If the files hold several models or another one than those that this package knows, or if two tensors get the
        same name.

    Examples
    --------
    >>> entry = Entry("F32", (2,), 0, 8)
    >>> names = ("model.bert.embeddings.word_embeddings.weight", "model.classifier.bias")
    >>> headers, prefix = without_outer_prefix({Path("f"): dict.fromkeys(names, entry)})
    >>> prefix, list(headers[Path("f")])
    ('model.', ['bert.embeddings.word_embeddings.weight', 'classifier.bias'])
    """
    names = [name for header in headers.values() for name in header]
    prefix = _prefix_of_model(names, next(iter(headers), Path()))
    if not prefix:
        return {file: dict(header) for file, header in headers.items()}, ""
    # A head may stand outside of the model, and both in something larger: model.encoder.… beside model.classifier.…
    parts = re.split(r"(?<=[./])", prefix)[:-1]
    outer = ["".join(parts[:count]) for count in range(len(parts), -1, -1)]
    shared = next(part for part in outer if all(name.startswith(part) for name in names))
    shorter: dict[Path, dict[str, Entry]] = {}
    taken: dict[str, str] = {}
    for file, header in headers.items():
        shorter[file] = {}
        for raw, entry in header.items():
            name = raw.removeprefix(prefix if raw.startswith(prefix) else shared)
            if taken.setdefault(name, raw) != raw:
                both = f"{printable(taken[name])} and {printable(raw)}"
                raise ValueError(f"{file}: expected one tensor for {printable(name)}, got {both}")
            shorter[file][name] = entry
    return shorter, prefix


def _prefix_of_model(names: Iterable[str], file: Path) -> str:
    """Return what stands before the model's own prefix, or before its names where they have none."""
    found: list[str] = []
    for end in ENDS:
        found = found or sorted({match[1] for name in names if (match := end.fullmatch(name))})
    own = {"", *every_prefix()}
    if not found or any(_is_own(prefix, own) for prefix in found):
        return ""
    if len(found) > 1:
        raise ValueError(
            f"{file}: expected the tensors of one model, got those of {len(found)}, which begin with {listed(found)}: "
            "save those of one alone"
        )
    *outer, last = re.split(r"(?<=[./])", found[0])[:-1]
    if last[:-1] in OTHER_MODELS:
        raise ValueError(
            f"{file}: expected the tensors of a model of {listed(list(every_prefix()))}, got those of another, which "
            f"begin with {listed(found)}"
        )
    return "".join(outer) if last[:-1] in own else found[0]


def _is_own(prefix: str, own: Iterable[str]) -> bool:
    """Say whether `nezha_np.weights.names` takes off a prefix itself."""
    if prefix.endswith("/"):
        return prefix[:-1] in {*own, SCOPE_OF_ELECTRA}
    return WRAPPER.sub("", prefix, count=1).removesuffix(".") in own
