"""The notification configuration of a bucket: read, put ours among the others, write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxelmill_cli.bucket import rules
from voxelmill_cli.bucket.administration import Administration, asking
from voxelmill_cli.bucket.steps import Step, StepState, kept

if TYPE_CHECKING:
    from collections.abc import Callable

TITLE = "notification configuration of the bucket"


def read_configuration(administration: Administration) -> dict[str, Any]:
    """Read what stands."""
    bucket = administration.target.bucket
    with asking(f"notification configuration of s3://{bucket}"):
        return rules.bare(administration.s3.get_bucket_notification_configuration(Bucket=bucket))


def write_entry(administration: Administration, section: str, entry: rules.Document) -> None:
    """Put our entry among those that stand now."""
    merged = rules.with_notification(read_configuration(administration), section, entry)
    bucket = administration.target.bucket
    with asking(f"notification configuration of s3://{bucket}"):
        administration.s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=merged)


def notification_step(
    administration: Administration,
    section: str,
    entry: rules.Document | None,
    act: Callable[[], None],
    *,
    again: bool = False,
) -> Step:
    """Look whether our entry stands, and give what is to be done.

    Parameters
    ----------
    entry
        None: its destination has no name yet, so it cannot stand.
    act
        Writes it.
    again
        Whether it must be written even if it stands.
    """
    configuration = read_configuration(administration)
    standing = [other for name in rules.DESTINATIONS for other in configuration.get(name, ())]
    others = sum(other.get("Id") != rules.notification_id(administration.target.prefix) for other in standing)
    detail = f"s3:ObjectCreated:* of {administration.target.objects}"

    def put() -> None:
        act()

    if entry is not None and rules.is_covered(configuration, section, entry):
        if not again:
            return Step(TITLE, StepState.STANDS, detail)
        return Step(TITLE, StepState.CHANGE, f"{detail}; written again, for its destination changes", put)
    moved = rules.ours_elsewhere(configuration, entry) if entry is not None else None
    if moved is not None:
        detail += f"; until now to {moved}"
    return Step(TITLE, StepState.CHANGE if configuration else StepState.CREATE, kept(detail, others, "entry"), put)
