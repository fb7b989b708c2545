"""The request that S3's store makes by hand: signed as the library signs, and what it does not understand, asked again."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from contract.storage_kit import answering, relayed
from voxelmill_shared.errors import ObjectMissingError, StoreUnavailableError
from voxelmill_shared.storage.s3 import S3Store
from voxelmill_shared.storage.s3_plain import PlainGet

if TYPE_CHECKING:
    from servers.seaweedfs import S3Server

BODY = os.urandom(100_000)


@pytest.mark.s3
@pytest.mark.parametrize(
    "key", ["plain/0001.dcm", "a b+c%2B", "100%?x=1&y#z", "Zähne/牙/🦷.dcm", "~!@$^*()_-'\";:,<>[]{}|`"]
)
async def test_one_request_whatever_the_key(bucket: str, s3_environment: S3Server, key: str) -> None:
    """A second request would mean that the signature or the path is wrong for such a key."""
    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, "some/prefix", endpoint_url=relay.endpoint)
        await store.write(key, BODY)
        stat, head = await store.read_head(key, 4096)
        assert head == BODY[:4096]
        assert relay.count("GET") == 1
        assert relay.count("HEAD") == 0
        assert stat == await store.head(key)
        await store.close()


@pytest.mark.s3
async def test_what_breaks_on_its_way_is_asked_for_again(bucket: str, s3_environment: S3Server) -> None:
    """A connection that ends within the answer costs another request, never bytes."""
    async with relayed(s3_environment) as relay:
        store = S3Store(bucket, endpoint_url=relay.endpoint)
        await store.write("a", BODY)
        left = 2

        def cut(data: bytes) -> bytes | None:
            nonlocal left
            left -= 1
            return None if left == 0 else data

        relay.down = cut
        _, head = await store.read_head("a", 80_000)
        assert head == BODY[:80_000]
        assert relay.count("GET") > 1
        await store.close()


@pytest.mark.s3
async def test_errors_are_those_of_the_library(bucket: str, s3_environment: S3Server) -> None:
    """What is missing is missing, and a wrong key is said to be wrong."""
    store = S3Store(bucket)
    with pytest.raises(ObjectMissingError):
        await store.read_head("nothing", 10)
    await store.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        stranger = S3Store(bucket)
        with pytest.raises(StoreUnavailableError, match="secret key is wrong"):
            await stranger.read_head("nothing", 10)
        await stranger.close()


async def test_a_server_that_knows_no_ranges_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole object instead of its head: asked again through the library, and cut to what was wanted."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    headers = {"ETag": '"x"', "Last-Modified": "Sat, 21 Nov 2026 14:49:02 GMT"}
    async with answering(lambda *_: (200, headers, b"0123456789")) as endpoint:
        store = S3Store("bucket", endpoint_url=endpoint)
        stat, head = await store.read_head("a", 4)
        assert (stat.size, head) == (10, b"0123")
        await store.close()


@pytest.mark.parametrize("token", [None, "a+token/of=a-role"])
@pytest.mark.parametrize("path", ["/bucket/a", "/bucket/Z%C3%A4hne/a%20b%2Bc.dcm"])
def test_the_signature_is_the_librarys(path: str, token: str | None) -> None:
    """For the same moment the library signs the same headers with the same signature."""
    credentials = Credentials("access", "secret", token)

    client = SimpleNamespace(_endpoint=SimpleNamespace(http_session=None))
    get = PlainGet(client, credentials, "eu-central-1", "https://s3.example.org:8333/bucket")
    ours = get._signed(path, "bytes=0-16383", credentials.get_frozen_credentials())
    request = AWSRequest("GET", f"https://s3.example.org:8333{path}", headers={"Range": "bytes=0-16383"})
    request.context["timestamp"] = ours["x-amz-date"]
    for name in ours:
        if name.startswith("x-amz-"):
            request.headers[name] = ours[name]
    auth = S3SigV4Auth(credentials, "s3", "eu-central-1")
    theirs = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert ours["Authorization"].endswith(f"Signature={theirs}")
