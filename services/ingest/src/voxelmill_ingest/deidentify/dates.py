"""Moving dates by a number of days (PS3.15 E.3.6). Times of day stay as they are."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final

_DATE: Final = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")
_DATE_TIME: Final = re.compile(r"(\d{8})(\d*(?:\.\d{1,6})?(?:[+-]\d{4})?)")


def shift_date(value: str, days: int) -> str | None:
    """Move a DA value, or one as ACR-NEMA had them (1993.08.22); None if it is no date."""
    match = _DATE.fullmatch(value)
    if match is None:
        return None
    try:
        moved = date(int(match[1]), int(match[2]), int(match[3])) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return moved.strftime("%Y%m%d") if moved.year >= 1000 else None  # strftime writes smaller years without zeros


def shift_date_time(value: str, days: int) -> str | None:
    """Move a DT value, its time and offset from UTC kept; None if it is none, or has no day that could be moved."""
    match = _DATE_TIME.fullmatch(value)
    if match is None:
        return None
    moved = shift_date(match[1], days)
    return None if moved is None else moved + match[2]
