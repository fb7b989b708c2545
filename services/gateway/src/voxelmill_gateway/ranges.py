"""What a request for a file asks for: a range of its bytes, or nothing if the client has it already (RFC 9110)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_RANGE: Final = re.compile(r"[ \t]*bytes[ \t]*=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.IGNORECASE)
_TAGS: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `first` to `last`, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1

    def content_range(self, size: int) -> str:
        """Return the header of a part of `size` bytes (RFC 9110, 14.4)."""
        return f"bytes {self.first}-{self.last}/{size}"


class UnsatisfiableRangeError(ValueError):
    """No byte of the range is there: 416 (RFC 9110, 15.5.17)."""


def asked_range(headers: Mapping[str, str], size: int, etag: str) -> ByteRange | None:
    """Return the range that a request asks for; none for the whole.

    Several ranges, another unit and what is no range are answered with the whole, as RFC 9110, 14.2 allows. So is a
    range of another content than the one that is there (13.1.5): `If-Range` must hold this ETag, for a date is never
    told.

    Parameters
    ----------
    headers
        Of the request, by names in lower case or in any.
    size
        Of the file, in bytes.
    etag
        Of the file, with its quotes.

    Raises
    ------
    UnsatisfiableRangeError
        If none of these bytes is there.
    """
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        if int(last) == 0 or size == 0:
            raise UnsatisfiableRangeError
        return ByteRange(max(0, size - int(last)), size - 1)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableRangeError
    return ByteRange(int(first), min(int(last), size - 1) if last else size - 1)


def has_it(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the client says that it has this content (`If-None-Match`; RFC 9110, 13.1.2: the weak comparison)."""
    held = headers.get("if-none-match")
    if held is None:
        return False
    return held.strip() == "*" or etag in {tag.removeprefix("W/") for tag in _TAGS.findall(held)}
