"""The bucket that is connected, and the servers that are known."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from voxelmill_cli.errors import CommandError
from voxelmill_shared.errors import UnsafeKeyError
from voxelmill_shared.storage.keys import check_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping

EXCHANGE = "bucket.notifications"
"""One for all buckets: Ceph 16 uses one exchange of a broker for all its topics."""
OWN_EXCHANGES = "voxelmill."
"""What the names of the exchanges begin with that carry events, not notifications."""


class ExchangeType(StrEnum):
    """Of the exchange that a store publishes to."""

    TOPIC = "topic"
    FANOUT = "fanout"
    DIRECT = "direct"


class StoreKind(StrEnum):
    """A server that speaks S3. They differ in how, and whether, they tell of new objects."""

    AWS = "aws"
    CEPH = "ceph"
    MINIO = "minio"
    RUSTFS = "rustfs"
    SEAWEEDFS = "seaweedfs"
    SPACES = "spaces"
    GCS = "gcs"

    @property
    def product(self) -> str:
        """The server's own name."""
        return _PRODUCTS[self]


_PRODUCTS = {
    StoreKind.AWS: "Amazon S3",
    StoreKind.CEPH: "Ceph's object gateway (RGW)",
    StoreKind.MINIO: "MinIO",
    StoreKind.RUSTFS: "RustFS",
    StoreKind.SEAWEEDFS: "SeaweedFS",
    StoreKind.SPACES: "DigitalOcean Spaces",
    StoreKind.GCS: "Google Cloud Storage",
}
_HOSTS = {
    ".amazonaws.com": StoreKind.AWS,
    ".amazonaws.com.cn": StoreKind.AWS,
    ".digitaloceanspaces.com": StoreKind.SPACES,
    ".storage.googleapis.com": StoreKind.GCS,
}


@dataclass(frozen=True, slots=True)
class BucketTarget:
    """A bucket, and what begins with a prefix in it.

    `prefix` is empty for the whole bucket; else it ends with `/`, as `VOXELMILL_INBOX_URL` is understood.
    """

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, address: str) -> BucketTarget:
        """Read `s3://bucket/prefix`; the prefix is as it is, never percent-encoded.

        Raises
        ------
        CommandError
            If the address is of another kind, or could hold no keys of ours.
        """
        scheme, separator, rest = address.partition("://")
        bucket, _, prefix = rest.partition("/")
        prefix = prefix.strip("/")
        if not separator or scheme.lower() != "s3" or not bucket:
            raise CommandError(f"{address}: write s3://bucket or s3://bucket/prefix")
        try:
            check_prefix(prefix)
        except UnsafeKeyError as error:
            raise CommandError(str(error)) from error
        return cls(bucket, f"{prefix}/" if prefix else "")

    @property
    def address(self) -> str:
        """The address, as `VOXELMILL_INBOX_URL` takes it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def objects(self) -> str:
        """What is told of, in words."""
        return f"objects under {self.prefix}" if self.prefix else "all objects"


def kind_by_host(endpoint: str) -> StoreKind | None:
    """Tell a service by the name of its host. None: it may be anything."""
    host = "." + (urlsplit(endpoint).hostname or "")
    return next((kind for ending, kind in _HOSTS.items() if host.endswith(ending)), None)


def kind_by_headers(headers: Mapping[str, str]) -> StoreKind | None:
    """Tell a server by the headers of its answer to a HEAD of the bucket.

    Ceph 16 says nothing of itself, but how much there is in the bucket (`x-rgw-object-count`).
    """
    lower = {name.lower(): value for name, value in headers.items()}
    server = lower.get("server", "").lower()
    for word, kind in (
        ("amazons3", StoreKind.AWS),
        ("rustfs", StoreKind.RUSTFS),
        ("minio", StoreKind.MINIO),
        ("seaweedfs", StoreKind.SEAWEEDFS),
        ("ceph", StoreKind.CEPH),
    ):
        if word in server:
            return kind
    return StoreKind.CEPH if any(name.startswith("x-rgw-") for name in lower) else None
