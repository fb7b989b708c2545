"""Multipart bodies, read piece by piece: no part, and so no body, is ever held in memory as a whole.

The delimiters are found by python-multipart's low-level parser. It was made for forms, so what RFC 2046 allows beyond
them is added here: a preamble, and white space behind the first boundary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

MOST_HEADERS = 16
"""Headers of one part."""
LONGEST_HEADER = 4096
"""Bytes of one header of a part."""
LONGEST_PREAMBLE = 64 << 10
"""Bytes before the first boundary."""
_LONGEST_LINE = 1024
"""Bytes of a boundary's line, the white space behind it included."""

# RFC 2046 5.1.1, and a space anywhere, which some clients write.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{1,70}(?<! )\Z")


class MalformedBodyError(Exception):
    """The body is not what its Content-Type says. The text says how, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type with its parameters (RFC 9110 8.3.1). Type and names of parameters are in lower case."""

    name: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, header: str) -> MediaType:
        """Read a Content-Type; what is no media type gets an empty name."""
        name, parameters = parse_options_header(header)
        decoded = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in parameters.items()}
        return cls(name.decode("latin-1").strip(), decoded)


@dataclass(frozen=True, slots=True)
class PartBegins:
    """The head of a part. Names of headers are in lower case; of one that comes twice the last stands."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    """Some of a part's bytes, at least one."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The part is whole."""


PartEvent: TypeAlias = PartBegins | PartData | PartEnds


def boundary_of(media_type: MediaType) -> bytes:
    """Return the boundary of a multipart body.

    Raises
    ------
    MalformedBodyError
        If there is none, or none that RFC 2046 5.1.1 allows.
    """
    boundary = media_type.parameters.get("boundary", "")
    if not boundary:
        raise MalformedBodyError("the Content-Type names no boundary; name the one that stands between the parts")
    if _BOUNDARY.match(boundary) is None:
        raise MalformedBodyError(
            "the boundary is none of RFC 2046: 1 to 70 letters, digits and '()+_,-./:=?, no space at the end"
        )
    return boundary.encode("ascii")


class _Preamble:
    """Looks for the first delimiter: at the very beginning, or at the beginning of a line."""

    def __init__(self, boundary: bytes) -> None:
        self._line = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"(?:(--)|[ \t]*\r\n)")
        self._boundary = boundary
        self._seen = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """Return the body from its first boundary on, as soon as that has come."""
        begin = max(0, len(self._seen) - _LONGEST_LINE)
        self._seen += data
        found = self._line.search(self._seen, begin)
        if found is not None:
            closing = found.group(1)
            return b"--" + self._boundary + (closing or b"\r\n") + bytes(self._seen[found.end() :])
        if len(self._seen) > LONGEST_PREAMBLE:
            raise MalformedBodyError(
                f"its boundary does not stand in the first {LONGEST_PREAMBLE >> 10} KiB;"
                " a boundary is a line of its own that begins with two hyphens and ends with CR LF"
            )
        return None


class MultipartReader:
    """Takes a body piece by piece and tells of its parts.

    Parameters
    ----------
    boundary
        What `boundary_of` returned.
    """

    def __init__(self, boundary: bytes) -> None:
        self._preamble: _Preamble | None = _Preamble(boundary)
        self._events: list[PartEvent] = []
        self._headers: dict[str, str] = {}
        self._name = b""
        self._value = b""
        self._over = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_begin": self._header_begins,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_part_end": self._part_ends,
                "on_end": self._ends,
            },
            max_header_count=MOST_HEADERS,
            max_header_size=LONGEST_HEADER,
        )

    def feed(self, data: bytes) -> list[PartEvent]:
        """Take the next piece; return what it told of the parts.

        Raises
        ------
        MalformedBodyError
            If this is no multipart body with that boundary. What was told of before stands.
        """
        if self._preamble is not None:
            begun = self._preamble.feed(data)
            if begun is None:
                return []
            self._preamble, data = None, begun
        try:
            self._parser.write(data)
        except (MultipartParseError, FormParserError) as error:
            raise MalformedBodyError(f"the head of a part cannot be read ({error})") from None
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Say that nothing more comes.

        Raises
        ------
        MalformedBodyError
            If the closing boundary has not come.
        """
        if self._preamble is not None:
            raise MalformedBodyError(
                "its boundary does not stand in it; the boundary in the Content-Type must be that of the body,"
                " and lines end with CR LF"
            )
        if not self._over:
            raise MalformedBodyError(
                "it ends without its closing boundary (two hyphens, the boundary, two hyphens), so its last part may be"
                " cut off"
            )

    def _part_begins(self) -> None:
        self._headers = {}

    def _header_begins(self) -> None:
        self._name = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()

    def _headers_end(self) -> None:
        self._events.append(PartBegins(self._headers))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(memoryview(data)[start:end]))

    def _part_ends(self) -> None:
        self._events.append(PartEnds())

    def _ends(self) -> None:
        self._over = True


async def part_events(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[PartEvent]:
    """Read a body to its end and tell of its parts; whatever stands behind the closing boundary is read and dropped.

    Raises
    ------
    MalformedBodyError
        See `MultipartReader`.
    """
    reader = MultipartReader(boundary)
    async for piece in body:
        for event in reader.feed(piece):
            yield event
    reader.close()
