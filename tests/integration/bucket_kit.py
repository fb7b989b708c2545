"""What the tests of `voxelmill bucket connect` share, and a stand-in for MinIO."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from voxelmill_cli.bucket.connect import Connection, ConnectRequest, connect
from voxelmill_cli.bucket.target import BucketTarget, StoreKind
from voxelmill_ingest.triggers.settings import IngestProcessSettings

if TYPE_CHECKING:
    import pytest


def run(address: str, kind: StoreKind | None = None, *, agree: bool = True, **options: Any) -> Connection:
    """Connect a bucket, or only look."""
    request = ConnectRequest(BucketTarget.parse(address), kind, **options)
    return connect(request, lambda _endpoint, _plan: agree, lambda _line: None)


def states(connection: Connection) -> list[str]:
    """Give what was to be done about each step."""
    return [step.state.name for step in connection.plan.steps]


def settings_of(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> IngestProcessSettings:
    """Give what was told to ingest; it must take all of it."""
    fields = {f"VOXELMILL_{name.upper()}" for name in IngestProcessSettings.model_fields}
    for name, value in connection.plan.variables().items():
        assert name in fields
        monkeypatch.setenv(name, value)
    return IngestProcessSettings()


def trust(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that speaks S3 find a stand-in."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")


class StandIn(BaseHTTPRequestHandler):
    """Answers as MinIO does to what is asked here: it has no CORS, and takes only targets that it knows."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "MinIO", ""
    known: str = ""
    configuration = b"<NotificationConfiguration/>"

    def do_HEAD(self) -> None:
        self._answer(200)

    def do_GET(self) -> None:
        query = urlsplit(self.path).query
        if query == "notification":
            self._answer(200, type(self).configuration)
        elif query == "lifecycle":
            self._fail(404, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
        else:
            self._fail(501, "NotImplemented", "A header you provided implies functionality that is not implemented")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        query = urlsplit(self.path).query
        if query == "lifecycle":
            self._fail(501, "NotImplemented", "no such thing here")
        elif query == "notification" and self.known and self.known.encode() in body:
            type(self).configuration = body
            self._answer(200)
        else:
            self._fail(400, "InvalidArgument", "A specified destination ARN does not exist or is not well-formed.")

    def _fail(self, status: int, code: str, message: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
