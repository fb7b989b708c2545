"""Who may do what: every route of the application, asked as every role, as a stranger, and from another project.

The table below is what was decided. A route that is missing from it fails the first test.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from integration.gateway_kit import Job, acting, add_record, served, settings_for
from unit.gateway.dicomweb.catalogue_kit import catalogue, ct
from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.application import application
from voxelmill_shared.database import transaction

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = None
VIEWER, UPLOADER, OPERATOR, ADMIN = Role


@dataclass(frozen=True)
class Rule:
    """Who may ask for a route, and what it tells somebody of another project."""

    role: Role | None
    everywhere: bool = False
    """Whether the caller must have all projects."""
    others: str = "nothing"
    """`nothing`: it is about no project's data. `missing`: what is another project's is answered as what is not there.
    `hidden`: a list leaves it out. `own`: it writes, and into the caller's own project alone."""
    body: dict = field(default_factory=dict)
    """What httpx sends, with the names of `Things` in braces."""


MISSING, HIDDEN = Rule(VIEWER, others="missing"), Rule(VIEWER, others="hidden")
INSTALLATION_OPERATOR, INSTALLATION_ADMIN = Rule(OPERATOR, everywhere=True), Rule(ADMIN, everywhere=True)
STUDY = "/dicomweb/studies/{study}"
SERIES = f"{STUDY}/series/{{series}}"
INSTANCE = f"{SERIES}/instances/{{sop}}"
UPLOAD = "/uploads/{upload_id}"

RULES = {
    # Of the process, the interface and the page: nothing of a patient.
    ("GET", "/healthz"): Rule(OPEN),
    ("GET", "/readyz"): Rule(OPEN),
    ("GET", "/openapi.json"): Rule(OPEN),
    ("HEAD", "/openapi.json"): Rule(OPEN),
    **{(method, path): Rule(OPEN) for method in ("GET", "HEAD") for path in ("/", "/index.html", "/favicon.svg", "/assets/{name}")},
    # Who one is.
    ("GET", "/session"): Rule(VIEWER),
    ("POST", "/session"): Rule(OPEN, body={"json": {"token": "{viewer_key}"}}),
    ("DELETE", "/session"): Rule(OPEN),
    # Of the installation.
    ("GET", "/metrics"): INSTALLATION_OPERATOR,
    ("GET", "/dead-letters"): INSTALLATION_OPERATOR,
    ("GET", "/dead-letters/{queue}/{handle}"): INSTALLATION_OPERATOR,
    ("POST", "/dead-letters/replay"): INSTALLATION_OPERATOR,
    ("DELETE", "/dead-letters/{queue}/{handle}"): INSTALLATION_ADMIN,
    ("GET", "/audit"): INSTALLATION_ADMIN,
    ("GET", "/keys"): INSTALLATION_ADMIN,
    ("POST", "/keys"): INSTALLATION_ADMIN,
    ("DELETE", "/keys/{key_id}"): INSTALLATION_ADMIN,
    # Reading.
    ("GET", "/series"): HIDDEN,
    ("GET", "/series/{uid}"): MISSING,
    ("GET", "/events"): HIDDEN,
    ("GET", "/jobs/{job_id}"): MISSING,
    ("GET", "/jobs/{job_id}/archive.zip"): MISSING,
    ("GET", "/jobs/{job_id}/volume.nii.gz"): MISSING,
    ("GET", "/files/{job_id}/{name:path}"): MISSING,
    ("HEAD", "/files/{job_id}/{name:path}"): MISSING,
    # DICOMweb.
    ("GET", "/dicomweb/studies"): HIDDEN,
    ("GET", "/dicomweb/series"): HIDDEN,
    ("GET", "/dicomweb/instances"): HIDDEN,
    ("GET", f"{STUDY}/series"): HIDDEN,
    ("GET", f"{STUDY}/instances"): HIDDEN,
    ("GET", f"{SERIES}/instances"): HIDDEN,
    **{("GET", f"{of}{what}"): MISSING for of in (STUDY, SERIES, INSTANCE) for what in ("", "/metadata", "/rendered", "/thumbnail")},
    ("GET", f"{INSTANCE}/frames/{{frames}}"): MISSING,
    ("GET", f"{INSTANCE}/frames/{{frames}}/rendered"): MISSING,
    ("GET", f"{INSTANCE}/frames/{{frames}}/thumbnail"): MISSING,
    ("GET", f"{INSTANCE}/bulkdata/{{element:path}}"): MISSING,
    ("POST", "/dicomweb/studies"): Rule(UPLOADER, others="own"),
    ("POST", STUDY): Rule(UPLOADER, others="own"),
    # Uploading and working.
    ("POST", "/uploads"): Rule(UPLOADER, others="own"),
    ("POST", "/upload"): Rule(UPLOADER, others="own"),
    ("GET", UPLOAD): MISSING,
    ("HEAD", f"{UPLOAD}/files/{{number}}"): Rule(UPLOADER, others="missing"),
    ("PUT", f"{UPLOAD}/files/{{number}}"): Rule(UPLOADER, others="missing", body={"content": b"x"}),
    ("POST", f"{UPLOAD}/files/{{number}}/parts"): Rule(
        UPLOADER, others="missing", body={"json": {"parts": [{"number": 1, "etag": "e"}]}}
    ),
    ("POST", f"{UPLOAD}/complete"): Rule(UPLOADER, others="missing"),
    ("DELETE", UPLOAD): Rule(UPLOADER, others="missing"),
    ("POST", "/process"): Rule(UPLOADER, others="missing", body={"json": {"series_instance_uid": "{uid}"}}),
    ("POST", "/process/totalseg"): Rule(UPLOADER, others="missing", body={"json": {"jobId": "{upload_id}"}}),
}  # fmt: skip

JOB = Job(7, project="chest", upload="b" * 32)
UNKNOWN = {
    "study": "9.9.1", "series": "9.9.2", "sop": "9.9.3", "uid": "9.9.4", "job_id": "0" * 64, "upload_id": "0" * 32,
    "key_id": "0" * 16, "queue": "ingest.object-uploaded", "handle": "f" * 16, "frames": "1", "number": "0",
    "name": "meshes/lung_left.stl", "element": "00420011",
}  # fmt: skip


def routes_of(app):
    """Every method and path that the application answers; what is neither route nor router fails."""

    def walk(routes):
        for route in routes:
            if hasattr(route, "original_router"):
                assert not route.include_context.prefix
                yield from walk(route.original_router.routes)
            else:
                for method in route.methods:
                    yield method, route.path

    return sorted(walk(app.routes))


@dataclass(frozen=True)
class World:
    """A gateway with one project's data, and everybody who asks it."""

    gateway: object
    stranger: object
    callers: dict
    there: dict


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    """A gateway that asks who calls. Project `chest` has a job, an instance and an open upload; `other` has nothing."""
    settings = settings_for(tmp_path_factory.mktemp("roles"), gateway_auth="on")
    async with served(settings, [JOB]) as (gateway, stranger):
        study, series, sop = await catalogue(gateway, ct("1.5.1", "1.5.1.1"), "projects/chest/a.dcm")
        async with transaction(gateway.engine) as connection:
            await add_record(connection, 1, "series.validated.v1", JOB)
        callers = {}
        async with AsyncExitStack() as stack:
            for role in Role:
                for projects in (("chest",), ("other",), ()):
                    name = f"{role.label} of {' '.join(projects) or 'all'}"
                    caller = acting(gateway, stranger, role, *projects, name=name)
                    callers[role, projects] = await stack.enter_async_context(caller)
            asked = {"files": [{"name": "a.dcm", "size": 1}]}
            upload = (await callers[UPLOADER, ("chest",)].post("/uploads", json=asked)).json()["upload_id"]
            there = UNKNOWN | {
                "study": study, "series": series, "sop": sop, "uid": JOB.uid, "job_id": JOB.job_id, "upload_id": upload,
                "viewer_key": callers[VIEWER, ("chest",)].headers["X-API-Key"],
            }  # fmt: skip
            yield World(gateway, stranger, callers, there)


async def ask(client, method, path, rule, things):
    """Ask for a route about these things; give the status, the headers and the body."""
    body = json.loads(fill(json.dumps(rule.body), things)) if "json" in rule.body else rule.body
    url = fill(path.replace(":path", ""), things)
    params = {"after": 0, "wait": 0} if path == "/events" else {}  # what was missed, and no more: it would go on
    answer = await client.request(method, url, params=params, **body)
    return answer.status_code, answer.headers, answer.content


def fill(text, things):
    for name, value in things.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def is_refusal(status, body):
    """Whether an answer says that the caller may not do this at all."""
    return status == 403 and b'"title":"Not allowed"' in body


async def test_the_table_names_every_route_and_no_other(world):
    """A new route is a decision about who may ask for it: write it into the table."""
    assert routes_of(application(world.gateway)) == sorted(RULES)


async def test_strangers_are_let_in_nowhere(world):
    """401 and how to sign in; but for what is open to all."""
    wrong = {}
    for (method, path), rule in RULES.items():
        status, headers, _ = await ask(
            world.stranger, method, path, rule, {**world.there, "viewer_key": world.there["viewer_key"]}
        )
        refused = (status, headers.get("WWW-Authenticate")) == (401, 'Bearer realm="voxelmill"')
        if refused is (rule.role is OPEN):
            wrong[method, path] = status
    world.stranger.cookies.clear()  # POST /session has signed in
    assert wrong == {}


@pytest.mark.parametrize("projects", [("chest",), ()], ids=["of a project", "of all projects"])
@pytest.mark.parametrize("role", Role, ids=lambda role: role.label)
async def test_a_role_may_do_what_the_table_says(world, role, projects):
    """Asked about things that are not there, so that nothing changes."""
    caller = world.callers[role, projects]
    wrong = {}
    for (method, path), rule in RULES.items():
        things = UNKNOWN | {"viewer_key": world.there["viewer_key"]}
        status, _, body = await ask(caller, method, path, rule, things)
        may = rule.role is OPEN or (role >= rule.role and not (rule.everywhere and projects))
        refused = status in {401, 403} if method == "HEAD" else is_refusal(status, body)
        if refused is may or status == 401 or status >= 500:
            wrong[method, path] = (status, body[:200])
    caller.cookies.clear()
    assert wrong == {}


async def test_what_another_project_has_is_not_there(world):
    """Not one byte differs between what is another project's and what nobody has."""
    stranger = world.callers[ADMIN, ("other",)]
    wrong = {}
    for (method, path), rule in RULES.items():
        if rule.others != "missing":
            continue
        status, headers, body = await ask(stranger, method, path, rule, world.there)
        unknown = await ask(stranger, method, path, rule, UNKNOWN)
        same = blank(body, world.there) == blank(unknown[2], UNKNOWN)
        if (status, unknown[0], same) != (404, 404, True) or header_names(headers) != header_names(unknown[1]):
            wrong[method, path] = (status, unknown[0], body[:200], unknown[2][:200])
    assert wrong == {}


async def test_lists_leave_out_what_another_project_has(world):
    """A search finds what the caller may see; the same search by its own project finds it."""
    names = [world.there[name].encode() for name in ("study", "series", "uid")]
    wrong = {}
    for (method, path), rule in RULES.items():
        if rule.others != "hidden":
            continue
        seen = {}
        for project in ("chest", "other"):
            status, _, body = await ask(world.callers[VIEWER, (project,)], method, path, rule, world.there)
            seen[project] = (status < 300, any(f'"{name.decode()}"'.encode() in body for name in names))
        if seen != {"chest": (True, True), "other": (True, False)}:
            wrong[method, path] = seen
    assert wrong == {}


async def test_nobody_writes_into_another_project(world):
    """Naming it is refused, and without a name things go to one's own."""
    other = world.callers[UPLOADER, ("other",)]
    asked = {"files": [{"name": "a.dcm", "size": 1}]}
    refused = await other.post("/uploads", json={**asked, "project": "chest"})
    assert (refused.status_code, refused.json()["title"]) == (403, "Not your project")
    upload = (await other.post("/uploads", json=asked)).json()["upload_id"]
    assert (await other.get(f"/uploads/{upload}")).status_code == 200
    assert (await world.callers[ADMIN, ("chest",)].get(f"/uploads/{upload}")).status_code == 404


async def test_a_project_sees_what_is_its_own(world):
    """The same requests by whom the things belong to: the two tests above did not ask for what nobody has anyway.

    Last, since it ends the upload.
    """
    wrong = {}
    ordered = sorted(RULES.items(), key=lambda item: item[0] == ("DELETE", UPLOAD))
    for (method, path), rule in ordered:
        if rule.others != "missing" or path.endswith("/bulkdata/{element:path}"):  # this instance has no bulk data
            continue
        status, _, body = await ask(world.callers[UPLOADER, ("chest",)], method, path, rule, world.there)
        # Of the job's files some are not there, which is said otherwise than that the job is not.
        is_missing = b"none that you may see" in body or (method == "HEAD" and status == 404)
        if status in {401, 403} or is_missing or status >= 500:
            wrong[method, path] = (status, body[:200])
    assert wrong == {}


def blank(body, things):
    """Take the names that were asked for out of an answer."""
    text = body.decode("utf-8", "replace")
    names = (things[name] for name in ("study", "series", "sop", "uid", "job_id", "upload_id"))
    for name in sorted(names, key=len, reverse=True):  # one may begin with another
        text = text.replace(name, "…")
    return text


def header_names(headers):
    return sorted(name for name in headers if name != "content-length")


async def test_the_table_says_something_of_every_path_with_a_name():
    """What a path names belongs to a project, or the table says that it is the installation's or the page's."""
    for (method, path), rule in RULES.items():
        if "{" in path and rule.others == "nothing":
            assert rule.everywhere or rule.role is OPEN, (method, path)
