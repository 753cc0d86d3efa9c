"""Who sees the console: nobody sees anything but a form until he has signed in, and a session opens no more than its key."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import httpx
import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key, revoke_key
from featurestore.access.sessions import LASTS_SECONDS, SESSION_SECRET, Sessions
from featurestore.console.site_map import PAGES
from featurestore.errors import ConfigError
from tests.console_pages.pages import HOSTILE, checked, read
from tests.server.test_http import serving

FORM = {"content-type": "application/x-www-form-urlencoded"}
SECRET = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def asked(store: FeatureStore) -> Iterator[httpx.Client]:
    """A client of a server that wants keys."""
    before = os.environ.get(SESSION_SECRET)
    os.environ[SESSION_SECRET] = SECRET
    try:
        with serving(store, authentication=True) as client:
            yield client
    finally:
        if before is None:
            del os.environ[SESSION_SECRET]
        else:
            os.environ[SESSION_SECRET] = before


@pytest.fixture
def browser(asked: httpx.Client) -> Iterator[httpx.Client]:
    """A browser without cookies, which says where its forms are from."""
    origin = f"http://127.0.0.1:{asked.base_url.port}"
    with httpx.Client(base_url=asked.base_url, headers={"origin": origin}, timeout=600) as browser:
        yield browser


def sign_in(browser: httpx.Client, key: str, then: str = "/ui") -> httpx.Response:
    return browser.post("/ui/login", data={"key": key, "then": then})


@pytest.mark.parametrize("kind", [page.kind for page in PAGES])
def test_a_stranger_sees_only_the_form(browser: httpx.Client, kind: str) -> None:
    """Of no page, and of nothing that there is not, he learns anything: each is the same form."""
    named = next(page for page in PAGES if page.kind == kind).is_named
    for address in (f"/ui/{kind}".rstrip("/") + ("/model" if named else ""), "/ui/nowhere"):
        answer = browser.get(address, params={"q": "things"})
        assert answer.status_code == 401
        page = read(answer)
        assert page.links() == [f"{address}?q=things"]
        for word in ("console", "things", "clicks", "model", "alert"):
            assert word not in page.text
    for said in ("csv", "json"):
        answer = browser.get(f"/ui/{kind}", params={"format": said})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


def test_a_key_opens_the_console(browser: httpx.Client, store: FeatureStore) -> None:
    """By a session that no script reads, that goes to no other site, and that is not the key; signing out ends it."""
    made = create_key(store.registry, "reader", ["read"])
    answer = sign_in(browser, made.secret, "/ui/catalog?q=a%20b")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/catalog?q=a%20b")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/ui", f"Max-Age={LASTS_SECONDS}"} <= set(cookie.split("; "))
    assert made.secret not in cookie
    assert made.secret.rpartition("_")[2] not in cookie
    page = read(browser.get("/ui/catalog"))
    assert "key:reader" in page.text
    out = browser.post("/ui/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/ui")
    assert browser.get("/ui/catalog").status_code == 401


def test_a_session_ends_with_its_key(browser: httpx.Client, store: FeatureStore) -> None:
    made = create_key(store.registry, "short", ["read"])
    sign_in(browser, made.secret)
    assert browser.get("/ui").status_code == 200
    revoke_key(store.registry, "short")
    deadline = time.monotonic() + 600
    while browser.get("/ui").status_code == 200:  # servers look at the keys once a second
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert browser.get("/ui").status_code == 401


@pytest.mark.parametrize("key", ["", "x", "fsk_0123456789ab_" + "x" * 43, HOSTILE, "fsk_" + "a" * 3_000])
def test_a_wrong_key_opens_nothing(browser: httpx.Client, key: str) -> None:
    """And is not told again."""
    answer = sign_in(browser, key)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    page = read(answer)
    assert "key" in page.text
    assert not key or key not in answer.text
    assert browser.get("/ui").status_code == 401


def test_a_key_without_read_sees_nothing(browser: httpx.Client, store: FeatureStore) -> None:
    made = create_key(store.registry, "pusher", ["push"])
    answer = sign_in(browser, made.secret)
    assert answer.status_code == 403
    assert "takes the scope 'read'" in read(answer).text
    assert "set-cookie" not in answer.headers
    assert browser.get("/ui", headers={"x-api-key": made.secret}).status_code == 403


def test_a_limited_key_signs_in_and_is_told_its_limits(browser: httpx.Client, store: FeatureStore) -> None:
    """Each page says what it leaves out, and the navigation has nothing for administrators."""
    made = create_key(store.registry, "part", ["read"], only_on=["service:model"])
    assert sign_in(browser, made.secret).status_code == 303
    page = read(browser.get("/ui"))
    assert "key:part is limited to service 'model'" in page.text
    assert "/ui/catalog" in page.links()
    assert not {"/ui/keys", "/ui/activity"} & {*page.links()}
    assert "limited to" in browser.get("/ui/catalog", params={"format": "json"}).json()["left_out"]


def test_programs_bring_their_key_as_elsewhere(browser: httpx.Client, store: FeatureStore) -> None:
    """Their refusals are problems, and no forms."""
    made = create_key(store.registry, "program", ["read"])
    answer = browser.get("/ui/catalog", params={"format": "json"}, headers={"authorization": f"Bearer {made.secret}"})
    assert answer.json()["title"] == "Catalog"
    wrong = browser.get("/ui", headers={"x-api-key": "nothing"})
    assert (wrong.status_code, wrong.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_page_is_not_taken(asked: httpx.Client, store: FeatureStore, headers: dict[str, str]) -> None:
    """Nor one that does not say where it is from."""
    with httpx.Client(base_url=asked.base_url, timeout=600) as elsewhere:
        for address in ("/ui/login", "/ui/logout"):
            answer = elsewhere.post(address, data={"key": "x"}, headers=headers)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers


def test_only_forms_are_posted(browser: httpx.Client) -> None:
    """And nothing but the two that there are; a large one is refused before it is read."""
    assert browser.post("/ui/login", content=b"key=x", headers={"content-type": "text/plain"}).status_code == 415
    assert browser.post("/ui", data={"a": "b"}).status_code == 405
    assert browser.post("/ui/catalog", data={"a": "b"}).status_code == 405
    assert browser.request("DELETE", "/ui/catalog").status_code == 405
    assert browser.post("/ui/login", data={"key": "x" * 10_000}).status_code == 413


@pytest.mark.parametrize(
    "then",
    ["", "https://evil.example", "//evil.example", "/\\evil.example", "/ui/../v1/push", "/uix", "/v1/services", "/ui/login", "/ui/logout",
     "/ui\r\nset-cookie: a=b", "javascript:alert(1)", "/ui/../../x", "/ui/%2e%2e/docs", "/ui/x/%2E./docs", "/ui/%6cogin"],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(browser: httpx.Client, store: FeatureStore, then: str) -> None:
    made = create_key(store.registry, f"k{abs(hash(then))}", ["read"])
    answer = sign_in(browser, made.secret, then)
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui")


def test_a_cookie_that_others_put_there_locks_nobody_out(browser: httpx.Client, store: FeatureStore) -> None:
    """Another port of this host, or another host of its domain, may put some beside the session, before it or after."""
    made = create_key(store.registry, "beside", ["read"])
    session = sign_in(browser, made.secret).headers["set-cookie"].partition(";")[0]
    name = session.partition("=")[0]
    browser.cookies.clear()
    for cookies in (f"{name}=x; {session}", f"{session}; {name}=x", f"{name}=; a=b; {session}"):
        assert browser.get("/ui", headers={"cookie": cookies}).status_code == 200
    assert browser.get("/ui", headers={"cookie": f"{name}=x; {name}=y"}).status_code == 401


def test_where_tls_ends_before_us_the_cookie_is_for_tls_alone(asked: httpx.Client, store: FeatureStore) -> None:
    """The browser says so, by where its form is from."""
    made = create_key(store.registry, "tls", ["read"])
    for scheme, is_secure in (("https", True), ("http", False)):
        origin = f"{scheme}://127.0.0.1:{asked.base_url.port}"
        with httpx.Client(base_url=asked.base_url, headers={"origin": origin}, timeout=600) as browser:
            for answer in (sign_in(browser, made.secret), browser.post("/ui/logout")):
                assert ("Secure" in answer.headers["set-cookie"].split("; ")) == is_secure


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_page_is_made_beside_one_of_another_site(client: httpx.Client, site: str) -> None:
    """As a picture, a script or a frame, by whoever is at this machine; a link may be followed."""
    for mode, destination in (("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")):
        said = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": destination}
        for address in ("/ui/audit?since=1d&run=1", "/ui", "/ui/files/htmx.min.js"):
            assert client.get(address, headers=said).status_code == 403
    link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/ui", headers=link).status_code == 200
    own = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    assert client.get("/ui", headers=own).status_code == 200


def test_sessions_are_signed() -> None:
    """A changed one, an old one and one of another secret are none; a short secret is refused."""
    now = [1_000.0]
    sessions = Sessions(SECRET, now=lambda: now[0])
    session = sessions.signed("0123456789ab")
    assert sessions.key_of(session) == "0123456789ab"
    key, until, signature = session.split(".")
    for wrong in (
        f"0123456789ac.{until}.{signature}", f"{key}.{int(until) + 1}.{signature}", f"{key}.{until}.{'0' * 64}", "", "a.b.c",
        session + " ", session.upper(),
    ):  # fmt: skip
        assert sessions.key_of(wrong) is None
    assert Sessions(SECRET[::-1], now=lambda: now[0]).key_of(session) is None
    now[0] += LASTS_SECONDS - 1
    assert sessions.key_of(session) == "0123456789ab"
    now[0] += 1
    assert sessions.key_of(session) is None
    with pytest.raises(ConfigError, match="31 characters"):
        Sessions("x" * 31)


def test_without_authentication_nobody_signs_in(client: httpx.Client) -> None:
    """On this machine alone, as everywhere; there is no button to sign out either."""
    page = read(client.get("/ui"))
    assert not [form for form in page.all("form") if form.get("method") == "post"]
    assert checked(client.get("/ui/login").text).text == checked(client.get("/ui").text).text


def test_a_server_may_have_no_console(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("without")
    (folder / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[server]\nconsole = "off"\n')
    with FeatureStore(folder) as store, serving(store) as client:
        assert client.get("/ui").status_code == 404
