"""The one file of a form (`multipart/form-data`, RFC 7578), read piece by piece: it is never held in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from python_multipart.multipart import parse_options_header

from voxelmill_gateway.multipart import (
    MalformedBodyError,
    MediaType,
    PartBegins,
    PartData,
    boundary_of,
    part_events,
)
from voxelmill_gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_FILE: Final = "file"
_NAME: Final = "filename"
_LONGEST_FIELD: Final = 4096


class FileForm:
    """A form with a field `file` and perhaps a field `filename`, in any order, as it is read.

    Parameters
    ----------
    content_type
        The request's `Content-Type`.
    body
        Its body.

    Raises
    ------
    Problem
        415 if it is no form.
    """

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        media_type = MediaType.of(content_type)
        if media_type.name.lower() != "multipart/form-data":
            raise Problem(415, "Not a form", "send multipart/form-data with the fields `file` and `filename`")
        try:
            self._events = part_events(body, boundary_of(media_type))
        except MalformedBodyError as error:
            raise Problem(400, "Unreadable form", str(error)) from None
        self._sent_name = ""
        self._field = b""
        self._seen = False

    @property
    def name(self) -> str:
        """What the sender calls the file, as far as that was read: in the field `filename`, or in the file's part."""
        return self._field.decode("utf-8", "replace") or self._sent_name

    async def file(self) -> AsyncIterator[bytes]:
        """Give the pieces of the file, and read the form to its end.

        Raises
        ------
        Problem
            400 if the form cannot be read, has no file or several.
        """
        inside = ""
        try:
            async for event in self._events:
                if isinstance(event, PartBegins):
                    inside = self._begin(event)
                elif not isinstance(event, PartData):
                    inside = ""
                elif inside == _FILE:
                    yield bytes(event.data)
                elif inside == _NAME:
                    self._field += event.data
                    if len(self._field) > _LONGEST_FIELD:
                        raise Problem(
                            400, "Unreadable form", f"the field `{_NAME}` is longer than {_LONGEST_FIELD} bytes"
                        )
        except MalformedBodyError as error:
            raise Problem(400, "Unreadable form", str(error)) from None
        if not self._seen:
            raise Problem(400, "No file", f"the form has no field `{_FILE}`")

    def _begin(self, part: PartBegins) -> str:
        _, options = parse_options_header(part.headers.get("content-disposition", ""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == _FILE:
            if self._seen:
                raise Problem(400, "Several files", "send one file at a time, a zip say, or use POST /uploads")
            self._seen = True
            self._sent_name = options.get(b"filename", b"").decode("utf-8", "replace")
        return name
