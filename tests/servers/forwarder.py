"""Between a client and a server: forwards bytes, and knows which requests went by and how much was sent."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HEAD = re.compile(rb"([A-Z]+) (/[^ ]*) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)*)\r\n")
_PIECE = 1 << 16


class Forwarder:
    """A listener on loopback that passes every connection on to `endpoint`.

    `sent` is the number of bytes that clients have sent through it. `before` is called with method, path and headers
    (lower case) of every request, and the server does not get it before that has returned.
    """

    def __init__(self, endpoint: str, *, before: Callable[[str, str, str], None] | None = None) -> None:
        target = urlsplit(endpoint)
        assert target.hostname
        assert target.port
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self._before = before
        self._heads: list[tuple[str, str, str]] = []
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def requests(self, method: str) -> list[tuple[str, str]]:
        """Return the path and the headers (lower case) of every request so far that had this method."""
        with self._lock:
            return [(path, headers) for found, path, headers in self._heads if found == method]

    def asked(self) -> list[tuple[str, str, str]]:
        """Return method, path and headers (lower case) of every request so far, in their order."""
        with self._lock:
            return list(self._heads)

    def forget(self) -> None:
        """Count from here."""
        with self._lock:
            self._heads.clear()
            self.sent = 0

    def wait_until_sent(self, size: int, seconds: float = 60) -> None:
        """Return when clients have sent so many bytes."""
        deadline = time.monotonic() + seconds
        while self.sent < size:
            assert time.monotonic() < deadline, f"only {self.sent} bytes were sent"
            time.sleep(0.005)

    def close(self) -> None:
        """End every connection."""
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:  # closed
                return
            self._open += (client, server)
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, asked: bool) -> None:
        rest = b""
        with suppress(OSError):  # one of the two was killed
            while piece := source.recv(_PIECE):
                if asked:
                    rest = self._read(rest + piece)
                    with self._lock:
                        self.sent += len(piece)
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _read(self, seen: bytes) -> bytes:
        end = 0
        for match in _HEAD.finditer(seen):
            method, path, headers = (group.decode("latin-1") for group in match.groups())
            with self._lock:
                self._heads.append((method, path, headers.lower()))
            if self._before:
                self._before(method, path, headers.lower())
            end = match.end()
        return seen[end:][-8192:]  # what may be the beginning of a head


@contextmanager
def forwarding(endpoint: str, *, before: Callable[[str, str, str], None] | None = None) -> Iterator[Forwarder]:
    """Give a forwarder, and close it at the end."""
    forwarder = Forwarder(endpoint, before=before)
    try:
        yield forwarder
    finally:
        forwarder.close()
