"""An issuer of tokens: real keys, real signatures, and a key set that is served over HTTP on this machine."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

ISSUER, AUDIENCE = "https://issuer.example/", "featurestore"


class SigningKey:
    """A private key and what its issuer publishes of it."""

    def __init__(self, kid: str, algorithm: str = "ES256", *, bits: int = 2048, **published: Any) -> None:
        self.kid, self.algorithm = kid, algorithm
        self.private: Any
        if algorithm.startswith("ES"):
            curve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[algorithm]
            self.private = ec.generate_private_key(curve)
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        public = get_default_algorithms()[algorithm].to_jwk(self.private.public_key(), as_dict=True)
        self.jwk: dict[str, Any] = {**public, "kid": kid, "alg": algorithm, "use": "sig", **published}

    def token(self, *, header: Mapping[str, Any] | None = None, algorithm: str | None = None, **claims: Any) -> str:
        """A signed token; a claim of None is left out."""
        now = int(time.time())
        every = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "scope": "read", **claims}
        payload = {name: value for name, value in every.items() if value is not None}
        heads = {"kid": self.kid, **(header or {})}
        return jwt.encode(payload, self.private, algorithm or self.algorithm, headers=heads)


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any], signature: bytes = b"") -> str:
    """A token with whatever signature, as an attacker writes it."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class KeySetServer:
    """Serves a key set. `keys` may change; `status`, `body` and `location` are for what issuers do wrong."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.status = 200
        self.body: bytes | None = None
        self.location: str | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body = (
                    json.dumps({"keys": [key.jwk for key in outer.keys]}).encode() if outer.body is None else outer.body
                )
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
