# ruff: noqa: INP001 - a script that stands alone in an image
"""Ask the service in this container how it is; usage: healthy.py [/readyz | /healthz].

Exit code 0 if it answers 200, else 1 and one line that says why. It needs the standard library alone, for no image has
curl, and it starts no part of Voxelmill.
"""

from __future__ import annotations

import http.client
import os
import sys

SECONDS = 4.0
LONGEST = 1000
"""How much of an answer is shown."""


def main(path: str, port: int) -> int:
    """Ask for `path` on this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read(LONGEST).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"no answer on port {port}: {error or type(error).__name__}\n")
        return 1
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        sys.stdout.write(f"{path} answers {answer.status}: {said}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "/healthz", int(os.environ.get("VOXELMILL_PORT", "8000"))))
