"""What a compressed frame says about itself, read from its first bytes: enough to refuse a lie before decoding it.

A decoder allocates what the codestream claims, not what the DICOM header claims. So the claim is read first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SOI = b"\xff\xd8"
_SOC_SIZ = b"\xff\x4f\xff\x51"
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True)
class Codestream:
    """The size that a codestream claims; `ycbcr` says whether a JPEG's markers state YCbCr (None: they are silent)."""

    rows: int
    columns: int
    components: int
    precision: int
    ycbcr: bool | None = None


def read_codestream(data: bytes) -> Codestream | None:
    """Return what a JPEG, JPEG-LS or JPEG 2000 codestream claims, or None where the data are none of these.

    Sources: ISO/IEC 10918-1 B.2.2 (SOF), ISO/IEC 14495-1 C.2.2 (SOF55), ISO/IEC 15444-1 A.5.1 (SIZ).
    """
    try:
        if data[:2] == _SOI:
            return _read_jpeg(data)
        start = data.find(_SOC_SIZ, 0, 4096)
        return _read_siz(data, start + 4) if start >= 0 else None
    except (IndexError, struct.error):
        return None


def _read_jpeg(data: bytes) -> Codestream | None:
    position = 2
    ycbcr: bool | None = None
    while True:
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker (B.1.1.2)
            position += 1
            continue
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = position + 4
        if marker == 0xE0 and data[body : body + 5] == b"JFIF\0":
            ycbcr = True
        elif marker == 0xEE and data[body : body + 5] == b"Adobe":
            ycbcr = data[body + 11] != 0
        elif marker in _START_OF_FRAME:
            precision, rows, columns, components = struct.unpack_from(">BHHB", data, body)
            if components == 3 and bytes(data[body + 6 : body + 15 : 3]) == b"RGB":
                ycbcr = False
            return Codestream(rows, columns, components, precision, ycbcr)
        position += 2 + length


def _read_siz(data: bytes, siz: int) -> Codestream:
    # Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz, then four of the tiles, then Csiz and one Ssiz per component.
    x, y, x_offset, y_offset = struct.unpack_from(">4I", data, siz + 4)
    (components,) = struct.unpack_from(">H", data, siz + 36)
    return Codestream(y - y_offset, x - x_offset, components, (data[siz + 38] & 0x7F) + 1)
