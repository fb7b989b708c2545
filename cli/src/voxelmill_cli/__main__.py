"""The entry of the command."""

from __future__ import annotations

import sys

from voxelmill_cli.interrupts import Interrupted, ignore, listen

COMMANDS = ("run", "demo", "up", "status", "doctor")


def main() -> None:
    """Be the command."""
    listen()
    try:
        from voxelmill_cli.app import main as command  # noqa: PLC0415 - a signal may come while it is imported

        command()
    except (Interrupted, KeyboardInterrupt) as error:
        ignore()
        ended = error if isinstance(error, Interrupted) else Interrupted(2)
        named = next((word for word in sys.argv[1:] if word in COMMANDS), None)
        if named == "up":  # being told to stop is how it ends
            sys.stderr.write("voxelmill: stopped; start it again and it goes on where it was\n")
            sys.exit(0)
        from voxelmill_cli.errors import report  # noqa: PLC0415 - likewise

        report(ended.line, ended.exit_code)
        sys.exit(ended.exit_code)


if __name__ == "__main__":
    main()
