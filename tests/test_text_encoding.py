"""Text files: UTF-8 is read; what another encoding seems to be is said, with the command that converts it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

from nezha_np.files.text_encoding import SAMPLE, decode_utf8, read_utf8, recognise_encoding
from nezha_np.text.tokenizer import load_tokenizer

CHINESE = "房间很干净，服务员也很热情。\n价格 120 元！\n"
ENGLISH = "The room was clean, and so was the bath.\n"


@pytest.mark.parametrize("text", [CHINESE, ENGLISH, "好\na\n", "a房\n"], ids=ascii)
@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
        ("gbk", "GBK"),
        ("gb18030", "GBK"),
        ("utf-8", None),
    ],
)
def test_an_encoding_is_recognised(text, codec, name):
    ascii_gbk = codec in {"gbk", "gb18030"} and text.isascii()
    assert recognise_encoding(text.encode(codec)) == (None if ascii_gbk else name)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\0",
        b"a\0b",
        b"one\0two\0three",
        "déjà vu, Müller, naïve, señor\n".encode("latin-1"),
        "das Mädchen und der Schlüssel\n".encode("cp1252"),
        "これは日本語の文です。\n".encode("shift-jis"),
        "привет, мир\n".encode("cp866"),
        "房間很乾淨，服務員也很熱情。\n".encode("big5"),
    ],
    ids=ascii,
)
def test_what_is_not_known_is_not_guessed(content):
    assert recognise_encoding(content) is None


@examples(200)
@given(text=st.text())
def test_all_text_of_utf_8_is_read_as_it_is(text):
    content = text.encode()
    if recognise_encoding(content) not in {"UTF-16LE", "UTF-16BE"}:  # NUL at every second place
        assert decode_utf8(content, "text") == text


def test_utf_8_cut_within_a_character_is_not_taken_for_another_encoding():
    content = ("a" * (SAMPLE - 1) + "房" * 10).encode()
    assert recognise_encoding(content) is None
    assert decode_utf8(content, "text").endswith("房")


@pytest.mark.parametrize("codec", ["gbk", "utf-16", "utf-32"])
@pytest.mark.skipif(sys.platform == "win32" or shutil.which("iconv") is None, reason="needs a shell and iconv")
def test_the_command_of_the_error_converts_the_file(tmp_path, codec):
    file = tmp_path / "the 'texts'.txt"
    file.write_bytes(CHINESE.encode(codec))
    with pytest.raises(ValueError, match=f"texts.*expected UTF-8, got what seems to be {codec.upper()}") as error:
        read_utf8(file)
    subprocess.run(str(error.value).split("for example by: ")[1], shell=True, check=True)
    assert read_utf8(tmp_path / "converted-the 'texts'.txt") == CHINESE


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_the_command_of_the_error_removes_a_byte_order_mark(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_bytes(CHINESE.encode("utf-8-sig"))
    with pytest.raises(ValueError, match=r"vocab\.txt: expected UTF-8 without a byte-order mark") as error:
        read_utf8(file)
    subprocess.run(str(error.value).split("for example by: ")[1], shell=True, check=True)
    assert read_utf8(tmp_path / "converted-vocab.txt") == CHINESE


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("codec", ["gbk", "utf-16", "utf-8-sig"])
def test_the_files_of_a_tokenizer_are_refused_by_their_encoding(tmp_path, name, codec):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n房\n", encoding="utf-8")
    (tmp_path / name).write_bytes("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n房\n".encode(codec))
    seems = "without a byte-order mark" if codec == "utf-8-sig" else f"got what seems to be {codec.upper()}"
    with pytest.raises(ValueError, match=f"{name}: expected UTF-8.*{seems}"):
        load_tokenizer(tmp_path)
