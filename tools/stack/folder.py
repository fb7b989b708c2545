"""The one folder of an installation: what stands where, and what is known from one start to the next."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from stack.ports import are_free, free_ports
from stack.processes import Process, boot
from stack.program import StackError
from stack.seaweedfs import GRPC
from stack.secret import write_secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GATEWAY_PORT = 8000
BLOCKS = {"rabbitmq": (3, ()), "seaweedfs": (5, (GRPC,)), "postgresql": (1, ())}
"""How many neighbouring ports each server needs, and at which distances it opens more."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The paths of an installation."""

    root: Path

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.root / "logs"

    @property
    def data(self) -> Path:
        """What the servers keep."""
        return self.root / "data"

    @property
    def scratch(self) -> Path:
        """Work in progress."""
        return self.root / "scratch"

    @property
    def env(self) -> Path:
        """Addresses and credentials as variables that a shell can read."""
        return self.root / "env"

    @property
    def facts(self) -> Path:
        """Ports and credentials, kept from one start to the next."""
        return self.root / "facts.json"

    @property
    def state(self) -> Path:
        """What the supervisor says of itself."""
        return self.root / "state.json"

    @property
    def record(self) -> Path:
        """Every process that was started, by id and start time."""
        return self.root / "processes.json"

    def make(self) -> None:
        """Make the folders.

        Raises
        ------
        StackError
            If that cannot be done.
        """
        try:
            for path in (self.root, self.logs, self.data, self.scratch):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.geteuid() == 0:  # PostgreSQL runs as another account, which must be able to pass through
                for path in (self.root, self.data):
                    path.chmod(0o711)
        except OSError as error:
            raise explained(error, self.root) from None

    def lock(self) -> TextIO | None:
        """Take the lock that a supervisor holds as long as it lives; None if another process has it."""
        try:
            file = (self.root / "lock").open("a")
        except OSError as error:
            raise explained(error, self.root) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def started(self) -> list[Process]:
        """Return the processes that the last supervisor started since the machine did, in the order of their start."""
        document = read_json(self.record)
        if document.get("boot") != boot():
            return []
        return [Process(**entry) for entry in document["processes"]]

    def write_started(self, processes: list[Process]) -> None:
        """Note the processes that run."""
        text = json.dumps({"boot": boot(), "processes": [asdict(process) for process in processes]})
        write_secret(self.record, text)


@dataclass(slots=True)
class Facts:
    """What stays the same from one start to the next.

    Attributes
    ----------
    ports
        By the name of a server (the first of its block) or of a service's process.
    secret_key
        The secret of the object store's only user. Broker and database keep their passwords beside their data.
    """

    ports: dict[str, int] = field(default_factory=dict)
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @classmethod
    def read(cls, folder: Folder) -> Facts:
        """Read them, or make them up."""
        document = read_json(folder.facts)
        return cls(**document) if document else cls()

    def write(self, folder: Folder) -> None:
        """Keep them."""
        write_secret(folder.facts, json.dumps(asdict(self)))

    def settle_ports(self, services: list[str]) -> None:
        """Keep every port that is free, and choose others in place of those that are not."""
        taken: set[int] = set()
        for name in (*BLOCKS, *services):
            count, also = BLOCKS.get(name, (1, ()))
            first = self.ports.get(name) or (GATEWAY_PORT if name == "gateway-1" else 0)
            while not first or taken & (block := _block(first, count, also)) or not are_free(block):
                first = free_ports(count, also)
            taken |= block
            self.ports[name] = first


def _block(first: int, count: int, also: tuple[int, ...]) -> set[int]:
    return {first + number + offset for number in range(count) for offset in (0, *also)}


def write_env(folder: Folder, variables: Mapping[str, str]) -> None:
    """Write the variables as a file that a shell can read."""
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_secret(
        folder.env, "# Addresses and credentials of this installation. Keep it to yourself.\n" + "".join(lines)
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a document of this package; an empty one if there is none."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise StackError(f"{path}: is not what was written there; remove it and try again", 1) from None
    except OSError as error:
        raise explained(error, path) from None
    if not isinstance(document, dict):
        raise StackError(f"{path}: is not what was written there; remove it and try again", 1)
    return document


def explained(error: OSError, path: Path) -> StackError:
    """One clear line for what the system refused."""
    where = error.filename or path
    return StackError(
        f"{where}: {error.strerror or error}; make room or give access there, or choose another folder with DIR=…", 1
    )
