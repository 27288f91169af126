"""The Dockerfiles, as far as they can be seen without a Docker engine: what they share, pin, need and start."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from processes import environment
from test_web_production import KEY
from webserver import web_server

import serving

FILES = ["serving/Dockerfile", "web/Dockerfile"]
LABELS = {"title", "description", "licenses", "version", "revision", "created", "source"}
OF_THE_BASE = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}
"""Of Debian 12 without anything optional, which the slim image is made of; looked up with debootstrap's minbase."""
PACKAGES = {
    "ld-linux-x86-64.so.2": "libc6",
    "libc.so.6": "libc6",
    "libdl.so.2": "libc6",
    "libm.so.6": "libc6",
    "libmvec.so.1": "libc6",
    "libpthread.so.0": "libc6",
    "libresolv.so.2": "libc6",
    "librt.so.1": "libc6",
    "libutil.so.1": "libc6",
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
    "libatomic.so.1": "libatomic1",
}
"""A library of the system → Debian's package."""
COMPILED = [
    "pedalboard_native", "pygame_ce.libs", "_soundfile_data", "numpy", "scipy", "torch", "tokenizers", "safetensors",
    "onnxruntime", "PIL", "psycopg_binary", "google_crc32c", "grpc", "pydantic_core",
]  # fmt: skip
"""In site-packages: what the images' processes load."""


def instructions(file: str) -> list[tuple[str, str]]:
    """Each instruction and its text, a line that goes on made one."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / file).read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name]


def stages(file: str) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for one in instructions(file):
        if one[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(one)
    return found


def test_what_the_two_share_is_the_same() -> None:
    """They are two files, as a third image to build from would have to be pushed before either could be built."""

    def shared(file: str) -> list[str]:
        build, base = stages(file)[:2]
        text = [f"{name} {rest}" for name, rest in [*instructions(file), *build, *base]]
        kept = [
            one for one in text if one.startswith(("ARG PYTHON", "RUN apt-get", "ENV PIP", "WORKDIR", "USER", "ARG "))
        ]
        kept += [one for one in text if "constraints.txt" in one and one.startswith("COPY")]
        kept += [one for one in text if "--force-reinstall" in one or one.startswith("COPY --from")]
        return sorted({one for one in kept if not re.match("ARG (DEVICE|TORCH_INDEX|MELODIFY_IMAGE)", one)})

    one, other = map(shared, FILES)
    assert one == other and len(one) == 13, set(one) ^ set(other)
    ending = [re.sub(r"title=\S.*?\" org|description=\S.*?\" org", "org", rest) for file in FILES
              for name, rest in stages(file)[-1] if name == "LABEL"]  # fmt: skip
    assert ending[0] == ending[1]


@pytest.mark.parametrize("file", FILES)
def test_it_is_pinned_small_labelled_and_runs_as_nobody(file: str) -> None:
    everything = instructions(file)
    (python,) = {rest for name, rest in everything if name == "ARG" and rest.startswith("PYTHON=")}
    assert re.fullmatch(r"PYTHON=python:3\.11\.\d+-slim-bookworm", python)
    bases = [rest.split()[0] for name, rest in everything if name == "FROM"]
    assert set(bases) <= {"${PYTHON}", "base", "${DEVICE}"} and bases.count("${PYTHON}") == 2
    for package in re.findall(r"install --yes --no-install-recommends ([^&]+) &&", str(everything)):
        assert all("=" in one for one in package.split())
    assert [rest for name, rest in everything if name == "USER"] == ["10001"]
    final = [one for stage in stages(file)[1:] for one in stage]
    assert not [rest for name, rest in final if name == "COPY" and not rest.startswith("--from=build ")]
    assert "--without-pip" in str(stages(file)[0]) and not re.search(r"\bpip\b", str(final))
    labels = " ".join(rest for name, rest in everything if name == "LABEL")
    assert set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels)) == LABELS
    assert not re.search(r"(?i)(secret|password|token|_key)=", str(everything))
    assert [name for name, _ in everything].count("HEALTHCHECK") == 1
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version and ("ARG", f"VERSION={version[1]}") in everything


@pytest.mark.parametrize("file", FILES)
def test_the_build_gets_what_it_copies_and_no_more(file: str) -> None:
    copied = {
        part
        for name, rest in instructions(file)
        if name == "COPY" and not rest.startswith("--from")
        for part in rest.split()[:-1]
    }
    ignored = (ROOT / f"{file}.dockerignore").read_text("utf-8").splitlines()
    assert ignored[0] == "*" and copied == {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / part).exists() for part in copied)


@pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd, which says what libraries are loaded: not Linux")
@pytest.mark.parametrize("file", FILES)
def test_the_image_has_the_libraries_that_wheels_leave_to_the_system(file: str) -> None:
    installed = {
        one.partition("=")[0]
        for stage in stages(file)[1:]
        for _, rest in stage
        for words in re.findall(r"install --yes --no-install-recommends ([^&]+) &&", rest)
        for one in words.split()
    }
    wanted = needed()
    assert "libatomic1" in wanted  # of pedalboard: an image without it cannot play
    assert wanted <= OF_THE_BASE | installed


def needed() -> set[str]:
    """Debian's packages with what compiled parts of wheels load from the system."""
    spec = find_spec("numpy")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent.parent
    files = [
        path
        for name in COMPILED
        for found in folder.glob(f"{name}*")
        for path in ([found] if found.is_file() else found.rglob("*"))
        if ".so" in path.suffixes
    ]
    assert len(files) > 100
    said = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    loaded = set(re.findall(r"(\S+) => /(?:usr/)?lib/", said))
    return {PACKAGES[name] for name in loaded}


@pytest.mark.parametrize("file", FILES)
def test_an_image_with_other_weights_is_not_built(file: str) -> None:
    (installs,) = [rest for name, rest in stages(file)[0] if name == "RUN" and "--force-reinstall" in rest]
    code = re.search(r"python -B -c '(.*?)'", installs)
    assert code is not None
    said = subprocess.run([sys.executable, "-c", code[1]], capture_output=True, text=True, check=True)
    assert said.stdout == "4 files are what they were, to the bit\n"


def test_the_images_start_what_tests_start() -> None:
    commands = [json.loads(rest) for file in FILES for name, rest in instructions(file) if name == "CMD"]
    assert commands == [list(serving.COMMAND), ["melodify", "web", "--host", "0.0.0.0"]]
    health = [rest.partition("CMD ")[2] for file in FILES for name, rest in instructions(file) if name == "HEALTHCHECK"]
    assert [json.loads(one) for one in health] == [["python", "-m", f"{name}.health"] for name in ("serving", "web")]


def test_the_web_applications_image_starts_migrated_as_its_job_does_it_and_is_healthy(tmp_path: Path) -> None:
    """The image's environment and its three commands, as processes."""
    said = [rest for stage in stages("web/Dockerfile")[1:] for name, rest in stage if name == "ENV"]
    variables = dict(one.split("=", 1) for one in " ".join(said).split())
    kept = {
        name: value for name, value in variables.items() if name.startswith(("MELODIFY_", "WEB_")) and "/" not in value
    }
    assert kept.pop("MELODIFY_IMAGE") == "${MELODIFY_IMAGE}"  # .ci/images gives it; empty where nobody does
    assert kept == {
        "MELODIFY_LOG_FORMAT": "json", "WEB_PRODUCTION": "true", "WEB_MIGRATE": "false", "WEB_PROXIES": "1",
        "WEB_GRACE": "9",
    }  # fmt: skip
    given = {**kept, "WEB_SECRET_KEY": KEY, "WEB_HOSTS": '["music.example.org"]'}
    here = {**environment(), **given, "WEB_FOLDER": str(tmp_path / "web"), "MELODIFY_STORE": str(tmp_path / "store")}
    migrate = [sys.executable, "-m", "web", "migrate"]  # as the job melodify-migrate
    subprocess.run(migrate, env=here, cwd=ROOT, check=True, capture_output=True)
    with web_server(tmp_path, **given) as server:
        health = [sys.executable, "-m", "web.health"]
        done = subprocess.run(health, env={**here, "PORT": str(server.port)}, cwd=ROOT, check=False)
        assert done.returncode == 0
    done = subprocess.run(health, env={**here, "PORT": str(server.port)}, cwd=ROOT, check=False)
    assert done.returncode == 1
