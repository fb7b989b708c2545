"""`tools/images`: which engine builds, and what of this machine's pip settings a build is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from containers import build, pip_settings
from containers.engines import Engine, ImagesError, find_engine

ROOT = Path(__file__).parents[2]
REMOTE = "https://user:password@mirror.invalid/python"
"""Of no host; as a setting that names an address elsewhere, with its secret."""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Give a function that puts a program, a shell script, onto a PATH that has nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(name, script):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(folder))
    for name in ("STORAGE_DRIVER", "BUILDAH_ISOLATION"):
        monkeypatch.delenv(name, raising=False)
    return put


def test_where_nothing_builds_each_engine_is_named_with_what_it_lacks(programs):
    """A docker without its engine is not the same as no docker."""
    programs("docker", "echo no daemon >&2; exit 1")
    with pytest.raises(ImagesError) as caught:
        find_engine(None)
    assert "docker is installed but does not answer (no daemon)" in str(caught.value)
    assert "podman is not installed" in str(caught.value)
    assert "buildah is not installed" in str(caught.value)
    assert caught.value.code == 3


def test_the_first_engine_that_answers_is_taken(programs):
    """Docker without an engine is passed over; another one may be named."""
    programs("docker", "exit 1")
    programs("podman", "exit 0")
    assert find_engine(None).name == "podman"
    programs("docker", "exit 0")
    assert find_engine(None).name == "docker"
    assert find_engine("podman").name == "podman"
    with pytest.raises(ImagesError, match="write one of docker, podman, buildah"):
        find_engine("kaniko")


def test_buildah_without_a_runtime_builds_in_a_chroot_and_without_overlays_by_copies(programs):
    """What works where no container may be started."""
    programs("buildah", '[ "$1" = mount ] && exit 1; echo name')  # only with --storage-driver vfs it mounts
    engine = find_engine("buildah")
    assert engine.command == ("buildah", "--storage-driver", "vfs")
    assert engine.build == ("bud", "--format", "docker", "--isolation", "chroot", "--network", "host")
    programs("buildah", "echo name")
    programs("crun", "exit 0")
    engine = find_engine("buildah")
    assert engine.command == ("buildah",)
    assert engine.build == ("bud", "--format", "docker")


def test_a_build_that_fails_ends_with_what_the_engine_said(programs, tmp_path):
    """And with exit code 1."""
    programs("podman", 'echo "no space left on device"; exit 125')
    engine = Engine("podman", ("podman",), ("build",))
    with pytest.raises(ImagesError, match="no space left on device\npodman could not build a/b:c") as caught:
        engine.build_image("a/b:c", tmp_path, tmp_path, arguments={}, labels={}, secrets={}, folders=())
    assert caught.value.code == 1


def test_a_build_is_given_everything_and_the_command_names_no_secret(programs, tmp_path):
    """Settings travel as files that are there while a line runs, folders as they are called here."""
    told = tmp_path / "told"
    programs("buildah", f'for word in "$@"; do echo "$word"; done > {told}')
    Engine("buildah", ("buildah",), ("bud",)).build_image(
        "voxelmill/mesh:dev",
        Path("services/mesh/Dockerfile"),
        ROOT,
        arguments={"BASE": "b"},
        labels={"l": "v"},
        secrets={"pip.conf": Path("/run/pip.conf")},
        folders=[Path("/srv/wheels")],
    )
    assert told.read_text().split("\n")[:-1] == [
        *("bud", "--file", "services/mesh/Dockerfile", "--tag", "voxelmill/mesh:dev", "--build-arg", "BASE=b"),
        *("--label", "l=v", "--secret", "id=pip.conf,src=/run/pip.conf", "--volume", "/srv/wheels:/srv/wheels:ro"),
        str(ROOT),
    ]


def test_docker_says_that_it_cannot_show_folders_to_a_build(tmp_path):
    """One line, instead of a build that does not find its packages."""
    with pytest.raises(ImagesError, match="use --engine podman or buildah") as caught:
        Engine("docker", ("docker",), ("build",)).build_image(
            "t", tmp_path, tmp_path, arguments={}, labels={}, secrets={}, folders=[Path("/srv/wheels")]
        )
    assert caught.value.code == 2


def test_pips_settings_are_read_as_pip_weighs_them(tmp_path, monkeypatch):
    """Files first, then the environment."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(
        "[global]\ntimeout = 20\nfind-links =\n    /srv/a\n    /srv/b\n[install]\nretries = 9\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_TIMEOUT", "180")
    settings = pip_settings.read_settings()
    assert settings["timeout"] == "180"
    assert settings["retries"] == "9"
    assert settings["find-links"].split() == ["/srv/a", "/srv/b"]


def test_folders_that_pip_looks_into_are_found(tmp_path):
    """An index with the files beside it, a folder of wheels; each once, and nothing that is not there."""
    for name in ("mirror/simple", "mirror/files", "wheels/inner"):
        (tmp_path / name).mkdir(parents=True)
    settings = {
        "index-url": REMOTE,
        "extra-index-url": f"file://{tmp_path}/mirror/simple file://{tmp_path}/gone/simple",
        "find-links": f"{tmp_path}/wheels {tmp_path}/wheels/inner {REMOTE}",
    }
    assert pip_settings.local_folders(settings) == [tmp_path / "mirror", tmp_path / "wheels"]


def test_secrets_are_files_that_only_the_caller_reads(tmp_path, monkeypatch):
    """Certificates under the name that the Dockerfiles give them; what concerns installing here is left out."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "own.pem").write_text("certificates")
    folder = tmp_path / "secrets"
    folder.mkdir()
    settings = {"cert": str(tmp_path / "own.pem"), "index-url": REMOTE, "user": "true"}
    secrets = pip_settings.write_secrets(settings, folder)
    assert secrets["ca.crt"].read_text() == "certificates"
    assert secrets["pip.conf"].read_text() == (f"[global]\nindex-url = {REMOTE}\ncert = /run/secrets/ca.crt\n")
    assert {path.stat().st_mode & 0o777 for path in secrets.values()} == {0o600}
    assert pip_settings.write_secrets({}, folder) == {}


def test_torch_is_for_segment_alone():
    """Its image has a name of its own, so that the usual one stays."""
    assert build.known_services([], "cpu") == ("segment",)
    assert (
        build.tag_of("segment", "dev", "cpu")
        != build.tag_of("segment", "dev", "cuda")
        != build.tag_of("segment", "dev")
    )
    with pytest.raises(ImagesError, match="segment's image alone") as caught:
        build.known_services(["segment", "mesh"], "cuda")
    assert caught.value.code == 2


def test_the_model_is_a_build_argument(programs, tmp_path, monkeypatch):
    """With the build of torch; without the model neither is given."""
    told = tmp_path / "told"
    programs(
        "buildah",
        f"""[ "$1" = bud ] && for word in "$@"; do echo "$word"; done > {told}; echo '[{{"size": "1 MB"}}]' """,
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.defpath)
    engine = Engine("buildah", ("buildah",), ("bud",))
    build.build_images(engine, ["segment"], "dev", None, "cuda")
    words = told.read_text().split("\n")
    assert [words[at + 1] for at, word in enumerate(words) if word == "--build-arg"] == [
        "EXTRA=totalsegmentator",
        "TORCH=cuda",
    ]
    assert words[words.index("--tag") + 1] == "voxelmill/segment:dev-totalsegmentator-cuda"
    build.build_images(engine, ["segment"], "dev", None)
    assert "--build-arg" not in told.read_text().split("\n")


def test_a_wrong_service_is_one_clear_line():
    """Exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "containers", "torch"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("voxelmill images: there is no service 'torch'; write one of ingest, ")
    assert done.stderr.count("\n") == 1
