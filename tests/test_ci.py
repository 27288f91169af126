"""CI does not go on without what tests would skip themselves for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

TARGETS = ["test", "lint", "audit", "run", "docs", "notebooks-cloud", "build-local"]
DEBIANS = "/usr/lib/postgresql"
POSTGRES = "../postgresql/15/bin/initdb"  # beside the path


@pytest.mark.parametrize(
    ("there", "installs", "made"),
    [
        (["chromium", "initdb"], [], TARGETS),
        (["chromium", POSTGRES], [], TARGETS),
        (["apt-get"], ["chromium", POSTGRES], TARGETS),
        (["initdb", "apt-get"], [], []),
        (["chromium", "apt-get"], [], []),
        (["apt-get"], ["chromium"], []),
        (["initdb"], [], []),
    ],
    ids=str,
)
def test_ci_ends_where_a_browser_or_a_database_cannot_be_had(
    there: list[str], installs: list[str], made: list[str], tmp_path: Path
) -> None:
    programs, script = tmp_path / "bin", tmp_path / "checkout" / ".ci" / "run"
    for folder in (programs, script.parent, (programs / POSTGRES).parent):
        folder.mkdir(parents=True)
    script.write_text((ROOT / ".ci/run").read_text("utf-8"))
    packages = script.with_name("packages")
    packages.write_text((ROOT / ".ci/packages").read_text("utf-8").replace(DEBIANS, str(tmp_path / "postgresql")))
    packages.chmod(0o755)
    for name in ("bash", "dirname", "env", "touch", "chmod"):
        (programs / name).symlink_to(shutil.which(name) or "")
    install = "".join(f"touch {programs / name}; chmod +x {programs / name}\n" for name in installs)
    says = {"make": f'echo "$1" >> {tmp_path / "made"}', "apt-get": f"[ $1 = update ] && exit\n{install}"}
    for name in ["make", *there]:
        (programs / name).write_text(f"#!/bin/bash\n{says.get(name, '')}\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", script], env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if made else 1), done.stderr
    assert ("CI needs" in done.stderr) is not bool(made)
    assert (tmp_path / "made").exists() is bool(made)
    if made:
        assert (tmp_path / "made").read_text().split() == made
