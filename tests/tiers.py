"""How many examples a property test draws in each of the two tiers, which `conftest.py` describes, and in few."""

from hypothesis import settings

EXAMPLES = {"few": 2, "quick": 8, "exhaustive": 40}


def examples(number: int, quick: int | None = None) -> settings:
    """Draw this number of examples.

    In the quick tier it is `quick`, by default what the profile says, or a tenth where many are cheap. The profile with
    few examples draws that few of all.
    """
    if settings.default.max_examples <= EXAMPLES["few"]:
        return settings(max_examples=min(number, EXAMPLES["few"]))
    if settings.default.max_examples <= EXAMPLES["quick"]:
        number = min(number, quick or max(EXAMPLES["quick"], number // 10))
    return settings(max_examples=number)
