"""Errors for files that cannot be read: each names the file, what was expected, what came and what to do."""

from __future__ import annotations

import json
import shutil

import pytest
from test_checkpoint import NEZHA, filled, put, put_config, put_torch

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.weights.checkpoint import SHIPPED
from nezha_np.weights.formats.safetensors import read_header

TEXT = '{"model_type": "nezha", "name": "房间很干净，服务员也很热情。"}\n'


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", r"expected UTF-8, got what seems to be UTF-16; .*iconv -f UTF-16 -t UTF-8 .*{name} > .*converted-"),
        ("gbk", r"expected UTF-8, got what seems to be GBK .*iconv -f GBK"),
        ("utf-8-sig", r"expected UTF-8 without a byte-order mark, .*tail -c \+4 "),
    ],
)
def test_the_encoding_of_a_configuration_or_an_index_is_named(tmp_path, name, encoding, said):
    """Editors on Windows write such files."""
    put_config(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "a.safetensors"}}', encoding="utf-8")
    put(tmp_path, filled())
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    assert nz.load(tmp_path).config == NEZHA
    (tmp_path / name).write_bytes(TEXT.encode(encoding))
    with pytest.raises(ValueError, match=rf"{name}: {said.replace('{name}', name)}"):
        nz.load(tmp_path)


@pytest.mark.parametrize("end", [0, 5, 100, -1, -3000])
def test_a_download_that_did_not_finish_is_said_to_be_cut_short(tmp_path, end):
    folder = put(tmp_path, filled())
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:end])
    there = "" if end in (0, 5) else rf", with {len(whole[:end]):,} of (more than )?[\d,]+ bytes"
    with pytest.raises(ValueError, match=rf"model\.safetensors: .*; it is cut short{there}: fetch it again$") as caught:
        nz.load(folder)
    assert end not in (-1, -3000) or f" of {len(whole):,} bytes" in str(caught.value)


@pytest.mark.parametrize("content", [b"\0" * 100, b"\xff" * 8 + b"{}", b"\x02" + b"\0" * 7 + b"[]", b"9" * 50])
def test_what_is_no_safetensors_file_is_not_said_to_be_cut_short(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected a safetensors file, got one that breaks the format") as caught:
        read_header(file)
    assert "cut short" not in str(caught.value)


def test_half_a_file_of_pytorch_is_said_to_be_cut_short(tmp_path):
    file = put_torch(tmp_path, filled())
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: .*cut short \(.*\): fetch or save it again$"):
        nz.load(tmp_path)


def test_an_empty_dictionary_is_said_to_hold_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"; no tensor of the model is there, but none at all$"):
        nz.load(put_torch(tmp_path, {}))


def test_the_folder_of_a_cache_leads_to_its_versions(tmp_path):
    """Hugging Face keeps a model in models--owner--name/snapshots/COMMIT."""
    shutil.copytree(SHIPPED, tmp_path / "snapshots" / "0a1b")
    (tmp_path / "refs").mkdir()
    with pytest.raises(FileNotFoundError, match=r"to load a checkpoint in it, name its folder: snapshots.0a1b$"):
        nz.load(tmp_path)


def test_a_configuration_that_is_a_link_to_nothing_is_not_to_be_renamed(tmp_path):
    """Hugging Face's cache consists of links; copied alone, they lead nowhere."""
    folder = put(tmp_path, filled())
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "blobs" / "0a1b")
    with pytest.raises(
        FileNotFoundError, match=r"config\.json: .* found a link that leads to no file: fetch it again$"
    ):
        nz.load(folder)


def test_a_tensor_in_two_shards_is_named_with_both(tmp_path):
    folder = put(tmp_path, filled())
    for name in ("a.safetensors", "b.safetensors"):
        shutil.copy(folder / "model.safetensors", folder / name)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.safetensors: .* one tensor for (.*), got \1 in a\.safetensors and \1$"):
        nz.load(folder)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("~/models/nezha", r"found no ~.models.nezha: only a shell knows what ~ stands for; .*expanduser"),
        ("https://huggingface.co/bert-base-chinese", r": nothing is downloaded here; .* fetch its folder first$"),
    ],
)
def test_what_is_no_path_here_is_explained(capsys, path, said):
    with pytest.raises(FileNotFoundError, match=said):
        nz.load(path)
    assert main(["inspect", path]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_configuration_that_is_fine_is_read_from_the_same_bytes(tmp_path):
    values = json.loads((put_config(tmp_path) / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_bytes(json.dumps(values | {"name": "房间"}, ensure_ascii=False, indent=1).encode())
    put_folder = put(tmp_path / "other", filled())
    (tmp_path / "config.json").replace(put_folder / "config.json")
    assert nz.load(put_folder).config.extra["name"] == "房间"
