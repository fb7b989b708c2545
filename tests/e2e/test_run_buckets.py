"""`voxelmill run` from and into buckets of a real SeaweedFS: looked at first, sent once, receipts last."""

from __future__ import annotations

import hashlib
import json
import signal
import zipfile
from contextlib import suppress

import psutil
import pytest

from e2e.background import background
from e2e.command import digests, voxelmill
from servers.forwarder import forwarding

pytestmark = pytest.mark.s3

FEW = ("--organ", "bones", "--format", "stl")


@pytest.fixture
def s3(s3_environment):
    """Give a boto3 client, to look behind the command's back."""
    client = s3_environment.client()
    yield client
    client.close()


def put(s3, bucket, prefix, folder):
    for path in sorted(folder.iterdir()):
        s3.upload_file(str(path), bucket, f"{prefix}/{path.name}")


def keys(s3, bucket, prefix=""):
    return [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())]


def read(s3, bucket, key):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def check_bucket(s3, bucket, prefix):
    """Hold a receipt in the bucket to the objects beside it; return it."""
    receipt = json.loads(read(s3, bucket, f"{prefix}/receipt.json"))
    assert {a["name"]: a["sha256"] for a in receipt["artefacts"]} == {
        key.removeprefix(f"{prefix}/"): hashlib.sha256(read(s3, bucket, key)).hexdigest()
        for key in keys(s3, bucket, f"{prefix}/")
        if not key.endswith("/receipt.json")
    }
    return receipt


def puts(between):
    """The keys of the objects that were put, in their order."""
    return [path.split("?")[0].split("/", 2)[2] for path, _ in between.requests("PUT")]


def whole_gets(between):
    """The keys of the slices that were read from their beginning to their end, again and again if they were."""
    asked = [path for path, headers in between.requests("GET") if "range:" not in headers and "?" not in path]
    return sorted(key for _, _, key in (path.split("/", 2) for path in asked) if key.startswith("in/CT/"))


def test_one_object_is_a_source(pictures, bucket, s3, tmp_path):
    """An archive by its key; its neighbours are left alone."""
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in sorted(pictures.iterdir()):
            archive.write(path, path.name)
    s3.upload_file(str(tmp_path / "study.zip"), bucket, "in/study.zip")
    s3.put_object(Bucket=bucket, Key="in/other.txt", Body=b"not asked for")
    ended = voxelmill("run", f"s3://{bucket}/in/study.zip", "--output", tmp_path / "out", *FEW, "--json")
    assert (ended.code, ended.document["objects"]) == (0, 1), ended.err
    assert (tmp_path / "out" / "bones_segmentation_study" / "receipt.json").exists()


def test_each_slice_is_fetched_once_and_sending_that_is_killed_goes_on_and_a_clean_up_does_too(
    small, bucket, s3, tmp_path
):
    """Killed while results are sent: no receipt stands yet; the next start sends the rest and nothing twice.

    Each slice was fetched once. Another run of them downloads nothing again, for of the work VOXELMILL_CACHE stays, and
    sends each file once, the receipt last. Then the input is deleted, after the results were held to their digests. The
    rest of a clean-up that was broken off is done by the next run; what is no image stays.
    """
    put(s3, bucket, "in/CT", small[0])
    s3.put_object(Bucket=bucket, Key="in/notes.txt", Body=b"not ours to delete")
    places = ["run", f"s3://{bucket}/in", "--output", f"s3://{bucket}/out"]
    arguments = [*places, *FEW, "--keep-local"]
    here, cache = tmp_path / "here", str(tmp_path / "cache")
    here.mkdir()

    def kill(method, path, _):
        if method == "PUT" and path.endswith("-256.webp"):
            with suppress(psutil.NoSuchProcess):  # another request may have come at once
                killed = psutil.Process(process.fork.pid)
                killed.kill()
                killed.wait(60)

    with (
        forwarding(s3.meta.endpoint_url, before=kill) as between,
        background(*arguments, cwd=here, AWS_ENDPOINT_URL=between.endpoint, VOXELMILL_CACHE=cache) as process,
    ):
        assert process.end() == -signal.SIGKILL
        assert whole_gets(between) == keys(s3, bucket, "in/CT/")
    standing = keys(s3, bucket, "out/")
    assert not any(key.endswith("receipt.json") for key in standing)
    (local,) = here.iterdir()
    records = {name: digest for name, digest in digests(local).items() if "/stages/" in name}
    assert len(records) == 3
    with forwarding(s3.meta.endpoint_url) as between:
        again = voxelmill(*arguments, "--json", cwd=here, VOXELMILL_CACHE=cache, AWS_ENDPOINT_URL=between.endpoint)
        assert again.code == 0, again.err
        assert not set(puts(between)) & set(standing)
    assert records.items() <= digests(local).items()
    check_bucket(s3, bucket, "out/bones_segmentation_CT")
    assert again.document["local_copy"] == str(local)
    other = [*places, "--organ", "lungs", "--format", "stl", "--keep-local"]  # other work on the same slices
    with forwarding(s3.meta.endpoint_url) as between:
        ended = voxelmill(*other, "--json", cwd=here, VOXELMILL_CACHE=cache, AWS_ENDPOINT_URL=between.endpoint)
        assert whole_gets(between) == []
        sent = puts(between)
    folder = "out/lungs_segmentation_CT"
    assert ended.document["series"][0]["folder"] == f"s3://{bucket}/{folder}", ended.err
    assert len(check_bucket(s3, bucket, folder)["inputs"]) == 10
    assert sent[-1] == f"{folder}/receipt.json"
    assert sorted(sent) == keys(s3, bucket, f"{folder}/")
    check_clean_up(s3, bucket, [*places, *FEW], here)


def check_clean_up(s3, bucket, arguments, here):
    """Break a clean-up off, damage a result, and clean up: what was damaged is sent again before anything is deleted."""
    for key in keys(s3, bucket, "in/CT/")[:5]:  # as a clean-up leaves it that was ended
        s3.delete_object(Bucket=bucket, Key=key)
    s3.put_object(Bucket=bucket, Key="out/bones_segmentation_CT/statistics.json", Body=b"damaged since")
    order = []

    def watch(method, path, _):
        if method in {"PUT", "DELETE"}:
            order.append((method, path.split("/", 2)[2]))

    with forwarding(s3.meta.endpoint_url, before=watch) as between:
        ended = voxelmill(*arguments, "--cleanup-input", cwd=here, AWS_ENDPOINT_URL=between.endpoint)
    assert ended.code == 0, ended.err
    assert keys(s3, bucket, "in/") == ["in/notes.txt"]
    assert len(check_bucket(s3, bucket, "out/bones_segmentation_CT")["inputs"]) == 10
    out = "out/bones_segmentation_CT"
    assert order[:3] == [
        ("DELETE", f"{out}/receipt.json"),
        ("PUT", f"{out}/statistics.json"),
        ("PUT", f"{out}/receipt.json"),
    ]
    assert {method for method, _ in order[3:]} == {"DELETE"}
    assert len(order) == 8
    assert list(here.iterdir()) == []


def test_an_object_that_is_replaced_during_the_run_is_told_and_kept(small, bucket, s3, tmp_path):
    """Validated as one thing and fetched as another: the stage fails with the reason, and nothing is deleted."""
    put(s3, bucket, "in/CT", small[0])
    key = keys(s3, bucket, "in/")[3]
    other = sorted(small[1].iterdir())[3].read_bytes()

    def replace(method, path, headers):
        if method == "GET" and path.endswith(key) and "range:" not in headers:
            s3.put_object(Bucket=bucket, Key=key, Body=other)

    arguments = ("run", f"s3://{bucket}/in", "--output", f"s3://{bucket}/out", *FEW, "--cleanup-input", "--json")
    with forwarding(s3.meta.endpoint_url, before=replace) as between:
        ended = voxelmill(*arguments, cwd=tmp_path, AWS_ENDPOINT_URL=between.endpoint)
    assert ended.code == 1, ended.err
    assert {failed["error_class"] for failed in ended.document["failed"]} == {"input-changed"}
    assert len(keys(s3, bucket, "in/")) == 10
    assert read(s3, bucket, key) == other


@pytest.mark.parametrize(
    ("source", "destination", "code", "words"),
    [
        ("here", "s3://no-such-bucket-here/x", 3, "no-such-bucket-here/x: there is no such bucket; set the address"),
        ("s3://no-such-bucket-here", "out", 3, "there is no such bucket; set the address"),
        ("s3://BUCKET/nothing", "out", 2, "nothing: holds no files; see `voxelmill storage list`"),
        ("s3://BUCKET/in", "s3://BUCKET/in/results", 2, "overlaps the source"),
    ],
)
def test_places_are_looked_at_before_the_work(bucket, s3, tmp_path, source, destination, code, words):
    """One line, an exit code, and nothing is made."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.txt").write_text("a")
    s3.put_object(Bucket=bucket, Key="in/a.txt", Body=b"a")
    places = [address.replace("BUCKET", bucket) for address in (source, destination)]
    ended = voxelmill("run", places[0], "--output", places[1], cwd=tmp_path)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_SECRET_ACCESS_KEY": "wrong"},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
    ],
)
def test_wrong_credentials_are_noticed_before_the_work(bucket, tmp_path, environment):
    """Exit code 3; the source is not even looked into."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.txt").write_text("a")
    ended = voxelmill(
        "run", "here", "--output", f"s3://{bucket}/out", cwd=tmp_path, HOME=str(tmp_path / "home"), **environment
    )
    assert ended.code == 3, ended.err
    assert ended.err.count("\n") == 1
    assert "start again" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
