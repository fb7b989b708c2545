"""Deflate streams of zeros without end, made in no time: one block of a MiB, repeated (RFC 1951)."""

from __future__ import annotations

import struct
import zlib
from functools import cache

_MIB = 1 << 20


@cache
def _block() -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(bytes(_MIB)) + packer.flush(zlib.Z_FULL_FLUSH)


def deflated(before: bytes, mib: int, after: bytes = b"") -> bytes:
    """Deflate something, then `mib` MiB of zeros, then something more; raw."""
    packer = zlib.compressobj(1, wbits=-15)
    head = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(1, wbits=-15)
    return head + _block() * mib + packer.compress(after) + packer.flush()


def gzipped(before: bytes, mib: int, after: bytes = b"") -> bytes:
    """Do the same as a gzip file with a right checksum (RFC 1952)."""
    checksum = zlib.crc32(before)
    for _ in range(mib):
        checksum = zlib.crc32(bytes(_MIB), checksum)
    checksum = zlib.crc32(after, checksum)
    size = len(before) + mib * _MIB + len(after)
    tail = struct.pack("<2L", checksum, size & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated(before, mib, after) + tail
