"""Golden bundles: one pass of the model, every number of it, in one safetensors file that any language can read.

The tensors of the file are named by groups: ``inputs/…`` the inputs of the model, ``weights/…`` its parameters where
the file has them, ``trace/…`` every intermediate, ``outputs/…`` what the head returns, ``gradients/…`` the gradient of
the loss by every parameter and intermediate. Of training steps there are ``batches/…`` and ``steps/…``. All else is one
JSON document in the file's metadata. `docs/bundles.md` specifies the format for readers in other languages.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import as_codes, check_path, check_switches, printable
from nezha_np.checks import listed as listed_names
from nezha_np.families.config import Config, config_from_dict
from nezha_np.files.atomic import write_atomically
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.bundle_document import (
    FORMAT,
    KEY,
    TOLERANCES,
    check_checksums,
    checksum,
    read_document,
    seal,
    tensor_name,
    tolerance_of,
)
from nezha_np.oracle.nesting import batches_of, by_step_and_part, flattened, nested
from nezha_np.oracle.recipe import Recipe, recipe_from_dict
from nezha_np.oracle.step_names import check_steps, is_derived
from nezha_np.weights.base import hash_files
from nezha_np.weights.checkpoint import SHIPPED, list_files, load
from nezha_np.weights.formats.entry import map_tensors
from nezha_np.weights.formats.safetensors import read_header, read_metadata, write_tensors
from nezha_np.weights.init import init
from nezha_np.weights.memory import bytes_of_new_model
from nezha_np.weights.weights import Weights

MOST_DRAWN = 2**32  # bytes of weights that are drawn because a bundle says so; a base model has a tenth


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """One recorded pass.

    Attributes
    ----------
    head : str
        The task, the public function that ran: "forward", "masked_lm", ….
    config : NezhaConfig, BertConfig or ConvBertConfig
        The configuration.
    inputs : dict
        The inputs of the task, labels among them, by the names of its arguments.
    trace : dict of str to array
        Every recorded intermediate by its trace name, in the order in which they were made. Names of one array, that of
        a module and that of its last step, hold the same array.
    outputs : dict of str to array
        What it returned: ``logits``, ``hidden_states.0``, ….
    gradients : dict of str to array
        Gradients of the loss by intermediates and parameters, in the order of the walk back; empty without a loss.
    tolerances : dict of str to dict
        For each dtype ("float64", "float32", "float16", "bfloat16") and each name (``gradients/…`` for gradients,
        ``outputs/…`` for outputs) the largest absolute difference that rounding explains; infinite where a pass in that
        dtype has no number at all. Empty where none were recorded.
    recipe : dict
        Where the weights come from; ``kind`` is "inside", "init" or "checkpoint".
    dtype : str
        What the pass was computed in.
    versions : dict of str to str
        What computed it.
    tensors : dict of str to array or None
        The weights where the file has them.
    tolerances_by : str or None
        How the tolerances were found: "measured", "quick", or None where there are none.
    training : Recipe or None
        The optimiser of the recorded training steps and its numbers; None where there are no steps.
    batches : tuple of tuple of dict
        Of each training step the parts of its batch, arguments of the head each.
    steps : dict of str to array
        The numbers of the training steps in the order in which they are made: ``1/loss``, ``1/gradients/NAME``, ….

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> bundle = nz.oracle.record(config, [[2, 3]])
    >>> bundle.trace["encoder.layer.0.attention.self.probs"].shape
    (1, 2, 2, 2)
    """

    head: str
    config: Config
    inputs: dict[str, Any]
    trace: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    tolerances: dict[str, dict[str, float]]
    recipe: dict[str, Any]
    dtype: str
    versions: dict[str, str]
    tensors: dict[str, np.ndarray] | None = None
    tolerances_by: str | None = "measured"
    training: Recipe | None = None
    batches: tuple[tuple[dict[str, Any], ...], ...] = ()
    steps: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that an implementation can be compared with, in the order in which it is made.

        A name of the trace stands for itself; the others are ``outputs/…``, ``gradients/…`` and ``steps/…``.
        """
        return {
            **self.trace,
            **{f"outputs/{name}": array for name, array in self.outputs.items()},
            **{f"gradients/{name}": array for name, array in self.gradients.items()},
            **{f"steps/{name}": array for name, array in self.steps.items()},
        }

    def weights(self, checkpoint: Weights | str | Path | None = None) -> Weights:
        """Make the weights of the pass, in its dtype.

        Parameters
        ----------
        checkpoint : Weights, str or Path, optional
            A checkpoint that holds them, where the recipe is "checkpoint" and it is not the shipped one. Or the weights
            themselves, which are not checked against the recipe.

        Returns
        -------
        Weights
            With the bundle's configuration.

        Raises
        ------
        FileNotFoundError
            If there is no such checkpoint.
        ValueError
            If a checkpoint is needed and there is none, it is another one than that of the pass, or the shapes of
            weights are not the configuration's.
        """
        if isinstance(checkpoint, Weights):
            return Weights(dict(checkpoint.to(device="cpu", dtype=self.dtype)), self.config)
        match self.recipe["kind"]:
            case "inside":
                inside = Weights(self.tensors or {}, self.config)
                return Weights(dict(inside.to(dtype=self.dtype)), self.config)  # they may be stored in float16
            case "init":
                if (needed := bytes_of_new_model(self.config, self.recipe["head"], 4)) > MOST_DRAWN:
                    raise ValueError(
                        f"weights: expected a model of at most {MOST_DRAWN:,} bytes to be drawn, got one of "
                        f"{needed:,}: draw it with nezha_np.init, and pass it"
                    )
                weights = init(self.config, self.recipe["head"], self.recipe["seed"])
                return Weights(dict(weights.to(dtype=self.dtype)), self.config)
        path = SHIPPED if checkpoint is None else check_path(checkpoint, "checkpoint")
        found = checkpoint_hash(path, name="checkpoint")
        if found != self.recipe["sha256"]:
            got = "the shipped model, because none was given," if checkpoint is None else f"{path}"
            raise ValueError(
                f"checkpoint: expected the one that the bundle was recorded with, {self.recipe['name']} with SHA-256 "
                f"{self.recipe['sha256'][:16]}…, got {got} with {found[:16]}…"
            )
        return Weights(dict(load(path, dtype=self.dtype)), self.config)

    def save(self, path: str | Path, *, replace: bool = True) -> None:
        """Write the bundle to a safetensors file. An older file of the name stays until the new one is complete.

        Parameters
        ----------
        path : str or Path
            A name that ends in ``.safetensors``; its folder is made if need be.
        replace : bool
            False: a file of this name is left as it is, also one that appears while this one is written.

        Raises
        ------
        FileExistsError
            If there is a file of this name, and `replace` is False.
        TypeError, ValueError
            If `path` is no such name, or no file can hold the configuration, whose `hidden_act` is a function.
        """
        check_switches(replace=replace)
        path = bundle_path(path)
        tensors, aliases, switches = {}, {}, {}
        first_name: dict[int, str] = {}
        for name, value in self._named().items():
            if not isinstance(value, np.ndarray):
                switches[name.removeprefix("inputs/")] = value
            elif name.startswith(("inputs/", "weights/")) or first_name.setdefault(id(value), name) == name:
                tensors[name] = value
            else:
                aliases[name] = first_name[id(value)]
        document = {
            "format": FORMAT,
            "head": self.head,
            "config": self.config.to_dict(),
            "switches": switches,
            "weights": self.recipe,
            "dtype": self.dtype,
            "versions": self.versions,
            "aliases": aliases,
            "trace": list(self.trace),
            "outputs": list(self.outputs),
            "gradients": list(self.gradients),
            "tolerances_by": self.tolerances_by,
            "tolerances": {
                dtype: {
                    tensor_name(name): value if math.isfinite(value) else None
                    for name, value in of_names.items()
                    if tensor_name(name) in tensors
                }
                for dtype, of_names in self.tolerances.items()
            },
        }
        if self.training is not None:
            document |= {"training": self.training.to_dict(), "steps": list(self.steps)}
        document["crc32"] = {name: checksum(tensors[name]) for name in sorted(tensors)}
        try:
            text = as_codes(json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"config: expected values that JSON can hold, got others: {error}") from None
        # One entry: the library writes several in an order that changes from run to run.
        write_atomically(
            path.parent,
            lambda folder: write_tensors(folder / path.name, tensors, {KEY: seal(text)}),
            new=() if replace else (path.name,),
        )

    def _named(self) -> dict[str, Any]:
        """Give everything the name of its tensor."""
        named: dict[str, Any] = {}
        for group, values in (
            ("inputs", flattened(self.inputs)),
            ("weights", self.tensors or {}),
            ("trace", self.trace),
            ("outputs", self.outputs),
            ("gradients", self.gradients),
            ("batches", by_step_and_part(self.batches)),
            ("steps", self.steps),
        ):
            named |= {f"{group}/{name}": value for name, value in values.items()}
        return named


def bundle_path(path: str | Path) -> Path:
    """Check where a bundle is to be written.

    Examples
    --------
    >>> bundle_path("golden.npz")
    Traceback (most recent call last):
    ...
    ValueError: path: expected a name that ends in .safetensors, got golden.npz
    """
    path = check_path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: expected a name that ends in .safetensors, got {path}")
    return path


def checkpoint_hash(path: str | Path, *, name: str = "path") -> str:
    """Return the SHA-256 of a checkpoint's files of tensors, one after another; `name` is the argument's.

    Examples
    --------
    >>> checkpoint_hash(SHIPPED)[:8]
    'e06ce70d'
    """
    return hash_files(list_files(path, name=name))


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle.

    Parameters
    ----------
    path : str or Path
        A file that `Bundle.save`, `record` or ``nezha-np golden record`` has written.

    Returns
    -------
    Bundle
        Its arrays are read-only, on a mapping of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no safetensors file, is cut off, holds no bundle or one of another format, or a bit of it is not as it
        was written: the message names the tensor.

    Examples
    --------
    >>> import tempfile
    >>> import nezha_np as nz
    >>> path = tempfile.mkdtemp() + "/bundle.safetensors"
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> nz.oracle.record(config, [[2, 3]]).save(path)
    >>> nz.oracle.load(path).head
    'forward'
    """
    path = check_path(path)
    header = read_header(path)
    try:
        document, tensors = read_document(read_metadata(path)), map_tensors(path, header)
        check_checksums(document, tensors)
        return _as_bundle(document, tensors)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {printable(error)}") from None


def _as_bundle(document: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> Bundle:
    """Put a document and the tensors of its file together."""

    def found(name: str) -> np.ndarray:
        if name not in tensors:
            raise ValueError(f"expected every tensor that the bundle's metadata name, found no {name}")
        return tensors[name]

    def listed(group: str) -> dict[str, np.ndarray]:
        return {name: found(f"{group}/{name}") for name in document[group]}

    def held(group: str) -> dict[str, np.ndarray]:
        prefix = f"{group}/"
        return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}

    tensors |= {name: found(first) for name, first in document["aliases"].items()}
    weights, arguments = held("weights") or None, held("inputs") | document["switches"]
    if document["weights"]["kind"] == "inside" and weights is None:
        raise ValueError("expected weights inside the file, as its metadata say, found none")
    try:
        config = config_from_dict(document["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a configuration in the bundle's metadata, got another: {error}") from None
    try:
        inputs = nested(arguments)
    except ValueError:  # what should be a number in a tuple is none
        raise ValueError(f"expected inputs by the names of arguments, got {listed_names(list(arguments), 5)}") from None
    if unknown := [name for name in inputs if name not in TASKS[document["head"]].arguments]:
        raise ValueError(f"expected arguments of {document['head']} as inputs, got {listed_names(unknown, 5)}")
    recipe = None if "training" not in document else recipe_from_dict(document["training"])
    bundle = Bundle(
        head=document["head"],
        config=config,
        inputs=inputs,
        trace=listed("trace"),
        outputs=listed("outputs"),
        gradients=listed("gradients"),
        tolerances={},
        recipe=document["weights"],
        dtype=document["dtype"],
        versions=document["versions"],
        tensors=weights,
        tolerances_by=document["tolerances_by"],
        training=recipe,
        batches=() if recipe is None else batches_of(held("batches"), recipe.steps),
        steps={} if recipe is None else listed("steps"),
    )
    if recipe is not None:
        check_steps(bundle.steps, recipe.steps, with_ratios=recipe.optimizer == "lamb")
    for dtype in TOLERANCES if bundle.tolerances_by is not None else ():
        bundle.tolerances[dtype] = {
            name: tolerance_of(document, dtype, tensor_name(name)) for name in bundle.arrays if not is_derived(name)
        }
    return bundle
