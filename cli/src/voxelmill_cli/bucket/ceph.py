"""Ceph's object gateway tells by AMQP: an exchange, a persistent topic of its own SNS, the notification configuration.

Source: "Bucket Notifications" of Ceph's documentation; what it leaves open was tried on Ceph 16.2.15.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from voxelmill_cli.bucket import rules
from voxelmill_cli.bucket.administration import Administration, RefusedError, asking
from voxelmill_cli.bucket.exchange import NotificationExchange, as_push_endpoint, has_password, without_password
from voxelmill_cli.bucket.notifying import notification_step, write_entry
from voxelmill_cli.bucket.steps import Step, StepState
from voxelmill_cli.errors import EXIT_INPUT_FAILED, CommandError

if TYPE_CHECKING:
    from typing import Any

SECTION = "TopicConfigurations"
FIRST_NOTE = "a new topic's first notifications may take half a minute; those after it come at once"
EXCHANGE_NOTE = "Ceph 16 sends to one exchange of a broker only: use the same --exchange for all its buckets"


class CephConnection:
    """The steps for a bucket of Ceph's object gateway.

    Parameters
    ----------
    exchange
        It must stand before the gateway connects: the gateway does not declare it.
    push_url
        The broker as the gateway reaches it.
    topic
        The topic's name; it is the routing key of the messages.
    """

    def __init__(
        self, administration: Administration, exchange: NotificationExchange, push_url: str, topic: str
    ) -> None:
        self._administration = administration
        self._exchange = exchange
        self._topic = topic
        self._arn: str | None = None
        self._attributes = {
            "push-endpoint": as_push_endpoint(push_url),
            "amqp-exchange": exchange.name,
            "amqp-ack-level": "broker",
            # Kept in the gateway while the broker is away; without it they would be dropped.
            "persistent": "true",
        }

    def steps(self) -> list[Step]:
        """Look at what stands."""
        topic = self._topic_step()
        entry = None if self._arn is None else self._entry(self._arn)
        # A notification holds a copy of its topic, made when it was written.
        again = topic.state is not StepState.STANDS
        configuration = notification_step(self._administration, SECTION, entry, self._write, again=again)
        return [self._exchange.step(), topic, configuration]

    @property
    def _sns(self) -> Any:
        """The gateway's own SNS, at the address of its S3."""
        return self._administration.client("sns", self._administration.endpoint)

    def _entry(self, arn: str) -> dict[str, Any]:
        return rules.notification("TopicArn", arn, self._administration.target.prefix, encoded=False)

    def _topic_step(self) -> Step:
        title = f"topic {self._topic} of the gateway"
        detail = f"to {without_password(self._attributes['push-endpoint'])}, acknowledged by the broker, persistent"

        def act() -> None:
            self._create()

        try:
            with asking(title):
                self._arn = self._find()
                if self._arn is None:
                    return Step(title, StepState.CREATE, detail, act)
                answer = self._sns.get_topic_attributes(TopicArn=self._arn)
        except RefusedError as error:
            if error.denied and self._is_plain:  # some topic holds a password, which is not shown without TLS
                return Step(title, StepState.CHANGE, f"{detail}; what stands is shown over https only", act)
            raise
        if self._stands(answer["Attributes"]):
            return Step(title, StepState.STANDS, detail)
        return Step(title, StepState.CHANGE, detail, act)

    @property
    def _is_plain(self) -> bool:
        return urlsplit(self._administration.endpoint).scheme == "http"

    def _find(self) -> str | None:
        pages = self._sns.get_paginator("list_topics").paginate()
        arns = [str(topic["TopicArn"]) for page in pages for topic in page.get("Topics", ())]
        return next((arn for arn in arns if arn.rpartition(":")[2] == self._topic), None)

    def _stands(self, attributes: dict[str, str]) -> bool:
        endpoint = json.loads(attributes.get("EndPoint", "{}"))
        arguments = parse_qs(endpoint.get("EndpointArgs", "").replace("+", "%2B"))
        found = {name: arguments.get(name, [""])[-1] for name in self._attributes}
        found["push-endpoint"] = endpoint.get("EndpointAddress", "")
        return found == self._attributes

    def _create(self) -> None:
        try:
            with asking(f"topic {self._topic}"):
                self._arn = str(self._sns.create_topic(Name=self._topic, Attributes=self._attributes)["TopicArn"])
        except RefusedError as error:
            if not (self._is_plain and has_password(self._attributes["push-endpoint"])):
                raise
            line = (
                f"topic {self._topic}: the gateway takes a broker's password over https only ({error.code}); set "
                "AWS_ENDPOINT_URL to its https address, or (where it knows that) rgw_allow_notification_secrets_in_"
                "cleartext=true at the gateway"
            )
            raise CommandError(line, EXIT_INPUT_FAILED) from error

    def _write(self) -> None:
        if self._arn is None:
            self._create()
        write_entry(self._administration, SECTION, self._entry(str(self._arn)))
