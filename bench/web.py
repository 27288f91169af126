"""The web application under load: `python bench/web.py [--visitors 50] [--seconds 120] [--workers 1]`.

`melodify web` as it comes, with a folder of its own, and visitors (Locust, another process on the same machine) who
look, upload a photograph, ask for its progress every second or two, listen, and sometimes delete. Each comes from an
address of its own, as behind a proxy, so that no limit of a client is in the way. What they are told by a full queue,
503 and when to come back, is no error; all else is. Absolute times are this machine's; compare within one run.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from compose import processor

MELODIFY = Path(sys.executable).with_name("melodify")
PAGES = (" page", "progress")
VISITORS = Path(__file__).with_name("web_visitors.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=120, help="of load, after all visitors have come")
    parser.add_argument("--workers", type=int, default=1, help="songs that are made at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, address = _serve(folder, options.workers)
        try:
            load = os.getloadavg()[0]
            rows = _visit(folder, address, options.visitors, options.seconds)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    machine = f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    how = f"{options.visitors} visitors, {options.seconds} s, workers: {options.workers}, load before: {load:.1f}"
    print(f"{machine}; {how}\n")
    print("| what | asked | errors | p50 | p95 | bar |\n| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['Name']} | {row['Request Count']} | {row['Failure Count']} | {float(row['50%']):.0f} ms "
            f"| {float(row['95%']):.0f} ms | {'300 ms' if row['Name'].endswith(PAGES) else ''} |"
        )
    songs = next((int(row["Request Count"]) for row in rows if row["Name"] == "song, from upload to done"), 0)
    print(f"\n{60 * songs / options.seconds:.1f} songs a minute")


def _serve(folder: Path, workers: int) -> tuple[subprocess.Popen[bytes], str]:
    """The server, ready, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"MELODIFY_STORE": str(folder / "store"), "WEB_FOLDER": str(folder / "web"), "WEB_PROXIES": "1"}
    variables |= {"WEB_WORKERS": str(workers), "WEB_SONGS_PER_HOUR": "1000"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [MELODIFY, "web", "--port", str(port)], env={**os.environ, **variables}, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    while not _is_ready(address):
        if server.poll() is not None:
            raise SystemExit((folder / "log").read_text())
        time.sleep(0.2)
    return server, address


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _visit(folder: Path, address: str, visitors: int, seconds: int) -> list[dict[str, str]]:
    """What Locust measured, a row a kind of request."""
    command = [sys.executable, "-m", "locust", "--headless", "--locustfile", str(VISITORS), "--host", address]
    command += ["--users", str(visitors), "--spawn-rate", "10", "--run-time", f"{seconds + visitors // 10}s"]
    command += ["--csv", str(folder / "load"), "--only-summary", "--reset-stats", "--stop-timeout", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    table = folder / "load_stats.csv"
    if not table.exists():
        raise SystemExit(done.stderr)
    if (folder / "load_failures.csv").read_text().count("\n") > 1:
        print((folder / "load_failures.csv").read_text(), file=sys.stderr)
    with table.open() as file:
        return [row for row in csv.DictReader(file) if row["Name"] != "Aggregated"]


if __name__ == "__main__":
    main()
