"""The eight task heads: what stands on top of the model for a task, and its loss.

`nezha_np.model.tasks` registers them. Each takes what `nezha_np.forward` takes, and labels. Without labels its loss is
None. A docstring names the reference's class for NEZHA; those for BERT and ConvBERT have the same ending. ConvBERT has
five of the heads, three of which `nezha_np.families` computes in another way.

The file has more than 400 lines because the heads are compared with each other; more than half of it are docstrings.

Dimension letters: B batch, L length, H hidden, V vocabulary, C classes or choices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

from nezha_np.arrays import Array
from nezha_np.checks import check_switches
from nezha_np.families.config import Config
from nezha_np.families.family import family_of
from nezha_np.families.shared import classifier, pooled_classifier
from nezha_np.layers.addition import add
from nezha_np.layers.linear import linear
from nezha_np.layers.losses import average, bce_with_logits, cross_entropy, mse
from nezha_np.layers.masks import as_constant
from nezha_np.layers.selection import all_but_last_token, by_choice, column, last_token, some_tokens
from nezha_np.mechanism import View
from nezha_np.model.arguments import Inputs, check_call
from nezha_np.model.inputs import check_numbers, count_axes, fold_choices, which_tokens
from nezha_np.model.labels import are_integers, check_classes, check_positions, labelled_tokens
from nezha_np.model.model import backbone
from nezha_np.model.outputs import (
    CausalLMOutput,
    HeadOutput,
    ModelOutput,
    PretrainingOutput,
    QuestionAnsweringOutput,
)
from nezha_np.weights.weights import Weights, as_weights


def _run_model(
    head: str, weights: Any, config: Config | None, input_ids: Any, inputs: Inputs, *, pooled: bool, alone: bool = False
) -> tuple[Weights, View, ModelOutput]:
    """Check the weights and the arguments of a head and run the model, with its pooler or without.

    `alone` says that the head reads the pooler's output alone.
    """
    weights = as_weights(weights, config)
    weights.require(head)
    call = dataclasses.replace(check_call(weights, head, input_ids, inputs), first_token_alone=alone)
    return weights, View(weights), backbone(weights, call, pooled=pooled)


def pretraining(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    labels: Any = None,
    next_sentence_label: Any = None,
    labelled_only: bool = False,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> PretrainingOutput:
    """Predict masked tokens, and whether the second text follows the first (transformers NezhaForPreTraining).

    Parameters
    ----------
    weights, input_ids, config, **inputs
        As for `nezha_np.forward`.
    labels : (B, L) array_like of int, optional
        The correct ids, from 0 to ``vocab_size - 1``; -100 for a token that is not counted.
    next_sentence_label : (B,) array_like of int, optional
        0 where the second text follows the first, 1 where it does not.
    labelled_only : bool
        Whether to compute logits only for the n tokens with a label: while training, most of the logits are not needed.

    Returns
    -------
    PretrainingOutput
        The loss is the sum of the two cross-entropies; it needs both labels. Over no labels at all it is NaN. With
        `labelled_only` the logits are (n, V), of the labelled tokens from left to right, row after row.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the weights lack a tensor of the head; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> out = nz.pretraining(nz.load(), [[2, 4, 3]])
    >>> out.prediction_logits.shape, out.seq_relationship_logits.shape
    ((1, 3, 7000), (1, 2))
    """
    weights, w, out = _run_model("pretraining", weights, config, input_ids, inputs, pooled=True)
    logits, tokens = _logits_and_labels(out.last_hidden_state, w, labels, labelled_only)
    relationship = linear(out.pooler_output, w["cls.seq_relationship.weight"], w["cls.seq_relationship.bias"])
    loss = None
    follows = (
        None if next_sentence_label is None else check_classes("next_sentence_label", next_sentence_label, relationship)
    )
    if tokens is not None and follows is not None:
        masked_lm_loss = cross_entropy(logits, tokens, name="masked_lm_loss")
        next_sentence_loss = cross_entropy(relationship, follows, name="next_sentence_loss")
        loss = add(masked_lm_loss, next_sentence_loss, name="loss")
    return PretrainingOutput(loss, logits, relationship, out.hidden_states, out.attentions)


def _logits_and_labels(x: Array, w: View, labels: Any, labelled_only: bool) -> tuple[Array, Array | None]:
    """Compute the logits of the vocabulary, of all tokens or of those with a label alone, and check the labels."""
    check_switches(labelled_only=labelled_only)
    language_model = family_of(w.config).language_model
    if labelled_only:
        numbers, tokens = labelled_tokens(labels, x, w.config.vocab_size)
        return language_model(some_tokens(x, numbers, name="labelled"), w), tokens
    logits = language_model(x, w)
    return logits, None if labels is None else check_classes("labels", labels, logits)


def masked_lm(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    labels: Any = None,
    labelled_only: bool = False,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> HeadOutput:
    """Predict masked tokens (transformers NezhaForMaskedLM).

    Parameters
    ----------
    weights, input_ids, config, **inputs
        As for `nezha_np.forward`.
    labels : (B, L) array_like of int, optional
        The correct ids, from 0 to ``vocab_size - 1``; -100 for a token that is not counted.
    labelled_only : bool
        Whether to compute logits only for the n tokens with a label: while training, most of the logits are not needed.

    Returns
    -------
    HeadOutput
        Cross-entropy, NaN over no labels at all, and logits (B, L, V). With `labelled_only` the logits are (n, V), of
        the labelled tokens from left to right, row after row.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the weights lack a tensor of the head; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> out = nz.masked_lm(nz.load(), [[2, 4, 3]], labels=[[-100, 7, -100]])
    >>> out.logits.shape, out.loss.shape
    ((1, 3, 7000), ())
    """
    _, w, out = _run_model("masked_lm", weights, config, input_ids, inputs, pooled=False)
    logits, tokens = _logits_and_labels(out.last_hidden_state, w, labels, labelled_only)
    loss = None if tokens is None else cross_entropy(logits, tokens, name="loss")
    return HeadOutput(loss, logits, out.hidden_states, out.attentions)


def causal_lm(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    labels: Any = None,
    last_only: bool = False,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> CausalLMOutput:
    """Predict each next token (transformers NezhaForMaskedLM as a decoder, with the loss of BertLMHeadModel).

    Parameters
    ----------
    weights, input_ids, config, **inputs
        As for `nezha_np.forward`; the configuration has ``is_decoder=True``.
    labels : (B, L) array_like of int, optional
        The ids of the text itself, from 0 to ``vocab_size - 1``, -100 for one that is not counted: each token's logits
        are compared with the next token's label.
    last_only : bool
        Whether to compute logits only for the last token of each row, which says what comes next: for a long prompt
        most of the logits are not needed.

    Returns
    -------
    CausalLMOutput
        Cross-entropy, NaN over no labels at all, logits (B, L, V), and the cache for the next tokens. With `last_only`
        the logits are (B, V).

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the weights lack a tensor of the head; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> out = nz.causal_lm(weights, [[2, 4, 3]], labels=[[2, 4, 3]], config=weights.config.replace(is_decoder=True))
    >>> out.logits.shape, out.past_key_values[0][0].shape
    ((1, 3, 7000), (1, 8, 3, 32))
    """
    weights = as_weights(weights, config)
    require_decoder(weights)
    check_switches(last_only=last_only)
    if last_only and labels is not None:
        raise ValueError(
            "last_only: expected False with labels, because a loss needs the logits of all tokens, got True"
        )
    _, w, out = _run_model("causal_lm", weights, None, input_ids, inputs, pooled=False)
    x = last_token(out.last_hidden_state) if last_only else out.last_hidden_state
    logits = family_of(w.config).language_model(x, w)
    loss = None
    if labels is not None:
        next_tokens = check_classes("labels", labels, logits)[:, 1:]
        loss = cross_entropy(all_but_last_token(logits), next_tokens, name="loss")
    return CausalLMOutput(loss, logits, out.past_key_values, out.hidden_states, out.attentions, out.cross_attentions)


def require_decoder(weights: Weights) -> None:
    """Check that weights are a decoder's, with a language-model head.

    Parameters
    ----------
    weights : Weights
        The weights.

    Raises
    ------
    ValueError
        If they are not.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> require_decoder(nz.Weights(weights, weights.config.replace(is_decoder=True)))
    """
    weights.require("causal_lm")
    if not weights.config.is_decoder:
        raise ValueError(
            "causal_lm: expected a config with is_decoder=True, got False, with which each token would attend to the "
            "next: pass config=weights.config.replace(is_decoder=True)"
        )


def next_sentence_prediction(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    labels: Any = None,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> HeadOutput:
    """Predict whether the second text follows the first (transformers NezhaForNextSentencePrediction).

    Parameters
    ----------
    weights, input_ids, config, **inputs
        As for `nezha_np.forward`.
    labels : (B,) array_like of int, optional
        0 where the second text follows the first, 1 where it does not, -100 for a pair that is not counted.

    Returns
    -------
    HeadOutput
        Cross-entropy and logits (B, 2).

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the weights lack a tensor of the head; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.next_sentence_prediction(nz.load(), [[2, 4, 3, 5, 3]], token_type_ids=[[0, 0, 0, 1, 1]]).logits.shape
    (1, 2)
    """
    _, w, out = _run_model("next_sentence_prediction", weights, config, input_ids, inputs, pooled=True, alone=True)
    logits = linear(out.pooler_output, w["cls.seq_relationship.weight"], w["cls.seq_relationship.bias"])
    loss = None if labels is None else cross_entropy(logits, check_classes("labels", labels, logits), name="loss")
    return HeadOutput(loss, logits, out.hidden_states, out.attentions)


def sequence_classification(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    labels: Any = None,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> HeadOutput:
    """Classify a text, or predict numbers for it (transformers NezhaForSequenceClassification).

    Parameters
    ----------
    weights, input_ids, config, **inputs
        As for `nezha_np.forward`.
    labels : array_like, optional
        Their meaning is that of ``config.problem_type``; where it is None, one label means regression, integers mean
        one class of several, floats mean several independent labels.
        Regression: numbers (B, C), or (B,) with one label; the loss is the mean squared error.
        Single label: classes (B,) from 0 to ``num_labels - 1``, or -100; the loss is the cross-entropy.
        Multi label: probabilities (B, C); the loss is the binary cross-entropy.

    Returns
    -------
    HeadOutput
        Loss and logits (B, C).

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the weights lack a tensor of the head; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.NezhaConfig(vocab_size=10, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, num_labels=3)
    >>> weights = nz.init(config, head="sequence_classification")
    >>> nz.sequence_classification(weights, [[2, 4, 3]], labels=[1]).logits.shape
    (1, 3)
    """
    weights = as_weights(weights, config)
    classify = family_of(weights.config).text_classifier
    alone = classify is pooled_classifier
    _, w, out = _run_model("sequence_classification", weights, None, input_ids, inputs, pooled=True, alone=alone)
    logits = classify(out.last_hidden_state, out.pooler_output, w)
    loss = None if labels is None else _classification_loss(weights.config, logits, labels)
    return HeadOutput(loss, logits, out.hidden_states, out.attentions)


def _classification_loss(config: Config, logits: Array, labels: Any) -> Array:
    problem = config.problem_type
    if problem is None:
        several = (config.num_labels or 0) > 1
        problem = (
            "regression" if not several else "single_label" if are_integers("labels", labels, logits) else "multi_label"
        )
    if problem.startswith("single_label"):
        return cross_entropy(logits, check_classes("labels", labels, logits), name="loss")
    by_text = logits.shape[1] == 1 and problem == "regression" and count_axes(labels) == 1
    targets = check_numbers("labels", labels, logits, logits.shape[:1] if by_text else tuple(logits.shape))
    targets = as_constant(targets[:, None] if by_text else targets, name="targets")
    return (mse if problem == "regression" else bce_with_logits)(logits, targets, name="loss")


def multiple_choice(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    labels: Any = None,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> HeadOutput:
    """Choose between texts (transformers NezhaForMultipleChoice).

    Parameters
    ----------
    weights, input_ids, config, **inputs
        As for `nezha_np.forward`, with an axis of C choices after the batch: `input_ids`, `attention_mask`,
        `token_type_ids` and `position_ids` are (B, C, L), `inputs_embeds` are (B, C, L, H).
    labels : (B,) array_like of int, optional
        The correct choices, from 0 to ``C - 1``, or -100.

    Returns
    -------
    HeadOutput
        Cross-entropy over the choices, and logits (B, C).

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the weights lack a tensor of the head; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.NezhaConfig(vocab_size=10, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    >>> weights = nz.init(config, head="multiple_choice")
    >>> nz.multiple_choice(weights, [[[2, 4, 3], [2, 5, 3]]], labels=[1]).logits.shape
    (1, 2)
    """
    weights = as_weights(weights, config)
    inputs_embeds = inputs.get("inputs_embeds")
    if which_tokens(input_ids, inputs_embeds) == "input_ids":
        input_ids, rows = fold_choices("input_ids", input_ids, weights.word_embeddings, None)
    else:
        inputs["inputs_embeds"], rows = fold_choices("inputs_embeds", inputs_embeds, weights.word_embeddings, None)
    for name in ("attention_mask", "token_type_ids", "position_ids"):
        if inputs.get(name) is not None:
            inputs[name], _ = fold_choices(name, inputs[name], weights.word_embeddings, rows)
    score = family_of(weights.config).choice_scorer
    alone = score is pooled_classifier
    _, w, out = _run_model("multiple_choice", weights, None, input_ids, inputs, pooled=True, alone=alone)
    scores = score(out.last_hidden_state, out.pooler_output, w)
    logits = by_choice(scores, choices=rows[1], name="logits")  # (B·C, 1) -> (B, C)
    loss = None if labels is None else cross_entropy(logits, check_classes("labels", labels, logits), name="loss")
    return HeadOutput(loss, logits, out.hidden_states, out.attentions)


def token_classification(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    labels: Any = None,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> HeadOutput:
    """Classify each token (transformers NezhaForTokenClassification).

    Parameters
    ----------
    weights, input_ids, config, **inputs
        As for `nezha_np.forward`.
    labels : (B, L) array_like of int, optional
        The correct classes, from 0 to ``num_labels - 1``; -100 for a token that is not counted.

    Returns
    -------
    HeadOutput
        Cross-entropy, NaN over no labels at all, and logits (B, L, C).

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the weights lack a tensor of the head; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.NezhaConfig(vocab_size=10, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, num_labels=5)
    >>> weights = nz.init(config, head="token_classification")
    >>> nz.token_classification(weights, [[2, 4, 3]]).logits.shape
    (1, 3, 5)
    """
    _, w, out = _run_model("token_classification", weights, config, input_ids, inputs, pooled=False)
    logits = classifier(out.last_hidden_state, w)
    loss = None if labels is None else cross_entropy(logits, check_classes("labels", labels, logits), name="loss")
    return HeadOutput(loss, logits, out.hidden_states, out.attentions)


def question_answering(
    weights: Weights | Mapping[str, Array],
    input_ids: Any = None,
    *,
    start_positions: Any = None,
    end_positions: Any = None,
    config: Config | None = None,
    **inputs: Unpack[Inputs],
) -> QuestionAnsweringOutput:
    """Find the part of a text that answers a question (transformers NezhaForQuestionAnswering).

    Parameters
    ----------
    weights, input_ids, config, **inputs
        As for `nezha_np.forward`.
    start_positions, end_positions : (B,) or (B, 1) array_like of int, optional
        The first and the last token of the answer. As in the reference, positions below 0 count as 0, and positions
        from L on are left out.

    Returns
    -------
    QuestionAnsweringOutput
        The average of the two cross-entropies, which needs both positions, and logits (B, L) for each end.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the weights lack a tensor of the head; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.NezhaConfig(vocab_size=10, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    >>> weights = nz.init(config, head="question_answering")
    >>> nz.question_answering(weights, [[2, 4, 3]], start_positions=[1], end_positions=[1]).start_logits.shape
    (1, 3)
    """
    _, w, out = _run_model("question_answering", weights, config, input_ids, inputs, pooled=False)
    logits = linear(out.last_hidden_state, w["qa_outputs.weight"], w["qa_outputs.bias"])  # (B, L, 2)
    start_logits = column(logits, index=0, name="start_logits")  # (B, L)
    end_logits = column(logits, index=1, name="end_logits")
    starts = None if start_positions is None else check_positions("start_positions", start_positions, start_logits)
    ends = None if end_positions is None else check_positions("end_positions", end_positions, end_logits)
    loss = None
    if starts is not None and ends is not None:
        outside = start_logits.shape[1]
        start_loss = cross_entropy(start_logits, starts, ignore_index=outside, name="start_loss")
        end_loss = cross_entropy(end_logits, ends, ignore_index=outside, name="end_loss")
        loss = average(start_loss, end_loss, name="loss")
    return QuestionAnsweringOutput(loss, start_logits, end_logits, out.hidden_states, out.attentions)
