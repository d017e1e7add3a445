"""Which tokenizer the files of a folder name, and whether it is one that is made here.

The name stands in tokenizer_config.json or config.json, as ``tokenizer_class``; where it stands in neither, each model
has its tokenizer. The order is that of the reference's AutoTokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nezha_np.text.tokenizer_config import get_setting, read_object

# The reference's fast classes of these names do the same, line by line; NEZHA's tokenizer is BERT's.
BERT_CLASSES = (
    "BertTokenizer",
    "ConvBertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "SqueezeBertTokenizer",
)
# These take a tokenizer.json as it is; the second is the name in transformers 5.
FILE_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
# The tokenizers of models: those that are made here, and those with a vocab.txt that split text in another way.
CLASS_OF_MODEL = {
    "bert": "BertTokenizer",
    "convbert": "ConvBertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "ernie": "BertTokenizer",
    "megatron-bert": "BertTokenizer",
    "nezha": "BertTokenizer",
    "funnel": "FunnelTokenizer",
    "mpnet": "MPNetTokenizer",
    "prophetnet": "ProphetNetTokenizer",
    "roc_bert": "RoCBertTokenizer",
    "roformer": "RoFormerTokenizer",
    "tapas": "TapasTokenizer",
}


def find_class(file: Path, config: dict[str, Any]) -> str | None:
    """Find the class of a tokenizer, and refuse one that is not made here.

    Parameters
    ----------
    file : Path
        Its vocab.txt or tokenizer.json; a config.json may stand beside it.
    config : dict
        What the tokenizer_config.json beside it holds.

    Returns
    -------
    str or None
        "BertTokenizer" for all that do the same; "PreTrainedTokenizerFast" for a tokenizer.json that is taken as it is;
        None where no file names a class.

    Raises
    ------
    ValueError
        Another class is named, which would make other tokens of a text; or "PreTrainedTokenizerFast" is, and `file` is
        a vocab.txt.

    Examples
    --------
    >>> find_class(Path("nowhere/vocab.txt"), {"tokenizer_class": "ConvBertTokenizerFast"})
    'BertTokenizer'
    >>> find_class(Path("nowhere/vocab.txt"), {"tokenizer_class": "BertJapaneseTokenizer"})
    Traceback (most recent call last):
    ...
    ValueError: path: expected a tokenizer like BertTokenizer with nowhere/vocab.txt, got BertJapaneseTokenizer, which
    nowhere/tokenizer_config.json names; it makes other tokens of a text. If this file is one of BERT's all the same,
    write BertTokenizer there as the tokenizer_class
    """
    where = file.with_name("tokenizer_config.json")
    named = get_setting(config, "tokenizer_class", str, None)
    if named is None:
        where = file.with_name("config.json")
        model = read_object(where)
        named = get_setting(model, "tokenizer_class", str, None, file="config.json")
        kind = model.get("model_type")
        if named is None and isinstance(kind, str):
            named = CLASS_OF_MODEL.get(kind)
    if named is None:
        return None
    name = named.removesuffix("Fast") if named != "PreTrainedTokenizerFast" else named
    if name in BERT_CLASSES:
        return "BertTokenizer"
    if name in FILE_CLASSES and file.suffix == ".json":
        return "PreTrainedTokenizerFast"
    problem = "needs a tokenizer.json" if name in FILE_CLASSES else "makes other tokens of a text"
    raise ValueError(
        f"path: expected a tokenizer like BertTokenizer with {file}, got {named}, which {where} names; it {problem}. "
        "If this file is one of BERT's all the same, write BertTokenizer there as the tokenizer_class"
    )
