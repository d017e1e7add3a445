"""The two tiers of the tests, and the settings that all tests share.

`pytest` runs the quick tier, the specification: what is marked `exhaustive` is left out, of a parametrised test marked
`one_in(n)` every n-th combination is run (with n prime to the lengths of its lists, not always with the same entry of
one of them), and property tests draw few examples. A run that includes what is marked (`pytest -m exhaustive`, or
`pytest -m ""` for everything) draws many, and there each property test counts as exhaustive too: `pytest` and
`pytest -m exhaustive` together run everything. `--hypothesis-profile=quick`, `exhaustive` or `few` chooses the number
by hand: few are for a Python that changes nothing of the numbers.
"""

import collections
import os

import pytest
from hypothesis import HealthCheck, settings
from tiers import EXAMPLES

# No deadline: the first example of a run imports PyTorch's kernels, and CI machines are noisy.
# On CI the same examples every time: a red run is one that the change made red.
for profile, examples in EXAMPLES.items():
    settings.register_profile(
        profile,
        deadline=None,
        max_examples=examples,
        derandomize=bool(os.environ.get("CI")),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the reference must not look for anything on a hub


def runs_exhaustive_tests(config):
    """Say whether the exhaustive tests are among those that are run."""
    return config.option.markexpr != "not exhaustive"


def pytest_configure(config):
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("exhaustive" if runs_exhaustive_tests(config) else "quick")


@pytest.hookimpl(tryfirst=True)  # before what is marked is left out
def pytest_collection_modifyitems(config, items):
    seen = collections.Counter()
    for item in items:
        one_in = item.get_closest_marker("one_in")
        if one_in is not None:
            test = item.nodeid.partition("[")[0]
            if seen[test] % one_in.args[0]:
                item.add_marker(pytest.mark.exhaustive)
            seen[test] += 1
        if runs_exhaustive_tests(config) and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.exhaustive)
