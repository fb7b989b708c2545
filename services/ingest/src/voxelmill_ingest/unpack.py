"""Unpacking an archive into a scratch folder. Runs in a child process: what it reads may be hostile.

Members are written under numbers, so no name in the archive can lead anywhere. Names are judged all the same, since
keys of the work store are made from them.
"""

from __future__ import annotations

import errno
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from voxelmill_ingest.findings import ArchiveFormat
from voxelmill_ingest.inspection import is_junk
from voxelmill_ingest.reasons import Reason, shown
from voxelmill_shared.errors import VoxelmillError
from voxelmill_shared.privacy import unquoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 1 << 20
_LONGEST_NAME = 700
"""UTF-8 bytes of a member's name: with the prefix in the work store the key stays below 1,024."""
_RATIO_COUNTS_FROM = 256 << 20
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,  # a compression method that zipfile does not know
    OverflowError,
    RecursionError,  # tarfile reads the headers of a header in a call of their own
    ValueError,
)
"""What zipfile, tarfile and the decompressors raise on bytes that are no sound archive, beside errors of reading."""
_NOT_THE_MACHINES = frozenset({None, errno.EINVAL})
"""Numbers of errors of reading that are the archive's fault: gzip's and bz2's own, and a place before the beginning."""


class _DamagedError(Exception):
    """The bytes are no sound archive; the text says what was found."""


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise _DamagedError(shown(unquoted(error))) from None
    except OSError as error:
        if error.errno not in _NOT_THE_MACHINES:
            raise
        raise _DamagedError(shown(unquoted(error))) from None


class ArchiveRefusedError(VoxelmillError):
    """The archive as a whole is not taken, for a `reason` of the catalogue."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much an archive may unpack to. `ratio` is bytes unpacked by bytes packed; small archives may exceed it."""

    members: int = 100_000
    total_bytes: int = 20 << 30
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class UnpackJob:
    """What the child is asked to do. `directory` must be empty."""

    archive: Path
    format: ArchiveFormat
    directory: Path
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class Member:
    """One file that was unpacked: its name as a safe relative path, and where it lies now."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class RefusedMember:
    """One member that was not unpacked. `name` is fit to be shown, whatever bytes it had."""

    name: str
    reason: Reason
    detail: str
    size: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What came out of an archive, in its own order."""

    members: tuple[Member, ...]
    refused: tuple[RefusedMember, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A member. `behind` are the bytes that are inflated to come to the next one even if this is not taken."""

    name: str
    size: int
    regular: bool
    encrypted: bool
    open: Callable[[], IO[bytes] | None]
    behind: int = 0


def unpack(job: UnpackJob, progress: Callable[[Any], None]) -> Contents:  # noqa: ARG001 - the child's calling convention
    """Unpack an archive within bounds.

    Raises
    ------
    ArchiveRefusedError
        If it is damaged, encrypted as a whole, or larger than allowed. Nothing of it is then to be used.
    """
    try:
        with _damage():
            if job.format is ArchiveFormat.ZIP:
                return _unpack_zip(job)
            return _unpack_tar(job)
    except _DamagedError as error:
        raise ArchiveRefusedError(Reason.ARCHIVE_CORRUPT, f"the {job.format} is damaged ({error})") from None
    except MemoryError:  # members are copied in pieces: only what is said of them can take so much
        detail = "its table of members needs more memory than unpacking may use"
        raise ArchiveRefusedError(Reason.ARCHIVE_TOO_LARGE, detail) from None


def _unpack_zip(job: UnpackJob) -> Contents:
    with zipfile.ZipFile(job.archive) as archive:
        _check_table(archive, job.archive)
        return _Unpacking(job, one_bad_member_is_fatal=False).run(_zip_entries(archive))


def _check_table(archive: zipfile.ZipFile, path: Path) -> None:
    """Make sure that the table of members has as many as the archive's last record says (APPNOTE 4.3.16).

    zipfile asks for the table's length alone. The count is that of the members modulo 65,536 where a packer knows no
    zip64, and 65,535 where zip64 has its own.
    """
    with path.open("rb") as file:
        file.seek(-22 - len(archive.comment), os.SEEK_END)
        record = file.read(12)
    (count,) = struct.unpack_from("<H", record, 10)
    found = len(archive.infolist())
    if record[:4] == b"PK\x05\x06" and count not in {found % 65536, 65535}:
        raise zipfile.BadZipFile(f"its table has {found} members, and its last record says {count}")


def _unpack_tar(job: UnpackJob) -> Contents:
    mode = "r:gz" if job.format is ArchiveFormat.TAR_GZIP else "r:"
    with tarfile.open(job.archive, mode) as archive:  # type: ignore[call-overload] # mypy wants a literal mode
        unpacking = _Unpacking(job, one_bad_member_is_fatal=True)
        contents = unpacking.run(_tar_entries(archive))
        unpacking.read_end(archive)
    return contents


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in archive.infolist():
        if info.filename.endswith("/") and not info.file_size:
            continue  # a folder
        mode = info.external_attr >> 16
        yield _Entry(
            name=info.filename,
            size=info.file_size,
            regular=stat.S_IFMT(mode) in {0, stat.S_IFREG},
            encrypted=bool(info.flag_bits & 0x1),
            open=lambda info=info: archive.open(info),  # type: ignore[misc] # mypy infers no type for the default
        )


def _tar_entries(archive: tarfile.TarFile) -> Iterator[_Entry]:
    for info in archive:
        if info.isdir():
            continue
        yield _Entry(
            name=info.name,
            size=info.size,
            regular=info.isreg(),
            encrypted=False,
            open=lambda info=info: archive.extractfile(info),  # type: ignore[misc] # as above
            behind=max(0, archive.offset - info.offset_data),
        )


class _Unpacking:
    def __init__(self, job: UnpackJob, *, one_bad_member_is_fatal: bool) -> None:
        self._job = job
        self._fatal = one_bad_member_is_fatal
        self._packed = job.archive.stat().st_size
        self._written = 0
        self._members: list[Member] = []
        self._refused: list[RefusedMember] = []

    def run(self, entries: Iterator[_Entry]) -> Contents:
        for count, entry in enumerate(entries, 1):
            if count > self._job.bounds.members:
                raise ArchiveRefusedError(Reason.ARCHIVE_TOO_LARGE, f"more than {self._job.bounds.members} members")
            self._take(entry)
        return Contents(tuple(self._members), tuple(self._refused))

    def _take(self, entry: _Entry) -> None:
        name = safe_name(entry.name)
        if not entry.regular:
            self._refuse(entry, Reason.ARCHIVE_UNSAFE_MEMBER, "a link, a device or another special file")
        elif name is None:
            self._refuse(entry, Reason.ARCHIVE_UNSAFE_MEMBER, "its name leaves the folder or cannot be kept")
        elif is_junk(name):
            self._refuse(entry, Reason.JUNK, "left behind by an operating system")
        elif entry.encrypted:
            self._refuse(entry, Reason.ARCHIVE_ENCRYPTED, "it needs a password")
        else:
            path = self._job.directory / f"{len(self._members):06d}"
            try:
                with _damage():
                    self._copy(entry, path)
            except _DamagedError as error:
                if self._fatal:
                    raise
                self._refuse(entry, Reason.ARCHIVE_CORRUPT, f"it is damaged ({error})")
            else:
                self._members.append(Member(name, path))

    def _copy(self, entry: _Entry, path: Path) -> None:
        source = entry.open()
        if source is None:
            raise tarfile.ReadError("a member without content")
        with source, path.open("wb") as target:
            while chunk := source.read(_CHUNK):
                self._count(len(chunk))
                target.write(chunk)

    def read_end(self, archive: tarfile.TarFile) -> None:
        """Make sure that a tar ended where it says so, and not where a header cannot be read (POSIX.1-2017, pax).

        tarfile takes the one for the other, and what follows would be lost without a word. A gzip stream checks its
        checksum at its end, and only there.
        """
        stream: Any = archive.fileobj
        stream.seek(archive.offset)
        end = stream.read(tarfile.BLOCKSIZE)
        if len(end) < tarfile.BLOCKSIZE or any(end):
            raise tarfile.ReadError(f"a header cannot be read, or the end is missing, at byte {archive.offset}")
        while chunk := stream.read(_CHUNK):
            self._count(len(chunk))

    def _count(self, unpacked: int) -> None:
        self._written += unpacked
        bounds = self._job.bounds
        if self._written > bounds.total_bytes:
            raise ArchiveRefusedError(Reason.ARCHIVE_TOO_LARGE, f"it unpacks to more than {bounds.total_bytes} bytes")
        if self._written > max(_RATIO_COUNTS_FROM, self._packed * bounds.ratio):
            raise ArchiveRefusedError(
                Reason.ARCHIVE_TOO_LARGE, f"it unpacks to more than {bounds.ratio} times its own size"
            )

    def _refuse(self, entry: _Entry, reason: Reason, detail: str) -> None:
        if self._job.format is ArchiveFormat.TAR_GZIP:
            self._count(entry.behind)
        self._refused.append(RefusedMember(shown(entry.name), reason, detail, max(entry.size, 0)))


def safe_name(name: str) -> str | None:
    """Return a member's name as a relative path with `/` between its parts, or none if it is not safe to keep."""
    name = name.replace("\\", "/")
    if name.startswith("/") or (len(name) > 1 and name[1] == ":") or any(ord(c) < 32 or ord(c) == 127 for c in name):
        return None
    parts = [part for part in name.split("/") if part not in {"", "."}]
    try:
        length = len("/".join(parts).encode())
        longest_part = max(len(part.encode()) for part in parts)
    except ValueError:  # no part at all, or bytes that are no text
        return None
    if ".." in parts or length > _LONGEST_NAME or longest_part > 255:
        return None
    return str(PurePosixPath(*parts))
