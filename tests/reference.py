"""The PyTorch reference (transformers 4.37.2), made ready to be compared with.

Its position tables are overwritten with the float64 table (it computes them in float32), every parameter is filled with
numbers that matter, and the weights are handed over under our names.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import transformers
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.layers.activations import ACTIVATIONS
from nezha_np.layers.relative_position import relative_position_table

transformers.logging.set_verbosity_error()  # it warns of every decoder

HEADS = {
    "forward": transformers.NezhaModel,
    "pretraining": transformers.NezhaForPreTraining,
    "masked_lm": transformers.NezhaForMaskedLM,
    "next_sentence_prediction": transformers.NezhaForNextSentencePrediction,
    "sequence_classification": transformers.NezhaForSequenceClassification,
    "multiple_choice": transformers.NezhaForMultipleChoice,
    "token_classification": transformers.NezhaForTokenClassification,
    "question_answering": transformers.NezhaForQuestionAnswering,
    "causal_lm": transformers.NezhaForMaskedLM,  # as a decoder; its loss is shifted by `run_reference`
}
LONGEST = 12


def reference_model(head: str, config: nz.NezhaConfig, seed: int, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """Make a fresh reference model with every parameter filled, in evaluation mode."""
    values = config.to_dict()
    if config.hidden_act == "selu":  # its documentation names it, its table does not have it: it takes a function
        values["hidden_act"] = torch.nn.functional.selu
    model = HEADS[head](transformers.NezhaConfig(**values)).eval()
    generator = np.random.default_rng(seed)
    for parameter in model.parameters():
        values = 0.4 * generator.normal(size=parameter.shape)
        parameter.data = torch.tensor(values + (parameter.data.numpy() == 1.0), dtype=dtype)  # norms around 1
    for name, module in model.named_modules():
        if name.endswith("relative_positions_encoding"):
            table = relative_position_table(
                np.zeros(1), head_size=config.head_size, max_relative_position=config.max_relative_position
            )
            position = np.arange(config.max_position_embeddings)
            reach = config.max_relative_position
            distance = np.clip(position[None, :] - position[:, None], -reach, reach) + reach
            module.positions_encoding = torch.tensor(table[distance], dtype=dtype)
    return model


def our_weights(model: torch.nn.Module, config: nz.NezhaConfig) -> nz.Weights:
    """Hand the reference's parameters over under our names."""
    names = {our_name(name): value.detach().numpy() for name, value in model.named_parameters()}
    return nz.Weights(names, config)


def our_name(name: str) -> str:
    return name.removeprefix("nezha.").replace("predictions.decoder.bias", "predictions.bias")


def run_reference(model: torch.nn.Module, head: str, inputs: dict[str, Any]) -> Any:
    """Run the reference on NumPy inputs; causal_lm's loss is BertLMHeadModel's, the next token's cross-entropy."""
    tensors = {name: torch.tensor(value) if isinstance(value, np.ndarray) else value for name, value in inputs.items()}
    labels = tensors.pop("labels", None) if head == "causal_lm" else None
    out = model(**tensors)
    if labels is not None:
        logits = out.logits[:, :-1].reshape(-1, out.logits.shape[-1])
        out["loss"] = torch.nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1))
    return out


@dataclasses.dataclass
class Case:
    """A configuration, a seed for the parameters, and the arguments of a call."""

    config: nz.NezhaConfig
    seed: int
    inputs: dict[str, Any]


@st.composite
def cases(draw: st.DrawFn, head: str, *, hidden_from: int = 2, labelled: bool = True) -> Case:
    """Draw small configurations, inputs, masks with holes and fully masked rows, and options."""
    heads = draw(st.integers(1, 3))
    head_size = draw(st.sampled_from([size for size in (2, 4, 6, 8) if size * heads >= hidden_from]))
    decoder = head == "causal_lm" or (head in ("forward", "masked_lm") and draw(st.booleans()))
    cross = decoder and head in ("forward", "masked_lm") and draw(st.booleans())
    vocabulary = draw(st.integers(4, 20))
    config = nz.NezhaConfig(
        vocab_size=vocabulary,
        hidden_size=heads * head_size,
        num_hidden_layers=draw(st.integers(1, 2)),
        num_attention_heads=heads,
        intermediate_size=draw(st.integers(1, 12)),
        hidden_act=draw(st.sampled_from(sorted(ACTIVATIONS))),
        max_position_embeddings=LONGEST,
        max_relative_position=draw(st.integers(1, LONGEST)),
        type_vocab_size=draw(st.integers(1, 3)),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
        pad_token_id=draw(st.sampled_from([0, 2, None])),
        is_decoder=decoder,
        add_cross_attention=cross,
        tie_word_embeddings=draw(st.booleans()),
        num_labels=draw(st.integers(1, 4)) if head != "question_answering" else 2,
        problem_type=draw(st.sampled_from([None, *nz.config.PROBLEM_TYPES])) if head == "sequence_classification" else None,
    )
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, LONGEST))
    choices = (draw(st.integers(1, 3)),) if head == "multiple_choice" else ()
    shape = (batch, *choices, length)

    inputs: dict[str, Any] = {"output_hidden_states": True, "output_attentions": True}
    if draw(st.booleans()):
        inputs["input_ids"] = generator.integers(0, vocabulary, shape)
    else:
        inputs["inputs_embeds"] = generator.normal(size=(*shape, config.hidden_size))
    if draw(st.booleans()):
        inputs["token_type_ids"] = generator.integers(0, config.type_vocab_size, shape)
    masks = [None, (shape, 0.6), (shape, 0.0)]
    if head != "multiple_choice":
        masks += [((batch, length, length), 0.6)]
    mask = draw(st.sampled_from(masks))
    if mask is not None:
        inputs["attention_mask"] = (generator.random(mask[0]) < mask[1]).astype(np.int64)
    head_mask = draw(st.sampled_from([None, (heads,), (config.num_hidden_layers, heads)]))
    if head_mask is not None:
        inputs["head_mask"] = generator.random(head_mask)
    if cross:  # at lengths that differ the reference raises
        inputs["encoder_hidden_states"] = generator.normal(size=(batch, length, config.hidden_size))
        if draw(st.booleans()):
            inputs["encoder_attention_mask"] = generator.integers(0, 2, (batch, length))
    if labelled:
        inputs |= draw(labels_for(head, config, generator, shape))
    return Case(config, seed, inputs)


@st.composite
def labels_for(
    draw: st.DrawFn, head: str, config: nz.NezhaConfig, generator: np.random.Generator, shape: tuple[int, ...]
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
    return {"labels": generator.normal(size=(batch, classes)) if problem == "regression" else generator.random((batch, classes))}
