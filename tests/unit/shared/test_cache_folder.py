"""The folder of the download cache: sound, bounded, and shared by processes that may be killed at any moment."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from voxelmill_shared.storage import cache_folder
from voxelmill_shared.storage.cache_folder import CacheFolder


@pytest.fixture
def folder(tmp_path: Path) -> CacheFolder:
    """Give an empty cache of 1,000 bytes."""
    folder = CacheFolder(tmp_path / "cache", 1000)
    folder.prepare()
    return folder


def name_of(body: bytes) -> str:
    return f"md5-{hashlib.md5(body, usedforsecurity=False).hexdigest()}"


def put(folder: CacheFolder, body: bytes, tmp_path: Path, name: str | None = None) -> str:
    """Offer a file, and remove it as the end of a job does."""
    path = tmp_path / "downloaded"
    path.write_bytes(body)
    folder.offer(name or name_of(body), path)
    path.unlink()
    return name or name_of(body)


def entries(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "entries").rglob("*") if path.is_file()]


def test_what_was_offered_is_given_by_another_name_of_the_same_file(folder: CacheFolder, tmp_path: Path) -> None:
    """No byte is copied, and what was at the target is replaced."""
    name = put(folder, b"body", tmp_path)
    target = tmp_path / "job" / "in" / "1"
    for _ in range(2):
        assert folder.take(("tag-other", name), target) == 4
        assert target.read_bytes() == b"body"
        assert [path.name for path in target.parent.iterdir()] == ["1"]
    assert target.samefile(entries(tmp_path)[0])
    assert folder.take(("tag-other",), target) is None


def test_reader_keeps_what_is_thrown_out(folder: CacheFolder, tmp_path: Path) -> None:
    """Throwing out takes the entry's name away, never a reader's."""
    name = put(folder, b"body", tmp_path)
    folder.take((name,), tmp_path / "1")
    assert folder.throw_out_all() == 4
    assert (tmp_path / "1").read_bytes() == b"body"
    assert not folder.has((name,))


def test_what_was_not_wanted_for_longest_goes_first(folder: CacheFolder, tmp_path: Path) -> None:
    """The bound holds, and what was taken lately stays."""
    names = [put(folder, bytes([number]) * 300, tmp_path) for number in range(3)]
    for age, name in zip((30, 20, 10), names, strict=True):
        status = folder._entry(name).stat()
        os.utime(folder._entry(name), ns=(status.st_atime_ns - age * 10**9, status.st_mtime_ns))
    folder.take((names[0],), tmp_path / "1")
    path = tmp_path / "new"
    path.write_bytes(b"x" * 300)
    assert folder.offer("tag-new", path) == 300
    assert [folder.has((name,)) for name in (*names, "tag-new")] == [True, False, True, True]
    assert sum(entry.stat().st_size for entry in entries(tmp_path)) <= 1000


def test_what_is_larger_than_the_cache_is_not_kept(folder: CacheFolder, tmp_path: Path) -> None:
    """It would throw out everything for nothing."""
    kept = put(folder, b"small", tmp_path)
    assert not folder.has((put(folder, bytes(1001), tmp_path),))
    assert folder.has((kept,))


def test_number_of_bytes_is_found_out_again_when_it_is_lost_or_wrong(folder: CacheFolder, tmp_path: Path) -> None:
    """A process that was killed between two writes leaves too much in the account: it is counted when it seems full."""
    put(folder, b"x" * 400, tmp_path)
    for account in ("999999", "rubbish", ""):
        (tmp_path / "cache" / "bytes").write_text(account)
        kept = put(folder, account.encode() + b"y", tmp_path)
        assert folder.has((name_of(b"x" * 400), kept))
        assert int((tmp_path / "cache" / "bytes").read_text()) == sum(path.stat().st_size for path in entries(tmp_path))


def test_entry_that_was_changed_is_not_given(folder: CacheFolder, tmp_path: Path) -> None:
    """Same size, other bytes: the time of modification gives it away, and it is thrown out."""
    for name in (put(folder, b"body", tmp_path), put(folder, b"tagged", tmp_path, "tag-1")):
        entry = folder._entry(name)
        entry.chmod(0o600)
        with entry.open("r+b") as file:
            file.write(b"XX")
        assert folder.take((name,), tmp_path / "1") is None
        assert not entry.exists()
        assert not (tmp_path / "1").exists()


def test_entry_that_lost_bytes_is_not_given(folder: CacheFolder, tmp_path: Path) -> None:
    """Also where its time of modification was put back."""
    name = put(folder, b"body", tmp_path)
    entry = folder._entry(name)
    status = entry.stat()
    entry.chmod(0o600)
    os.truncate(entry, 2)
    os.utime(entry, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert folder.take((name,), tmp_path / "1") is None


def test_after_a_crash_of_the_machine_nothing_is_believed_unread(
    folder: CacheFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a disk had not yet written when it lost power: named by its MD5 it is read once, else thrown out."""
    good, tagged = put(folder, b"body", tmp_path), put(folder, b"tagged", tmp_path, "tag-1")
    monkeypatch.setattr(cache_folder, "_boot", lambda: "another boot")
    assert folder.take((good,), tmp_path / "1") == 4
    assert folder.take((tagged,), tmp_path / "2") is None
    monkeypatch.setattr(cache_folder, "_md5", lambda _: pytest.fail("it was read again"))
    assert folder.take((good,), tmp_path / "1") == 4


OTHER_DISK = Path("/dev/shm")  # noqa: S108 - a second file system is the point


@pytest.mark.skipif(not os.access(OTHER_DISK, os.W_OK), reason="no second file system at hand")
def test_cache_on_another_disk_copies(tmp_path: Path) -> None:
    """No link leads from one file system to another."""
    other = OTHER_DISK / f"voxelmill-test-{os.getpid()}"
    other.mkdir()
    try:
        if other.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("no second file system at hand")
        folder = CacheFolder(tmp_path / "cache", 1000)
        folder.prepare()
        name = put(folder, b"body", other)
        assert folder.take((name,), other / "1") == 4
        assert (other / "1").read_bytes() == b"body"
        assert not list((tmp_path / "cache" / "incoming").iterdir())
    finally:
        shutil.rmtree(other)


def test_what_a_killed_process_left_half_copied_is_removed(
    folder: CacheFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When room is made, and only what is old: others may be copying."""
    (tmp_path / "cache" / "incoming" / "half").write_bytes(b"x")
    folder.throw_out_all()
    assert (tmp_path / "cache" / "incoming" / "half").exists()
    monkeypatch.setattr(cache_folder, "_STALE_SECONDS", -1)
    folder.throw_out_all()
    assert not list((tmp_path / "cache" / "incoming").iterdir())


def test_folder_into_which_others_may_write_is_not_used(tmp_path: Path) -> None:
    """They could lay any bytes under any name."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(PermissionError, match="others"):
        CacheFolder(tmp_path / "cache", 1000).prepare()


WORKER = """
import hashlib, os, random, sys
from pathlib import Path
from voxelmill_shared.storage.cache_folder import CacheFolder

own = Path(sys.argv[2]) / str(os.getpid())
own.mkdir()
folder = CacheFolder(Path(sys.argv[1]), 50_000)
folder.prepare()
print("ready", flush=True)
numbers = range(int(sys.argv[3])) if len(sys.argv) > 3 else iter(int, 1)
for _ in numbers:
    number = random.randrange(40)
    body = bytes([number]) * (3000 + number)
    name = "md5-" + hashlib.md5(body).hexdigest()
    target = own / "in"
    if folder.take((name,), target) is None:
        target.unlink(missing_ok=True)
        target.write_bytes(body)
        folder.offer(name, target)
    assert target.read_bytes() == body, "wrong bytes"
"""


def test_processes_that_share_it_or_are_killed_leave_it_sound(tmp_path: Path) -> None:
    """Four processes that throw each other's entries out read right bytes; two killed ones leave no half entry."""

    def start(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "cache"), str(tmp_path), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    victims = [start() for _ in range(2)]
    workers = [start("400") for _ in range(2)]
    try:
        for victim in victims:
            assert victim.stdout is not None
            assert victim.stdout.readline() == "ready\n"
        until = time.monotonic() + 20
        while not entries(tmp_path) and time.monotonic() < until:
            time.sleep(0.01)
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
        for worker in workers:
            _, said = worker.communicate(timeout=60)
            assert worker.returncode == 0, said
    finally:
        for process in (*victims, *workers):
            process.kill()
            process.communicate()
    found = entries(tmp_path)
    assert found
    assert sum(path.stat().st_size for path in found) <= 50_000
    assert all(path.name == name_of(path.read_bytes()) for path in found)
