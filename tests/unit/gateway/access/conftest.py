"""A gateway that asks who calls, over SQLite, with an identity provider beside it."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import select

from unit.gateway.access.issuer import AUDIENCE, Issuer
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_gateway.tables import OUTBOX
from voxelmill_shared.database import reading
from voxelmill_shared.events import AccessRecorded, Envelope


@pytest.fixture
async def issuer():
    async with Issuer() as issuer:
        yield issuer


@pytest.fixture
def more_settings():
    """What a test wants to be set otherwise."""
    return {}


@pytest.fixture
def settings(settings, issuer, more_settings):
    """The parent's settings, with access control on."""
    chosen = {
        "gateway_auth": "on",
        "gateway_oidc_issuer": issuer.url,
        "gateway_oidc_audience": AUDIENCE,
        **more_settings,
    }
    return GatewaySettings(**{**settings.model_dump(), **chosen})


@pytest.fixture
async def client(address):
    async with httpx.AsyncClient(base_url=address) as client:
        yield client


@pytest.fixture
def recorded(gateway):
    """The records of access that stand in the outbox. Nothing declares a topology here, so none has left it."""

    async def read() -> list[AccessRecorded]:
        async with reading(gateway.engine) as connection:
            rows = (await connection.execute(select(OUTBOX).order_by(OUTBOX.c.id))).all()
        envelopes = [Envelope.decode(row.body) for row in rows if row.routing_key == AccessRecorded.type]
        return [AccessRecorded.model_validate(envelope.data) for envelope in envelopes]

    return read


def bearer(token):
    return {"Authorization": f"Bearer {token}"}
