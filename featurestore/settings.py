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

from featurestore.hidden import hidden


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
"""Those of public keys. With a shared secret (HS256 …) whoever can verify could sign."""


def _retention(value: str) -> str:
    if not re.fullmatch(r"(?=.)([0-9]{1,6}w)?([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?", value):
        raise ValueError("must be a duration such as '30d' or '12h'")
    return value


def _without_passwords(value: Any) -> Any:
    """A value as it is shown, where nobody kept how it was written."""
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, Mapping):
        return {key: _without_passwords(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(_without_passwords, value))
    return value


Whole = Annotated[int, Strict(), BeforeValidator(_digits)]


class Table(BaseModel):
    """A table of the file. `shown` has what to print in place of values that hold a variable's content or a password."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _shown: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, self._shown.get(name or "", _without_passwords(value))

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped = handler(self)
        return {name: self._shown.get(name, _without_passwords(value)) for name, value in dumped.items()}


class OfflineConfig(Table):
    """How DuckDB works. memory_limit: as DuckDB writes it ("4GB"); beyond it, work spills to the folder `spill`. tiles: the
    folder of what runs of materialize add up once and use again; false: they read every row again."""

    memory_limit: str | None = None
    threads: Annotated[Whole, Field(ge=1)] | None = None
    spill: Path | None = None
    tiles: Path | Literal[False]


class ServingLogConfig(Table):
    """What is kept of what was served. rate: how much of it, 0 (none) to 1; by: whole "request"s, or all rows of a
    "key"; `rates` and `bys` say it by service. retention: how old a file's newest row may be; max_bytes: what all take."""

    folder: Path
    rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    rates: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    by: Literal["request", "key"] = "request"
    bys: dict[str, Literal["request", "key"]] = {}
    retention: Annotated[str, AfterValidator(_retention)] | None = None
    max_bytes: Annotated[Whole, Field(ge=1)] | None = None


def _host_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]", value):
        raise ValueError("must be a host name without a port, such as features.example.com")
    return value.lower()


Size = Annotated[int, Strict(), BeforeValidator(_digits), Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class ServerConfig(Table):
    """Where `featurestore serve` listens, with how many processes, whether requests must bring a key or a token, and what each
    process takes from its clients.

    authentication: "off" on a loopback address alone. when_unavailable: what a lookup is answered while the online store cannot be reached: 503, or
    the features' defaults, UNAVAILABLE. tls_certificate, tls_key: PEM files, for HTTPS; client_ca: the authorities
    whose certificates clients must have (mTLS). log_format: of what is logged on stderr; access_log: where a line for each request
    goes; traces: whether OpenTelemetry is told of requests. What has a description is a limit; what goes beyond it is refused, and the
    refusal names the setting.
    """

    host: str = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65535)] = 6570
    workers: Annotated[Whole, Field(ge=1)] = 1
    authentication: Literal["required", "off"] = "required"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    log_format: Literal["text", "json"] = "text"
    access_log: Literal["off", "stdout", "stderr"] = "off"
    traces: Literal["off", "otlp"] = "off"
    when_unavailable: Literal["raise", "defaults"] = "raise"
    hosts: Annotated[
        tuple[Annotated[str, AfterValidator(_host_name)], ...],
        Field(
            description="names of this machine, beside localhost, that a request over a loopback address may be sent to"
        ),
    ] = ()
    body_bytes: Annotated[Size, Field(description="bytes of a request's body")] = 16 << 20
    row_bytes: Annotated[Size, Field(description="bytes of one row, and of what a body has beside its rows")] = (
        128 << 10
    )
    manifest_bytes: Annotated[Size, Field(description="bytes of a manifest that is compared")] = 1 << 20
    lookup_rows: Annotated[Size, Field(description="rows of a lookup")] = 10_000
    push_rows: Annotated[Size, Field(description="rows of a push")] = 10_000
    features: Annotated[Size, Field(description="names in the list of features of a lookup")] = 1_000
    key_bytes: Annotated[Size, Field(description="bytes of a text in an entity's key, or in an identity")] = 1_024
    answer_bytes: Annotated[Size, Field(description="bytes of an answer to a lookup")] = 32 << 20
    header_bytes: Annotated[Size, Field(description="bytes of a request's head: its line and its headers")] = 16 << 10
    lookup_seconds: Annotated[
        Seconds, Field(description="seconds in which a lookup is answered, however often the online store is tried")
    ] = 10.0
    request_seconds: Annotated[Seconds, Field(description="seconds from a request's first byte to its last")] = 20.0
    idle_seconds: Annotated[Seconds, Field(description="seconds for which a connection is kept that sends nothing")] = (
        75.0
    )
    answer_seconds: Annotated[
        Seconds, Field(description="seconds for which an answer is sent to a client that is slow to take it")
    ] = 60.0
    connections: Annotated[Size, Field(description="connections of a process")] = 1_000
    requests: Annotated[Size, Field(description="requests of a process that are under way")] = 500
    bytes_in_flight: Annotated[
        Size, Field(description="bytes of large bodies and answers of a process that are under way")
    ] = 64 << 20

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
    """Whose JSON Web Tokens the service takes; without jwks nobody's. jwks: the issuer's keys, an https URL or a file. audience: whom tokens must be for.
    scopes: the issuer's words → ours, where they are not ours. only_claim: the claim with what a token is limited to, as
    "service:NAME", "view:NAME" and "source:NAME"."""

    jwks: Annotated[str, AfterValidator(_key_set)] | None = None
    issuer: str | None = None
    audience: Annotated[tuple[str, ...], BeforeValidator(_one_or_several), Field(min_length=1)] = ()
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0
    name_claim: str = "sub"
    scopes_claim: str = "scope"
    scopes: dict[str, tuple[Literal["read", "push", "materialize", "metrics", "admin"], ...]] = {}
    only_claim: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.model_fields_set and not (self.jwks and self.issuer and self.audience):
            raise ValueError("must have jwks, issuer and audience")
        return self
