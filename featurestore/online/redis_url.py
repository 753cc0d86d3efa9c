"""The URLs of stores on Redis: one server, one that Sentinels name, or a cluster; plain or over TLS.

redis://[user][:password@]host[:port][/db][?options]
redis+sentinel://[user][:password@]host[:port],host[:port]…/name[/db][?options]
redis+cluster://[user][:password@]host[:port],host[:port]…[?options]
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from featurestore.errors import ConfigError
from featurestore.online.timed_connection import WITH_REDIRECTIONS, WITHOUT_LIBRARY
from featurestore.online.url import Parser, file_path, parse_options, seconds, whole_number

Address = tuple[str, int]
"""A host and a port."""

OPTIONS: dict[str, Parser] = {
    "timeout": seconds,
    "connect_timeout": seconds,
    "pool_size": whole_number(1),
    "pool_timeout": seconds,
    "retries": whole_number(0),
}
TLS_OPTIONS: dict[str, Parser] = {"ca_file": file_path, "cert_file": file_path, "key_file": file_path}
SENTINEL_OPTIONS: dict[str, Parser] = {"sentinel_username": str, "sentinel_password": str}

PORTS = {"redis": 6379, "sentinel": 26379, "cluster": 6379}
_ENCODE = "In a user or password, write @ : / ? # % as %40 %3A %2F %3F %23 %25."


class RedisPlace(NamedTuple):
    """What a URL says. name: without user and password; addresses: where to ask first; service: the primary's name among the
    Sentinels; connection: redis-py's options but for host and port; options: ours."""

    name: str
    tls: bool
    addresses: tuple[Address, ...]
    service: str
    connection: dict[str, Any]
    options: dict[str, Any]


def parse_redis_url(url: str) -> RedisPlace:
    """What a URL says; ConfigError where it cannot be read, without a part of a password."""
    scheme = url.partition("://")[0]
    protocol, _, kind = scheme.partition("+")
    tls, kind = protocol == "rediss", kind or "redis"
    try:
        parts = urlsplit(url)
        addresses = _addresses(parts.netloc.rpartition("@")[2], PORTS[kind])
        username, password = parts.username, parts.password
    except ValueError:  # its message would show a part of the password
        raise ConfigError(f"The {scheme}:// URL has a host or port that cannot be read. {_ENCODE}") from None
    service, db = _path(scheme, kind, parts.path.strip("/"), bool(parts.fragment))
    if kind == "redis" and len(addresses) > 1:
        raise ConfigError(
            f"A {scheme}:// URL names one host. For several, say what they are: {protocol}+cluster:// or "
            f"{protocol}+sentinel://…/name."
        )
    parsers = {**OPTIONS, **(TLS_OPTIONS if tls else {}), **(SENTINEL_OPTIONS if kind == "sentinel" else {})}
    options = parse_options(parts.query, parsers, scheme=scheme)
    if "key_file" in options and "cert_file" not in options:
        raise ConfigError(f"Option 'key_file' of the {scheme}:// URL needs 'cert_file' beside it.")
    connection = {
        "db": db,
        "username": unquote(username) if username else None,
        "password": unquote(password) if password else None,
        "socket_timeout": options.get("timeout", 5.0),
        "socket_connect_timeout": options.get("connect_timeout", 1.0),
        "protocol": 2,  # with 3, and with the library's name, connecting takes more round trips
        **WITHOUT_LIBRARY,
        **WITH_REDIRECTIONS,
        "client_name": "featurestore",  # seen in CLIENT LIST; over TLS its reply also brings in the session tickets,
        # which redis-py would otherwise take for the rest of an earlier answer
        **(_tls(options) if tls else {}),
    }
    hosts = ",".join(f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in addresses)
    end = {"redis": f"/{db}", "sentinel": f"/{service}/{db}", "cluster": ""}[kind]
    return RedisPlace(f"{scheme}://{hosts}{end}", tls, addresses, service, connection, options)


def _addresses(hosts: str, port: int) -> tuple[Address, ...]:
    """The hosts of a URL, in their order; ValueError for what is none."""
    found = []
    for text in hosts.split(","):
        one = urlsplit(f"//{text}")
        found.append((one.hostname or "localhost", one.port or port))
    return tuple(found)


def _path(scheme: str, kind: str, path: str, has_fragment: bool) -> tuple[str, int]:
    """The service and the number of the database that a URL ends in."""
    service, db = path.partition("/")[::2] if kind == "sentinel" else ("", path)
    db = db or "0"
    example = {
        "redis": f"ends in a database number, such as {scheme}://localhost:6379/0",
        "sentinel": f"ends in the primary's name, such as {scheme}://host:26379,host2:26379/mymaster/0",
        "cluster": f"ends after its hosts, such as {scheme}://host:7000,host2:7001, since a cluster has no databases",
    }[kind]
    is_wrong = has_fragment or not (db.isascii() and db.isdigit()) or (kind == "cluster" and path not in {"", "0"})
    if is_wrong or (kind == "sentinel" and not service):
        raise ConfigError(f"The {scheme}:// URL {example}. {_ENCODE}")
    return service, int(db)


def _tls(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ssl_ca_certs": options.get("ca_file"),
        "ssl_certfile": options.get("cert_file"),
        "ssl_keyfile": options.get("key_file"),
        "ssl_check_hostname": True,  # redis-py did not until 6, and took any certificate of the authority
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
    }
