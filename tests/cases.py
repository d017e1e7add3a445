"""Small configurations, inputs, masks and labels, drawn by hypothesis; the numbers come from a drawn seed."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass
class Case:
    """A configuration, a seed for the parameters, and the arguments of a call."""

    config: Any
    seed: int
    inputs: dict[str, Any]


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
) -> Case:
    """Draw small configurations, inputs, masks with holes and fully masked rows, and options; None: drawn too."""
    if family is None:
        families = FAMILIES[:2] if head in NO_DECODER or decoder or cross else FAMILIES
        family = draw(st.sampled_from(families))
    heads = draw(st.integers(1, 3))
    head_size = draw(st.sampled_from([size for size in (2, 4, 6, 8) if size * heads >= hidden_from]))
    if family == "convbert":
        decoder = cross = False
    if decoder is None:
        decoder = head == "causal_lm" or draw(st.booleans())
    if cross is None:
        cross = decoder and head in ("forward", "masked_lm") and draw(st.booleans())
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
        num_hidden_layers=draw(st.integers(1, 2)),
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
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, LONGEST))
    heads = config.attention_heads
    choices = (draw(st.integers(1, 3)),) if head == "multiple_choice" else ()
    shape = (batch, *choices, length)

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
    masks = [None, (shape, 0.6), (shape, 0.0)]
    if head != "multiple_choice":
        masks += [((batch, length, length), 0.6)]
    mask = draw(st.sampled_from(masks))
    if mask is not None:
        holes = generator.random(mask[0]) < mask[1]
        kind = draw(st.sampled_from(["int64", "bool", "float64", "fractions"]))
        inputs["attention_mask"] = holes * generator.random(mask[0]) if kind == "fractions" else holes.astype(kind)
    head_mask = draw(st.sampled_from([None, (heads,), (config.num_hidden_layers, heads)]))
    if head_mask is not None:
        inputs["head_mask"] = generator.random(head_mask)
    if cross:  # at lengths that differ the reference raises
        inputs["encoder_hidden_states"] = generator.normal(size=(batch, length, config.hidden_size))
        if draw(st.booleans()):
            masked = draw(st.sampled_from([(batch, length), (batch, length, length)]))
            inputs["encoder_attention_mask"] = generator.integers(0, 2, masked)
    if labelled:
        inputs |= draw(labels_for(head, config, generator, shape))
    return Case(config, seed, inputs)


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
    }
    return nz.Weights(tensors, case.config)


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
