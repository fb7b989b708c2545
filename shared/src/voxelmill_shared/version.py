"""The version that every part reports."""

from __future__ import annotations

__version__ = "0.1.0"
