"""Mutants of archives: bombs, names that lead elsewhere, links, lies about sizes (APPNOTE 4.3, POSIX.1 pax)."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import warnings
import zipfile
from functools import cache
from typing import TYPE_CHECKING

from mutants.bombs import gzipped
from mutants.corruption import cut, flipped, spliced
from mutants.images import SCRIPT
from mutants.mutant import KINDS, Mutant

if TYPE_CHECKING:
    from random import Random

    from mutants.seeds import Seeds

NAMES = (
    *(
        "../../evil.dcm",
        "/etc/passwd",
        "a/../../b.dcm",
        "C:\\windows\\x.dcm",
        "\\\\host\\share\\x",
        "..\\..\\x.dcm",
        "~/x",
    ),
    *("a\nb.dcm", "\x1b[2J.dcm", "\x00.dcm", SCRIPT.decode(), "con.dcm", ".", "..", "a//b.dcm", " ", "\u202egnp.dcm"),
    *("x" * 300, "d/" * 400 + "x.dcm", "é" * 200, "\ufffe.dcm", "__MACOSX/._x", ".DS_Store", "a\tb", "-rf", "%2e%2e/x"),
)


def _members(rng: Random, seeds: Seeds) -> list[tuple[str, bytes]]:
    chosen = rng.sample(seeds.slices, 3)
    return [(f"study/{n}.dcm", one.path.read_bytes()) for n, one in enumerate(chosen)]


def _zip(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


def _tar(members: list[tuple[tarfile.TarInfo | str, bytes]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=kind) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def _named(rng: Random, name: str) -> str:
    """Change some letters of a name, so that no two are the same."""
    return name if rng.random() < 0.6 else name + rng.choice("abc") + str(rng.randrange(99))


@KINDS.add("zip, damaged")
def _zip_damage(rng: Random, seeds: Seeds) -> Mutant:
    data = _zip(_members(rng, seeds), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    table = data.rfind(b"PK\x01\x02")
    damaged = rng.choice(
        (
            flipped(rng, data),
            flipped(rng, data, table),
            flipped(rng, data, 0, 60),
            cut(rng, data),
            spliced(rng, data, data),
        )
    )
    return Mutant(damaged, "mutant.zip")


@KINDS.add("zip, names and duplicates")
def _zip_names(rng: Random, seeds: Seeds) -> Mutant:
    members = _members(rng, seeds)
    members += [(_named(rng, rng.choice(NAMES)), members[0][1]) for _ in range(4)]
    members += members[:1]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the names that are there twice, which is what is wanted
        for name, data in members:
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: the constructor cuts at a NUL
            archive.writestr(info, data)
        archive.comment = rng.choice((b"", b"PK\x05\x06" + bytes(18), rng.randbytes(200)))
    return Mutant(target.getvalue(), "mutant.zip")


@KINDS.add("zip, links and passwords")
def _zip_modes(rng: Random, seeds: Seeds) -> Mutant:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for n, (name, data) in enumerate(_members(rng, seeds)):
            info = zipfile.ZipInfo(name)
            mode = rng.choice((0o120777, 0o010644, 0o020644, 0o040755, 0o140644, 0o100644))
            info.external_attr = mode << 16 if n else 0
            archive.writestr(info, b"/etc/passwd" if mode == 0o120777 and n else data)
    body = bytearray(target.getvalue())
    if rng.random() < 0.7:  # encrypted, patched, strongly encrypted, another method, a later version
        place = 0
        while (place := body.find(b"PK\x01\x02", place + 1)) > 0:
            what, value = rng.choice(
                ((8, 1), (8, 0x20), (8, 0x41), (10, 99), (10, 14), (10, 12), (10, 97), (6, 99), (8, 0x800))
            )
            struct.pack_into("<H", body, place + what, value)
    return Mutant(bytes(body), "mutant.zip")


@cache
def _ratio_bomb(mib: int) -> bytes:
    return _zip([(f"{n}.dcm", bytes(mib << 20)) for n in range(3)])


@KINDS.add("zip bombs")
def _zip_bombs(rng: Random, seeds: Seeds) -> Mutant:
    """High ratio, members that share bytes, archives in archives, thousands of members, dictionaries of 4 GiB."""
    kind = rng.choice(("ratio", "overlap", "nested", "many", "lies", "lzma"))
    if kind == "ratio":
        return Mutant(_ratio_bomb(seeds.bomb_mib // 30), "mutant.zip")
    if kind == "nested":
        data = _zip(_members(rng, seeds))
        for _ in range(rng.choice((1, 5, 40))):
            data = _zip([(f"{n}.zip", data) for n in range(2)], zipfile.ZIP_DEFLATED) if len(data) < 200_000 else data
        return Mutant(data, "mutant.zip")
    if kind == "many":
        return Mutant(_zip([(f"{n}", b"") for n in range(5_000)], zipfile.ZIP_STORED), "mutant.zip")
    if kind == "lzma":
        body = bytearray(_zip(_members(rng, seeds), zipfile.ZIP_LZMA))
        place = body.find(b"\x5d\0\0")
        body[place + 1 : place + 5] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0\0\0\0"))
        return Mutant(bytes(body), "mutant.zip")
    body = bytearray(_zip(_members(rng, seeds)))
    places = []
    place = 0
    while (place := body.find(b"PK\x01\x02", place + 1)) > 0:
        places.append(place)
    for one in places:
        if kind == "overlap":
            struct.pack_into("<L", body, one + 42, rng.choice((0, 0, 10, len(body), 0xFFFFFFFF)))
        else:
            what = rng.choice((20, 24, 16, 42, 28, 30, 32))
            layout = "<L" if what in {16, 20, 24, 42} else "<H"
            lie = rng.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
            struct.pack_into(layout, body, one + what, lie & (0xFFFFFFFF if layout == "<L" else 0xFFFF))
    return Mutant(bytes(body), "mutant.zip")


@KINDS.add("tar, damaged")
def _tar_damage(rng: Random, seeds: Seeds) -> Mutant:
    data = _tar([*_members(rng, seeds)], rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)))
    damaged = rng.choice((flipped(rng, data), flipped(rng, data, 0, 512), cut(rng, data), spliced(rng, data, data)))
    if rng.random() < 0.4:
        damaged = gzip.compress(damaged, 1, mtime=0)
        if rng.random() < 0.5:
            damaged = rng.choice((flipped(rng, damaged), cut(rng, damaged)))
    return Mutant(damaged, "mutant.tar")


@KINDS.add("tar, names, links and devices")
def _tar_names(rng: Random, seeds: Seeds) -> Mutant:
    members: list[tuple[tarfile.TarInfo | str, bytes]] = [*_members(rng, seeds)]
    kinds = (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.REGTYPE,
        tarfile.CONTTYPE,
        b"Z",
    )
    for _ in range(4):
        info = tarfile.TarInfo(_named(rng, rng.choice(NAMES)).replace("\0", "\1"))
        info.type = rng.choice(kinds)
        info.linkname = rng.choice(("/etc/passwd", "../../x", "study/0.dcm", ""))
        members.insert(rng.randrange(len(members) + 1), (info, members[-1][1][:1000]))
    return Mutant(_tar(members), "mutant.tar")


def _header(name: str, kind: bytes, size: bytes) -> bytes:
    """Encode a header with any bytes as its size, and the sum that it must have."""
    head = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    head[124:136] = size.ljust(12, b"\0")[:12]
    head[156:157] = kind
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


@KINDS.add("tar, lies")
def _tar_lies(rng: Random, seeds: Seeds) -> Mutant:
    """Sizes negative and huge, names of names, pax headers that lie, sparse files of terabytes, bombs."""
    name, data = _members(rng, seeds)[0]
    sound = _tar([(name, data)])
    kind = rng.choice(("size", "names", "pax", "sparse", "bomb", "unread bomb", "pax chain"))
    sizes = (
        b"77777777777\0",
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"-1",
        b"abc",
        b"\x80\0\0\0\0\0\0\x10\0\0\0\0",
        b"\xff" * 11 + b"\0",
    )
    if kind == "size":
        body = (
            _header("a.dcm", rng.choice((b"0", b"L", b"x", b"S", b"5", b"1")), rng.choice(sizes)) + data[:512] + sound
        )
    elif kind in {"names", "pax chain"}:
        type_ = b"L" if kind == "names" else b"x"
        text = b"x" * 100 if kind == "names" else b"20 comment=x2345678\n"
        body = (_header("n", type_, b"%011o" % len(text)) + text.ljust(512, b"\0")) * rng.choice((2, 3_000)) + sound
    elif kind == "pax":
        lie = rng.choice(
            (
                *(
                    b"99 path=x\n",
                    b"0 path=x\n",
                    b"-5 path=x\n",
                    b"10 path\n",
                    b"1000000000000 path=x\n",
                    b"xx path=x\n",
                ),
                *(b"11 size=-1\n", b"28 size=999999999999999999\n", b"12 path=\0\0\n", b"20 GNU.sparse.map=1\n"),
                *(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n", b"25 hdrcharset=BINARY\n11 path=\xff\n"),
            )
        )
        body = _header("p", b"x", b"%011o" % len(lie)) + lie.ljust(512, b"\0") + sound
    elif kind == "sparse":
        head = bytearray(_header("s.dcm", b"S", b"%011o" % 512))
        head[386:410] = b"%011o\0%011o\0" % (rng.choice((0, 1 << 30)), 512)
        head[483:495] = rng.choice((b"77777777777\0", b"00000001000\0", b"\x80\0\0\0\0\0\0\x10\0\0\0\0"))
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        body = bytes(head) + data[:512].ljust(512, b"\0") + sound
    else:
        inside = ".DS_Store" if kind == "unread bomb" else "a.dcm"
        mib = rng.choice((seeds.bomb_mib // 8, seeds.bomb_mib))
        packed = gzipped(_header(inside, b"0", b"%011o" % (mib << 20)), mib, _tar([(name, data)]))
        return Mutant(packed, "mutant.tar.gz")
    return Mutant(gzip.compress(body, 1, mtime=0) if rng.random() < 0.3 else body, "mutant.tar")
