"""Mutants of DICOM headers: lengths, representations, order, nesting, transfer syntaxes (PS3.5 7, PS3.10 7)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from mutants.bombs import deflated
from mutants.corruption import cut, flipped, spliced
from mutants.elements import LONG, PIXELS, SHORT, UNDEFINED, encoded, with_value
from mutants.mutant import KINDS, Mutant

if TYPE_CHECKING:
    from random import Random

    from mutants.elements import Field
    from mutants.seeds import Seeds, Source

DEPTH = 10_000
_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
_ENDS = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
_SYNTAXES = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "", "1.2.3"),
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 92, 95, 100, 201, 202, 203, 205)),
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2\n", "\x1b[31m", "9" * 300),
)


def header_end(data: bytes, found: list[Field]) -> int:
    """Return where the header ends."""
    return found[-1].value if found else min(len(data), 4096)


@KINDS.add("bit flips, header")
def _header_flips(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    return source.mutant(flipped(rng, data, 132, header_end(data, found)))


@KINDS.add("bit flips, anywhere")
def _flips(rng: Random, seeds: Seeds) -> Mutant:
    source = seeds.any(rng)
    return source.mutant(flipped(rng, source.path.read_bytes()))


@KINDS.add("truncations")
def _truncations(rng: Random, seeds: Seeds) -> Mutant:
    source = seeds.any(rng)
    data = source.path.read_bytes()
    return source.mutant(data[: rng.randrange(2048)] if rng.random() < 0.3 else cut(rng, data))


@KINDS.add("splices")
def _splices(rng: Random, seeds: Seeds) -> Mutant:
    source, other = seeds.any(rng), seeds.any(rng)
    data = source.path.read_bytes()
    for _ in range(rng.choice((1, 1, 3))):
        data = spliced(rng, data, other.path.read_bytes()) or b"\0"
    return source.mutant(data)


def _with_length(source: Source, data: bytes, one: Field, value: int) -> Mutant:
    place, layout = one.length_at
    body = bytearray(data)
    struct.pack_into(layout, body, place, value & (0xFFFF if layout == "<H" else UNDEFINED))
    return source.mutant(bytes(body))


@KINDS.add("wrong lengths")
def _lengths(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    one = rng.choice(found)
    rest = len(data) - one.value
    lie = (0, 1, 3, one.length + 1, one.length - 1, one.length + 2, one.length * 2, rest, rest + 1, rest + 2)
    return _with_length(source, data, one, rng.choice((*lie, 0xFFFE, 0xFFFF, 0x7FFFFFFE, 0xFFFFFFF0, 0xFFFFFFFE)))


@KINDS.add("undefined lengths")
def _undefined(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    return _with_length(source, data, rng.choice(found), UNDEFINED)


def _before_pixels(rng: Random, data: bytes, found: list[Field]) -> int:
    places = [one.start for one in found if not one.depth and one.tag > 0x00080005]
    return rng.choice(places or [len(data)])


@KINDS.add("sequences without end")
def _recursion(rng: Random, seeds: Seeds) -> Mutant:
    """Sequences in sequences, 10,000 deep: closed or not, of known length or not, known, private or of VR UN."""
    source, data, found = seeds.walked(rng)
    place = _before_pixels(rng, data, found)
    tag = rng.choice((0x00081140, 0x00091010, 0x00400275, 0x52009229))
    vr = (rng.choice((b"SQ", b"UN", b"OB")) if rng.random() < 0.8 else b"") if found[-1].vr else b""
    if rng.random() < 0.3:
        nest = b""
        for _ in range(400):
            item = struct.pack("<HHL", 0xFFFE, 0xE000, len(nest)) + nest
            nest = encoded(tag, vr, item)
        return source.mutant(data[:place] + nest + data[place:])
    depth = rng.choice((30, 400, DEPTH))
    nest = (encoded(tag, vr, b"", UNDEFINED) + _ITEM) * depth + _ENDS * rng.choice((0, depth - 1, depth, depth + 1))
    return source.mutant(data[:place] + nest + data[place:])


@KINDS.add("confused representations")
def _representations(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    body = data
    explicit = [one for one in found if one.vr]
    for one in rng.sample(explicit, min(len(explicit), rng.choice((1, 1, 2, 5)))):
        known = rng.choice(sorted(SHORT | LONG))
        vr = rng.choice((known, known, known, b"ZZ", b"??", b"\0\0", b"sq", b"un", b"  ", b"O\0"))
        body = body[: one.start + 4] + vr + body[one.start + 6 :]
    return source.mutant(body)


@KINDS.add("implicit within explicit")
def _mixed(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    chosen = rng.sample(found, min(len(found), rng.choice((1, 1, 3, 10))))
    for one in sorted(chosen, key=lambda one: -one.start):
        if one.length == UNDEFINED:
            continue
        vr = b"" if one.vr else rng.choice((b"UN", b"LO", b"US", b"OB", b"SQ"))
        data = data[: one.start] + encoded(one.tag, vr, data[one.value : one.end]) + data[one.end :]
    return source.mutant(data)


@KINDS.add("sequences of unknown kind")
def _unknown_sequences(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    place = _before_pixels(rng, data, found)
    inside = encoded(0x00080100, rng.choice((b"", b"SH", b"UN")), b"code")
    item = struct.pack("<HHL", 0xFFFE, 0xE000, rng.choice((len(inside), UNDEFINED, 0, 7, 1 << 30))) + inside
    ends = rng.choice((b"", _ENDS, _ENDS[:8], _ENDS[8:], _ENDS[:5]))
    tag = rng.choice((0x00091001, 0x00081140, 0x00281050, 0x00189346))
    value = item + ends
    return source.mutant(data[:place] + encoded(tag, b"UN", value, rng.choice((len(value), UNDEFINED))) + data[place:])


@KINDS.add("swapped elements")
def _swapped(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    top = [one for one in found[:-1] if not one.depth and one.length != UNDEFINED]
    if len(top) < 2:
        return source.mutant(data)
    one, two = sorted(rng.sample(top, 2), key=lambda one: one.start)
    first, second = data[one.start : one.end], data[two.start : two.end]
    return source.mutant(data[: one.start] + second + data[one.end : two.start] + first + data[two.end :])


@KINDS.add("duplicated elements")
def _duplicated(rng: Random, seeds: Seeds) -> Mutant:
    """An element twice: beside itself or elsewhere, with the same value or another."""
    source, data, found = seeds.walked(rng)
    one = rng.choice([one for one in found if one.length != UNDEFINED] or found)
    again = data[one.start : one.end]
    if rng.random() < 0.5:
        again = flipped(rng, again, one.value - one.start)
    place = rng.choice((one.end, one.start, _before_pixels(rng, data, found)))
    return source.mutant(data[:place] + again + data[place:])


@KINDS.add("lying group lengths")
def _group_lengths(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    group = rng.choice((2, 8, 0x10, 0x20, 0x28))
    lie = rng.choice((0, 1, 7, 1000, 0x7FFFFFFF, UNDEFINED))
    return source.mutant(with_value(data, found, group << 16, b"UL", struct.pack("<L", lie)))


@KINDS.add("lying transfer syntaxes")
def _syntaxes(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    syntax = rng.choice(_SYNTAXES).encode()
    changed = with_value(data, found, 0x00020010, b"UI", syntax)
    meta = [one for one in found if one.tag == 0x00020000]
    if meta and rng.random() < 0.8:  # the group's length follows, so that nothing else is wrong
        body = bytearray(changed)
        (length,) = struct.unpack_from("<L", body, meta[0].value)
        struct.pack_into("<L", body, meta[0].value, (length + len(changed) - len(data)) & UNDEFINED)
        changed = bytes(body)
    return source.mutant(changed)


@KINDS.add("deflated data sets")
def _deflated(rng: Random, seeds: Seeds) -> Mutant:
    """Cut, damaged, and bombs: zeros that stand before the pixels, in them, or after them."""
    source, data, found = seeds.walked(rng)
    top = [one for one in found if one.tag >> 16 > 2]
    begin = top[0].start if top else len(data)
    head = with_value(data, found, 0x00020010, b"UI", b"1.2.840.10008.1.2.1.99")
    meta = head[: len(head) - (len(data) - begin)]
    body = data[begin:]
    kind = rng.choice(("sound", "cut", "flipped", "bomb", "bomb in an element", "bomb of pixels", "not deflated"))
    if kind == "bomb in an element":
        packed = deflated(encoded(0x00091001, b"OB", b"", seeds.bomb_mib // 15 << 20), seeds.bomb_mib // 15, body)
    elif kind == "bomb of pixels":
        pixels = encoded(PIXELS, b"OW", b"", rng.choice((300 << 20, 3000 << 20)))
        packed = deflated(data[begin : found[-1].start] + pixels, rng.choice((seeds.bomb_mib // 10, seeds.bomb_mib)))
    else:
        packed = deflated(body, seeds.bomb_mib if kind == "bomb" else 0)
    if kind == "cut":
        packed = cut(rng, packed)
    if kind == "flipped":
        packed = flipped(rng, packed)
    return source.mutant(meta + (body if kind == "not deflated" else packed))


@KINDS.add("nearly nothing")
def _tiny(rng: Random, seeds: Seeds) -> Mutant:
    """Empty files, files of one byte, a preamble alone, a meta group alone."""
    source, data, found = seeds.walked(rng)
    meta = next((one.start for one in found if one.tag >> 16 > 2), 200)
    choices = (b"", b"\0", b"D", rng.randbytes(1), bytes(132), data[:128], data[:132], data[:140], data[:meta])
    return source.mutant(rng.choice((*choices, data[:meta] + bytes(8), data[:meta] * 3, rng.randbytes(600), b"DICM")))


@KINDS.add("polyglots")
def _polyglots(rng: Random, seeds: Seeds) -> Mutant:
    """DICOM and something else in one file: a program, a picture, an archive, another DICOM file, a NIfTI file."""
    source = seeds.any(rng)
    data = source.path.read_bytes()
    nifti = rng.choice(seeds.nifti).read_bytes()
    starts = (b"PK\x03\x04", b"PK\x05\x06", b"%PDF-1.7", b"MZ", b"\x7fELF", b"II*\0", b"\x1f\x8b\x08\0", b"#!/bin/sh\n")
    before = rng.choice((*starts, b"<script>alert(1)</script>", nifti[:128], struct.pack("<i", 348)))
    if rng.random() < 0.5:
        return source.mutant(before[:128].ljust(128, b"\0") + data[128:])
    other = seeds.any(rng).path.read_bytes()
    return source.mutant(
        rng.choice((data + other, nifti[:400] + data, data + nifti, before + data, other[:500] + data))
    )
