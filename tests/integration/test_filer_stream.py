"""The stream of a real filer: what S3 clients do, told as uploads."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from servers.private import free_ports
from voxelmill_ingest.triggers.announcer import Announcer
from voxelmill_ingest.triggers.filer import build_bridge
from voxelmill_ingest.triggers.filer_messages import SUBSCRIBE, SubscribeMetadataRequest, SubscribeMetadataResponse
from voxelmill_ingest.triggers.filer_stream import FilerStream
from voxelmill_ingest.triggers.reach import SourceUnavailableError
from voxelmill_ingest.triggers.settings import IngestProcessSettings
from voxelmill_shared.database import open_database
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.transport.embedded import EmbeddedTransport

PART = 5 << 20
LAST = "the last one"


async def told(stream, since_ns, last=LAST):
    """Read the stream up to the upload of `last`; return its changes with an upload."""
    changes = []
    async with asyncio.timeout(30), aclosing(stream.changes(since_ns)) as telling:
        async for change in telling:
            if change.notification is not None:
                changes.append(change)
                if change.notification.key == last:
                    break
    return changes


@pytest.fixture
def client(s3_environment):
    client = s3_environment.client()
    yield client
    client.close()


def multipart(client, bucket, key, *parts):
    """Put an object in parts; return its ETag."""
    upload = {"Bucket": bucket, "Key": key}
    upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
    done = []
    for number, body in enumerate(parts, 1):
        stored = client.upload_part(**upload, PartNumber=number, Body=body)
        done.append({"PartNumber": number, "ETag": stored["ETag"]})
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})


@pytest.mark.s3
async def test_what_clients_put_is_told_with_key_size_and_etag_as_s3_says(seaweedfs, client, bucket):
    """Single puts, parts, copies and overwritten objects; and nothing of tags, deletions, folders and parts."""
    client.put_object(Bucket=bucket, Key="p1/a b+é%2F.dcm", Body=b"one")
    client.put_object(Bucket=bucket, Key="p1/empty", Body=b"")
    client.put_object(Bucket=bucket, Key="p1/folder/", Body=b"")
    multipart(client, bucket, "p1/multi", b"x" * PART, b"y")
    client.put_object_tagging(Bucket=bucket, Key="p1/multi", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "p1/multi"})
    client.put_object(Bucket=bucket, Key="gone", Body=b"gone")
    client.delete_object(Bucket=bucket, Key="gone")
    client.put_object(Bucket=bucket, Key="p1/empty", Body=b"no more")
    client.put_object(Bucket=bucket, Key=LAST, Body=b"last")
    changes = await told(FilerStream(seaweedfs.filer, f"/buckets/{bucket}/"), 1)
    expected = ["p1/a b+é%2F.dcm", "p1/empty", "p1/multi", "copy", "gone", "p1/empty", LAST]
    assert [change.notification.key for change in changes] == expected
    newest = {change.notification.key: change.notification for change in changes}
    del newest["gone"]
    for key, notification in newest.items():
        head = client.head_object(Bucket=bucket, Key=key)
        assert notification.bucket == bucket
        assert (notification.etag, notification.size) == (head["ETag"].strip('"'), head["ContentLength"])
    assert [change.ts_ns for change in changes] == sorted(change.ts_ns for change in changes)


@pytest.mark.s3
async def test_a_versioned_object_is_told_once_for_each_version(seaweedfs, client, bucket):
    """SeaweedFS keeps versions in a folder of its own; the key and the version are those that S3 knows."""
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    versions = [client.put_object(Bucket=bucket, Key="v/a.dcm", Body=body)["VersionId"] for body in (b"1", b"22")]
    client.delete_object(Bucket=bucket, Key="v/a.dcm")
    client.put_object(Bucket=bucket, Key=LAST, Body=b"last")
    changes = await told(FilerStream(seaweedfs.filer, f"/buckets/{bucket}/"), 1)
    found = [(change.notification.key, change.notification.version_id) for change in changes[:-1]]
    listed = client.list_object_versions(Bucket=bucket)
    for kind in ("Versions", "DeleteMarkers"):
        for one in listed.get(kind, ()):
            client.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
    assert found == [("v/a.dcm", version) for version in versions]


@pytest.mark.s3
async def test_a_stream_begins_where_it_is_told_to_that_moment_included(seaweedfs, client, bucket):
    """Read again from the time of any change, that change comes again and none before."""
    for number in range(5):
        client.put_object(Bucket=bucket, Key=f"n{number}", Body=b"x")
    client.put_object(Bucket=bucket, Key=LAST, Body=b"last")
    stream = FilerStream(seaweedfs.filer, f"/buckets/{bucket}/")
    changes = await told(stream, 1)
    for start, change in enumerate(changes):
        assert await told(stream, change.ts_ns) == changes[start:]


@pytest.mark.s3
async def test_only_what_lies_under_the_prefix_is_told(seaweedfs, client, bucket):
    """Results in the same bucket are not even sent."""
    for key in ("results/a", "inbox/a", "inboxes/a", "inbox/" + LAST):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    changes = await told(FilerStream(seaweedfs.filer, f"/buckets/{bucket}/inbox/"), 1, "inbox/" + LAST)
    assert [change.notification.key for change in changes] == ["inbox/a", "inbox/" + LAST]


@pytest.mark.s3
async def test_a_quiet_filer_shows_at_once_that_it_is_alive(seaweedfs, bucket):
    """An open stream is told of before anything changes: a bridge must know whether it is open."""
    async with asyncio.timeout(10), aclosing(FilerStream(seaweedfs.filer, f"/buckets/{bucket}/").changes(1)) as stream:
        change = await anext(stream)
        while change.ts_ns:  # the making of the bucket itself may be told first
            assert change.notification is None
            change = await anext(stream)
    assert change.notification is None


async def test_a_filer_that_is_away_is_one_clear_line():
    """Nothing listens there: the reason, and soon."""
    stream = FilerStream(f"127.0.0.1:{free_ports(1)}", "/buckets/b/")
    with pytest.raises(SourceUnavailableError, match=r"UNAVAILABLE: .*Connection refused"):
        async with asyncio.timeout(30), aclosing(stream.changes(1)) as changes:
            await anext(changes)


def certificates(folder):
    """Make an authority, and a certificate of it for both ends, as PEM files."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    now = datetime.now(UTC)
    for file, subject, key, extension in (
        ("ca", authority, keys[0], x509.BasicConstraints(ca=True, path_length=None)),
        ("own", name, keys[1], x509.SubjectAlternativeName([x509.DNSName("localhost")])),
    ):
        builder = x509.CertificateBuilder(authority, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        signed = builder.add_extension(extension, critical=False).sign(keys[0], hashes.SHA256())
        (folder / f"{file}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "own.key").write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, *plain))


@asynccontextmanager
async def filer_with_mutual_tls(folder):
    """A gRPC server that lets in who shows a certificate of the authority's, as a filer with `[grpc.filer]` does."""

    async def subscribe(request, _):
        event = {"new_parent_path": "/buckets/b", "new_entry": {"name": request.client_name}}
        yield SubscribeMetadataResponse(ts_ns=1, event_notification=event)

    handler = grpc.unary_stream_rpc_method_handler(
        subscribe, SubscribeMetadataRequest.FromString, SubscribeMetadataResponse.SerializeToString
    )
    service, method = SUBSCRIBE.strip("/").split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    own, key, ca = ((folder / name).read_bytes() for name in ("own.pem", "own.key", "ca.pem"))
    credentials = grpc.ssl_server_credentials([(key, own)], ca, require_client_auth=True)
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)


async def test_a_filer_that_asks_for_a_certificate_is_shown_ours(tmp_path):
    """With authority, certificate and key of the settings the stream opens; without them it does not."""
    certificates(tmp_path)
    async with filer_with_mutual_tls(tmp_path) as address:
        files = {"ca": "ca.pem", "cert": "own.pem", "key": "own.key"}
        settings = IngestProcessSettings(
            inbox_url="s3://b",
            seaweedfs_filer=address,
            **{f"seaweedfs_filer_{name}": tmp_path / file for name, file in files.items()},
        )
        inbox = open_store("s3://b")
        engine = open_database(f"sqlite:///{tmp_path}/ledger.db")
        transport = EmbeddedTransport(tmp_path / "broker.db")
        stream = build_bridge(settings, Announcer(inbox, transport, "test"), engine).stream
        assert [change.notification.key for change in await told(stream, 1, "voxelmill")] == ["voxelmill"]
        with pytest.raises(SourceUnavailableError):
            await told(FilerStream(address, "/buckets/b/"), 1, "voxelmill")
        await inbox.close()
        await engine.dispose()
        await transport.close()
