"""Why somebody is not let in."""

from __future__ import annotations

from voxelmill_shared.errors import TransientError, VoxelmillError


class NotBelievedError(VoxelmillError):
    """A token or a key proves nothing.

    Parameters
    ----------
    reason
        A word for the log and the audit trail: `expired`, `signature` …
    advice
        What the caller is told.
    guess
        Whether somebody may be trying: what expired or was revoked was right once, and does not count.
    """

    def __init__(self, reason: str, advice: str = "it is not accepted: sign in again", *, guess: bool = True) -> None:
        super().__init__(f"{reason}: {advice}")
        self.reason = reason
        self.advice = advice
        self.guess = guess


class NoAccessError(VoxelmillError):
    """Somebody is who they say, and has no role or no project here. The text says what is missing."""


class IdentityProviderUnavailableError(TransientError):
    """The issuer's keys cannot be fetched, so no token can be checked: 503, and no message ever fails of it."""
