"""docker-compose.yml and the images: valid, pinned, private, and the same names as everywhere else."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from containers.build import EXTRA, tag_of
from stack.rabbitmq import CONSUMER_TIMEOUT_MS
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_index.settings import IndexSettings
from voxelmill_ingest.triggers.settings import IngestProcessSettings
from voxelmill_mesh.settings import MeshSettings
from voxelmill_segment.equipment import DEFAULT_WEIGHTS
from voxelmill_segment.settings import SegmentSettings
from voxelmill_shared.errors import StoreUnavailableError
from voxelmill_shared.health import serve
from voxelmill_shared.settings import SharedSettings
from voxelmill_thumbnail.settings import ThumbnailSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
SETTINGS = {
    "ingest": IngestProcessSettings,
    "thumbnail": ThumbnailSettings,
    "segment": SegmentSettings,
    "segment-gpu": SegmentSettings,
    "mesh": MeshSettings,
    "index": IndexSettings,
    "gateway": GatewaySettings,
}
ONE_SHOT = {"prepare"}
OWN = sorted({*SETTINGS, *ONE_SHOT})
IMAGES = sorted(path.parent.name for path in ROOT.glob("services/*/Dockerfile"))
PINNED = re.compile(r"[a-z0-9/]+:\d+\.\d+[\w.-]*")
UNITS = {"m": 1 << 20, "g": 1 << 30}


def variables(text):
    """The variables that a text of compose asks for, with what is said of each: `:?message`, `:-default` or nothing."""
    return re.findall(r"\$\{(\w+)([^}]*)\}", text)


def memory(service):
    """The limit of a container in bytes."""
    limit = SERVICES[service]["deploy"]["resources"]["limits"]["memory"]
    return int(limit[:-1]) * UNITS[limit[-1]]


def seconds(text):
    return float(re.fullmatch(r"(\d+)s", text)[1])


def test_the_file_keeps_to_the_compose_schema():
    """As docker compose would say it, by the schema that the specification ships."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            str(ROOT / "docker-compose.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_of_the_workspace_is_described_once():
    """Each has its image, built from its Dockerfile, under the name that `make images` gives it."""
    assert sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml")) == IMAGES
    assert {name.removesuffix("-gpu") for name in SETTINGS} == set(IMAGES)
    for name in OWN:
        service, image = SERVICES[name], name.removesuffix("-gpu") if name not in ONE_SHOT else "ingest"
        variant = "-totalsegmentator-cuda" if name == "segment-gpu" else ""
        assert service["image"] == f"voxelmill/{image}:${{TAG:-dev}}{variant}"
        assert tag_of(image, "dev", "cuda" if variant else None) == f"voxelmill/{image}:dev{variant}"
        build = {"context": ".", "dockerfile": f"services/{image}/Dockerfile"}
        assert service["build"] == (build | {"args": {"EXTRA": EXTRA, "TORCH": "cuda"}} if variant else build)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(OWN)))
def test_images_of_others_are_pinned(name):
    """To a version at least, never to what is newest on the day."""
    assert PINNED.fullmatch(SERVICES[name]["image"])


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_is_a_setting_of_that_service(name):
    """A name that no service reads would be ignored without a word."""
    known = {f"VOXELMILL_{field.upper()}" for field in SETTINGS[name].model_fields}
    given = {variable for variable in SERVICES[name]["environment"] if not variable.startswith("AWS_")}
    assert given - known == set()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_are_accepted(name, monkeypatch):
    """With `.env.example` filled in, each service starts with what compose gives it."""
    example = dict(
        line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if re.match(r"[A-Z]\w*=", line)
    )

    def filled(found):
        return example.get(found[1], found[3]) if found[2] == "-" else "filled1n"

    for variable, value in SERVICES[name]["environment"].items():
        if variable.startswith("VOXELMILL_"):
            monkeypatch.setenv(variable, re.sub(r"\$\{(\w+):([?-])([^}]*)\}", filled, value))
    settings = SETTINGS[name]()
    assert settings.broker_url == "amqp://voxelmill:filled1n@rabbitmq:5672/"
    assert settings.inbox_url == "s3://inbox"


def test_what_compose_asks_for_stands_in_the_example():
    """Each variable is explained; passwords have no default and stop compose with a clear line when they are missing."""
    example = set(re.findall(r"^(?:# )?([A-Z]\w*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    asked = variables(TEXT)
    assert {name for name, _ in asked} == example - {"COMPOSE_PROFILES"}
    for name, rest in asked:
        if re.search("PASSWORD|SECRET|KEY$", name):
            assert rest == ":?set it in .env, see .env.example", name
        else:
            assert rest.startswith(":-"), name


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT))
def test_every_service_has_a_health_check_a_bound_and_is_restarted(name):
    """And may be scaled: no container has a name of its own."""
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert memory(name) > 0
    assert service["restart"] == "unless-stopped"
    assert "container_name" not in service


@pytest.mark.parametrize("name", SETTINGS)
def test_a_drain_and_a_child_have_room(name):
    """Docker kills later than the service gives up, and a child meets its own bound before the container's."""
    service = SERVICES[name]
    settings = SETTINGS[name].model_fields
    grace = float(service["environment"].get("VOXELMILL_GRACE_SECONDS", settings["grace_seconds"].default))
    assert seconds(service["stop_grace_period"]) >= grace + 10
    if name != "index":  # it has no children
        child = int(service["environment"].get("VOXELMILL_CHILD_MEMORY_MIB", settings["child_memory_mib"].default))
        assert memory(name) >= (child << 20) + (512 << 20)


def test_a_message_may_be_in_hand_for_longer_than_the_longest_job():
    """The broker's own limit is four times the longest work of a child, the same here as with `make up`."""
    settings = (ROOT / "deploy/rabbitmq/rabbitmq.conf").read_text()
    timeout = int(re.search(r"^consumer_timeout = (\d+)$", settings, re.MULTILINE)[1])
    assert timeout == CONSUMER_TIMEOUT_MS
    assert timeout >= 4000 * SharedSettings.model_fields["child_seconds"].default
    high = re.search(r"^vm_memory_high_watermark.absolute = (\d)GB$", settings, re.MULTILINE)
    assert int(high[1]) * 10**9 <= memory("rabbitmq") * 0.6


def test_a_gpu_is_reserved_on_segment_alone_and_only_if_asked_for():
    """A machine without one starts everything; no other service ever takes one."""
    with_gpu = [name for name, service in SERVICES.items() if "reservations" in str(service.get("deploy"))]
    assert with_gpu == ["segment-gpu"]
    (device,) = SERVICES["segment-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "replicas" not in SERVICES["segment-gpu"]["deploy"]  # docker gives each the first GPUs that there are
    assert SERVICES["segment-gpu"]["profiles"] == ["gpu"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["segment-gpu"]


def test_only_this_machine_reaches_the_ports():
    """Nothing is published but on loopback, and what works on pixels reaches nothing outside."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    assert COMPOSE["networks"]["inside"]["internal"] is True
    outside = {name for name, service in SERVICES.items() if "outside" in service["networks"]}
    assert outside == {"rabbitmq", "postgres", "seaweedfs", "gateway"}


@pytest.mark.parametrize("name", OWN)
def test_our_own_containers_have_no_rights(name):
    """Nothing of the image can be changed, no capability is left, none can be gained."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_what_is_mounted_from_the_tree_exists():
    """A file that is missing would become an empty folder."""
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", []) if volume[0] == "."]
    assert mounts
    assert [mount for mount in mounts if not (ROOT / mount.split(":")[0]).is_file() or not mount.endswith(":ro")] == []
    named = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in named if not name.startswith((".", "$"))} == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", ["segment", "segment-gpu"])
def test_weights_are_where_the_command_puts_them_and_the_image_looks(name):
    """And nothing that works on series can change them."""
    mount = f"${{WEIGHTS_FOLDER:-./{DEFAULT_WEIGHTS}}}:/weights:ro"
    assert mount in SERVICES[name]["volumes"]
    assert "VOXELMILL_WEIGHTS=/weights " in (ROOT / "services/segment/Dockerfile").read_text()


def test_services_wait_for_what_they_need():
    """Servers that are healthy, buckets that are made."""
    for name in SETTINGS:
        needs = {other: how["condition"] for other, how in SERVICES[name]["depends_on"].items()}
        assert needs.pop("prepare") == "service_completed_successfully"
        assert needs == dict.fromkeys(("rabbitmq", "postgres", "seaweedfs"), "service_healthy")


@pytest.mark.parametrize("name", IMAGES)
def test_a_dockerfile_differs_from_the_others_by_its_name_alone(name):
    """What is learnt for one image holds for all; only compiled code asks for more, and segment's other model."""

    def common(service):
        text = (ROOT / "services" / service / "Dockerfile").read_text()
        text = re.sub(r'(image.description=)".*"', r"\1", text)
        text = text.replace("mkdir -p scratch/numba", "mkdir -p scratch")
        text = text.replace(" \\\n    NUMBA_CACHE_DIR=/scratch/numba", "")
        if service == "segment":
            text = re.sub(r"# With EXTRA=totalsegmentator.*?(?=COPY shared)", "", text, flags=re.DOTALL)
            text = text.replace(
                " \\\n    VOXELMILL_WEIGHTS=/weights \\\n    NVIDIA_DRIVER_CAPABILITIES=compute,utility", ""
            )
        return re.sub(rf"(voxelmill-|services/|requirements/){service}\b", r"\1NAME", text)

    assert common(name) == common("index")
    compiles = "numba" in (ROOT / "services" / name / "pyproject.toml").read_text()
    assert ("NUMBA_CACHE_DIR=/scratch/numba" in (ROOT / "services" / name / "Dockerfile").read_text()) == compiles


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_not_root_and_takes_signals(name):
    """Its user is a number, its entrypoint no shell, its base a build argument with a pinned default."""
    lines = (ROOT / "services" / name / "Dockerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines
    assert f'ENTRYPOINT ["voxelmill-{name}"]' in lines
    assert "STOPSIGNAL SIGTERM" in lines
    (base,) = [line for line in lines if line.startswith("ARG BASE=")]
    assert re.fullmatch(r"ARG BASE=python:3\.\d+\.\d+-slim-\w+", base)
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    project = tomllib.loads((ROOT / "services" / name / "pyproject.toml").read_text())["project"]
    assert f'description="{project["description"]}"' in "\n".join(lines)


def locked(name):
    """The versions of a lock file: (project, version, marker)."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    return set(re.findall(r"^([\w.-]+)==(\S+)((?: ;.*?)?) \\$", text, re.MULTILINE))


def pairs(name):
    return {(project, version) for project, version, _ in locked(name)}


def versions_of(name, project):
    return {version for one, version in pairs(name) if one == project}


def test_torch_is_one_version_and_locked_apart():
    """What is in the image of GPUs is what the tests ran with, and no lock of the others brings gigabytes."""
    (torch,) = [version for project, version, _ in locked("torch") if project == "torch"]
    assert f"torch=={torch}" in (ROOT / "requirements/torch.in").read_text().splitlines()
    assert [name for name in (*IMAGES, "run", "dev", "totalsegmentator") if "torch" in dict(pairs(name))] == []
    there = dict(pairs("totalsegmentator"))
    assert {"totalsegmentator", "nnunetv2"} <= set(there)
    assert {"torchvision", "timm", "vtk", "pyarrow"} & set(there) == set()
    common = set(there) & set(dict(pairs("torch"))) & set(dict(pairs("dev")))
    assert common
    for project in common:  # installed one over the other, without a look at what each asks for
        assert versions_of("torch", project) == versions_of("totalsegmentator", project) == versions_of("dev", project)


@pytest.mark.parametrize("name", [*IMAGES, "build"])
def test_an_images_lock_holds_what_it_needs_in_the_versions_of_all(name):
    """An image has the versions that the tests ran with, whatever a service declares is there, and pip's hashes too."""
    versions = {(project, version) for project, version, _ in locked(name)}
    assert versions <= {(project, version) for project, version, _ in locked("run")}
    if name == "build":
        return
    shared = tomllib.loads((ROOT / "shared/pyproject.toml").read_text())["project"]
    own = tomllib.loads((ROOT / "services" / name / "pyproject.toml").read_text())["project"]
    wanted = [*shared["dependencies"], *own["dependencies"]]
    if "voxelmill-shared[imaging]==0.1.0" in wanted:
        wanted += shared["optional-dependencies"]["imaging"]
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in wanted} - {"voxelmill-shared"}
    assert names - {project for project, _ in versions} == set()


def test_the_context_of_a_build_holds_no_secrets(tmp_path):
    """`.dockerignore` lets through what the Dockerfiles copy, and nothing else that matters."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_through = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    assert let_through == {"LICENSE", "requirements", "shared", "services", "deploy", "deploy/docker"}


async def healthy(port, path):
    """Run the images' health check against a port, with nothing but Python's own library."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(ROOT / "deploy/docker/healthy.py"), path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"VOXELMILL_PORT": str(port)},
    )
    said, errors = await process.communicate()
    assert errors == b""
    return process.returncode, said.decode()


async def test_the_health_check_of_the_images_tells_alive_from_ready():
    """It says nothing when all is well, and one line with the reason when it is not."""

    async def away():
        raise StoreUnavailableError("the store is away")

    async with serve("mesh", {"results": away}, "127.0.0.1", 0) as port:
        assert await healthy(port, "/healthz") == (0, "")
        code, said = await healthy(port, "/readyz")
    assert code == 1
    assert said.startswith("/readyz answers 503: ")
    assert "the store is away" in said
    code, said = await healthy(port, "/healthz")
    assert code == 1
    assert said.startswith(f"no answer on port {port}: ")
    assert said.count("\n") == 1
