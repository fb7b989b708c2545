"""What a request meets before anybody looks who sends it: hosts, origins, sizes, rates, and the headers of answers."""

from __future__ import annotations

import asyncio
import sys

import pytest
from pydantic import ValidationError

from voxelmill_gateway.__main__ import main
from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.access.policy import OpenDoorError, hostname, is_loopback
from voxelmill_gateway.application import application
from voxelmill_gateway.server import serve
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_shared.catalog.tables import METADATA
from voxelmill_shared.database import transaction


async def status_of(address, head) -> int:
    """Send the head of a request alone; return the status of the answer."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode())
    status = int((await asyncio.wait_for(reader.readline(), 10)).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


OFF = {"gateway_auth": "off", "gateway_oidc_issuer": "", "gateway_oidc_audience": ""}


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.8.8.8", "::1", "[::1]", "a.localhost", "::ffff:127.0.0.1"]
)
def test_names_of_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "127.0.0.1.nip.io", "notlocalhost", "2130706433"],  # noqa: S104 - read, not bound
)  # fmt: skip
def test_names_of_others(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("a.example:80", "a.example"),
        ("[::1]:80", "[::1]"),
        ("LOCALHOST", "localhost"),
        ("user@localhost", None),
        ("localhost/x", None),
        ("", None),
        ("a:b:c", None),
    ],
)
def test_hosts_are_read_as_they_are_written(authority, host):
    """What is no host and port is nothing, and not what it looks like at one end."""
    assert hostname(authority) == host


class TestOff:
    """Without access control: this machine, under its own names."""

    @pytest.fixture
    def more_settings(self):
        return OFF

    async def test_it_does_not_listen_to_others(self, gateway):
        """Before any port is open."""
        for host in ("0.0.0.0", "::", "10.1.2.3", "voxelmill.example"):  # noqa: S104 - refused
            with pytest.raises(OpenDoorError, match="VOXELMILL_GATEWAY_AUTH=on"):
                async with serve(gateway, host, 0):
                    pass

    async def test_it_answers_to_no_other_name(self, client, address):
        """A page of anybody could let its name point here (DNS rebinding)."""
        assert (await client.get("/session", headers={"Host": "evil.example"})).status_code == 421
        assert (await client.get("/session", headers={"Host": "127.0.0.1.evil.example"})).status_code == 421
        assert (await client.get("/session", headers={"Host": f"localhost:{address.rpartition(':')[2]}"})).is_success
        assert (await client.get("/healthz", headers={"Host": "10.0.0.1"})).is_success

    async def test_what_a_proxy_passes_on_from_elsewhere_is_refused(self, client):
        """The proxy would make the gateway public."""
        assert (await client.get("/session", headers={"X-Forwarded-For": "10.9.8.7"})).status_code == 403
        assert (await client.get("/session", headers={"X-Forwarded-For": "127.0.0.1"})).is_success

    async def test_pages_of_others_change_nothing(self, client):
        """Nobody needs to sign in here, so that a form on any page could."""
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            assert (await client.post("/session", headers=headers)).status_code == 403, headers
        assert (await client.post("/session", headers={"Sec-Fetch-Site": "same-origin"})).is_success
        assert (await client.post("/session", headers={"Origin": str(client.base_url).rstrip("/")})).is_success


def test_the_process_ends_with_one_line_where_the_door_would_be_open(tmp_path, monkeypatch, capsys):
    """Exit code 2, and what to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["voxelmill-gateway"])
    monkeypatch.setenv("VOXELMILL_HOST", "0.0.0.0")  # noqa: S104 - refused
    monkeypatch.setenv("VOXELMILL_PORT", "0")
    with pytest.raises(SystemExit) as ended:
        main()
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert last == (
        "voxelmill-gateway: 0.0.0.0: others could reach the gateway there, and access control is off;"
        " set VOXELMILL_GATEWAY_AUTH=on, or VOXELMILL_HOST=127.0.0.1"
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("gateway_oidc_algorithms", ["HS256"], "HS256"),
        ("gateway_oidc_algorithms", ["none"], "none"),
        ("gateway_oidc_algorithms", [], "at least 1"),
        ("gateway_oidc_issuer", "http://issuer.example", "https://"),
        ("gateway_oidc_issuer", "https://issuer.example", "AUDIENCE is missing"),
        ("gateway_oidc_jwks_url", "https://issuer.example/keys", "ISSUER is missing"),
        ("gateway_oidc_jwks_url", "file:///etc/keys", "https://"),
        ("gateway_oidc_roles", {"boss": "god"}, "viewer, uploader, operator, admin"),
        ("gateway_oidc_default_projects", ["../x"], "can name no project"),
        ("gateway_cors_origins", ["*"], "https://name"),
        ("gateway_cors_origins", ["https://a.example/"], "nothing behind it"),
        ("gateway_cors_origins", ["null"], "https://name"),
    ],
)
def test_settings_that_would_let_others_in_are_refused(name, value, says):
    """At the start, with the reason."""
    with pytest.raises(ValidationError) as caught:
        GatewaySettings(**{name: value})
    assert says in str(caught.value)


class TestOn:
    @pytest.fixture
    def more_settings(self):
        return {
            "gateway_hosts": ["voxelmill.example"],
            "gateway_cors_origins": ["https://viewer.example"],
            "gateway_rate_per_minute": 20,
            "gateway_failures_per_minute": 5,
            "gateway_body_bytes": 1000,
        }

    @pytest.fixture
    async def key(self, gateway):
        return {"X-API-Key": (await gateway.keys.create("admin", Role.ADMIN, None, by="test"))[1]}

    async def test_names(self, client, key):
        """Those of the setting, and this machine's."""
        assert (await client.get("/session", headers={**key, "Host": "Voxelmill.Example:443"})).is_success
        assert (await client.get("/session", headers={**key, "Host": "evil.example"})).status_code == 421
        assert (await client.get("/session", headers=key)).is_success

    async def test_a_viewer_on_another_page_may_call(self, client, key):
        """One of the list: its browser asks first, and then shows the answer."""
        asks = {
            "Origin": "https://viewer.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        answer = await client.options("/dicomweb/studies", headers=asks)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://viewer.example")
        assert "Access-Control-Allow-Credentials" not in answer.headers
        answer = await client.get("/session", headers={**key, "Origin": "https://viewer.example"})
        assert answer.headers["Access-Control-Allow-Origin"] == "https://viewer.example"
        assert (await client.post("/session", headers={**key, "Origin": "https://viewer.example"})).is_success

    async def test_a_viewer_on_another_page_reads_every_refusal_and_the_answer_to_a_defect(self, client, key, gateway):
        """A browser would tell it nothing but that the gateway gave no leave."""
        viewer = {**key, "Origin": "https://viewer.example"}
        async with transaction(gateway.engine) as connection:
            await connection.run_sync(METADATA.drop_all)
        defect = await client.get("/dicomweb/studies", headers=viewer)
        stranger = await client.get("/dicomweb/studies", headers={"Origin": viewer["Origin"]})
        misnamed = await client.get("/dicomweb/studies", headers={**viewer, "Host": "evil.example"})
        assert [one.status_code for one in (defect, stranger, misnamed)] == [500, 401, 421]
        for answer in (defect, stranger, misnamed):
            assert answer.headers["Access-Control-Allow-Origin"] == viewer["Origin"]

    async def test_a_page_that_is_not_on_the_list_may_not(self, client, key):
        """Its browser hides the answer, and a change is not made."""
        asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
        assert "Access-Control-Allow-Origin" not in (await client.options("/session", headers=asks)).headers
        answer = await client.get("/session", headers={**key, "Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
        answer = await client.post("/session", headers={**key, "Origin": "https://viewer.example.evil.example"})
        assert answer.status_code == 403

    async def test_too_many_requests(self, client, key):
        """429, and when to come again. Another caller is served."""
        statuses = [(await client.get("/session", headers=key)).status_code for _ in range(20)]
        assert set(statuses) == {200}
        answer = await client.get("/session", headers=key)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert (await client.get("/healthz")).is_success

    async def test_too_many_wrong_keys(self, client, key, issuer):
        """Nothing of this address is checked any more; what expired does not count."""
        for _ in range(10):
            expired = {"Authorization": f"Bearer {issuer.token(exp=1)}"}
            assert (await client.get("/session", headers=expired)).status_code == 401
        for _ in range(5):
            assert (await client.get("/session", headers={"X-API-Key": "vmk_x"})).status_code == 401
        for refused in (
            await client.get("/session", headers={"X-API-Key": "vmk_x"}),
            await client.post("/session", json={"token": "vmk_x"}),
            await client.get("/session", headers=key),
        ):
            assert (refused.status_code, "Retry-After" in refused.headers) == (429, True)
        elsewhere = {**key, "X-Forwarded-For": "10.0.0.7"}
        assert (await client.get("/session", headers=elsewhere)).is_success

    async def test_a_network_of_ipv6_is_one_address(self, client, key):
        """Whoever has one has 2^64 of them."""
        for number in range(5):
            headers = {"X-API-Key": "vmk_x", "X-Forwarded-For": f"2001:db8::{number + 1}"}
            assert (await client.get("/session", headers=headers)).status_code == 401
        assert (await client.get("/session", headers={**key, "X-Forwarded-For": "2001:db8::99"})).status_code == 429
        assert (await client.get("/session", headers={**key, "X-Forwarded-For": "2001:db8:0:1::1"})).is_success

    async def test_a_body_that_says_that_it_is_too_large(self, client, key):
        """It is not read."""
        answer = await client.post("/keys", content=b"x" * 1001, headers=key)
        assert (answer.status_code, "VOXELMILL_GATEWAY_BODY_BYTES" in answer.json()["detail"]) == (413, True)

    async def test_a_body_that_goes_on(self, client, key):
        """Chunked, without a length: the bound is met on the way."""

        async def chunks():
            for _ in range(11):
                yield b" " * 100

        answer = await client.post("/keys", content=chunks(), headers={**key, "Content-Type": "application/json"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")

    async def test_a_length_that_is_none(self, address):
        """The server or the gateway refuses it; nothing is read."""
        for length in ("-1", "x", "1e3", "٣"):
            head = f"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            assert await status_of(address, head) in {400, 413}

    async def test_strangers_are_refused_before_their_body_is_read(self, address):
        """Sixty GiB may be an upload; they are not taken from somebody unknown."""
        head = "POST /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000000\r\n\r\n"
        assert await status_of(address, head) == 401

    async def test_every_answer_has_the_headers(self, client):
        """Also those that are refusals."""
        for method, path in (("GET", "/healthz"), ("GET", "/session"), ("GET", "/nowhere"), ("PUT", "/keys")):
            headers = (await client.request(method, path)).headers
            assert headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'none'")
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Cache-Control" in headers
            assert "Strict-Transport-Security" not in headers

    async def test_a_websocket_is_closed(self, gateway):
        """There is none, and one that somebody adds must be asked for first."""
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "websocket", "path": "/session", "headers": [(b"host", b"localhost")], "scheme": "ws"}
        await application(gateway)(scope, None, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]

    async def test_a_stranger_cannot_tell_what_there_is(self, client):
        """What is there and what is not look the same from outside."""
        there, nowhere = await client.get("/jobs/x"), await client.get("/nowhere/x")
        assert (there.status_code, there.content) == (nowhere.status_code, nowhere.content)


class TestPagePolicy:
    """The policy of the page: what it may run."""

    async def test_scripts_are_our_files_and_nothing_inline(self, client):
        """WebAssembly may be compiled, text may not be evaluated."""
        answer = await client.get("/")
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        if not answer.headers["Content-Type"].startswith("text/html"):
            assert policy == {
                "default-src": "'none'",
                "frame-ancestors": "'none'",
                "base-uri": "'none'",
                "form-action": "'none'",
            }
            return
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
