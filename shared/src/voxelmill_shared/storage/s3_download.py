"""A whole object of a bucket onto the local disk: verified, and never half of it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from voxelmill_shared.errors import ObjectDamagedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from voxelmill_shared.storage.s3_stream import Content, ObjectStream

T = TypeVar("T")

_PIECE = 1 << 20


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a thread; if cancelled, wait until it has ended, so that nothing is done behind our back."""
    call = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait({call})
        raise


async def keep(stream: ObjectStream, name: str, target: Path) -> Content:
    """Write an object's bytes beside their place and move them there if they are the right ones.

    Parameters
    ----------
    stream
        The object, from its beginning to its end.
    name
        Its name, for errors.
    target
        Where the file shall stand; its folder is made.

    Returns
    -------
    Content
        What the server said about it, and it is so.

    Raises
    ------
    ObjectDamagedError
        If their number or their MD5 is not what the server says of the object.
    StoreUnavailableError
        If the disk does not take the file.
    """
    file = _Partial(target)
    try:
        waiting: list[bytes] = []
        held = 0
        async with aclosing(stream.pieces()) as pieces:
            async for piece in pieces:
                waiting.append(piece)
                held += len(piece)
                if held >= _PIECE:  # one change of threads for many pieces, and one in all for a slice
                    await in_thread(file.add, tuple(waiting))
                    waiting.clear()
                    held = 0
        damage = await in_thread(file.finish, waiting, stream.content)
    except OSError as error:
        raise StoreUnavailableError(f"{target.parent}: {error.strerror}") from error
    finally:
        if file.stands:
            await asyncio.to_thread(file.drop)
    if damage:
        raise ObjectDamagedError(f"{name}: {damage}")
    return stream.content


@dataclass(slots=True)
class _Partial:
    """The file while it is being written. All of it blocks."""

    target: Path
    path: Path = field(init=False)
    md5: Any = field(init=False)
    size: int = 0
    stands: bool = False
    file: BinaryIO | None = None

    def __post_init__(self) -> None:
        self.path = self.target.with_name(f"{self.target.name}.{secrets.token_hex(8)}")
        self.md5 = hashlib.md5(usedforsecurity=False)

    def add(self, pieces: Sequence[bytes]) -> BinaryIO:
        """Write some more bytes."""
        file = self.file or self._open()
        for piece in pieces:
            file.write(piece)
            self.md5.update(piece)
            self.size += len(piece)
        return file

    def finish(self, pieces: Sequence[bytes], content: Content) -> str:
        """Write the last bytes and move the file into its place, or say what is wrong with it."""
        file = self.add(pieces)
        if self.size != content.size:
            return f"{self.size} bytes came, and it has {content.size}"
        if content.md5 and self.md5.hexdigest() != content.md5:
            return f"the MD5 of what came is {self.md5.hexdigest()}, and its ETag is {content.etag}"
        file.close()
        self.path.replace(self.target)
        self.stands = False
        return ""

    def drop(self) -> None:
        """Remove what there is."""
        if self.file is not None:
            with suppress(OSError):  # a full disk may refuse what is buffered: it is not wanted any more
                self.file.close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> BinaryIO:
        try:
            self.file = self.path.open("xb")
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("xb")
        self.stands = True
        return self.file
