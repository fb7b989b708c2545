"""The page where access control is on, in a real Chromium: signing in and out, and what one may not see."""

from __future__ import annotations

import asyncio

import pytest

from browser.stories import told
from e2e.sharing import once
from integration.gateway_kit import Job, served, settings_for
from voxelmill_gateway.access.callers import Role

OURS, THEIRS = Job(1, project="chest", patient="Doe^Jane"), Job(2, project="other", patient="Roe^Richard")


@pytest.fixture(scope="module")
def visit(chromium, tmp_path_factory):
    """Sign in as nobody, as a viewer of one project, and as an admin; give what was seen. One visit serves all tests."""
    return once(tmp_path_factory, "sign-in", lambda folder: asyncio.run(_visit(chromium, folder)))[1]


async def _visit(chromium, folder):
    async with served(settings_for(folder, gateway_auth="on"), [OURS, THEIRS]) as (gateway, client):
        key, viewer = await gateway.keys.create("viewer", Role.VIEWER, frozenset({"chest"}), by="test")
        _, admin = await gateway.keys.create("admin", Role.ADMIN, None, by="test")
        order = {
            "address": str(client.base_url).rstrip("/"),
            "chromium": chromium,
            "profile": str(folder / "profile"),
            "wrong": f"vmk_{'0' * 16}_{'a' * 43}",
            "viewer": viewer,
            "viewerId": key.key_id,
            "admin": admin,
            "series": OURS.uid,
        }
        seen = await told("sign_in.mjs", order)
    return {**seen, "keys": [viewer, admin]}


def test_a_wrong_key_is_answered_with_a_sentence(visit):
    """And with the form as it was."""
    assert visit["wrong"].startswith("That key or token was refused.")


def test_a_viewer_sees_what_is_his(visit):
    """One series of two, and no way to what he may not do."""
    assert (visit["rows"], visit["viewer"]) == (1, ["Worklist"])
    assert "uploader" in visit["upload"]
    assert "operator" in visit["letters"]


def test_an_admin_of_all_projects_sees_every_view(visit):
    """Dead letters are the installation's."""
    assert visit["admin"] == ["Worklist", "Upload", "Dead letters"]


def test_a_revoked_key_leads_back_to_the_form(visit):
    """In the middle of a visit, with nothing left of what was shown."""
    assert (visit["revoked"], visit["leftBehind"]) == (204, 0)


def test_after_signing_out_nothing_comes_back(visit):
    """Neither by going back nor by loading anew."""
    assert (visit["signedOut"], visit["after"]) == ([], 0)


def test_scripts_see_no_cookie_and_the_browser_keeps_nothing_else(visit):
    """HttpOnly and SameSite=Strict; no store of the browser holds anything."""
    (cookie,) = visit["cookies"]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert visit["kept"] == {"cookie": "", "local": {}, "session": {}, "databases": 0, "caches": 0}


def test_addresses_and_titles_name_no_patient_and_no_key(visit):
    """A browser's history keeps both."""
    written = " ".join(visit["addresses"] + visit["titles"])
    assert OURS.uid in written
    for secret in (*visit["keys"], "Doe", "Jane", "ID1"):
        assert secret not in written


def test_the_page_breaks_no_rule(visit):
    """No error of a script, nothing against its Content-Security-Policy, no request to another host."""
    assert (visit["errors"], visit["strangers"]) == ([], [])
