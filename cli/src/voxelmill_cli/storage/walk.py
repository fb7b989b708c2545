"""What a folder holds, without reading any of it: hashing everything first would keep a large upload waiting."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voxelmill_shared.storage.local import ALWAYS_HIDDEN

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Item:
    """Something to bring over: its key, its size in bytes, and its ETag where that is known without reading it."""

    key: str
    size: int
    etag: str = ""


@dataclass(slots=True)
class Walked:
    """What was found, sorted; and what could not be looked into: a key and a reason."""

    items: list[Item] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def walk(root: Path) -> Walked:
    """List the files under a folder, and everything else that the user may take for one.

    Pipes, devices and links that lead out are listed too: whoever reads them is told what is wrong. A link to a folder
    inside is left out, for what that holds is listed where it lies.

    Parameters
    ----------
    root
        The folder, with symbolic links resolved.
    """
    found = Walked()
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name in ALWAYS_HIDDEN:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(key)
                    else:
                        _look(root, key, entry, found)
        except OSError as error:
            found.failed.append((f"{folder}/", f"{error.strerror}; make it readable for this user"))
    found.items.sort(key=lambda item: item.key)
    return found


def _look(root: Path, key: str, entry: os.DirEntry[str], found: Walked) -> None:
    try:
        size = entry.stat().st_size
        inside = not entry.is_symlink() or (root / key).resolve().is_relative_to(root)
        if inside and entry.is_dir():
            return
    except FileNotFoundError:
        if entry.is_symlink():
            found.failed.append((key, "a symbolic link that leads nowhere; mend or remove it"))
        return  # a file that has gone while we looked
    except (OSError, RuntimeError):  # links in a circle, a folder on the way that may not be entered
        size = 0
    found.items.append(Item(key, size))
