"""Texts of mixed length, the same ones at every run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

REVIEWS = Path(__file__).parents[2] / "shared" / "data" / "chnsenti"  # lines of label, tab, text
# Lengths of the reviews in characters: mean and standard deviation of the logarithm, shortest, longest.
SPREAD = (4.4, 0.7, 15, 700)


def mixed_texts(count: int, tokenizer: Tokenizer) -> tuple[list[str], str]:
    """Return texts in random order, and a phrase that says where they come from."""
    generator = np.random.default_rng(0)
    texts, source = read_reviews(), "ChnSenti reviews"
    if texts:
        if count > len(texts):
            source = f"{len(texts)} ChnSenti reviews over and over"
        laps = [generator.permutation(len(texts)) for _ in range(-(-count // len(texts)))]
        return [texts[index] for index in np.concatenate(laps)[:count]], source
    return made_up_texts(count, tokenizer, generator), "made-up texts of such lengths as ChnSenti reviews have"


def read_reviews() -> list[str]:
    lines = [line for file in sorted(REVIEWS.glob("*.tsv")) for line in file.read_text(encoding="utf-8").split("\n")]
    return [line.split("\t", 1)[1] for line in lines if "\t" in line]


def made_up_texts(count: int, tokenizer: Tokenizer, generator: np.random.Generator) -> list[str]:
    """Make random texts of Chinese characters from the vocabulary; each character is a token."""
    characters = sorted(token for token in tokenizer.get_vocab() if len(token) == 1 and "一" <= token <= "鿿")
    mean, deviation, shortest, longest = SPREAD
    lengths = np.clip(np.exp(generator.normal(mean, deviation, count)), shortest, longest).astype(int)
    return ["".join(generator.choice(characters, length)) for length in lengths]
