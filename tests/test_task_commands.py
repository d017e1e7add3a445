"""The commands from texts to answers: what they read and write, and how they name what is wrong."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.jobs import line_windows
from nezha_np.weights.checkpoint import SHIPPED

REVIEWS = ["房间很干净，服务也好。", "", "又脏又吵，\t不会再来。", "早餐😀"]
NEWS = "周恩来在北京会见了外宾。"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder with models that are not trained."""
    monkeypatch.chdir(tmp_path)
    config = nz.load().config.replace(num_hidden_layers=1)
    inference = config.replace(num_labels=2, id2label={0: "no", 1: "entailment"}, label2id=None)
    for name, head, made in (
        ("reader", "question_answering", config),
        ("chooser", "multiple_choice", config),
        ("inference", "sequence_classification", inference),
    ):
        nz.init(made, head).save(tmp_path / name)
        for file in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(SHIPPED / file, tmp_path / name)
    (tmp_path / "reviews.txt").write_text("".join(f"{text}\n" for text in REVIEWS), encoding="utf-8", newline="\n")
    return tmp_path


def printed(capsys, *arguments):
    assert main(arguments) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def rounded(results, *fields):
    return [[[getattr(one, field) for field in fields] for one in some] for some in results]


def refused(capsys, *arguments):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_classify_writes_each_text_with_its_labels(folder, capsys, monkeypatch):
    monkeypatch.setattr(line_windows, "WINDOW", 1)
    rows = printed(capsys, "classify", "reviews.txt", "--top-k", "2", "--batch-size", "3")
    assert [row["text"] for row in rows] == REVIEWS
    for row, found in zip(rows, nz.classify(REVIEWS, top_k=None), strict=True):
        assert [one["label"] for one in row["labels"]] == [label.label for label in found]
        assert [one["score"] for one in row["labels"]] == pytest.approx([label.score for label in found], abs=1e-5)


def test_json_lines_keep_their_fields_and_a_file_is_written_once_it_is_complete(folder, capsys):
    records = [{"id": number, "review": text} for number, text in enumerate(REVIEWS)]
    (folder / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    arguments = ["classify", "in.jsonl", "--field", "review", "-o", "out.jsonl", "--result", "sentiment"]
    assert main(arguments) == 0 and capsys.readouterr().out == ""
    text = (folder / "out.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [{"id": row["id"], "review": row["review"]} for row in rows] == records
    assert all(row["sentiment"][0]["label"] in ("positive", "negative") for row in rows) and "早餐😀" in text
    assert "found one; --force replaces it" in refused(capsys, *arguments)
    (folder / "in.jsonl").write_text('{"review": "好"}\n{"review": 5}\n', encoding="utf-8")
    assert "in.jsonl, line 2: expected an object with a string as 'review'" in refused(capsys, *arguments, "--force")
    assert (folder / "out.jsonl").read_text(encoding="utf-8") == text
    assert sorted(path.name for path in folder.iterdir()) == [
        "chooser",
        "in.jsonl",
        "inference",
        "out.jsonl",
        "reader",
        "reviews.txt",
    ]


def test_standard_input_is_read_and_results_alone_are_written_as_lines(folder, capsys, monkeypatch):
    class Input:
        buffer = io.BytesIO(f"{NEWS}\n\n".encode())

    monkeypatch.setattr(sys, "stdin", Input())
    assert main(["tag", "--format", "lines"]) == 0
    assert capsys.readouterr().out == "PER 周恩来\tLOC 北京\n\n"


def test_tag_writes_entities_with_their_places(folder, capsys):
    (folder / "news.txt").write_text(f"{NEWS}\n", encoding="utf-8")
    for aggregation in ("first", "none"):
        (row,) = printed(capsys, "tag", "news.txt", "--aggregation", aggregation)
        (found,) = nz.tag(NEWS, aggregation=None if aggregation == "none" else aggregation)
        assert [list(one) for one in row["entities"]] == [["label", "text", "start", "end", "score"]] * len(found)
        places = [[one[name] for name in ("label", "text", "start", "end")] for one in row["entities"]]
        assert [places] == rounded([found], "label", "text", "start", "end")


def test_answer_reads_columns_and_objects(folder, capsys):
    asked = [("早餐几点开始？", "早餐七点开始，在一楼。" * 60), ("谁？", "")]
    (folder / "asked.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in asked), encoding="utf-8")
    objects = [{"q": one, "c": other} for one, other in asked]
    (folder / "asked.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects), encoding="utf-8")
    options = ["--model", "reader", "--top-k", "2", "--impossible", "--stride", "20", "--max-answer-tokens", "5"]
    rows = printed(capsys, "answer", "asked.tsv", *options)
    names = ["--question-field", "q", "--context-field", "c"]
    others = printed(capsys, "answer", "asked.jsonl", *options, *names)
    found = nz.answer(
        *zip(*asked, strict=True), nz.load("reader"), top_k=2, impossible=True, stride=20, max_answer_tokens=5
    )
    for row, other, answers in zip(rows, others, found, strict=True):
        assert row["answers"] == other["answers"] and row["context"] == other["c"]
        assert [(one["text"], one["start"], one["end"]) for one in row["answers"]] == [
            (answer.text, answer.start, answer.end) for answer in answers
        ]


def test_choose_reads_columns_and_objects_with_a_context_and_without(folder, capsys):
    (folder / "a.tsv").write_text("几点？\t七点\t八点\t\n谁？\t我\n", encoding="utf-8")
    rows = printed(capsys, "choose", "a.tsv", "--model", "chooser", "--top-k", "9")
    assert [row["choices"] for row in rows] == [["七点", "八点", ""], ["我"]]
    assert [sorted(one["index"] for one in row["chosen"]) for row in rows] == [[0, 1, 2], [0]]
    record = {"question": "几点？", "choices": ["七点", "八点"], "text": "早餐七点开始。"}
    (folder / "b.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    (row,) = printed(capsys, "choose", "b.jsonl", "--model", "chooser", "--context-field", "text")
    ((best,),) = nz.choose("几点？", ["七点", "八点"], nz.load("chooser"), contexts=record["text"])
    assert row["chosen"][0]["text"] == best.text


def test_pairs_are_two_columns(folder, capsys):
    (folder / "pairs.tsv").write_text("房间\t很好\n", encoding="utf-8")
    (row,) = printed(capsys, "classify", "pairs.tsv", "--pair-field", "second")
    assert (row["text"], row["second"]) == ("房间", "很好")
    ((expected,),) = nz.classify("房间", pairs="很好")
    assert row["labels"][0]["label"] == expected.label


def test_fill_mask_writes_each_line_of_a_file_with_the_finished_texts(folder, capsys):
    gaps = ["房间很[MASK]净。", "性价[MASK]很高，[MASK]务好。"]
    (folder / "gaps.txt").write_text("".join(f"{text}\n" for text in gaps), encoding="utf-8")
    rows = printed(capsys, "fill-mask", "gaps.txt", "--top-k", "2", "--batch-size", "1")
    for row, text, found in zip(rows, gaps, nz.fill_mask(gaps, top_k=2), strict=True):
        assert list(row) == ["text", "fillings"] and row["text"] == text and len(row["fillings"]) == len(found)
        for some, expected in zip(row["fillings"], found, strict=True):
            assert [list(one) for one in some] == [["token", "id", "score", "text"]] * 2
            assert [(one["token"], one["id"], one["text"]) for one in some] == [
                (filling.token, filling.id, filling.text) for filling in expected
            ]
            assert [one["score"] for one in some] == pytest.approx([filling.score for filling in expected], abs=1e-5)
    assert rows[0]["fillings"][0][0]["text"] == "房间很干净。"


def test_fill_mask_reads_json_lines_and_another_mask_token_and_writes_a_file(folder, capsys):
    (folder / "in.jsonl").write_text('{"id": 5, "gap": "房间很大净。"}\n', encoding="utf-8")
    arguments = ["fill-mask", "in.jsonl", "--field", "gap", "--mask-token", "大", "--result", "found"]
    assert main([*arguments, "-o", "out.jsonl", "--max-length", "7"]) == 0 and capsys.readouterr().out == ""
    row = json.loads((folder / "out.jsonl").read_text(encoding="utf-8"))
    assert (row["id"], len(row["found"]), len(row["found"][0])) == (5, 1, 5)
    assert row["found"][0][0]["text"] == f"房间很{row['found'][0][0]['token']}净。"


def test_fill_mask_reads_standard_input_and_writes_results_alone_as_lines(folder, capsys, monkeypatch):
    for word in ([], ["-"]):
        stream = io.TextIOWrapper(io.BytesIO("房间很[MASK]净。\n性价[MASK]很高[MASK]\n".encode()))
        monkeypatch.setattr(sys, "stdin", stream)
        assert main(["fill-mask", *word, "--top-k", "2", "--format", "lines"]) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("干 0.984 清 0.0") and second.startswith("比 ") and second.count("\t") == 1


def test_a_text_with_a_gap_is_a_text_even_where_a_file_has_that_name(folder, capsys):
    (folder / "房间很[MASK]净。").write_text("性价[MASK]很高\n", encoding="utf-8")
    assert main(["fill-mask", "房间很[MASK]净。", "--top-k", "1"]) == 0
    assert capsys.readouterr().out == "干 0.984\n"


def test_classify_with_labels_asks_a_model_of_inference(folder, capsys):
    options = ["--model", "inference", "--labels", "体育, 财经,酒店", "--top-k", "2", "--max-length", "16"]
    for more, also in (([], {}), (["--template", "说的是{}", "--multi-label"], {"multi_label": True})):
        rows = printed(capsys, "classify", "reviews.txt", *options, *more)
        also |= {"template": "说的是{}"} if more else {}
        found = nz.classify_by_description(
            REVIEWS, ["体育", "财经", "酒店"], nz.load("inference"), max_length=16, **also
        )
        for row, expected in zip(rows, found, strict=True):
            assert [one["label"] for one in row["labels"]] == [label.label for label in expected[:2]]
            scores = [label.score for label in expected[:2]]
            assert [one["score"] for one in row["labels"]] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "reviews.txt", "--template", "{}"], "--template: expected --labels with it, got none"),
        (["classify", "reviews.txt", "--multi-label"], "--multi-label: expected --labels with it, got none"),
        (["classify", "reviews.txt", "--labels", "a"], "--model: expected a model that was trained for sequence_class"),
        (["classify", "reviews.txt", "--labels", "a,,b"], "--labels: expected labels with commas between them"),
        (
            ["classify", "reviews.txt", "--labels", "a", "--pair-field", "b"],
            "--pair-field: expected none where --labels is given, got 'b'",
        ),
        (
            ["classify", "reviews.txt", "--labels", "a", "--model", "inference", "--template", "a"],
            "--template: expected a sentence with {} where the label stands",
        ),
        (
            ["classify", "reviews.txt", "--labels", "a", "--model", "inference", "--top-k", "0"],
            "--top-k: expected a number from 1 on, got 0",
        ),
        (["fill-mask", "reviews.txt"], "reviews.txt, line 1: expected at least one [MASK]"),
        (["fill-mask", "reviews.txt", "--top-k", "7001"], "--top-k: expected a number from 1 to 7000, got 7001"),
        (["fill-mask", "很[MASK]", "--field", "a"], "--field: expected with it a file of texts"),
        (["classify", "reviews.txt", "--top-k", "0"], "--top-k: expected a number from 1 on, got 0"),
        (["classify", "reviews.txt", "--batch-size", "0"], "--batch-size: expected a number from 1 on, got 0"),
        (["classify", "nowhere.txt"], "nowhere.txt"),
        (["classify", "reviews.txt", "--pair-field", "b"], "reviews.txt, line 1: expected columns with tabs"),
        (["classify", "reviews.txt", "--model", "reader"], "sequence_classification needs tensors that"),
        (["tag", "reviews.txt", "--max-length", "3"], "--max-length: expected a number from 8 on, got 3"),
        (["answer", "reviews.txt"], "--model: expected a model that was trained for question_answering"),
        (["choose", "reviews.txt"], "--model: expected a model that was trained for multiple_choice"),
        (["choose", "own.jsonl", "--model", "chooser"], "own.jsonl, line 2[1]: expected a str, got int"),
        (["classify", "own.jsonl", "--field", "question"], "own.jsonl, line 1: expected an object without 'labels'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder, capsys, arguments, message):
    lines = ['{"question": "a", "choices": ["b"], "labels": 1}', '{"question": "a", "choices": ["b", 5]}']
    (folder / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert message in refused(capsys, *arguments)


def test_parquet_is_read_and_written_with_a_schema_and_the_number_of_the_line(folder, capsys):
    arrow = pytest.importorskip("pyarrow", reason="Parquet is read and written by pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet is read and written by pyarrow")
    gaps = [f"{text}[MASK]" for text in REVIEWS]
    columns = {"id": [7, 8, 9, 10], "text": REVIEWS, "gap": gaps, "question": gaps, "choices": [["好", "坏"]] * 4}
    parquet.write_table(arrow.table(columns), "in.parquet", row_group_size=2)
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    (folder / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for result, command, *options in (
        ("labels", "classify"),
        ("entities", "tag"),
        ("fillings", "fill-mask", "--field", "gap", "--top-k", "2"),
        ("answers", "answer", "--context-field", "text", "--model", "reader"),
        ("chosen", "choose", "--model", "chooser"),
    ):
        expected = printed(capsys, command, "in.jsonl", *options)
        assert printed(capsys, command, "in.parquet", *options) == expected
        assert main([command, "in.parquet", "-o", "out.parquet", "--force", *options]) == 0
        table = parquet.read_table("out.parquet")
        rows = table.to_pylist()
        assert [row["line"] for row in rows] == [1, 2, 3, 4] and table.schema.names[-1] == result
        assert [row[result] for row in rows] == [row[result] for row in expected]
        assert table.schema.field("line").type == arrow.int64()
    assert table.schema.names == ["line", "question", "choices", "chosen"]
    assert printed(capsys, "embed", "in.parquet") == printed(capsys, "embed", "in.jsonl")
    message = refused(capsys, "classify", "in.parquet", "--field", "nothing")
    assert "in.parquet, row 1: expected an object with a string as 'nothing'" in message
    assert "--output: expected a file for Parquet" in refused(capsys, "classify", "in.parquet", "--format", "parquet")
    assert "reviews.txt: expected Parquet" in refused(capsys, "tag", "reviews.txt", "--input-format", "parquet")


def test_parquet_without_pyarrow_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "in.parquet").write_bytes(b"PAR1")
    for arguments in (["classify", "in.parquet"], ["classify", "reviews.txt", "-o", "out.parquet"]):
        assert 'pip install "nezha-np[parquet]"' in refused(capsys, *arguments)
