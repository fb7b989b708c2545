"""How much one caller, and one address that nobody believes, may ask for in a minute.

Each process counts for itself.
"""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from voxelmill_gateway.access.policy import known_address
from voxelmill_gateway.problems import Problem

if TYPE_CHECKING:
    from voxelmill_gateway.access.settings import AccessSettings


class Rates:
    """The counts of the current minute."""

    def __init__(self, settings: AccessSettings) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        per_minute = settings.gateway_rate_per_minute
        self._requests = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._failures = RateLimitItemPerMinute(settings.gateway_failures_per_minute)

    async def count(self, who: str) -> None:
        """Count a request of a caller.

        Raises
        ------
        Problem
            429 if it is one too many.
        """
        if self._requests is not None and not await self._limiter.hit(self._requests, "caller", who):
            raise await self._too_many(self._requests, "caller", who, "you ask too often")

    async def check_failures(self, address: str | None) -> None:
        """Refuse to check another token or key for an address that sent too many wrong ones.

        Raises
        ------
        Problem
            429 then.
        """
        network = _network(address)
        if not await self._limiter.test(self._failures, "failures", network):
            why = "too many wrong tokens or keys came from your address"
            raise await self._too_many(self._failures, "failures", network, why)

    async def count_failure(self, address: str | None) -> None:
        """Count a token or a key that was wrong."""
        await self._limiter.hit(self._failures, "failures", _network(address))

    async def _too_many(self, item: RateLimitItemPerMinute, kind: str, name: str, why: str) -> Problem:
        reset = (await self._limiter.get_window_stats(item, kind, name)).reset_time
        seconds = max(1, math.ceil(reset - time.time()))
        return Problem(
            429, "Too many requests", f"{why}; try again in {seconds} s", headers={"Retry-After": str(seconds)}
        )


def _network(address: str | None) -> str:
    """Return what is counted as one: an IPv4 address, or an IPv6 network of 64 bits, which is one site's at least."""
    known = known_address(address)
    parsed = None if known == "unknown" else ip_address(known)
    if not isinstance(parsed, IPv6Address):
        return known
    return str(parsed.ipv4_mapped or IPv6Network((int(parsed) >> 64 << 64, 64)))
