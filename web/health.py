"""Is the server on this machine ready? For `web.server`, and as the image's HEALTHCHECK, which ends with 0 if it is."""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException


def is_ready(host: str, port: int) -> bool:
    """What /ready says; False where nobody answers within seconds."""
    connection = HTTPConnection(host, port, timeout=4)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_ready("127.0.0.1", int(os.environ.get("PORT") or 8000)))
