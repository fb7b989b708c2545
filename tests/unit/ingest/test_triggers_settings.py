"""What the settings of the sources accept, and what they turn on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from voxelmill_ingest.triggers.service import build_process
from voxelmill_ingest.triggers.settings import IngestProcessSettings
from voxelmill_ingest.triggers.sns import address_of
from voxelmill_ingest.triggers.sqs import _server_of
from voxelmill_shared.main import wrong_settings
from voxelmill_shared.parts import open_parts
from voxelmill_shared.transport.topology import ForeignExchange

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "0123456789abcdef"  # noqa: S105 - of this test alone
QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/uploads"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:uploads"


@pytest.mark.parametrize(
    ("given", "variable", "reason"),
    [
        ({"notification_token": "short"}, "NOTIFICATION_TOKEN", "shorter than 16 characters"),
        ({"notification_sns_topic": "uploads"}, "NOTIFICATION_SNS_TOPIC", "write arn:aws:sns:"),
        ({"sqs_queue_url": "arn:aws:sqs:eu-west-1:1:q"}, "SQS_QUEUE_URL", "the queue's URL and not its ARN"),
        ({"sqs_queue_url": "https://sqs.eu-west-1.amazonaws.com"}, "SQS_QUEUE_URL", "ACCOUNT/NAME"),
        ({"sqs_receivers": 0}, "SQS_RECEIVERS", "greater than or equal to 1"),
        ({"sqs_visibility_seconds": 43_201}, "SQS_VISIBILITY_SECONDS", "less than or equal to 43200"),
        ({"amqp_notifications_exchange": "voxelmill.events"}, "AMQP_NOTIFICATIONS_EXCHANGE", "is Voxelmill's own"),
        ({"amqp_notifications_exchange": "x"}, "AMQP_NOTIFICATIONS_URL", "is no RabbitMQ"),
        ({"amqp_notifications_url": "http://host"}, "AMQP_NOTIFICATIONS_URL", "write amqp://"),
        ({"amqp_notifications_exchange_type": "headers"}, "AMQP_NOTIFICATIONS_EXCHANGE_TYPE", "'topic', 'fanout'"),
        ({"amqp_notifications_exchange_type": "direct"}, "AMQP_NOTIFICATIONS_ROUTING_KEY", "knows no patterns"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(given: dict[str, Any], variable: str, reason: str) -> None:
    """The line has the variable and what to write."""
    with pytest.raises(ValidationError) as refused:
        IngestProcessSettings(**given)
    (line,) = wrong_settings(refused.value)
    assert line.startswith(f"VOXELMILL_{variable}: ")
    assert reason in line


def test_a_secret_is_not_repeated() -> None:
    """Neither in an error nor in the settings' text."""
    with pytest.raises(ValidationError) as refused:
        IngestProcessSettings(notification_token="hunter2", amqp_notifications_url="http://user:hunter2@host")  # noqa: S106 - no secret of anybody
    assert "hunter2" not in "".join(wrong_settings(refused.value))
    settings = IngestProcessSettings(notification_token=SECRET, amqp_notifications_url=f"amqp://user:{SECRET}@host")
    assert SECRET not in repr(settings)


def test_what_is_empty_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files hand on variables that nobody has set as empty ones."""
    for name in (
        "NOTIFICATION_TOKEN",
        "NOTIFICATION_SNS_TOPIC",
        "SQS_QUEUE_URL",
        "AMQP_NOTIFICATIONS_EXCHANGE",
        "AMQP_NOTIFICATIONS_URL",
    ):
        monkeypatch.setenv(f"VOXELMILL_{name}", "")
    settings = IngestProcessSettings()
    assert settings.notification_token is None
    assert settings.amqp_notifications_url is None


def test_the_exchange_is_as_the_settings_say() -> None:
    """Name, type and what is taken of it."""
    settings = IngestProcessSettings(
        broker_url="amqp://host",
        amqp_notifications_exchange="bucket.events",
        amqp_notifications_exchange_type="direct",
        amqp_notifications_routing_key="uploads",
    )
    assert settings.notifications_exchange() == ForeignExchange("bucket.events", "direct", "uploads")


async def test_each_source_is_on_when_its_setting_is_there(tmp_path: Path) -> None:
    """None by default; a check for each that is waited for, an address for what is pushed."""
    places = {
        "broker_url": f"embedded:{tmp_path}/broker.db",
        "inbox_url": str(tmp_path / "inbox"),
        "work_url": str(tmp_path / "work"),
        "results_url": str(tmp_path / "results"),
        "database_url": f"sqlite:///{tmp_path}/v.db",
        "scratch": tmp_path / "scratch",
    }
    none = IngestProcessSettings(**places)
    each = IngestProcessSettings(
        **places,
        amqp_notifications_exchange="bucket.events",
        amqp_notifications_url="amqp://127.0.0.1:1",
        sqs_queue_url=QUEUE,
        notification_token=SECRET,
    )
    async with open_parts(none) as parts:
        without = build_process(parts, none)
        service = build_process(parts, each)
    assert without.routes == ()
    assert {name for name in without.checks if name.startswith("notifications")} == set()
    assert {name for name in service.checks if name.startswith("notifications")} == {
        "notifications-amqp",
        "notifications-sqs",
    }
    assert len(service.background) == len(without.background) + 2
    assert [(route.method, route.path) for route in service.routes] == [("POST", "/notifications")]


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (QUEUE, "eu-central-1"),
        ("https://eu-central-1.queue.amazonaws.com/123456789012/uploads", "eu-central-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/uploads", "cn-north-1"),
        ("http://127.0.0.1:9324/000000000000/uploads", None),
        ("https://sqs.eu-central-1.amazonaws.com.example.org/1/q", None),
    ],
)
def test_a_queues_address_names_its_server_and_region(
    url: str, region: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the address of the object store, which AWS_ENDPOINT_URL holds, leads no queue astray."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example")
    monkeypatch.delenv("AWS_ENDPOINT_URL_SQS", raising=False)
    assert _server_of(url) == (url.rpartition("/")[0].rpartition("/")[0], region)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://vpc.example")
    assert _server_of(url) == (None, region)


@pytest.mark.parametrize(
    ("topic", "address"),
    [
        (TOPIC, "https://sns.eu-west-1.amazonaws.com/"),
        ("arn:aws-cn:sns:cn-north-1:123456789012:t", "https://sns.cn-north-1.amazonaws.com.cn/"),
        ("arn:aws-us-gov:sns:us-gov-west-1:123456789012:t.fifo", "https://sns.us-gov-west-1.amazonaws.com/"),
        ("", ""),
        ("arn:aws:sns:evil.example/:123456789012:t", ""),
        ("arn:aws:sns:eu-west-1:123456789012:t\n", ""),
    ],
)
def test_a_topic_is_confirmed_at_amazon_alone(topic: str, address: str) -> None:
    """The address is made of the region, which can hold nothing but letters, digits and hyphens."""
    assert address_of(topic) == address
