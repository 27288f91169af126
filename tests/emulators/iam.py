"""IAM Service Account Credentials on this machine: signBlob, with a key that nobody else has."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from emulators.server import Emulator, Refused, Request, route


class IamEmulator(Emulator):
    """Signs for one service account, for whoever has the token."""

    def __init__(self, token: str, account: str) -> None:
        self.token, self.account = token, account
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        super().__init__()

    def error(self, status: int, message: str) -> Any:
        return {"error": {"code": status, "message": message}}

    @route("POST", r"/v1/projects/-/serviceAccounts/(?P<account>[^/:]+):signBlob")
    def sign_blob(self, request: Request, account: str) -> Any:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request had invalid authentication credentials")
        if account != self.account:
            raise Refused(403, f"Permission 'iam.serviceAccounts.signBlob' denied on {account}")
        if set(request.body) != {"payload"}:
            raise Refused(400, f"Unknown name {sorted(request.body)}")
        payload = base64.b64decode(request.body["payload"], validate=True)
        signed = self._key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
        return {"keyId": "1", "signedBlob": base64.b64encode(signed).decode()}

    def verify(self, signature: bytes, payload: bytes) -> None:
        """Raises `cryptography.exceptions.InvalidSignature`."""
        self._key.public_key().verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
