"""What type checkers must accept, and what they must refuse: `.ci/run readme-types` checks this file, nothing runs it.

A line that must be refused says so in a comment; a checker that does not refuse it finds the comment unnecessary.
"""

from typing import assert_type

import nezha_np as nz

weights, tokenizer = nz.load(), nz.load_tokenizer()

# The result of `encode` goes into a model and into heads.
batch = nz.encode(tokenizer, ["房间很干净。"], max_length=8, padding="max_length", padding_side="left")
assert_type(batch, nz.Batch)
assert_type(nz.forward(weights, **batch), nz.ModelOutput)
assert_type(nz.masked_lm(weights, **batch, labels=batch["input_ids"]), nz.HeadOutput)
print(batch["offset_mapping"])  # type: ignore[typeddict-item] # pyright: ignore
nz.encode(tokenizer, "房间", padding="longer")  # type: ignore[call-overload] # pyright: ignore
nz.encode(tokenizer, "房间", max_len=8)  # type: ignore[call-overload] # pyright: ignore

# What was asked for besides has a type too.
described = nz.encode(tokenizer, [["房间", "好"]], is_split_into_words=True, return_offsets_mapping=True)
assert_type(described, nz.DescribedBatch)
offsets = described.pop("offset_mapping")
print(offsets.shape, described["input_ids"].shape)

# A head with its gradients takes what the head takes.
result, gradients = nz.value_and_grad(nz.masked_lm, dropout_seed=3)(weights, **batch, labels=batch["input_ids"])
assert_type(result, nz.HeadOutput)
print(gradients["encoder.layer.0.output.dense.bias"].shape)
nz.value_and_grad(nz.masked_lm)(weights, label=batch["input_ids"])  # type: ignore[call-arg] # pyright: ignore
nz.value_and_grad(nz.forward)(weights, **batch)  # type: ignore[type-var] # pyright: ignore

# Results are unpacked, and have their fields.
loss, logits = result
first = result[0]
print(loss.shape, logits.shape, first.shape, result.logits.shape)
print(result.logit)  # type: ignore[attr-defined] # pyright: ignore
