"""What a plan needs of its model, looked at before any work: the library, a licence, weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from voxelmill_cli.errors import EXIT_UNREACHABLE, EXIT_USAGE, CommandError
from voxelmill_segment.organs import segments_of
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.tasks import LICENCE_VARIABLE, UnfitPlanError, resolve
from voxelmill_segment.totalsegmentator.weights import MissingWeightsError, OtherWeightsError, WeightsFolder
from voxelmill_shared.plan import MODEL_REVISIONS, ModelName
from voxelmill_shared.work import NotApplicableError

if TYPE_CHECKING:
    from voxelmill_segment.totalsegmentator.tasks import Request
    from voxelmill_shared.errors import NotEquippedError
    from voxelmill_shared.plan import Plan

WEIGHTS_VARIABLE = "VOXELMILL_WEIGHTS"
DIGEST_VARIABLE = "VOXELMILL_WEIGHTS_DIGEST"
DEFAULT_WEIGHTS = Path("voxelmill-data/weights")


def weights_folder() -> WeightsFolder:
    """The weights folder that the environment names, or the usual one."""
    return WeightsFolder(Path(os.environ.get(WEIGHTS_VARIABLE) or DEFAULT_WEIGHTS).absolute())


def licences() -> str:
    """What was given of licences."""
    return os.environ.get(LICENCE_VARIABLE, "")


def ready(plan: Plan) -> Plan:
    """Return the plan with its model's revision and the digest of the weights that are here.

    Raises
    ------
    CommandError
        If no series could be worked on like this: exit code 2 for what was asked, and for a library that is not
        installed; 3 for weights that are not here.
    """
    plan = plan.model_copy(update={"model_revision": MODEL_REVISIONS[plan.model]})
    if plan.model is ModelName.THRESHOLD:
        if plan.task or plan.resolution:
            raise CommandError("the model threshold has no tasks and no resolutions: --model totalsegmentator has")
        try:
            segments_of(plan.organ)
        except NotApplicableError as error:
            raise CommandError(str(error)) from None
        return plan
    plan = plan.model_copy(update={"weights_digest": os.environ.get(DIGEST_VARIABLE, "")})
    return plan.model_copy(update={"weights_digest": digest_of(plan, weights_folder())})


def digest_of(plan: Plan, weights: WeightsFolder) -> str:
    """Return the digests of the weights that a plan needs, for CT and for MR where both are here, with `+` between.

    Raises
    ------
    CommandError
        If there is no such plan, or neither's weights are here, or they are not those that the plan names.
    """
    digests: dict[str, None] = {}
    lacking: NotEquippedError | None = None
    for request in requests_of(plan):
        try:
            digests[weights.agree(plan.weights_digest, request.all_networks)] = None
        except (MissingWeightsError, OtherWeightsError) as error:
            lacking = lacking or error
    if not digests:
        raise CommandError(str(lacking), EXIT_UNREACHABLE)
    return "+".join(digests)


def requests_of(plan: Plan) -> list[Request]:
    """What a plan means for CT, and for MR: at least one of the two.

    Raises
    ------
    CommandError
        If it means nothing, or the library is not installed.
    """
    found, reason = [], ""
    for modality in ("CT", "MR"):
        try:
            found.append(resolve(plan, modality, licences()))
        except NotApplicableError as error:
            reason = reason or str(error)
        except (library.NotInstalledError, UnfitPlanError) as error:
            raise CommandError(str(error), EXIT_USAGE) from None
    if not found:
        raise CommandError(reason)
    return found
