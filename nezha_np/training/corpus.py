"""A corpus: text that was cut into tokens once, in files that any batch can be read from.

The tokens of all sentences stand in one row, on disk. Beside it stand, for each token, whether it begins a word, and
where the sentences and the documents start. The files are mapped into memory: a corpus may be larger than it, and the
batch of step 1,000,000 is read without the ones before it.

| file | what it holds |
| --- | --- |
| ``tokens.bin`` | the id of each token, int32 |
| ``begins_word.bin`` | 1 where a token begins a word, uint8 |
| ``sentences.bin`` | where each sentence starts in the row of tokens, int64, and where the last one ends |
| ``documents.bin`` | the first sentence of each document, int64, and the number of sentences |
| ``corpus.json`` | what was counted, and the size of the vocabulary |
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nezha_np.checks import check_path, what_stands_at
from nezha_np.files.atomic import write_atomically
from nezha_np.files.text_lines import parse_line, read_lines
from nezha_np.weights.sentence_files import read_settings

Segmenter = Callable[[str], Iterable[str]]
BATCH = 1024  # sentences that are tokenised at once


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """A corpus, mapped from its files.

    Attributes
    ----------
    tokens : (T,) int32 array
        The ids of all tokens.
    begins_word : (T,) uint8 array
        1 where a token begins a word.
    sentences : (S + 1,) int64 array
        Where each sentence starts in the row of tokens, and where the last one ends.
    documents : (D + 1,) int64 array
        The first sentence of each document, and the number of sentences.
    vocab_size : int
        The size of the tokenizer's vocabulary.

    Examples
    --------
    >>> import numpy as np
    >>> Corpus(np.arange(5), np.ones(5), np.array([0, 2, 5]), np.array([0, 2]), 100)
    Corpus(1 documents, 2 sentences, 5 tokens)
    """

    tokens: np.ndarray
    begins_word: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray
    vocab_size: int

    def __repr__(self) -> str:
        documents, sentences = self.documents.size - 1, self.sentences.size - 1
        return f"Corpus({documents:,} documents, {sentences:,} sentences, {self.tokens.size:,} tokens)"


def make_corpus(
    files: Iterable[str | Path],
    folder: str | Path,
    tokenizer: Any,
    *,
    segmenter: Segmenter | None = None,
    name: str = "files",
) -> Corpus:
    """Cut text files into tokens and write them as a corpus.

    Parameters
    ----------
    files : iterable of str or Path
        Text files, a sentence a line, with an empty line between documents; each file begins a document. Or, where
        the name ends in ``.jsonl``, JSON Lines: a document a line, a text or an object with a field ``text``, whose
        lines are its sentences. They are read as streams.
    folder : str or Path
        The folder of the corpus, which is made if it is not there. Files are written beside their places first, so
        that a failure leaves an old corpus as it was.
    tokenizer : tokenizers.Tokenizer
        The tokenizer, which adds no special tokens here.
    segmenter : callable, optional
        Cuts a text into its words, such as ``jieba.lcut``: what whole-word masking masks together. Put together, they
        are the text. None: each token is a word, but pieces that continue a word, ``##ing``, belong to it.
    name : str
        How errors name the files.

    Returns
    -------
    Corpus
        The corpus.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If a line cannot be read (the message has the file and the number of the line), words are not the text that
        was cut, or there is no sentence at all.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nezha_np as nz
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "text.txt").write_text("房间很干净。\\n早餐也好。\\n\\n总理会见外宾。\\n", encoding="utf-8")
    >>> make_corpus([folder / "text.txt"], folder / "corpus", nz.load_tokenizer())
    Corpus(2 documents, 3 sentences, 18 tokens)
    """
    paths = [check_path(file, name) for file in files]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{name}: expected a text file, found {what_stands_at(path)}")
    target = check_path(folder, "folder")
    vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
    counts: dict[str, int] = {}

    def write_arrays(temporary: Path) -> None:
        with (
            (temporary / "tokens.bin").open("wb") as tokens,
            (temporary / "begins_word.bin").open("wb") as begins,
            (temporary / "sentences.bin").open("wb") as sentences,
            (temporary / "documents.bin").open("wb") as documents,
        ):
            counts.update(_write_documents(paths, tokenizer, segmenter, tokens, begins, sentences, documents))
        if not counts["sentences"]:
            raise ValueError(f"{name}: expected one sentence at least, found none in {', '.join(map(str, paths))}")

    def write_counts(temporary: Path) -> None:
        text = json.dumps({**counts, "vocab_size": vocab_size}, indent=2) + "\n"
        (temporary / "corpus.json").write_text(text, encoding="utf-8", newline="\n")

    write_atomically(target, write_arrays)
    write_atomically(target, write_counts)  # last, so that a corpus that has it is complete, also after a kill
    return read_corpus(target)


def _write_documents(
    paths: Sequence[Path], tokenizer: Any, segmenter: Segmenter | None, *outputs: BinaryIO
) -> dict[str, int]:
    """Write tokens, beginnings of words, starts of sentences and of documents, in batches of sentences."""
    tokens, begins, sentences, documents = outputs
    total, count, begun = 0, 0, 0
    fresh = True  # the next sentence begins a document
    for batch in _batches(_lines(paths)):
        encodings = tokenizer.encode_batch([text for _, text in batch if text], add_special_tokens=False)
        found = iter(encodings)
        for name, text in batch:
            if not text:
                fresh = True
                continue
            encoding = next(found)
            if not encoding.ids:  # nothing but characters that the tokenizer drops
                continue
            if fresh:
                documents.write(np.int64(count).tobytes())
                begun, fresh = begun + 1, False
            tokens.write(np.asarray(encoding.ids, np.int32).tobytes())
            begins.write(_begins_word(encoding, text, segmenter, name).tobytes())
            sentences.write(np.int64(total).tobytes())
            total, count = total + len(encoding.ids), count + 1
    sentences.write(np.int64(total).tobytes())
    documents.write(np.int64(count).tobytes())
    return {"documents": begun, "sentences": count, "tokens": total}


def _lines(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield each sentence with the name of its line, and an empty text where a document ends."""
    for path in paths:
        format = "jsonl" if path.suffix == ".jsonl" else "lines"
        with path.open("rb") as stream:
            for line in read_lines(stream, str(path), format=format):
                text, _ = parse_line(line, format=format, field="text")
                if format == "lines":
                    yield line.name, text.strip()
                    continue
                for sentence in filter(None, map(str.strip, text.split("\n"))):  # an empty line ends no document here
                    yield line.name, sentence
                yield line.name, ""
        yield str(path), ""


def _batches(lines: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _begins_word(encoding: Any, text: str, segmenter: Segmenter | None, name: str) -> np.ndarray:
    """Say of each token whether it begins a word: where the word that its first character is in is another one."""
    continues = np.array([token.startswith("##") for token in encoding.tokens])
    if segmenter is None:
        return (~continues).astype(np.uint8)
    words = list(segmenter(text))
    if "".join(words) != text:
        raise ValueError(f"{name}: expected words that are the text when they are put together, got {words!r}")
    word_of = np.repeat(np.arange(len(words)), [len(word) for word in words])  # of each character
    starts = np.array([start for start, _ in encoding.offsets])
    begins: np.ndarray = (np.diff(word_of[starts], prepend=-1) != 0) & ~continues
    return begins.astype(np.uint8)


def read_corpus(folder: str | Path) -> Corpus:
    """Map a corpus that `make_corpus` wrote.

    Parameters
    ----------
    folder : str or Path
        Its folder.

    Returns
    -------
    Corpus
        The corpus, whose arrays cannot be written to.

    Raises
    ------
    FileNotFoundError
        If the folder holds no corpus.
    ValueError
        If a file has another size than ``corpus.json`` says.

    Examples
    --------
    >>> read_corpus("no_such_folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: no_such_folder: expected a corpus that make_corpus wrote, found no corpus.json
    """
    path = check_path(folder, "folder")
    if not (path / "corpus.json").is_file():
        raise FileNotFoundError(f"{path}: expected a corpus that make_corpus wrote, found no corpus.json")
    counts = read_settings(path / "corpus.json")
    arrays = {}
    for name, dtype, count in (
        ("tokens", np.int32, counts["tokens"]),
        ("begins_word", np.uint8, counts["tokens"]),
        ("sentences", np.int64, counts["sentences"] + 1),
        ("documents", np.int64, counts["documents"] + 1),
    ):
        file = path / f"{name}.bin"
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: expected what corpus.json tells of, found no such file; remove {path}, and the same call "
                "makes the corpus anew"
            )
        wanted, size = count * np.dtype(dtype).itemsize, file.stat().st_size
        if size != wanted:
            raise ValueError(f"{file}: expected {wanted:,} bytes, as corpus.json says, found {size:,}")
        arrays[name] = np.memmap(file, dtype, mode="r")
    return Corpus(**arrays, vocab_size=counts["vocab_size"])
