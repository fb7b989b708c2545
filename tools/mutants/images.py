"""Mutants of what an image says of itself: size, cells, geometry, colours, text; of compressed pixels (PS3.3 C.7)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from mutants.corruption import flipped
from mutants.elements import LONG, PIXELS, UNDEFINED, encoded, fields, replaced, with_value
from mutants.mutant import KINDS, Mutant

if TYPE_CHECKING:
    from random import Random

    from mutants.seeds import Seeds

SCRIPT = b"<script>alert('x')</script>^\"><img src=x onerror=alert(1)>"
_NUMBERS = (0, 1, 2, 3, 4, 7, 12, 15, 16, 17, 24, 32, 64, 255, 256, 4096, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
_SIZES = (0x00280002, 0x00280006, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
_FRAMES = (b"0", b"1", b"2", b"10000", b"65535", b"2147483647", b"99999999999999999999", b"-1", b"1.5", b"", b"1\\2")
_WORDS = (
    *(
        b"nan",
        b"inf",
        b"-inf",
        b"1e400",
        b"1e308",
        b"-1e308",
        b"1e-320",
        b"0",
        b"-0",
        b"1_0",
        b"0x10",
        b"",
        b" ",
        b"1,5",
    ),
    *(
        b"9" * 400,
        b"1" + b"0" * 60,
        b"1\\2",
        b"\\\\\\",
        b"1\\2\\3\\4\\5\\6\\7",
        b"\xff\xfe",
        b"1\n2",
        b"\0",
        b"+-1",
        b"1e",
        b".",
    ),
)
_DECIMALS = (0x00200032, 0x00200037, 0x00280030, 0x00180050, 0x00180088, 0x00281050, 0x00281051, 0x00281052, 0x00281053)
_TEXTS = (
    *((0x00080005, b"CS"), (0x00080008, b"CS"), (0x00080060, b"CS"), (0x00100010, b"PN"), (0x00100020, b"LO")),
    *((0x0008103E, b"LO"), (0x00180015, b"CS"), (0x00181210, b"SH"), (0x00280004, b"CS"), (0x00281054, b"LO")),
    *((0x00200052, b"UI"), (0x0020000E, b"UI"), (0x00080018, b"UI"), (0x00080016, b"UI"), (0x00200013, b"IS")),
    *((0x00281056, b"CS"), (0x20500020, b"CS"), (0x00080068, b"CS"), (0x00102210, b"CS"), (0x00089205, b"CS")),
)


@KINDS.add("absurd dimensions")
def _dimensions(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.2:
            data = with_value(data, found, 0x00280008, b"IS", rng.choice(_FRAMES))
        else:
            number = struct.pack("<H", rng.choice(_NUMBERS))
            data = with_value(data, found, rng.choice(_SIZES), b"US", number)
        found = fields(data)
    return source.mutant(data)


@KINDS.add("claims of terabytes")
def _claims(rng: Random, seeds: Seeds) -> Mutant:
    """65,535 x 65,535 x 10,000 frames in a few bytes, compressed and not, with lengths that say so too."""
    source, data, found = seeds.walked(rng)
    side = struct.pack("<H", rng.choice((0xFFFF, 0x7FFF, 16_384, 8_192)))
    for tag, vr, value in (
        (0x00280008, b"IS", rng.choice((b"1", b"2", b"100", b"10000", b"1000000"))),
        (0x00280010, b"US", side),
        (0x00280011, b"US", side),
    ):
        data = with_value(data, found, tag, vr, value)
        found = fields(data)
    if found[-1].tag == PIXELS and rng.random() < 0.5:
        pixels = found[-1]
        size = rng.choice((0xFFFFFFFE, 0x80000000, UNDEFINED, 64))
        data = data[: pixels.start] + encoded(PIXELS, pixels.vr, data[pixels.value : pixels.value + 64], size)
    return source.mutant(data)


@KINDS.add("numbers that are none")
def _numbers(rng: Random, seeds: Seeds) -> Mutant:
    """Decimal and integer strings: not finite, not numbers, too many, too few, too long (PS3.5 6.2)."""
    source, data, found = seeds.slice_of(rng) if rng.random() < 0.6 else seeds.walked(rng)
    for _ in range(rng.choice((1, 1, 3))):
        tag = rng.choice(_DECIMALS)
        count = {0x00200032: 3, 0x00200037: 6, 0x00280030: 2}.get(tag, 1)
        parts = [b"1"] * count
        now = [one for one in found if one.tag == tag and not one.depth]
        if now:
            parts = data[now[0].value : now[0].end].split(b"\\")
        parts[rng.randrange(len(parts))] = rng.choice(_WORDS)
        data = with_value(data, found, tag, b"DS", b"\\".join(parts))
        found = fields(data)
    return source.mutant(data)


@KINDS.add("moved and turned slices")
def _moved(rng: Random, seeds: Seeds) -> Mutant:
    """Sound numbers that are wrong: a slice elsewhere, turned, scaled, of another series."""
    source, data, found = seeds.slice_of(rng)
    tag = rng.choice((0x00200032, 0x00200032, 0x00200037, 0x00280030))
    now = [one for one in found if one.tag == tag and not one.depth]
    if not now:
        return source.mutant(data)
    parts = [float(part) for part in data[now[0].value : now[0].end].strip(b"\0 ").split(b"\\")]
    which = rng.randrange(len(parts))
    parts[which] = rng.choice(
        (-parts[which], parts[which] * 10, parts[which] + rng.uniform(-9, 9), parts[which] / 3, 1e6)
    )
    return source.mutant(replaced(data, now[0], b"\\".join(f"{part:.9g}".encode() for part in parts)))


@KINDS.add("script, control and non-UTF-8 text")
def _texts(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.walked(rng)
    rubbish = (
        *(
            SCRIPT,
            b"a\nb\r\nTraceback (most recent call last):",
            b"\x1b[2J\x1b]0;owned\x07",
            b"\xff\xfe\xc3\x28\xf0\x9f",
        ),
        *(b"\x1b$B\x1b(Jx\x1b$)C\xb1", b"../../../etc/passwd", b"'; DROP TABLE series;--", b"%s%n{0}{x}", b"\0a\0b"),
        *(
            "\u202edesab\ufeff".encode(),
            b"A" * 5000,
            b"A" * 65_000,
            b"\\" * 3000,
            b"",
            b"$(reboot)`id`",
            b"\x85\x0b\x0c\x1c",
        ),
    )
    for _ in range(rng.choice((1, 2, 5))):
        tag, vr = rng.choice(_TEXTS)
        data = with_value(data, found, tag, vr, rng.choice(rubbish)[:0xFFFE])
        found = fields(data)
    if rng.random() < 0.5:
        terms = (b"ISO_IR 192", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"GB18030", b"ISO_IR 100", b"latin-1", b"\xff")
        data = with_value(data, found, 0x00080005, b"CS", rng.choice(terms))
    return source.mutant(data)


@KINDS.add("compressed pixels, flipped")
def _codestreams(rng: Random, seeds: Seeds) -> Mutant:
    source, data, found = seeds.encapsulated(rng)
    begin = found[-1].value
    last = rng.choice((begin + 64, begin + 400, len(data)))
    return source.mutant(flipped(rng, data, begin, last))


@KINDS.add("lying fragments")
def _fragments(rng: Random, seeds: Seeds) -> Mutant:
    """Offset tables, lengths, delimiters, empty fragments (PS3.5 A.4)."""
    source, data, found = seeds.encapsulated(rng)
    begin = found[-1].value
    items = _items(data, begin)
    what = rng.choice(("lengths", "table", "no end", "empty", "many empty", "extended", "order", "tag", "nothing"))
    body = data
    if what == "lengths":
        place, length = rng.choice(items)
        lie = rng.choice((0, 1, length + 1, length - 1, length * 2, UNDEFINED, 0x7FFFFFFF, len(data)))
        body = data[: place + 4] + struct.pack("<L", lie & UNDEFINED) + data[place + 8 :]
    elif what == "table":
        offsets = [rng.choice((0, 1, 8, len(data), UNDEFINED)) for _ in range(rng.choice((1, 2, 3, 1000)))]
        table = struct.pack(f"<{len(offsets)}L", *offsets)
        place, length = items[0]
        body = data[: place + 4] + struct.pack("<L", len(table)) + table + data[place + 8 + length :]
    elif what == "no end":
        body = data[: rng.choice(items)[0]]
    elif what in {"empty", "many empty"}:
        place, _ = rng.choice(items)
        body = data[:place] + _item(b"") * (1 if what == "empty" else 20_000) + data[place:]
    elif what == "extended":
        count = rng.choice((1, 2, 10))
        table = struct.pack(f"<{count}Q", *(rng.choice((0, 8, 1 << 40, (1 << 64) - 1)) for _ in range(count)))
        body = data[: found[-1].start] + encoded(0x7FE00001, b"OV", table)
        body += encoded(0x7FE00002, b"OV", table[::-1]) + data[found[-1].start :]
    elif what == "order" and len(items) > 2:
        (one, length), (two, other) = rng.sample(items[1:], 2)
        body = data[:one] + data[two : two + 8 + other] + data[one + 8 + length :]
    elif what == "tag":
        place, _ = rng.choice(items)
        body = (
            data[:place] + rng.choice((b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\x08\0\x10\0")) + data[place + 4 :]
        )
    elif what == "nothing":
        body = data[:begin] + rng.choice((b"", _item(b""), _item(b"") * 2)) + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return source.mutant(body)


def _item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(value)) + value


def _items(data: bytes, place: int) -> list[tuple[int, int]]:
    found = []
    while data[place : place + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<L", data, place + 4)
        found.append((place, length))
        place += 8 + length
    return found or [(place, 0)]


@KINDS.add("codestreams that lie about their size")
def _sizes(rng: Random, seeds: Seeds) -> Mutant:
    """SOF, SIZ and RLE headers with other sizes, and a second codestream that is not the one that was looked at."""
    source, data, found = seeds.encapsulated(rng)
    begin = found[-1].value
    body = bytearray(data)
    marks = (
        b"\xff\xc0",
        b"\xff\xc1",
        b"\xff\xc3",
        b"\xff\xf7",
        b"\xff\x51",
        b"\xff\x52",
        b"\xff\x5c",
        b"\xff\xda",
        b"\xff\xc4",
    )
    places = [place for mark in marks if (place := data.find(mark, begin)) > 0] or [begin + 8]
    place = rng.choice(places)
    for _ in range(rng.choice((1, 2, 6))):
        at = min(len(body) - 4, place + 2 + rng.randrange(40))
        struct.pack_into(">H", body, at, rng.choice((0, 1, 0xFF, 0x100, 0x7FFF, 0xFFFF)))
    return source.mutant(bytes(body))


@KINDS.add("palettes and look-up tables")
def _tables(rng: Random, seeds: Seeds) -> Mutant:
    """Descriptors and segments that lie, tables too short, segments that go nowhere (PS3.3 C.7.9.2, C.11)."""
    source, data, found = seeds.walked(rng)
    numbers = (0, 1, 2, 8, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF)
    descriptor = struct.pack("<3H", *(rng.choice(numbers) for _ in range(3)))
    words = rng.choice((3, 16, 300, 20_000))
    table = struct.pack(f"<{words}H", *(rng.choice((0, 1, 2, 2, 3, 0xFFFF, 255)) for _ in range(words)))
    if rng.random() < 0.5:
        item = encoded(0x00283002, b"US", descriptor) + encoded(0x00283006, b"OW", table)
        if not found[-1].vr:
            item = encoded(0x00283002, b"", descriptor) + encoded(0x00283006, b"", table)
        value = struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item
        return source.mutant(with_value(data, found, rng.choice((0x00283000, 0x00283010)), b"SQ", value))
    data = with_value(data, found, 0x00280004, b"CS", b"PALETTE COLOR ")
    data = with_value(data, fields(data), 0x00280002, b"US", b"\1\0")
    segmented = rng.random() < 0.6
    for colour in range(3):
        data = with_value(data, fields(data), 0x00281101 + colour, b"US", descriptor)
        tag = (0x00281221 if segmented else 0x00281201) + colour
        data = with_value(data, fields(data), tag, b"OW", table)
    return source.mutant(data)


@KINDS.add("lying functional groups")
def _groups(rng: Random, seeds: Seeds) -> Mutant:
    """What lies in sequences: values changed, elements of other kinds, groups missing (PS3.3 C.7.6.16)."""
    for _ in range(20):
        source, data, found = seeds.walked(rng)
        inner = [one for one in found if one.depth and one.vr not in LONG and 0 < one.length < 0xFFFF]
        if inner:
            break
    else:
        return source.mutant(data)
    chosen = rng.sample(inner, min(len(inner), rng.choice((1, 2, 8))))
    for one in sorted(chosen, key=lambda one: -one.start):
        size = one.end - one.value
        value = rng.choice(
            (rng.randbytes(size), bytes(size), b"\\" * size, b"9" * size, flipped(rng, data[one.value : one.end]))
        )
        data = data[: one.value] + value + data[one.end :]
        if rng.random() < 0.3:
            vr = rng.choice((b"SQ", b"UN", b"FD", b"US", b"PN", b"AT"))
            data = data[: one.start + 4] + vr + data[one.start + 6 :]
    return source.mutant(data)
