"""Between the services and the object store: passes bytes on, or breaks what a test wants broken."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from enum import StrEnum
from urllib.parse import urlsplit

_PIECE = 1 << 16
_HEAD_END = b"\r\n\r\n"
_SLOW_BYTES = 256
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset."""


class Mode(StrEnum):
    """What happens to requests.

    `slow` passes on so few bytes a second each way of each connection (`StoreProxy.rate`); `denied` answers every
    GET with 403, `unavailable` every request with 503; `reset` resets every connection.
    """

    OPEN = "open"
    SLOW = "slow"
    RESET = "reset"
    UNAVAILABLE = "unavailable"
    DENIED = "denied"


class StoreProxy:
    """A listener on loopback in front of an S3 server. A change of `mode` breaks the connections that are open."""

    rate = 1024.0
    """Bytes a second, where it is slow."""

    def __init__(self, endpoint: str) -> None:
        target = urlsplit(endpoint)
        assert target.hostname
        assert target.port
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.mode = Mode.OPEN
        self.refused = 0
        """How many requests or connections were broken so far."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True, name="store-proxy").start()

    def become(self, mode: Mode) -> None:
        """Do that from now on."""
        self.mode = mode
        with self._lock:
            opened = list(self._open)
        if mode is not Mode.SLOW:
            for each in opened:
                _end(each, reset=mode is Mode.RESET)

    def close(self) -> None:
        """End every connection."""
        _end(self._listener, reset=False)
        self._listener.close()
        self.become(Mode.OPEN)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, self._known(client), suppress(OSError):
            begun = b""
            if self.mode is Mode.RESET:
                self.refused += 1
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return
            if self.mode in {Mode.UNAVAILABLE, Mode.DENIED}:
                begun = _read_head(client)
                if self.mode is Mode.UNAVAILABLE or begun.startswith(b"GET"):
                    self.refused += 1
                    client.sendall(_answer(self.mode))
                    return
                # One request to a connection, so that each is looked at.
                begun = begun.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            with socket.create_connection(self._target) as server, self._known(server):
                server.sendall(begun)
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server)
                back.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one of the two is gone
            while piece := source.recv(_PIECE):
                self._send(target, piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _send(self, target: socket.socket, piece: bytes) -> None:
        while piece and self.mode is Mode.SLOW:
            target.sendall(piece[:_SLOW_BYTES])
            time.sleep(len(piece[:_SLOW_BYTES]) / self.rate)  # the fault itself, no wait for anything
            piece = piece[_SLOW_BYTES:]
        target.sendall(piece)

    def _known(self, each: socket.socket) -> _Known:
        return _Known(each, self._open, self._lock)


class _Known:
    """A connection that can be broken while it is open."""

    def __init__(self, each: socket.socket, opened: set[socket.socket], lock: threading.Lock) -> None:
        self._each, self._opened, self._lock = each, opened, lock

    def __enter__(self) -> None:
        with self._lock:
            self._opened.add(self._each)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._opened.discard(self._each)


def _read_head(client: socket.socket) -> bytes:
    read = b""
    while _HEAD_END not in read and (piece := client.recv(_PIECE)):
        read += piece
    return read


def _answer(mode: Mode) -> bytes:
    status, code = ("403 Forbidden", "AccessDenied") if mode is Mode.DENIED else ("503 Slow Down", "SlowDown")
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return head.encode() + b"\r\n" + body


def _end(each: socket.socket, *, reset: bool) -> None:
    with suppress(OSError):
        if reset:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        each.shutdown(socket.SHUT_RDWR)
