"""No password is shown, however it is spelled: in a configuration's repr and dumps, and in every error on the way to the store."""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from featurestore.config import Config, load_config
from featurestore.errors import FeatureStoreError
from featurestore.hidden import hidden
from featurestore.online import open_online
from tests.draws import draws

SPELLINGS = (
    "redis://:{}@host:6379/0",
    "rediss://user:{}@host:6379/0?timeout=5",
    "redis://us@er:{}@host/0",
    "redis://host:6379/0?password={}",
    "redis://host:6379/0?timeout=5&password={}",
    "redis://host/0?PASSWORD={}&timeout=5",
    "unix://:{}@/run/redis.sock",
    "unix:///run/redis.sock?db=0&password={}",
    "redis+socket://user:{}@/run/redis.sock",
    "postgresql://user:{}@host/db",
    "lmdb://online?token={}",
)
BARE = ("user:{}@host/table", "s3://key:{}@bucket/rows/*.parquet", "https://host/rows.parquet?sig=1&access_token={}")

FIRST, LAST = "hunter", "tusker"
between = st.text(st.sampled_from("/?#@:;&=%+$!.,-_~[](){}|^*'<> aé0"), max_size=6)
passwords = between.map(lambda text: f"{FIRST}{text}{LAST}")


def written(text: str) -> str:
    """Text in quotes, as TOML has it."""
    escaped = "".join(f"\\u{ord(c):04x}" if c in '"\\' or ord(c) < 32 else c for c in text)
    return f'"{escaped}"'


def shows_nothing(text: str) -> None:
    assert FIRST not in text
    assert LAST not in text


def told(error: BaseException) -> str:
    """An error with all that it was raised from, as a traceback shows it."""
    lines = traceback.format_exception(error)
    return "".join([line for line in lines if not line.lstrip().startswith("File ")])


@settings(max_examples=draws(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    passwords,
    st.sampled_from(SPELLINGS),
    st.sampled_from(BARE),
    st.sampled_from(("written", "variable", "default", "part")),
)
def test_no_spelling_of_a_password_is_shown(password: str, online: str, source: str, how: str) -> None:
    """Whether it is written, is what a variable holds, is its default or stands beside one."""
    os.environ["FS_HIDDEN"] = password
    plain = password.replace("{", "(").replace("}", ")").replace("$", "s")
    put = {
        "written": plain, "variable": "${FS_HIDDEN}", "default": f"${{FS_UNSET:-{plain}}}", "part": f"{plain}${{FS_HIDDEN}}",
    }[how]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        text = (
            f"project = 'a'\nonline = {written(online.format(put))}\n[sources]\nrows = {written(source.format(put))}\n"
        )
        Path(folder, "featurestore.toml").write_text(text, encoding="utf-8")
        config = load_config(folder)
    assert FIRST in config.online
    for one in (
        config,
        copy.copy(config),
        pickle.loads(pickle.dumps(config)),
        config.model_copy(update={"compact_after": 0}),
    ):
        for shown in (repr(one), str(one), f"{one}", one.model_dump_json(), str(one.model_dump())):
            shows_nothing(shown)
    bare = Config(**{name: getattr(config, name) for name in Config.model_fields})
    shows_nothing(repr(bare) + bare.model_dump_json())
    try:
        open_online(config.online).close()
    except FeatureStoreError as error:
        shows_nothing(told(error))


@pytest.mark.parametrize("spelling", [*SPELLINGS, *BARE])
def test_the_rest_stays_readable(spelling: str) -> None:
    """Where it is, and the name of a variable that holds it."""
    assert hidden(spelling.format("hunter2")) == spelling.format("***").replace("***&timeout=5", "***")
    assert hidden(spelling.format("${PW}")).startswith(spelling.partition("{}")[0].partition("&timeout")[0])


@pytest.mark.parametrize(
    "text", ["data/a.parquet", "/data/x@y.parquet", "lmdb:///srv/online", "redis://host:6379/0", ""]
)
def test_what_has_no_password_is_shown_as_it_is(text: str) -> None:
    """Places, patterns and URLs."""
    assert hidden(text) == text


def test_an_invalid_configuration_shows_no_input() -> None:
    """Made without a file too."""
    with pytest.raises(ValidationError) as caught:
        Config(project="a", registry="r", online=f"no url of {FIRST}", logs=7, offline={}, serving_log={}, root=".")  # type: ignore[arg-type]  # the mistake
    shows_nothing(str(caught.value))
