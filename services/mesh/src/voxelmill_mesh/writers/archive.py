"""One zip of all mesh files, the same bytes for the same files.

The standard library's zipfile packs with zlib alone, five times as slowly as ISA-L, and of the two mesh files must not
wait for a zip; so the container is written here (PKWARE, APPNOTE.TXT 6.3.10, 4.3 and 4.5.3).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path
    from typing import BinaryIO

_LEVEL = 1
_CHUNK = 1 << 20
_DATE, _TIME = 1 << 5 | 1, 0
"""1980-01-01 00:00, the earliest time that a zip can hold: the real one would make each archive another."""

_UNIX = 3
_READABLE = 0o100644 << 16
_VERSION, _WIDE_VERSION = 20, 45
_STORED, _DEFLATED = 0, 8
_NAMES_ARE_UTF8 = 1 << 11
_WIDE = 0xFFFFFFFF
"""In a field of four bytes: the value stands in the ZIP64 field."""

_LOCAL, _CENTRAL, _END, _WIDE_END, _WIDE_PLACE = 0x04034B50, 0x02014B50, 0x06054B50, 0x06064B50, 0x07064B50


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file in the archive: where it begins, its length, its length there."""

    name: bytes
    method: int
    checksum: int
    size: int
    packed: int
    place: int

    def local(self, *, wide: bool) -> bytes:
        sizes = (_WIDE, _WIDE) if wide else (self.packed, self.size)
        extra = struct.pack("<HHQQ", 1, 16, self.size, self.packed) if wide else b""
        version = _WIDE_VERSION if wide else _VERSION
        fixed = (_LOCAL, version, _NAMES_ARE_UTF8, self.method, _TIME, _DATE, self.checksum, *sizes)
        return struct.pack("<IHHHHHIIIHH", *fixed, len(self.name), len(extra)) + self.name + extra

    def central(self, limit: int) -> bytes:
        values = (self.size, self.packed, self.place)
        large = [value for value in values if value >= limit]
        size, packed, place = (_WIDE if value >= limit else value for value in values)
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = _WIDE_VERSION if large else _VERSION
        fixed = (_CENTRAL, _UNIX << 8 | version, version, _NAMES_ARE_UTF8, self.method, _TIME, _DATE)
        lengths = (self.checksum, packed, size, len(self.name), len(extra), 0, 0, 0, _READABLE, place)
        return struct.pack("<IHHHHHHIIIHHHHHII", *fixed, *lengths) + self.name + extra


def _add(archive: BinaryIO, source: Path, *, deflate: bool, wide: bool) -> _Entry:
    place = archive.tell()
    method = _DEFLATED if deflate else _STORED
    name = source.name.encode()
    archive.write(_Entry(name, method, 0, 0, 0, place).local(wide=wide))
    packer = isal_zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    begin = archive.tell()
    size = checksum = 0
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            checksum = isal_zlib.crc32(chunk, checksum)
            archive.write(packer.compress(chunk) if deflate else chunk)
    if deflate:
        archive.write(packer.flush())
    end = archive.tell()
    entry = _Entry(name, method, checksum, size, end - begin, place)
    archive.seek(place)
    archive.write(entry.local(wide=wide))
    archive.seek(end)
    return entry


def write_zip(files: Iterable[Path], path: Path, packed: Collection[str] = (), wide_from: int = _WIDE) -> None:
    """Write files into a zip, sorted by name, without folders.

    Parameters
    ----------
    packed
        Names of files that are stored as they are, since packing them again gains nothing.
    wide_from
        The length and the place from which ZIP64 fields are used: the format's own limit.
    """
    with path.open("w+b") as archive:
        entries = []
        for file in sorted(files, key=lambda file: file.name):
            # Deflate never adds more than a thousandth, so this tells before packing whether four bytes will hold it.
            wide = file.stat().st_size >= wide_from - wide_from // 1000
            entries.append(_add(archive, file, deflate=file.name not in packed, wide=wide))
        place = archive.tell()
        for entry in entries:
            archive.write(entry.central(wide_from))
        end = archive.tell()
        count, length = len(entries), end - place
        if max(place, length) >= wide_from or count >= 0xFFFF:
            version = (_UNIX << 8 | _WIDE_VERSION, _WIDE_VERSION)
            archive.write(struct.pack("<IQHHIIQQQQ", _WIDE_END, 44, *version, 0, 0, count, count, length, place))
            archive.write(struct.pack("<IIQI", _WIDE_PLACE, 0, end, 1))
            count, length, place = min(count, 0xFFFF), min(length, _WIDE), _WIDE
        archive.write(struct.pack("<IHHHHIIH", _END, 0, 0, count, count, length, place, 0))
