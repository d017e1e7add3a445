"""The page of the package on an index: README.md, whose links lead to the repository, because its files are not there.

Hatchling runs this while it builds (`[tool.hatch.metadata.hooks.custom]` in pyproject.toml). The address is `Source` of
`[project.urls]`; as long as there is none, the links stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # where nothing is built
    MetadataHookInterface = object

LINK = re.compile(r"(?P<image>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def absolute_links(text: str, source: str, revision: str) -> str:
    """Make the relative links and pictures of a Markdown text absolute."""

    def absolute(match: re.Match[str]) -> str:
        if re.match(r"\w+:|#", match["target"]):
            return match[0]
        kind = "raw" if match["image"] else "blob"  # of a page the text, of a picture the file itself
        return f"{match['image']}[{match['words']}]({source.rstrip('/')}/{kind}/{revision}/{match['target']})"

    parts = re.split(r"^(```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(absolute, part) for part in parts)


class ReadmeHook(MetadataHookInterface):
    """Makes the field `readme` of the package."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        text = (root / "README.md").read_text(encoding="utf-8")
        version = re.search(r'^__version__ = "(.*)"', (root / "nezha_np" / "__init__.py").read_text("utf-8"), re.M)[1]
        if source := metadata.get("urls", {}).get("Source"):
            text = absolute_links(text, source, f"v{version}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
