"""Which head a model was trained with: ``architectures`` of its configuration names the reference's class.

Several heads have tensors of the same names: classifiers of texts, of tokens and of choices are all called
``classifier.weight`` and ``classifier.bias``. A checkpoint of one of them is complete for the others too, and what they
compute with it means nothing. So a call of another head on the same tensors warns, where the configuration says which
head was trained.
"""

from __future__ import annotations

import sys

from nezha_np.checks import listed
from nezha_np.families.config import Config
from nezha_np.families.family import family_of, table_of

# Tasks that compute the same with the tensors which they share: one may be trained and another one called.
SAME_FUNCTION = (
    frozenset({"pretraining", "masked_lm", "causal_lm"}),
    frozenset({"pretraining", "next_sentence_prediction"}),
)


class HeadWarning(UserWarning):
    """A head was not trained: `load` has drawn it, or its tensors were trained as those of another head.

    Examples
    --------
    >>> import warnings
    >>> import nezha_np as nz
    >>> config = nz.NezhaConfig(vocab_size=10, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    >>> weights = nz.init(config, head="sequence_classification")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     out = nz.token_classification(weights, [[2, 4, 3]])
    >>> caught[0].category is nz.HeadWarning
    True
    """


def tasks_of_class(config: Config, name: str) -> tuple[str, ...]:
    """List the tasks of a class of the reference, by the end of its name: ``ForMaskedLM`` stands in many libraries.

    Parameters
    ----------
    config : Config
        The configuration, which says what the family is.
    name : str
        The name of the class.

    Returns
    -------
    tuple of str
        The tasks; none for a class that is not known.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> tasks_of_class(NezhaConfig(), "BertForMaskedLM"), tasks_of_class(NezhaConfig(), "MyModule")
    (('masked_lm', 'causal_lm'), ())
    """
    tasks = family_of(config).tasks
    start = tasks["forward"].reference.removesuffix("Model")
    ends = {task: one.reference.removeprefix(start) or one.reference for task, one in tasks.items()}
    fitting = [end for end in ends.values() if name.endswith(end)]
    return tuple(task for task, end in ends.items() if end == max(fitting, key=len, default=None))


def trained_as_another(config: Config, task: str) -> str:
    """Say as what the tensors of a head were trained, where that is another head.

    Parameters
    ----------
    config : Config
        The configuration, whose ``architectures`` tell it.
    task : str
        The task whose head is called.

    Returns
    -------
    str
        The classes and the tensors, for a message; empty where they were trained for this head, for one that computes
        the same with them, or where the configuration does not say.

    Examples
    --------
    >>> from nezha_np.families.bert import BertConfig
    >>> config = BertConfig(architectures=("BertForSequenceClassification",))
    >>> trained_as_another(config, "token_classification")
    'classifier.weight, classifier.bias were trained for sequence_classification (BertForSequenceClassification)'
    >>> trained_as_another(config, "sequence_classification")
    ''
    """
    family = family_of(config)
    trained = {one: name for name in config.architectures or () for one in tasks_of_class(config, name)}
    if task in trained or any({task, one} <= group for one in trained for group in SAME_FUNCTION):
        return ""
    own = table_of(family.tasks[task].tensors, config).keys() - family.pooler.keys()
    for one, name in trained.items():
        shared = [tensor for tensor in table_of(family.tasks[one].tensors, config) if tensor in own]
        if shared:
            return f"{listed(shared)} were trained for {one} ({name})"
    return ""


def advice(task: str, trained: str) -> str:
    """Make the text of a `HeadWarning`.

    Examples
    --------
    >>> advice("token_classification", "classifier.weight was trained for multiple_choice (BertForMultipleChoice)")[:62]
    'token_classification: classifier.weight was trained for multip'
    """
    return (
        f"{task}: {trained}, as architectures of the configuration says: what this head computes with them means "
        "nothing. To train it from them, pass config=weights.config.replace(architectures=None)"
    )


def frames_of_the_package() -> int:
    """Count the frames from the caller to the first one outside of this package: the ``stacklevel`` of a warning.

    Examples
    --------
    >>> frames_of_the_package() >= 1
    True
    """
    frame, count = sys._getframe(1), 1
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, count = frame.f_back, count + 1
    return count
