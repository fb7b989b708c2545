"""What it takes to run one server or service, whoever runs it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class StackError(Exception):
    """Something cannot be started; the message names it, the reason and the next step.

    Attributes
    ----------
    code
        The exit code of a command that ends by it: 1 for a folder or a disk, 2 for wrong usage, 3 for a dependency.
    """

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Program:
    """One process to run.

    Attributes
    ----------
    name
        How people call it; also the name of its log.
    command
        The program and its arguments.
    environment
        All of its environment variables.
    folder
        Its working directory.
    ports
        The loopback ports that it listens on.
    is_ready
        Asks once whether it serves; may take up to some seconds.
    goodbye
        The signal that asks it to end in good order.
    patience
        Seconds that it may take to do so.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    ports: tuple[int, ...]
    is_ready: Callable[[], bool]
    goodbye: signal.Signals = signal.SIGTERM
    patience: float = 15.0

    def as_arguments(self) -> list[str]:
        """The command with its environment and its working directory, for whoever cannot set them."""
        variables = (f"{name}={value}" for name, value in self.environment.items())
        return ["env", "--ignore-environment", f"--chdir={self.folder}", *variables, *self.command]
