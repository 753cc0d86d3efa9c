"""TLS of the service: its certificate, and whose clients it takes."""

from __future__ import annotations

import ssl
from typing import Any

from featurestore.errors import ConfigError
from featurestore.settings import ServerConfig


def tls_options(config: ServerConfig) -> dict[str, Any]:
    """What uvicorn is told of TLS; nothing where there is no certificate. ConfigError where the files cannot be used together."""
    if config.tls_certificate is None or config.tls_key is None:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    what = f"server.tls_certificate {config.tls_certificate} and server.tls_key {config.tls_key}"
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key, password=_no_password)
        if config.client_ca is not None:
            what = f"server.client_ca {config.client_ca}"
            context.load_verify_locations(config.client_ca)
    except ssl.SSLError as error:
        wrong = "they do not belong to each other" if error.reason == "KEY_VALUES_MISMATCH" else "they are no PEM files"
        raise ConfigError(f"{what} cannot be used: {wrong}") from None
    except OSError as error:
        raise ConfigError(f"{what} cannot be read: {error.strerror}") from None
    options: dict[str, Any] = {"ssl_certfile": str(config.tls_certificate), "ssl_keyfile": str(config.tls_key)}
    if config.client_ca is not None:
        options |= {"ssl_ca_certs": str(config.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


def _no_password() -> str:
    """Else Python would ask on the terminal."""
    raise ConfigError("server.tls_key is under a password; write it without one, readable by the server's user alone")
