"""The settings of one part of a project each: its offline store, its serving log, its server, and the tokens that it takes.

Each is a table of featurestore.toml, which `featurestore.config` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Strict,
    model_serializer,
    model_validator,
)

from featurestore.hidden import hidden, hidden_property


class FromEnvironment(str):
    """A text in which a variable stood: such a one may be the digits of a number."""

    __slots__ = ()


def _digits(value: Any) -> Any:
    if isinstance(value, FromEnvironment):
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise ValueError("must be a whole number")
        return int(value)
    return value


def _key_set(value: str) -> str:
    if re.match(r"https://[^/]|http://(localhost|127\.0\.0\.1|\[::1\])[:/]", value) or "://" not in value:
        return value
    raise ValueError("must be a file, or a URL that begins with https:// (http:// of this machine alone)")


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Those of public keys. With a shared secret (HS256 …) each who can verify could sign."""


def _retention(value: str) -> str:
    if not re.fullmatch(r"(?=.)([0-9]{1,6}w)?([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?", value):
        raise ValueError("must be a duration such as '30d' or '12h'")
    return value


def _without_passwords(value: Any) -> Any:
    """A value as it is shown, where nobody kept how it was written."""
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, Mapping):
        return {
            key: hidden_property(key, item) if isinstance(item, str) else _without_passwords(item)
            for key, item in value.items()
        }
    if isinstance(value, (tuple, list)):
        return type(value)(map(_without_passwords, value))
    return value


Whole = Annotated[int, Strict(), BeforeValidator(_digits)]


def described(text: str) -> Any:
    """What a setting is, as the reference says it."""
    return Field(description=text)


class Table(BaseModel):
    """A table of the file. `shown` has what to print in place of values that hold a variable's content or a password."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _shown: dict[str, Any] = PrivateAttr(default_factory=dict)

    def shown(self, name: str) -> str:
        """A value as it may be told: as it is written where a variable stands in it, and without a password."""
        return str(_without_passwords(self._shown.get(name, str(getattr(self, name)))))

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, _without_passwords(self._shown.get(name or "", value))

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped = handler(self)
        return {name: _without_passwords(self._shown.get(name, value)) for name, value in dumped.items()}


class OfflineConfig(Table):
    """How DuckDB works, which reads sources and computes what is materialized and trained on."""

    memory_limit: Annotated[
        str | None,
        described(
            "memory that DuckDB takes, as it writes it (4GB); beyond it, work spills to disk. Left out: DuckDB's own"
        ),
    ] = None
    threads: Annotated[
        Annotated[Whole, Field(ge=1)] | None, described("threads of DuckDB. Left out: as many as there are processors")
    ] = None
    spill: Annotated[Path | None, described("folder of what spills, in which each process has one of its own")] = None
    tiles: Annotated[
        Path | Literal[False],
        described("folder of what runs of materialize add up once and use again; false: they read every row again"),
    ]
    copies: Annotated[
        Path,
        described(
            "folder of copies, as Parquet, of rows that lie in no Parquet file, and of those that `featurestore optimize` sorts"
        ),
    ]


class MaterializeConfig(Table):
    """How runs of materialize work."""

    chunk_keys: Annotated[
        Whole,
        Field(ge=1),
        described(
            "keys that are asked for and written at once, which bounds the memory of a run; a run that is killed goes on after the last such chunk"
        ),
    ] = 1_000_000
    processes: Annotated[
        Whole,
        Field(ge=1),
        described(
            "processes of this machine that write the chunks of a run side by side, each a chunk at a time; 1: this one does"
        ),
    ] = 1


def _store_folder(value: str) -> str:
    parts = value.partition("://")[2].split("/")
    if (
        not re.fullmatch(r"(s3|gs|az)://[^/@?*\[]+(/[^/?*\[]+)*/?", value)
        or not {".", ".."}.isdisjoint(parts)  # which what writes resolves, and what lists does not
        or not value.isprintable()
    ):
        raise ValueError(
            "must be a folder in an object store, such as s3://bucket/served; credentials are the environment's"
        )
    return value.rstrip("/")


class ServingLogConfig(Table):
    """What is kept of what was served."""

    folder: Annotated[Path, described("where the serving log lies")]
    rate: Annotated[float, Field(ge=0, le=1), described("how much of what is served is logged, 0 (nothing) to 1")] = 0.0
    rates: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], described("the same by service")] = {}
    by: Annotated[Literal["request", "key"], described("whether whole requests are logged, or all rows of a key")] = (
        "request"
    )
    bys: Annotated[dict[str, Literal["request", "key"]], described("the same by service")] = {}
    retention: Annotated[
        Annotated[str, AfterValidator(_retention)] | None,
        described("how old a file's newest row may be, such as 30d. Left out: any age"),
    ] = None
    max_bytes: Annotated[
        Annotated[Whole, Field(ge=1)] | None, described("bytes that all files may take; the oldest go first")
    ] = None
    ship_to: Annotated[
        Annotated[str, AfterValidator(_store_folder)] | None,
        described(
            "folder in an object store, such as s3://bucket/served, to which the files of each hour go when it is over; then `retention` and "
            "`max_bytes` delete only what is there. Left out: none"
        ),
    ] = None


class StatisticsConfig(Table):
    """What is kept of what values were like: of training frames, runs of materialize and served hours."""

    enabled: Annotated[bool, Strict(), described("whether statistics are gathered and kept")] = True
    keep: Annotated[
        Whole,
        Field(ge=1),
        described("training frames of a service, and runs of a view, of which they are kept: the newest"),
    ] = 50
    keep_hours: Annotated[
        Whole, Field(ge=1), described("served hours of a service of which they are kept: the newest")
    ] = 168


def _host_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]", value):
        raise ValueError("must be a host name without a port, such as features.example.com")
    return value.lower()


Size = Annotated[int, Strict(), BeforeValidator(_digits), Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


Platform = Literal["databricks", "feast", "sagemaker", "vertex"]
"""Whose clients a server can answer beside ours."""


class ServerConfig(Table):
    """Where `featurestore serve` listens, who may ask, what it tells of itself, and what each process takes from its clients.

    From body_bytes on each is a limit: what goes beyond it is refused, and the refusal names the setting.
    """

    host: Annotated[str, described("address to listen on")] = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65535), described("port to listen on; 0: any that is free")] = 6570
    workers: Annotated[Whole, Field(ge=1), described("processes that answer")] = 1
    authentication: Annotated[
        Literal["required", "off"],
        described("whether requests must bring a key or a token; off on a loopback address alone"),
    ] = "required"
    tls_certificate: Annotated[Path | None, described("PEM file of the certificate, for HTTPS")] = None
    tls_key: Annotated[Path | None, described("PEM file of its key")] = None
    client_ca: Annotated[
        Path | None, described("PEM file of the authorities whose certificates clients must have (mTLS)")
    ] = None
    log_format: Annotated[Literal["text", "json"], described("of what is logged on stderr")] = "text"
    access_log: Annotated[Literal["off", "stdout", "stderr"], described("where a line for each request goes")] = "off"
    traces: Annotated[Literal["off", "otlp"], described("whether OpenTelemetry is told of requests")] = "off"
    when_unavailable: Annotated[
        Literal["raise", "defaults"],
        described(
            "what a lookup is answered while the online store cannot be reached: 503, or the features' defaults, UNAVAILABLE"
        ),
    ] = "raise"
    console: Annotated[
        Literal["on", "off"], described("whether the console is at /ui, for keys that may read everything")
    ] = "on"
    compatible: Annotated[
        tuple[Platform, ...],
        described("platforms whose own clients are answered too, at the paths that they use"),
    ] = ()
    hosts: Annotated[
        tuple[Annotated[str, AfterValidator(_host_name)], ...],
        Field(
            description="names of this machine, beside localhost, that a request over a loopback address may be sent to"
        ),
    ] = ()
    body_bytes: Annotated[Size, described("bytes of a request's body")] = 16 << 20
    row_bytes: Annotated[Size, described("bytes of one row, and of what a body has beside its rows")] = 128 << 10
    manifest_bytes: Annotated[Size, described("bytes of a manifest that is compared")] = 1 << 20
    lookup_rows: Annotated[Size, described("rows of a lookup")] = 10_000
    push_rows: Annotated[Size, described("rows of a push")] = 10_000
    features: Annotated[Size, described("names in the list of features of a lookup")] = 1_000
    key_bytes: Annotated[Size, described("bytes of a text in an entity's key, or in an identity")] = 1_024
    answer_bytes: Annotated[Size, described("bytes of an answer to a lookup")] = 32 << 20
    header_bytes: Annotated[Size, described("bytes of a request's head: its line and its headers")] = 16 << 10
    lookup_seconds: Annotated[
        Seconds, described("seconds in which a lookup is answered, however often the online store is tried")
    ] = 10.0
    push_seconds: Annotated[Seconds, described("seconds in which a push is answered, whatever it waits for")] = 10.0
    request_seconds: Annotated[Seconds, described("seconds from a request's first byte to its last")] = 20.0
    idle_seconds: Annotated[Seconds, described("seconds for which a connection is kept that sends nothing")] = 75.0
    answer_seconds: Annotated[
        Seconds, described("seconds for which an answer is sent to a client that is slow to take it")
    ] = 60.0
    drain_seconds: Annotated[
        Annotated[float, Field(ge=0, le=3600)],
        described(
            "seconds for which a server that gets SIGTERM answers on, while /readyz says 503, before it closes its port"
        ),
    ] = 0.0
    connections: Annotated[Size, described("connections of a process")] = 1_000
    requests: Annotated[Size, described("requests of a process that are under way")] = 500
    bytes_in_flight: Annotated[Size, described("bytes of large bodies and answers of a process that are under way")] = (
        64 << 20
    )

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.bytes_in_flight < self.body_bytes:
            raise ValueError("bytes_in_flight must be at least body_bytes, or the largest body would never be taken")
        return self

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("must have both of tls_certificate and tls_key, or neither")
        if self.client_ca is not None and self.tls_key is None:
            raise ValueError("client_ca needs tls_certificate and tls_key")
        return self


class JwtConfig(Table):
    """Whose JSON Web Tokens the service takes; without jwks nobody's."""

    jwks: Annotated[
        Annotated[str, AfterValidator(_key_set)] | None,
        described("the issuer's keys, an https URL or a file. Left out: nobody's tokens are taken"),
    ] = None
    issuer: Annotated[str | None, described("who makes the tokens")] = None
    audience: Annotated[
        tuple[str, ...],
        BeforeValidator(_one_or_several),
        Field(min_length=1),
        described("whom tokens must be for, one or several"),
    ] = ()
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1), described("how tokens may be signed")] = (
        "RS256",
        "ES256",
    )
    leeway_seconds: Annotated[float, Field(ge=0, le=300), described("seconds by which clocks may differ")] = 30.0
    name_claim: Annotated[str, described("claim with the name of the principal")] = "sub"
    scopes_claim: Annotated[str, described("claim with what it may do")] = "scope"
    scopes: Annotated[
        dict[str, tuple[Literal["read", "push", "materialize", "metrics", "admin"], ...]],
        described("the issuer's words for that and ours, where they are not ours"),
    ] = {}
    only_claim: Annotated[
        str | None, described("claim with what a token is limited to, as service:NAME, view:NAME and source:NAME")
    ] = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.model_fields_set and not (self.jwks and self.issuer and self.audience):
            raise ValueError("must have jwks, issuer and audience")
        return self
