"""How the objects of an upload are named: by the upload and a number, never by what a client calls its files."""

from __future__ import annotations

import re
import secrets
from typing import Final

from voxelmill_shared.projects import project_prefix

SUFFIXES: Final = (".dcm", ".nii.gz", ".nii", ".zip")
"""What a key may end with; else it ends with the number."""
_KEY: Final = re.compile(r"(?:projects/[^/]+/)?uploads/([0-9a-f]{32})/[0-9]{6}(?:\.dcm|\.nii\.gz|\.nii|\.zip)?")


def new_upload_id() -> str:
    """Return the id of a new upload: 128 random bits, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def upload_prefix(project: str, upload_id: str) -> str:
    """Return what the keys of an upload's objects begin with, `[projects/{project}/]uploads/{upload_id}/`.

    Raises
    ------
    ValueError
        If the text can name no project.
    """
    return f"{project_prefix(project)}uploads/{upload_id}/"


def upload_key(project: str, upload_id: str, number: int, suffix: str = "") -> str:
    """Return the key of an upload's object.

    Parameters
    ----------
    project, upload_id
        Whose it is, and what it came with.
    number
        Of the file in the upload, from 0.
    suffix
        One of `SUFFIXES`, or nothing.

    Raises
    ------
    ValueError
        If one of them can stand in no key.
    """
    if suffix and suffix not in SUFFIXES:
        raise ValueError(f"a key ends with one of {', '.join(SUFFIXES)}, or with its number")
    key = f"{upload_prefix(project, upload_id)}{number:06d}{suffix}"
    if _KEY.fullmatch(key) is None:
        raise ValueError("an upload's id is 32 hexadecimal digits, and its files have numbers of 6 digits")
    return key


def upload_of(key: str) -> str | None:
    """Return the id of the upload that an object came with, by its key in its bucket; None: it came in another way.

    So whoever finds an object before its upload is complete (a notification, the reconciler) knows that more may come.
    """
    found = _KEY.fullmatch(key)
    return found[1] if found else None
