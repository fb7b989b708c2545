"""Where compiled code is kept: by the digest of all sources, so that none is used that other sources made."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from voxelmill_mesh import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONSTANT = "HEIGHT = {}\n"
CALLER = """
from small_package.compiled import compiled
from small_package.constant import HEIGHT


@compiled
def raised(value):
    return value + HEIGHT
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of three files: how to compile, a constant, and a function that reads it."""
    folder = tmp_path / "small_package"
    folder.mkdir()
    shutil.copy(str(compiled.__file__), folder / "compiled.py")
    (folder / "__init__.py").write_text("")
    (folder / "constant.py").write_text(CONSTANT.format(1))
    (folder / "caller.py").write_text(CALLER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two writes within a second would look the same to Python
    yield folder
    forget()


def forget() -> None:
    """Let the next import read the sources again, as a new process does."""
    for name in [name for name in sys.modules if name.split(".")[0] == "small_package"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def load() -> Any:
    """Import the package anew, call its function with 10, and return the function."""
    forget()
    return importlib.import_module("small_package.caller").raised


def test_a_change_in_another_file_is_noticed(package: Path) -> None:
    """The function's own file is as it was, and what it was compiled with is not: it is compiled again."""
    assert load()(10) == 11
    (package / "constant.py").write_text(CONSTANT.format(5))
    assert load()(10) == 15


def test_the_next_process_need_not_compile(package: Path) -> None:
    """What was compiled stands beside the sources and is read from there."""
    load()(10)
    again = load()
    assert again(10) == 11
    assert sum(again.stats.cache_hits.values()) == 1
    assert len(list((package / "__pycache__").glob("small_package-*/*.nbi"))) == 1


def test_a_change_in_a_file_that_it_does_not_import_costs_nothing(package: Path) -> None:
    """Compiling all takes half a minute: what does not matter to a function leaves its code as it is."""
    (package / "other.py").write_text("A = 1\n")
    load()(10)
    (package / "other.py").write_text("A = 2\n")
    again = load()
    assert again(10) == 11
    assert sum(again.stats.cache_hits.values()) == 1


def test_sources_that_cannot_be_written_to_are_compiled_for_the_user(package: Path, tmp_path: Path) -> None:
    """As in an installation that belongs to root; a file in the folder's place keeps root itself out."""
    (package / "__pycache__").write_text("")
    assert load()(10) == 11
    assert list((tmp_path / "cache" / "voxelmill").glob("small_package-*/*.nbi"))


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(package: Path, tmp_path: Path) -> None:
    """Neither beside the sources nor in the user's cache: each process compiles for itself."""
    (package / "__pycache__").write_text("")
    (tmp_path / "cache").write_text("")
    assert load()(10) == 11


def test_the_code_of_sources_that_are_no_more_goes_after_a_week(package: Path) -> None:
    """What others may still use stays."""
    load()
    kept = package / "__pycache__"
    for name, days in (("small_package-old", 8), ("small_package-recent", 6), ("other-old", 8)):
        (kept / name).mkdir()
        (kept / name / "a.nbi").write_text("")
        now = (kept / name).stat().st_mtime
        os.utime(kept / name, (now, now - days * 86400))
    load()
    names = {path.name for path in kept.iterdir()}
    assert {"small_package-recent", "other-old"} <= names
    assert "small_package-old" not in names


def test_a_folder_that_goes_away_meanwhile_fails_nothing(package: Path) -> None:
    """Another process may remove it, or the disk may be full: the code is not kept, and works."""
    function = load()
    shutil.rmtree(package / "__pycache__")
    assert function(10) == 11


def test_of_two_processes_one_compiles_and_the_other_waits(package: Path) -> None:
    """Two that need a function at the same moment do not both compile it: that would take each twice as long."""
    program = (
        "import sys; from small_package.caller import raised\n"
        "print('ready', flush=True); sys.stdin.readline(); raised(10); print(sum(raised.stats.cache_hits.values()))"
    )
    two = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=package.parent,
            env={**os.environ, "PYTHONPATH": str(package.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in two:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in two:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        read = sorted(process.communicate()[0].strip() for process in two)
    finally:
        for process in two:
            process.kill()
            process.wait()
    assert read == ["0", "1"]
