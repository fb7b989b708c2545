"""Who is let in: tokens, keys, and what becomes of those that are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxelmill_gateway.access.api_keys import PREFIX, ApiKeys
from voxelmill_gateway.access.errors import NoAccessError, NotBelievedError
from voxelmill_gateway.access.rates import Rates
from voxelmill_gateway.access.refusals import Refusals
from voxelmill_gateway.access.tokens import Tokens

if TYPE_CHECKING:
    from datetime import datetime

    from voxelmill_gateway.access.callers import Caller
    from voxelmill_gateway.access.settings import AccessSettings
    from voxelmill_gateway.trail import Trail


class Gatekeeper:
    """Believes tokens of the issuer and keys of the installation, and bounds how often somebody may try.

    Parameters
    ----------
    settings
        Whom to believe.
    keys
        The installation's API keys.
    trail
        Where refusals are written down.
    tokens
        Checks tokens; by default those of the settings' issuer, if there is one.
    """

    def __init__(self, settings: AccessSettings, keys: ApiKeys, trail: Trail, tokens: Tokens | None = None) -> None:
        self.asks = settings.gateway_auth == "on"
        self.rates = Rates(settings)
        self._settings = settings
        self._keys = keys
        self._tokens = tokens or (Tokens(settings) if settings.gateway_oidc_issuer else None)
        self._refusals = Refusals(trail)

    def is_secure(self, scheme: str) -> bool:
        """Whether the session's cookie is one for https alone."""
        return scheme == "https" or self._settings.gateway_cookie_secure

    async def admit(self, text: str, address: str | None) -> tuple[Caller, datetime | None]:
        """Return whom a token or key stands for, and when it expires.

        Parameters
        ----------
        text
            The token or the key.
        address
            Whence it comes.

        Raises
        ------
        NotBelievedError
            If it proves nothing; it is counted and written down.
        NoAccessError
            If its bearer has no role or no project here; it is written down.
        Problem
            429 if too many wrong ones came from this address.
        TransientError
            If it cannot be checked now.
        """
        await self.rates.check_failures(address)
        try:
            return await self._believe(text)
        except NotBelievedError as error:
            if error.guess:
                await self.rates.count_failure(address)
            await self._refusals.note(address, error.reason)
            raise
        except NoAccessError:
            await self._refusals.note(address, "no-rights")
            raise

    async def believes(self, text: str) -> Caller:
        """Return whom a token or key stands for by now; of one that was let in before, so that nothing is counted.

        Raises
        ------
        NotBelievedError, NoAccessError, TransientError
            As `admit`.
        """
        caller, _ = await self._believe(text)
        return caller

    async def _believe(self, text: str) -> tuple[Caller, datetime | None]:
        if text.startswith(PREFIX):
            return await self._keys.caller(text)
        if self._tokens is None:
            raise NotBelievedError("no-issuer", "only API keys are taken here: ask an admin for one")
        return await self._tokens.caller(text)
