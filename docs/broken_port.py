"""A port of NEZHA to PyTorch, with two mistakes in it: the worked example of docs/oracle.md."""

import math
from functools import partial

import torch
from torch import nn

from nezha_np.oracle.alignment import check_rename, renamed

GELU = partial(nn.GELU, approximate="tanh")

OUR_NAMES = {
    "words": "embeddings.word_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "blocks.*": "encoder.layer.*",
    "blocks.*.attend": "encoder.layer.*.attention",
    "blocks.*.attend.q": "encoder.layer.*.attention.self.query",
    "blocks.*.attend.k": "encoder.layer.*.attention.self.key",
    "blocks.*.attend.v": "encoder.layer.*.attention.self.value",
    "blocks.*.attend.scores": "encoder.layer.*.attention.self.scores",
    "blocks.*.attend.probs": "encoder.layer.*.attention.self.probs",
    "blocks.*.attend.out": "encoder.layer.*.attention.output.dense",
    "blocks.*.attend.norm": "encoder.layer.*.attention.output.LayerNorm",
    "blocks.*.up": "encoder.layer.*.intermediate.dense",
    "blocks.*.gelu": "encoder.layer.*.intermediate.intermediate_act_fn",
    "blocks.*.down": "encoder.layer.*.output.dense",
    "blocks.*.norm": "encoder.layer.*.output.LayerNorm",
    "head": "cls.predictions.transform",
    "head.0": "cls.predictions.transform.dense",
    "head.1": "cls.predictions.transform.transform_act_fn",
    "head.2": "cls.predictions.transform.LayerNorm",
    "bias": "cls.predictions.bias",
}


def relative_positions(length, size, reach):
    """Return t_ij, (length, length, size)."""
    at = torch.arange(length)
    row = (at[:, None] - at[None, :]).clamp(-reach, reach) + reach
    angle = torch.arange(2 * reach + 1)[:, None] * 10000.0 ** (-torch.arange(0, size, 2).double() / size)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[row]


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.reach = c.num_attention_heads, c.max_relative_position
        self.q, self.k, self.v, self.out = (nn.Linear(c.hidden_size, c.hidden_size) for _ in range(4))
        self.norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.scores, self.probs = nn.Identity(), nn.Identity()  # what passes through them is recorded

    def forward(self, x, mask):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        t = relative_positions(x.shape[1], q.shape[-1], self.reach).to(x.dtype)
        scores = self.scores(q @ k.mT + torch.einsum("bnid,ijd->bnij", q, t))
        probs = self.probs((scores / math.sqrt(q.shape[-1]) + mask).softmax(-1))
        context = probs @ v + torch.einsum("bnij,ijd->bnid", probs, t)
        return self.norm(self.out(context.transpose(1, 2).flatten(2)) + x)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attend, self.norm = Attention(c), nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.up = nn.Linear(c.hidden_size, c.intermediate_size)
        self.down = nn.Linear(c.intermediate_size, c.hidden_size)
        self.gelu = GELU()

    def forward(self, x, mask):
        x = self.attend(x, mask)
        return self.norm(self.down(self.gelu(self.up(x))) + x)


class Nezha(nn.Module):
    def __init__(self, weights):
        super().__init__()
        c = weights.config
        self.words, self.types = nn.Embedding(c.vocab_size, c.hidden_size), nn.Embedding(2, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        linear, norm = nn.Linear(c.hidden_size, c.hidden_size), nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.head, self.bias = nn.Sequential(linear, GELU(), norm), nn.Parameter(torch.zeros(c.vocab_size))
        ours = check_rename(OUR_NAMES)
        self.load_state_dict({name: torch.tensor(weights[renamed(name, ours)]) for name in self.state_dict()})

    def forward(self, input_ids, token_type_ids, attention_mask, labels):
        x = self.norm(self.words(input_ids) + self.types(token_type_ids))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for block in self.blocks:
            x = block(x, mask)
        logits = self.head(x) @ self.words.weight.T + self.bias
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}
