"""`voxelmill storage` against a real SeaweedFS, as a user types it."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time

import pytest
from moto.server import ThreadedMotoServer

from e2e.command import VOXELMILL, digests, voxelmill
from servers.forwarder import forwarding
from servers.seaweedfs import S3Server
from voxelmill_cli.storage.partial import Partials
from voxelmill_cli.storage.walk import Item

MIB = 1 << 20


@pytest.fixture
def moto_client():
    """Give a client of a stand-in for S3 that takes every key, as S3 does, and the variables that lead there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    facts = S3Server(f"http://{host}:{port}", "a", "b")
    client = facts.client()
    yield client, facts.environment()
    client.close()
    server.stop()


def make_tree(root, *, large=0):
    """Files of all kinds; the same ones each time."""
    content = random.Random(11)
    for name, size in (
        ("a.dcm", 4000),
        ("empty", 0),
        ("sub/é %41+b #?.dcm", 300),
        ("sub/deep/er/c.nii.gz", 70_000),
        ("emoji 🫁.bin", 10),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.randbytes(size))
    if large:
        (root / "large.bin").write_bytes(content.randbytes(large))


def test_what_goes_up_comes_down_and_neither_goes_twice(bucket, s3_environment, tmp_path):
    """Digests are equal, keys are the paths, and a second upload and download find everything there."""
    make_tree(tmp_path / "source", large=16 * MIB + 12_345)
    for sent in (6, 0):
        up = voxelmill("storage", "upload", tmp_path / "source", f"s3://{bucket}/in/put", "--json")
        assert (up.code, up.document["sent"], up.document["present"]) == (0, sent, 6 - sent), up.err
    listed = voxelmill("storage", "list", f"s3://{bucket}/in", "--json").document
    assert {one["key"] for one in listed} == {f"put/{name}" for name in digests(tmp_path / "source")}
    head = s3_environment.client().head_object(Bucket=bucket, Key="in/put/a.dcm")
    assert head["ContentType"] == "application/dicom"
    for fetched in (6, 0):
        down = voxelmill("storage", "download", f"s3://{bucket}/in/put/", tmp_path / "back", "--json")
        assert (down.code, down.document["sent"], down.document["present"]) == (0, fetched, 6 - fetched), down.err
    assert digests(tmp_path / "back") == digests(tmp_path / "source")
    assert not (tmp_path / "back" / ".voxelmill-tmp").exists()


def test_changed_files_go_again_and_a_dry_run_sends_nothing(bucket, tmp_path):
    """Equal size is not equal content; `--dry-run` says what would be sent."""
    make_tree(tmp_path / "source")
    address = f"s3://{bucket}"
    dry = voxelmill("storage", "upload", tmp_path / "source", address, "--dry-run")
    assert dry.code == 0
    assert "5 would be sent" in dry.out
    assert voxelmill("storage", "list", address).out == "0 objects, 0 bytes\n"
    assert voxelmill("storage", "upload", tmp_path / "source", address).code == 0
    (tmp_path / "source" / "empty").write_bytes(b"x")
    (tmp_path / "source" / "a.dcm").write_bytes(b"y" * 4000)
    again = voxelmill("storage", "upload", tmp_path / "source", address)
    assert again.out == f"2 sent (4.0 kB), 3 there already, 0 failed: {address}\n"
    dry = voxelmill("storage", "download", address, tmp_path / "back", "--dry-run")
    assert "5 would be fetched" in dry.out
    assert not (tmp_path / "back").exists()


def test_objects_that_others_put_are_known_by_their_content(bucket, s3_environment, tmp_path):
    """In one piece above our limit, or in parts of other sizes: what stands there is not sent or fetched again."""
    source = tmp_path / "source"
    source.mkdir()
    client = s3_environment.client()
    content = random.Random(5).randbytes(20 * MIB + 1)
    for name in ("whole.bin", "parts.bin"):
        (source / name).write_bytes(content)
    client.put_object(Bucket=bucket, Key="whole.bin", Body=content)
    client.upload_file(str(source / "parts.bin"), bucket, "parts.bin")  # boto3: parts of 8 MiB
    assert client.head_object(Bucket=bucket, Key="parts.bin")["ETag"].endswith('-3"')
    for direction in (("upload", source, f"s3://{bucket}"), ("download", f"s3://{bucket}", source)):
        ended = voxelmill("storage", *direction, "--json")
        assert (ended.code, ended.document["sent"], ended.document["present"]) == (0, 0, 2), ended.err
    (source / "parts.bin").unlink()
    assert voxelmill("storage", "download", f"s3://{bucket}/parts.bin", source).code == 0
    assert (source / "parts.bin").read_bytes() == content


def settled_parts(client, bucket, key, upload_id):
    """List the parts of an upload, once the server has ended those that it was still writing."""
    before, end = None, time.monotonic() + 30
    while True:
        parts = client.list_parts(Bucket=bucket, Key=key, UploadId=upload_id).get("Parts", [])
        if parts and parts == before:
            return parts
        assert time.monotonic() < end, "no part came to stand"
        before = parts
        time.sleep(0.5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_upload_that_is_broken_off_goes_on_where_it_was(bucket, s3_environment, tmp_path, number):
    """Killed or interrupted in the middle of a large file: the parts that the server has are not sent again."""
    source = tmp_path / "source"
    make_tree(source, large=128 * MIB + 7)
    client = s3_environment.client()
    with forwarding(s3_environment.endpoint) as between:
        arguments = ["storage", "upload", str(source), f"s3://{bucket}/x"]
        process = subprocess.Popen(
            [*VOXELMILL, *arguments],
            env={**os.environ, "AWS_ENDPOINT_URL": between.endpoint, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                between.wait_until_sent(70 * MIB)  # four parts are under way at a time, so one at least is there
                process.send_signal(number)
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert said == "voxelmill: interrupted; start it again and it goes on where it was\n"
        (upload,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
        standing = settled_parts(client, bucket, "x/large.bin", upload["UploadId"])
        (unfinished,) = voxelmill("storage", "usage", f"s3://{bucket}", "--json").document["unfinished_uploads"]
        assert (unfinished["key"], unfinished["bytes"]) == ("x/large.bin", sum(part["Size"] for part in standing))
        between.forget()
        again = voxelmill(*arguments, "--json", AWS_ENDPOINT_URL=between.endpoint)
        assert again.code == 0, again.err
        assert between.sent < 129 * MIB - unfinished["bytes"]
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert voxelmill("storage", "download", f"s3://{bucket}/x", tmp_path / "back").code == 0
    assert digests(tmp_path / "back") == digests(source)


def size_of(path):
    """Give a file's size; none if it is gone, for a small one is whole as soon as it is seen."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def partial_files(back):
    return list((back / ".voxelmill-tmp").glob("part-*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_is_broken_off_goes_on_where_it_was(bucket, s3_environment, tmp_path, number):
    """No half file ever stands under a name; what came is not asked for again; nothing is left beside the files."""
    client = s3_environment.client()
    content = random.Random(3).randbytes(128 * MIB)
    client.put_object(Bucket=bucket, Key="a/small.bin", Body=b"small")
    client.put_object(Bucket=bucket, Key="b/large.bin", Body=content)
    back = tmp_path / "back"
    with forwarding(s3_environment.endpoint) as between:
        arguments = ["storage", "download", f"s3://{bucket}", str(back), "--jobs", "1"]
        process = subprocess.Popen(
            [*VOXELMILL, *arguments],
            env={**os.environ, "AWS_ENDPOINT_URL": between.endpoint, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                while not any(size_of(path) > 16 * MIB for path in partial_files(back)):
                    assert process.poll() is None
                process.send_signal(number)
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert said == "voxelmill: interrupted; start it again and it goes on where it was\n"
        (partial,) = partial_files(back)
        came = partial.stat().st_size
        assert 16 * MIB < came < len(content)
        assert [path.name for path in back.iterdir() if path.is_dir()].count("b") == 0
        between.forget()
        again = voxelmill(*arguments, "--json", AWS_ENDPOINT_URL=between.endpoint)
        assert (again.code, again.document["sent"], again.document["present"]) == (0, 1, 1), again.err
        (asked,) = [headers for path, headers in between.requests("GET") if path.endswith("/b/large.bin")]
        assert f"range: bytes={came}-" in asked
    assert (back / "b" / "large.bin").read_bytes() == content
    assert not (back / ".voxelmill-tmp").exists()


def test_the_rest_of_a_download_is_never_that_of_another_content(bucket, s3_environment, tmp_path):
    """Damaged or overwritten since: all of it is fetched anew; a second process at the same object is told to wait."""
    client = s3_environment.client()
    client.put_object(Bucket=bucket, Key="x.bin", Body=b"1" * MIB)
    folder, address = tmp_path / ".voxelmill-tmp", f"s3://{bucket}"
    content = random.Random(8).randbytes(MIB)

    def item():
        head = client.head_object(Bucket=bucket, Key="x.bin")
        return Item("x.bin", head["ContentLength"], head["ETag"].strip('"'))

    with Partials(folder, address)._held(item()) as partial:
        partial.add((b"2" * 1000,))  # not what the object holds
        waiting = voxelmill("storage", "download", f"{address}/x.bin", tmp_path)
        assert waiting.code == 1
        assert "x.bin: another process downloads it into this folder; wait for it" in waiting.out
    assert voxelmill("storage", "download", f"{address}/x.bin", tmp_path).code == 0
    assert (tmp_path / "x.bin").read_bytes() == b"1" * MIB
    assert not folder.exists()
    with Partials(folder, address)._held(item()) as partial:
        partial.add((b"1" * 1000,))
    client.put_object(Bucket=bucket, Key="x.bin", Body=content)
    assert voxelmill("storage", "download", f"{address}/x.bin", tmp_path).code == 0
    assert (tmp_path / "x.bin").read_bytes() == content


def test_what_cannot_be_sent_is_named_and_the_rest_is_sent(bucket, tmp_path):
    """Links that lead out or nowhere, pipes, names that are no text: one line each, and exit code 1."""
    source = tmp_path / "source"
    make_tree(source)
    (tmp_path / "secret").write_text("not yours")
    (source / "out.txt").symlink_to(tmp_path / "secret")
    (source / "out-folder").symlink_to(tmp_path)
    (source / "nowhere").symlink_to(tmp_path / "gone")
    (source / "circle").symlink_to("circle")
    (source / "inside.dcm").symlink_to("a.dcm")
    (source / "inside-folder").symlink_to("sub")
    os.mkfifo(source / "pipe")
    os.close(os.open(os.fsencode(source) + b"/caf\xe9.dcm", os.O_CREAT | os.O_WRONLY))
    for arguments, verb in ((["--dry-run"], "would be sent"), ([], "sent")):
        ended = voxelmill("storage", "upload", source, f"s3://{bucket}", *arguments)
        assert ended.code == 1
        assert f"6 {verb} (" in ended.out
        reasons = dict(line.removeprefix("failed: ").split(": ", 1) for line in ended.out.splitlines()[:-1])
        assert {name: reason.split(";")[0].split(" /")[0] for name, reason in reasons.items()} == {
            "out.txt": "a symbolic link leads out of",
            "out-folder": "a symbolic link leads out of",
            "nowhere": "a symbolic link that leads nowhere",
            "circle": "symbolic links that lead in a circle",
            "pipe": "not a regular file",
            "caf\\udce9.dcm": "a key must be Unicode text",
        }
    keys = {one["key"] for one in voxelmill("storage", "list", f"s3://{bucket}", "--json").document}
    assert keys == {*digests(source)} - {"out.txt", "caf\udce9.dcm"}


def test_keys_that_are_no_paths_are_named_and_the_rest_is_fetched(moto_client, tmp_path):
    """Nothing is written outside the folder, nor through a link in it; every refusal is one line with its reason."""
    client, environment = moto_client
    client.create_bucket(Bucket="hostile")
    refused = {
        "../up.bin": "part that is empty, '.' or '..'",
        "/absolute.bin": "may not be absolute",
        "a//b": "part that is empty",
        "c/./d": "part that is empty, '.' or '..'",
        "tail/": "part that is empty",
        "long/" + "x" * 300: "no disk can hold a name of more than 255 bytes",
        "folder": "a file and a folder cannot have one name",
        "link/through.bin": "a symbolic link leads out of",
        ".voxelmill-tmp/x": "this name is not for objects",
        "tab\tstop/../x": "part that is empty, '.' or '..'",
    }
    for key in ("p/good.bin", "p/x\x1b[31m.bin", *(f"p/{key}" for key in refused)):
        client.put_object(Bucket="hostile", Key=key, Body=b"content")
    back = tmp_path / "back"
    (back / "folder").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (back / "link").symlink_to(tmp_path / "elsewhere")
    ended = voxelmill("storage", "download", "s3://hostile/p", back, **environment)
    assert ended.code == 1
    assert ended.out.endswith(f"2 fetched (14 bytes), 0 there already, {len(refused)} failed: {back}\n")
    assert "\x1b" not in ended.out
    lines = ended.out.splitlines()[:-1]
    for key, reason in refused.items():
        (line,) = [line for line in lines if line.startswith(f"failed: {key}: ".replace("\t", "\\x09"))]
        assert reason in line
    assert sorted(path.name for path in back.iterdir()) == ["folder", "good.bin", "link", "x\x1b[31m.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "elsewhere"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["upload", "here", "s3://"], 2, "no bucket can have this name"),
        (["upload", "here", "s3:/bucket"], 2, "write s3://bucket"),
        (["upload", "here", "https://host/bucket"], 2, "an address is a folder, file:///path or s3://"),
        (["upload", "here", "there"], 2, "not the address of a bucket"),
        (["upload", "nowhere", "s3://bucket"], 2, "nowhere: no such file or folder"),
        (["upload", "s3://one", "s3://two"], 2, "this side is a folder"),
        (["upload", "here", "s3://bucket/a//b"], 2, "part that is empty"),
        (["upload", "here", "s3://no-such-bucket-here/x"], 3, "there is no such bucket"),
        (["download", "s3://no-such-bucket-here", "back"], 3, "there is no such bucket"),
        (["download", "s3://bucket", "file"], 2, "file: not a folder"),
        (["list", "s3://no-such-bucket-here"], 3, "there is no such bucket"),
        (["usage", "there"], 2, "not the address of a bucket"),
        (["migrate", "s3://a", "s3://b"], 2, "not built yet"),
    ],
)
@pytest.mark.usefixtures("s3_environment")
def test_wrong_usage_is_one_clear_line(tmp_path, arguments, code, words):
    """The address, the reason and the next step; nothing is made."""
    (tmp_path / "here").mkdir()
    (tmp_path / "file").write_text("x")
    ended = voxelmill("storage", *arguments, cwd=tmp_path)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "here"]


def test_wrong_or_missing_credentials_are_a_dependency_out_of_reach(bucket, tmp_path):
    """Exit code 3, one line, before anything is read."""
    (tmp_path / "a").write_text("a")
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path / "home")}
    for environment in ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "nobody"}, nobody):
        ended = voxelmill("storage", "upload", tmp_path / "a", f"s3://{bucket}", **environment)
        assert ended.code == 3, ended.err
        assert ended.err.count("\n") == 1
        assert "; set the address, AWS_ENDPOINT_URL and the credentials right" in ended.err


def test_a_disk_without_room_and_a_store_that_goes_away_are_one_line_and_it_goes_on(bucket, s3_environment, tmp_path):
    """What came stays, and the line says what to do; the next start brings the rest."""
    client = s3_environment.client()
    client.put_object(Bucket=bucket, Key="large.bin", Body=bytes(8 * MIB))
    arguments = ["storage", "download", f"s3://{bucket}", str(tmp_path / "back")]
    full = subprocess.run(
        [*VOXELMILL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, 3 * MIB)),
        # Nor may the measuring of coverage write a file there.
        env={**{k: v for k, v in os.environ.items() if not k.startswith("COV")}, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert full.returncode == 1
    assert full.stderr.count("\n") == 1
    assert "File too large; make room there or choose another folder, start it again" in full.stderr
    assert [path.stat().st_size for path in partial_files(tmp_path / "back")] == [3 * MIB]

    def break_off(method, _, headers):
        if method == "GET" and "range: bytes=" in headers:
            between.close()

    with forwarding(s3_environment.endpoint, before=break_off) as between:
        away = voxelmill(*arguments, AWS_ENDPOINT_URL=between.endpoint)
    assert away.code == 3
    assert away.err.count("\n") == 1
    assert "; start it again when that is mended and it goes on where it was" in away.err
    assert voxelmill(*arguments).code == 0
    assert (tmp_path / "back" / "large.bin").read_bytes() == bytes(8 * MIB)


def test_usage_counts_by_series_and_kind(bucket, s3_environment):
    """Results by series and kind of artefact, everything else by its first folder."""
    client = s3_environment.client()
    for key, size in (
        ("results/1.2.3/r1/4f/meshes/lung_left.stl", 500),
        ("results/1.2.3/r1/4f/meshes/lung_right.stl", 300),
        ("results/1.2.3/r1/4f/receipt.json", 50),
        ("inbox/a.dcm", 7),
        ("loose", 1),
    ):
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * size)
    found = voxelmill("storage", "usage", f"s3://{bucket}", "--json").document
    assert (found["objects"], found["bytes"], found["unfinished_uploads"]) == (5, 858, [])
    assert [(row["name"], row["kind"], row["objects"], row["bytes"]) for row in found["by_kind"]] == [
        ("1.2.3", "meshes", 2, 800),
        ("1.2.3", "records", 1, 50),
        ("inbox/", "", 1, 7),
        ("(no folder)", "", 1, 1),
    ]
    assert "5 objects, 858 bytes" in voxelmill("storage", "usage", f"s3://{bucket}").out
