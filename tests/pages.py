"""Run the examples of the documentation."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"


def run_examples(page: str, section: str) -> dict[str, Any]:
    """Run the Python blocks of a section of a page, one after the other, and return the names they leave."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```python\n(.*?)^```", body, flags=re.MULTILINE | re.DOTALL)
    assert blocks, f"{page}: no Python in {section}"
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, f"{page}, {section}", "exec"), names)
    return names
