"""Is there a key or a password in the repository, other than the made-up ones of .secrets.baseline?

    python .ci/find_secrets.py [FILE …]     all files that git knows, if none is named
    python .ci/find_secrets.py --accept     what is found now is made up: write the baseline anew

detect-secrets' own hook would refuse a baseline whose line numbers have moved; here a secret is its file and its hash.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from detect_secrets import SecretsCollection
from detect_secrets.core import baseline
from detect_secrets.settings import get_settings

ROOT = Path(__file__).parents[1]
BASELINE = ".secrets.baseline"


def main(arguments: list[str]) -> int:
    os.chdir(ROOT)  # names are the repository's
    known = json.loads(Path(BASELINE).read_text(encoding="utf-8"))
    accepted = {(one.filename, one.secret_hash) for _, one in baseline.load(known)}  # its plugins and filters, too
    get_settings().disable_filters("detect_secrets.filters.common.is_baseline_file")
    names = [name for name in arguments if not name.startswith("--")] or _tracked()
    found = SecretsCollection()
    found.scan_files(*(name for name in names if name != BASELINE), num_processors=2)
    if "--accept" in arguments:
        written = baseline.format_for_output(found)
        del written["generated_at"]
        for secrets in written["results"].values():
            for one in secrets:
                del one["line_number"]  # they move
        Path(BASELINE).write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        return 0
    new = [one for _, one in found if (one.filename, one.secret_hash) not in accepted]
    for one in new:
        print(
            f"{one.filename}:{one.line_number}: {one.type}; made up? python .ci/find_secrets.py --accept",
            file=sys.stderr,
        )
    print(f"secrets: {len(names)} files, {len(new)} found")
    return bool(new)


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and Path(name).is_file()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
