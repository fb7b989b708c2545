"""Ceph's object gateway, a real S3 server with notifications: one node, in memory, from Debian's packages."""

from __future__ import annotations

import http.client
import secrets
import shutil
import ssl
import subprocess
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from servers.private import PrivateServer, ServerEndedError, free_ports, fresh_folder, one_per_run, remove
from servers.seaweedfs import S3Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin", "openssl")
TRIES = 3
COMMAND_SECONDS = 60
OSD_PORTS = 30
"""The storage daemon takes the first free ones of so many."""

CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{monitor_port}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
run_dir = {folder}
crash_dir = {folder}
admin_socket =
log_file =
log_to_stderr = true
mon_cluster_log_file = {folder}/cluster.log
ms_bind_msgr1 = false
ms_bind_port_min = {osd_port}
ms_bind_port_max = {osd_port_max}
mon_data = {folder}/monitor
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_class_load_list = *
osd_class_default_list = *
[client.rgw.a]
rgw_data = {folder}/gateway
rgw_frontends = beast endpoint=127.0.0.1:{plain_port} ssl_endpoint=127.0.0.1:{tls_port} ssl_certificate={folder}/tls.pem
"""


@dataclass(frozen=True, slots=True)
class CephGateway(S3Server):
    """Where the gateway is: `endpoint` speaks TLS, with the certificate of `ca_bundle`; `plain_endpoint` does not.

    Ceph takes a broker's password over TLS alone.
    """

    ca_bundle: str
    plain_endpoint: str

    def environment(self) -> dict[str, str]:
        """The variables by which AWS's tools, and ours, find the server and trust it."""
        return {**S3Server.environment(self), "AWS_CA_BUNDLE": self.ca_bundle}

    def client(self, service: str = "s3") -> Any:
        """Return a boto3 client for S3, or the gateway's own SNS, that sends no checksums at the end of a body: Ceph 16 does not know them."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            verify=self.ca_bundle,
            config=Config(
                signature_version="s3v4" if service == "s3" else None,
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


class CephCluster(PrivateServer):
    """A monitor, a storage daemon that keeps everything in memory, and the gateway.

    Parameters
    ----------
    data
        An empty folder for keys, maps and the monitor's database. It is gone with the cluster.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_ports(3 + OSD_PORTS)
        self._daemons: list[PrivateServer] = []
        try:
            self._begin()
        except BaseException:
            self._stop_daemons()
            remove(data)
            raise
        super().__init__(
            self._program("radosgw", "-f", "-n", "client.rgw.a", "--keyring", self.data / "keyring"),
            self.data,  # its keeper removes it
            goodbye="SIGKILL",  # nothing of it is kept
        )

    @property
    def facts(self) -> dict[str, str]:
        """Where clients reach it."""
        return {
            "endpoint": f"https://127.0.0.1:{self.port + 2}",
            "plain_endpoint": f"http://127.0.0.1:{self.port + 1}",
            "ca_bundle": str(self.data / "certificate.pem"),
        }

    def _begin(self) -> None:
        """Start the monitor and the storage daemon."""
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        keyring, monitor_map = self.data / "keyring", self.data / "monitors"
        for name in ("monitor", "osd", "gateway"):
            (self.data / name).mkdir(parents=True)
        self._make_certificate()
        (self.data / "ceph.conf").write_text(
            CONFIGURATION.format(
                fsid=fsid,
                folder=self.data,
                monitor_port=self.port,
                plain_port=self.port + 1,
                tls_port=self.port + 2,
                osd_port=self.port + 3,
                osd_port_max=self.port + 2 + OSD_PORTS,
            )
        )
        for name, rights in {
            "mon.": {"mon": "allow *"},
            "client.admin": {"mon": "allow *", "osd": "allow *"},
            "client.rgw.a": {"mon": "allow rwx", "osd": "allow rwx"},
            "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
        }.items():
            caps = (part for daemon, right in rights.items() for part in ("--cap", daemon, right))
            _run("ceph-authtool", *(("-C",) if name == "mon." else ()), keyring, "--gen-key", "-n", name, *caps)
        _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{self.port}]", monitor_map)
        _run(*self._program("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitor_map, "--keyring", keyring))
        self._start("monitor", self._program("ceph-mon", "-f", "-i", "a"), self._monitor_answers)
        _run(*self._program("ceph", "osd", "new", osd))
        _run(*self._program("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, "--keyring", keyring))
        storage = self._program("ceph-osd", "-f", "-i", "0", "--keyring", keyring)
        self._start("storage", storage, lambda: "1 up" in _run(*self._program("ceph", "osd", "stat")))

    def _start(self, name: str, program: list[str], ready: Callable[[], bool]) -> None:
        daemon = PrivateServer(program, fresh_folder(f"ceph-{name}"), goodbye="SIGKILL")
        self._daemons.append(daemon)
        daemon.wait_until(ready)

    def _program(self, name: str, *arguments: object) -> list[str]:
        return [name, "-c", str(self.data / "ceph.conf"), *map(str, arguments)]

    def _monitor_answers(self) -> bool:
        try:
            _run(*self._program("ceph", "--connect-timeout", "5", "mon", "stat"))
        except subprocess.CalledProcessError:
            return False
        return True

    def _make_certificate(self) -> None:
        certificate, key = self.data / "certificate.pem", self.data / "key.pem"
        _run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        )
        (self.data / "tls.pem").write_text(certificate.read_text() + key.read_text())

    def wait(self) -> None:
        """Return when the gateway answers."""
        try:
            self.wait_until(partial(_answers, self.port + 2, self.data / "certificate.pem"))
        except ServerEndedError:
            self._stop_daemons()
            raise

    def add_user(self) -> dict[str, str]:
        """Make a user; return its keys."""
        keys = {"access_key": secrets.token_hex(10), "secret_key": secrets.token_urlsafe(24)}
        _run(
            *self._program("radosgw-admin", "user", "create", "--uid=voxelmill", "--display-name=voxelmill"),
            *(f"--access-key={keys['access_key']}", f"--secret-key={keys['secret_key']}"),
        )
        return keys

    def stop(self) -> None:
        """End the gateway, then what it stands on."""
        super().stop()
        self._stop_daemons()

    def let_go(self) -> None:
        """Leave all of them to their keepers."""
        super().let_go()
        for daemon in self._daemons:
            daemon.let_go()

    def _stop_daemons(self) -> None:
        while self._daemons:
            self._daemons.pop().stop()


def _run(*command: object) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS, cwd="/"
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return done.stdout


def _answers(port: int, certificate: Path) -> bool:
    context = ssl.create_default_context(cafile=certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (http.client.HTTPException, OSError):
        return False
    finally:
        connection.close()


def start() -> tuple[CephCluster, dict[str, str]]:
    """Start a cluster on free ports; another process may take one first, so try again."""
    for tries_left in reversed(range(TRIES)):
        try:
            cluster = CephCluster(fresh_folder("ceph"))
            cluster.wait()
        except (ServerEndedError, subprocess.CalledProcessError):
            if not tries_left:
                raise
        else:
            return cluster, {**cluster.facts, **cluster.add_user()}
    raise AssertionError("the last try raises or returns")


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephGateway]:
    """Give a private Ceph gateway, one for the whole run."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:  # whoever asks for these tests wants them to run
        pytest.fail(f"no {', '.join(lacking)} on the PATH: run tools/setup ceph")
    with one_per_run(tmp_path_factory, "ceph", start) as facts:
        yield CephGateway(**facts)
