"""The tools that the shipped model was made with: the text, and a model twice as wide that computes the same."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.weights.init import init


def tool(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_grown_model_is_twice_as_wide_and_computes_the_same_with_halves_that_differ():
    config = nz.NezhaConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12
    )
    small = init(config, seed=0)
    wide = tool("grow_model").grown(small, 12, seed=0)
    assert (wide.config.hidden_size, wide.config.num_attention_heads, wide.config.intermediate_size) == (16, 4, 12)
    ids = [[2, 7, 9, 11, 3]]
    expected, found = nz.pretraining(small, ids), nz.pretraining(wide, ids)
    np.testing.assert_allclose(found.prediction_logits, expected.prediction_logits, atol=1e-5)
    np.testing.assert_allclose(found.seq_relationship_logits, expected.seq_relationship_logits, atol=1e-5)
    query = wide["encoder.layer.0.attention.self.query.weight"]
    assert not np.allclose(query[:, :8], query[:, 8:])


def test_a_grown_model_keeps_the_inner_units_with_the_largest_weights():
    config = nz.NezhaConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
    )
    tensors = dict(init(config, seed=0))
    name = "encoder.layer.0.intermediate.dense.weight"
    tensors[name] = np.where(np.arange(12)[:, None] == 5, 0, tensors[name]).astype(
        "float32"
    )  # a unit that does nothing
    small = nz.Weights(tensors, config)
    wide = tool("grow_model").grown(small, 11, seed=0)
    assert wide[name].shape == (11, 16)
    expected, found = nz.pretraining(small, [[2, 7, 3]]), nz.pretraining(wide, [[2, 7, 3]])
    np.testing.assert_allclose(found.prediction_logits, expected.prediction_logits, atol=1e-5)


SMALL = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}


@pytest.mark.parametrize("family", [nz.NezhaConfig, nz.BertConfig])
@pytest.mark.parametrize(
    "head", ["sequence_classification", "token_classification", "question_answering", "multiple_choice", "masked_lm"]
)
def test_a_grown_model_with_the_head_of_a_task_computes_the_same(head, family):
    small = init(family(**SMALL, num_labels=3), head=head, seed=0)
    wide = tool("grow_model").grown(small, 12, seed=-1)
    ids = [[[2, 7, 9, 3], [2, 8, 9, 3]]] if head == "multiple_choice" else [[2, 7, 9, 11, 3]]
    expected, found = getattr(nz, head)(small, ids), getattr(nz, head)(wide, ids)
    for name in ("start_logits", "end_logits") if head == "question_answering" else ("logits",):
        assert getattr(found, name).shape == getattr(expected, name).shape
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5)
    assert wide.config.id2label == small.config.id2label


def test_a_decoder_with_a_matrix_of_its_own_is_grown_too():
    config = nz.BertConfig(**SMALL, tie_word_embeddings=False)
    small = init(config, head="pretraining", seed=0)
    wide = tool("grow_model").grown(small, 12, seed=0)
    expected, found = nz.pretraining(small, [[2, 7, 9, 3]]), nz.pretraining(wide, [[2, 7, 9, 3]])
    np.testing.assert_allclose(found.prediction_logits, expected.prediction_logits, atol=1e-5)


def test_what_cannot_be_grown_is_named():
    grown = tool("grow_model").grown
    small = init(nz.NezhaConfig(**SMALL), seed=0)
    with pytest.raises(ValueError, match=r"^FROM: .* known heads, got reward\.weight$"):
        grown(nz.Weights({**small, "reward.weight": np.zeros((1, 8), np.float32)}, small.config), 12, 0)
    with pytest.raises(ValueError, match=r"^FROM: expected a NEZHA or a BERT with all its heads, got convbert$"):
        grown(init(nz.ConvBertConfig(**SMALL, embedding_size=8), seed=0), 12, 0)
    with pytest.raises(ValueError, match=r"^FROM: expected a NEZHA or a BERT with all its heads, got pruned heads$"):
        grown(init(nz.NezhaConfig(**SMALL, pruned_heads={0: [1]}), seed=0), 12, 0)


def test_the_command_names_a_wrong_folder_or_number_and_replaces_no_model(tmp_path, capsys):
    main = tool("grow_model").main
    init(nz.NezhaConfig(**SMALL), seed=0).save(tmp_path / "small")
    (tmp_path / "file").touch()
    small, wide = str(tmp_path / "small"), str(tmp_path / "wide")
    for words, message in (
        ([str(tmp_path / "missing"), wide], "^FROM: expected a folder or a file .*missing"),
        ([small, wide, "--feed-forward", "5000"], "^--feed-forward: expected a number from 1 to 12, got 5000$"),
        ([small, wide, "--feed-forward", "0"], "^--feed-forward: expected a number from 1 to 12, got 0$"),
        ([small, small], r"^TO: expected a new folder, found model\.safetensors of a model in"),
        ([small, str(tmp_path / "file")], "^TO: expected a new folder, found a file: "),
    ):
        with pytest.raises(SystemExit, match=message):
            main(words)
    assert not (tmp_path / "wide").exists()
    main([small, wide, "--feed-forward", "11"])
    assert nz.load(wide).config.intermediate_size == 11 and "wide" in capsys.readouterr().out


def test_every_tenth_line_and_what_begins_like_it_is_held_out():
    lines = [
        (number, f"第{number}条评论。写得很长，写得很长，写得很长，写得很长，写得很长，写得很长，写得很长。")
        for number in range(21)
    ]
    lines[3] = (3, lines[10][1] + "还有一句。")
    kept, held_out = tool("make_training_text").divide(lines)
    assert [document[0] for document in held_out] == ["第0条评论。", "第10条评论。", "第20条评论。"]
    assert [document[0] for document in kept] == [
        f"第{number}条评论。" for number in range(20) if number % 10 and number != 3
    ]


def test_sentences_are_cut_after_their_marks_and_lose_nothing():
    text = "“好吗？”他问：真的！很好；行。完"
    found = tool("make_training_text").sentences(text)
    assert found == ["“好吗？”", "他问：真的！", "很好；", "行。", "完"]
    assert tool("make_training_text").put_together([["一。"], ["二。", "三。"], ["四。"]], 4) == [
        ["一。", "二。", "三。"],
        ["四。"],
    ]
