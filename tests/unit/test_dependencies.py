"""Each member declares what it imports, and nothing else: it can be installed alone."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEMBERS = sorted(path.parent for path in (*ROOT.glob("*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")))
IMPORT_NAMES = {
    "grpcio": "grpc",
    "pillow": "PIL",
    "protobuf": "google",
    "pyjwt": "jwt",
    "connected-components-3d": "cc3d",
    "pylibjpeg-rle": "rle",
    "TotalSegmentator": "totalsegmentator",
}
DRIVERS = {"asyncpg"}
"""Imported by a library at run time, chosen by a URL."""


def declared(member: Path) -> set[str]:
    """The import names of a member's dependencies, those of its extras included."""
    project = tomllib.loads((member / "pyproject.toml").read_text())["project"]
    extras = [name for names in project.get("optional-dependencies", {}).values() for name in names]
    names = set()
    for requirement in (*project["dependencies"], *extras):
        name = requirement.replace("[", " ").replace(">", " ").replace("=", " ").replace("<", " ").split()[0]
        names.add(IMPORT_NAMES.get(name, name.replace("-", "_")))
    return names


def imported(member: Path) -> set[str]:
    """The top-level modules that a member's source imports."""
    found: set[str] = set()
    for path in (member / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"_typeshed"}  # the type checker's own


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_what_is_imported_is_declared(member):
    """No member leans on what another one happens to bring."""
    own = next((member / "src").iterdir()).name
    assert imported(member) - declared(member) - {own} == set()


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_what_is_declared_is_imported(member):
    """No member brings what it does not use."""
    assert declared(member) - imported(member) - DRIVERS - {"voxelmill_shared"} == set()


def test_there_are_eight_members():
    """The two tests above looked at all of them."""
    assert len(MEMBERS) == 8
