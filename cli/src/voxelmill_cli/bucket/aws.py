"""Amazon S3 tells by Amazon SQS: a queue that this bucket alone may send to, and the notification configuration."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from voxelmill_cli.bucket import rules
from voxelmill_cli.bucket.administration import Administration, RefusedError, asking
from voxelmill_cli.bucket.notifying import notification_step, read_configuration, write_entry
from voxelmill_cli.bucket.steps import Step, StepState
from voxelmill_cli.errors import EXIT_INPUT_FAILED, CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTION = "QueueConfigurations"
ATTRIBUTES = {
    "MessageRetentionPeriod": "1209600",  # 14 days, the most that SQS has: ingest may be stopped for long
    "ReceiveMessageWaitTimeSeconds": "20",
    "VisibilityTimeout": "120",
}
RECEIVES = 20
"""How often a message is received before it goes to the dead-letter queue."""
POLICY_SECONDS = 30.0
"""How long a queue's new policy may take until S3 sees it."""
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


def default_queue(bucket: str) -> str:
    """Name the queue of a bucket as SQS allows."""
    return f"voxelmill-{bucket.replace('.', '-')}"


class AwsConnection:
    """The steps for a bucket of AWS.

    Parameters
    ----------
    administration
        In the bucket's region: S3 sends to queues of the same region only.
    queue, dead_letter_queue
        Names; no dead-letter queue if None.

    Raises
    ------
    CommandError
        If a name is none that SQS takes from S3.
    """

    def __init__(self, administration: Administration, queue: str, dead_letter_queue: str | None) -> None:
        for name in (queue, dead_letter_queue):
            if name is not None and not _QUEUE_NAME.fullmatch(name):
                raise CommandError(f"{name}: a queue's name has at most 80 letters, digits, - and _ (S3 has no FIFO)")
        self._administration = administration
        self._queue = queue
        self._dead_letter_queue = dead_letter_queue
        self._url: str | None = None

    def steps(self) -> list[Step]:
        """Look at what stands."""
        with asking("the credentials"):
            identity = self._administration.client("sts").get_caller_identity()
        self._account, self._partition = identity["Account"], identity["Arn"].split(":")[1]
        self._check_owner()
        steps = [self._queue_step()]
        if self._dead_letter_queue is not None:
            steps.insert(0, self._dead_letter_step(self._dead_letter_queue))
        entry = rules.notification("QueueArn", self._arn(self._queue), self._administration.target.prefix, encoded=True)
        self._refuse_overlap(entry)
        step = notification_step(self._administration, SECTION, entry, lambda: self._write(entry))
        return [*steps, step]

    def variables(self) -> dict[str, str]:
        """What ingest must know; the queue's address is known once it stands."""
        return {} if self._url is None else {"VOXELMILL_SQS_QUEUE_URL": self._url}

    def _arn(self, name: str) -> str:
        return f"arn:{self._partition}:sqs:{self._administration.region}:{self._account}:{name}"

    def _check_owner(self) -> None:
        bucket = self._administration.target.bucket
        try:
            with asking(f"s3://{bucket}"):
                self._administration.s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=self._account)
        except RefusedError as error:
            if not error.denied:
                raise
            line = f"s3://{bucket} is not of account {self._account}; use credentials of the bucket's account"
            raise CommandError(line, EXIT_INPUT_FAILED) from error

    def _refuse_overlap(self, entry: rules.Document) -> None:
        configuration = read_configuration(self._administration)
        if rules.is_covered(configuration, SECTION, entry):
            return
        found = rules.overlapping(configuration, entry)
        if found is not None:
            name, prefix, destination = found
            line = (
                f"s3://{self._administration.target.bucket}: the notification {name!r} of {prefix or 'all objects'} "
                f"already goes to {destination}, and AWS sends one event to one destination only; remove it and run "
                "this again, or subscribe a queue to it and give that queue to ingest as VOXELMILL_SQS_QUEUE_URL"
            )
            raise CommandError(line, EXIT_INPUT_FAILED)

    def _dead_letter_step(self, name: str) -> Step:
        title = f"SQS dead-letter queue {name}"
        if self._find(name) is not None:
            return Step(title, StepState.STANDS)

        def act() -> None:
            self._create(name, {"MessageRetentionPeriod": ATTRIBUTES["MessageRetentionPeriod"]})

        return Step(title, StepState.CREATE, "keeps messages for 14 days", act)

    def _queue_step(self) -> Step:
        title = f"SQS queue {self._queue}"
        target = self._administration.target
        arn = self._arn(self._queue)
        statement = rules.sending_statement(target.bucket, self._account, self._partition, arn)
        redrive = self._redrive()
        self._url = self._find(self._queue)
        if self._url is None:
            policy = rules.with_statement(None, statement) or ""

            def create() -> None:
                self._url = self._create(self._queue, {**ATTRIBUTES, "Policy": policy, **redrive})

            may = f"only s3://{target.bucket} of account {self._account} may send to it"
            return Step(title, StepState.CREATE, f"{may}; keeps messages for 14 days", create)
        wanted, details = self._wanted(self._url, statement, redrive)
        if not wanted:
            return Step(title, StepState.STANDS)

        def change() -> None:
            with asking(title):
                self._administration.client("sqs").set_queue_attributes(QueueUrl=self._url, Attributes=wanted)

        return Step(title, StepState.CHANGE, "; ".join(details), change)

    def _wanted(
        self, url: str, statement: rules.Document, redrive: Mapping[str, str]
    ) -> tuple[dict[str, str], list[str]]:
        """Compare a queue that stands; return what of it is to be changed, and that in words."""
        with asking(f"SQS queue {self._queue}"):
            answer = self._administration.client("sqs").get_queue_attributes(
                QueueUrl=url, AttributeNames=["Policy", "RedrivePolicy"]
            )
            standing = answer.get("Attributes", {})
            policy = rules.with_statement(standing.get("Policy"), statement)
        wanted, details = {}, []
        if policy is not None:
            wanted["Policy"] = policy
            details.append("this bucket may send to it; the statements of others are kept")
        if redrive and json.loads(standing.get("RedrivePolicy", "{}")) != json.loads(redrive["RedrivePolicy"]):
            wanted.update(redrive)
            details.append(f"dead letters go to {self._dead_letter_queue}")
        return wanted, details

    def _redrive(self) -> dict[str, str]:
        if self._dead_letter_queue is None:
            return {}
        target = {"deadLetterTargetArn": self._arn(self._dead_letter_queue), "maxReceiveCount": RECEIVES}
        return {"RedrivePolicy": json.dumps(target)}

    def _find(self, name: str) -> str | None:
        try:
            with asking(f"SQS queue {name}"):
                return str(self._administration.client("sqs").get_queue_url(QueueName=name)["QueueUrl"])
        except RefusedError as error:
            if "NonExistentQueue" in error.code or "QueueDoesNotExist" in error.code:
                return None
            raise

    def _create(self, name: str, attributes: Mapping[str, str]) -> str:
        with asking(f"SQS queue {name}"):
            answer: dict[str, Any] = self._administration.client("sqs").create_queue(
                QueueName=name, Attributes=dict(attributes)
            )
        return str(answer["QueueUrl"])

    def _write(self, entry: rules.Document) -> None:
        """Write the configuration. S3 tries to send a test event, and a policy is not seen everywhere at once."""
        until = time.monotonic() + POLICY_SECONDS
        pause = 1.0
        while True:
            try:
                write_entry(self._administration, SECTION, entry)
            except RefusedError as error:
                if error.code != "InvalidArgument" or "destination" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(pause)
                pause *= 2
            else:
                return
