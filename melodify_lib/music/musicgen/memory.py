"""Whether there is memory for what is about to be loaded: asked first, as Linux only says no by killing."""

from __future__ import annotations

from pathlib import Path

from melodify_lib.errors import OutOfMemoryError

_CGROUP = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes that this process may still take: of the machine, or of its container if that has less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return min(free, int(limit) - int(used) + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def require(needed: int, what: str, free: int | None = None) -> None:
    """Raise `OutOfMemoryError` when there are not so many bytes for `what`; `free` is `available()` if None."""
    free = available() if free is None else free
    if needed > free:
        raise OutOfMemoryError(
            f"{what}: {needed / 1e9:.1f} GB of memory are needed and {free / 1e9:.1f} GB are free; make fewer songs at "
            "once (MELODIFY_SONGS), shorter ones, or take a smaller checkpoint or precision"
        )
