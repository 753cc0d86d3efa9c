"""TLS of the service: HTTPS, certificates of clients, and files that cannot be used."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest

from featurestore.errors import ConfigError
from featurestore.server import serve
from tests.servers import PATIENCE_SECONDS, FeatureServer, certificate


def test_tls_and_certificates_of_clients(tmp_path: Path) -> None:
    """HTTPS alone, with a certificate of the client where one is asked for."""
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    server, client = certificate(tmp_path / "server"), certificate(tmp_path / "client")
    (tmp_path / "featurestore.toml").write_text(
        f'project = "p"\n[server]\ntls_certificate = "{server}"\ntls_key = "server/key.pem"\nclient_ca = "{client}"\n'
    )
    with_none, with_one = (ssl.create_default_context(cafile=str(server)) for _ in range(2))
    with_one.load_cert_chain(client)
    with FeatureServer(tmp_path, answers="/healthz", scheme="https", verify=with_one) as running:
        assert httpx.get(f"{running.url}/healthz", verify=with_one, timeout=PATIENCE_SECONDS).json() == {"status": "up"}
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{running.url}/healthz", verify=with_none, timeout=PATIENCE_SECONDS)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{running.port}/healthz", timeout=PATIENCE_SECONDS)


def test_a_certificate_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """Before anything is served, with the setting and the file."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = certificate(tmp_path / "one"), certificate(tmp_path / "two")
    (tmp_path / "text").write_text("no certificate")
    for pem, key_file, says in (
        ("none.pem", "one/key.pem", "cannot be read: No such file"),
        (str(one), "two/key.pem", "they do not belong to each other"),
        ("text", "text", "they are no PEM files"),
    ):
        (tmp_path / "featurestore.toml").write_text(
            f'project = "p"\n[server]\ntls_certificate = "{pem}"\ntls_key = "{key_file}"\n'
        )
        with pytest.raises(ConfigError, match=says):
            serve(tmp_path, host="127.0.0.1", port=0)
    assert two.exists()
