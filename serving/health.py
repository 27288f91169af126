"""The image's HEALTHCHECK: ends with 0 when the server on this machine is ready."""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection


def main() -> int:
    connection = HTTPConnection("127.0.0.1", int(os.environ.get("AIP_HTTP_PORT") or 8080), timeout=4)
    try:
        connection.request("GET", os.environ.get("AIP_HEALTH_ROUTE") or "/health")
        return int(connection.getresponse().status != 200)
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
