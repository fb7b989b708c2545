"""Who runs this process, for the audit trail."""

from __future__ import annotations

import os
import pwd
import socket


def whoami() -> str:
    """Name the account that runs this process: user@host, or `uid 10001@host` where it has no name.

    The system says who it is, not LOGNAME or USER, which anybody can set.
    """
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user need not have a name
        user = f"uid {uid}"
    return f"{user}@{socket.gethostname()}"
