"""What to do with files that are not looked for, or not read here: variants, parts of a model, other formats."""

from __future__ import annotations

import re
from pathlib import Path

from nezha_np.checks import listed
from nezha_np.weights.formats import READERS
from nezha_np.weights.formats.recognition import recognise

INDEX = re.compile(r".+\.index(\.[^.]+)?\.json")  # of shards; a variant stands before the end: ….index.fp16.json
SHARD = re.compile(r"(.+)-\d+-of-(\d+)((?:\.[^.]+)+)")  # model-00001-of-00002.safetensors, ….fp16.safetensors
# What trainers write beside the model, and the numbers of a graph, which are no use without it.
NO_MODEL = re.compile(
    r"(optimizer|scheduler|scaler|training_args|trainer_state|rng_state(_\d+)?|openvino_\w+)\.(bin|pt|pth)"
)
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")

CONVERSION = (
    'transformers 4 with {library} makes another of it: python -c "import transformers as t; '
    "t.AutoModelForMaskedLM.from_pretrained('FOLDER', {option}=True).save_pretrained('NEW')\", or the class of its task"
)
PICKLE = "a pickle of Python; if you trust it, load it with Python and write its arrays with numpy.savez"
SOURCE = "load the checkpoint that it was made from"
VARIABLES = "a checkpoint of TensorFlow can be loaded once its variables are in an .npz file, under their names"
# By the ends of names: what a file is, and what to do.
OTHERS = {
    ".h5": f"a file of Keras; {CONVERSION.format(library='TensorFlow', option='from_tf')}",
    ".msgpack": f"a file of Flax; {CONVERSION.format(library='Flax', option='from_flax')}",
    ".pdparams": "a file of PaddlePaddle, with other names and transposed matrices; look for the model's PyTorch files",
    ".onnx": f"a graph for ONNX Runtime; {SOURCE}",
    ".xml": f"a graph for OpenVINO; {SOURCE}",
    ".gguf": f"a file of llama.cpp, mostly of rounded numbers; {SOURCE}",
    ".pb": f"a graph of TensorFlow; {SOURCE}",
    ".tflite": f"a graph for TensorFlow Lite; {SOURCE}",
    ".mlmodel": f"a model for Core ML; {SOURCE}",
    ".ot": f"a file of rust-bert; {SOURCE}",
    ".pkl": PICKLE,
    ".pickle": PICKLE,
    ".joblib": PICKLE,
    ".zip": "an archive; unpack it",
    ".gz": "an archive; unpack it",
    ".tgz": "an archive; unpack it",
    ".tar": "an archive; unpack it",
    ".incomplete": "a download that did not finish; download it again",
    ".crdownload": "a download that did not finish; download it again",
    ".part": "a download that did not finish; download it again",
}


def is_index(path: str | Path) -> bool:
    """Say whether a path is named as an index of shards is.

    Examples
    --------
    >>> is_index("model.safetensors.index.json"), is_index("config.json")
    (True, False)
    """
    return INDEX.fullmatch(Path(path).name) is not None


def advice_for_folder(folder: Path) -> str:
    """Say what to do with a folder in which none of the files is that `nezha_np.load` looks for.

    Parameters
    ----------
    folder : Path
        The folder.

    Returns
    -------
    str
        The end of an error, with a colon before it.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "model.fp16.safetensors").touch()
    >>> advice_for_folder(folder)
    ': to load one of its files, name it: model.fp16.safetensors'
    """
    files = sorted(folder.iterdir())
    if broken := [file.name for file in files if file.is_symlink() and not file.exists()]:
        return f": these links lead to no file: {listed(broken)}"
    names = [file.name for file in files if file.is_file()]
    if indexes := [name for name in names if is_index(name)]:
        return f": to load shards, name their index: {listed(indexes)}"
    readable = [name for name in names if Path(name).suffix in READERS and not NO_MODEL.fullmatch(name)]
    if whole := [name for name in readable if not SHARD.fullmatch(name) and name not in ADAPTER]:
        return f": to load one of its files, name it: {listed(whole)}"
    if adapter := [name for name in readable if name in ADAPTER]:
        return (
            f": {adapter[0]} is an adapter of PEFT, which changes a model: merge it into the model with "
            "merge_and_unload(), and save that"
        )
    if shards := {f"{match[1]}{match[3]}.index.json" for name in readable if (match := SHARD.fullmatch(name))}:
        return f": there are shards without their index: {listed(sorted(shards))}"
    if any(".ckpt.data-" in name or name.endswith(".ckpt.index") for name in names):
        return f": {VARIABLES}"
    known = [(name, OTHERS[Path(name).suffix]) for name in names if Path(name).suffix in OTHERS]
    if known:
        return f": {known[0][0]} is {known[0][1]}"
    folders = [*files, *sorted(folder.glob("snapshots/*"))]  # in which the cache of Hugging Face has each version
    inner = [str(file.relative_to(folder)) for file in folders if file.is_dir() and _holds_checkpoint(file)]
    if inner:
        return f": to load a checkpoint in it, name its folder: {listed(inner)}"
    return f": it holds {listed([file.name for file in files], most=8)}" if files else ": it is empty"


def _holds_checkpoint(folder: Path) -> bool:
    names = [file.name for file in folder.iterdir()]
    return "config.json" in names and any(Path(name).suffix in READERS for name in names)


def advice_for_file(path: Path) -> str:
    """Say what to do with a path that is no folder and no file of a format that is read.

    Parameters
    ----------
    path : Path
        The path; it need not exist.

    Returns
    -------
    str
        The end of an error, with a colon before it; empty where nothing is known.

    Examples
    --------
    >>> advice_for_file(Path("model.onnx"))
    ': it is a graph for ONNX Runtime; load the checkpoint that it was made from'
    """
    if ".ckpt" in path.name and (not path.is_file() or re.search(r"\.(index|meta|data-\d+-of-\d+)$", path.name)):
        return f": {VARIABLES}" if list(path.parent.glob("*.ckpt*.index")) else ""
    if path.is_file() and (found := recognise(path)) and found[1]:
        return f": it looks like {found[0]}; if it is, give it a name that ends in {found[1]}"
    if path.suffix in OTHERS:
        return f": it is {OTHERS[path.suffix]}"
    if path.parts[:1] == ("~",):
        return ": only a shell knows what ~ stands for; in Python, pathlib.Path(…).expanduser() does"
    if re.match(r"https?:", str(path)) or re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(path)):
        return ": nothing is downloaded here; if it is the name of a published model, fetch its folder first"
    return ""


def advice_for_part(files: list[Path]) -> str:
    """Say what to do where tensors are missing and the file is one of several shards.

    Parameters
    ----------
    files : list of Path
        The files that were read.

    Returns
    -------
    str
        The end of an error, with a colon before it; empty where the file is no shard.

    Examples
    --------
    >>> advice_for_part([Path("model-00001-of-00002.safetensors")])
    ': model-00001-of-00002.safetensors is one of 2 shards; name their folder or an index of them all'
    """
    match = SHARD.fullmatch(files[0].name) if len(files) == 1 else None
    if match is None or int(match[2]) < 2:
        return ""
    return f": {files[0].name} is one of {int(match[2])} shards; name their folder or an index of them all"
