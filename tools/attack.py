"""Attack readers of files, public functions and the command with what is broken, and say what breaks the contract.

Corrupted safetensors, .npz and .bin files, the pickle in a .bin, indexes of shards, folders of sentence-transformers,
jobs, configurations and files of tokenizers, odd labels and lines, and odd arguments: each either works or ends with
one of the documented errors, which names the file or the argument; a command ends with status 0 or 2 and without a
traceback or a control character; no process dies; the memory is bounded, and so is the time.

Example: python tools/attack.py --seconds 60 --seed 1
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import dataclasses
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nezha_np as nz
from nezha_np.checks import CONTROLS
from nezha_np.cli import main as command
from nezha_np.files.vector_file import file_header
from nezha_np.jobs.shards import Shard

CONFIG = nz.BertConfig(
    vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, type_vocab_size=2
)
VOCABULARY = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "好"])
MEMORY = 4 * 2**30  # bytes of addresses; a process of the package needs less than one
SECONDS = 20  # of processor time that one attack may take
CONTRACT = (TypeError, ValueError, OSError)
ODD: list[Any] = [
    *(-1, 0, 1, 2**31, 2**63, 10**30, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *(None, True, False, "", "x", "\x1b[2J\nforged", "\ud800", "长" * 2000),
    *([], [[]], [1, [2]], [[1, 2]], {}, {"0": [1]}, {"a": {"b": None}}),
]


def flipped(content: bytes, draw: random.Random) -> bytes:
    """Change a few bytes, cut the file, repeat or take out a piece."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        if not changed:
            break
        at, length = draw.randrange(min(len(changed), draw.choice([64, 4096, 10**9]))), draw.choice([1, 4, 30])
        way = draw.randrange(6)
        if way < 2:
            changed[at] ^= 1 << draw.randrange(8)
        elif way == 2:
            changed[at : at + length] = bytes(draw.choice([0, 255]) for _ in changed[at : at + length])
        elif way == 3:
            del changed[at : at + length]
        elif way == 4:
            changed[at:at] = changed[draw.randrange(len(changed)) :][:length]
        else:
            del changed[len(changed) - draw.randrange(len(changed)) :]
    return bytes(changed)


def altered(value: Any, draw: random.Random) -> Any:
    """Put something odd somewhere into a value of JSON."""
    value = copy.deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = draw.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and draw.random() < 0.8:
            place = place[key]
            continue
        if isinstance(place, dict) and draw.random() < 0.2:
            place[draw.choice(["x", "\x1b[2J", "model_type", "unk_token", str(2**40)])] = place.pop(key)
        else:
            place[key] = draw.choice(ODD)
        return value


def put_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


class Models:
    """What is attacked: a small model in each format, and the shipped tokenizer."""

    def __init__(self) -> None:
        self.weights = nz.init(CONFIG, head="token_classification")
        self.config = self.weights.config.to_dict()
        arrays = {name: np.asarray(array) for name, array in self.weights.items()}
        folder = Path(tempfile.mkdtemp())
        self.weights.save(folder)
        np.savez(folder / "model.npz", **arrays)
        self.files = {name: (folder / name).read_bytes() for name in ("model.safetensors", "model.npz")}
        shutil.rmtree(folder)
        self.bundle = _bundle(self.weights)
        self.tokenizer = json.loads(nz.load_tokenizer().to_str())
        vocabulary = list(self.tokenizer["model"]["vocab"])[:120]
        self.tokenizer["model"]["vocab"] = {token: index for index, token in enumerate(vocabulary)}
        self.vocabulary = "\n".join(vocabulary)
        self.bin = _torch_file(arrays)


def _bundle(weights: Any) -> bytes:
    folder = Path(tempfile.mkdtemp())
    nz.oracle.record(weights, [[2, 3]], tolerances=None).save(folder / "b.safetensors")
    content = (folder / "b.safetensors").read_bytes()
    shutil.rmtree(folder)
    return content


def _torch_file(arrays: dict[str, np.ndarray]) -> bytes:
    """Write a file as torch.save does, without PyTorch: a zip archive of a pickle and of storages."""
    import pickle
    import zipfile

    class Ids(pickle.Pickler):
        def persistent_id(self, held: Any) -> Any:
            return held.id if isinstance(held, Storage) else None

    class Storage:
        def __init__(self, key: str, count: int) -> None:
            self.id = ("storage", FloatStorage, key, "cpu", count)

    class Tensor:
        def __init__(self, key: str, array: np.ndarray) -> None:
            self.key, self.array = key, array

        def __reduce__(self) -> Any:
            strides = tuple(step // self.array.itemsize for step in self.array.strides)
            storage = Storage(self.key, self.array.size)
            return rebuild, (storage, 0, self.array.shape, strides, False, collections.OrderedDict())

    FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def rebuild(*_: Any) -> None: ...

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v2",
    )
    import types

    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, rebuild  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    pickled = io.BytesIO()
    numbered = {name: Tensor(str(index), array) for index, (name, array) in enumerate(arrays.items())}
    Ids(pickled, protocol=2).dump(numbered)
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", b"little")
        for tensor in numbered.values():
            archive.writestr(f"archive/data/{tensor.key}", tensor.array.tobytes())
    return file.getvalue()


Attack = Callable[[Models, random.Random, Path], Callable[[], Any]]


def of_tensors(models: Models, draw: random.Random, folder: Path, name: str, content: bytes) -> Callable[[], Any]:
    """Corrupt a file of tensors, and load it, look at it or convert it."""
    put_json(folder / "config.json", models.config)
    (folder / name).write_bytes(flipped(content, draw))
    path, way = folder / name, draw.randrange(6)
    if way == 0:
        return lambda: run_command("inspect", str(path))
    if way == 1:
        return lambda: run_command("convert", str(path), str(folder / "converted"))
    return lambda: nz.forward(nz.load(path), [[2, 3]])


def attack_safetensors(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Corrupt a safetensors file."""
    return of_tensors(models, draw, folder, "model.safetensors", models.files["model.safetensors"])


def attack_npz(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Corrupt an .npz file."""
    return of_tensors(models, draw, folder, "model.npz", models.files["model.npz"])


def attack_bin(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Corrupt a file of torch.save."""
    return of_tensors(models, draw, folder, "pytorch_model.bin", models.bin)


def attack_pickle(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Change numbers, truths and names in the pickle of a file of torch.save, whose archive is whole."""
    source, file = zipfile.ZipFile(io.BytesIO(models.bin)), io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            content = bytearray(source.read(name))
            if name.endswith(".pkl"):
                for _ in range(draw.choice([1, 1, 2, 8])):
                    at = draw.randrange(len(content))
                    piece = draw.choice([b"\x88", b"N", b"K\x00", b"J\xff\xff\xff\x7f", bytes([draw.randrange(256)])])
                    content[at : at + len(piece) * draw.randrange(2)] = piece
            archive.writestr(name, bytes(content))
    put_json(folder / "config.json", models.config)
    (folder / "pytorch_model.bin").write_bytes(file.getvalue())
    return lambda: nz.forward(nz.load(folder, mmap=draw.random() < 0.5), [[2, 3]])


def attack_shards(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Put something odd into an index of shards."""
    put_json(folder / "config.json", models.config)
    odd = draw.choice(["a.safetensors", "\x1b[2J\nforged.safetensors", "长.safetensors"])
    (folder / odd).write_bytes(models.files["model.safetensors"])
    index: Any = {"metadata": {"total_size": 1}, "weight_map": {"x": odd, "y": odd}}
    if draw.random() < 0.8:
        index = altered(index, draw)
    put_json(folder / "model.safetensors.index.json", index)
    if draw.random() < 0.4:
        return lambda: run_command("inspect", str(folder))
    return lambda: nz.forward(nz.load(folder), [[2, 3]])


def attack_sentence_folder(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Put something odd into the files of a folder of sentence-transformers."""
    put_json(folder / "config.json", models.config)
    (folder / "model.safetensors").write_bytes(models.files["model.safetensors"])
    (folder / "vocab.txt").write_text(VOCABULARY, encoding="utf-8")
    values: dict[str, Any] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "sentence_bert_config.json": {"max_seq_length": 8, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {"prompts": {"query": "a"}, "default_prompt_name": "query"},
        "tokenizer_config.json": {"model_max_length": 16, "truncation_side": "right"},
    }
    (folder / "1_Pooling").mkdir()
    changed = draw.choice(list(values))
    for name, value in values.items():
        put_json(folder / name, altered(value, draw) if name == changed else value)
    way = draw.randrange(4)
    if way == 0:
        return lambda: run_command("inspect", str(folder))
    if way == 1:
        return lambda: run_command("convert", str(folder), str(folder / "converted"))
    return lambda: nz.embed(["a 好", "好"], nz.load(folder))


def attack_job(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Put something odd into the manifest or a part of a job, and join the parts."""
    shards = [dataclasses.asdict(Shard(row=0, lines=1, start=0, end=4, sha256="0" * 64))]
    manifest = {"format": 1, "made_with": {"task": "embed"}, "shard_lines": 1, "output_format": "npy", "shards": shards}
    put_json(folder / "manifest.json", altered(manifest | {"width": 2}, draw))
    content = file_header("npy", 1, 2) + bytes(8)
    (folder / "part-00000.npy").write_bytes(flipped(content, draw) if draw.random() < 0.3 else content)
    return lambda: run_command("join", str(folder), "-o", str(folder / "all.npy"))


def attack_lines(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Give odd labels to a classifier, and odd lines to the command."""
    label = draw.choice([one for one in ODD if isinstance(one, str)] + ["\x85", "\u202e\x7f", "a\tb"])
    put_json(folder / "config.json", models.config | {"id2label": {"0": label, "1": f"{label}1"}, "label2id": None})
    (folder / "model.safetensors").write_bytes(models.files["model.safetensors"])
    (folder / "vocab.txt").write_text(VOCABULARY, encoding="utf-8")
    line = json.dumps({"text": draw.choice(ODD) if draw.random() < 0.5 else f"a{label}好", "x": draw.choice(ODD)})
    (folder / "lines.jsonl").write_bytes(flipped(line.encode(), draw) if draw.random() < 0.4 else line.encode())
    command, form = draw.choice(["tag", "classify", "embed"]), draw.choice(["lines", "jsonl"])
    how = ["--format", form] if command != "embed" else ["-o", str(folder / f"out.{draw.choice(['npy', 'jsonl'])}")]
    return lambda: run_command(command, str(folder / "lines.jsonl"), "--model", str(folder), *how)


def attack_bundle(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Corrupt a golden bundle."""
    path = folder / "b.safetensors"
    path.write_bytes(flipped(models.bundle, draw))
    if draw.random() < 0.3:
        return lambda: run_command("golden", "show", str(path))
    return lambda: nz.oracle.load(path).weights()


def attack_config(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Put something odd into a configuration."""
    (folder / "model.safetensors").write_bytes(models.files["model.safetensors"])
    values = dict(models.config)
    for _ in range(draw.choice([1, 1, 2])):
        values = altered(values, draw)
    if draw.random() < 0.2:
        for key in ("id2label", "label2id"):
            values.pop(key, None)
        values["num_labels"] = draw.choice([one for one in ODD if not isinstance(one, str)])
    put_json(folder / "config.json", values)
    if draw.random() < 0.2:
        (folder / "config.json").write_bytes(flipped(json.dumps(values).encode(), draw))
    way = draw.randrange(4)
    if way == 0:
        return lambda: run_command("inspect", str(folder))
    if way == 1:
        return lambda: run_command("convert", str(folder), str(folder / "converted"))
    return lambda: nz.token_classification(nz.load(folder), [[2, 3]])


def attack_tokenizer(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Put something odd into the files of a tokenizer."""
    (folder / "vocab.txt").write_text(models.vocabulary, encoding="utf-8")
    kind = draw.randrange(4)
    if kind == 0:
        put_json(folder / "tokenizer.json", altered(models.tokenizer, draw))
    elif kind == 1:
        values = {"do_lower_case": True, "mask_token": "[MASK]", "padding_side": "right", "never_split": ["a"]}
        values |= {"additional_special_tokens": ["<a>"], "added_tokens_decoder": {"4": {"content": "[MASK]"}}}
        put_json(folder / "tokenizer_config.json", altered(values, draw))
    elif kind == 2:
        put_json(
            folder / "special_tokens_map.json",
            altered({"mask_token": "[MASK]", "unk_token": {"content": "[UNK]"}}, draw),
        )
        put_json(folder / "added_tokens.json", altered({"<a>": 120, "<b>": 121}, draw))
    else:
        (folder / "vocab.txt").write_bytes(flipped(models.vocabulary.encode(), draw))

    def load() -> None:
        tokenizer = nz.load_tokenizer(folder)
        nz.encode(tokenizer, ["a 好 [MASK]", "\x00 x"], ["b", ""], max_length=9)

    return load


def attack_arguments(models: Models, draw: random.Random, folder: Path) -> Callable[[], Any]:
    """Pass odd arguments."""
    itself: list[Any] = []
    itself.append(itself)
    odd = [*ODD, itself, range(2**62), object(), b"12", memoryview(np.ones((1, 2))), np.ma.masked_array([[1, 2]])]
    odd += [np.zeros((1, 0)), np.ones((1, 2), complex), np.ones((1, 2), "O"), np.float16(2), slice(2), {1, 2}]
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "head_mask", "inputs_embeds")
    names += ("past_key_values", "use_cache", "output_attentions", "output_hidden_states", "labels", "config")
    given = {"input_ids": [[2, 3]]} | {name: draw.choice(odd) for name in draw.sample(names, draw.choice([1, 1, 2]))}
    head = nz.token_classification if "labels" in given else nz.forward
    (folder / "arguments.txt").write_text(repr(given), encoding="utf-8", errors="backslashreplace")
    return lambda: head(models.weights, **given)


ATTACKS: dict[str, Attack] = {
    "safetensors": attack_safetensors,
    "npz": attack_npz,
    "bin": attack_bin,
    "pickle": attack_pickle,
    "shards": attack_shards,
    "sentence folder": attack_sentence_folder,
    "job": attack_job,
    "lines": attack_lines,
    "bundle": attack_bundle,
    "config": attack_config,
    "tokenizer": attack_tokenizer,
    "arguments": attack_arguments,
}


def run_command(*words: str) -> None:
    """Run the command, and say what is not as it should be."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command(words)
    out.flush()
    printed = out.buffer.getvalue().decode() + err.getvalue()  # type: ignore[attr-defined]
    controls = {*CONTROLS.findall(printed)} - {"\n", "\t"}
    if status not in (0, 2) or "Traceback" in printed or controls or "\nforged" in printed:
        raise AssertionError(f"nezha-np {' '.join(words)}: status {status}\n{printed[-2000:]}")


def outcome(kind: str, call: Callable[[], Any], folder: Path) -> str:
    """Make an attack, and return "works", "refused", or what broke the contract."""
    try:
        call()
    except CONTRACT as error:
        named = [folder.name, *(path.name for path in folder.rglob("*"))]
        said = str(error)
        # What a head says of tensors that the configuration has in other shapes names the argument.
        if kind != "arguments" and not said.startswith("weights: ") and not any(name in said for name in named):
            return f"an error without the file's name: {type(error).__name__}: {said[:300]}"
        return "refused"
    except BaseException:
        return traceback.format_exc()
    return "works"


def work(first: int, options: argparse.Namespace, end: float, report: Any) -> None:
    """Make attacks, from one number on, and report each; it runs in a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the library of tokenizers prints its panics
    warnings.simplefilter("ignore")
    models = Models()
    kinds = [options.kind] if options.kind else list(ATTACKS)
    number = first
    while time.monotonic() < end and (options.only is None or number == options.only):
        kind, draw = kinds[number % len(kinds)], random.Random(f"{options.seed} {number}")
        folder = options.out / f"{number}-{kind}"
        folder.mkdir(parents=True)
        report.write(json.dumps([number, kind, None]) + "\n")
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        found = outcome(kind, ATTACKS[kind](models, draw, folder), folder)
        signal.setitimer(signal.ITIMER_PROF, 0)
        report.write(json.dumps([number, kind, found]) + "\n")
        if found in ("works", "refused"):
            shutil.rmtree(folder)
        number += 1


def main() -> int:
    """Make attacks for some seconds, and print how many of each kind worked, were refused or broke the contract."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=ATTACKS, help="one kind alone")
    parser.add_argument("--only", type=int, help="the number of one attack alone, to see it again")
    parser.add_argument(
        "--out", type=Path, help="a new folder for the files of what is found; a temporary one if left out"
    )
    options = parser.parse_args()
    options.out = options.out or Path(tempfile.mkdtemp(prefix="nezha-np-attack-"))
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    findings, number, end = [], options.only or 0, time.monotonic() + options.seconds
    while time.monotonic() < end:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            with os.fdopen(write, "w", buffering=1) as report:
                work(number, options, end, report)
            os._exit(0)
        os.close(write)
        begun: tuple[int, str] | None = None
        with os.fdopen(read) as lines:
            for line in lines:
                at, kind, found = json.loads(line)
                begun = (at, kind) if found is None else None
                number = at + 1
                if found is not None:
                    counts[kind, found if found in ("works", "refused") else "found"] += 1
                if found not in (None, "works", "refused"):
                    findings.append((at, kind, found))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if begun is not None:
            counts[begun[1], "found"] += 1
            findings.append((*begun, f"the process ended with {status}"))
        elif status:
            findings.append((number, "none", f"the process ended with {status} between two attacks"))
            break
        if options.only is not None:
            break
    for kind in ATTACKS:
        works, refused, broke = (counts[kind, name] for name in ("works", "refused", "found"))
        print(f"{kind}: {works + refused + broke:,} attacks, {works:,} work, {refused:,} refused, {broke:,} findings")
    for at, kind, found in findings:
        print(f"\n{options.out}/{at}-{kind} (--seed {options.seed} --only {at}): {found}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
