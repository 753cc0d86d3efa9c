"""Tokens that were really signed, verified by a key set that is really served."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from jwt.algorithms import get_default_algorithms
from jwt.warnings import InsecureKeyLengthWarning

from featurestore.access import json_web_tokens
from featurestore.access.json_web_tokens import REFETCH_SECONDS, RENEW_SECONDS, Tokens
from featurestore.access.principal import Principal
from featurestore.access.reread import waited
from featurestore.errors import AccessUnavailableError, UnauthenticatedError
from featurestore.settings import JwtConfig
from tests.access.issuer import AUDIENCE, ISSUER, KeySetServer, SigningKey, unsigned
from tests.servers import Front

KEY = SigningKey("k1")


class Seconds:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[KeySetServer]:
    with KeySetServer(KEY) as server:
        yield server


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def tokens(issuer: KeySetServer, seconds: Seconds) -> Tokens:
    return tokens_of(issuer.url, seconds)


def tokens_of(jwks: str, clock: Any = time.monotonic, **more: Any) -> Tokens:
    return Tokens(JwtConfig(jwks=jwks, issuer=ISSUER, audience=(AUDIENCE,), **more), clock=clock)


def why(tokens: Tokens, text: str) -> str:
    """Why a token is refused; nothing of it is in the message."""
    with pytest.raises(UnauthenticatedError) as caught:
        waited(tokens.principal(text))
    for said in (str(caught.value), caught.value.challenge):
        assert not any(len(part) > 8 and part in said for part in text.split("."))
    assert caught.value.challenge.startswith('Bearer realm="featurestore", error="invalid_token"')
    return str(caught.value).removeprefix("The token is not taken: ")


def test_a_token_of_the_issuer_names_who_asks(tokens: Tokens, issuer: KeySetServer) -> None:
    """One fetch of the key set is enough for any number of them."""
    assert tokens.at_once(KEY.token()) is None  # the key set was never fetched
    assert waited(tokens.principal(KEY.token(scope="read push"))) == Principal("jwt:ann", frozenset({"read", "push"}))
    assert tokens.at_once(KEY.token(sub="bob", scope=["read", 3])) == Principal("jwt:bob", frozenset({"read"}))
    assert waited(tokens.principal(KEY.token(aud=["other", AUDIENCE]))).name == "jwt:ann"
    assert waited(tokens.principal(KEY.token(scope="openid delete"))).scopes == frozenset()
    assert waited(tokens.principal(KEY.token(sub=None, client_id="robot"))).name == "jwt:robot"
    assert waited(tokens.principal(KEY.token(sub="a\r\nb\x1b"))).name == "jwt:a??b?"
    assert issuer.asked == 1


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES384", "ES512", "EdDSA"])
def test_every_allowed_algorithm_is_verified(tmp_path: Path, algorithm: str) -> None:
    """Also where the key set does not say the algorithm of its keys, and where it is a file."""
    file = tmp_path / "keys.json"
    for published in ({}, {"alg": None}):
        key = SigningKey("k", algorithm, **published)
        file.write_text(json.dumps({"keys": [{name: value for name, value in key.jwk.items() if value is not None}]}))
        assert waited(tokens_of(str(file), algorithms=[algorithm]).principal(key.token())).name == "jwt:ann"
        assert why(tokens_of(str(file), algorithms=["RS512"]), key.token()) == "its algorithm is none of RS512"


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"exp": 1}, "it has expired"),
        ({"exp": None}, "it has no claim exp"),
        ({"exp": "soon"}, "it cannot be read"),
        ({"exp": 1e400}, "its claims cannot be read"),
        ({"nbf": 4e9}, "it is not valid yet"),
        ({"aud": "another"}, "it is for another audience"),
        ({"aud": None}, "it has no claim aud"),
        ({"iss": "https://issuer.example"}, "it is of another issuer"),  # less one slash
        ({"iss": None}, "it has no claim iss"),
        ({"sub": None}, "it has no claim sub, which would name the principal"),
        ({"padding": "x" * 9000}, "it is longer than 8192 bytes"),
    ],
)
def test_a_token_that_says_something_else_is_refused(tokens: Tokens, claims: dict[str, Any], says: str) -> None:
    if claims.get("exp") == 1e400:
        text = unsigned({"alg": "ES256", "kid": "k1"}, {"exp": float("inf")})
        says = "its signature is wrong"
    else:
        text = KEY.token(**claims)
    assert why(tokens, text) == says


def test_clocks_may_differ_by_the_leeway(issuer: KeySetServer) -> None:
    now = int(time.time())
    for leeway, late, taken in ((200, 100, True), (0, 100, False), (50, 100, False)):
        tokens = tokens_of(issuer.url, leeway_seconds=leeway)
        cases: list[dict[str, Any]] = [{"exp": now - late}, {"nbf": now + late}]
        for claims in cases:
            if taken:
                assert waited(tokens.principal(KEY.token(**claims))).name == "jwt:ann"
            else:
                assert why(tokens, KEY.token(**claims)) in {"it has expired", "it is not valid yet"}


def public_pem(key: SigningKey) -> bytes:
    return key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_no_forged_token_is_taken(issuer: KeySetServer) -> None:
    """None, a shared secret that is the public key, another's signature, a changed claim, a key that the token brings."""
    rsa, other = SigningKey("rsa", "RS256"), SigningKey("k1")
    issuer.keys.append(rsa)
    tokens = tokens_of(issuer.url)
    claims = jwt.decode(KEY.token(), options={"verify_signature": False})
    assert why(tokens, unsigned({"alg": "none", "kid": "k1"}, claims)) == "its algorithm is none of RS256, ES256"
    assert why(tokens, unsigned({"alg": "None"}, claims)) == "its algorithm is none of RS256, ES256"
    begin = unsigned({"alg": "HS256", "kid": "rsa", "typ": "JWT"}, claims).removesuffix(".")
    forged = hmac.new(public_pem(rsa), begin.encode(), hashlib.sha256).digest()
    text = unsigned({"alg": "HS256", "kid": "rsa", "typ": "JWT"}, claims, forged)
    assert why(tokens, text) == "its algorithm is none of RS256, ES256"
    assert why(tokens, other.token()) == "its signature is wrong"
    head, _, sign = KEY.token().split(".")
    changed = unsigned({}, {**claims, "scope": "admin"}).split(".")[1]
    assert why(tokens, f"{head}.{changed}.{sign}") == "its signature is wrong"
    assert why(tokens, other.token(header={"jwk": other.jwk, "jku": "http://127.0.0.1:1/"})) == "its signature is wrong"
    assert why(tokens, rsa.token(header={"kid": "k1"}, algorithm="RS256")).startswith("its key is not one")
    assert why(tokens, KEY.token(header={"crit": ["odd"], "odd": 1})) == "it cannot be read"
    for text in (
        "",
        "a",
        "a.b.c",
        "...",
        unsigned({"alg": ["ES256"]}, claims),
        unsigned({"alg": "ES256", "kid": 3}, claims),
    ):
        why(tokens, text)


def test_keys_that_must_not_verify_are_not_used(issuer: KeySetServer) -> None:
    """A shared secret, a private key that was published, a key to encrypt with, an RSA key that is too short."""
    secret = {"kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256"}
    short, coding = SigningKey("short", "RS256", bits=1024), SigningKey("coding", use="enc")
    operating, private = SigningKey("ops", key_ops=["encrypt"]), SigningKey("private", d="AA")
    issuer.keys = [short, coding, operating, private]
    issuer.body = json.dumps({"keys": [secret, "odd", {}, *(key.jwk for key in issuer.keys)]}).encode()
    tokens = tokens_of(issuer.url)
    for key in issuer.keys:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureKeyLengthWarning)  # of who signs with the short one
            text = key.token()
        assert why(tokens, text) == "its key is not one that its issuer publishes"


def test_a_token_without_a_key_s_id_is_taken_where_there_is_one_key(issuer: KeySetServer) -> None:
    text = jwt.encode(jwt.decode(KEY.token(), options={"verify_signature": False}), KEY.private, "ES256")
    assert waited(tokens_of(issuer.url).principal(text)).name == "jwt:ann"
    issuer.keys.append(SigningKey("k2"))
    assert why(tokens_of(issuer.url), text) == "its key is not one that its issuer publishes"


def test_an_issuer_that_answers_byte_by_byte_is_given_up(issuer: KeySetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the last of them long after the issuer was to have answered."""
    monkeypatch.setattr("featurestore.access.json_web_tokens.FETCH_SECONDS", 0.5)
    port = int(issuer.url.rpartition(":")[2].partition("/")[0])
    with Front(port) as front, front.trickling(0.05), pytest.raises(AccessUnavailableError, match="does not answer"):
        waited(tokens_of(f"http://127.0.0.1:{front.port}/keys").principal(KEY.token()))


def test_a_new_key_is_fetched_once_and_whatever_clients_send_no_more_often(
    tokens: Tokens, issuer: KeySetServer, seconds: Seconds
) -> None:
    """The issuer changes its key: the first token of the new one has the set fetched. A thousand of unknown keys do not."""
    waited(tokens.principal(KEY.token()))
    assert issuer.asked == 1
    new = SigningKey("k2")
    issuer.keys.append(new)
    seconds.now += REFETCH_SECONDS
    assert tokens.at_once(new.token()) is None  # it must be fetched
    assert waited(tokens.principal(new.token())).name == "jwt:ann"
    assert issuer.asked == 2
    for number in range(50):
        why(tokens, SigningKey(f"x{number}").token())
        with pytest.raises(UnauthenticatedError):
            tokens.at_once(KEY.token(header={"kid": f"y{number}"}))
    assert issuer.asked == 2
    seconds.now += REFETCH_SECONDS
    why(tokens, SigningKey("x").token())
    assert issuer.asked == 3


def test_a_key_that_its_issuer_withdrew_opens_nothing(tokens: Tokens, issuer: KeySetServer, seconds: Seconds) -> None:
    """From the next fetch on, which is due after five minutes; remembered tokens do not outlive their key."""
    text = KEY.token()
    waited(tokens.principal(text))
    issuer.keys = [SigningKey("k2")]
    seconds.now += RENEW_SECONDS
    tokens.at_once(text)  # has it fetched, beside
    deadline = time.monotonic() + 600
    while issuer.asked < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    while time.monotonic() < deadline:
        try:
            waited(tokens.principal(text))
        except UnauthenticatedError:
            return
    raise AssertionError("the token of a withdrawn key is taken")


def test_a_remembered_token_expires(issuer: KeySetServer) -> None:
    at = [time.time()]
    tokens = Tokens(
        JwtConfig(jwks=issuer.url, issuer=ISSUER, audience=(AUDIENCE,), leeway_seconds=0), now=lambda: at[0]
    )
    text = KEY.token(exp=int(at[0]) + 100)
    waited(tokens.principal(text))
    kept = tokens._verified[text]
    at[0] += 101
    waited(tokens.principal(text))  # by the true clock it is valid yet: it was verified again, and not only remembered
    assert tokens._verified[text] is not kept


def test_no_more_tokens_are_remembered_than_a_bound(issuer: KeySetServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_web_tokens, "VERIFIED", 3)
    tokens = tokens_of(issuer.url)
    for number in range(10):
        waited(tokens.principal(KEY.token(sub=str(number))))
    assert [principal.name for _, _, principal in tokens._verified.values()] == ["jwt:7", "jwt:8", "jwt:9"]


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (500, b"", "its issuer answered 500"),
        (302, b"", "its issuer answered 302"),
        (200, b"<html>", "it is no JSON"),
        (200, b"[]", "it is no JSON Web Key Set"),
        (200, b" " * (1 << 20) + b"{}", "it is longer than"),
        (200, b"[" * 100_000, "it is no JSON"),
    ],
)
def test_an_issuer_that_answers_nonsense_is_not_taken_for_one_without_keys(
    issuer: KeySetServer, status: int, body: bytes, says: str
) -> None:
    """Nor followed to where it points."""
    issuer.status, issuer.body, issuer.location = status, body, issuer.url
    tokens = tokens_of(issuer.url)
    with pytest.raises(AccessUnavailableError, match=says) as caught:
        waited(tokens.principal(KEY.token()))
    assert caught.value.retry
    assert issuer.asked == 1


def test_an_issuer_that_is_down_is_asked_seldom_and_its_last_keys_count_for_an_hour(
    tokens: Tokens, issuer: KeySetServer, seconds: Seconds
) -> None:
    waited(tokens.principal(KEY.token()))
    issuer.status = 500
    seconds.now += 3599
    assert waited(tokens.principal(KEY.token(sub="bob"))).name == "jwt:bob"
    seconds.now += 20
    for _ in range(20):
        with pytest.raises(AccessUnavailableError):
            waited(tokens.principal(KEY.token()))
    assert issuer.asked <= 3
    issuer.status = 200
    seconds.now += REFETCH_SECONDS
    assert waited(tokens.principal(KEY.token())).name == "jwt:ann"


def test_no_issuer_is_there(seconds: Seconds) -> None:
    with KeySetServer(KEY) as server:
        url = server.url
    with pytest.raises(AccessUnavailableError, match="its issuer does not answer"):
        waited(tokens_of(url, seconds).principal(KEY.token()))


def test_a_file_of_keys_is_read_anew(tmp_path: Path, seconds: Seconds) -> None:
    file, new = tmp_path / "keys.json", SigningKey("k2")
    file.write_text(json.dumps({"keys": [KEY.jwk]}))
    tokens = tokens_of(str(file), seconds)
    waited(tokens.principal(KEY.token()))
    file.write_text(json.dumps({"keys": [new.jwk]}))
    seconds.now += 2
    assert waited(tokens.principal(new.token())).name == "jwt:ann"
    assert why(tokens, KEY.token()) == "its key is not one that its issuer publishes"


def test_claims_are_read_as_the_configuration_says(issuer: KeySetServer) -> None:
    """Words of the issuer's own, in a claim of its own, and what a token is limited to."""
    scopes = {"features.reader": ("read",), "features.all": ("read", "push")}
    tokens = tokens_of(issuer.url, scopes_claim="roles", scopes=scopes, name_claim="email", only_claim="only")
    text = KEY.token(roles=["features.all"], email="ann@example.org", only=["service:a", "odd", "x:y"])
    expected = Principal("jwt:ann@example.org", frozenset({"read", "push"}), frozenset({"service:a"}))
    assert waited(tokens.principal(text)) == expected
    nothing = waited(tokens.principal(KEY.token(roles=["admin"], scope="admin", email="ann@example.org")))
    assert (nothing.scopes, nothing.only_on) == (frozenset(), frozenset())


ODD = [
    10**400,
    -(10**400),
    10**4000,
    1e308,
    float("inf"),
    float("nan"),
    True,
    "",
    "x",
    "9" * 5000,
    "99999999999",
    [],
    [1],
    {},
]


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat", "iss", "aud", "sub", "jti", "email"])
def test_a_claim_that_is_none_of_its_kind_is_refused(issuer: KeySetServer, claim: str) -> None:
    """Properly signed, with another type or a number out of all bounds: 401, and never an error of Python's own."""
    tokens = tokens_of(issuer.url, name_claim="email")
    texts = {"jti", "sub", "email"}
    for odd in ODD:
        if claim in texts and isinstance(odd, str):  # any text is one
            continue
        if claim == "email" and not odd:  # as though it were not there
            continue
        why(tokens, signed({"email": "ann", claim: odd}))
    if claim in {"exp", "nbf", "iat"}:
        assert why(tokens, signed({"email": "ann", claim: -1 if claim != "exp" else 10**400})) == (
            f"its claim {claim} is no time in seconds"
        )


@pytest.mark.parametrize("claim", ["scope", "only"])
def test_a_claim_of_words_that_has_none_allows_nothing(issuer: KeySetServer, claim: str) -> None:
    tokens = tokens_of(issuer.url, only_claim="only")
    for odd in [*ODD, [10**400, ["read"], None], {"read": 1}]:
        found = waited(tokens.principal(signed({"only": "service:a", claim: odd})))
        assert not (found.scopes if claim == "scope" else found.only_on)


def test_a_key_s_id_that_is_no_text_is_refused(tokens: Tokens) -> None:
    for odd in ODD:
        if odd != "":
            why(tokens, signed({}, {"kid": odd}))


def signed(claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    """A token with a right signature, whatever its claims are: no library looks at them here."""
    heads = {"alg": "ES256", "kid": KEY.kid, **(header or {})}
    every = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 300, "scope": "read", **claims}
    text = unsigned(heads, every).rpartition(".")[0]
    algorithm = get_default_algorithms()["ES256"]
    signature = algorithm.sign(text.encode(), algorithm.prepare_key(KEY.private))
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
