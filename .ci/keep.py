"""Put what a step reports into a folder or bucket, also when it failed; what it did not come to write is passed over.

python .ci/keep.py gs://BUCKET/FOLDER FILE…
"""

from __future__ import annotations

import sys
from pathlib import Path

from melodify_lib.settings import Settings
from melodify_lib.store import open_store


def main(address: str, *files: str) -> None:
    """Names stay, folders go: a build has a folder of its own there."""
    store = open_store(Settings.load(store=address))
    for path in map(Path, files):
        if path.is_file():
            print(store.put(path.name, path.read_bytes()))


if __name__ == "__main__":
    main(*sys.argv[1:])
