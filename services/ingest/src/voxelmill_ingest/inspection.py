"""What an object is, told by its first bytes: DICOM, NIfTI, an archive, or nothing that ingest takes."""

from __future__ import annotations

import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from voxelmill_ingest.elements import looks_like_dicom
from voxelmill_ingest.findings import ArchiveFormat, Instance, Refusal
from voxelmill_ingest.header import read_dicom
from voxelmill_ingest.nifti import LONGEST_HEADER, judge_nifti, looks_like_nifti
from voxelmill_ingest.ranges import FIRST_READ, ByteRange, Window
from voxelmill_ingest.reasons import Reason

if TYPE_CHECKING:
    from voxelmill_ingest.ranges import Reading
    from voxelmill_shared.events import ObjectRef

_JUNK: Final = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".directory", "__macosx"})
_OTHER_SUFFIXES: Final = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    *(".csv", ".json", ".log", ".md", ".rst", ".rtf", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".bval", ".bvec"),
    *(".css", ".doc", ".docx", ".htm", ".html", ".inf", ".ini", ".js", ".pdf", ".py", ".sh", ".xls", ".xlsx"),
)
_OTHER_NAMES: Final = frozenset({"readme", "license", "licence", "version", "lockfile", "autorun", "copying"})
_OTHER_BEGINNINGS: Final = {
    b"%PDF": "a PDF",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG\r\n": "a PNG picture",
    b"GIF8": "a GIF picture",
}
_IMAGE_SUFFIXES: Final = frozenset({".dcm", ".dic", ".dicom", ".ima", ".nii"})
"""Names that promise what is taken here: what has one and is something else is no file of another kind, but wrong."""
_DOCUMENTS_IN_ZIP: Final = frozenset(
    {".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".epub", ".jar", ".apk", ".kmz", ".whl", ".xpi"}
)
_OTHER_ARCHIVES: Final = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
_TAR_MAGIC = b"ustar"


def is_junk(key: str) -> bool:
    """Whether a name is one that operating systems leave behind."""
    parts = [part for part in key.lower().split("/") if part]
    return not _JUNK.isdisjoint(parts) or (bool(parts) and parts[-1].startswith("._"))


def inspect(reference: ObjectRef) -> Reading[Instance | Refusal | ArchiveFormat]:
    """Look at an object, reading as little of it as tells what it is."""
    if is_junk(reference.key):
        return Refusal(reason=Reason.JUNK, detail="left behind by an operating system")
    if reference.size == 0:
        return Refusal(reason=Reason.EMPTY_OBJECT, detail="the object has no bytes")
    head = yield ByteRange(0, min(FIRST_READ, reference.size))
    if looks_like_dicom(head):
        return (yield from read_dicom(Window(reference.size, head)))
    return _by_head(head, reference)


def _by_head(head: bytes, reference: ObjectRef) -> Instance | Refusal | ArchiveFormat:
    """Tell what is no DICOM by its first bytes alone."""
    if head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
        if PurePosixPath(reference.key).suffix.lower() in _DOCUMENTS_IN_ZIP:
            return Refusal(reason=Reason.OTHER_FILE, detail="by its name a document or program that is packed as zip")
        return ArchiveFormat.ZIP
    if head[257:262] == _TAR_MAGIC:
        return ArchiveFormat.TAR
    if head[:2] == b"\x1f\x8b":
        return _inside_gzip(head, reference)
    if looks_like_nifti(head):
        return judge_nifti(head[:LONGEST_HEADER], reference, compressed=False)
    return _nothing_known(head, reference.key)


def _inside_gzip(head: bytes, reference: ObjectRef) -> Instance | Refusal | ArchiveFormat:
    try:
        inflated = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 1024)
    except zlib.error as error:
        return Refusal(reason=Reason.NOT_DICOM, detail=f"a damaged gzip file ({error})")
    if inflated[257:262] == _TAR_MAGIC:
        return ArchiveFormat.TAR_GZIP
    if looks_like_nifti(inflated):
        return judge_nifti(inflated[:LONGEST_HEADER], reference, compressed=True)
    return Refusal(reason=Reason.NOT_DICOM, detail="gzip of something that is neither a tar archive nor a NIfTI file")


def _nothing_known(head: bytes, key: str) -> Refusal:
    name = PurePosixPath(key)
    for beginning, kind in _OTHER_ARCHIVES.items():
        if head.startswith(beginning):
            return Refusal(reason=Reason.ARCHIVE_UNSUPPORTED, detail=f"by its bytes packed with {kind}")
    if name.suffix.lower() in _OTHER_SUFFIXES or name.stem.lower() in _OTHER_NAMES:
        return Refusal(reason=Reason.OTHER_FILE, detail="by its name a file of another kind")
    if name.suffix.lower() not in _IMAGE_SUFFIXES:
        for beginning, kind in _OTHER_BEGINNINGS.items():
            if head.startswith(beginning):
                return Refusal(reason=Reason.OTHER_FILE, detail=f"by its bytes {kind}")
    return Refusal(reason=Reason.NOT_DICOM, detail="neither DICOM, NIfTI, zip nor tar")
