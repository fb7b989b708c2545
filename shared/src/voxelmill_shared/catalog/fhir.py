"""Audit records as AuditEvent resources of FHIR R4 (4.0.1), with the codes of DICOM PS3.15 A.5 where there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from voxelmill_shared.catalog.states import ObjectStatus, StageOutcome

if TYPE_CHECKING:
    from datetime import datetime

    from voxelmill_shared.catalog.views import AuditView

DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
OURS: Final = "https://voxelmill.org/fhir"
"""Names Voxelmill's own systems and extensions; there need be nothing at that address."""

_IMPORT, _INSTANCES, _ACTIVITY, _PATIENT, _QUERY, _LOGIN, _ALERT = (
    ("110107", "Import"),
    ("110103", "DICOM Instances Accessed"),
    ("110100", "Application Activity"),
    ("110110", "Patient Record"),
    ("110112", "Query"),
    ("110114", "User Authentication"),
    ("110113", "Security Alert"),
)
# Type (PS3.16 CID 400) and action (C create, R read, E execute) by the first word of the event's type, or all of it.
_KINDS: Final[dict[str, tuple[tuple[str, str], str]]] = {
    "object": (_IMPORT, "C"),
    "series.validated.v1": (_INSTANCES, "R"),
    "series.indexed.v1": (_ACTIVITY, "E"),
    "series": (_INSTANCES, "C"),
    "stage": (_INSTANCES, "R"),
    "pseudonym": (_PATIENT, "R"),
}
_ACCESSES: Final[dict[str, tuple[tuple[str, str], str]]] = {
    **dict.fromkeys(("read", "download", "rendered"), (_INSTANCES, "R")),
    "search": (_QUERY, "E"),
    "uploaded": (_IMPORT, "C"),
    **dict.fromkeys(("login", "logout"), (_LOGIN, "E")),
    # Who may do what has changed (PS3.16 CID 401, 110137): an alert in the terms of the Standard.
    "key-created": (_ALERT, "C"),
    "key-revoked": (_ALERT, "D"),
    "refused": (_ALERT, "E"),
}
"""The same by the action of an access; any other one is an activity of the application."""
_ACCESS: Final = "access.recorded.v1"
_OUTCOMES: Final = {
    # Of an access, which has words of its own.
    "refused": "4",
    ObjectStatus.REJECTED.value: "4",
    ObjectStatus.FAILED.value: "8",
    StageOutcome.FAILED.value: "8",
}
"""Outcome (FHIR's audit-event-outcome): 0 success, 4 minor failure, 8 serious failure."""


def audit_event(record: AuditView) -> dict[str, Any]:
    """Return the AuditEvent of a record, as JSON takes it.

    Its id is the event's, the place in the chain stands in an extension. Names of people and keys of objects are in
    none: the record has none.
    """
    (code, display), action = _kind(record)
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": record.event_id,
        "extension": [
            {
                "url": f"{OURS}/StructureDefinition/audit-chain",
                "extension": [
                    {"url": "number", "valueString": str(record.number)},
                    {"url": "hash", "valueString": record.hash},
                ],
            }
        ],
        "type": _coding(DCM, code, display),
        "subtype": [{"system": f"{OURS}/CodeSystem/events", "code": record.what}],
        "action": action,
        "period": {"start": _instant(record.occurred), "end": _instant(record.occurred)},
        "recorded": _instant(record.recorded),
        "outcome": _OUTCOMES.get(record.outcome, "0"),
        "agent": [_agent(record.who, caller=record.what == _ACCESS)],
        "source": {
            "observer": {"display": "voxelmill/index"},
            "type": [_coding(f"{TERMINOLOGY}/security-source-type", "4", "Application Server")],
        },
        "entity": _entities(record),
    }
    said = ": ".join(part for part in (record.outcome, record.reason) if part)
    return event | ({"outcomeDesc": said} if said else {})


def _kind(record: AuditView) -> tuple[tuple[str, str], str]:
    what = record.what
    if what == _ACCESS:
        return _ACCESSES.get(record.reason.partition(":")[0], (_ACTIVITY, "E"))
    # What an operator did with a dead letter is an activity of the application.
    return _KINDS.get(what) or _KINDS.get(what.partition(".")[0]) or (_ACTIVITY, "E")


def _agent(who: str, *, caller: bool) -> dict[str, Any]:
    """Describe who did it: a person as user@host, a service as voxelmill/name/host/process.

    A caller of the gateway is described as a person, whatever its identity provider or key calls it.
    """
    user, at, host = who.rpartition("@")
    if caller:
        return {
            "type": {"coding": [_coding(f"{TERMINOLOGY}/extra-security-role-type", "humanuser", "human user")]},
            "altId": who,
            "name": who,
            "requestor": True,
        }
    if at:
        return {
            "type": {"coding": [_coding(f"{TERMINOLOGY}/extra-security-role-type", "humanuser", "human user")]},
            "altId": who,
            "name": user,
            "requestor": True,
            "network": {"address": host, "type": "1"},
        }
    parts = who.split("/")
    agent: dict[str, Any] = {
        "type": {"coding": [_coding(DCM, "110150", "Application")]},
        "altId": who,
        "name": "/".join(parts[:2]),
        "requestor": True,
    }
    return agent | ({"network": {"address": parts[2], "type": "1"}} if len(parts) > 2 else {})


def _entities(record: AuditView) -> list[dict[str, Any]]:
    """Name what it was about: by DICOM's UIDs, the job, and the object's digest; never empty."""
    found = [
        _entity({"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}, "3", "Report", level)
        for level, uid in (
            ("study", record.study_instance_uid),
            ("series", record.series_instance_uid),
            ("instance", record.sop_instance_uid),
        )
        if uid
    ]
    if record.job_id:
        found.append(_entity({"system": f"{OURS}/job", "value": record.job_id}, "20", "Job", "job"))
    if record.object_address:
        found.append(
            _entity({"system": f"{OURS}/object", "value": record.object_address}, "4", "Domain Resource", "object")
        )
    if not found:
        found.append(_entity({"system": f"{OURS}/subject", "value": record.subject}, "4", "Domain Resource", "subject"))
    details = {"stage": record.stage, "trace-id": record.trace_id, "caused-by": record.caused_by}
    found[-1]["detail"] = [{"type": name, "valueString": value} for name, value in details.items() if value]
    return found


def _entity(identifier: dict[str, str], role: str, role_name: str, description: str) -> dict[str, Any]:
    return {
        "what": {"identifier": identifier},
        "type": _coding(f"{TERMINOLOGY}/audit-entity-type", "2", "System Object"),
        "role": _coding(f"{TERMINOLOGY}/object-role", role, role_name),
        "description": description,
    }


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
