"""The disk space of an installed package with all packages that it requires."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def our_requirements() -> list[str]:
    """List what nezha_np requires, itself first; read from the repository, as it may not be installed."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [project["name"], *project["dependencies"]]


def installed_sizes(requirements: list[str]) -> dict[str, float]:
    """Return the size in MB of each package, with the requirements of requirements and without extras.

    Requirements that are not installed are not counted, nor are compiled .pyc files, which not all installers make.
    """
    from packaging.requirements import Requirement  # huggingface-hub requires it, and both packages require that

    ours = normal(our_requirements()[0])
    sizes: dict[str, float] = {}
    waiting = list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = normal(requirement.name)
        if name in sizes or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        if name == ours:
            sizes[name] = total_mb((REPOSITORY / "nezha_np").rglob("*"))
        elif distribution := installed(name):
            sizes[name] = total_mb(Path(distribution.locate_file(file)) for file in distribution.files or ())
            waiting += distribution.requires or []
    return sizes


def installed(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def normal(name: str) -> str:
    """Return a name in the form in which packages are compared: "Typing_Extensions" is "typing-extensions"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def total_mb(files: Iterable[Path]) -> float:
    return sum(file.stat().st_size for file in files if file.is_file() and "__pycache__" not in file.parts) / 1e6
