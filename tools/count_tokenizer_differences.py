"""Count the code points of which transformers' slow and fast BERT tokenizers make different words.

    python tools/count_tokenizer_differences.py

prints the table in docs/tokenizers.md. Each code point is split alone and between two letters. Words are compared
before they are cut into pieces, so that no vocabulary matters.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parents[1] / "nezha_np" / "checkpoints" / "nezha-tiny-zh"
SETTINGS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "do_lower_case=False": {"do_lower_case": False},
    "strip_accents=False": {"strip_accents": False},
    "do_lower_case=False, strip_accents=True": {"do_lower_case": False, "strip_accents": True},
    "tokenize_chinese_chars=False": {"tokenize_chinese_chars": False},
}
REASONS = {
    "unassigned": "not assigned in Python's tables: the slow tokenizer drops it, the fast one keeps it",
    "format": "a format character (Cf) that the fast one's tables lack: the slow one drops it, the fast one keeps it",
    "mark": "a combining mark in the tables of only one: that one strips it, also from a letter that it is part of",
    "chinese": "a Chinese character from U+2B820 to U+2B91F: a word of its own for the slow one only",
    "punctuation": "punctuation in the tables of only one: that one splits there",
    "composed": "the slow one composes characters (NFC), the fast one does not",
}


def slow_words(slow: Any, text: str) -> list[str]:
    """Split a text without special tokens as a BertTokenizer does."""
    if slow.do_lower_case:  # each character by itself, as PreTrainedTokenizer.tokenize does first
        text = "".join(map(str.lower, text))
    return slow.basic_tokenizer.tokenize(text)


def fast_words(fast: Any, text: str) -> list[str]:
    """Split a text without special tokens as a tokenizers.Tokenizer does."""
    return [word for word, _ in fast.pre_tokenizer.pre_tokenize_str(fast.normalizer.normalize_str(text))]


def difference(slow: Any, fast: Any, character: str) -> str | None:
    """Name the reason why the two make different words of a character; None if they do not."""
    for text in (character, f"a{character}b"):
        ours, theirs = fast_words(fast, text), slow_words(slow, text)
        if ours != theirs:
            return _reason(character, theirs, ours)
    return None


def _reason(character: str, slow: list[str], fast: list[str]) -> str:
    category = unicodedata.category(character)
    if category == "Cn":
        return "unassigned"
    if category == "Cf":
        return "format"
    if 0x2B820 <= ord(character) <= 0x2B91F:
        return "chinese"
    if slow == [unicodedata.normalize("NFC", word) for word in fast]:
        return "composed"
    return "punctuation" if "".join(slow) == "".join(fast) and len(slow) != len(fast) else "mark"


def every_character() -> Iterator[str]:
    """Return all code points but the surrogates, which are not valid in a text."""
    return (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)


def main() -> None:
    """Print the table."""
    from transformers import BertTokenizer, BertTokenizerFast

    counts: dict[str, Counter[str]] = {}
    for name, settings in SETTINGS.items():
        slow = BertTokenizer.from_pretrained(SHIPPED, **settings)
        fast = BertTokenizerFast.from_pretrained(SHIPPED, **settings).backend_tokenizer
        found = (difference(slow, fast, character) for character in every_character())
        counts[name] = Counter(reason for reason in found if reason)
    print(f"Python's Unicode: {unicodedata.unidata_version}\n")
    print("|", " | ".join(["", *(f"`{name}`" if "=" in name else name for name in SETTINGS)]), "|")
    print("| --- |", " | ".join("---:" for _ in SETTINGS), "|")
    for reason, text in REASONS.items():
        print(f"| {text} |", " | ".join(f"{counts[name][reason]:,}" for name in SETTINGS), "|")
    print("| together |", " | ".join(f"{counts[name].total():,}" for name in SETTINGS), "|")
    assigned = (f"{counts[name].total() - counts[name]['unassigned']:,}" for name in SETTINGS)
    print("| of these, assigned |", " | ".join(assigned), "|")


if __name__ == "__main__":
    main()
