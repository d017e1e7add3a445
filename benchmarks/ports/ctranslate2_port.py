"""CTranslate2, with a model of transformers converted: `pip install ctranslate2==4.8.5 transformers torch==2.13.0`.

Its converter calls transformers with arguments that the version of the extra [benchmarks] does not have."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ctranslate2
import numpy as np

PACKAGES, NAMES = ("ctranslate2", "transformers", "torch"), "ctranslate2"
BUNDLES = ("bert-forward", "bert-forward-pairs")


def run(bundle):
    inputs = bundle.inputs
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, converted = Path(folder) / "model", Path(folder) / "converted"
        bundle.weights().to(dtype="float32").save(checkpoint)
        words = [f"[{index}]" for index in range(bundle.config.vocab_size)]  # of a tokenizer it needs the words alone
        for index, name in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")):
            words[index] = name
        (checkpoint / "vocab.txt").write_text("\n".join(words))
        ctranslate2.converters.TransformersConverter(str(checkpoint)).convert(str(converted))
        encoder = ctranslate2.Encoder(str(converted), device="cpu", compute_type="float32", intra_threads=1)
        mask = inputs.get("attention_mask", np.ones_like(inputs["input_ids"]))
        lengths = mask.sum(axis=-1)
        assert (np.sort(mask, axis=-1)[:, ::-1] == mask).all(), "it takes lengths, and no mask with holes"
        rows = [row[:length].tolist() for row, length in zip(inputs["input_ids"], lengths, strict=True)]
        types = inputs.get("token_type_ids", np.zeros_like(inputs["input_ids"]))
        of_types = [row[:length].tolist() for row, length in zip(types, lengths, strict=True)]
        out = encoder.forward_batch(rows, token_type_ids=of_types)
        found = {"last_hidden_state": np.array(out.last_hidden_state)}
        if out.pooler_output is not None:
            found["pooler_output"] = np.array(out.pooler_output)
        return found
