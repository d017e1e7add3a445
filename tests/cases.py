"""Small configurations, inputs, masks and labels, drawn by hypothesis; the numbers come from a drawn seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.layers.activations import ACTIVATIONS

LABELLED = (
    "pretraining",
    "masked_lm",
    "next_sentence_prediction",
    "sequence_classification",
    "multiple_choice",
    "token_classification",
    "question_answering",
    "causal_lm",
)
HEADS = ("forward", *LABELLED)
FAMILIES = ("nezha", "bert", "convbert")
NO_DECODER = ("pretraining", "next_sentence_prediction", "causal_lm")  # the heads that ConvBERT does not have
EVERY_HEAD = [(family, head) for family in FAMILIES for head in HEADS if family != "convbert" or head not in NO_DECODER]
EVERY_LABELLED_HEAD = [(family, head) for family, head in EVERY_HEAD if head != "forward"]
LONGEST = 12
IDS = ("input_ids", "token_type_ids", "position_ids")


@dataclasses.dataclass
class Case:
    """A configuration, a seed for the parameters, and the arguments of a call; whether the model has a pooler."""

    config: Any
    seed: int
    inputs: dict[str, Any]
    pooler: bool = True


@st.composite
def heads_to_prune(draw: st.DrawFn, heads: int, layers: int) -> dict[int, list[int]]:
    """Draw some attention heads of some layers, never all of a layer."""
    some = st.lists(st.integers(0, heads - 1), max_size=heads - 1, unique=True)
    return draw(st.dictionaries(st.integers(0, layers - 1), some))


@st.composite
def cases(
    draw: st.DrawFn,
    head: str,
    family: str | None = None,
    *,
    hidden_from: int = 2,
    labelled: bool = True,
    decoder: bool | None = None,
    cross: bool | None = None,
    from_ids: bool | None = None,
    pruned: bool | None = None,
    caches: bool = True,
    reference: bool = True,
) -> Case:
    """Draw small configurations, inputs, masks with holes and fully masked rows, and options; None: drawn too.

    Ids are int64, int32 or lists, and a decoder may get a cache. With `from_ids` given, for a test that cuts the inputs
    itself, ids are int64 and there is no cache. With `reference`, only what transformers 4.37.2 computes, and computes
    rightly: a cache in BERT with absolute positions alone, encoder states of another length than the ids in BERT alone.
    """
    if family is None:
        families = FAMILIES[:2] if head in NO_DECODER or decoder or cross else FAMILIES
        family = draw(st.sampled_from(families))
    heads = draw(st.integers(1, 6))
    # Roundings grow with width and depth: the tests of float32 and float16, which draw from 8 features on, stay below.
    layers = draw(st.integers(1, 2 if hidden_from >= 8 else 3))
    head_size = draw(st.sampled_from([size for size in (2, 4, 6, 8) if hidden_from <= size * heads <= 24]))
    if family == "convbert":
        decoder = cross = False
    if decoder is None:
        decoder = head == "causal_lm" or draw(st.booleans())
    if cross is None:
        cross = decoder and head in ("forward", "masked_lm", "causal_lm") and draw(st.booleans())
    vocabulary = draw(st.integers(4, 20))
    hidden_size = heads * head_size
    own: dict[str, Any] = {}
    middle = st.integers(1, 12)
    if family == "nezha":
        own["max_relative_position"] = draw(st.integers(1, LONGEST))
    elif family == "bert":
        own["position_embedding_type"] = draw(st.sampled_from(nz.families.bert.POSITION_KINDS))
    else:
        own["head_ratio"] = draw(st.integers(1, 3))
        hidden_size *= 2 if hidden_size % (2 * max(1, heads // own["head_ratio"])) else 1
        # Wider where the hidden size is to be: a norm over few features amplifies a rounding.
        own["embedding_size"] = draw(st.sampled_from([hidden_size, 2 * hidden_from - 1, hidden_from + 8]))
        own["conv_kernel_size"] = draw(st.sampled_from([1, 3, 5, 9]))
        own["num_groups"] = draw(st.sampled_from([groups for groups in (1, 2, 3) if hidden_size % groups == 0]))
        middle = st.integers(1, 4).map(lambda factor: factor * own["num_groups"])
        own["summary_type"] = draw(st.sampled_from(nz.families.convbert.SUMMARIES))
        own["summary_use_proj"] = draw(st.booleans())
        own["summary_activation"] = draw(st.sampled_from([None, "tanh", "gelu"]))
        own["summary_first_dropout"] = draw(st.sampled_from([0.0, 0.2]))
        own["summary_last_dropout"] = draw(st.sampled_from([0.0, 0.3]))
    config = nz.families.family.FAMILIES[family].config(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=draw(middle),
        hidden_act=draw(st.sampled_from(sorted(ACTIVATIONS))),
        hidden_dropout_prob=draw(st.sampled_from([0.0, 0.3])),  # which acts under a tape with a seed alone
        attention_probs_dropout_prob=draw(st.sampled_from([0.0, 0.2])),
        classifier_dropout=draw(st.sampled_from([None, 0.0, 0.4])),
        max_position_embeddings=LONGEST,
        type_vocab_size=draw(st.integers(1, 3)),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
        pad_token_id=draw(st.sampled_from([0, 2, None])),
        is_decoder=decoder,
        add_cross_attention=cross,
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)) if head != "question_answering" else 2,
        problem_type=draw(st.sampled_from([None, *nz.families.config.PROBLEM_TYPES]))
        if head == "sequence_classification"
        else None,
        **own,
    )
    if family != "convbert" and (draw(st.booleans()) if pruned is None else pruned):
        config = config.replace(pruned_heads=draw(heads_to_prune(heads, layers)))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    past = 0
    if decoder and caches and from_ids is None and caches_work(head, config, reference):
        past = draw(st.integers(0, 3))
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, LONGEST - past))
    encoded = draw(st.integers(1, LONGEST)) if cross and (family == "bert" or not reference) else length
    choices = (draw(st.integers(1, 3)),) if head == "multiple_choice" else ()
    shape = (batch, *choices, length)
    keys = (*shape[:-1], past + length)

    inputs: dict[str, Any] = {name: draw(st.booleans()) for name in ("output_hidden_states", "output_attentions")}
    if head == "forward" and family != "convbert":  # the reference's others do not take it
        inputs["use_cache"] = draw(st.sampled_from([None, True, False]))
    if draw(st.booleans()) if from_ids is None else from_ids:
        inputs["input_ids"] = generator.integers(0, vocabulary, shape)
    else:
        inputs["inputs_embeds"] = generator.normal(size=(*shape, own.get("embedding_size", hidden_size)))
    if config.learns_positions and draw(st.booleans()):
        inputs["position_ids"] = generator.integers(0, LONGEST, shape)
    if draw(st.booleans()):
        inputs["token_type_ids"] = generator.integers(0, config.type_vocab_size, shape)
    if from_ids is None:
        make = draw(st.sampled_from([np.int64, np.int32, np.ndarray.tolist]))
        inputs |= {name: make(inputs[name]) for name in IDS if name in inputs}
    masks = [None, (keys, 0.6), (keys, 0.0)]
    if head != "multiple_choice":
        masks += [((batch, length, past + length), 0.6)]
    mask = draw(st.sampled_from(masks))
    if mask is not None:
        holes = generator.random(mask[0]) < mask[1]
        kind = draw(st.sampled_from(["int64", "bool", "float64", "fractions"]))
        inputs["attention_mask"] = holes * generator.random(mask[0]) if kind == "fractions" else holes.astype(kind)
    numbers = {config.heads(layer) for layer in range(layers)} | ({heads} if cross else set())
    if len(numbers) == 1:  # where layers differ in their heads, no mask of heads fits them
        (number,) = numbers
        head_mask = draw(st.sampled_from([None, (number,), (layers, number)]))
        if head_mask is not None:
            inputs["head_mask"] = generator.random(head_mask)
    if cross:
        inputs["encoder_hidden_states"] = generator.normal(size=(batch, encoded, config.hidden_size))
        if draw(st.booleans()):
            masked = draw(st.sampled_from([(batch, encoded), (batch, length, encoded)]))
            inputs["encoder_attention_mask"] = generator.integers(0, 2, masked)
    if past:  # keys and values of self-attention, then those of cross-attention, which loses no heads
        sizes = [(config.heads(layer), past) for layer in range(layers)]
        inputs["past_key_values"] = tuple(
            tuple(
                generator.normal(size=(batch, *size, config.head_size))
                for size in [own_size] * 2 + [(heads, encoded)] * (2 * cross)
            )
            for own_size in sizes
        )
    if labelled:
        inputs |= draw(labels_for(head, config, generator, shape))
    return Case(config, seed, inputs, pooler=head != "forward" or draw(st.sampled_from([True, True, False])))


def caches_work(head: str, config: Any, reference: bool) -> bool:
    """Say whether a head of a decoder takes a cache, here or in the reference."""
    if reference:  # its NEZHA raises, with relative positions it is wrong, and its other heads take none
        return config.learns_positions and head in ("forward", "causal_lm")
    return head != "multiple_choice"


@st.composite
def labels_for(
    draw: st.DrawFn, head: str, config: Any, generator: np.random.Generator, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Draw the labels of a head, some of them ignored, all of them sometimes."""
    batch, length, classes = shape[0], shape[-1], config.num_labels

    def some(below: int, size: tuple[int, ...]) -> np.ndarray:
        share = draw(st.sampled_from([0.0, 0.3, 1.0]))
        return np.where(generator.random(size) < share, -100, generator.integers(0, below, size))

    match head:
        case "forward":
            return {}
        case "pretraining":
            return {"labels": some(config.vocab_size, shape), "next_sentence_label": some(2, (batch,))}
        case "masked_lm" | "causal_lm":
            return {"labels": some(config.vocab_size, shape)}
        case "next_sentence_prediction":
            return {"labels": some(2, (batch,))}
        case "multiple_choice":
            return {"labels": some(shape[1], (batch,))}
        case "token_classification":
            return {"labels": some(classes, shape)}
        case "question_answering":
            ends = ("start_positions", "end_positions")
            return {name: generator.integers(-2, length + 3, (batch,)) for name in ends}
    integers = draw(st.booleans())
    problem = config.problem_type
    if problem is None:
        problem = "regression" if classes == 1 else "single_label" if integers else "multi_label"
    if problem.startswith("single"):
        return {"labels": some(classes, (batch,))}
    if problem == "regression" and classes == 1 and draw(st.booleans()):
        return {"labels": generator.normal(size=(batch,))}
    return {
        "labels": generator.normal(size=(batch, classes))
        if problem == "regression"
        else generator.random((batch, classes))
    }


def weights_for(head: str, case: Case, dtype: str = "float64") -> nz.Weights:
    """Draw weights for a case by `nezha_np.init`, then make every one of them a number that matters."""
    drawn = nz.init(case.config, head=None if head == "forward" else head)
    generator = np.random.default_rng(case.seed)
    tensors = {
        name: (0.4 * generator.normal(size=array.shape) + name.endswith("LayerNorm.weight")).astype(dtype)
        for name, array in drawn.items()
        if case.pooler or not name.startswith("pooler.")
    }
    return nz.Weights(tensors, case.config)


def each_array(function: Callable[[Any], Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """Apply a function to every NumPy array of the inputs, those of a cache too."""

    def apply(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(apply, value))
        return function(value) if isinstance(value, np.ndarray) else value

    return {name: apply(value) for name, value in inputs.items()}


def arrays_of(output: Any) -> dict[str, Any]:
    """List the arrays of an output by field, those in tuples by number too."""
    found: dict[str, Any] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, tuple):
            for index, part in enumerate(value):
                visit(f"{name}.{index}", part)
        elif value is not None:
            found[name] = value

    for field in dataclasses.fields(output):
        visit(field.name, getattr(output, field.name))
    return found
