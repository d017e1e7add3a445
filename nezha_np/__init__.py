"""NEZHA, BERT and ConvBERT as explicit array functions: they take NumPy arrays and, unchanged, arrays on a GPU.

Examples
--------
>>> import nezha_np as nz
>>> weights, tokenizer = nz.load(), nz.load_tokenizer()
>>> batch = nz.encode(tokenizer, ["房间很干净。"])
>>> nz.forward(weights, **batch).last_hidden_state.shape
(1, 8, 256)
"""

import sys

# ``python -m nezha_np``: Python imports the package before its `__main__`, and Ctrl-C is to be answered all the while.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] in ("nezha_np", "-mnezha_np"):
    from nezha_np_command import answer_signals

    answer_signals()

import importlib
from typing import TYPE_CHECKING, Any

from nezha_np.families.bert import BertConfig
from nezha_np.families.config import Config
from nezha_np.families.convbert import ConvBertConfig
from nezha_np.families.nezha import NezhaConfig
from nezha_np.families.trained_head import HeadWarning
from nezha_np.layers.softmax import softmax
from nezha_np.mechanism import Trace, definitions, intervene, trace, value_and_grad
from nezha_np.model.generation import generate
from nezha_np.model.heads import (
    causal_lm,
    masked_lm,
    multiple_choice,
    next_sentence_prediction,
    pretraining,
    question_answering,
    sequence_classification,
    token_classification,
)
from nezha_np.model.model import forward
from nezha_np.model.outputs import (
    CausalLMOutput,
    HeadOutput,
    ModelOutput,
    PretrainingOutput,
    QuestionAnsweringOutput,
)
from nezha_np.weights.checkpoint import load
from nezha_np.weights.init import init
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:  # at run time `__getattr__` loads these
    from nezha_np import inside as inside
    from nezha_np import oracle as oracle
    from nezha_np.explanation.explain import explain
    from nezha_np.jobs.run_corpus import run_corpus
    from nezha_np.text.answer import Answer, answer
    from nezha_np.text.batch import Batch, DescribedBatch
    from nezha_np.text.choose import Choice, choose
    from nezha_np.text.classify import Label, classify
    from nezha_np.text.decode import batch_decode, decode
    from nezha_np.text.embed import embed
    from nezha_np.text.encode import encode
    from nezha_np.text.fill_mask import Filling, fill_mask
    from nezha_np.text.special_tokens import (
        build_inputs_with_special_tokens,
        create_token_type_ids_from_sequences,
        get_special_tokens_mask,
    )
    from nezha_np.text.tag import Entity, tag
    from nezha_np.text.tokenize import tokenize
    from nezha_np.text.tokenizer import load_tokenizer, save_vocabulary
    from nezha_np.text.zero_shot import classify_by_description

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Batch",
    "BertConfig",
    "CausalLMOutput",
    "Choice",
    "Config",
    "ConvBertConfig",
    "DescribedBatch",
    "Entity",
    "Filling",
    "HeadOutput",
    "HeadWarning",
    "Label",
    "ModelOutput",
    "NezhaConfig",
    "PretrainingOutput",
    "QuestionAnsweringOutput",
    "Trace",
    "Weights",
    "answer",
    "batch_decode",
    "build_inputs_with_special_tokens",
    "causal_lm",
    "choose",
    "classify",
    "classify_by_description",
    "create_token_type_ids_from_sequences",
    "decode",
    "definitions",
    "embed",
    "encode",
    "explain",
    "fill_mask",
    "forward",
    "generate",
    "get_special_tokens_mask",
    "init",
    "intervene",
    "load",
    "load_tokenizer",
    "masked_lm",
    "multiple_choice",
    "next_sentence_prediction",
    "pretraining",
    "question_answering",
    "run_corpus",
    "save_vocabulary",
    "sequence_classification",
    "softmax",
    "tag",
    "token_classification",
    "tokenize",
    "trace",
    "value_and_grad",
]


# Names of the rooms above `nezha_np.model`, which a forward pass does not need, and the module that each stands in.
LOADED_LATER = {
    "explain": "explanation.explain",
    "run_corpus": "jobs.run_corpus",
    "Answer": "text.answer",
    "answer": "text.answer",
    "Batch": "text.batch",
    "DescribedBatch": "text.batch",
    "Choice": "text.choose",
    "choose": "text.choose",
    "Label": "text.classify",
    "classify": "text.classify",
    "batch_decode": "text.decode",
    "decode": "text.decode",
    "embed": "text.embed",
    "encode": "text.encode",
    "Filling": "text.fill_mask",
    "fill_mask": "text.fill_mask",
    "build_inputs_with_special_tokens": "text.special_tokens",
    "create_token_type_ids_from_sequences": "text.special_tokens",
    "get_special_tokens_mask": "text.special_tokens",
    "Entity": "text.tag",
    "tag": "text.tag",
    "tokenize": "text.tokenize",
    "load_tokenizer": "text.tokenizer",
    "save_vocabulary": "text.tokenizer",
    "classify_by_description": "text.zero_shot",
}


def __getattr__(name: str) -> Any:
    """Load what `import nezha_np` leaves out, when it is first asked for."""
    if name in ("inside", "oracle"):
        return importlib.import_module(f"nezha_np.{name}")
    if name not in LOADED_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"nezha_np.{LOADED_LATER[name]}"), name)
    globals()[name] = value  # from now on without this function
    return value


def __dir__() -> list[str]:
    """List what is public: these names, and the rooms whose own `__all__` is (RELEASING.md)."""
    return sorted([*__all__, "__version__", "families", "inside", "mechanism", "oracle"])
