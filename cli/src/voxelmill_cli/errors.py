"""What ends a command early, with its exit code (DESIGN: 5)."""

from __future__ import annotations

from voxelmill_shared.errors import VoxelmillError

EXIT_DONE = 0
EXIT_INPUT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3


class CommandError(VoxelmillError):
    """One clear line for the user: the object, the reason, the next step; and the exit code."""

    def __init__(self, line: str, exit_code: int = EXIT_USAGE) -> None:
        super().__init__(line)
        self.exit_code = exit_code
