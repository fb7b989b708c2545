"""Projects (tenants): whose an object is. Its key says so, and one function reads it.

`projects/{project}/…` in the inbox and in the work store belongs to that project, any other key to `default`. Results
lie under the Series Instance UID; a series belongs to one project, which the catalog's rows name.
"""

from __future__ import annotations

import re
from typing import Final

DEFAULT_PROJECT: Final = "default"
"""Whose everything is that names no project."""
_FOLDER: Final = "projects/"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def is_project(name: str) -> bool:
    """Whether a text can name a project: 1 to 63 of `a-z`, `0-9` and `-`, no `-` at either end (RFC 1123, a label)."""
    return _NAME.fullmatch(name) is not None


def project_of(key: str) -> str:
    """Return the project that an object belongs to, by its key in its bucket (not its address).

    A key whose second part can name no project, or that has nothing after it, belongs to `default`.
    """
    if not key.startswith(_FOLDER):
        return DEFAULT_PROJECT
    name, slash, rest = key.removeprefix(_FOLDER).partition("/")
    return name if slash and rest and is_project(name) else DEFAULT_PROJECT


def project_prefix(project: str) -> str:
    """Return what the keys of a project's new objects begin with: `projects/x/`, nothing for `default`.

    Raises
    ------
    ValueError
        If the text can name no project.
    """
    if not is_project(project):
        raise ValueError("a project's name is 1 to 63 of a-z, 0-9 and -, with no - at either end")
    return "" if project == DEFAULT_PROJECT else f"{_FOLDER}{project}/"
