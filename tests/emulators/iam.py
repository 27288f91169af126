"""IAM on this machine: signBlob, with a key that nobody else has; what is granted on the project and the account.

And Secret Manager, which gives what is in `secrets`, by the name of the version; and Cloud Quotas, with what is in
`quotas` for us-central1.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.cloud.cloudquotas_v1.types import ListQuotaInfosResponse
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsRequest
from google.protobuf import json_format

from emulators.server import Emulator, Refused, Request, route


class IamEmulator(Emulator):
    """Signs for one service account, for whoever has the token."""

    def __init__(self, token: str, account: str) -> None:
        self.token, self.account = token, account
        self.secrets: dict[str, str] = {}
        self.quotas = {"custom_model_training_cpus": 42, "custom_model_serving_cpus": -1}
        self.denied: set[str] = set()
        self.granted_on_account: set[str] = set()
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

    @route("GET", r"/v1/(?P<name>projects/[^/]+/secrets/[^/]+/versions/[^/:]+):access")
    def access_secret(self, request: Request, name: str) -> Any:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request had invalid authentication credentials")
        if name not in self.secrets:
            raise Refused(404, f"Secret [{name}] not found or has no versions.")
        return {"name": name, "payload": {"data": base64.b64encode(self.secrets[name].encode()).decode()}}

    @route("GET", r"/v1/projects/[^/]+/locations/global/services/aiplatform.googleapis.com/quotaInfos")
    def list_quotas(self, request: Request) -> Any:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request had invalid authentication credentials")
        infos = [
            {
                "metric": f"aiplatform.googleapis.com/{metric}",
                "dimensionsInfos": [{"details": {"value": str(value)}, "applicableLocations": ["us-central1"]}],
            }
            for metric, value in {**self.quotas, "something_else": 1}.items()
        ]
        answer = {"quotaInfos": infos}
        json_format.ParseDict(answer, ListQuotaInfosResponse.pb(ListQuotaInfosResponse()))
        return answer

    @route("POST", r"/v3/projects/[^/:]+:testIamPermissions")
    def test_project(self, request: Request) -> Any:
        return {"permissions": [one for one in self._asked(request) if one not in self.denied]}

    @route("POST", r"/v1/projects/-/serviceAccounts/[^/:]+:testIamPermissions")
    def test_account(self, request: Request) -> Any:
        return {"permissions": [one for one in self._asked(request) if one in self.granted_on_account]}

    def _asked(self, request: Request) -> list[str]:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request had invalid authentication credentials")
        asked = json_format.ParseDict(request.body, TestIamPermissionsRequest(), ignore_unknown_fields=False)
        if unknown := [one for one in asked.permissions if not re.fullmatch(r"[a-z]+\.[a-zA-Z]+\.[a-zA-Z]+", one)]:
            raise Refused(400, f"Invalid permission {unknown}")
        return list(asked.permissions)

    def verify(self, signature: bytes, payload: bytes) -> None:
        """Raises `cryptography.exceptions.InvalidSignature`."""
        self._key.public_key().verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
