"""Fine-tuning: a trained model learns a task from a file of examples, in a folder that the same call goes on from.

Each epoch goes through all examples in another order. After each the model is measured on held-out examples, and the
best one so far is saved in the folder itself; the run ends when it has not become better for some epochs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import check_finite, check_integer, check_path, check_switches
from nezha_np.families.config import RATES
from nezha_np.mechanism.patterns import check_patterns
from nezha_np.text.tokenizer import load_tokenizer
from nezha_np.training.data import order_of
from nezha_np.training.data_parallel import ALONE, Processes, after_process_0, check_alike, rows_of_process
from nezha_np.training.examples import Example, names_of_labels, read_and_hold_out
from nezha_np.training.features import TASKS, Arrays, Feature, FinetuneTask, Settings, features_that_fit, stack
from nezha_np.training.known_files import known_file, known_model
from nezha_np.training.loop import Step, first_step, frozen_names, optimizer_named, train
from nezha_np.training.measurements import Metrics
from nezha_np.training.plot import save_plot
from nezha_np.training.run_folder import check_options, load_step, only_run, save_model, save_step, saved_steps
from nezha_np.training.schedule import warmup_polynomial_decay
from nezha_np.weights.changes import dtype_of_changes, files_of_whole_model
from nezha_np.weights.checkpoint import load
from nezha_np.weights.new_head import with_head
from nezha_np.weights.weights import Weights

TOGETHER = 16  # batches that are sorted by length together


def finetune(
    task: str,
    examples: str | Path,
    folder: str | Path,
    *,
    held_out: str | Path | None = None,
    model: str | Path | None = None,
    epochs: int = 3,
    patience: int = 2,
    batch_size: int = 32,
    max_length: int = 128,
    optimizer: str = "adamw",
    learning_rate: float | None = None,
    weight_decay: float = 0.01,
    freeze: str | Sequence[str] = (),
    checkpoint_layers: bool = False,
    save_changes: bool = False,
    dropout: float | None = None,
    seed: int = 0,
    report: Callable[[Mapping[str, Any]], object] | None = None,
    processes: Processes = ALONE,
) -> Weights:
    """Fine-tune a model for a task.

    Parameters
    ----------
    task : "classify", "pairs", "tag", "answer" or "choose"
        The task.
    examples : str or Path
        The file to train on, as `nezha_np.training.examples.read_examples` takes it.
    folder : str or Path
        The folder of the run. Where it holds a run that was stopped, the same call goes on from its last epoch, to the
        same bits.
    held_out : str or Path, optional
        The file to measure on. None: every tenth example of `examples`, which is then not trained on.
    model : str or Path, optional
        The folder of the model with its tokenizer; None: the shipped model. A head that it lacks is drawn with `seed`.
    epochs : int
        The largest number of epochs.
    patience : int
        After how many epochs without a better model the run ends.
    batch_size : int
        The examples of a batch.
    max_length : int
        The largest number of tokens of a sequence. Longer texts are cut; long contexts of answers become windows.
    optimizer : "lamb", "adamw" or "bert_adam"
        The optimiser.
    learning_rate : float, optional
        The largest learning rate, after a warm-up of a tenth of all steps. None: 5e-5 for BERT's width of 768, and more
        for narrower models, 5e-5 × 768 / H.
    weight_decay : float
        λ.
    freeze : str or sequence of str
        Patterns of names: tensors that fit one stay as they are, ``"embeddings.**"`` for example.
    checkpoint_layers : bool
        As for `nezha_np.value_and_grad`: less memory for one more forward pass, and the same bits.
    save_changes : bool
        Whether `folder` gets only the tensors that were changed (`nezha_np.weights.changes`), in the dtype of the
        model's file: of one in float16 they are rounded to it, before they are measured. `load` takes the others from
        the model that was fine-tuned, which has to stay where it is.
    dropout : float, optional
        The rate of every dropout. None: the rates of the model's configuration, which may be 0.
    seed : int
        New head, order of the examples and dropout depend on it.
    report : callable, optional
        Is called with what was measured after each epoch.
    processes : Processes
        The processes that train together, such as `nezha_np.training.mpi.mpi_processes`; all of them call this
        function. Process 0 measures, writes into `folder`, which all read, and reports.

    Returns
    -------
    Weights
        The best model, which is saved in `folder` with the names of its classes.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    TypeError, ValueError
        If an argument is wrong, a line is not an example, or `folder` holds a run with other options.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nezha_np as nz
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> lines = ["房间很干净\\tgood", "服务很差\\tbad"] * 10
    >>> _ = (folder / "train.tsv").write_text("\\n".join(lines) + "\\n", encoding="utf-8")
    >>> weights = finetune("classify", folder / "train.tsv", folder / "run", epochs=1, batch_size=4)
    >>> weights.config.id2label
    {0: 'bad', 1: 'good'}
    """
    if task not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {task!r}")
    target = check_path(folder, "folder")
    check_switches(save_changes=save_changes, checkpoint_layers=checkpoint_layers)
    epochs = check_integer("epochs", epochs, least=1)
    patience = check_integer("patience", patience, least=1)
    batch_size = check_integer("batch_size", batch_size, least=1)
    max_length = check_integer("max_length", max_length, least=8)
    seed = check_integer("seed", seed)
    dtype = dtype_of_changes(files_of_whole_model("model", model)) if save_changes else "float32"
    module = optimizer_named(optimizer)
    what = TASKS[task]
    trained_on, measured_on = read_and_hold_out(task, examples, held_out)
    labels = names_of_labels(trained_on, task)
    weights = with_head(load(model), what.head.__name__, id2label=labels or None, seed=seed)
    if learning_rate is None:
        learning_rate = 5e-5 * 768 / weights.config.hidden_size
    if dropout is not None:
        dropout = check_finite("dropout", dropout, below=1.0)
        rates = dict.fromkeys(RATES, dropout)
        weights = Weights(weights, weights.config.replace(**rates), source=weights.source)
    learning_rate = check_finite("learning_rate", learning_rate)
    weight_decay = check_finite("weight_decay", weight_decay)
    frozen_names(weights, freeze)
    options = {
        "task": task,
        "files": [None if file is None else known_file(file) for file in (examples, held_out)],
        "model": known_model(model),
        "examples": len(trained_on),
        "held_out": len(measured_on),
        "labels": labels,
        "epochs": epochs,
        "patience": patience,
        "batch_size": batch_size,
        "max_length": max_length,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "freeze": list(check_patterns("freeze", freeze)),
        "save_changes": bool(save_changes),
        "dropout": dropout,
        "seed": seed,
    }
    settings = Settings(load_tokenizer(model), max_length, tuple(labels))
    pad_id = weights.config.pad_token_id or 0
    batches = ShuffledBatches(features_that_fit(what, trained_on, settings, weights.config), batch_size, pad_id, seed)
    writes = processes.rank == 0
    with only_run(target) if writes else contextlib.nullcontext():
        with after_process_0(processes):
            if writes:
                check_options(target, options)
            saved = saved_steps(target)
            start = load_step(saved[-1]) if saved else first_step(weights, module)
        check_alike({**options, "step": start.number}, processes)
        total = epochs * len(batches)

        def as_saved(step: Step) -> Step:
            """Round the weights as the folder gets them, so that what is measured is what is saved."""
            return dataclasses.replace(step, weights=step.weights.to(dtype=dtype).to(dtype="float32"))

        def save(found: Weights) -> None:
            save_model(target, found, model, changes=save_changes)

        best = None
        if writes:
            features = features_that_fit(what, measured_on, settings, weights.config)
            best = Best(target, save, what, settings, measured_on, features, pad_id, patience, report)
            best.go_on(as_saved(start), len(batches))
        steps = train(
            start,
            what.head,
            lambda number: [rows_of_process(part, processes) for part in batches(number)],
            module,
            steps=total,
            learning_rate=lambda number: warmup_polynomial_decay(
                number, learning_rate=learning_rate, warmup_steps=total // 10, total_steps=total
            ),
            dropout_seed=seed,
            freeze=freeze,
            processes=processes,
            checkpoint_layers=checkpoint_layers,
            weight_decay=weight_decay,
            donate=True,  # nothing here keeps an earlier step
        )
        losses: list[float] = []
        if not processes.broadcast(best is not None and best.is_over()):
            for step in steps:
                losses.append(sum(step.losses.values()) / len(step.losses))  # of start and end of answers the average
                if step.number % len(batches) == 0:
                    if best is not None:
                        save_step(target, step, keep=1)
                        best.measure(as_saved(step), step.number // len(batches), float(np.mean(losses)))
                    losses = []
                    if processes.broadcast(best is not None and best.is_over()):
                        break
        if writes:
            save_plot(target)
        processes.broadcast(None)  # the folder is complete where any process returns
        return load(target)


class ShuffledBatches:
    """The batches of features by the number of their step: each epoch has all features, in another order.

    Batches are made of features of about one length, so that little time goes to padding: the features of up to
    `TOGETHER` batches, an eighth of the epoch at most, are sorted by length before they are divided, and then all
    batches are shuffled. Where a batch has different lengths all the same, or questions with different numbers of
    choices, it is computed in parts.

    Parameters
    ----------
    features : sequence of Feature
        The features.
    batch_size : int
        The features of a batch; the last batch of an epoch may have fewer.
    pad_id : int
        The id of the padding.
    seed : int
        The orders depend on it.

    Examples
    --------
    >>> one = Feature({"input_ids": np.array([2, 5, 3]), "labels": np.array(0)}, 0)
    >>> (part,) = ShuffledBatches([one, one], 2, 0, 0)(0)
    >>> part["input_ids"].shape
    (2, 3)
    """

    def __init__(self, features: Sequence[Feature], batch_size: int, pad_id: int, seed: int) -> None:
        self._features, self._batch_size, self._pad_id, self._seed = features, batch_size, pad_id, seed
        self._epoch, self._batches = -1, list[np.ndarray]()

    def __len__(self) -> int:
        return -(-len(self._features) // self._batch_size)

    def __call__(self, step: int) -> list[Arrays]:
        """Return the parts of the batch of a step."""
        epoch, index = divmod(step, len(self))
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._of_epoch(epoch)
        chosen = [self._features[number] for number in self._batches[index]]
        return [stack(part, self._pad_id) for part in parts_of_one_length(chosen)]

    def _of_epoch(self, epoch: int) -> list[np.ndarray]:
        """Divide the features among the batches of an epoch."""
        count, size = len(self._features), self._batch_size
        order = order_of(epoch, count, self._seed, window=count)  # all are in memory, and a file may be sorted
        lengths = np.array([feature.length for feature in self._features])
        together = size * max(1, min(TOGETHER, len(self) // 8))
        batches: list[np.ndarray] = []
        for first in range(0, count, together):
            some = order[first : first + together]
            some = some[np.argsort(lengths[some], kind="stable")]
            batches += [some[start : start + size] for start in range(0, len(some), size)]
        *full, last = batches  # which may have fewer
        return [*(full[number] for number in order_of(epoch, len(full), self._seed, window=max(1, len(full)))), last]


def parts_of_one_length(features: Sequence[Feature], most: int = 32) -> Iterator[list[Feature]]:
    """Divide features into parts: of at most `most` sequences, of about one length, and of one number of choices.

    Examples
    --------
    >>> short, long = (Feature({"input_ids": np.zeros(length)}, 0) for length in (8, 90))
    >>> [len(part) for part in parts_of_one_length([short, long, short])]
    [2, 1]
    """
    part: list[Feature] = []
    for feature in sorted(features, key=lambda one: (one.choices, one.length)):
        full = len(part) * max(1, feature.choices) >= most
        if part and (full or feature.choices != part[0].choices or feature.length > 2 * part[0].length):
            yield part
            part = []
        part.append(feature)
    if part:
        yield part


def predict(
    weights: Weights, what: FinetuneTask, features: Sequence[Feature], settings: Settings, pad_id: int
) -> dict[int, list[Any]]:
    """Predict each feature, and gather the predictions of each example in the order of its features."""
    by_feature: dict[int, Any] = {}
    numbers = {id(feature): number for number, feature in enumerate(features)}
    for part in parts_of_one_length(features):
        batch = {name: array for name, array in stack(part, pad_id).items() if "label" not in name}
        inputs = {name: array for name, array in batch.items() if "positions" not in name}
        for feature, prediction in zip(
            part, what.predictions(what.head(weights, **inputs), part, settings), strict=True
        ):
            by_feature[numbers[id(feature)]] = prediction
    found: dict[int, list[Any]] = {}
    for number, feature in enumerate(features):
        found.setdefault(feature.example, []).append(by_feature[number])
    return found


class Best:
    """The best model of a run so far, by its first metric on held-out examples.

    Parameters
    ----------
    folder : Path
        The folder of the run.
    save : callable
        Saves the best model.
    what, settings, examples, features, pad_id
        The task, and what it is measured with.
    patience : int
        After how many epochs without a better one the run is over.
    report : callable or None
        Is called with what was measured.
    """

    def __init__(
        self,
        folder: Path,
        save: Callable[[Weights], object],
        what: FinetuneTask,
        settings: Settings,
        examples: Sequence[Example],
        features: Sequence[Feature],
        pad_id: int,
        patience: int,
        report: Callable[[Mapping[str, Any]], object] | None,
    ) -> None:
        self._folder, self._save, self._what, self._settings = folder, save, what, settings
        self._examples, self._pad_id, self._patience, self._report = examples, pad_id, patience, report
        self._features = features
        self._measured: list[dict[str, Any]] = []
        self._metrics: Metrics | None = None

    def go_on(self, start: Step, steps_of_an_epoch: int) -> None:
        """Read what an earlier call measured; an epoch that it saved and did not measure is measured now."""
        file = self._folder / "metrics.jsonl"
        self._metrics = Metrics(file, start.number)
        self._measured = Metrics.read(file)
        for number, line in enumerate(self._measured, 1):
            if not isinstance(line.get(self._what.metric), float | int):
                raise ValueError(f"{file}, line {number}: expected {self._what.metric}, a number, found none")
        if start.number and (not self._measured or self._measured[-1]["step"] < start.number):
            self.measure(start, start.number // steps_of_an_epoch, None)

    def measure(self, step: Step, epoch: int, loss: float | None) -> None:
        """Measure a model, and save it if it is the best."""
        predicted = predict(step.weights, self._what, self._features, self._settings, self._pad_id)
        scores = self._what.scores(predicted, self._examples)
        values = {"step": step.number, "epoch": epoch, "loss": loss, **scores}
        metric = self._what.metric
        if scores[metric] > max((line[metric] for line in self._measured), default=-1.0):
            self._save(step.weights)
        self._measured.append(values)
        if self._metrics is not None:
            self._metrics.add(values)
        if self._report is not None:
            self._report(values)

    def is_over(self) -> bool:
        """Say whether the last epochs were no better than one before."""
        if len(self._measured) <= self._patience:
            return False
        scores = [line[self._what.metric] for line in self._measured]
        return bool(max(scores[-self._patience :]) <= max(scores[: -self._patience]))
