"""How fast is the gateway's DICOMweb? Side by side with Orthanc and its DICOMweb plug-in.

One client process asks both servers the same things, over the same HTTP library, in turns within one run:

- STOW-RS: a series of 500 CT instances (512 x 512 x 16 bit, uncompressed, new UIDs each time), as one request, and as
  10 requests of 50 over 4 connections; the clock stops at the last answer. Orthanc answers when an instance is stored
  and indexed, Voxelmill when it is stored and announced: so a second figure says when a search finds all 500.
- QIDO-RS: seven kinds of search in random order, over one connection, in a catalog of 10,000 series (`gateway_catalog`
  says how it is filled); each must have the same number of results on every server.
- WADO-RS: the series of 500 as it is stored, in MB of body a second.

Voxelmill is what `voxelmill up` is, without what computes: folders, a broker of one file and SQLite (searches are also
measured on PostgreSQL), with gateway, ingest and index as processes of their own. Orthanc has its defaults: SQLite, a
folder, every instance on the disk before its answer, as Voxelmill has it too. All of it is started privately on
loopback, and ends with the benchmark.

usage: python bench/gateway.py [--instances N] [--series N] [--rounds N] [--searches N] [--only stow|qido|wado]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg

from gateway_catalog import Entry, entries, fill_catalog, fill_orthanc, queries
from real_servers import Running, end_on_signals, orthanc_program
from report import Aim, end, table
from series_copies import Template, retouched, series_folder, templates
from stack import postgresql
from stack.ports import free_ports, get

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS, ON_POSTGRESQL, ORTHANC = "ours", "ours-postgresql", "orthanc"
PLUGINS = (Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"), Path("/usr/lib/orthanc/libOrthancDicomWeb.so"))
ROOTS = {OURS: "/dicomweb", ON_POSTGRESQL: "/dicomweb", ORTHANC: "/dicom-web"}
WAYS = {"one": (1, 1), "ten": (10, 4)}
"""How a series is sent: in how many requests, over how many connections."""
AIMS = ("stow_one_per_second", "stow_ten_per_second", "qido_ms", "wado_mb_per_second")
PATIENCE_SECONDS = 300.0
SPACING_MM = 0.6


class Client:
    """The client process."""

    def __init__(self, templates_file: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("gateway_client.py")), str(templates_file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def phase(self, phase: str, **what: Any) -> dict[str, Any]:
        """Let it do something; return what came of it."""
        assert self._process.stdin is not None  # noqa: S101 - Popen was given pipes
        assert self._process.stdout is not None  # noqa: S101 - as above
        self._process.stdin.write(json.dumps({"phase": phase, **what}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the client ended before its work did")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


@dataclass(slots=True)
class Bench:
    """The servers under measurement, and what has been measured. `figures` by figure and server, a list of rounds."""

    arguments: argparse.Namespace
    folder: Path
    client: Client
    stack: ExitStack
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, list[Running]] = field(default_factory=dict)
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def start(self, server: str, name: str, command: list[str], environment: Mapping[str, str]) -> Running:
        """Start a process of a server; it ends with the benchmark."""
        log = self.folder / f"{server}-{name}.log"
        with log.open("ab") as said:
            process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        running = Running(f"{server} {name}", process, log)
        self.stack.callback(running.stop)
        self.running.setdefault(server, []).append(running)
        return running

    def start_ours(self, server: str, database_url: str, services: tuple[str, ...]) -> None:
        """Start our processes on folders and a broker of one file."""
        data = self.folder / server
        data.mkdir()
        settings = {
            "broker_url": f"embedded://{data}/broker.db",
            "inbox_url": str(data / "inbox"),
            "work_url": str(data / "work"),
            "results_url": str(data / "results"),
            "database_url": database_url,
            "scratch": str(data / "scratch"),
            "log_level": "WARNING",
            "gateway_rate_per_minute": "0",
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("VOXELMILL_", "AWS_"))}
        environment = clean | {f"VOXELMILL_{name.upper()}": value for name, value in settings.items()}
        for service in services:  # index first: its tables are those that the gateway reads
            port = free_ports(1)
            own = {**environment, "VOXELMILL_PORT": str(port)}
            running = self.start(server, service, [sys.executable, "-m", f"voxelmill_{service}"], own)
            running.wait_for_port(port)
            self.ports[server] = port

    def start_orthanc(self, program: str, plugin: Path) -> None:
        """Start Orthanc with its plug-in."""
        folder, port = self.folder / ORTHANC, free_ports(1)
        folder.mkdir()
        configuration = {
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "Plugins": [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": f"{ROOTS[ORTHANC]}/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        running = self.start(ORTHANC, "server", [program, str(folder / "orthanc.json")], os.environ)
        running.wait_until(lambda: get(port, "/system")[0] == http.client.OK)
        self.ports[ORTHANC] = port

    def note(self, figure: str, server: str, value: float) -> None:
        """Write down one measurement."""
        self.figures.setdefault(figure, {}).setdefault(server, []).append(value)

    def cpu_seconds(self, server: str) -> float:
        """Return what a server's processes have spent so far."""
        return sum(one.cpu_seconds() for one in self.running[server])

    def send_series(self, server: str, way: str, number: int) -> dict[str, Any]:
        """Send a series, and wait until a search finds all of it; return its UIDs."""
        requests, connections = WAYS[way]
        count, port = self.arguments.instances, self.ports[server]
        series = self.client.phase("prepare", name=f"{server}-{way}-{number}", requests=requests)
        before = self.cpu_seconds(server)
        sent = self.client.phase("stow", port=port, path=f"{ROOTS[server]}/studies", connections=connections)
        if sent["stored"] != count:
            raise SystemExit(f"{server} stored {sent['stored']} instances, {count} were sent")
        self.note(f"stow_{way}_per_second", server, count / (sent["ended"] - sent["begun"]))
        self.note(f"stow_{way}_cpu_ms", server, 1000 * (self.cpu_seconds(server) - before) / count)
        found = self._when_found(server, series, count)
        self.note(f"stow_{way}_found_per_second", server, count / (found - sent["begun"]))
        return series

    def _when_found(self, server: str, series: dict[str, Any], count: int) -> float:
        path = f"{ROOTS[server]}/studies/{series['study']}/series?includefield=00201209"
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            status, text = get(self.ports[server], path)
            answer = json.loads(text) if status == http.client.OK else []
            if answer and answer[0].get("00201209", {}).get("Value") == [count]:
                return time.monotonic()
            time.sleep(0.1)  # between two looks: asking without a pause would take the processor from what is measured
        raise SystemExit(f"{server}: after {PATIENCE_SECONDS:.0f} s a search does not find {count} instances")

    def fetch_series(self, server: str, series: dict[str, Any]) -> None:
        """Fetch a series."""
        path = f"{ROOTS[server]}/studies/{series['study']}/series/{series['series']}"
        got = self.client.phase("wado", port=self.ports[server], path=path)
        if got["bytes"] < series["bytes"]:
            raise SystemExit(f"{server} gave {got['bytes']} bytes of a series of {series['bytes']}")
        self.note("wado_mb_per_second", server, got["bytes"] / 1e6 / (got["ended"] - got["begun"]))

    def search(self, all_of_them: list[Entry], number: int) -> None:
        """Ask every server the same searches in turn; the answers must have the same number of results."""
        found: dict[str, list[int]] = {}
        for server, port in self.ports.items():
            asked = queries(all_of_them, ROOTS[server], self.arguments.searches, number)
            answer = self.client.phase("qido", port=port, paths=[path for _, path in asked])
            found[server] = answer["found"]
            for (kind, _), milliseconds in zip(asked, answer["milliseconds"], strict=True):
                self.note("qido_ms", server, milliseconds)
                self.note(f"qido_ms: {kind}", server, milliseconds)
        for server, counts in found.items():
            for (kind, path), ours, other in zip(asked, found[OURS], counts, strict=True):
                if ours != other:
                    raise SystemExit(f"{kind}: {server} finds {other}, {OURS} {ours}: {path}")


def many_slices(count: int) -> list[Template]:
    """Return the templates of one regular series of so many slices: pixels of the test data's chest CT, else made."""
    folder = series_folder()
    if folder is not None:
        originals = templates(folder)
    else:
        chance = np.random.default_rng(8)
        pixels = [chance.integers(0, 2000, (512, 512), dtype=np.uint16).tobytes() for _ in range(8)]
        originals = [retouched(Template(one.body, {}), PixelData=p) for one, p in zip(entries(8), pixels, strict=True)]
    return [
        retouched(
            originals[number % len(originals)],
            InstanceNumber=number + 1,
            ImagePositionPatient=[0, 0, round(number * SPACING_MM, 1)],
        )
        for number in range(count)
    ]


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=500, help="of the series that is sent and fetched")
    parser.add_argument("--series", type=int, default=10_000, help="in the catalog while it is searched")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--searches", type=int, default=50, help="of each kind in each round")
    parser.add_argument("--only", choices=["stow", "qido", "wado"], help="measure one part alone (wado sends too)")
    return parser.parse_args()


def servers(bench: Bench, all_of_them: list[Entry]) -> None:
    """Start and fill every server; say what cannot be measured."""
    plugin = next((path for path in PLUGINS if path.exists()), None)
    program = orthanc_program()
    bench.start_ours(OURS, f"sqlite:///{bench.folder}/ours.db", ("index", "ingest", "gateway"))
    asyncio.run(fill_catalog(all_of_them, f"sqlite:///{bench.folder}/ours.db"))
    programs = postgresql.find_programs()
    if bench.arguments.only in {None, "qido"}:
        if programs is None:
            print("no PostgreSQL: run `tools/setup dev` and try again; searching on SQLite alone")
        else:
            url = start_postgresql(bench, programs)
            bench.start_ours(ON_POSTGRESQL, url, ("index", "gateway"))
            asyncio.run(fill_catalog(all_of_them, url))
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ANALYZE")  # as autovacuum does within a minute
    if program is None or plugin is None:
        print("no Orthanc with its DICOMweb plug-in: run `tools/setup peers` and try again; measuring Voxelmill alone")
        return
    bench.start_orthanc(program, plugin)
    fill_orthanc(all_of_them, bench.ports[ORTHANC])


def start_postgresql(bench: Bench, programs: Path) -> str:
    """Start a PostgreSQL; return its address."""
    bench.folder.chmod(0o711)  # it may run as another account, which must be able to pass through
    server = postgresql.PostgreSQL(bench.folder / "postgresql", free_ports(1), programs)
    server.initialise()
    program = server.server()
    running = bench.start(ON_POSTGRESQL, "database", list(program.command), program.environment)
    running.goodbye, running.patience = program.goodbye, program.patience
    running.wait_until(program.is_ready)
    return server.url


def measure(bench: Bench, all_of_them: list[Entry]) -> None:
    """Measure everything once in each round, one server after the other."""
    only = bench.arguments.only
    for server, port in bench.ports.items():  # what is done once in a process' life is no round's
        bench.client.phase("qido", port=port, paths=[path for _, path in queries(all_of_them, ROOTS[server], 3, -1)])
    for number in range(bench.arguments.rounds):
        if only in {None, "qido"}:
            bench.search(all_of_them, number)
        if only == "qido":
            continue
        for way in WAYS if only is None or only == "stow" else ("one",):
            sent = {
                server: bench.send_series(server, way, number) for server in (OURS, ORTHANC) if server in bench.ports
            }
        if only != "stow":
            for server, series in sent.items():
                bench.fetch_series(server, series)
        print(f"round {number + 1} of {bench.arguments.rounds}", flush=True)


def report(bench: Bench) -> None:
    """Print the tables and the last line."""
    figures: dict[str, Any] = {}
    rows = []
    for figure, by_server in bench.figures.items():
        for server, values in by_server.items():
            middle = statistics.median(values)
            row = [figure, server, f"{middle:.2f}"]
            figures[f"{server}_{figure}".replace(": ", "_").replace(" ", "_")] = round(middle, 3)
            if figure.startswith("qido"):
                late = statistics.quantiles(values, n=100)[98]
                row.append(f"p99 {late:.2f}, n {len(values)}")
                figures[f"{server}_{figure}_p99".replace(": ", "_").replace(" ", "_")] = round(late, 3)
            else:
                row.append(", ".join(f"{value:.1f}" for value in values))
            rows.append(row)
    table(["", "server", "median", "all rounds"], rows)
    aims = {}
    for figure, by_server in bench.figures.items():
        if ORTHANC in by_server and figure in AIMS:
            theirs = statistics.median(by_server[ORTHANC])
            for server in (OURS, ON_POSTGRESQL):
                if server in by_server:
                    aims |= _aims(figure, server, by_server, theirs)
    chosen = ("instances", "series", "rounds", "searches")
    figures |= {name: getattr(bench.arguments, name) for name in chosen}
    end("gateway", aims, figures)


def _aims(figure: str, server: str, by_server: dict[str, list[float]], theirs: float) -> dict[str, Aim]:
    ours, suffix = by_server[server], "" if server == OURS else "_postgresql"
    if figure != "qido_ms":
        return {
            f"{figure.removesuffix('_per_second')}_times_orthanc": Aim(
                statistics.median(ours) / theirs, 1.0, at_most=False
            )
        }
    late, their_late = (statistics.quantiles(values, n=100)[98] for values in (ours, by_server[ORTHANC]))
    return {
        f"qido_p50_times_orthanc{suffix}": Aim(theirs / statistics.median(ours), 1.0, at_most=False),
        f"qido_p99_times_orthanc{suffix}": Aim(their_late / late, 1.0, at_most=False),
    }


def main() -> None:
    """Measure in interleaved rounds and print the medians."""
    arguments = read_arguments()
    all_of_them = entries(arguments.series)
    with tempfile.TemporaryDirectory(prefix="voxelmill-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "templates").write_bytes(pickle.dumps(many_slices(arguments.instances)))
        client = Client(folder / "templates")
        stack.callback(client.close)
        bench = Bench(arguments, folder, client, stack)
        servers(bench, all_of_them)
        measure(bench, all_of_them)
        report(bench)


if __name__ == "__main__":
    end_on_signals()
    main()
