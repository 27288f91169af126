"""See `emulators.cloud`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys

from emulators.cloud import cloud


def main(command: list[str]) -> int:
    with cloud() as running:
        if command:
            return subprocess.run(command, env={**os.environ, **running.environment}, check=False).returncode
        lines = [f"export {name}={shlex.quote(value)}" for name, value in running.environment.items()]
        lines.append("# A cloud on this machine: say these lines in another shell, and use melodify. Ctrl-C ends it.")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
