"""Folders of sentence-transformers: their modules say how a text becomes a vector, and a call may say otherwise.

The expected numbers are those of sentence-transformers 2.7.0; where it is installed, whole vectors are compared.
"""

from __future__ import annotations

import functools
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_folders import (
    SIZE,
    SIZES,
    TEXTS,
    make_dense,
    make_plain,
    write_json,
    write_modules,
    write_pooling,
    write_tensors,
    write_transformer,
)

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.files import atomic
from nezha_np.weights.convert import convert

CUT = "ignore:texts are cut after:UserWarning"  # the third text is longer than the 16 tokens of the folders
ALL = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def make_lower_and_uncut(folder):
    """Leave out max_seq_length: 40 positions and the 30 tokens of the tokenizer's configuration are what there is."""
    make_plain(folder, ["mean_tokens"])
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": True})
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(folder / "tokenizer_config.json", config | {"do_lower_case": False, "model_max_length": 30})
    return folder


def make_prompted(folder, include_prompt=True):
    make_plain(folder, ALL[1:], include_prompt=include_prompt)
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "查询：ok ", "passage": "p: "}, "default_prompt_name": "query"},
    )
    return folder


def make_in_subfolder(folder):
    """Write the layout of the first versions: the transformer in a folder of its own."""
    write_transformer(folder / "0_Transformer", max_seq_length=16, do_lower_case=False)
    write_modules(folder, ("Transformer", "0_Transformer"), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    write_pooling(folder, "cls_token")
    return folder


def make_long_chain(folder):
    make_dense(folder, activation="linear.Identity")
    write_modules(
        folder,
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
        ("Dense", "2_Dense"),
        ("Dropout", "3_Dropout"),
        ("LayerNorm", "4_LayerNorm"),
        ("Normalize", "5_Normalize"),
    )
    write_json(folder / "3_Dropout" / "config.json", {"dropout": 0.5})
    write_json(folder / "4_LayerNorm" / "config.json", {"dimension": 4})
    write_tensors(folder / "4_LayerNorm", norm__weight=(4,), norm__bias=(4,))
    return folder


FOLDERS = {
    "cls": functools.partial(make_plain, switches=["cls_token"]),
    "max": functools.partial(make_plain, switches=["max_tokens"]),
    "mean": functools.partial(make_plain, switches=["mean_tokens"]),
    "mean_sqrt_len_tokens": functools.partial(make_plain, switches=["mean_sqrt_len_tokens"]),
    "weightedmean": functools.partial(make_plain, switches=["weightedmean_tokens"]),
    "lasttoken": functools.partial(make_plain, switches=["lasttoken"]),
    "all": functools.partial(make_plain, switches=ALL),
    "normalised": functools.partial(make_plain, switches=["cls_token"], normalize=True),
    "dense": make_dense,
    "gelu": functools.partial(make_dense, activation="activation.GELU", out=9),
    "chain": make_long_chain,
    "prompt": make_prompted,
    "prompt left out": functools.partial(make_prompted, include_prompt=False),
    "lower": make_lower_and_uncut,
    "subfolder": make_in_subfolder,
    "nezha": functools.partial(make_plain, switches=["mean_tokens"], config=nz.NezhaConfig(**SIZES)),
}

# The first three numbers of the second text's vector, and the last three of the third's.
NUMBERS = {
    "cls": [[1.008446, 0.969939, -0.885437], [-0.905174, 0.565779, -1.205322]],
    "max": [[1.561227, 1.056831, 0.24838], [0.666838, 2.324815, 1.074695]],
    "mean": [[1.205118, 0.909104, -0.148708], [-0.984335, -0.563387, -0.109321]],
    "mean_sqrt_len_tokens": [[3.408587, 2.571336, -0.420609], [-3.937342, -2.253549, -0.437284]],
    "weightedmean": [[1.247628, 0.885453, -0.077345], [-1.055714, -0.703193, -0.16102]],
    "lasttoken": [[1.561227, 0.783899, 0.152213], [-0.993687, -1.6757, 0.664007]],
    "all": [[1.008446, 0.969939, -0.885437], [-0.993687, -1.6757, 0.664007]],
    "normalised": [[0.35654, 0.342925, -0.313049], [-0.320028, 0.200033, -0.426146]],
    "dense": [[0.943409, -0.589616, -0.313071], [-0.600765, -0.702777, 0.815046]],
    "gelu": [[1.70007, -0.168713, -0.120829], [0.617496, 2.980166, -0.114266]],
    "chain": [[0.860891, -0.050694, 0.014119], [0.046809, -0.000933, -0.491393]],
    "prompt": [[1.899789, 0.995355, 1.258225], [-1.042018, -1.650051, 0.722002]],
    "prompt left out": [[1.899789, 0.995355, 1.208767], [-1.042018, -1.650051, 0.722002]],
    "lower": [[1.256905, 0.80777, -0.187448], [-0.635641, -0.966304, -0.009589]],
    "subfolder": [[0.35654, 0.342925, -0.313049], [-0.320028, 0.200033, -0.426146]],
    "nezha": [[0.581072, 0.331571, 0.760786], [-1.24654, 0.735983, -1.708369]],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make each folder when it is first asked for."""
    return functools.cache(lambda name: FOLDERS[name](tmp_path_factory.mktemp("models") / name))


@pytest.mark.filterwarnings(CUT)
@pytest.mark.parametrize("name", FOLDERS)
def test_vectors_are_those_of_sentence_transformers(made, name):
    vectors = nz.embed(TEXTS, nz.load(made(name)))
    second, third = NUMBERS[name]
    np.testing.assert_allclose(vectors[1, :3], second, rtol=0, atol=3e-6)
    np.testing.assert_allclose(vectors[2, -3:], third, rtol=0, atol=3e-6)
    assert vectors.dtype == np.float32 and nz.embed([], nz.load(made(name))).shape == (0, vectors.shape[1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOLDERS)
def test_whole_vectors_are_those_of_sentence_transformers_where_it_is_installed(made, name):
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="the reference is its version 2.7.0")
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    folder = made(name)
    vectors = nz.embed(TEXTS, nz.load(folder))
    for file in folder.glob("[24]_*/model.safetensors"):  # version 2.7.0 reads PyTorch's file alone
        tensors = {key: torch.tensor(array) for key, array in load_file(file).items()}
        torch.save(tensors, file.with_name("pytorch_model.bin"))
    expected = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=3e-6)


def test_a_dense_is_read_from_pytorchs_file_too(tmp_path):
    torch = pytest.importorskip("torch", reason="the file is PyTorch's")
    folder = make_dense(tmp_path)
    expected = nz.embed(TEXTS[:2], nz.load(folder))
    file = folder / "2_Dense" / "model.safetensors"
    torch.save({key: torch.tensor(array) for key, array in load_file(file).items()}, file.parent / "pytorch_model.bin")
    file.unlink()
    assert np.array_equal(nz.embed(TEXTS[:2], nz.load(folder)), expected)


def test_a_text_that_the_folder_lets_be_cut_gives_a_warning_and_an_explicit_length_none(made):
    weights = nz.load(made("cls"))
    with pytest.warns(
        UserWarning, match=r"texts are cut after 16 tokens, the max_seq_length in .*max_length sets"
    ) as got:
        cut = nz.embed(TEXTS * 3, weights, batch_size=2)
    assert len(got) == 1 and got[0].filename == __file__
    np.testing.assert_allclose(nz.embed(TEXTS, weights, max_length=16), cut[: len(TEXTS)], rtol=0, atol=1e-6)
    assert not np.allclose(nz.embed(TEXTS, weights, max_length=40)[2], cut[2], atol=1e-3)
    with pytest.warns(UserWarning, match="texts are cut after 30 tokens, the longest text that .* is made for"):
        nz.embed(TEXTS, nz.load(made("lower")))


def test_the_command_writes_the_same_vectors_and_says_once_that_lines_are_cut(capsysbinary, tmp_path, made):
    texts, out = tmp_path / "texts.txt", tmp_path / "v.npy"
    texts.write_bytes("".join(f"{text}\n" for text in TEXTS * 2).encode())
    run = ["embed", str(texts), "-o", str(out), "--model", str(made("dense")), "--batch-size", "1"]
    assert main(run) == 0
    (message,) = capsysbinary.readouterr().err.decode().splitlines()
    assert message.startswith(f"nezha-np: {texts}, line 3: cut after 16 tokens, the max_seq_length in ")
    assert message.endswith("--max-length sets another")
    with pytest.warns(UserWarning, match="texts are cut"):
        expected = nz.embed(TEXTS * 2, nz.load(made("dense")))
    assert np.load(out).shape == (8, 4)
    np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--max-length", "40"], {"max_length": 40}),
        (["--no-normalize", "--max-length", "8"], {"normalize": False, "max_length": 8}),
        (["--pooling", "max+cls", "--max-length", "8"], {"pooling": "max+cls", "max_length": 8}),
        (["--prompt", "查询：", "--max-length", "8"], {"prompt": "查询：", "max_length": 8}),
    ],
)
def test_an_explicit_option_wins_over_the_folder(capsysbinary, tmp_path, made, arguments, options):
    texts, out = tmp_path / "texts.txt", tmp_path / "v.npy"
    texts.write_bytes("".join(f"{text}\n" for text in TEXTS).encode())
    folder = made("normalised")
    assert main(["embed", str(texts), "-o", str(out), "--model", str(folder), *arguments]) == 0
    assert capsysbinary.readouterr().err == b""
    plain = nz.Weights(dict(nz.load(folder)), nz.load(folder).config)  # which come from no folder
    by_hand = [options.get("prompt", "") + text for text in TEXTS]
    expected = nz.embed(
        by_hand,
        plain,
        nz.load_tokenizer(folder),
        **{"pooling": "cls", "normalize": True} | {key: value for key, value in options.items() if key != "prompt"},
    )
    np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(nz.embed(TEXTS, nz.load(folder), **options), expected, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings(CUT)
def test_other_settings_of_the_folder_are_not_mixed_into_a_partial_file(capsysbinary, tmp_path, monkeypatch):
    folder, texts = make_dense(tmp_path / "model"), tmp_path / "texts.txt"
    texts.write_bytes("好\n".encode() * 4)
    run = ["embed", str(texts), "-o", str(tmp_path / "v.npy"), "--model", str(folder), "--batch-size", "2"]
    texts.write_bytes("好\n好\n".encode() + b"\xff\n")
    assert main(run) == 2
    write_pooling(folder, "cls_token")
    assert main(run) == 2
    assert "expected rows made with pooling 'cls', got 2 made with 'mean'" in capsysbinary.readouterr().err.decode()
    write_pooling(folder, "mean_tokens")
    write_tensors(folder / "2_Dense", linear__weight=(4, SIZE), linear__bias=(4,), scale=2.0)
    assert main(run) == 2 and "expected rows made with model " in capsysbinary.readouterr().err.decode()


def test_the_transformer_of_a_folder_is_found_where_modules_json_says(made):
    folder = made("subfolder")
    weights = nz.load(folder)
    assert weights.source == folder and isinstance(weights.config, nz.BertConfig)
    assert nz.load_tokenizer(folder).encode("房间").tokens == ["[CLS]", "房", "间", "[SEP]"]
    alone = nz.load(folder / "0_Transformer")  # the transformer itself is no sentence model
    batch = nz.encode(nz.load_tokenizer(folder), "房间")
    mean = nz.forward(alone, **batch).last_hidden_state.mean(axis=1)
    np.testing.assert_allclose(nz.embed("房间", alone), mean, rtol=0, atol=1e-6)
    assert main(["inspect", str(folder)]) == 0


@pytest.mark.parametrize("name", ["subfolder", "chain", "prompt left out"])
@pytest.mark.filterwarnings(CUT)
def test_convert_keeps_a_sentence_model(tmp_path, made, name):
    done = convert(made(name), tmp_path / "new")
    assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "vocab.txt"} <= set(done.copied)
    assert (tmp_path / "new" / "model.safetensors").is_file()
    assert not list((tmp_path / "new").rglob(".nezha-np-*"))
    expected = nz.embed(TEXTS, nz.load(made(name)))
    assert np.array_equal(nz.embed(TEXTS, nz.load(tmp_path / "new")), expected)
    half = nz.load(made(name)).to(dtype="float16")  # other weights of the same folder
    np.testing.assert_allclose(nz.embed(TEXTS, half), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chain", "embed: vectors of 4 numbers, pooling mean, then Dense, then LayerNorm, then Normalize"),
        (
            "prompt",
            "embed: vectors of 40 numbers, pooling max+mean+mean_sqrt_len_tokens+weightedmean+lasttoken; '查询：ok ' ",
        ),
        ("subfolder", "embed: texts are cut after 16 tokens, the max_seq_length in "),
    ],
)
def test_inspect_says_what_makes_a_vector(capsys, made, name, expected):
    assert main(["inspect", str(made(name))]) == 0
    assert expected in capsys.readouterr().out


def test_inspect_says_what_embed_refuses(capsys, tmp_path):
    folder = make_plain(tmp_path, ["cls_token"])
    write_modules(folder, ("Transformer", ""), ("WordWeights", "1_WordWeights"), ("Pooling", "2_Pooling"))
    assert main(["inspect", str(folder)]) == 0
    assert "got WordWeights, which is not implemented" in capsys.readouterr().out
    assert main(["inspect"]) == 0 and "embed" not in capsys.readouterr().out.replace("embeddings", "")


def test_weights_whose_folder_is_gone_need_a_pooling(tmp_path):
    folder = make_plain(tmp_path / "model", ["cls_token"])
    weights, tokenizer = nz.load(folder), nz.load_tokenizer(folder)
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"weights: expected the folder .* give the pooling"):
        nz.embed(TEXTS, weights, tokenizer)
    assert nz.embed(TEXTS, weights, tokenizer, pooling="cls").shape == (4, SIZE)


def test_a_convert_that_fails_leaves_nothing_of_a_sentence_model(tmp_path, monkeypatch, made):
    for target in ("1_Pooling/config.json", "modules.json", "model.safetensors"):
        out = tmp_path / "out"

        def move(file, path, original=atomic._move_new, target=target):
            if path.as_posix().endswith(f"out/{target}"):
                raise OSError("the disk is full")
            original(file, path)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is full"):
            patch.setattr(atomic, "_move_new", move)
            convert(made("subfolder"), out)
        assert not out.exists()


def test_nothing_is_written_where_modules_json_would_not_lead_to_it(tmp_path, made):
    folder = tmp_path / "model"
    shutil.copytree(made("subfolder"), folder)
    with pytest.raises(
        ValueError, match=r"path: expected a folder whose modules.json has the transformer in the folder"
    ):
        nz.load(folder).save(folder)
    with pytest.raises(ValueError, match=r"destination: expected a folder whose modules.json"):
        convert(made("cls"), folder, force=True)
    nz.load(folder, dtype="float64").save(folder / "0_Transformer")  # not mapped: Windows replaces no mapped file
    (tmp_path / "other" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "other" / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"expected a folder without a checkpoint, found 1_Pooling/config.json"):
        convert(folder, tmp_path / "other")


@pytest.mark.filterwarnings(CUT)
def test_what_later_versions_of_sentence_transformers_write_is_read(tmp_path, made):
    folder = tmp_path / "model"
    shutil.copytree(made("cls"), folder)
    library = "sentence_transformers.sentence_transformer.modules.pooling"
    base = "sentence_transformers.base.modules.transformer.Transformer"
    write_modules(folder, (base, ""), (f"{library}.Pooling", "1_Pooling"))
    modes = {"embedding_dimension": SIZE, "pooling_mode": ["mean", "cls"], "include_prompt": True}
    write_json(folder / "1_Pooling" / "config.json", modes)
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
        "max_seq_length": 16,
    }
    write_json(folder / "sentence_bert_config.json", settings)
    vectors = nz.embed(TEXTS, nz.load(folder))
    expected = [nz.embed(TEXTS, nz.load(made(name))) for name in ("mean", "cls")]
    # Where "cls" is the only pooling the last layer computes the first token alone, which rounds otherwise.
    np.testing.assert_allclose(vectors, np.concatenate(expected, axis=1), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ what is refused

MODULES = (("Transformer", ""), ("Pooling", "1_Pooling"))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ((("WordEmbeddings", "0_WordEmbeddings"), MODULES[1]), "got WordEmbeddings, which is not implemented"),
        ((*MODULES[:1], ("LSTM", "1_LSTM"), MODULES[1]), "got LSTM, which is not implemented"),
        ((*MODULES[:1], ("CNN", "1_CNN"), MODULES[1]), "got CNN, which is not implemented"),
        ((*MODULES[:1], ("WeightedLayerPooling", "1"), MODULES[1]), "got WeightedLayerPooling, which is not impl"),
        ((("custom_st.Transformer", ""), MODULES[1]), "got custom_st.Transformer, which is not implemented"),
        (MODULES[:1], "expected a Transformer, a Pooling, and what follows them, got Transformer$"),
        (
            (*MODULES, ("Transformer", "")),
            "expected a Transformer, a Pooling, and what follows them, got Transformer, Po",
        ),
        ((*MODULES, ("Dense", "../2_Dense")), r"expected paths inside its folder, got '\.\./2_Dense'"),
        ((("Transformer", "/tmp"), MODULES[1]), "expected paths inside its folder, got '/tmp'"),
        ((("Transformer", "C:\\model"), MODULES[1]), "expected paths inside its folder"),
    ],
)
def test_what_modules_json_asks_for_and_is_not_there_is_refused_by_name(tmp_path, modules, message):
    folder = make_plain(tmp_path, ["cls_token"])
    weights = nz.load(folder)
    write_modules(folder, *modules)
    with pytest.raises(ValueError, match=rf"modules\.json: .*{message}"):
        nz.embed(TEXTS, weights)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "{", "modules.json: expected JSON"),
        ("modules.json", "{}", "modules.json: expected a list of modules, got dict"),
        ("modules.json", "[]", "modules.json: expected a list of modules, got an empty one"),
        ("modules.json", "[1]", "modules.json: expected modules with a type and a path, got 1"),
        ("1_Pooling/config.json", "[]", "config.json: expected a JSON object, got list"),
        ("1_Pooling/config.json", '{"pooling_mode_mean_tokens": false}', "expected poolings among cls, .*, got 'none'"),
        ("1_Pooling/config.json", '{"pooling_mode": "median"}', "expected poolings among cls, .*, got 'median'"),
        ("1_Pooling/config.json", '{"pooling_mode_cls_token": 1}', "expected true or false for pooling_mode_cls_token"),
        ("1_Pooling/config.json", '{"pooling_mode_new": true}', "expected no setting pooling_mode_new, got True"),
        (
            "sentence_bert_config.json",
            '{"max_seq_length": 0}',
            "expected a number from 2 on, for the special tokens, as max_seq_length, got 0",
        ),
        ("sentence_bert_config.json", '{"max_seq_length": "512"}', "as max_seq_length, got '512'"),
        ("sentence_bert_config.json", '{"do_lower_case": "no"}', "expected true or false for do_lower_case, got 'no'"),
        (
            "sentence_bert_config.json",
            '{"tokenizer_args": {"do_lower_case": true}}',
            "expected no setting tokenizer_args",
        ),
        ("sentence_bert_config.json", '{"model_args": {"num_hidden_layers": 1}}', "expected no model_args besides"),
        ("sentence_bert_config.json", '{"transformer_task": "fill-mask"}', "'feature-extraction' as transformer_task"),
        ("sentence_bert_config.json", '{"modality_config": {"image": {}}}', "as text in modality_config"),
        ("config_sentence_transformers.json", '{"default_prompt_name": "q"}', "a text for the default_prompt_name 'q'"),
        ("config_sentence_transformers.json", '{"truncate_dim": 2}', "expected no setting truncate_dim, got 2"),
        ("config_sentence_transformers.json", '{"model_type": "SparseEncoder"}', "'SentenceTransformer' as model_type"),
        ("tokenizer_config.json", '{"model_max_length": "long"}', "from 2 on as model_max_length, got 'long'"),
        ("tokenizer_config.json", '{"model_max_length": -1e400}', "from 2 on as model_max_length, got -inf"),
        ("sentence_bert_config.json", '{"max_seq_length": 1}', "from 2 on, .* as max_seq_length, got 1"),
    ],
)
def test_a_file_that_says_what_is_not_understood_is_named(tmp_path, file, content, message):
    folder = make_plain(tmp_path, ["cls_token"])
    (folder / "sentence_bert_config.json").unlink()
    weights, tokenizer = nz.load(folder), nz.load_tokenizer(folder)
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        nz.embed(TEXTS, weights, tokenizer)
    assert file in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.PReLU"}, "expected an activation_function of torch.nn: "),
        ({"activation_function": "os.system"}, "expected an activation_function of torch.nn: .*, got 'os.system'"),
        ({"module_input_name": "token_embeddings"}, "expected 'sentence_embedding' as module_input_name"),
        ({"module_output_name": "other"}, "expected a Dense of sentence vectors, got 'other'"),
        ({"bias": False}, r"expected the tensors \{'linear.weight': \(4, 8\)\}, got \{"),
        ({"use_residual": True}, r"expected the tensors .*'residual.weight': \(4, 8\)\}, got \{"),
    ],
)
def test_a_dense_that_is_not_understood_is_named(tmp_path, values, message):
    folder = make_dense(tmp_path)
    file = folder / "2_Dense" / "config.json"
    write_json(file, json.loads(file.read_text(encoding="utf-8")) | values)
    with pytest.raises(ValueError, match=rf"2_Dense.*{message}"):
        nz.embed(TEXTS, nz.load(folder))


@pytest.mark.parametrize("shape", [(), (8,), (4, 8, 1), (0, 8), (4, 9)])
def test_a_matrix_of_another_shape_is_refused(tmp_path, shape):
    folder = make_dense(tmp_path)
    write_tensors(folder / "2_Dense", linear__weight=shape, linear__bias=(4,))
    with pytest.raises(ValueError, match=r"2_Dense: expected "):
        nz.embed(TEXTS, nz.load(folder))


def test_a_dense_must_fit_the_pooling(made):
    weights = nz.load(made("dense"))
    with pytest.raises(
        ValueError, match=r"2_Dense: expected a Dense for the vectors of 16 .* mean\+max makes, got .* 8"
    ):
        nz.embed(TEXTS, weights, pooling="mean+max")


def test_a_residual_dense_adds_its_input(tmp_path):
    folder = make_dense(tmp_path, out=SIZE)
    file = folder / "2_Dense" / "config.json"
    without = nz.embed("房间", nz.load(folder))
    write_json(file, json.loads(file.read_text(encoding="utf-8")) | {"use_residual": True})
    mean = nz.embed("房间", nz.load(folder).to(dtype="float32"), pooling="mean", normalize=False) - without
    batch = nz.encode(nz.load_tokenizer(folder), "房间")
    pooled = nz.forward(nz.load(folder), **batch).last_hidden_state.mean(axis=1)
    np.testing.assert_allclose(mean, pooled, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings(CUT)
def test_a_normalize_before_a_dense_is_no_matter_of_the_option(tmp_path):
    """sentence-transformers' own script that reduces the size appends a Dense to such models."""
    folder = make_dense(tmp_path)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "3_Normalize"), ("Dense", "2_Dense")]
    write_modules(folder, *modules)
    vectors = nz.embed(TEXTS, nz.load(folder))
    np.testing.assert_allclose(vectors[1, :3], [0.829916, 0.306174, -0.032708], rtol=0, atol=3e-6)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(nz.embed(TEXTS, nz.load(folder), normalize=True), vectors / lengths, rtol=0, atol=1e-6)
    assert nz.embed(TEXTS, nz.load(folder), normalize=False).tobytes() == vectors.tobytes()
    write_modules(folder, *modules, ("Normalize", "4_Normalize"))
    np.testing.assert_allclose(nz.embed(TEXTS, nz.load(folder)), vectors / lengths, rtol=0, atol=1e-6)
    assert nz.embed(TEXTS, nz.load(folder), normalize=False).tobytes() == vectors.tobytes()


@pytest.mark.parametrize("key", ["truncation_side", "padding_side"])
def test_a_side_that_would_make_other_vectors_is_refused(tmp_path, key):
    """sentence-transformers cuts the beginning of a text then, or takes the padding as its first token."""
    folder = make_plain(tmp_path, ["cls_token"])
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    write_json(file, settings | {key: "right"})
    assert nz.embed("房间", nz.load(folder)).shape == (1, SIZE)
    write_json(file, settings | {key: "left"})
    with pytest.raises(
        ValueError, match=rf"tokenizer_config.json: expected 'right' as {key}, got 'left', which is not"
    ):
        nz.embed("房间", nz.load(folder))


def test_files_that_are_missing_are_named(tmp_path):
    folder = make_plain(tmp_path, ["cls_token"])
    weights = nz.load(folder)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"1_Pooling.config.json: expected the settings of the pooling"):
        nz.embed(TEXTS, weights)
    (folder / "modules.json").unlink()
    with pytest.raises(ValueError, match=r"expected modules.json beside 1_Pooling, .* or give the pooling"):
        nz.embed(TEXTS, weights)
    assert nz.embed(TEXTS, weights, pooling="cls").shape == (4, SIZE)
    write_modules(folder, ("Transformer", "0_Transformer"), ("Pooling", "1_Pooling"))
    with pytest.raises(FileNotFoundError, match=r"modules.json: expected the folder 0_Transformer, found no such"):
        nz.load(folder)
