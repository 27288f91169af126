"""What a stage is made of, as a short hash: its version changes whenever its code or its tables do.

Caches and replays compare versions; a number that somebody must remember to raise would lie one day.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_LIBRARY = Path(__file__).parent
_KINDS = {".py", ".yaml", ".txt"}


@cache
def fingerprint(*parts: str) -> str:
    """Twelve hex digits over the sources and tables of `parts` of the library, files or folders."""
    digest = hashlib.sha256()
    for part in parts:
        path = _LIBRARY / part
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in _KINDS:
                content = file.read_bytes()
                digest.update(f"{file.relative_to(_LIBRARY).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]
