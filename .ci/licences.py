"""Are all licences of what is installed known? `make licences`.

pip-licenses --format=json | python .ci/licences.py [REPORT.md]
"""

from __future__ import annotations

import json
import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

POLICY = Path(__file__).with_name("licences.yaml")


def problems(packages: list[dict[str, str]], policy: dict[str, Any]) -> list[str]:
    """A sentence for each package that the policy does not let pass."""
    found = []
    for package in packages:
        name, licence = package["Name"], package["License"]
        reason = policy["explained"].get(name.lower())
        if any(fnmatch(name.lower(), pattern) for pattern in policy["proprietary"]):
            continue
        if reason is not None:
            if reason["licence"] != licence:
                found.append(f"{name}: explained as {reason['licence']}, and is now {licence}: read it again")
        elif not is_allowed(licence, policy["allowed"]):
            found.append(f"{name} {package['Version']}: {licence}, which {POLICY.name} neither allows nor explains")
    return found


def is_allowed(licence: str, allowed: list[str]) -> bool:
    """Of what is joined by OR one must be allowed; of what is joined by AND or a semicolon, all."""
    if licence in allowed:
        return True
    if "(" in licence and " OR " in licence:
        return False  # to be read by a person
    either = [
        all(part.strip(" ()") in allowed for part in re.split(r" AND |;", choice)) for choice in licence.split(" OR ")
    ]
    return any(either)


def report(packages: list[dict[str, str]], policy: dict[str, Any]) -> str:
    """All packages with their licences, and why those may stay that ask for more."""
    rows = [
        f"| {one['Name']} | {one['Version']} | {one['License'].replace('|', '/')} "
        f"| {policy['explained'].get(one['Name'].lower(), {}).get('why', '')} |"
        for one in packages
    ]
    return "\n".join(["| package | version | licence | why it may stay |", "| --- | --- | --- | --- |", *rows, ""])


def main() -> int:
    packages = json.load(sys.stdin)
    policy = yaml.safe_load(POLICY.read_text(encoding="utf-8"))
    for name, reason in sorted(policy["explained"].items()):
        if any(package["Name"].lower() == name for package in packages):
            print(f"{name}: {reason['licence']}. {reason['why']}")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(report(packages, policy), encoding="utf-8")
    found = problems(packages, policy)
    print(*found, sep="\n", file=sys.stderr)
    print(f"licences: {len(packages)} packages, {len(found)} not let pass")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
