"""Which bytes of a file a request brings: `Content-Range` (RFC 9110 14.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from voxelmill_gateway.problems import Problem

_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to, and without, `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start


def span_of(header: str | None, size: int) -> Span:
    """Return what a request brings; without the header all of the file.

    Parameters
    ----------
    header
        The `Content-Range`.
    size
        The size of the file that was declared, in bytes.

    Raises
    ------
    Problem
        400 if the header is written otherwise, or names another size.
    """
    if header is None:
        return Span(0, size)
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        raise Problem(400, "Unreadable Content-Range", "write it as `bytes 0-1023/4096`")
    first, last, total = map(int, found.groups())
    if total != size:
        raise Problem(400, "Another size", f"the file was declared with {size} bytes, and Content-Range says {total}")
    if not first <= last < size:
        raise Problem(400, "Unreadable Content-Range", f"bytes {first} to {last} are none of a file of {size}")
    return Span(first, last + 1)


def check_length(header: str | None, span: Span) -> None:
    """Hold `Content-Length`, where there is one, to what is to come, before anything is read.

    Raises
    ------
    Problem
        400 if they differ.
    """
    if header is not None and header.isdigit() and int(header) != span.length:
        raise wrong_length(span, int(header))


def wrong_length(span: Span, came: int | None = None) -> Problem:
    """Say that more or fewer bytes came than were to come."""
    what = "more" if came is None else str(came)
    return Problem(
        400,
        "Another size",
        f"bytes {span.start} to {span.end - 1} were to come, {span.length} in number, and {what} came; nothing of the"
        " file counts beyond what HEAD says",
    )
