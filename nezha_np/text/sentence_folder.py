"""What the folder of a model of sentence-transformers says of its vectors, and what a call says instead.

The reference is sentence-transformers 2.7.0; what its later versions write is read too. A folder without
``modules.json`` is a plain transformer: its vectors are the mean over all tokens, and no text is cut.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.families.config import Config
from nezha_np.text.pooling import POOLINGS, parse_pooling
from nezha_np.text.sentence_model import ACTIVATIONS, SentenceModel, Step, vector_size
from nezha_np.weights.checkpoint import list_files, read_headers
from nezha_np.weights.formats.entry import FLOATS, map_tensors
from nezha_np.weights.sentence_files import (
    MODULES,
    PROMPTS,
    TRANSFORMER_SETTINGS,
    Module,
    read_modules,
    read_settings,
    transformer_folder,
)
from nezha_np.weights.weights import Weights

# The poolings by the switches of 1_Pooling/config.json, in the order in which their vectors are joined.
SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Settings that change no vector of a text, or whose only value that is served is this one.
INDIFFERENT = ("cache_dir", "backend", "unpad_inputs")
SERVED = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "module_input_name": "sentence_embedding",
    "model_type": "SentenceTransformer",
}


def choose_sentence_model(
    weights: Weights,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
) -> SentenceModel:
    """Combine the options of `nezha_np.embed`, which describes them, with what the folder of the weights says.

    Parameters
    ----------
    weights : Weights
        The model.
    pooling, normalize, max_length, prompt
        The options; None: what the folder says.

    Returns
    -------
    SentenceModel
        How texts become vectors.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If an option has a wrong value, or the folder asks for what cannot be done; the message names it.
    FileNotFoundError
        If a file that the folder's ``modules.json`` names is missing.

    Examples
    --------
    >>> import nezha_np as nz
    >>> choose_sentence_model(nz.load(), pooling="cls").pooling
    ('cls',)
    >>> choose_sentence_model(nz.load(), pooling="sum")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: pooling: expected one of mean, cls, pooler, ..., or several joined by +, got 'sum'
    """
    chosen: dict[str, Any] = {}
    if pooling is not None:
        chosen["pooling"] = parse_pooling(pooling)
        if "pooler" in chosen["pooling"] and not weights.has_pooler:
            others = ", ".join(name for name in POOLINGS if name != "pooler")
            raise ValueError(f"pooling: expected {others}, because the weights have no pooler, got {pooling!r}")
    if not isinstance(normalize, (bool, np.bool_)) and normalize is not None:
        raise TypeError(f"normalize: expected True, False or None, got {normalize!r}")
    if max_length is not None:
        chosen |= {"max_length": max_length, "cut_by": ""}
    if prompt is not None:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt: expected a str or None, got {type(prompt).__name__}")
        chosen["prompt"] = prompt
    if pooling is None and weights.source is not None and not weights.source.is_dir():
        raise FileNotFoundError(
            f"weights: expected the folder that they were loaded from, {weights.source}, to see what makes a vector, "
            "found no such folder: give the pooling"
        )
    found = SentenceModel()
    if weights.source is not None:
        found = read_sentence_model(weights.source, weights.config, needs_pooling=pooling is None)
    if normalize is not None:
        steps = found.steps
        while steps and steps[-1].kind == "Normalize":  # one before a Dense is a part of the model
            steps = steps[:-1]
        chosen["steps"] = (*steps, Step("Normalize")) if normalize else steps
    model = dataclasses.replace(found, **chosen)
    vector_size(model, weights.config.hidden_size)
    return model


def read_sentence_model(folder: Path, config: Config, *, needs_pooling: bool = True) -> SentenceModel:
    """Read what a folder says.

    Parameters
    ----------
    folder : Path
        The folder.
    config : Config
        The configuration of its transformer.
    needs_pooling : bool
        Whether its pooling is asked for.

    Returns
    -------
    SentenceModel
        What it says; without ``modules.json``, what a plain transformer does.

    Raises
    ------
    ValueError
        If it asks for what cannot be done; the message names it.
    FileNotFoundError
        If a file that ``modules.json`` names is missing.

    Examples
    --------
    >>> import nezha_np as nz
    >>> read_sentence_model(nz.load().source, nz.load().config) == SentenceModel()
    True
    """
    modules = read_modules(folder)
    if not modules:
        if needs_pooling and (folder / "1_Pooling").is_dir():
            raise ValueError(
                f"{folder}: expected {MODULES} beside 1_Pooling, found no such file, so that it is unknown what makes "
                "a vector: get the file too, or give the pooling"
            )
        return SentenceModel()
    file = folder / MODULES
    kinds = [module.kind for module in modules]
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout"):
            raise ValueError(
                f"{file}: expected Transformer, Pooling, Dense, LayerNorm, Normalize and Dropout, got {kind}, which is "
                "not implemented"
            )
    if kinds[:2] != ["Transformer", "Pooling"] or {"Transformer", "Pooling"} & set(kinds[2:]):
        raise ValueError(f"{file}: expected a Transformer, a Pooling, and what follows them, got {', '.join(kinds)}")
    poolings, include_prompt = _read_pooling(folder / modules[1].path / "config.json")
    steps = (_read_step(folder / module.path, module) for module in modules[2:])
    return SentenceModel(
        pooling=poolings,
        include_prompt=include_prompt,
        steps=tuple(step for step in steps if step is not None),
        prompt=_read_prompt(folder / PROMPTS),
        strip=True,
        **_read_transformer(transformer_folder(folder), config),
    )


def _read_pooling(file: Path) -> tuple[tuple[str, ...], bool]:
    """Return the poolings, and whether the tokens of the prompt are pooled too."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: expected the settings of the pooling, found no such file")
    values = read_settings(file)
    sizes = ("word_embedding_dimension", "embedding_dimension")
    _check_served(file, values, ("pooling_mode", "include_prompt", *sizes, *SWITCHES))
    include_prompt = _switch(file, values, "include_prompt", True)
    named = values.get("pooling_mode")
    if named is not None:
        poolings = tuple(named) if isinstance(named, list) else (named,)
        poolings = tuple(name.lower() if isinstance(name, str) else name for name in poolings)
    else:  # the switch of the mean is on where it is left out
        on = {key: _switch(file, values, key, key == "pooling_mode_mean_tokens") for key in SWITCHES}
        poolings = tuple(name for key, name in SWITCHES.items() if on[key])
    if not poolings or any(name not in SWITCHES.values() for name in poolings):
        raise ValueError(f"{file}: expected poolings among {', '.join(SWITCHES.values())}, got {named or 'none'!r}")
    return poolings, include_prompt


def _read_step(folder: Path, module: Module) -> Step | None:
    """Read a module after the pooling; a Dropout does nothing when vectors are computed."""
    if module.kind == "Dropout":
        return None
    if module.kind == "Normalize":
        return Step("Normalize")
    file = folder / "config.json"
    values = read_settings(file)
    arrays = _read_tensors(folder)
    shapes = {name: array.shape for name, array in arrays.items()}
    if module.kind == "LayerNorm":
        size = shapes.get("norm.weight", ())[:1]
        expected, activation, residual = {"norm.weight": size, "norm.bias": size}, "Identity", False
    else:
        known = ("in_features", "out_features", "bias", "activation_function", "module_output_name", "use_residual")
        _check_served(file, values, known)
        if values.get("module_output_name") not in (None, "sentence_embedding"):
            raise ValueError(f"{file}: expected a Dense of sentence vectors, got {values['module_output_name']!r}")
        activation = _read_activation(file, values)
        residual = _switch(file, values, "use_residual", False)
        matrix = shapes.get("linear.weight", ())
        if len(matrix) != 2:
            raise ValueError(f"{folder}: expected the matrix linear.weight, got the tensors {shapes}")
        expected = {"linear.weight": matrix}
        if _switch(file, values, "bias", True):
            expected["linear.bias"] = matrix[:1]
        if residual and matrix[0] != matrix[1]:
            expected["residual.weight"] = matrix
    if shapes != expected or not all(expected.values()):
        raise ValueError(f"{folder}: expected the tensors {expected}, got {shapes}")
    return Step(module.kind, folder, arrays, activation, residual)


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for file, header in read_headers(list_files(folder)).items():
        if wrong := [name for name, entry in header.items() if entry.dtype not in FLOATS]:
            raise ValueError(f"{file}: expected tensors of floats, got {', '.join(wrong)}")
        arrays |= map_tensors(file, header)
    return arrays


def _read_activation(file: Path, values: Mapping[str, Any]) -> str:
    name = values.get("activation_function", "torch.nn.modules.activation.Tanh")
    if name is None:
        return "Identity"
    short = name.rpartition(".")[2] if isinstance(name, str) and name.startswith("torch.nn.modules.") else None
    if short not in ACTIVATIONS:
        raise ValueError(f"{file}: expected an activation_function of torch.nn: {', '.join(ACTIVATIONS)}, got {name!r}")
    return short


def _read_prompt(file: Path) -> str | None:
    """Return the prompt that is put before each text."""
    values = read_settings(file)
    _check_served(file, {key: value for key, value in values.items() if key in (*SERVED, "truncate_dim")})
    prompts, name = values.get("prompts") or {}, values.get("default_prompt_name")
    if name is None:
        return None
    if not isinstance(prompts, dict) or not isinstance(name, str) or not isinstance(prompts.get(name), str):
        raise ValueError(f"{file}: expected a text for the default_prompt_name {name!r} in prompts, found none")
    prompt: str = prompts[name]
    return prompt


def _read_transformer(folder: Path, config: Config) -> dict[str, Any]:
    """Return where texts are cut, and whether they are put in lower case."""
    file = next((folder / name for name in TRANSFORMER_SETTINGS if (folder / name).is_file()), None)
    values = {} if file is None else read_settings(file)
    file = folder / TRANSFORMER_SETTINGS[0] if file is None else file
    models = {key: values.pop(key, None) or {} for key in ("model_args", "model_kwargs")}
    for key, arguments in models.items():  # how it is computed, not what
        known = ("torch_dtype", "dtype", "attn_implementation", "trust_remote_code", "token", "revision")
        if not isinstance(arguments, dict) or any(name not in known for name in arguments):
            raise ValueError(f"{file}: expected no {key} besides {', '.join(known)}, got {arguments!r}")
    modality = values.pop("modality_config", None)
    texts = {"method": "forward", "method_output_name": "last_hidden_state"}
    if modality is not None and (not isinstance(modality, dict) or modality.get("text") != texts):
        raise ValueError(f"{file}: expected {texts} as text in modality_config, got {modality!r}")
    _check_served(file, values, ("max_seq_length", "do_lower_case"))
    lower = _switch(file, values, "do_lower_case", False)
    tokenizer = folder / "tokenizer_config.json"
    settings = read_settings(tokenizer)
    for key in ("truncation_side", "padding_side"):  # the left one makes other vectors, where sides matter at all
        if settings.get(key) not in (None, "right"):
            raise ValueError(f"{tokenizer}: expected 'right' as {key}, got {settings[key]!r}, which is not implemented")
    if (length := values.get("max_seq_length")) is not None:
        if isinstance(length, bool) or not isinstance(length, int) or length < 2:
            raise ValueError(
                f"{file}: expected a number from 2 on, for the special tokens, as max_seq_length, got {length!r}"
            )
        return {"lower": lower, "max_length": length, "cut_by": f"the max_seq_length in {file}"}
    most = settings.get("model_max_length", math.inf)
    if isinstance(most, bool) or not isinstance(most, (int, float)) or most < 2:
        raise ValueError(f"{tokenizer}: expected a number from 2 on as model_max_length, got {most!r}")
    length = int(min(config.max_position_embeddings, most))
    return {"lower": lower, "max_length": length, "cut_by": f"the longest text that {folder} is made for"}


def _switch(file: Path, values: Mapping[str, Any], key: str, default: bool) -> bool:
    value = values.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{file}: expected true or false for {key}, got {value!r}")
    return value


def _check_served(file: Path, values: Mapping[str, Any], known: tuple[str, ...] = ()) -> None:
    """Refuse each setting that is not known and is set to something."""
    for key, value in values.items():
        if key in known or key in INDIFFERENT or value is None or value is False or value in ({}, []):
            continue
        if SERVED.get(key) != value:
            expected = f"{SERVED[key]!r} as {key}" if key in SERVED else f"no setting {key}"
            raise ValueError(f"{file}: expected {expected}, got {value!r}, which is not implemented")
