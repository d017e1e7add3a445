"""Corpora and small models for the tests of jobs, and how those run them."""

import shutil
from pathlib import Path

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.weights.checkpoint import SHIPPED

SIZES = {"vocab_size": 7000, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
SMALL = {**SIZES, "intermediate_size": 6, "max_position_embeddings": 40, "initializer_range": 0.5}
WORDS = ["房间很干净。", "价格", "", "The hotel, 价格也便宜", "早餐一般，但是服务很热情", "好"]
BATCH = 2
SHARD = 32 * BATCH  # lines: the smallest that a shard may have
LINES = 5 * SHARD + 7
WHOLE = ["--batch-size", str(BATCH)]
JOB = [*WHOLE, "--shard-lines", str(SHARD)]


def make_models(folder: Path) -> Path:
    """Make small models: NEZHA, BERT of 40 positions, and one with a head for each task of records."""
    labels = {0: "O", 1: "B-PER", 2: "I-PER"}
    for name, config, head in (
        ("nezha", nz.NezhaConfig(**SMALL), None),
        ("bert", nz.BertConfig(**SMALL), None),
        ("other", nz.BertConfig(**{**SMALL, "hidden_size": 16}), None),
        ("classify", nz.BertConfig(**SMALL, id2label=labels), "sequence_classification"),
        ("tag", nz.BertConfig(**SMALL, id2label=labels), "token_classification"),
        ("answer", nz.BertConfig(**SMALL), "question_answering"),
        ("choose", nz.BertConfig(**SMALL), "multiple_choice"),
    ):
        nz.init(config, *([] if head is None else [head])).save(folder / name)
        for file in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(SHIPPED / file, folder / name)
    return folder


def write_texts(folder: Path) -> None:
    """Write ``texts.txt``, a file of lines of many lengths."""
    lines = [WORDS[number % 6] + str(number % 4) * (number % 11) for number in range(LINES)]
    (folder / "texts.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def embed(models: Path, out: str | Path = "job", source: str | Path = "texts.txt", model: str = "nezha", **options):
    options = {"batch_size": BATCH, "shard_lines": SHARD} | options
    return nz.run_corpus("embed", source, out, model=models / model, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def succeed(capsys, *arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0
    assert capsys.readouterr() == ("", "")


def fail(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err
