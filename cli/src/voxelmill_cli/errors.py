"""What ends a command early, with its exit code (DESIGN: 5)."""

from __future__ import annotations

import errno
import json
import sys

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


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def report(line: str, exit_code: int) -> None:
    """Write how the command failed: one line, and with `--json` the one document too."""
    if "--json" in sys.argv[1:]:
        sys.stdout.write(json.dumps({"error": line, "exit_code": exit_code}, indent=1) + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"voxelmill: {line}\n")


def explain(error: OSError, where: object = "") -> str:
    """Make one line of an error of the system: the file, the reason, the next step."""
    if error.errno in NO_ROOM:
        step = "make room there or choose another folder"
    elif error.errno in _NO_RIGHT:
        step = "choose a folder that this user can read and write"
    else:
        step = "see that it can be used and start again"
    return f"{error.filename or where or 'the system'}: {error.strerror or error}; {step}"
