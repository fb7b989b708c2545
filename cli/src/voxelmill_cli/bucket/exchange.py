"""The exchange on RabbitMQ that a store publishes its notifications to."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import aio_pika
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelNotFoundEntity, ChannelPreconditionFailed

from voxelmill_cli.bucket.steps import Step, StepState
from voxelmill_cli.bucket.target import EXCHANGE, OWN_EXCHANGES, ExchangeType
from voxelmill_cli.errors import EXIT_INPUT_FAILED, EXIT_UNREACHABLE, CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from aio_pika.abc import AbstractChannel

ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class NotificationExchange:
    """Where a store publishes.

    Parameters
    ----------
    broker_url
        `amqp://user:password@host:port/vhost`, as this machine reaches it.
    name, exchange_type
        The exchange; it is durable.

    Raises
    ------
    CommandError
        If the name is of an exchange for events.
    """

    broker_url: str
    name: str = EXCHANGE
    exchange_type: ExchangeType = ExchangeType.TOPIC

    def __post_init__(self) -> None:
        if self.name.startswith(OWN_EXCHANGES):
            raise CommandError(f"--exchange {self.name}: names with {OWN_EXCHANGES} are for events; give another")

    def step(self) -> Step:
        """Look whether the exchange stands.

        Raises
        ------
        CommandError
            If the broker cannot be reached, or the exchange is of another type.
        """
        title = f"exchange {self.name} on {without_password(self.broker_url)}"
        if self._ask(self._stands):
            return Step(title, StepState.STANDS, f"{self.exchange_type}, durable")

        def act() -> None:
            self._ask(self._declare)

        return Step(title, StepState.CREATE, f"{self.exchange_type}, durable", act)

    async def _stands(self, channel: AbstractChannel) -> bool:
        try:
            await channel.declare_exchange(self.name, self.exchange_type, durable=True, passive=True)
        except ChannelNotFoundEntity:
            return False
        await channel.reopen()
        # Only a declaration that is no question compares the type; it changes nothing that stands.
        return await self._declare(channel)

    async def _declare(self, channel: AbstractChannel) -> bool:
        try:
            await channel.declare_exchange(self.name, self.exchange_type, durable=True)
        except ChannelPreconditionFailed as error:
            line = (
                f"exchange {self.name} stands on {without_password(self.broker_url)}, but it is no durable "
                f"{self.exchange_type} exchange; give its --exchange-type, or another --exchange"
            )
            raise CommandError(line, EXIT_INPUT_FAILED) from error
        return True

    def _ask(self, question: Callable[[AbstractChannel], Coroutine[Any, Any, bool]]) -> bool:
        return asyncio.run(self._on_channel(question))

    async def _on_channel(self, question: Callable[[AbstractChannel], Coroutine[Any, Any, bool]]) -> bool:
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # what it would say stands in our line
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await aio_pika.connect(self.broker_url, timeout=ANSWER_SECONDS)
                async with connection:
                    return await question(await connection.channel())
        except (*CONNECTION_EXCEPTIONS, TimeoutError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
            line = f"{without_password(self.broker_url)}: no broker answers ({reason}); start it, or give --broker"
            raise CommandError(line, EXIT_UNREACHABLE) from error


def check_broker(url: str) -> str:
    """Return the address of a RabbitMQ, or refuse it.

    Raises
    ------
    CommandError
        If it is of another kind.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"amqp", "amqps"} and bool(parts.hostname) and parts.port != 0  # or it raises
    except ValueError:
        usable = False
    if not usable:
        raise CommandError(
            "the store's notifications need a RabbitMQ: give --broker amqp://user:password@host:port/vhost, or set "
            "VOXELMILL_AMQP_NOTIFICATIONS_URL or VOXELMILL_BROKER_URL"
        )
    return url


def as_push_endpoint(url: str) -> str:
    """Write a broker's address as librabbitmq reads it: a `/` at its end would name the virtual host without a name."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="" if parts.path == "/" else parts.path, query="", fragment=""))


def has_password(url: str) -> bool:
    """Whether the address holds a secret."""
    return urlsplit(url).password is not None


def without_password(url: str) -> str:
    """Write an address for people to read."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}"))
