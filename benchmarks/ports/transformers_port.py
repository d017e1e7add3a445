"""transformers, PyTorch: `pip install '.[benchmarks]'`."""

from __future__ import annotations

import tempfile

import transformers

import nezha_np as nz
from nezha_np.families.family import family_of

PACKAGES, NAMES, TRANSPOSED = ("transformers", "torch"), "transformers", True
BUNDLES = (
    "nezha-pretraining", "nezha-masked_lm-holes", "nezha-forward-long", "nezha-question_answering",
    "nezha-multiple_choice", "bert-pretraining", "bert-forward-relative_key", "bert-forward-relative_key_query",
    "bert-masked_lm-head_mask", "convbert-masked_lm", "convbert-masked_lm-groups",
)  # fmt: skip


def load(bundle):
    """Give the class of the bundle's head the bundle's weights, in float32."""
    reference = getattr(transformers, family_of(bundle.config).tasks[bundle.head].reference)
    with tempfile.TemporaryDirectory() as folder:
        bundle.weights().to(dtype="float32").save(folder)
        return reference.from_pretrained(folder).eval()


def run(bundle):
    return nz.oracle.capture_torch(load(bundle), given=True, gradients=bool(bundle.gradients), **bundle.inputs)
