"""Standard output that says of itself when it cannot be written, and takes every character."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from voxelmill_cli.errors import EXIT_INPUT_FAILED, explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

OUTPUT = "standard output"
"""What stands as the file's name in an `OSError` of it."""


class _Named(io.FileIO):
    """The system does not say which file could not be written; here it is known."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = OUTPUT
            raise


def open_output(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Give another `stream` on the same descriptor: what its encoding lacks is written as an escape."""
    raw = _Named(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=raw.isatty()
    )


@contextmanager
def output_at_end(code: object) -> Iterator[None]:
    """Write the last, and what is left. If that fails: one line, or none if the reader has gone (`| head`).

    `code` is the exit code that the command has come to; if that is success, it was none.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename != OUTPUT:
            raise
        # The interpreter would try once more at its end, and fail.
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, sys.stdout.fileno())
        os.close(nobody)
        if error.errno != errno.EPIPE:
            sys.stderr.write(f"voxelmill: {explain(error)}\n")
        if not code:
            sys.exit(EXIT_INPUT_FAILED)
