"""What every store is asked for beside notifications: CORS for browsers, and no multipart upload that lies for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxelmill_cli.bucket import rules
from voxelmill_cli.bucket.administration import Administration, RefusedError, asking
from voxelmill_cli.bucket.steps import Step, StepState, kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CORS = "CORS for uploads from browsers"
LIFECYCLE = "lifecycle rule for multipart uploads that nobody completes"
_NONE_YET = frozenset({"NoSuchCORSConfiguration", "NoSuchLifecycleConfiguration"})
_MINIMUM_SIZE = "TransitionDefaultMinimumObjectSize"


def upkeep_steps(administration: Administration, origins: Sequence[str], abort_days: int) -> list[Step]:
    """Look at CORS (if there are origins) and at the lifecycle (if there are days); give what is to be done."""
    steps = []
    if abort_days:
        steps.append(_lifecycle_step(administration, abort_days))
    if origins:
        steps.append(_cors_step(administration, origins))
    return steps


def _cors_step(administration: Administration, origins: Sequence[str]) -> Step:
    bucket, wanted = administration.target.bucket, rules.cors_rule(origins)
    allowed = f"from {', '.join(wanted['AllowedOrigins'])}"

    def read() -> Standing:
        return _read(administration, CORS, lambda s3: s3.get_bucket_cors(Bucket=bucket))

    def put() -> str | None:
        document = {"CORSRules": rules.with_cors(read().of("CORSRules"), wanted)}
        return _write(administration, CORS, lambda s3: s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=document))

    standing = read()
    if standing.lacking:
        return Step(CORS, StepState.LACKING, standing.lacking)
    found = standing.of("CORSRules")
    if rules.has_cors(found, wanted):
        return Step(CORS, StepState.STANDS, allowed)
    others = [rule for rule in found if rule.get("ID") != wanted["ID"]]
    return Step(CORS, StepState.CHANGE if found else StepState.CREATE, kept(allowed, len(others), "rule"), put)


def _lifecycle_step(administration: Administration, days: int) -> Step:
    bucket, prefix = administration.target.bucket, administration.target.prefix

    def read() -> Standing:
        return _read(administration, LIFECYCLE, lambda s3: s3.get_bucket_lifecycle_configuration(Bucket=bucket))

    def put() -> str | None:
        standing = read()
        found = standing.of("Rules")
        document = {"Rules": rules.with_abort(found, rules.abort_rule(found, prefix, days))}
        # AWS puts it back to its default where it is not said again.
        kept = {name: standing.answer[name] for name in (_MINIMUM_SIZE,) if name in standing.answer}
        return _write(
            administration,
            LIFECYCLE,
            lambda s3: s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=document, **kept),
        )

    standing = read()
    if standing.lacking:
        return Step(LIFECYCLE, StepState.LACKING, standing.lacking)
    found = standing.of("Rules")
    rule = rules.standing_abort(found, prefix, days)
    if rule is not None:
        return Step(LIFECYCLE, StepState.STANDS, f"rule {rule[0] or 'without a name'}, after {rule[1]} days")
    wanted = rules.abort_rule(found, prefix, days)
    others = [other for other in found if other.get("ID") != wanted["ID"]]
    return Step(
        LIFECYCLE, StepState.CHANGE if found else StepState.CREATE, kept(f"after {days} days", len(others), "rule"), put
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """What a store answered about one kind of rules; `lacking` says that it has no such thing."""

    answer: dict[str, Any]
    lacking: str = ""

    def of(self, name: str) -> list[dict[str, Any]]:
        """Give the rules."""
        found: list[dict[str, Any]] = self.answer.get(name, [])
        return found


def _read(administration: Administration, title: str, ask: Callable[[Any], dict[str, Any]]) -> Standing:
    try:
        with asking(f"{title} of s3://{administration.target.bucket}"):
            return Standing(ask(administration.s3))
    except RefusedError as error:
        if error.code in _NONE_YET:
            return Standing({})
        if error.unknown_there:
            return Standing({}, f"it answered {error.code}")
        raise


def _write(administration: Administration, title: str, ask: Callable[[Any], Any]) -> str | None:
    try:
        with asking(f"{title} of s3://{administration.target.bucket}"):
            ask(administration.s3)
    except RefusedError as error:
        if error.unknown_there:
            return f"{title}: {StepState.LACKING} (it answered {error.code})"
        raise
    return None
