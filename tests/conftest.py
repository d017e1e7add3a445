"""Settings that all tests share."""

import os

from hypothesis import HealthCheck, settings

# No deadline: the first example of a run imports PyTorch's kernels, and CI machines are noisy.
# On CI the same examples every time: a red run is one that the change made red.
settings.register_profile(
    "nezha_np",
    deadline=None,
    max_examples=60,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("nezha_np")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the reference must not look for anything on a hub
