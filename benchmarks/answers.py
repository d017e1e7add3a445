"""Time classify, tag and embed with the shipped models on texts of mixed length, against transformers' pipelines.

python benchmarks/answers.py [--texts 64] [--rounds 3] [--threads 1 2] [--json PATH]

About three minutes. A pipeline takes a list of texts, one by one (its default) or in batches of 32, padded, in their
order; batches take so much longer that they have a single turn. Both
have the same weights and vocabulary and are timed from texts to results. Embeddings are means of the tokens' last
hidden states, by a pipeline that is made for them here: that of transformers returns a vector for each token. Texts are
cut at 400 characters, because the reference's NEZHA ends at 512 tokens. On one thread tokenizers have one thread too.
For embed the matrix products of the model alone are timed too, text by text: nothing that computes them is faster.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import transformers
from answers_tables import answers_row, answers_table
from contest import set_threads, take_turns
from forward import PRODUCTS, matrix_products
from machine import Target, add_json_option, at_least, cores, report
from texts import mixed_texts

import nezha_np as nz
from nezha_np.weights.checkpoint import SHIPPED

LONGEST = 400  # characters
BATCH = 32
RATIO, DIFFERENCE = 2.0, 1e-5
Found = list[tuple[Any, Any]]  # of each text, what was found, and its numbers


class EmbeddingPipeline(transformers.FeatureExtractionPipeline):
    """The pipeline of features, with the mean of a text's tokens in the place of all of them."""

    def _forward(self, inputs: Any) -> Any:
        hidden, mask = super()._forward(inputs)[0], inputs["attention_mask"][:, :, None]
        return {"vectors": (hidden * mask).sum(1) / mask.sum(1)}

    def postprocess(self, outputs: Any, **options: Any) -> Any:
        return outputs["vectors"][0].numpy()


def classify(texts: list[str]) -> Found:
    return [(best.label, [best.score]) for (best,) in nz.classify(texts)]


def classified(found: list[Any]) -> Found:
    return [(best["label"], [best["score"]]) for best in found]


def tag(texts: list[str]) -> Found:
    return [([(e.label, e.start, e.end) for e in one], [e.score for e in one]) for one in nz.tag(texts)]


def tagged(found: list[Any]) -> Found:
    return [
        ([(e["entity_group"], e["start"], e["end"]) for e in one], [float(e["score"]) for e in one]) for one in found
    ]


def embed(texts: list[str]) -> Found:
    return [(None, vector) for vector in nz.embed(texts)]


def embedded(found: list[Any]) -> Found:
    return [(None, vector) for vector in found]


# What is timed here; the reference's model and pipeline, the folder of the shipped model, and its results in our form.
TASKS: dict[str, tuple[Callable[[list[str]], Found], str, Any, str, Callable[[list[Any]], Found]]] = {
    "classify": (
        classify,
        "NezhaForSequenceClassification",
        transformers.TextClassificationPipeline,
        "sentiment",
        classified,
    ),
    "tag": (
        tag,
        "NezhaForTokenClassification",
        functools.partial(transformers.TokenClassificationPipeline, aggregation_strategy="first"),
        "names",
        tagged,
    ),
    "embed": (embed, "NezhaModel", EmbeddingPipeline, "", embedded),
}


def reference(task: str) -> Callable[..., Found]:
    """Return the pipeline of a task, with our weights."""
    _, model, pipeline, name, results = TASKS[task]
    with tempfile.TemporaryDirectory() as folder:
        nz.load(SHIPPED / name).save(folder)
        loaded = getattr(transformers, model).from_pretrained(folder).eval()
    tokenizer = transformers.BertTokenizerFast.from_pretrained(SHIPPED, model_max_length=512)
    run = pipeline(model=loaded, tokenizer=tokenizer, framework="pt")
    return lambda texts, batch_size: results(run(texts, batch_size=batch_size))


def compare(ours: Found, theirs: Found) -> tuple[int, float]:
    """Return how many texts have the same results, and the largest difference of the numbers of these."""
    pairs = [(one, other) for (what, one), (named, other) in zip(ours, theirs, strict=True) if what == named]
    differences = [float(np.abs(np.subtract(one, other)).max()) for one, other in pairs if len(one)]
    return len(pairs), max(differences, default=0.0)


def products_of(lengths: list[int]) -> Callable[[], list[None]]:
    """Make a function that computes the matrix products of the shipped model alone, for texts of these lengths."""
    weights = nz.load()
    runs = {length: matrix_products(weights, 1, length) for length in set(lengths)}
    return lambda: [runs[length]() for length in lengths]


def measure(task: str, texts: list[str], lengths: list[int], threads: int, rounds: int) -> dict[str, Any]:
    ours, pipeline = TASKS[task][0], reference(task)
    same, difference = compare(ours(texts), pipeline(texts, 1))
    runs = {"one by one": lambda: pipeline(texts, 1), "nezha_np": lambda: ours(texts)}
    if task == "embed":
        runs[PRODUCTS] = products_of(lengths)
    seconds = take_turns(runs, rounds)
    seconds |= take_turns({f"batches of {BATCH}": lambda: pipeline(texts, BATCH)}, 1)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    alone = {PRODUCTS: len(texts) / medians.pop(PRODUCTS)} if PRODUCTS in medians else {}
    return {
        **alone,
        "task": task,
        "threads": threads,
        "texts_per_second": {name: len(texts) / median for name, median in medians.items()},
        "ratio_to_ours": {name: median / medians["nezha_np"] for name, median in medians.items() if name != "nezha_np"},
        "same_results": same,
        "largest_difference": difference,
        "seconds": seconds,
    }


def targets(results: list[dict[str, Any]], texts: int) -> list[Target]:
    found = []
    for result in results:
        name = answers_row(result)[0]
        for other, ratio in result["ratio_to_ours"].items():
            found.append(Target(f"{name}: texts a second / pipeline, {other}", ratio, RATIO, at_least=True))
        found.append(Target(f"{name}: texts with the same result", result["same_results"], texts, at_least=True))
        found.append(Target(f"{name}: largest difference", result["largest_difference"], DIFFERENCE))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=at_least(1), default=64)
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--threads", nargs="+", type=at_least(1), default=sorted({1, cores()}), metavar="N")
    add_json_option(parser)
    options = parser.parse_args()

    transformers.logging.set_verbosity_error()  # which tensors of the whole model a head leaves out
    tokenizer = nz.load_tokenizer()
    texts, source = mixed_texts(options.texts, tokenizer)
    texts = [text[:LONGEST] for text in texts]
    lengths = [len(ids.ids) for ids in tokenizer.encode_batch(texts)]
    print(
        f"{len(texts)} texts ({source}) of {min(lengths)} to {max(lengths)} tokens, median {np.median(lengths):.0f}, "
        f"{sum(lengths)} in all"
    )
    results = []
    for threads in options.threads:
        os.environ["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
        set_threads(threads)
        for task in options.tasks:
            results.append(measure(task, texts, lengths, threads, options.rounds))
    print(f"\nmedian of {options.rounds}\n\n{answers_table(results)}")
    settings = {"texts": len(texts), "rounds": options.rounds, "source": source, "tokens": sum(lengths)}
    report(options.json, "answers", settings, results, targets(results, len(texts)))


if __name__ == "__main__":
    main()
