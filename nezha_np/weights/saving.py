"""Writing a checkpoint: ``model.safetensors`` and ``config.json``, which `nezha_np.load` and transformers both read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nezha_np.arrays import Array, to_numpy
from nezha_np.checks import as_codes
from nezha_np.families.config import Config
from nezha_np.families.family import family_of
from nezha_np.families.parameters import task_shapes, tasks_of
from nezha_np.families.trained_head import tasks_of_class
from nezha_np.files.atomic import write_atomically
from nezha_np.narrow.bfloat16 import NAME as BFLOAT16
from nezha_np.narrow.bfloat16 import round_to_bits, widened
from nezha_np.narrow.matrix import NarrowMatrix, is_kept_in_bfloat16
from nezha_np.weights.formats import READERS
from nezha_np.weights.formats.safetensors import write_tensors
from nezha_np.weights.names import names_in_file
from nezha_np.weights.second_names import with_second_names
from nezha_np.weights.sentence_files import transformer_folder

# What a config.json may say of the tensors that were read, and is not true of those that are written: transformers 5
# reads dtype before torch_dtype; old versions of transformers wrote _num_labels beside id2label.
NOT_OURS = ("dtype", "quantization_config", "_num_labels")


def write_checkpoint(path: Path, tensors: Mapping[str, Array], config: Config) -> None:
    """Write tensors and configuration, as `nezha_np.Weights.save` describes it.

    Examples
    --------
    >>> import tempfile
    >>> import nezha_np as nz
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_checkpoint(folder, nz.load(), nz.load().config)
    >>> sorted(file.name for file in folder.iterdir())
    ['config.json', 'model.safetensors']
    """
    file = file_to_write(path)
    text = config_text(tensors, config)
    names = names_in_file(tensors, config)
    in_bfloat16 = _is_bfloat16(tensors)
    arrays = with_second_names({names[name]: _to_write(array, in_bfloat16) for name, array in tensors.items()}, config)

    def write(folder: Path) -> None:
        write_tensors(folder / file.name, arrays, bfloat16=in_bfloat16)
        (folder / "config.json").write_text(text, encoding="utf-8", newline="\n")

    write_atomically(file.parent, write)


def _to_write(array: Array, in_bfloat16: bool) -> np.ndarray:
    """Return NumPy's array of a tensor, or its bits in bfloat16."""
    if not in_bfloat16:
        return to_numpy(array)
    return array.kept if isinstance(array, NarrowMatrix) else round_to_bits(to_numpy(array))


def _is_bfloat16(tensors: Mapping[str, Array]) -> bool:
    """Say whether a file in bfloat16 holds all numbers: vectors may have been trained since they were rounded."""
    if not is_kept_in_bfloat16(tensors):
        return False
    others = (to_numpy(array) for array in tensors.values() if not isinstance(array, NarrowMatrix))
    return all(np.array_equal(widened(round_to_bits(array)), array, equal_nan=True) for array in others)


def config_text(tensors: Mapping[str, Array], config: Config) -> str:
    """Return the ``config.json`` of tensors that are written.

    Examples
    --------
    >>> import nezha_np as nz
    >>> json.loads(config_text(nz.load(), nz.load().config))["torch_dtype"]
    'float32'
    """
    values = _with_labels_of_the_head(tensors, config).to_dict()
    for key in NOT_OURS:
        values.pop(key, None)
    named = [name for name in config.architectures or () if _is_there(name, tensors, config)]
    values["architectures"] = named or [architecture_of(tensors, config)]
    table = to_numpy(tensors["embeddings.word_embeddings.weight"][:1, :1])
    values["torch_dtype"] = BFLOAT16 if _is_bfloat16(tensors) else table.dtype.name
    return as_codes(json.dumps(values, indent=2, ensure_ascii=False)) + "\n"


def _with_labels_of_the_head(tensors: Mapping[str, Array], config: Config) -> Config:
    """Return a configuration with as many labels as the reference's class for question answering reads from it.

    Its linear map is to ``num_labels``, and it needs 2: a beginning and an end. Multiple choice (1) and next-sentence
    prediction (2) read no such number. Where there is a classifier too, the number is that of its labels.
    """
    is_of_answers = "qa_outputs.weight" in tensors and not any(name.startswith("classifier.") for name in tensors)
    return config.replace(num_labels=2) if is_of_answers and config.num_labels != 2 else config


def file_to_write(path: Path, name: str = "path") -> Path:
    """Return the file of tensors to write: ``model.safetensors`` in a folder, or the ``.safetensors`` file itself.

    Parameters
    ----------
    path : Path
        The folder or the file; neither need be there.
    name : str
        The argument that errors name.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileExistsError
        If a file is where a folder is needed.
    ValueError
        If `path` names a file of another format, or is in a folder of sentence-transformers that has its transformer
        in a folder of its own.

    Examples
    --------
    >>> file_to_write(Path("my_model")).name, file_to_write(Path("a/b.safetensors")).name
    ('model.safetensors', 'b.safetensors')
    """
    names_file = path.suffix in READERS and not path.is_dir()
    if names_file and path.suffix != ".safetensors":
        raise ValueError(f"{name}: expected a folder or a .safetensors file, got {path}")
    file = path if names_file else path / "model.safetensors"
    for folder in file.parents:
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(
                f"{name}: expected a folder or a .safetensors file, found a file in the way: {folder}"
            )
    if file.parent.is_dir() and (inner := transformer_folder(file.parent)) != file.parent:
        raise ValueError(
            f"{name}: expected a folder whose modules.json has the transformer in the folder itself, got one that has "
            f"it in {inner}: what is written beside modules.json would not be read"
        )
    return file


def _is_there(architecture: str, tensors: Mapping[str, Array], config: Config) -> bool:
    """Say whether the tensors of a class of the reference are there; of one that is not known, nothing can be said."""
    tasks = tasks_of_class(config, architecture)
    return not tasks or any(
        task == "forward" or all(name in tensors for name in task_shapes(config, task)) for task in tasks
    )


def architecture_of(tensors: Mapping[str, Array], config: Config) -> str:
    """Name the reference's class for the first task whose tensors are complete; for a decoder causal_lm comes first.

    Examples
    --------
    >>> import nezha_np as nz
    >>> architecture_of(nz.load(), nz.load().config)
    'NezhaForPreTraining'
    """
    tasks = tasks_of(config)
    for task in reversed(tasks) if config.is_decoder else tasks:  # causal_lm is the last
        shapes = task_shapes(config, task)
        if all(name in tensors and tuple(tensors[name].shape) == shape for name, shape in shapes.items()):
            return family_of(config).tasks[task].reference
    return family_of(config).tasks["forward"].reference
