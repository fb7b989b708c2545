"""Objects that somebody else puts into the bucket: by presigned addresses, whole or in parts.

Of an upload in parts the bucket keeps the parts until it is completed or aborted, and no list of objects shows them:
whoever begins one sees to its end.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from botocore.exceptions import ClientError

from voxelmill_shared.concurrency import each
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.storage.s3_errors import answering
from voxelmill_shared.storage.s3_presign import Signer, check_duration
from voxelmill_shared.storage.s3_stream import bare
from voxelmill_shared.storage.s3_upload import listed_parts, listed_uploads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from datetime import timedelta
    from pathlib import Path

    from voxelmill_shared.storage.s3_upload import ByteBudget

_PROBE = "probe"
_ABORTS_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the bucket has. `number` is from 1, `size` in bytes, `etag` without quotes, `came` when it did."""

    number: int
    size: int
    etag: str
    came: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Makes addresses for a while, all of which end at one moment."""

    signer: Signer
    full: Callable[[str], str]

    @property
    def until(self) -> datetime:
        """When they end. Credentials that end sooner end them, too."""
        return self.signer.now + self.signer.expires

    def get(self, key: str) -> str:
        """Make the address that reads an object."""
        return self.signer.address("GET", self.full(key))

    def put(self, key: str, length: int | None = None) -> str:
        """Make the address that writes an object, of `length` bytes and no other number if it is given."""
        return self.signer.address("PUT", self.full(key), length=length)

    def put_part(self, key: str, upload: str, number: int, length: int | None = None) -> str:
        """Make the address that writes one part of an upload."""
        query = {"partNumber": str(number), "uploadId": upload}
        return self.signer.address("PUT", self.full(key), query=query, length=length)


@dataclass(frozen=True, slots=True)
class Parts:
    """The uploads in parts of one S3 store.

    An upload that the server does not know (any more) raises `ObjectMissingError`; else the errors of `ObjectStore`.

    Parameters
    ----------
    client
        Gives the store's open client.
    session
        Gives the session that it was made by, for the credentials.
    bucket, prefix, address
        The bucket, what stands before every key, and the store's name for people.
    full
        Makes the whole key of one that is relative to the store.
    memory
        The bound on what is in memory.
    """

    client: Callable[[], Awaitable[Any]]
    session: Callable[[], Any]
    bucket: str
    prefix: str
    address: str
    full: Callable[[str], str]
    memory: ByteBudget

    async def addresses(self, expires: timedelta, *, now: datetime | None = None) -> Addresses:
        """Return what makes addresses (SigV4) by which anyone reads or writes for a while, without credentials.

        They name the server as this process does.

        Raises
        ------
        ValueError
            If `expires` is less than a second or more than seven days.
        """
        check_duration(expires)
        client = await self.client()
        with answering(self.address, ""):
            # Where the bucket is, and in which region, the library says: it knows the rules.
            probe = await client.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": _PROBE})
            held = await (await self.session().get_credentials()).get_frozen_credentials()
        base, _, query = probe.partition("?")
        region = parse_qs(query)["X-Amz-Credential"][0].split("/")[2]
        signer = Signer(
            base.removesuffix(f"/{_PROBE}"),
            held.access_key,
            held.secret_key,
            held.token or "",
            region,
            now or datetime.now(UTC),
            expires,
        )
        return Addresses(signer, self.full)

    async def begin(self, key: str, media_type: str) -> str:
        """Begin an upload and return the server's name of it."""
        full = self.full(key)
        client = await self.client()
        with answering(self.address, key):
            answer = await client.create_multipart_upload(Bucket=self.bucket, Key=full, ContentType=media_type)
        return str(answer["UploadId"])

    async def send(self, key: str, upload: str, number: int, path: Path, size: int) -> Part:
        """Put a file of `size` bytes as one part. It is read into memory as a whole: keep it to tens of MiB."""
        full = self.full(key)
        client = await self.client()
        async with self.memory.of(size):
            body = await asyncio.to_thread(path.read_bytes)
            with answering(self.address, key), _known(key):
                answer = await client.upload_part(
                    Bucket=self.bucket, Key=full, UploadId=upload, PartNumber=number, Body=body
                )
        return Part(number, len(body), bare(answer["ETag"]))

    async def sent(self, key: str, upload: str) -> list[Part]:
        """Return the parts that the server has, by number and then by when they came.

        Of a part that was sent again with other bytes S3 has the last one alone. SeaweedFS lists both, with times of
        whole seconds.
        """
        where = {"Bucket": self.bucket, "Key": self.full(key)}
        client = await self.client()
        with answering(self.address, key), _known(key):
            found = [
                Part(part["PartNumber"], part["Size"], bare(part["ETag"]), part["LastModified"])
                async for part in listed_parts(client, where, upload)
            ]
        return sorted(found, key=lambda part: (part.number, part.came))

    async def complete(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        """Let the server put parts together to the object; what it got besides them it throws away."""
        full = self.full(key)
        client = await self.client()
        chosen = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        with answering(self.address, key), _known(key):
            await client.complete_multipart_upload(
                Bucket=self.bucket, Key=full, UploadId=upload, MultipartUpload={"Parts": chosen}
            )

    async def abort(self, key: str, upload: str) -> None:
        """Throw an upload's parts away; no error if there is no such upload any more."""
        full = self.full(key)
        client = await self.client()
        try:
            with answering(self.address, key), _known(key):
                await client.abort_multipart_upload(Bucket=self.bucket, Key=full, UploadId=upload)
        except ObjectMissingError:
            return

    async def abort_all(self, prefix: str) -> int:
        """Abort every upload of keys that begin with `prefix`; return how many there were."""
        client = await self.client()
        with answering(self.address, prefix):
            found = await listed_uploads(client, self.bucket, self.prefix + prefix)
        names = [(one["Key"], one["UploadId"]) for one in found if one["Key"].startswith(self.prefix + prefix)]

        async def abort(name: tuple[str, str]) -> None:
            await self.abort(name[0].removeprefix(self.prefix), name[1])

        await each(abort, names, _ABORTS_AT_A_TIME)
        return len(names)


@contextmanager
def _known(key: str) -> Iterator[None]:
    """Tell an upload that the server does not know from a server that is out of order."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchUpload":
            raise ObjectMissingError(key) from error
        raise
