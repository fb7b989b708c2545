"""What people are told: where everything is, how it is, and what to do next."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stack.folder import read_json
from stack.ports import unready
from stack.processes import Process, boot
from stack.program import StackError

if TYPE_CHECKING:
    from stack.folder import Folder

LAST_LINES = 20


def line(text: str) -> None:
    """Print a line at once, also where the output is no terminal."""
    print(text, flush=True)


def facts(folder: Folder) -> None:
    """Print where everything is, and the next commands so that they can be pasted."""
    state, variables = read_json(folder.state), read_env(folder)
    ports = {entry["name"]: entry["port"] for entry in state["processes"]}
    services = [name for name in ports if "-" in name]
    gateways = [f"http://127.0.0.1:{ports[name]}" for name in services if name.startswith("gateway-")]
    here = short(folder.root)
    env, command = shlex.quote(f"{here}/env"), shlex.quote(short(Path(sys.executable).parent / "voxelmill"))
    health = "  ".join(f"{name} :{ports[name]}" for name in services)
    line(
        f"""
  put objects into    {variables["VOXELMILL_INBOX_URL"]}
  results appear in   {variables["VOXELMILL_RESULTS_URL"]}
  endpoint            {variables["AWS_ENDPOINT_URL"]}  (S3, region {variables["AWS_REGION"]})
  access key          {variables["AWS_ACCESS_KEY_ID"]}
  secret key          {variables["AWS_SECRET_ACCESS_KEY"]}
  gateway             {"  ".join(gateways) or "none"}
  health              http://127.0.0.1:PORT/readyz and /metrics, with the ports
                      {health}
  logs, data          {here}/logs  {here}/data

Next, put a folder of DICOM files into the inbox with any S3 client:

  source {env}
  {command} storage upload FOLDER s3://inbox/FOLDER    # or: aws s3 cp --recursive FOLDER s3://inbox/FOLDER
  {command} storage list s3://results

make ps: how it stands; make logs: what it says; make down: end it, keep the data."""
    )


def read_env(folder: Folder) -> dict[str, str]:
    """Read the file of variables."""
    variables = {}
    for text in folder.env.read_text().splitlines():
        words = shlex.split(text, comments=True)
        if words[:1] == ["export"]:
            name, _, value = words[1].partition("=")
            variables[name] = value
    return variables


def processes(folder: Folder) -> int:
    """Print every process and whether it is ready; return 1 if something is not as it should be."""
    state: dict[str, Any] = read_json(folder.state) if folder.root.is_dir() else {}
    known = state.get("boot") == boot()
    if not known or not Process(**state["supervisor"]).is_alive():
        left = [process for process in folder.started() if process.is_alive()] if known else []
        line(
            f"the supervisor was killed; make down ends what it left: {', '.join(process.name for process in left)}"
            if left
            else f"nothing runs in {short(folder.root)}"
        )
        return 1 if left else 0
    line(f"{'process':14} {'pid':>8} {'port':>6} {'starts':>6}  state ({state['phase']})")
    all_ready = state["phase"] == "ready"
    for entry in state["processes"]:
        waits = "" if entry["ready"] else "not ready"
        if not waits and "-" in entry["name"]:
            waits = unready(entry["port"])
        all_ready &= not waits
        pid = entry["pid"] or "-"
        line(f"{entry['name']:14} {pid:>8} {entry['port']:>6} {entry['starts']:>6}  {waits or 'ready'}")
    return 0 if all_ready else 1


def logs(folder: Folder, name: str) -> int:
    """Show the end of the logs and follow them, until Ctrl-C; of one process if it is named."""
    found = sorted(folder.logs.glob("*.log"))
    if name:
        found = [path for path in found if path.stem == name]
    if not found:
        raise StackError(f"{folder.logs}: no log{f' of {name}' if name else ''} there; run make up first", 2)
    return subprocess.run(["tail", f"-n{LAST_LINES}", "-F", *map(str, found)], check=False).returncode


def short(path: Path) -> str:
    """The path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
