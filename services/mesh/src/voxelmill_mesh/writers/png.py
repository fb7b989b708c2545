"""PNG of an RGB picture (ISO/IEC 15948), with nothing but zlib."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_UP = 2
"""Filter type: each row as the difference to the one above."""


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture, (height, width, 3) uint8 sRGB."""
    height, width, _ = picture.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _UP
    flat = picture.reshape(height, -1)
    rows[0, 1:] = flat[0]
    rows[1:, 1:] = flat[1:] - flat[:-1]  # modulo 256, as the filter wants it
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(_chunk(b"sRGB", b"\0"))
        file.write(_chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)))
        file.write(_chunk(b"IEND", b""))
