"""Fetching weights over HTTP from a real server that stops, resumes, changes and lies."""

from __future__ import annotations

import hashlib
import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from unit.segment.test_totalsegmentator_weights import NAME, make_dataset, network, zipped
from voxelmill_segment.totalsegmentator.weights import WeightsFolder
from voxelmill_segment.totalsegmentator.weights_download import WeightsUnreachableError, download
from voxelmill_segment.totalsegmentator.weights_import import WeightsRefusedError

if TYPE_CHECKING:
    from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Serves one body, with ranges. `cuts` says after how many bytes each answer breaks off."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.ranges = True
        self.cuts: list[int] = []
        self.asked: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/w.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        etag = f'"{hashlib.md5(server.body, usedforsecurity=False).hexdigest()}"'
        start = 0
        if asked and server.ranges and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(server.body)
        self.wfile.write(server.body[start : start + cut])
        self.close_connection = True


@pytest.fixture
def server(tmp_path: Path):
    made = make_dataset(tmp_path / "given", content=b"numbers" * 20_000)
    serving = Server(zipped(made, tmp_path / "given.zip").read_bytes())
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.fixture
def weights(tmp_path: Path) -> WeightsFolder:
    return WeightsFolder(tmp_path / "weights")


def kept(weights: WeightsFolder) -> int:
    """How many bytes of a download wait to be gone on with."""
    return sum(path.stat().st_size for path in (weights.path / ".downloads").glob("*.part"))


def test_a_download_is_imported_verified_and_leaves_nothing(server: Server, weights: WeightsFolder) -> None:
    """The report ends at all of it."""
    told: list[tuple[int, int]] = []
    done = download(weights, NAME, server.address, lambda here, total: told.append((here, total)))
    assert done.outcome == "imported"
    assert weights.verify(NAME) == ()
    assert weights.missing([network()]) == ()
    assert told[-1] == (len(server.body), len(server.body))
    assert kept(weights) == 0


def test_a_broken_download_goes_on_where_it_was(server: Server, weights: WeightsFolder) -> None:
    """Within one call, as long as each try brings something."""
    server.cuts = [100, 50]
    download(weights, NAME, server.address, lambda *_: None)
    assert server.asked == [None, "bytes=100-", "bytes=150-"]
    assert weights.verify(NAME) == ()


def test_a_download_goes_on_after_the_command_has_given_up(server: Server, weights: WeightsFolder) -> None:
    """A server that breaks off again and again is left; what came is kept for the next start."""
    server.cuts = [40, 40, 40, 40, 40]
    with pytest.raises(WeightsUnreachableError, match="200 bytes are kept, start again and it goes on"):
        download(weights, NAME, server.address, lambda *_: None)
    assert kept(weights) == 200
    download(weights, NAME, server.address, lambda *_: None)
    assert server.asked[-1] == "bytes=200-"
    assert weights.verify(NAME) == ()


def test_a_file_that_changed_between_is_fetched_from_its_beginning(
    server: Server, weights: WeightsFolder, tmp_path: Path
) -> None:
    """Two halves of two files are no file."""
    server.cuts = [40, 40, 40, 40, 40]
    with pytest.raises(WeightsUnreachableError):
        download(weights, NAME, server.address, lambda *_: None)
    server.body = zipped(make_dataset(tmp_path / "b", content=b"others" * 9_000), tmp_path / "b.zip").read_bytes()
    download(weights, NAME, server.address, lambda *_: None)
    other = WeightsFolder(tmp_path / "b")
    assert weights.digest([network()]) == other.digest([network()])


def test_a_server_without_ranges_serves_too(server: Server, weights: WeightsFolder) -> None:
    """It is asked for the rest and sends all of it."""
    server.cuts, server.ranges = [100], False
    download(weights, NAME, server.address, lambda *_: None)
    assert weights.verify(NAME) == ()


def test_a_process_that_died_between_fetching_and_importing_fetches_nothing_again(
    server: Server, weights: WeightsFolder
) -> None:
    """All of it is here: the server says that there is no more (416)."""
    download(weights, NAME, server.address, lambda *_: None)
    (weights.path / NAME).rename(weights.path / "gone")
    part = weights.path / ".downloads" / f"{NAME}.zip.part"
    part.write_bytes(server.body)
    etag = hashlib.md5(server.body, usedforsecurity=False).hexdigest()
    part.with_suffix(".json").write_text(f'{{"etag": "\\"{etag}\\""}}')
    told: list[int] = []
    download(weights, NAME, server.address, lambda here, _: told.append(here))
    assert told == []
    assert weights.verify(NAME) == ()


def test_damage_on_the_server_is_refused_and_not_kept(server: Server, weights: WeightsFolder) -> None:
    """Going on from damaged bytes would never end well."""
    server.body = server.body[:200] + bytes(50) + server.body[250:]
    with pytest.raises(WeightsRefusedError, match="fetch it again"):
        download(weights, NAME, server.address, lambda *_: None)
    assert kept(weights) == 0
    assert weights.datasets() == ()


def test_another_data_set_than_the_one_that_was_asked_for_is_said(server: Server, weights: WeightsFolder) -> None:
    """What came stays: it is sound."""
    with pytest.raises(WeightsRefusedError, match=f"holds {NAME} and not Dataset902_other"):
        download(weights, "Dataset902_other", server.address, lambda *_: None)


def test_a_server_that_is_away_or_has_nothing_is_one_clear_line(server: Server, weights: WeightsFolder) -> None:
    """Nothing is tried five times that cannot come."""
    with pytest.raises(WeightsUnreachableError, match="refused"):
        download(weights, NAME, "http://127.0.0.1:1/w.zip", lambda *_: None)
    server.RequestHandlerClass = type("Empty", (Handler,), {"do_GET": lambda self: self.send_error(404)})
    with pytest.raises(WeightsUnreachableError, match="Not Found"):
        download(weights, NAME, server.address, lambda *_: None)
    assert server.asked == []
