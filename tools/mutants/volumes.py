"""Mutants of NIfTI files, plain and gzip (nifti1.h, nifti2.h, RFC 1952)."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

from mutants.bombs import gzipped
from mutants.corruption import cut, flipped, spliced
from mutants.mutant import KINDS, Mutant

if TYPE_CHECKING:
    from random import Random

    from mutants.seeds import Seeds

_FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-38, 1e30, 3e38, 352.0, 351.5, 1e9, 2e12)
_SHORTS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 256, 512, 768, 1024, 1280, 1536, 1792, 2304, 1005, -1, -32768, 32767)
_FIELDS1 = (
    *((40 + 2 * n, "h") for n in range(8)),
    *((68 + 2 * n, "h") for n in range(4)),
    *((76 + 4 * n, "f") for n in range(8)),
    *((108, "f"), (112, "f"), (116, "f"), (123, "B"), (252, "h"), (254, "h"), (0, "i"), (344, "I")),
    *((256 + 4 * n, "f") for n in range(18)),
)
_FIELDS2 = (
    *((12, "h"), (14, "h"), (168, "q"), (176, "d"), (184, "d"), (344, "i"), (348, "i"), (500, "i"), (0, "i")),
    *((16 + 8 * n, "q") for n in range(8)),
    *((104 + 8 * n, "d") for n in range(8)),
    *((352 + 8 * n, "d") for n in range(18)),
)


def _plain(rng: Random, seeds: Seeds) -> bytes:
    data = rng.choice(seeds.nifti).read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def _made(rng: Random, data: bytes) -> Mutant:
    """Write it plain or compressed."""
    if rng.random() < 0.4:
        return Mutant(gzip.compress(data, 1, mtime=0), "mutant.nii.gz")
    return Mutant(data, "mutant.nii")


def _value(rng: Random, code: str) -> int | float:
    if code in "fd":
        return rng.choice((*_FLOATS, 1e200, 1e-300)) if code == "d" else rng.choice(_FLOATS)
    if code == "q":
        return rng.choice((*_SHORTS, 1 << 31, 1 << 40, 1 << 62, -(1 << 63)))
    if code == "B":
        return rng.randrange(256)
    return rng.choice(_SHORTS) if code != "I" else rng.randrange(1 << 32)


@KINDS.add("NIfTI headers")
def _headers(rng: Random, seeds: Seeds) -> Mutant:
    """Dimensions negative and huge, unknown types, voxels beyond the file, affines that are none."""
    body = bytearray(_plain(rng, seeds))
    second = body[4:7] == b"n+2"
    order = "<" if body[0] in {0x5C, 0x1C} else ">"
    for _ in range(rng.choice((1, 1, 2, 5))):
        place, code = rng.choice(_FIELDS2 if second else _FIELDS1)
        if place + 8 <= len(body):
            struct.pack_into(order + code, body, place, _value(rng, code))
    return _made(rng, bytes(body))


@KINDS.add("NIfTI affines")
def _affines(rng: Random, seeds: Seeds) -> Mutant:
    """The sform alone is wrong, or the quaternion, or the sizes: voxels would lie elsewhere."""
    body = bytearray(_plain(rng, seeds))
    if body[4:7] == b"n+2" or body[0] != 0x5C:
        return _made(rng, flipped(rng, bytes(body), 0, 540))
    struct.pack_into("<2h", body, 252, *rng.choice(((0, 0), (1, 0), (0, 1), (1, 1), (2, 4), (-1, -1), (99, 99))))
    for _ in range(rng.choice((1, 2, 6))):
        place = rng.choice((*range(256, 328, 4), *range(76, 92, 4)))
        struct.pack_into("<f", body, place, rng.choice((*_FLOATS, rng.uniform(-3, 3))))
    return _made(rng, bytes(body))


@KINDS.add("NIfTI, bits flipped")
def _flips(rng: Random, seeds: Seeds) -> Mutant:
    data = rng.choice(seeds.nifti).read_bytes()
    return Mutant(flipped(rng, data, 0, rng.choice((64, 348, 544, len(data)))), "mutant.nii.gz")


@KINDS.add("NIfTI, header bits flipped")
def _header_flips(rng: Random, seeds: Seeds) -> Mutant:
    return _made(rng, flipped(rng, _plain(rng, seeds), 0, 348))


@KINDS.add("NIfTI, cut and spliced")
def _cut(rng: Random, seeds: Seeds) -> Mutant:
    data = rng.choice((_plain(rng, seeds), rng.choice(seeds.nifti).read_bytes()))
    data = spliced(rng, data, data) if rng.random() < 0.4 else cut(rng, data)
    return Mutant(data, rng.choice(("mutant.nii", "mutant.nii.gz")))


@KINDS.add("NIfTI extensions")
def _extensions(rng: Random, seeds: Seeds) -> Mutant:
    """Extensions whose sizes lie, and voxels that begin within them, far away or before the header's end."""
    data = _plain(rng, seeds)
    size = rng.choice((0, 8, 15, 16, 32, -16, 1 << 20, 0x7FFFFFFF))
    extension = b"\1\0\0\0" + struct.pack("<ii", size, rng.choice((0, 2, 4, 6, 40, -1))) + rng.randbytes(24)
    body = bytearray(data[:348] + extension + data[352:])
    if body[0] == 0x5C:
        struct.pack_into("<f", body, 108, rng.choice((0.0, 348.0, 352.0, 353.5, 384.0, 400.0, float(len(body)), 1e9)))
    return _made(rng, bytes(body))


@KINDS.add("gzip bombs and damage")
def _gzip(rng: Random, seeds: Seeds) -> Mutant:
    """Bombs, cut streams, wrong checksums, several members, rubbish behind, gzip in gzip, headers that lie."""
    plain = _plain(rng, seeds)
    packed = gzip.compress(plain, 1, mtime=0)
    kind = rng.choice(("bomb", "far voxels", "cut", "sum", "members", "rubbish", "twice", "head", "zeros"))
    if kind in {"bomb", "far voxels"}:
        body = bytearray(plain[:352].ljust(352, b"\0"))
        if body[0] == 0x5C:
            struct.pack_into("<8h", body, 40, 3, *rng.choice(((seeds.bomb_mib // 6,) * 3, (2, 2, 2))), 1, 1, 1, 1)
            struct.pack_into("<2h", body, 70, 2, 8)
            struct.pack_into("<f", body, 108, 352.0 if kind == "bomb" else rng.choice((3e8, 1e9, 1.07e9)))
        packed = gzipped(bytes(body), rng.choice((seeds.bomb_mib // 15, seeds.bomb_mib // 3)))
    elif kind == "cut":
        packed = cut(rng, packed)
    elif kind == "sum":
        packed = packed[:-8] + rng.randbytes(rng.choice((8, 4, 0)))
    elif kind == "members":
        packed = (
            gzip.compress(plain[:1000], mtime=0)
            + rng.choice((b"", bytes(9), rng.randbytes(20)))
            + gzip.compress(plain[1000:], mtime=0)
        )
    elif kind == "rubbish":
        packed += rng.randbytes(rng.choice((1, 100, 5000)))
    elif kind == "twice":
        packed = gzip.compress(packed, mtime=0)
    elif kind == "head":
        packed = bytes((0x1F, 0x8B, 8, rng.randrange(256))) + rng.randbytes(6) + packed[10:]
    else:
        packed = gzip.compress(bytes(rng.choice((10, 348, 1 << 20))), mtime=0)
    return Mutant(packed, rng.choice(("mutant.nii.gz", "mutant.nii", "mutant.gz")))
