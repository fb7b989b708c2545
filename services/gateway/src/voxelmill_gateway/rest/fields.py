"""What may stand in an address: ids, names, moments, pages. What does not fit is answered with 422, and not quoted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime

MOST_ITEMS: Final = 500
"""The longest page of a list."""
_MOST_NAME: Final = 1024
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"
"""PostgreSQL takes no NUL, and no name of ours has a control character."""


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("this moment is beyond the years that can be reckoned with") from None


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
"""A moment with its time zone (RFC 3339), as UTC."""
Word = Annotated[str, Query(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A text to look for; empty: whatever there is."""
JobId = Annotated[str, Path(max_length=64, pattern=_PRINTABLE, description="a job, by the name that it was given")]
SeriesUid = Annotated[str, Path(max_length=256, pattern=_PRINTABLE, description="a Series Instance UID")]
Name = Annotated[str, Path(max_length=_MOST_NAME, pattern=_PRINTABLE)]
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="how many at most")]
Offset = Annotated[int, Query(ge=0, le=10_000_000, description="how many are left out before")]
