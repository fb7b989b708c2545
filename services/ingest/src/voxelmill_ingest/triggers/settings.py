"""Which sources of notifications an ingest process listens to. None of them is on by default."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from voxelmill_ingest.settings import IngestSettings
from voxelmill_ingest.triggers.sns import TOPIC
from voxelmill_shared.transport.topology import ForeignExchange

SHORTEST_TOKEN = 16


class IngestProcessSettings(IngestSettings):
    """Ingest's settings and those of its triggers.

    The commands that run every service in one process read `IngestSettings` alone: a run of one folder must never take
    the notifications of an installation.
    """

    amqp_notifications_exchange: str = Field(
        "", max_length=127, description="the exchange that MinIO, RustFS or Ceph publishes to; empty: none"
    )
    amqp_notifications_exchange_type: Literal["topic", "fanout", "direct"] = Field(
        "topic", description="its type (Ceph: topic)"
    )
    amqp_notifications_routing_key: str = Field(
        "#", max_length=255, description="what of it is taken: a pattern, or the exact key for a direct exchange"
    )
    amqp_notifications_url: SecretStr | None = Field(
        None, description="its broker, amqp://…; the installation's own if empty"
    )

    sqs_queue_url: str = Field("", description="the SQS queue that the bucket's events end in; empty: none")
    sqs_receivers: int = Field(4, ge=1, le=64, description="how many requests for messages wait at a time")
    sqs_visibility_seconds: int = Field(
        60, ge=1, le=43_200, description="how long a message in hand is hidden from other replicas"
    )

    notification_token: SecretStr | None = Field(
        None, description="what senders must know to push to /notifications; without it there is no such address"
    )
    notification_sns_topic: str = Field("", description="the ARN of the SNS topic that may push; empty: none")

    @field_validator("amqp_notifications_exchange")
    @classmethod
    def _not_our_own(cls, value: str) -> str:
        if value.startswith("voxelmill."):
            raise ValueError(f"{value} is Voxelmill's own; name the exchange that the store publishes to")
        return value

    @field_validator("amqp_notifications_routing_key")
    @classmethod
    def _exact_for_direct(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("amqp_notifications_exchange_type") == "direct" and {"#", "*"}.intersection(value):
            raise ValueError("a direct exchange knows no patterns; give the routing key that the store publishes with")
        return value

    @field_validator("amqp_notifications_url", mode="after")
    @classmethod
    def _a_rabbitmq(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        value = _given(value)
        if value is None:
            broker = urlsplit(str(info.data.get("broker_url", ""))).scheme
            if info.data.get("amqp_notifications_exchange") and broker not in {"amqp", "amqps"}:
                raise ValueError(
                    "the installation's own broker is no RabbitMQ; give the one that the store publishes to"
                )
            return None
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
            raise ValueError("write amqp://user:password@host:port/vhost")
        return value

    @field_validator("sqs_queue_url")
    @classmethod
    def _a_queue(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.count("/") < 2):
            raise ValueError("write https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, the queue's URL and not its ARN")
        return value

    @field_validator("notification_token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        value = _given(value)
        if value is not None and len(value.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(f"shorter than {SHORTEST_TOKEN} characters; `openssl rand -hex 32` makes a good one")
        return value

    @field_validator("notification_sns_topic")
    @classmethod
    def _a_topic(cls, value: str) -> str:
        if value and TOPIC.fullmatch(value) is None:
            raise ValueError("write arn:aws:sns:REGION:ACCOUNT:NAME")
        return value

    def notifications_exchange(self) -> ForeignExchange:
        """The exchange that the store publishes to."""
        return ForeignExchange(
            self.amqp_notifications_exchange,
            self.amqp_notifications_exchange_type,
            self.amqp_notifications_routing_key,
        )


def _given(value: SecretStr | None) -> SecretStr | None:
    """Take an empty text for none: compose files hand on variables that are not set as empty ones."""
    return value if value and value.get_secret_value() else None
