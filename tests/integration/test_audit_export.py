"""Where the audit trail is exported to, and what the times may be that are asked for."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from e2e.command import voxelmill
from integration.index_kit import Index
from integration.test_audit_trail import tell
from voxelmill_cli import audit
from voxelmill_cli.errors import CommandError
from voxelmill_index.service import migrate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def trail(tmp_path: Path) -> Path:
    """Give the folder of an installation with three records."""
    url = f"sqlite:///{tmp_path}/voxelmill.db"
    await migrate(url)
    index = Index.open(url, tmp_path / "results")
    await tell(index, 3)
    await index.engine.dispose()
    return tmp_path


async def export(data: Path, output: Path) -> None:
    await audit.export(data, output, since=None, until=None, series=None, progress=lambda _done, _total: None)


async def test_a_pipe_or_a_device_is_written_to_and_stays(trail: Path) -> None:
    """Root would else put a file in the place of /dev/null."""
    pipe = trail / "pipe"
    os.mkfifo(pipe)
    reader = await asyncio.create_subprocess_exec("cat", pipe, stdout=asyncio.subprocess.PIPE)
    try:
        await asyncio.wait_for(asyncio.to_thread(lambda: asyncio.run(export(trail, pipe))), 20)
        said, _ = await asyncio.wait_for(reader.communicate(), 20)
    finally:
        if reader.returncode is None:
            reader.kill()
            await reader.wait()
    assert [json.loads(line)["resourceType"] for line in said.splitlines()] == ["AuditEvent"] * 3
    assert stat.S_ISFIFO(pipe.stat().st_mode)


async def test_what_cannot_be_written_is_named(trail: Path) -> None:
    """The file that was asked for, not the one that it is until it is whole, which goes away."""
    (trail / "folder").mkdir()
    with pytest.raises(OSError, match="folder") as refused:
        await export(trail, trail / "folder")
    assert refused.value.filename == str(trail / "folder")
    assert not [name for name in os.listdir(trail) if name.endswith(".part")]  # noqa: PTH208 - the names alone are asked for


@pytest.mark.parametrize("text", ["", "2h", "0001-01-01T00:00+23:00"])
def test_no_time_is_refused(text: str) -> None:
    """Also nothing at all, which a variable that is not set leaves, and what lies before the first year in UTC."""
    with pytest.raises(CommandError, match="no time; write it as"):
        audit.read_time(text)


def test_an_empty_time_does_not_mean_everything(tmp_path: Path) -> None:
    """One line, and nothing is exported."""
    ended = voxelmill("audit", "export", "--since", "", "--data", tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert "no time" in ended.err
