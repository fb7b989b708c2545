"""The client of the gateway benchmark, a process of its own: the same requests over the same library to every server.

usage: gateway_client.py TEMPLATES, then one JSON object a line on standard input; each is answered by one line.

`TEMPLATES` is a pickle of `series_copies.Template`. A line is a phase:

- `{"phase": "prepare", "name", "requests"}` puts the bodies of a new series together, in so many requests;
- `{"phase": "stow", "port", "path", "connections"}` sends what was prepared;
- `{"phase": "qido", "port", "paths"}` asks one after the other, over one connection;
- `{"phase": "wado", "port", "path"}` fetches a series.

The clock never runs while something is prepared. Times are monotonic, the same clock in every process of a machine.
"""

from __future__ import annotations

import http.client
import json
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from series_copies import Template, new_uid

BOUNDARY = "voxelmill-benchmark-boundary"
TIMEOUT = 300
PIECE = 1 << 20
_HEAD = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
_END = f"--{BOUNDARY}--\r\n".encode()
JSON = {"Accept": "application/dicom+json"}


class Client:
    """Does one phase after the other."""

    def __init__(self, templates: list[Template]) -> None:
        self._templates = templates
        self._bodies: list[list[bytes]] = []

    def prepare(self, phase: dict[str, Any]) -> dict[str, Any]:
        """Make the bodies of a series; each is a list of pieces, so that nothing is copied."""
        name, requests = phase["name"], phase["requests"]
        study, series = new_uid(name, "study"), new_uid(name, "series")
        copies = [one.copy(study, series, new_uid(name, n)) for n, one in enumerate(self._templates)]
        self._bodies = [
            [piece for copy in copies[n::requests] for piece in (_HEAD, copy, b"\r\n")] + [_END]
            for n in range(requests)
        ]
        return {"study": study, "series": series, "bytes": sum(map(len, copies))}

    def stow(self, phase: dict[str, Any]) -> dict[str, Any]:
        """Send the bodies; every instance must be stored."""
        bodies = iter(self._bodies)

        def send(_: int) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", phase["port"], timeout=TIMEOUT)
            stored = 0
            for body in bodies:
                headers = {
                    "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
                    "Content-Length": str(sum(map(len, body))),
                    **JSON,
                }
                connection.request("POST", phase["path"], body=iter(body), headers=headers)
                stored += len(_answer(connection)["00081199"]["Value"])
            connection.close()
            return stored

        with ThreadPoolExecutor(phase["connections"]) as threads:
            return {"stored": sum(threads.map(send, range(phase["connections"])))}

    def qido(self, phase: dict[str, Any]) -> dict[str, Any]:
        """Ask; return for each how many milliseconds it took and how many results it had."""
        connection = http.client.HTTPConnection("127.0.0.1", phase["port"], timeout=TIMEOUT)
        taken, found = [], []
        for path in phase["paths"]:
            begun = time.perf_counter()
            connection.request("GET", path, headers=JSON)
            answer = connection.getresponse()
            text = answer.read()
            taken.append((time.perf_counter() - begun) * 1000)
            if answer.status not in {200, 204}:
                raise SystemExit(f"{path}: {answer.status} {text[:300]!r}")
            found.append(len(json.loads(text)) if text else 0)
        connection.close()
        return {"milliseconds": taken, "found": found}

    def wado(self, phase: dict[str, Any]) -> dict[str, Any]:
        """Fetch a series as it is stored."""
        connection = http.client.HTTPConnection("127.0.0.1", phase["port"], timeout=TIMEOUT)
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        connection.request("GET", phase["path"], headers={"Accept": accept})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"{phase['path']}: {answer.status} {answer.read()[:300]!r}")
        buffer, received = bytearray(PIECE), 0
        while count := answer.readinto(buffer):
            received += count
        connection.close()
        return {"bytes": received}


def _answer(connection: http.client.HTTPConnection) -> dict[str, Any]:
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"STOW: {answer.status} {text[:300]!r}")
    found: dict[str, Any] = json.loads(text)
    return found


def main(templates: list[Template]) -> None:
    """Do phase after phase, until there are no more."""
    client = Client(templates)
    for line in sys.stdin:
        phase = json.loads(line)
        begun, spent = time.monotonic(), time.process_time()
        answer = getattr(client, phase["phase"])(phase)
        answer |= {"begun": begun, "ended": time.monotonic(), "cpu_seconds": time.process_time() - spent}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(pickle.loads(Path(sys.argv[1]).read_bytes()))  # noqa: S301 - the benchmark has written it
