"""featurestore.toml: what it may say, what is made of it, and what every mistake is told."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest

from featurestore.config import Config, load_config
from featurestore.errors import ConfigError
from tests.configuration_reference import PAGE, reference

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "featurestore.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_a_project_is_all_that_must_be_given(write):
    """Everything else has a default, beside the file."""
    root = write('project = "flights"')
    config = load_config(root)
    assert config.project == "flights"
    assert config.registry == root / ".featurestore/registry.db"
    assert config.online == f"lmdb://{root}/.featurestore/online"
    assert config.definitions is None
    assert (config.sources, config.environment, config.root) == ({}, None, root)
    assert (config.offline.memory_limit, config.offline.threads, config.offline.spill) == (None, None, None)
    assert (config.server.host, config.server.port, config.server.workers) == ("127.0.0.1", 6570, 1)


def test_a_folder_and_its_file_are_the_same(write):
    """`path` is a folder or the file in it, as a Path or as text."""
    root = write('project = "flights"')
    assert load_config(root) == load_config(root / "featurestore.toml") == load_config(str(root))


@pytest.mark.parametrize(
    ("line", "key", "expected"),
    [
        ('registry = "r.db"', "registry", "{root}/r.db"),
        ('registry = "../r.db"', "registry", "{parent}/r.db"),
        ('registry = "/var/r.db"', "registry", "/var/r.db"),
        ('registry = "sqlite:///r.db"', "registry", "{root}/r.db"),
        ('registry = "sqlite:////var/r.db"', "registry", "/var/r.db"),
        ('registry = "postgresql://db:5432/features"', "registry", "postgresql://db:5432/features"),
        ('registry = "postgres://db"', "registry", "postgres://db"),
        ('online = "lmdb://online"', "online", "lmdb://{root}/online"),
        ('online = "lmdb:///var/online"', "online", "lmdb:///var/online"),
        ('online = "lmdb://online?map_size=64GiB"', "online", "lmdb://{root}/online?map_size=64GiB"),
        ('online = "redis://localhost:6379/0"', "online", "redis://localhost:6379/0"),
        ('offline = {spill = "spill"}', "offline.spill", "{root}/spill"),
        ('sources = {a = "data/*.parquet"}', "sources.a", "{root}/data/*.parquet"),
        ('sources = {a = "/data/a.parquet"}', "sources.a", "/data/a.parquet"),
        ('sources = {a = "s3://bucket/a.parquet"}', "sources.a", "s3://bucket/a.parquet"),
    ],
)
def test_relative_paths_are_relative_to_the_file(write, monkeypatch, line, key, expected):
    """Wherever the program runs, in URLs too."""
    root = write(f'project = "flights"\n{line}')
    monkeypatch.chdir("/")
    value = load_config(root)
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    assert str(value) == expected.format(root=root, parent=root.parent)


def test_a_relative_path_to_the_file_still_makes_absolute_paths(write, monkeypatch):
    """The folder is made absolute when the file is read, so that a later chdir changes nothing."""
    root = write('project = "flights"')
    monkeypatch.chdir(root)
    assert load_config(".").registry == root / ".featurestore/registry.db"


ENVIRONMENTS = """
project = "flights"
online = "redis://${FS_UNSET}"
definitions = ["a.py", "b.py"]
[server]
port = 1
host = "0.0.0.0"
[sources]
a = "a.parquet"
b = "b.parquet"
[env.prod]
project = "prod"
online = "redis://prod"
definitions = ["c.py"]
[env.prod.server]
port = 2
[env.prod.sources]
b = "c.parquet"
"""


def test_an_environment_is_merged_over_the_rest_table_by_table(write):
    """Keys that it does not name stay, lists are replaced, and a variable that it replaces need not be set."""
    root = write(ENVIRONMENTS)
    config = load_config(root, "prod")
    assert (config.project, config.online, config.environment) == ("prod", "redis://prod", "prod")
    assert (config.server.port, config.server.host) == (2, "0.0.0.0")
    assert config.sources == {"a": f"{root}/a.parquet", "b": f"{root}/c.parquet"}
    assert config.definitions == ("c.py",)
    with pytest.raises(ConfigError, match=r"online: the environment variable FS_UNSET is not set"):
        load_config(root)


def test_variables_stand_anywhere_in_a_text(write, monkeypatch):
    """`${VAR}`, `${VAR:-default}` (also where it is empty), several in one text, in lists, tables and numbers."""
    monkeypatch.setenv("FS_A", "alpha")
    monkeypatch.setenv("FS_PORT", "99")
    monkeypatch.setenv("FS_EMPTY", "")
    root = write("""
        project = "${FS_A}_${FS_NONE:-x}${FS_EMPTY}"
        definitions = ["${FS_A}/*.py"]
        online = "redis://${FS_EMPTY:-host}/$${FS_A}"
        sources = {a = "${FS_A}.parquet"}
        server = {port = "${FS_PORT}"}
        offline = {threads = "${FS_THREADS:-3}"}
    """)
    config = load_config(root)
    assert config.project == "alpha_x"
    assert config.definitions == ("alpha/*.py",)
    assert config.online == "redis://host/${FS_A}"
    assert config.sources == {"a": f"{root}/alpha.parquet"}
    assert (config.server.port, config.offline.threads) == (99, 3)


SECRETS = """
project = "flights"
registry = "${FS_SECRET}/r.db"
online = "rediss://user:${FS_SECRET}@host:6379/0"
definitions = ["*.py", "${FS_SECRET}.py"]
sources = {a = "${FS_SECRET}.parquet", b = "b.parquet"}
server = {host = "${FS_SECRET}", port = "${FS_PORT}"}
offline = {memory_limit = "${FS_SECRET}", spill = "${FS_SECRET}"}
"""


def test_what_a_variable_holds_is_never_shown(write, monkeypatch):
    """Not in the repr, str or dump of the configuration or of a table of it; it is used all the same."""
    monkeypatch.setenv("FS_SECRET", "sesame")
    monkeypatch.setenv("FS_PORT", "61234")
    config = load_config(write(SECRETS))
    assert config.online == "rediss://user:sesame@host:6379/0"
    assert config.server.port == 61234
    shown = [repr(config), str(config), config.model_dump_json(), str(config.model_dump()), repr(config.server)]
    shown += [str(config.offline), config.server.model_dump_json(), json.dumps(config.model_dump(mode="json"))]
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    for text in [*shown, repr(copy)]:
        assert "sesame" not in text
        assert "61234" not in text
    assert config.model_dump()["online"] == "rediss://user:${FS_SECRET}@host:6379/0"
    assert config.model_dump()["sources"]["a"] == "${FS_SECRET}.parquet"
    assert config.model_dump()["definitions"] == ("*.py", "${FS_SECRET}.py")
    assert config.model_dump()["server"]["port"] == "${FS_PORT}"


@pytest.mark.parametrize(
    "line",
    [
        'project = "${FS_SECRET}"',
        'project = "a"\nonline = "${FS_SECRET}"',
        'project = "a"\nregistry = "${FS_SECRET}://x"',
        'project = "a"\nserver = {port = "${FS_SECRET}"}',
        'project = "a"\ndefinitions = ["/${FS_SECRET}"]',
        'project = "a"\n[env.x]\nserver.port = "${FS_SECRET}"',
    ],
)
def test_errors_show_the_variable_and_not_what_it_holds(write, monkeypatch, line):
    """The same for the error and whatever it was raised from."""
    monkeypatch.setenv("FS_SECRET", "se-same")
    with pytest.raises(ConfigError, match=r"it is '.*\$\{FS_SECRET\}") as caught:
        load_config(write(line), "x" if "env" in line else None)
    assert "se-same" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_password_written_into_a_url_is_not_shown(write):
    """Nor is a default password of a variable."""
    config = load_config(write('project = "a"\nonline = "redis://:hunter2@host/0"'))
    assert config.online == "redis://:hunter2@host/0"
    assert "hunter2" not in repr(config) + config.model_dump_json()
    assert "redis://:***@host/0" in repr(config)
    config = load_config(write('project = "a"\nonline = "redis://:${FS_PW:-hunter2}@host/0"'))
    assert config.online == "redis://:hunter2@host/0"
    assert "hunter2" not in repr(config)


MISTAKES = [
    ("project = \n", None, r"featurestore\.toml: Invalid value \(at line 1, column 11\)"),
    ("project = ", None, r"featurestore\.toml: Invalid value \(at line 1, the last\)"),
    ('project = "a"\nproject = "b"\n', None, r"featurestore\.toml: Cannot overwrite a value \(at line 2"),
    ("", None, r"featurestore\.toml: project: must be given"),
    ('project = "a-b"', None, r"project: must be a name"),
    ('project = "1a"', None, r"project: must be a name"),
    ("project = 3", None, r"project: must be text"),
    ('projet = "a"', None, r"projet: there is no such key\. Did you mean 'project'\? Keys: "),
    ('project = "a"\nserver = {prot = 1}', None, r"server\.prot: there is no such key\. Did you mean 'port'\?"),
    ('project = "a"\n[env.dev]\nonlin = "x"', None, r"env\.dev\.onlin: there is no such key\. Did you mean 'online'\?"),
    ('project = "a"\n[env.dev.server]\nprot = 1', None, r"env\.dev\.server\.prot: .* Did you mean 'port'\?"),
    ('project = "a"\nenv = 3', None, r"env: must be tables"),
    ('project = "a"\n[env]\ndev = 3', None, r"env\.dev: must be a table"),
    ('project = "a"\n[env.prod]', "prd", r"there is no \[env\.prd\]\. Did you mean 'prod'\?"),
    ('project = "a"', "prod", r"there is no \[env\.prod\]\. Environments: none"),
    ('project = "a"\nroot = "x"', None, r"root: there is no such key"),
    ('project = "a"\nserver = 3', None, r"server: must be a table"),
    ('project = "a"\nserver = {port = "6570"}', None, r"server\.port: must be a whole number"),
    ('project = "a"\nserver = {port = true}', None, r"server\.port: must be a whole number"),
    ('project = "a"\nserver = {port = 1.5}', None, r"server\.port: must be a whole number"),
    ('project = "a"\nserver = {port = 65536}', None, r"server\.port: .*65535"),
    ('project = "a"\noffline = {threads = 0}', None, r"offline\.threads: "),
    ('project = "a"\noffline = {memory_limit = 4}', None, r"offline\.memory_limit: must be text"),
    ('project = "a"\ndefinitions = "*.py"', None, r"definitions: must be a list"),
    ('project = "a"\ndefinitions = ["*.py", 3]', None, r"definitions\[1\]: must be text"),
    ('project = "a"\ndefinitions = ["/a/*.py"]', None, r"definitions\[0\]: must be a pattern relative to the file"),
    ('project = "a"\nsources = {a = 3}', None, r"sources\.a: must be text"),
    ('project = "a"\nsources = "x"', None, r"sources: must be a table"),
    ('project = "a"\nonline = "localhost"', None, r"online: must be a URL"),
    ('project = "a"\nregistry = "mysql://x"', None, r"registry: a registry is a path, sqlite:///path or postgresql://"),
    (
        'project = "a"\nregistry = "sqlite://x"',
        None,
        r"registry: a registry is a path, sqlite:///path or postgresql://",
    ),
    ('project = "a"\nregistry = ""', None, r"registry: a path must be given"),
    ('project = "a"\nonline = "lmdb://${X Y}"', None, r"online: a variable is written \$\{VAR\}"),
    ('project = "a"\nonline = "lmdb://${X"', None, r"online: a variable is written \$\{VAR\}"),
    ('project = "a"\nonline = "lmdb://${FS_NOT_SET}"', None, r"online: the environment variable FS_NOT_SET is not set"),
    ('project = "a"\n[env.p]\nonline = "${FS_NOT_SET}"', "p", r"env\.p\.online: the environment variable FS_NOT_SET"),
    ('project = "a"\n[env.p]\nserver.port = "x"', "p", r"env\.p\.server\.port: must be a whole number"),
    ('project = "1"\nserver = {port = "x"}', None, r"project: must be .*; server\.port: must be"),
]


@pytest.mark.parametrize(("text", "env", "message"), MISTAKES)
def test_a_mistake_names_the_file_and_the_key(write, text, env, message):
    """Whatever is wrong, the message begins with the file and says which key, and what would be right."""
    root = write(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(root, env)
    assert str(caught.value).startswith(f"{root}/featurestore.toml: ")


def test_a_missing_or_unreadable_file_is_told(tmp_path, monkeypatch):
    """With what would make one."""
    for folder, missing in ((tmp_path, tmp_path / "featurestore.toml"), (tmp_path / "a", tmp_path / "a")):
        with pytest.raises(ConfigError) as caught:
            load_config(folder)
        assert str(caught.value) == (
            f"There is no {missing}. Name the project's folder, as `featurestore --repo FOLDER` and "
            "FeatureStore(FOLDER) do, or let `featurestore init FOLDER` write a new one"
        )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(f"There is no {tmp_path / 'featurestore.toml'}. ")):
        load_config(".")
    (tmp_path / "featurestore.toml").write_bytes(b'project = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path)


def test_a_configuration_is_frozen(write):
    """As every user-facing type is."""
    config = load_config(write('project = "a"'))
    with pytest.raises(ValueError, match="frozen"):
        config.project = "b"


def test_a_local_store_needs_no_file(tmp_path):
    """Everything lies in one folder."""
    config = Config.local(tmp_path)
    assert (config.project, config.root) == ("local", tmp_path)
    assert config.registry.is_relative_to(tmp_path)
    assert config.online == f"lmdb://{tmp_path}/.featurestore/online"


def test_the_documentation_names_every_key(write, monkeypatch):
    """And its examples are read as they stand, the last in each of its environments. The server's limits have a table of their
    own, to which that page leads."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert "(http.md#limits)" in text
    monkeypatch.setenv("REDIS_PASSWORD", "sesame")
    for example in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        root = write(example)
        assert load_config(root).online.startswith("lmdb://")
    assert load_config(root, "prod").online == "rediss://:sesame@redis.internal:6379/0"
    for name, field in Config.model_fields.items():
        if name not in {"root", "environment"}:
            assert f"`{name}`" in text
            for inner in getattr(field.annotation, "model_fields", {}):
                assert f"`{inner}`" in text + (DOCS / "http.md").read_text(encoding="utf-8")


def test_the_reference_is_that_of_the_models():
    """Where it is not: python -m tests.configuration_reference."""
    assert PAGE.read_text(encoding="utf-8") == reference()


def test_settings_of_brokers_are_texts_by_their_whole_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quoted or not, numbers and truths too; what may be a secret is shown by nothing, and an environment changes single ones."""
    monkeypatch.setenv("KAFKA_PASSWORD", "hush")
    (tmp_path / "featurestore.toml").write_text(
        """
project = "p"
[brokers.events]
"bootstrap.servers" = "a:9092"
sasl.username = "me"
sasl.password = "${KAFKA_PASSWORD}"
ssl.key.password = "plain"
session.timeout.ms = 6000
enable.ssl.certificate.verification = false
[env.prod.brokers.events]
bootstrap.servers = "b:9092"
"""
    )
    config = load_config(tmp_path, "prod")
    assert config.brokers["events"] == {
        "bootstrap.servers": "b:9092",
        "sasl.username": "me",
        "sasl.password": "hush",
        "ssl.key.password": "plain",
        "session.timeout.ms": "6000",
        "enable.ssl.certificate.verification": "false",
    }
    for shown in (repr(config), str(config.model_dump())):
        assert "b:9092" in shown
        assert "${KAFKA_PASSWORD}" in shown
        for secret in ("hush", "plain", "'me'"):
            assert secret not in shown
