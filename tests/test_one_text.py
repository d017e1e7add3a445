"""The doctor tries a mistake on one text of a batch first: only where the other texts change nothing of its numbers."""

import contextlib

import numpy as np
import pytest
from test_doctor import bundle_of

from nezha_np.oracle.mistakes import MISTAKES
from nezha_np.oracle.replay import CANNOT, replay

BY_TOKEN = 3  # how many axes (B, L, H) has
BUNDLES = ["nezha-masked_lm-holes", "nezha-forward-pairs", "bert-forward-relative_key", "convbert-forward"]


def last_step(bundle):
    """The last step that has numbers for each token of each text."""
    return [name for name, array in bundle.trace.items() if array.ndim == BY_TOKEN][-1]


def of_one_text(inputs, text):
    return {
        name: value[text : text + 1] if isinstance(value, np.ndarray) and name != "head_mask" else value
        for name, value in inputs.items()
    }


def depends_on_other_texts(bundle, weights, rights, changes):
    """Whether some text has other numbers by itself than in the batch, with a mistake."""
    target = last_step(bundle)

    def made(right):
        with contextlib.suppress(*CANNOT):
            return replay(bundle, weights, right.inputs, {}, changes=changes, right=right, target=target).made[target]
        return None

    of_all, *of_each = map(made, rights)
    if of_all is None:  # it cannot be made
        return False
    alone = [np.full_like(of_all[:1], np.nan) if array is None else array for array in of_each]
    return not np.allclose(of_all, np.concatenate(alone), rtol=1e-7, atol=1e-9, equal_nan=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", BUNDLES)
def test_mistakes_that_act_text_by_text_make_of_a_text_alone_what_they_make_of_it_in_the_batch(name):
    bundle = bundle_of(name)
    weights, target, texts = bundle.weights(), last_step(bundle), len(bundle.inputs["input_ids"])
    inputs = [bundle.inputs, *(of_one_text(bundle.inputs, text) for text in range(texts))]
    rights = [replay(bundle, weights, own, {}, target=target) for own in inputs]
    assert texts > 1
    wrong = [
        f"{mistake.name}, {way}"
        for mistake in MISTAKES
        if bundle.config.model_type in mistake.families
        for way in mistake.ways
        if mistake.acts_text_by_text(way, mistake.ways[way])
        if depends_on_other_texts(bundle, weights, rights, mistake.ways[way])
    ]
    assert not wrong
