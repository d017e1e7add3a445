"""ConvBERT (Jiang et al. 2020): half of the attention heads are replaced by span-based dynamic convolutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from nezha_np.arrays import Array
from nezha_np.checks import check_integer
from nezha_np.families import shared
from nezha_np.families.config import Config
from nezha_np.families.config_values import MOST, check_number
from nezha_np.families.family import Family, FamilyTask, Table, norm, with_bias
from nezha_np.layers.activations import ACTIVATIONS, activation, gelu
from nezha_np.layers.dropout import dropout
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.selection import first_token, last_token, mean_of_tokens
from nezha_np.layers.span_convolution import (
    convolution_kernels,
    dynamic_convolution,
    multiply,
    separable_convolution,
)
from nezha_np.mechanism import View, composite

SUMMARIES = ("last", "first", "mean", "cls_index")


@dataclasses.dataclass(frozen=True)
class ConvBertConfig(Config):
    """The configuration of a ConvBERT model (transformers ConvBertConfig), checked when it is made.

    Parameters
    ----------
    embedding_size : int
        E, the features of the embeddings; where it is not `hidden_size`, a linear map follows them.
    head_ratio : int
        γ: num_attention_heads // γ heads are left (one at least), and as many convolutions stand beside them.
    conv_kernel_size : int
        The tokens that a convolution sees, an odd number: as many to the left as to the right.
    num_groups : int
        The groups of the feed-forward's linear maps; it divides `hidden_size` and `intermediate_size`.
    summary_type : str
        What `multiple_choice` reads a text by: "last" or "first" token, "mean" of all tokens; "cls_index" is "last".
    summary_use_proj : bool
        Whether it goes through a linear map.
    summary_activation : str or None
        An activation after that.
    summary_first_dropout, summary_last_dropout : float
        Dropout rates before and after the two.
    **shared
        The fields of `Config`. ConvBERT is no decoder, because its convolutions see the tokens that follow, and its
        heads cannot be pruned.

    Raises
    ------
    TypeError
        If a field has a wrong type.
    ValueError
        If a field has a value that no model can have; the message names the field.

    Examples
    --------
    >>> config = ConvBertConfig()
    >>> config.attention_heads, config.head_size
    (6, 64)
    """

    model_type: ClassVar[str] = "convbert"

    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | Sequence[int] | None = 2
    embedding_size: int = 768
    head_ratio: int = 2
    conv_kernel_size: int = 9
    num_groups: int = 1
    summary_type: str = "last"
    summary_use_proj: bool = False
    summary_activation: str | None = None
    summary_first_dropout: float = 0.0
    summary_last_dropout: float = 0.0

    @property
    def attention_heads(self) -> int:
        """N, the heads of self-attention, to which as many convolutions come."""
        return max(1, self.num_attention_heads // self.head_ratio)

    @property
    def head_size(self) -> int:
        """D, the features of a head, and of a convolution."""
        return self.hidden_size // self.attention_heads // 2

    @property
    def learns_positions(self) -> bool:
        """Whether each position of a text has a learned vector, which is added to its word."""
        return True

    @property
    def dimensions(self) -> dict[str, int]:
        """The dimension letters: G and k besides those of every family."""
        return super().dimensions | {"G": self.num_groups, "k": self.conv_kernel_size}

    def check_family(self) -> None:
        """Check what ConvBERT alone has, and that nothing of a decoder is asked for."""
        for name in ("embedding_size", "head_ratio", "conv_kernel_size", "num_groups"):
            self.set_field(name, check_integer(name, getattr(self, name), least=1, most=MOST))
        for name in ("summary_first_dropout", "summary_last_dropout"):
            self.set_field(name, check_number(name, getattr(self, name), below=1))
        if not isinstance(self.summary_use_proj, bool):
            raise TypeError(f"summary_use_proj: expected True or False, got {self.summary_use_proj!r}")
        self.check_choice("summary_type", SUMMARIES)
        if self.summary_activation == "":  # none, as in the reference
            self.set_field("summary_activation", None)
        self.check_choice("summary_activation", (None, *ACTIVATIONS))
        if self.hidden_size % (2 * self.attention_heads):
            raise ValueError(
                f"hidden_size: expected a multiple of {2 * self.attention_heads}, which are the heads and convolutions "
                f"that head_ratio {self.head_ratio} makes of {self.num_attention_heads}, got {self.hidden_size}"
            )
        if self.conv_kernel_size % 2 == 0:
            raise ValueError(
                "conv_kernel_size: expected an odd number, as many tokens to the left as to the right, got "
                f"{self.conv_kernel_size}"
            )
        for name in ("hidden_size", "intermediate_size"):
            if getattr(self, name) % self.num_groups:
                raise ValueError(
                    f"num_groups: expected a divisor of {name} {getattr(self, name)}, got {self.num_groups}"
                )
        for name, why in (
            ("is_decoder", "its convolutions see the tokens that follow"),
            ("add_cross_attention", "it is no decoder"),
        ):
            if getattr(self, name):
                raise ValueError(f"{name}: expected False, because ConvBERT is an encoder: {why}, got True")
        if self.pruned_heads:
            raise ValueError(
                "pruned_heads: expected none, because ConvBERT's heads and convolutions share their maps, got "
                f"{dict(self.pruned_heads)}"
            )
        if self.summary_use_proj and self.extra.get("summary_proj_to_labels"):
            raise ValueError(
                "summary_proj_to_labels: expected false, because the classifier after it takes hidden_size features, "
                "got true"
            )


# ------------------------------------------------------------------------------------------- ConvBERT's convolutions


def span_convolution(x: Array, query: Array, w: View) -> Array:
    """Average the neighbours of each token by kernels made of its span and its query: (B, L, H) -> (B, L, A)."""
    span = separable_convolution(
        x,
        w["key_conv_attn_layer.depthwise.weight"],
        w["key_conv_attn_layer.pointwise.weight"],
        w["key_conv_attn_layer.bias"],
        name="key_conv_attn_layer",
    )
    asked = multiply(span, query, name="conv_attn")
    scores = linear(asked, w["conv_kernel_layer.weight"], w["conv_kernel_layer.bias"])  # (B, L, N·k)
    kernels = convolution_kernels(scores, size=w.config.conv_kernel_size, name="conv_kernels")  # (B, L, N, k)
    values = linear(x, w["conv_out_layer.weight"], w["conv_out_layer.bias"])  # (B, L, A)
    context: Array = dynamic_convolution(values, kernels, name="conv_context")
    return context


# --------------------------------------------------------------------------------------------- ConvBERT's task heads


@composite
def generator_predictions(x: Array, w: View) -> Array:
    """Prepare hidden states for the decoder: linear, gelu whatever the model has, norm, (B, L, H) -> (B, L, E)."""
    x = gelu(linear(x, w["dense.weight"], w["dense.bias"]), name="activation")
    x = layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)
    return x


def convbert_language_model(x: Array, w: View) -> Array:
    """Compute the logits of the vocabulary, (B, L, H) -> (B, L, V); the matrix is the word embeddings where tied."""
    x = generator_predictions(x, w.at("generator_predictions"))
    logits: Array = linear(x, w["generator_lm_head.weight"], w["generator_lm_head.bias"], name="generator_lm_head")
    return logits


@composite
def classification_head(x: Array, w: View) -> Array:
    """Compute the logits of a text's classes from its first token, by two linear layers: (B, L, H) -> (B, C)."""
    x = shared.classifier_dropout(first_token(x), w)
    x = activation(w.config.hidden_act)(linear(x, w["dense.weight"], w["dense.bias"]), name="activation")
    x = shared.classifier_dropout(x, w, name="dropout_2")
    logits: Array = linear(x, w["out_proj.weight"], w["out_proj.bias"])
    return logits


def convbert_text_classifier(x: Array, pooled: Array | None, w: View) -> Array:
    """Compute the logits of a text's classes from the last hidden states: (B, L, H) -> (B, C)."""
    logits: Array = classification_head(x, w.at("classifier"))
    return logits


@composite
def sequence_summary(x: Array, w: View) -> Array:
    """Summarise a text as ``summary_type`` says: (B, L, H) -> (B, H) (transformers SequenceSummary)."""
    config = w.config
    of_tokens = {"first": first_token, "mean": mean_of_tokens}.get(config.summary_type, last_token)
    x = dropout(of_tokens(x), rate=config.summary_first_dropout, name="first_dropout")
    if config.summary_use_proj:
        x = linear(x, w["summary.weight"], w["summary.bias"])
    if config.summary_activation is not None:
        x = activation(config.summary_activation)(x, name="activation")
    x = dropout(x, rate=config.summary_last_dropout, name="last_dropout")
    return x


def convbert_choice_scorer(x: Array, pooled: Array | None, w: View) -> Array:
    """Compute the logit of a choice from its summary: (B, L, H) -> (B, 1)."""
    x = sequence_summary(x, w.at("sequence_summary"))
    logits: Array = linear(x, w["classifier.weight"], w["classifier.bias"])
    return logits


# ------------------------------------------------------------------------------------------------------------- tensors


def convbert_embeddings(config: Any) -> Table:
    """List the tensors of ConvBERT's embeddings."""
    # In the reference's order: token, position, token type, norm, map.
    return {"embeddings.word_embeddings.weight": "V E", **shared.POSITIONS, **shared.embeddings(config)}


CONVBERT_ATTENTION = {
    **shared.ATTENTION,
    "self.key_conv_attn_layer.depthwise.weight": "H 1 k",
    "self.key_conv_attn_layer.pointwise.weight": "A H 1",
    "self.key_conv_attn_layer.bias": "A 1",
    **with_bias("self.conv_kernel_layer", "N*k", "A"),
    **with_bias("self.conv_out_layer", "A", "H"),
    **with_bias("output.dense", "H", "H"),
}


def convbert_feed_forward(config: Any) -> Table:
    """List the tensors of ConvBERT's feed-forward: with groups, a small (in, out) matrix for each."""
    if config.num_groups == 1:
        return shared.FEED_FORWARD
    groups = {"intermediate.dense.weight": "G H/G F/G", "output.dense.weight": "G F/G H/G"}
    return shared.FEED_FORWARD | groups


LANGUAGE_MODEL = {
    **with_bias("generator_predictions.dense", "E", "H"),
    **norm("generator_predictions.LayerNorm", "E"),
    **with_bias("generator_lm_head", "V", "E"),
}
TEXT_CLASSIFIER = {**with_bias("classifier.dense", "H", "H"), **with_bias("classifier.out_proj", "C", "H")}


def choice_tensors(config: Any) -> Table:
    """List the tensors of the summary, if it goes through a linear map, and of the classifier of choices."""
    summary = with_bias("sequence_summary.summary", "H", "H") if config.summary_use_proj else {}
    return summary | with_bias("classifier", "1", "H")


# ---------------------------------------------------------------------------------------------------------- the family

CONVBERT = Family(
    config=ConvBertConfig,
    title="ConvBERT",
    scores=shared.plain_scores,
    context=shared.plain_context,
    beside_heads=span_convolution,
    texts_apart=True,
    language_model=convbert_language_model,
    text_classifier=convbert_text_classifier,
    choice_scorer=convbert_choice_scorer,
    reads_padding=True,
    decodes=False,
    embeddings=convbert_embeddings,
    self_attention=CONVBERT_ATTENTION,
    feed_forward=convbert_feed_forward,
    pooler={},
    tasks={
        "forward": FamilyTask("ConvBertModel"),
        "masked_lm": FamilyTask("ConvBertForMaskedLM", LANGUAGE_MODEL),
        "sequence_classification": FamilyTask("ConvBertForSequenceClassification", TEXT_CLASSIFIER),
        "multiple_choice": FamilyTask("ConvBertForMultipleChoice", choice_tensors),
        "token_classification": FamilyTask("ConvBertForTokenClassification", shared.TOKEN_CLASSIFIER),
        "question_answering": FamilyTask("ConvBertForQuestionAnswering", shared.QUESTION_ANSWERING),
    },
    decoder="generator_lm_head.weight",
    prefixes=("convbert",),
    config_keys=("conv_kernel_size",),
    config_hint="together with its conv_kernel_size, head_ratio and embedding_size",
    recognised_by=("key_conv_attn_layer",),
    marks=(
        "position_embeddings",
        "embeddings_project",
        "key_conv_attn_layer",
        "conv_kernel_layer",
        "conv_out_layer",
    ),
)
