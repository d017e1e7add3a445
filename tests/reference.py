"""The PyTorch reference (transformers 4.37.2), made ready to be compared with.

Its position tables are overwritten with the float64 table (it computes them in float32), every parameter is filled with
numbers that matter, and the weights are handed over under our names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

import nezha_np as nz
from nezha_np.layers.dropout import dropout_mask
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


def reference_model(
    head: str, config: nz.NezhaConfig, seed: int, dtype: torch.dtype = torch.float64
) -> torch.nn.Module:
    """Make a fresh reference model with every parameter filled, in evaluation mode."""
    values = config.to_dict()
    if config.hidden_act == "selu":  # its table does not have it: it takes a function
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


def drop_as_we_do(model: torch.nn.Module, seed: int, step: int) -> None:
    """Make the reference's dropout layers take our masks, which go by the names of its modules."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):

            def forward(
                x: torch.Tensor, rate: float = module.p, name: str = name.removeprefix("nezha.")
            ) -> torch.Tensor:
                return x * torch.tensor(dropout_mask(x.detach().numpy(), rate=rate, key=(seed, step, name)))

            module.forward = forward


def run_reference(model: torch.nn.Module, head: str, inputs: dict[str, Any]) -> Any:
    """Run the reference on NumPy inputs; causal_lm's loss is BertLMHeadModel's, the next token's cross-entropy."""
    tensors = {name: torch.tensor(value) if isinstance(value, np.ndarray) else value for name, value in inputs.items()}
    labels = tensors.pop("labels", None) if head == "causal_lm" else None
    out = model(**tensors)
    if labels is not None:
        logits = out.logits[:, :-1].reshape(-1, out.logits.shape[-1])
        out["loss"] = torch.nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1))
    return out
