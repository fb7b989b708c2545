"""What the two kinds of inbox, a folder and a bucket, do with files on their way in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from voxelmill_gateway.uploads.model import Upload, UploadFile
    from voxelmill_gateway.uploads.ranges import Span


@dataclass(frozen=True, slots=True)
class Taken:
    """What a file has after a request: how many bytes, and its ETag once it is whole."""

    received: int
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Which files stand, with their ETags, and of which of the others something else than was declared has come.

    `wrong` and `partly` give the bytes of a whole object of another size, and of one that is not whole.
    """

    done: Sequence[UploadFile] = ()
    wrong: Mapping[int, int] = field(default_factory=dict)
    partly: Mapping[int, int] = field(default_factory=dict)


class Inbox(Protocol):
    """Takes in the files of uploads."""

    async def received(self, file: UploadFile) -> Taken:
        """Look how much of a file has come."""
        ...

    async def take(self, upload: Upload, file: UploadFile, span: Span, pieces: AsyncIterator[bytes]) -> Taken:
        """Take in the bytes of a request.

        Raises
        ------
        Problem
            400 if they end early or do not end; 409 if somebody else is writing the file, or if they do not go on
            where it stopped.
        """
        ...

    async def take_whole(self, key: str, media_type: str, pieces: AsyncIterator[bytes]) -> tuple[int, str]:
        """Take in a file of unknown size; return its size in bytes and its ETag."""
        ...

    async def holds(self, file: UploadFile, pieces: AsyncIterator[bytes]) -> bool:
        """Tell whether a file that stands has exactly these bytes."""
        ...

    async def find(self, upload: Upload, files: Sequence[UploadFile]) -> Found:
        """Look which of some files of an upload stand, and put those into their place of which all has come."""
        ...

    async def tidy(self, upload: Upload) -> None:
        """Throw away what an upload that is about to be complete leaves beside its files."""
        ...

    async def discard(self, upload: Upload, files: Sequence[UploadFile]) -> None:
        """Throw away everything that has come with an upload."""
        ...

    async def room(self) -> int | None:
        """Return how many bytes there is room for; none if nobody knows."""
        ...
