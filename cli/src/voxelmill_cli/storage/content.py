"""Whether a file has the content that an ETag names, however its object was put into the bucket."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from voxelmill_shared.storage.s3_stream import may_be_md5
from voxelmill_shared.storage.s3_upload import part_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MIB = 1 << 20
_USUAL_PARTS_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512)
"""The sizes of parts that clients use by default or by habit: boto3 and the AWS CLI 8, MinIO's 16, rclone 5."""
_CHUNK = _MIB


def has_content(path: Path, size: int, etag: str) -> bool:
    """Whether a file has an object's bytes.

    An ETag is the MD5 of the bytes, or, of an object that was put in parts, that of the parts' MD5s and their number
    (Amazon S3 User Guide, "Checking object integrity"). The size of the parts is not told: the usual ones of which
    there would be so many are tried. Of a server that encrypts with keys of its own it is neither, and the answer is
    no.

    Parameters
    ----------
    path, size
        The file, and the object's size in bytes.
    etag
        Without quotes.
    """
    if path.stat().st_size != size:
        return False
    if may_be_md5(etag):
        with path.open("rb") as file:
            return hashlib.file_digest(file, _md5).hexdigest() == etag
    _, dash, count = etag.rpartition("-")
    if not dash or not count.isdecimal():
        return False
    return any(_etag_in_parts(path, part) == etag for part in _part_sizes(size, int(count)))


def _part_sizes(size: int, count: int) -> Iterator[int]:
    """Give the sizes of parts of which a file would have so many, ours first."""
    if count < 1:
        return
    evenly = -(-size // count)
    sizes = (part_bytes(size), -(-evenly // _MIB) * _MIB, *(mib * _MIB for mib in _USUAL_PARTS_MIB))
    for part in dict.fromkeys(sizes):
        if part and max(1, -(-size // part)) == count:
            yield part


def _etag_in_parts(path: Path, part: int) -> str:
    md5s = []
    with path.open("rb", buffering=0) as file:
        left = 0
        md5 = _md5()
        while piece := file.read(min(_CHUNK, left or part)):
            left = (left or part) - len(piece)
            md5.update(piece)
            if not left:
                md5s.append(md5.digest())
                md5 = _md5()
        if left or not md5s:
            md5s.append(md5.digest())
    return f"{_md5(b''.join(md5s)).hexdigest()}-{len(md5s)}"


def _md5(body: bytes = b"") -> Any:
    return hashlib.md5(body, usedforsecurity=False)
