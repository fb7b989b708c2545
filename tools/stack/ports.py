"""Loopback ports: finding free ones, and asking who answers."""

from __future__ import annotations

import http.client
import json
import random
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOST = "127.0.0.1"
FIRST, LAST = 12_000, 22_000
"""Below the range from which the system gives ports to clients, so that none is taken before a server uses it."""


def free_ports(count: int, also: Sequence[int] = ()) -> int:
    """Find `count` free neighbouring ports and return the first; each one plus every number in `also` is free too."""
    while True:
        first = random.randrange(FIRST, LAST)
        if are_free(first + number + offset for number in range(count) for offset in (0, *also)):
            return first


def are_free(ports: Iterable[int]) -> bool:
    """Whether nothing listens on any of the ports."""
    return all(map(_is_free, ports))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections that ended a moment ago still occupy the port for whoever does not say this.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether something listens on a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def get(port: int, path: str) -> tuple[int, bytes]:
    """Ask by HTTP; return the status and the body, or status 0 if nobody answers in time."""
    connection = http.client.HTTPConnection(HOST, port, timeout=3)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, OSError):
        return 0, b""
    finally:
        connection.close()


def is_healthy(port: int) -> bool:
    """Whether `GET /healthz` is answered with 200."""
    return get(port, "/healthz")[0] == http.client.OK


def unready(port: int) -> str:
    """Ask a service's `/readyz`; return an empty string if it is ready, else what it waits for."""
    status, body = get(port, "/readyz")
    if status == http.client.OK:
        return ""
    try:
        checks = json.loads(body)["checks"]
        return "; ".join(f"{name}: {answer}" for name, answer in checks.items() if answer != "ok")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it does not answer"
