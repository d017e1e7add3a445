"""Settings that all tests share."""

import os

from hypothesis import HealthCheck, settings

# No deadline: the first example of a run imports PyTorch's kernels, and CI machines are noisy.
settings.register_profile(
    "default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors]
)
settings.load_profile("default")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the reference must not look for anything on a hub
