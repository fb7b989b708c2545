"""The zip of all files: any program opens it, and it never changes."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from voxelmill_mesh.writers.archive import write_zip

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"b.stl": b"b" * 3_000_000, "a.obj": b"v 1 2 3\n" * 1000, "c.mz3": bytes(range(256)) * 8, "d.json": b""}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Files of several kinds, one of them empty, one of more than a block."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, body in FILES.items():
        (folder / name).write_bytes(body)
    return [folder / name for name in FILES]


@pytest.mark.parametrize("wide_from", [0xFFFFFFFF, 1000, 0], ids=["as it is", "large files", "everything is large"])
def test_zip_holds_the_files(files: list[Path], tmp_path: Path, wide_from: int) -> None:
    """Sorted; what is packed already is stored, the rest deflated; so too with the fields of files beyond 4 GiB."""
    write_zip(files, tmp_path / "all.zip", packed={"c.mz3"}, wide_from=wide_from)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == sorted(FILES)
        assert archive.testzip() is None
        for name, body in FILES.items():
            assert archive.read(name) == body
        ways = {entry.filename: entry.compress_type for entry in archive.infolist()}
        assert archive.getinfo("b.stl").date_time == (1980, 1, 1, 0, 0, 0)
    assert [name for name in ways if ways[name] == zipfile.ZIP_STORED] == ["c.mz3"]
    assert (tmp_path / "all.zip").stat().st_size < 20_000


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
@pytest.mark.parametrize("wide_from", [0xFFFFFFFF, 1000])
def test_unzip_finds_nothing_wrong(files: list[Path], tmp_path: Path, wide_from: int) -> None:
    """Info-ZIP judges headers that Python's reader does not look at."""
    write_zip(files, tmp_path / "all.zip", wide_from=wide_from)
    said = subprocess.run(["unzip", "-t", tmp_path / "all.zip"], check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def test_zip_never_changes(files: list[Path], tmp_path: Path) -> None:
    """Written twice, in another order, an hour apart by the files' own times and rights, it is the same."""
    write_zip(files, tmp_path / "one.zip")
    files[0].touch()
    files[1].chmod(0o600)
    write_zip(reversed(files), tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_files_may_have_any_name(tmp_path: Path) -> None:
    """Names are UTF-8 and say so."""
    (tmp_path / "Größe.txt").write_bytes(b"1")
    write_zip([tmp_path / "Größe.txt"], tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == ["Größe.txt"]
