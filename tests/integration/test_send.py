"""Results on their way into a bucket of a real SeaweedFS, without the services that make them."""

from __future__ import annotations

import hashlib
import json

import pytest

from servers.forwarder import forwarding
from voxelmill_cli.errors import CommandError
from voxelmill_cli.export import Exported
from voxelmill_cli.send import Sender, check_folder
from voxelmill_cli.storage.places import BucketAddress
from voxelmill_shared.errors import StoreUnavailableError
from voxelmill_shared.events import ObjectRef, Status
from voxelmill_shared.plan import Plan
from voxelmill_shared.results import Artefact, ManifestInstance, Receipt
from voxelmill_shared.storage.s3 import S3Store

pytestmark = pytest.mark.s3
NAME = "all_segmentation_CT"
OUT = f"out/{NAME}"


def lay_out(root, files, uid="1.2.3"):
    """Make results as a run lays them out: files by name, and the receipt that names them."""
    folder = root / NAME
    artefacts = []
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
        artefacts.append(
            Artefact(name=name, media_type="model/stl", size=len(body), sha256=hashlib.sha256(body).hexdigest())
        )
    instance = ManifestInstance(object=ObjectRef(bucket="inbox", key="a", etag="e", size=1), sop_instance_uid="1.2")
    receipt = Receipt(
        job_id="j", study_instance_uid="1", series_instance_uid=uid, revision=1, modality="CT", status=Status.COMPLETE,
        plan=Plan(), inputs=(instance,), stages={}, artefacts=tuple(artefacts), warnings=(), versions={}, trace_id="",
    )  # fmt: skip
    (folder / "receipt.json").write_bytes(receipt.to_json())
    return Exported(folder, receipt)


@pytest.fixture
async def between(s3_environment):
    """A way to the server that remembers what was asked."""
    with forwarding(s3_environment.endpoint) as forwarder:
        yield forwarder


@pytest.fixture
async def sender(bucket, between):
    store = S3Store(bucket, "out", endpoint_url=between.endpoint)
    yield Sender(store, BucketAddress(bucket, "out"))
    await store.close()


@pytest.fixture
def objects(bucket, s3_environment):
    """What stands in the bucket, by key."""
    client = s3_environment.client()

    def read():
        listed = client.list_objects_v2(Bucket=bucket).get("Contents", ())
        return {one["Key"]: client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}

    yield read
    client.close()


def changes(between):
    """What was put and deleted since the last look, in its order, by the name under the prefix."""
    asked = [
        (method, path.split("?")[0].split("/out/", 1)[1])
        for method, path, _ in between.asked()
        if method in {"PUT", "DELETE"}
    ]
    between.forget()
    return asked


async def test_the_receipt_comes_last_and_nothing_goes_twice(sender, between, objects, tmp_path):
    """Media types are those of the receipt; the address is told; a second time nothing is sent."""
    exported = lay_out(tmp_path, {"a.stl": b"a", "thumbnails/b.webp": b"b" * 1000})
    (exported.folder / "mine.txt").write_text("not named by the receipt")
    sent = await sender.send(exported)
    assert sent.place == f"{sender.address.url}/{NAME}"
    order = changes(between)
    assert sorted(order[:2]) == [("PUT", f"{NAME}/a.stl"), ("PUT", f"{NAME}/thumbnails/b.webp")]
    assert order[2:] == [("PUT", f"{NAME}/receipt.json")]
    assert set(objects()) == {f"{OUT}/a.stl", f"{OUT}/receipt.json", f"{OUT}/thumbnails/b.webp"}
    assert await sender.send(exported) == sent
    assert changes(between) == []


async def test_the_earlier_receipt_goes_before_its_files_do(sender, between, objects, tmp_path):
    """What stays is not sent again, and what is no longer made goes after the new receipt stands."""
    await sender.send(lay_out(tmp_path / "1", {"same.stl": b"same", "other.stl": b"1", "gone.ply": b"gone"}))
    changes(between)
    await sender.send(lay_out(tmp_path / "2", {"same.stl": b"same", "other.stl": b"2"}))
    assert changes(between) == [
        ("DELETE", f"{NAME}/receipt.json"),
        ("PUT", f"{NAME}/other.stl"),
        ("PUT", f"{NAME}/receipt.json"),
        ("DELETE", f"{NAME}/gone.ply"),
    ]
    assert {key: body for key, body in objects().items() if "receipt" not in key} == {
        f"{OUT}/same.stl": b"same",
        f"{OUT}/other.stl": b"2",
    }


async def test_series_of_one_name_stand_apart(sender, objects, tmp_path):
    """The second one gets the end of its UID; somebody else's file of the receipt's name is no series."""
    first = await sender.send(lay_out(tmp_path / "1", {"a.stl": b"1"}, "1.2.111111111111"))
    other = lay_out(tmp_path / "2", {"a.stl": b"2"}, "1.2.222222222222")
    second = await sender.send(other)
    assert (await sender.send(other)).place == second.place
    assert second.place == f"{first.place}_222222222222"
    standing = objects()
    assert (standing[f"{OUT}/a.stl"], standing[f"{OUT}_222222222222/a.stl"]) == (b"1", b"2")
    for place in ("", "_222222222222"):
        assert json.loads(standing[f"{OUT}{place}/receipt.json"])["artefacts"][0]["name"] == "a.stl"


async def test_sending_that_fails_leaves_no_receipt_and_goes_on(sender, between, objects, bucket, tmp_path):
    """The way to the store breaks in the middle: what was sent is not sent again."""
    exported = lay_out(tmp_path, {f"{number}.stl": bytes([number]) * 5000 for number in range(40)})

    def break_off(method, path, _):
        if method == "PUT" and path.endswith("/30.stl"):
            broken.close()

    with forwarding(between.endpoint, before=break_off) as broken:
        store = S3Store(bucket, "out", endpoint_url=broken.endpoint, tries=1)
        with pytest.raises(StoreUnavailableError):
            await Sender(store, sender.address).send(exported)
        await store.close()
    standing = {key.removeprefix("out/") for key in objects()}
    assert 0 < len(standing) < 40
    assert f"{NAME}/receipt.json" not in standing
    between.forget()
    await sender.send(exported)
    everything = {f"{NAME}/{number}.stl" for number in range(40)} | {f"{NAME}/receipt.json"}
    put = [name for _, name in changes(between)]
    assert not set(put) & standing
    assert {key.removeprefix("out/") for key in objects()} == everything
    assert put[-1] == f"{NAME}/receipt.json"


async def test_a_check_finds_what_was_damaged_or_removed(sender, bucket, s3_environment, tmp_path):
    """In the bucket by its content, in the folder by the receipt's digests."""
    sent = await sender.send(lay_out(tmp_path, {"a.stl": b"a", "b.stl": b"b"}))
    await sender.check(sent)
    await check_folder(sent)
    client = s3_environment.client()
    client.put_object(Bucket=bucket, Key=f"{OUT}/b.stl", Body=b"x")
    with pytest.raises(CommandError, match=r"b\.stl: does not stand there as it was sent"):
        await sender.check(sent)
    client.delete_object(Bucket=bucket, Key=f"{OUT}/b.stl")
    with pytest.raises(CommandError, match=r"b\.stl: does not stand there as it was sent"):
        await sender.check(sent)
    client.close()
    (sent.folder / "a.stl").write_bytes(b"y")
    with pytest.raises(CommandError, match=r"a\.stl: is not what its receipt says"):
        await check_folder(sent)
    (sent.folder / "a.stl").unlink()
    with pytest.raises(CommandError, match=r"a\.stl: is not what its receipt says"):
        await check_folder(sent)


async def test_an_etag_that_says_nothing_is_no_failure(sender, bucket, s3_environment, tmp_path):
    """As of an object in parts of an unusual size, or encrypted: then the bytes are read and compared."""
    body = bytes(5 << 20) + b"tail"
    sent = await sender.send(lay_out(tmp_path, {"a.stl": body}))
    client = s3_environment.client()
    where = {"Bucket": bucket, "Key": f"{OUT}/a.stl"}
    upload = client.create_multipart_upload(**where)["UploadId"]
    cut = (5 << 20) + 1
    parts = [
        {"PartNumber": n, "ETag": client.upload_part(**where, UploadId=upload, PartNumber=n, Body=piece)["ETag"]}
        for n, piece in enumerate((body[:cut], body[cut:]), 1)
    ]
    client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    client.close()
    await sender.check(sent)
