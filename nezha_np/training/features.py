"""From examples to arrays: what each task's head takes, and what its outputs say.

A task of `TASKS` is data: the head, how examples become the arguments of it, and how its logits become predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.families.config import Config
from nezha_np.layers.losses import IGNORE_INDEX
from nezha_np.model import heads
from nezha_np.text.encode import encode
from nezha_np.text.rows import without_truncation_and_padding
from nezha_np.text.sorted_batches import make_rows, stack_rows
from nezha_np.text.spans import best_spans
from nezha_np.text.windows import make_windows
from nezha_np.training.examples import Example
from nezha_np.training.metrics import accuracy, answer_scores, entity_f1

Arrays = dict[str, np.ndarray]
LONGEST_ANSWER = 50  # tokens


@dataclasses.dataclass(frozen=True)
class Settings:
    """What examples are turned into arrays with.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    max_length : int
        The largest number of tokens of a sequence.
    labels : tuple of str
        The names of the classes; () for a task without.
    stride : int
        How many tokens of a long text two neighbouring windows share; half of a window at most.
    """

    tokenizer: Any
    max_length: int
    labels: tuple[str, ...] = ()
    stride: int = 64


@dataclasses.dataclass(frozen=True)
class Feature:
    """A sequence, or the sequences of the choices of a question, before padding.

    Attributes
    ----------
    arrays : dict of str to array
        The arguments of the head for this one, labels too, each of shape (L,), (C, L) or ().
    example : int
        The number of its example.
    characters : list of (int, int) or None
        For an answer: the characters of the context that each token stands for; (0, 0) of other tokens.
    """

    arrays: Arrays
    example: int
    characters: list[tuple[int, int]] | None = None

    @property
    def length(self) -> int:
        """The number of tokens, and of a question with choices their number before it."""
        return int(self.arrays["input_ids"].shape[-1])

    @property
    def choices(self) -> int:
        """The number of choices; 0 where there are none."""
        return int(self.arrays["input_ids"].shape[0]) if self.arrays["input_ids"].ndim == 2 else 0


def text_features(examples: Sequence[Example], settings: Settings) -> list[Feature]:
    """Turn texts, or pairs of texts, with their classes into arrays."""
    texts = [example["text"] for example in examples]
    pairs = [example["text_pair"] for example in examples] if examples and "text_pair" in examples[0] else None
    rows = make_rows(settings.tokenizer, texts, pairs, max_length=settings.max_length, truncation="longest_first")
    return [
        Feature({**row, "labels": np.array(settings.labels.index(example["label"]))}, number)
        for number, (row, example) in enumerate(zip(rows, examples, strict=True))
    ]


def tag_features(examples: Sequence[Example], settings: Settings) -> list[Feature]:
    """Turn tokens with their tags into arrays: the first piece of each token has its tag, the others -100.

    A token that the tokenizer drops, such as a space, becomes the unknown token. A text is cut at the end.
    """
    found = []
    tokenizer = without_truncation_and_padding(settings.tokenizer)
    empty = encode(tokenizer, "")["input_ids"][0].tolist()  # [CLS] [SEP]
    unknown = tokenizer.token_to_id("[UNK]")
    for number, example in enumerate(examples):
        pieces = [encoding.ids or [unknown] for encoding in
                  tokenizer.encode_batch(example["tokens"], add_special_tokens=False)]  # fmt: skip
        ids, labels = [empty[0]], [IGNORE_INDEX]
        for token, label in zip(pieces, example["labels"], strict=True):
            if len(ids) + len(token) + 1 > settings.max_length:
                break
            ids += token
            labels += [settings.labels.index(label)] + [IGNORE_INDEX] * (len(token) - 1)
        ids, labels = [*ids, empty[-1]], [*labels, IGNORE_INDEX]
        arrays = {
            "input_ids": np.array(ids, np.int64),
            "attention_mask": np.ones(len(ids), np.int64),
            "labels": np.array(labels, np.int64),
        }
        found.append(Feature(arrays, number))
    return found


def answer_features(examples: Sequence[Example], settings: Settings) -> list[Feature]:
    """Turn questions with their answers into windows of the context; a window without the answer has [CLS] for it."""
    found = []
    plain = without_truncation_and_padding(settings.tokenizer)
    for number, example in enumerate(examples):
        text = make_windows(
            plain,
            example["context"],
            example["question"],
            size=settings.max_length,
            stride=settings.stride,
            half_at_most=True,
        )
        for window in text.windows:
            characters = [
                (0, 0) if token < 0 else (int(text.characters[token, 0]), int(text.characters[token, 1]))
                for token in window.tokens.tolist()
            ]
            start, end = _position(characters, example)
            arrays = {**window.row, "start_positions": np.array(start), "end_positions": np.array(end)}
            found.append(Feature(arrays, number, characters))
    return found


def _position(characters: Sequence[tuple[int, int]], example: Example) -> tuple[int, int]:
    """Find the first and the last token of an answer in a window; (0, 0) where it is not whole in it."""
    begin, end = example["start"], example["start"] + len(example["answer"])
    inside = [index for index, (start, stop) in enumerate(characters) if start < end and stop > begin and stop > start]
    if not inside or characters[inside[0]][0] > begin or characters[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


def choice_features(examples: Sequence[Example], settings: Settings) -> list[Feature]:
    """Turn questions with choices into pairs of the context, and the question with one choice."""
    found = []
    for number, example in enumerate(examples):
        asked = [f"{example['question']}{choice}" for choice in example["choices"]]
        contexts = [example["context"]] * len(asked)
        row: dict[str, Any] = dict(
            encode(
                settings.tokenizer,
                contexts,
                asked,
                max_length=settings.max_length,
                truncation="longest_first",
                stride=0,
                padding="longest",
                padding_side="right",  # as `stack` pads
                pad_to_multiple_of=1,
            )
        )
        found.append(Feature({**row, "labels": np.array(example["label"])}, number))
    return found


def stack(features: Sequence[Feature], pad_id: int) -> Arrays:
    """Pad features to one length and stack them; those of questions have the same number of choices."""
    return stack_rows([feature.arrays for feature in features], pad_id)


def class_predictions(out: Any, features: Sequence[Feature], settings: Settings) -> list[Any]:
    """Name the most probable class of each text."""
    return [settings.labels[index] for index in to_numpy(out.logits).argmax(axis=-1).tolist()]


def tag_predictions(out: Any, features: Sequence[Feature], settings: Settings) -> list[Any]:
    """Name the most probable tag of each token of each text."""
    best = to_numpy(out.logits).argmax(axis=-1)
    return [
        [settings.labels[tag] for tag in row[: feature.length][feature.arrays["labels"] != IGNORE_INDEX].tolist()]
        for row, feature in zip(best, features, strict=True)
    ]


def answer_predictions(out: Any, features: Sequence[Feature], settings: Settings) -> list[Any]:
    """Find the best span of each window: its score and its characters.

    The score is the logarithm of its probability in the window. Logits of two windows cannot be compared: in one
    without the answer most of the probability is that of [CLS], however large the logits of its spans are.
    """
    found: list[Any] = []
    for starts, ends, feature in zip(to_numpy(out.start_logits), to_numpy(out.end_logits), features, strict=True):
        characters = feature.characters or []
        starts, ends = (logits - np.logaddexp.reduce(logits[: len(characters)]) for logits in (starts, ends))
        inside = np.array([stop > start for start, stop in characters])
        starts, ends = starts[: inside.size], ends[: inside.size]
        score, first, last = next(best_spans(starts, ends, inside, most=LONGEST_ANSWER, only_best=True))
        found.append((score, (characters[first][0], characters[last][1])))
    return found


def choice_predictions(out: Any, features: Sequence[Feature], settings: Settings) -> list[Any]:
    """Give the number of the most probable choice of each question."""
    return list(to_numpy(out.logits).argmax(axis=-1).tolist())


def class_scores(predicted: Mapping[int, list[Any]], examples: Sequence[Example]) -> dict[str, float]:
    """Measure classes of texts."""
    return {"accuracy": accuracy([predicted[n][0] for n in range(len(examples))], [one["label"] for one in examples])}


def tag_scores(predicted: Mapping[int, list[Any]], examples: Sequence[Example]) -> dict[str, float]:
    """Measure the tags of tokens; what was cut from a text counts as outside of entities."""
    ours = [predicted[n][0] + ["O"] * (len(one["labels"]) - len(predicted[n][0])) for n, one in enumerate(examples)]
    theirs = [one["labels"] for one in examples]
    right = [tag for tags in theirs for tag in tags]
    return {"f1": entity_f1(ours, theirs), "accuracy": accuracy([tag for tags in ours for tag in tags], right)}


def span_scores(predicted: Mapping[int, list[Any]], examples: Sequence[Example]) -> dict[str, float]:
    """Measure answers: of the windows of a text the one with the best span counts."""
    texts = []
    for number, example in enumerate(examples):
        _, (start, stop) = max(predicted[number])
        texts.append(example["context"][start:stop])
    exact, f1 = answer_scores(texts, [example.get("right", [example["answer"]]) for example in examples])
    return {"f1": f1, "exact": exact}


@dataclasses.dataclass(frozen=True)
class FinetuneTask:
    """A task that a model is fine-tuned for.

    Attributes
    ----------
    head : callable
        The head of `nezha_np`.
    features : callable
        Turns examples into features.
    predictions : callable
        Turns the output of the head into one prediction for each feature.
    scores : callable
        Measures the predictions of each example.
    metric : str
        Which of the measures decides what the best model is.
    """

    head: Callable[..., Any]
    features: Callable[[Sequence[Example], Settings], list[Feature]]
    predictions: Callable[[Any, Sequence[Feature], Settings], list[Any]]
    scores: Callable[[Mapping[int, list[Any]], Sequence[Example]], dict[str, float]]
    metric: str


TASKS = {
    "classify": FinetuneTask(heads.sequence_classification, text_features, class_predictions, class_scores, "accuracy"),
    "pairs": FinetuneTask(heads.sequence_classification, text_features, class_predictions, class_scores, "accuracy"),
    "tag": FinetuneTask(heads.token_classification, tag_features, tag_predictions, tag_scores, "f1"),
    "answer": FinetuneTask(heads.question_answering, answer_features, answer_predictions, span_scores, "f1"),
    "choose": FinetuneTask(heads.multiple_choice, choice_features, choice_predictions, class_scores, "accuracy"),
}


def features_that_fit(
    what: FinetuneTask, examples: Sequence[Example], settings: Settings, config: Config
) -> list[Feature]:
    """Turn examples into features, none of which is longer than the model takes.

    Parameters
    ----------
    what : FinetuneTask
        The task.
    examples : sequence of dict
        The examples.
    settings : Settings
        What they are turned into arrays with.
    config : NezhaConfig, BertConfig or ConvBertConfig
        The configuration of the model.

    Returns
    -------
    list of Feature
        The features.

    Raises
    ------
    ValueError
        If one is longer than the model has positions.

    Examples
    --------
    >>> import nezha_np as nz
    >>> settings = Settings(nz.load_tokenizer(), 64, ("x",))
    >>> config = nz.BertConfig(max_position_embeddings=4)
    >>> features_that_fit(TASKS["classify"], [{"text": "很干净", "label": "x"}], settings, config)
    Traceback (most recent call last):
    ...
    ValueError: max_length: expected at most 4, the positions of the model, got 64, and a text of 5 tokens
    """
    found = what.features(examples, settings)
    longest = max((feature.length for feature in found), default=0)
    if config.longest_text is not None and longest > config.longest_text:
        raise ValueError(
            f"max_length: expected at most {config.longest_text}, the positions of the model, got "
            f"{settings.max_length}, and a text of {longest} tokens"
        )
    return found
