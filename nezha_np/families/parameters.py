"""The names and shapes of a model's tensors, which loading, drawing, saving and inspecting all read.

The tables, which differ from family to family, stand in the families' files; here they become numbers.
"""

from __future__ import annotations

import math

from nezha_np.families import shared
from nezha_np.families.config import Config
from nezha_np.families.family import FAMILIES, Table, family_of, table_of

Shapes = dict[str, tuple[int, ...]]


def backbone_shapes(config: Config) -> Shapes:
    """Return the name and the shape of every tensor of embeddings and encoder.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> shapes = backbone_shapes(NezhaConfig())
    >>> shapes["encoder.layer.11.intermediate.dense.weight"]
    (3072, 768)
    """
    shapes = embeddings_shapes(config)
    for index in range(config.num_hidden_layers):
        shapes |= layer_shapes(config, index)
    return shapes


def embeddings_shapes(config: Config) -> Shapes:
    """Return the name and the shape of every tensor of the embeddings.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> embeddings_shapes(NezhaConfig())["embeddings.word_embeddings.weight"]
    (21128, 768)
    """
    return _shapes(config, table_of(family_of(config).embeddings, config))


def layer_shapes(config: Config, index: int) -> Shapes:
    """Return the name and the shape of every tensor of one layer of the encoder.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> layer_shapes(NezhaConfig(), 11)["encoder.layer.11.attention.self.query.bias"]
    (768,)
    """
    family, layer = family_of(config), f"encoder.layer.{index}."
    own = table_of(family.self_attention, config)
    shapes = _shapes(config, own, heads=config.heads(index), prefix=layer + "attention.")
    if config.add_cross_attention:  # whose heads are never pruned
        shapes |= _shapes(config, shared.ATTENTION, prefix=layer + "crossattention.")
    return shapes | _shapes(config, table_of(family.feed_forward, config), prefix=layer)


def pooler_shapes(config: Config) -> Shapes:
    """Return the name and the shape of the pooler's tensors.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> pooler_shapes(NezhaConfig())
    {'pooler.dense.weight': (768, 768), 'pooler.dense.bias': (768,)}
    """
    return _shapes(config, family_of(config).pooler)


def every_task() -> tuple[str, ...]:
    """List the tasks that some family has.

    Examples
    --------
    >>> every_task()[:2]
    ('pretraining', 'masked_lm')
    """
    names = (name for family in FAMILIES.values() for name in family.tasks if name != "forward")
    return tuple(dict.fromkeys(names))


def tasks_of(config: Config) -> tuple[str, ...]:
    """List the tasks that a family has.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> len(tasks_of(NezhaConfig()))
    8
    """
    return tuple(name for name in family_of(config).tasks if name != "forward")


def task_shapes(config: Config, task: str) -> Shapes:
    """Return the name and the shape of every tensor that a task needs besides embeddings and encoder.

    Raises
    ------
    ValueError
        If the family does not have the task.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> task_shapes(NezhaConfig(num_labels=3), "token_classification")
    {'classifier.weight': (3, 768), 'classifier.bias': (3,)}
    """
    family, known = family_of(config), tasks_of(config)
    if task not in known:
        raise ValueError(f"{task}: expected a model with this head, got {family.title}, which has {', '.join(known)}")
    table, second = table_of(family.tasks[task].tensors, config), aliases(config)
    return _shapes(config, {name: letters for name, letters in table.items() if name not in second})


def pretraining_shapes(config: Config) -> Shapes:
    """Return the name and the shape of every tensor that a model is pretrained with: backbone, pooler and task heads.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> len(pretraining_shapes(NezhaConfig(num_hidden_layers=1)))
    29
    """
    task = pretraining_task(config)
    return backbone_shapes(config) | ({} if task == "forward" else task_shapes(config, task))


def pretraining_task(config: Config) -> str:
    """Name the task that a family is pretrained by; "forward" where it has neither of the two.

    Examples
    --------
    >>> from nezha_np.families.convbert import ConvBertConfig
    >>> pretraining_task(ConvBertConfig())
    'masked_lm'
    """
    return next((task for task in ("pretraining", "masked_lm") if task in tasks_of(config)), "forward")


def sized_by_vocabulary(config: Config) -> tuple[str, ...]:
    """List the tensors that have a row, or a number, for each word piece.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> sized_by_vocabulary(NezhaConfig())
    ('embeddings.word_embeddings.weight', 'cls.predictions.decoder.weight', 'cls.predictions.bias')
    """
    family = family_of(config)
    tables = [table_of(one, config) for one in (family.embeddings, *(task.tensors for task in family.tasks.values()))]
    return tuple(dict.fromkeys(name for table in tables for name, letters in table.items() if letters[0] == "V"))


def _shapes(config: Config, table: Table, *, heads: int | None = None, prefix: str = "") -> Shapes:
    count = config.attention_heads if heads is None else heads
    size = config.dimensions | {"N": count, "A": count * config.head_size}

    def axis(letters: str) -> int:
        over, _, under = letters.partition("/")
        return math.prod(size[one] if one in size else int(one) for one in over.split("*")) // size.get(under, 1)

    return {prefix + name: tuple(map(axis, letters.split())) for name, letters in table.items()}


def aliases(config: Config) -> dict[str, str]:
    """Return the second names of tensors: a tied decoder's matrix, and its bias, which is one tensor in any model.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> aliases(NezhaConfig())["cls.predictions.decoder.weight"]
    'embeddings.word_embeddings.weight'
    """
    family = family_of(config)
    tied = {family.decoder: "embeddings.word_embeddings.weight"} if config.tie_word_embeddings else {}
    return family.second_names | tied
