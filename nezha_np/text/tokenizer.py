"""From files to a tokenizer, and back: vocab.txt or tokenizer.json, tokenizer_config.json and the files of tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from nezha_np.files.atomic import write_atomically
from nezha_np.files.temporary import check_whole
from nezha_np.files.text_encoding import read_utf8
from nezha_np.text.added_tokens import add_tokens, check_special_tokens, read_tokens
from nezha_np.text.declarations import check_at_work, check_declarations, check_lengths
from nezha_np.text.decode import keep_spaces
from nezha_np.text.encode import check_tokenizer
from nezha_np.text.rows import without_truncation_and_padding
from nezha_np.text.tokenizer_class import find_class
from nezha_np.text.tokenizer_config import SPECIAL_TOKENS, check_settings, get_setting, get_side, read_object
from nezha_np.text.truncation import NO_LENGTH
from nezha_np.text.wordpiece import describe_tokenizer, make_tokenizer, obey_config, vocabulary_lines
from nezha_np.weights.checkpoint import SHIPPED
from nezha_np.weights.formats import READERS
from nezha_np.weights.other_files import is_index
from nezha_np.weights.sentence_files import transformer_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Files of other tokenizers; those of sentencepiece end in .model.
OTHER_FILES = ("vocab.json", "merges.txt")
# How many ids may lack a token: the library goes through all of them, up to 2**32, whenever it copies a tokenizer.
MOST_GAPS = 1_000_000


def load_tokenizer(
    path: str | os.PathLike[str] | None = None,
    *,
    do_lower_case: bool | None = None,
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool | None = None,
    do_basic_tokenize: bool | None = None,
    never_split: Collection[str] | None = None,
    unk_token: str | None = None,
    sep_token: str | None = None,
    pad_token: str | None = None,
    cls_token: str | None = None,
    mask_token: str | None = None,
) -> Tokenizer:
    """Load a tokenizer.

    Truncation and padding that are stored in a tokenizer.json are switched off, because `encode` pads and truncates in
    each call. What remains are the sides that the files name (``padding_side``, ``truncation_side``), where one is the
    left, and a pad token with another name than ``[PAD]``: `encode` reads them from ``tokenizer.padding`` and
    ``tokenizer.truncation``, and its arguments win.

    Parameters
    ----------
    path : str or path-like, optional
        A folder with tokenizer.json, else with vocab.txt; or such a file itself, or a file of tensors beside it.
        Settings (those below), special tokens and added tokens are read from tokenizer_config.json,
        special_tokens_map.json and added_tokens.json in the same folder too, if they are there, as the reference's
        AutoTokenizer reads them. What is not set has the reference's default. In a folder of sentence-transformers
        these are the files of its transformer. None: the tokenizer that ships with the package.
    do_lower_case : bool, optional
        Whether text is put in lower case. Here and below None means what tokenizer_config.json says, else the
        default, which is True here. No setting may come with a tokenizer.json.
    strip_accents : bool, optional
        Whether accents (combining marks) are dropped. Default: the value of `do_lower_case`.
    tokenize_chinese_chars : bool, optional
        Whether each Chinese character is a word of its own. Default: True.
    do_basic_tokenize : bool, optional
        Whether text is normalised and split at punctuation. False: the text is split at white space alone, and its
        words are cut into pieces as they are. Default: True.
    never_split : collection of str, optional
        Words that keep their accents and are not split at punctuation, where they stand between spaces. Each is looked
        up in the vocabulary as one token, and is the unknown token where the vocabulary lacks it. They are compared
        with the text after it is put in lower case: with `do_lower_case`, only words in lower case are found.
    unk_token, sep_token, pad_token, cls_token, mask_token : str, optional
        Names of the special tokens. Default: ``[UNK]`` and so on.

    Returns
    -------
    tokenizers.Tokenizer
        The tokenizer. Token ids are line numbers of vocab.txt, counted from 0.

    Raises
    ------
    FileNotFoundError
        The path does not exist, or the folder holds neither file.
    TypeError
        An argument has a wrong type.
    ValueError
        A file is not UTF-8, begins with a byte-order mark, is not JSON or not a tokenizer; a setting in a file has a
        wrong type; a file names another tokenizer than one of BERT's; the vocabulary lacks special tokens, which are
        named; or settings come with a tokenizer.json.

    Examples
    --------
    >>> load_tokenizer().encode("房间很[MASK]净。").tokens
    ['[CLS]', '房', '间', '很', '[MASK]', '净', '。', '[SEP]']
    >>> load_tokenizer().encode("ok GPU").tokens
    ['[CLS]', 'ok', 'gpu', '[SEP]']
    >>> load_tokenizer(do_lower_case=False).encode("ok GPU").tokens
    ['[CLS]', 'ok', '[UNK]', '[SEP]']
    """
    settings = check_settings(
        do_lower_case=do_lower_case,
        strip_accents=strip_accents,
        tokenize_chinese_chars=tokenize_chinese_chars,
        do_basic_tokenize=do_basic_tokenize,
        never_split=never_split,
        unk_token=unk_token,
        sep_token=sep_token,
        pad_token=pad_token,
        cls_token=cls_token,
        mask_token=mask_token,
    )
    file = _find_file(path)
    check_whole(file.parent)
    config = read_object(file.with_name("tokenizer_config.json"))
    kind = find_class(file, config)
    if file.suffix == ".json":
        if settings:
            name, value = next(iter(settings.items()))
            raise ValueError(
                f"{name}: expected None with {file}, whose settings are those of its folder, got {value!r}; "
                "let path name a vocab.txt to use another"
            )
        tokenizer = _read_tokenizer(file)
        defaults = SPECIAL_TOKENS if kind == "BertTokenizer" else {}
        tokens = read_tokens(file, config, settings, defaults, tokenizer.get_added_tokens_decoder())
        check_lengths((str(token) for token in tokens.all), file)
        check_special_tokens(tokenizer, tokens, file)
        add_tokens(tokenizer, tokens, file)
        if kind != "PreTrainedTokenizerFast":
            obey_config(tokenizer, config, all_settings=kind == "BertTokenizer")
    else:
        tokens = read_tokens(file, config, settings, SPECIAL_TOKENS, {})
        check_lengths((str(token) for token in tokens.all), file)
        tokenizer = make_tokenizer(file, config | settings, tokens)
    padded, cut = tokenizer.padding or {}, tokenizer.truncation or {}
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pad = str(tokens.named.get("pad_token", padded.get("pad_token", "[PAD]")))
    side = get_side(config, "padding_side", padded.get("direction", "right"))
    if (pad != "[PAD]" or side != "right") and tokenizer.token_to_id(pad) is not None:
        tokenizer.enable_padding(direction=side, pad_token=pad, pad_id=tokenizer.token_to_id(pad))
    if get_side(config, "truncation_side", cut.get("direction", "right")) == "left":
        tokenizer.enable_truncation(NO_LENGTH, direction="left")
    if not get_setting(config, "clean_up_tokenization_spaces", bool, True):
        keep_spaces(tokenizer)
    check_at_work(tokenizer, file)
    return tokenizer


def save_vocabulary(
    tokenizer: Tokenizer, folder: str | os.PathLike[str], *, mask_token: str | None = None
) -> tuple[str, str]:
    """Write vocab.txt and tokenizer_config.json, which `load_tokenizer` and transformers' tokenizers read.

    The files are read back before they are moved into place: `load_tokenizer` makes an equal tokenizer of them, except
    for truncation and padding, of which the sides are kept. (BertTokenizerFast ignores `never_split` and
    `do_basic_tokenize`; BertTokenizer does not.)

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        One from `load_tokenizer`, or another WordPiece tokenizer with the parts of BertTokenizerFast.
    folder : str or path-like
        Where to write the two files; it is made if need be. Files with these names are replaced.
    mask_token : str, optional
        The name of the mask token, which is not marked in a tokenizer. None: ``[MASK]``, else the only further special
        token.

    Returns
    -------
    tuple of str
        The paths of vocab.txt and tokenizer_config.json.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        The two files cannot describe the tokenizer; its mask token cannot be told from other special tokens; or the
        folder holds a tokenizer.json, which would be read instead of them.

    Examples
    --------
    >>> import tempfile
    >>> tokenizer, folder = load_tokenizer(do_lower_case=False), tempfile.mkdtemp()
    >>> vocabulary, config = save_vocabulary(tokenizer, folder)
    >>> load_tokenizer(folder).to_str() == load_tokenizer(vocabulary).to_str() == tokenizer.to_str()
    True
    """
    check_tokenizer(tokenizer)
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder: expected a str or a path, got {type(folder).__name__}")
    if not isinstance(mask_token, str | None):
        raise TypeError(f"mask_token: expected a str or None, got {type(mask_token).__name__}")
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ValueError(f"folder: expected a folder, got the file {target}")
    if (target / "tokenizer.json").exists():
        raise ValueError(f"folder: expected one without tokenizer.json, which is read before vocab.txt, got {target}")

    state = json.loads(without_truncation_and_padding(tokenizer).to_str())
    if state["model"].get("type") != "WordPiece":
        raise ValueError(f"tokenizer: expected a WordPiece model, got {state['model'].get('type')}")
    config = describe_tokenizer(tokenizer, state, mask_token)
    lines = vocabulary_lines(state["model"]["vocab"])

    def write(temporary: Path) -> None:
        (temporary / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (temporary / "tokenizer_config.json").write_text(text, encoding="utf-8", newline="\n")
        read_back = json.loads(without_truncation_and_padding(load_tokenizer(temporary)).to_str())
        if different := [part for part in state if read_back.get(part) != state[part]]:
            raise ValueError(
                "tokenizer: expected one that vocab.txt and tokenizer_config.json can describe, got another "
                + ", ".join(different)
            )

    write_atomically(target, write)
    return str(target / "vocab.txt"), str(target / "tokenizer_config.json")


def _find_file(path: str | os.PathLike[str] | None) -> Path:
    if not isinstance(path, str | os.PathLike | None):
        raise TypeError(f"path: expected a str, a path or None, got {type(path).__name__}")
    found = SHIPPED if path is None else Path(path)
    if not found.exists():
        raise FileNotFoundError(f"path: {found} does not exist")
    if (
        found.suffix in READERS or is_index(found)
    ) and found.is_file():  # `load` takes the path of a file of tensors too
        found = found.parent
    if not found.is_dir():
        return found
    found = transformer_folder(found)
    for file in (found / "tokenizer.json", found / "vocab.txt"):
        if file.is_file():
            return file
    find_class(found / "tokenizer.json", read_object(found / "tokenizer_config.json"))  # another class goes first
    others = sorted(file.name for file in found.iterdir() if file.name in OTHER_FILES or file.suffix == ".model")
    instead = f"{', '.join(others)}, of another tokenizer than BERT's" if others else "neither"
    raise FileNotFoundError(f"path: expected tokenizer.json or vocab.txt in {found}, found {instead}")


def _read_tokenizer(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    text = read_utf8(file)
    try:
        check_declarations(text, file)
    except ValueError as error:
        if str(error).startswith("path: "):
            raise
        raise ValueError(f"path: {file} is not a tokenizer.json: {error}") from None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower class
        raise ValueError(f"path: {file} is not a tokenizer.json: {error}") from error
    ids = tokenizer.get_vocab(with_added_tokens=False).values()
    if (last := max(ids, default=0)) > len(ids) + MOST_GAPS:
        raise ValueError(f"path: expected ids from 0 to {len(ids) - 1} for the {len(ids)} tokens of {file}, got {last}")
    return tokenizer
