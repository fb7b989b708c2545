"""One zip of all mesh files, the same bytes for the same files."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold: the real one would make each archive another."""

_UNIX = 3
_READABLE = 0o100644 << 16


def write_zip(files: Iterable[Path], path: Path) -> None:
    """Write files into a zip, stored (packing takes longer than making them), sorted by name, without folders."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(files, key=lambda file: file.name):
            entry = zipfile.ZipInfo(file.name, _EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = _READABLE
            entry.file_size = file.stat().st_size  # so that a file above 2 GiB gets its ZIP64 fields
            with file.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
