"""DICOM files with any bytes in any place, written without a library that would mend them."""

from __future__ import annotations

import gzip
import struct
import zipfile
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CT = "1.2.840.10008.5.1.4.1.1.2"
SURNAME = "Zzyxwicz"
"""No program, dictionary or digest writes it by chance."""
LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
"""Value Representations with a length of four bytes (PS3.5 7.1.2)."""


def explicit(tag: int, vr: str, value: bytes) -> bytes:
    """Encode one element, whatever it is."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    value += bytes(len(value) % 2)
    return head + (struct.pack("<2xI", len(value)) if vr in LONG else struct.pack("<H", len(value))) + value


def item(*elements: bytes) -> bytes:
    """Encode a sequence's value with one item."""
    body = b"".join(elements)
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(body)) + body


IMAGE: dict[int, tuple[str, bytes]] = {
    0x00080016: ("UI", CT.encode()),
    0x00080018: ("UI", b"1.2.3.4"),
    0x00080060: ("CS", b"CT"),
    0x00100010: ("PN", f"{SURNAME}^Jane".encode()),
    0x00100020: ("LO", b"4711-0815"),
    0x0020000D: ("UI", b"1.2.3.1"),
    0x0020000E: ("UI", b"1.2.3.2"),
    0x00280002: ("US", b"\1\0"),
    0x00280004: ("CS", b"MONOCHROME2"),
    0x00280010: ("US", b"\4\0"),
    0x00280011: ("US", b"\4\0"),
    0x00280100: ("US", b"\x10\0"),
    0x00280101: ("US", b"\x10\0"),
    0x00280102: ("US", b"\x0f\0"),
    0x00280103: ("US", b"\0\0"),
    0x7FE00010: ("OW", bytes(range(32))),
}
"""A CT slice of 4 x 4 pixels."""


def file_with(
    path: Path,
    elements: dict[int, tuple[str, bytes]] | None = None,
    *,
    preamble: bytes = bytes(128),
    meta: bytes = b"",
    syntax: str = ExplicitVRLittleEndian,
    after: bytes = b"",
) -> Path:
    """Write that slice with further elements, whatever they are."""
    everything = IMAGE | (elements or {})
    head = explicit(0x00020002, "UI", CT.encode()) + explicit(0x00020003, "UI", b"1.2.3.4")
    head += explicit(0x00020010, "UI", syntax.encode()) + meta
    body = b"".join(explicit(tag, *everything[tag]) for tag in sorted(everything))
    path.write_bytes(
        preamble + b"DICM" + explicit(0x00020000, "UL", struct.pack("<I", len(head))) + head + body + after
    )
    return path


def hostile_archive(path: Path, scratch: Path) -> None:
    """A series and a volume with a name in many places, and in the names of the archive's members."""
    name = SURNAME.encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = name
        for number in range(12):
            places = {
                0x00080008: ("CS", b"ORIGINAL\\PRIMARY\\" + name.upper()),
                0x0008103E: ("LO", b"chest " + name),
                0x00180050: ("DS", b"1"),
                0x00180060: ("DS", name),
                0x00181210: ("SH", name),
                0x00200013: ("IS", str(number).encode()),
                0x00200032: ("DS", f"0\\0\\{number}".encode()),
                0x00200037: ("DS", b"1\\0\\0\\0\\1\\0"),
                0x00280030: ("DS", b"1\\1"),
                0x00281052: ("DS", b"-1024"),
                0x00281053: ("DS", b"1"),
                0x00282000: ("OB", b"profile of " + name),
                0x00080018: ("UI", f"1.2.3.4.{number}".encode()),
            }
            body = file_with(scratch / "slice", places, preamble=name * 16, meta=explicit(0x00020016, "AE", name))
            archive.writestr(f"{SURNAME}/{number}.dcm", body.read_bytes())
        volume = nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4))
        volume.header["descrip"] = name
        archive.writestr(f"{SURNAME}.nii.gz", gzip.compress(volume.to_bytes() + name))


def everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every byte under a folder, and what it unpacks to."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            body = path.read_bytes()
            yield f"{path} {path.name}", path.name.encode() + body
            if body[:2] == b"\x1f\x8b":
                yield f"{path} unpacked", gzip.decompress(body)
            elif body[:4] == b"PK\3\4" and path.name != "more.zip":
                with zipfile.ZipFile(path) as archive:
                    for one in archive.namelist():
                        yield f"{path}!{one}", archive.read(one)
