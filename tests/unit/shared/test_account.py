"""Who a process is, as the audit trail names it."""

from __future__ import annotations

import os
import pwd
import socket
from typing import TYPE_CHECKING

from voxelmill_shared.account import whoami

if TYPE_CHECKING:
    import pytest


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets LOGNAME or USER is still written down as who he is."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "the-chief")
    assert whoami() == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def test_an_account_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as a number that the system knows no name for."""
    uid = next(uid for uid in range(60_000, 2**31) if uid not in {entry.pw_uid for entry in pwd.getpwall()})
    monkeypatch.setattr(os, "getuid", lambda: uid)
    assert whoami() == f"uid {uid}@{socket.gethostname()}"
