"""How many examples a property test draws in each of the two tiers, which `conftest.py` describes."""

from hypothesis import settings

EXAMPLES = {"quick": 8, "exhaustive": 60}


def examples(number: int, quick: int | None = None) -> settings:
    """Draw this number of examples.

    In the quick tier it is `quick`, by default what the profile says, or a tenth where many are cheap.
    """
    if settings.default.max_examples <= EXAMPLES["quick"]:
        number = min(number, quick or max(EXAMPLES["quick"], number // 10))
    return settings(max_examples=number)
