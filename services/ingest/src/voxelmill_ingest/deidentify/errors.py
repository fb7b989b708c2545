"""What can go wrong with de-identification, one meaning each. No message quotes what it is to hide."""

from __future__ import annotations

from voxelmill_shared.errors import VoxelmillError


class NotDeidentifiableError(VoxelmillError):
    """The object cannot be read to its end, so nobody can say what it holds: it is not taken."""


class DeidentificationKeyError(VoxelmillError, ValueError):
    """The key is not the one that the project began with."""


class ProjectUnknownError(VoxelmillError, ValueError):
    """Nothing has been de-identified for the project in this database."""


class DeidentificationMissingError(VoxelmillError, ValueError):
    """De-identification is asked for, and the libraries that it needs are not installed."""
