"""Pre-training: a model from plain text, in a folder that the same call goes on from.

Text becomes a corpus, once. Each step draws its batch from it, and every `save_every` steps the run is saved. When all
steps are made, the folder itself is a model: `nezha_np.load` and transformers read it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import check_finite, check_integer, check_path, check_switches, what_stands_at
from nezha_np.families.config import Config
from nezha_np.model.heads import pretraining
from nezha_np.text.tokenizer import load_tokenizer
from nezha_np.training.corpus import Corpus, Segmenter, make_corpus, read_corpus
from nezha_np.training.data import make_batch, order_of, passages, special_ids
from nezha_np.training.data_parallel import ALONE, Processes, after_process_0, check_alike, share_of
from nezha_np.training.evaluation import masked_accuracy
from nezha_np.training.known_files import known_file, known_model
from nezha_np.training.loop import Step, first_step, optimizer_named, train
from nezha_np.training.loss_scale import LossScale
from nezha_np.training.measurements import Metrics
from nezha_np.training.plot import save_plot
from nezha_np.training.run_folder import check_options, load_step, only_run, save_model, save_step, saved_steps
from nezha_np.training.schedule import warmup_polynomial_decay
from nezha_np.weights.checkpoint import load
from nezha_np.weights.init import init
from nezha_np.weights.weights import Weights

EVALUATED = 16  # batches of held-out text


def pretrain(
    texts: Iterable[str | Path],
    folder: str | Path,
    *,
    model: str | Path | None = None,
    config: Config | None = None,
    held_out: Iterable[str | Path] = (),
    segmenter: Segmenter | None = None,
    steps: int = 1000,
    batch_size: int = 32,
    parts: int = 1,
    max_length: int = 128,
    optimizer: str = "lamb",
    learning_rate: float = 1e-3,
    warmup_steps: int | None = None,
    weight_decay: float = 0.01,
    clip_norm: float = 1.0,
    mixed_precision: bool = False,
    checkpoint_layers: bool = False,
    seed: int = 0,
    measure_every: int = 10,
    save_every: int = 100,
    keep: int = 2,
    report: Callable[[Mapping[str, Any]], object] | None = None,
    processes: Processes = ALONE,
) -> Weights:
    """Train a model on text: masked tokens, and whether one text follows another.

    Parameters
    ----------
    texts : iterable of str or Path
        Text files, as `nezha_np.training.corpus.make_corpus` takes them.
    folder : str or Path
        The folder of the run. Where it holds a run that was stopped, the same call goes on from its last saved step, to
        the same bits.
    model : str or Path, optional
        A folder with the tokenizer, and with the weights to begin with where `config` is None. None: the shipped model.
    config : NezhaConfig, BertConfig or ConvBertConfig, optional
        The configuration of a new model, whose weights are drawn with `seed`.
    held_out : iterable of str or Path
        Text files that are measured on, and not trained on.
    segmenter : callable, optional
        Cuts a text into words, such as ``jieba.lcut``: they are masked whole. None: each token by itself.
    steps : int
        How many steps to make.
    batch_size, parts : int
        B, the sequences of a batch, and in how many parts it is computed.
    max_length : int
        L, the length of a sequence.
    optimizer : "lamb", "adamw" or "bert_adam"
        The optimiser.
    learning_rate : float
        The largest learning rate.
    warmup_steps : int, optional
        How many steps it grows; None: a tenth of all.
    weight_decay, clip_norm : float
        λ, and the largest norm of the gradients.
    mixed_precision : bool
        Whether the passes are computed in float16. On a CPU that is slower, not faster.
    checkpoint_layers : bool
        As for `nezha_np.value_and_grad`: less memory for one more forward pass, and the same bits. A run may go on with
        it or without it.
    seed : int
        Everything random depends on it: new weights, batches, masks, dropout.
    measure_every, save_every : int
        After how many steps the run is measured and saved. On held-out text it is measured where it is saved.
    keep : int
        How many saved steps to keep.
    report : callable, optional
        Is called with what was measured of each measured step.
    processes : Processes
        The processes that train together, such as `nezha_np.training.mpi.mpi_processes`; all of them call this
        function. Process 0 writes into `folder`, which all read, and reports.

    Returns
    -------
    Weights
        The model, which is saved in `folder`.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    TypeError, ValueError
        If an argument is wrong, a text cannot be read, or `folder` holds a run with other options.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nezha_np as nz
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "text.txt").write_text("房间很干净。\\n早餐也好。\\n\\n总理会见外宾。\\n", encoding="utf-8")
    >>> pretrain([folder / "text.txt"], folder / "run", steps=2, batch_size=2, max_length=16)
    Weights(nezha, 77 tensors, 3,975,386 parameters, float32)
    """
    target = check_path(folder, "folder")
    steps = check_integer("steps", steps, least=1)
    parts = check_integer("parts", parts, least=1)
    batch_size = check_integer("batch_size", batch_size, least=1)
    measure_every = check_integer("measure_every", measure_every, least=1)
    save_every = check_integer("save_every", save_every, least=1)
    keep = check_integer("keep", keep, least=1)
    seed = check_integer("seed", seed)
    check_switches(mixed_precision=mixed_precision, checkpoint_layers=checkpoint_layers)
    if batch_size % parts:
        raise ValueError(f"parts: expected a divisor of the batch size, {batch_size}, got {parts}")
    module = optimizer_named(optimizer)
    warmup_steps = steps // 10 if warmup_steps is None else warmup_steps
    warmup = check_integer("warmup_steps", warmup_steps, least=0, most=steps - 1)
    max_length = check_integer("max_length", max_length, least=5)
    learning_rate = check_finite("learning_rate", learning_rate)
    weight_decay = check_finite("weight_decay", weight_decay)
    clip_norm = check_finite("clip_norm", clip_norm)
    read = {"texts": _files("texts", texts), "held_out": _files("held_out", held_out)}
    tokenizer = load_tokenizer(model)
    special = special_ids(tokenizer)
    options = {
        **{name: [file.name for file in files] for name, files in read.items()},
        "model": known_model(model, weights=config is None),
        "steps": steps,
        "batch_size": batch_size,
        "parts": parts,
        "max_length": max_length,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "warmup_steps": warmup,
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
        "mixed_precision": bool(mixed_precision),
        "whole_words": segmenter is not None,
        "seed": seed,
        "config": None if config is None else config.to_dict(),
    }
    writes = processes.rank == 0
    with only_run(target) if writes else contextlib.nullcontext():
        with after_process_0(processes):
            if writes:
                check_options(target, options | {name: list(map(known_file, files)) for name, files in read.items()})
            saved = saved_steps(target)
            if saved:
                step = load_step(saved[-1])
            else:
                scale = LossScale() if mixed_precision else None
                step = first_step(_new(model, config, seed, tokenizer, max_length), module, scale)
            corpus = _corpus("texts", read, target / "corpus", tokenizer, segmenter, make=writes)
            held_out_corpus = None
            if writes and read["held_out"]:
                held_out_corpus = _corpus("held_out", read, target / "held_out", tokenizer, segmenter)
        check_alike({**options, "step": step.number, "tokens": int(corpus.tokens.size)}, processes)
        metrics = Metrics(target / "metrics.jsonl", step.number) if writes else None
        batches = Batches(corpus, special, batch_size, parts, max_length, seed, segmenter is not None, processes)
        held_out_batches = None if held_out_corpus is None else batches.of(held_out_corpus)
        run = train(
            step,
            pretraining,
            batches,
            module,
            steps=steps,
            learning_rate=lambda number: warmup_polynomial_decay(
                number, learning_rate=learning_rate, warmup_steps=warmup, total_steps=steps
            ),
            clip_norm=clip_norm,
            dropout_seed=seed,
            processes=processes,
            checkpoint_layers=checkpoint_layers,
            weight_decay=weight_decay,
            donate=True,  # nothing here keeps an earlier step
        )
        for step in run:
            if metrics is None:
                continue
            last = step.number == steps
            with_held_out = held_out_batches is not None and (last or step.number % save_every == 0)
            if last or with_held_out or step.number % measure_every == 0:
                values = _measured(step)
                if held_out_batches is not None and with_held_out:
                    values |= _held_out(step, held_out_batches)
                metrics.add(values)
                if report is not None:
                    report(values)
            if last or step.number % save_every == 0:
                save_step(target, step, keep=keep)
        if writes:
            save_model(target, step.weights, model)
            save_plot(target)
        processes.broadcast(None)  # the folder is complete where any process returns
        return step.weights


def _new(model: str | Path | None, config: Config | None, seed: int, tokenizer: Any, max_length: int) -> Weights:
    """Return the weights to begin with; they are checked before texts are cut into tokens for them."""
    weights = load(model) if config is None else init(config, seed=seed)
    weights.require("pretraining")
    known, size = tokenizer.get_vocab_size(with_added_tokens=True), weights.config.vocab_size
    if size < known:
        raise ValueError(f"config: expected a vocab_size of {known} at least, as the tokenizer has, got {size}")
    longest = weights.config.longest_text
    if longest is not None and max_length > longest:
        raise ValueError(f"max_length: expected at most {longest}, the positions of the model, got {max_length}")
    return weights


def _files(name: str, files: Any) -> list[Path]:
    """Check a list of text files, before anything is done with them."""
    if isinstance(files, (str, bytes)) or not isinstance(files, Iterable):
        raise TypeError(f"{name}: expected a list of files, got {files!r}")
    paths = [check_path(file, name) for file in files]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{name}: expected a text file, found {what_stands_at(path)}")
    return paths


def _corpus(
    name: str,
    files: Mapping[str, Sequence[Path]],
    folder: Path,
    tokenizer: Any,
    segmenter: Segmenter | None,
    *,
    make: bool = True,
) -> Corpus:
    """Read the corpus that an earlier call made, or process 0, or make it of the files of this name."""
    if not make or (folder / "corpus.json").is_file():
        corpus = read_corpus(folder)
    else:
        corpus = make_corpus(files[name], folder, tokenizer, segmenter=segmenter, name=name)
    if corpus.documents.size < 3:
        found = ", ".join(map(str, files[name]))
        raise ValueError(f"{name}: expected two documents at least, for pairs of two texts, found one in {found}")
    return corpus


class Batches:
    """The batches of a corpus by the number of their step, in parts; what an epoch needs is made once.

    Parameters
    ----------
    corpus, special, batch_size, max_length, seed, whole_words
        As for `nezha_np.training.data.make_batch`.
    parts : int
        How many parts a batch has, of equal size.
    processes : Processes
        The processes that train together: of each part only the rows of this one are made.

    Examples
    --------
    >>> from nezha_np.training.data import SpecialIds
    >>> corpus = Corpus(np.arange(10, 30), np.ones(20), np.arange(0, 21, 4), np.array([0, 2, 5]), 40)
    >>> first, second = Batches(corpus, SpecialIds(0, 2, 3, 4), 2, 2, 12, 0, True)(0)
    >>> first["labels"].shape
    (1, 12)
    """

    def __init__(
        self,
        corpus: Corpus,
        special: Any,
        batch_size: int,
        parts: int,
        max_length: int,
        seed: int,
        whole_words: bool,
        processes: Processes = ALONE,
    ) -> None:
        self._corpus, self._special, self._parts, self._processes = corpus, special, parts, processes
        self._batch_size, self._max_length, self._seed, self._whole_words = batch_size, max_length, seed, whole_words
        self._cut = passages(corpus, max_length)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def of(self, corpus: Corpus) -> Batches:
        """Return batches of another corpus, made in the same way; smaller ones where it has fewer passages."""
        size, length = self._batch_size, self._max_length
        other = Batches(corpus, self._special, size, 1, length, self._seed, self._whole_words)
        other._batch_size = min(size, len(other._cut))
        return other

    def __len__(self) -> int:
        return len(self._cut) // self._batch_size

    def __call__(self, step: int) -> list[dict[str, Any]]:
        """Return the parts of the batch of a step; the logits of tokens without a label are not needed."""
        epoch = step // max(1, len(self))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order_of(epoch, len(self._cut), self._seed)
        size = self._batch_size // self._parts
        first, after = share_of(size, self._processes)
        return [
            make_batch(
                self._corpus,
                step,
                self._special,
                batch_size=self._batch_size,
                max_length=self._max_length,
                seed=self._seed,
                whole_words=self._whole_words,
                cut=self._cut,
                order=self._order,
                rows=(part + first, part + after),
            )
            | {"labelled_only": True}
            for part in range(0, self._batch_size, size)
        ]


def _measured(step: Step) -> dict[str, Any]:
    values: dict[str, Any] = {"step": step.number, "loss": sum(step.losses.values()), **step.losses}
    values |= {"norm": step.norm, "learning_rate": step.learning_rate}
    if step.loss_scale is not None:
        values |= {"loss_scale": step.loss_scale.scale, "skipped": step.skipped}
    return values


def _held_out(step: Step, batches: Batches) -> dict[str, float]:
    """Measure on held-out text: the same batches each time."""
    found = masked_accuracy(step.weights, (batches(n)[0] for n in range(min(EVALUATED, len(batches)))))
    return {f"held_out_{name}": value for name, value in found.items()}
