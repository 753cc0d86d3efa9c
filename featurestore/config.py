"""featurestore.toml: where a project's registry, data, online values and definitions lie.

A frozen `Config` is made of it once. Strings may read the environment, `${VAR}` or `${VAR:-default}`; what a variable
holds is used and never shown: reprs, dumps and errors show `${VAR}`, and `:***@` for the password of a URL. Relative
paths are relative to the file, the one in `lmdb://relative/path` too.
"""

from __future__ import annotations

import os
import re
import sqlite3
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from featurestore.errors import ConfigError, did_you_mean
from featurestore.hidden import hidden
from featurestore.settings import (
    FromEnvironment,
    JwtConfig,
    MaterializeConfig,
    OfflineConfig,
    ServerConfig,
    ServingLogConfig,
    StatisticsConfig,
    Table,
    Whole,
    described,
)

FILE = "featurestore.toml"
NUL = "\0"

VARIABLE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)

MESSAGES = {
    "missing": "must be given",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "path_type": "must be text in quotes",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have one at least",
}

Place = tuple[str | int, ...]
"""The keys, and positions in lists, that lead to one value of the file."""


def _project(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value):
        raise ValueError("must be a name: letters, digits and underscores, beginning with a letter")
    return value


def _url(value: str) -> str:
    if not re.match(r"[a-z][a-z0-9+.-]*://", value):
        raise ValueError("must be a URL such as lmdb://.featurestore/online or redis://localhost:6379/0")
    return value


def _registry(value: Any) -> Any:
    if not isinstance(value, str | Path):
        raise ValueError("must be text in quotes")
    return Path(value) if isinstance(value, str) and "://" not in value else value


def _push_log(value: str | None, info: ValidationInfo) -> str | None:
    if value is not None and not value.startswith(("postgresql://", "postgres://")):
        raise ValueError("must be a postgresql:// URL")
    if value is not None and str(info.data.get("online", "")).startswith("lmdb://"):
        raise ValueError("is for several machines, which share no lmdb:// folder: it needs an online store in Redis")
    return value


PLAIN_SETTINGS = frozenset({
    "bootstrap.servers", "security.protocol", "sasl.mechanism", "sasl.mechanisms", "client.id", "schema.registry.url", "url",
})  # fmt: skip
"""The settings of a broker that are shown, but for passwords in URLs; any other may be a secret."""


def _setting(value: Any) -> Any:
    """A number or a truth, as brokers' settings are written: as text."""
    return str(value).lower() if isinstance(value, bool | int | float) else value


def _glob(value: str) -> str:
    if Path(value).is_absolute() or not value:
        raise ValueError(
            "must be a pattern relative to the file, such as 'definitions.py', 'features/' or 'features/*.py'"
        )
    return value


class Config(Table):
    """A project's configuration; every path in it is absolute. root: the folder of the file. environment: the `[env.NAME]` that
    was chosen."""

    project: Annotated[
        str,
        AfterValidator(_project),
        described("part of every online key, so that two projects on one store never meet"),
    ]
    registry: Annotated[
        Path | str,
        BeforeValidator(_registry),
        described("where what was applied is kept: a path, or a postgresql:// URL"),
    ]
    online: Annotated[str, AfterValidator(_url), described("URL of the online store")]
    logs: Annotated[Path, described("folder of the logs of pushed rows")]
    push_log: Annotated[
        str | None,
        AfterValidator(_push_log),
        described(
            "where pushed rows are logged, in place of `logs`, for pushers on several machines: a postgresql:// URL"
        ),
    ] = None
    compact_after: Annotated[
        Whole,
        Field(ge=0),
        described("full segments of a log that make a pushing process seal them in the background; 0: never"),
    ] = 2
    lock_timeout: Annotated[float, Field(gt=0), described("seconds for which the lock of a log is waited for")] = 60.0
    definitions: Annotated[
        tuple[Annotated[str, AfterValidator(_glob)], ...] | None,
        described(
            "patterns of the files that declare features, or packages of them. Left out: definitions.py, or the package features/"
        ),
    ] = None
    sources: Annotated[
        dict[str, str], described("name of a source and where it lies, over what its definition says")
    ] = {}
    databases: Annotated[
        dict[str, str],
        described("name of a database that sources read, and its URL: postgresql://…, sqlite:///path, snowflake://…"),
    ] = {}
    catalogs: Annotated[
        dict[str, dict[str, str]],
        described(
            'name of an Iceberg catalog that sources read, and its properties, as pyiceberg has them: type, uri, "s3.endpoint", …'
        ),
    ] = {}
    brokers: Annotated[
        dict[str, dict[str, Annotated[str, BeforeValidator(_setting)]]],
        described(
            "name of a broker that streams are read from, and its settings: `url` (redis://…), or those of librdkafka, such as bootstrap.servers"
        ),
    ] = {}
    offline: OfflineConfig
    materialize: MaterializeConfig = MaterializeConfig()
    server: ServerConfig = ServerConfig()
    jwt: JwtConfig = JwtConfig()
    serving_log: ServingLogConfig
    statistics: StatisticsConfig = StatisticsConfig()
    root: Path
    environment: str | None = None

    @property
    def restoring(self) -> Path:
        """The file that is there while a backup is restored, and where that was killed."""
        return self.logs.with_name(f"{self.logs.name}.restoring")

    def check_restored(self) -> None:
        """ConfigError where a backup is half restored."""
        if self.restoring.exists():
            raise ConfigError(
                f"{self.restoring} says that a backup is being restored into this project. Where nobody does so any more, it "
                "was not completed: run featurestore restore again"
            )

    @classmethod
    def local(cls, root: Path) -> Config:
        """The configuration of an embedded store that lies wholly in the folder `root`, without a file."""
        return _build(
            _with_defaults({"project": "local"}, DATA), root=root, where=str(root), environment=None, override={}
        )


DATA = ".featurestore"
"""The folder of all that is not said to lie elsewhere, of the project that the file names."""

REGISTRY = "registry.db"


def _defaults(folder: str) -> dict[str, Any]:
    """Where a project's data lies that nobody said a place for."""
    return {
        "registry": f"{folder}/{REGISTRY}",
        "online": f"lmdb://{folder}/online",
        "logs": f"{folder}/logs",
        "offline": {"copies": f"{folder}/copies", "tiles": f"{folder}/tiles"},
        "serving_log": {"folder": f"{folder}/served"},
    }


TABLES: dict[str, type[Table]] = {
    "offline": OfflineConfig,
    "materialize": MaterializeConfig,
    "server": ServerConfig,
    "jwt": JwtConfig,
    "serving_log": ServingLogConfig,
    "statistics": StatisticsConfig,
}
KEYS = [name for name in Config.model_fields if name not in {"root", "environment"}]


def load_config(path: Path | str, env: str | None = None) -> Config:
    """The configuration in `path`, a folder or its featurestore.toml, with `[env.<env>]` over it.

    Raises ConfigError, which names the file and the key, for a missing file, a syntax error, a key that does not exist,
    a value of the wrong type, an environment that is not declared and a variable that is not set.
    """
    file = _file(path)
    raw = _parse(file)
    environments = raw.pop("env", {})
    _check_tables(file, environments)
    _check_keys(file, raw, "")
    for name, table in environments.items():
        _check_keys(file, table, f"env.{name}.")
    if env is not None and (not isinstance(env, str) or env not in environments):
        if not isinstance(env, str):
            raise ConfigError(f"env is the name of an [env.NAME] of {file}, and not {env!r}")
        hint = did_you_mean(env, environments, noun="Environments")
        raise ConfigError(f"{file}: there is no [env.{env}].{hint}")
    override = environments[env] if env is not None else {}
    merged = _merged(raw, override)
    merged = _with_defaults(merged, _data_folder(file.parent, raw.get("project"), merged.get("project")))
    return _build(merged, root=file.parent, where=str(file), environment=env, override=override)


def _file(path: object) -> Path:
    """The file itself, where its folder is given."""
    if not isinstance(path, (str, Path)):
        raise ConfigError(f"A repository is named by the path of its folder, as text or a Path, and not by {path!r}")
    if NUL in str(path):
        raise ConfigError(f"{str(path)!r} is no path: it holds a NUL")
    try:
        file = Path(path).expanduser()
        return file / FILE if file.is_dir() else file
    except (OSError, RuntimeError) as error:  # a name that is too long; a home of nobody's
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _parse(file: Path) -> dict[str, Any]:
    text = _read(file)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"at line {len(text.splitlines())}, the last"
        raise ConfigError(f"{file}: {str(error).replace('at end of document', last)}") from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # some editors put a mark first
    except FileNotFoundError:
        raise ConfigError(
            f"There is no {file.absolute()}. Name the project's folder, as `featurestore --repo FOLDER` and FeatureStore(FOLDER) do, "
            "or let `featurestore init FOLDER` write a new one"
        ) from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text, which TOML is") from None


def _at(file: Path, *keys: object) -> str:
    """The end of a message about a key: the line where it stands, or the table that it would be in; nothing where neither
    is to be found."""
    found, depth = 0, 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(_read(file).splitlines() if file.is_file() else [], 1):
        header = re.match(r"\s*\[+([^\[\]]+)\]", line)
        written = header or re.match(r"\s*([\w.\"' -]+?)\s*=", line)
        if written is None:
            continue
        parts = tuple(part.strip().strip("\"'") for part in written[1].split("."))
        place = parts if header else (*table, *parts)
        table = parts if header else table
        inside = keys[: len(place)] == place
        if inside and len(place) > depth:
            found, depth = number, len(place)
    return f" (at line {found})" if found else ""


def _check_tables(file: Path, environments: Any) -> None:
    if not isinstance(environments, dict):
        raise ConfigError(f"{file}: env: must be tables, such as [env.prod]{_at(file, 'env')}")
    for name, table in environments.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: env.{name}: must be a table: [env.{name}]{_at(file, 'env', name)}")


def _check_keys(file: Path, table: Mapping[str, Any], prefix: str) -> None:
    def at(*keys: str) -> str:
        return _at(file, *prefix.split(".")[:-1], *keys)

    for key, value in table.items():
        if key not in KEYS:
            raise ConfigError(
                f"{file}: {prefix}{key}: there is no such key.{did_you_mean(key, KEYS, noun='Keys')}{at(key)}"
            )
        if key in TABLES and isinstance(value, dict):
            for inner in value:
                known = TABLES[key].model_fields
                if inner not in known:
                    hint = did_you_mean(inner, known, noun=f"Keys of [{prefix}{key}]")
                    raise ConfigError(f"{file}: {prefix}{key}.{inner}: there is no such key.{hint}{at(key, inner)}")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; everything else, lists included, is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _flat(table: Any) -> Any:
    """A broker's settings by their whole names: TOML takes `sasl.password = "…"` without quotes for a table within a table."""
    if not isinstance(table, dict):
        return table
    found: dict[str, Any] = {}
    for name, value in table.items():
        inner = _flat(value)
        found |= {f"{name}.{rest}": one for rest, one in inner.items()} if isinstance(inner, dict) else {name: inner}
    return found


def _build(
    raw: Mapping[str, Any], *, root: Path, where: str, environment: str | None, override: Mapping[str, Any]
) -> Config:
    """The validated Config of what a file says; `override` is the environment's part, for the names in errors."""
    written: dict[Place, str] = {}
    brokers = raw.get("brokers")
    if isinstance(brokers, dict):
        raw = {**raw, "brokers": {name: _flat(table) for name, table in brokers.items()}}
    root = Path(os.path.abspath(root))  # noqa: PTH100 - Path.resolve would follow links

    def refuse(place: Place, problem: str) -> ConfigError:
        shown = f"; it is {written[place]!r}" if place in written else ""
        named = _named(place, environment, override)
        keys = (*named.split(".")[:2], *place) if named.startswith("env.") else place
        return ConfigError(f"{where}: {named}: {problem}{shown}{_at(Path(where), *keys)}")

    def value_of(value: Any, place: Place) -> Any:
        if isinstance(value, dict):
            return {key: value_of(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [value_of(item, (*place, i)) for i, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        is_secret = place[:1] == ("brokers",) and len(place) == 3 and place[2] not in PLAIN_SETTINGS
        shown = "***" if is_secret and not VARIABLE.search(value) else hidden(value)
        if shown != value or VARIABLE.search(value):
            written[place] = shown
        try:
            return _located(_without_nul(_interpolated(value)), place, root)
        except ValueError as error:
            raise refuse(place, str(error)) from None

    values = value_of(raw, ())
    try:
        config = Config(**values, root=root, environment=environment)
    except ValidationError as error:
        found: dict[Place, list[str]] = {}
        for item in error.errors(include_input=False):
            found.setdefault(_place(item["loc"]), []).append(_problem(item))
        problems = [refuse(place, ", or ".join(_alike(said))) for place, said in found.items()]
    else:
        _show(config, written)
        return config
    first, *others = map(str, problems)
    raise ConfigError("; ".join([first, *(other.removeprefix(f"{where}: ") for other in others)]))


def _alike(said: Sequence[str]) -> list[str]:
    """What one value may be of several kinds must be, said once."""
    first, *others = said
    return [first, *(other.removeprefix("must be ") for other in others)]


def _problem(item: ErrorDetails) -> str:
    """What pydantic found wrong, in words of our own."""
    if item["type"] == "literal_error" and item["ctx"]["expected"] == "False":
        return "must be false"
    if item["type"] in MESSAGES:
        return MESSAGES[item["type"]].format(**item.get("ctx", {}))
    return item["msg"].removeprefix("Value error, ")


def _data_folder(root: Path, own: Any, project: Any) -> str:
    """Where a project's data lies by default: that of an environment with a project of its own lies below it.

    own: the project that the file names, whatever the environment. A repository in which another project's data lies in
    the place of the file's own, as it did once, keeps it there.
    """
    names = [_spoken(name) for name in (own, project)]
    if names[1] is None or names[0] == names[1] or _registry_of(root / DATA / REGISTRY) in {names[1], ANYBODY}:
        return DATA
    return f"{DATA}/{names[1]}"


ANYBODY = ""
"""The owner of a registry that does not say whose it is."""


def _spoken(name: Any) -> str | None:
    """A project's name with its variables; None where it is none, which is told later."""
    try:
        return _project(_interpolated(name)) if isinstance(name, str) else None
    except ValueError:
        return None


def _registry_of(path: Path) -> str | None:
    """Whose registry lies there; None where there is none, ANYBODY where it cannot be read, of which opening it tells."""
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return None  # it was just being made
            found = connection.execute("SELECT project FROM owner").fetchone()
    except sqlite3.Error:
        return ANYBODY
    return ANYBODY if found is None or found[0] is None else str(found[0])


def _with_defaults(raw: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """What a file says, over what it does not say."""
    defaults = _defaults(folder)
    tables = {
        key: {**defaults[key], **raw[key]}
        for key in raw
        if isinstance(defaults.get(key), dict) and isinstance(raw[key], dict)
    }
    return {**defaults, **raw, **tables}


def _place(loc: tuple[str | int, ...]) -> Place:
    """Where an error lies, without the names that pydantic gives to validators on the way."""
    return tuple(part for part in loc if not (isinstance(part, str) and "[" in part))


def _named(place: Place, environment: str | None, override: Mapping[str, Any]) -> str:
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    found: Any = override
    for part in place:
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif not isinstance(found, list):
            return name
    return f"env.{environment}.{name}" if environment is not None else name


def _interpolated(text: str) -> str:
    """The text with its variables' values; ValueError, which names no value, where one is not set."""

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        inside = INSIDE.fullmatch(found[1] or "")
        if inside is None:
            raise ValueError("a variable is written ${VAR} or ${VAR:-default}")
        name, default = inside.groups()
        value = os.environ.get(name)
        if default is not None:
            return value or str(default)
        if value is None:
            raise ValueError(f"the environment variable {name} is not set")
        return value

    return FromEnvironment(VARIABLE.sub(replace, text)) if VARIABLE.search(text) else text


def _without_nul(text: str) -> str:
    if NUL in text:
        raise ValueError("must not hold a NUL")
    return text


PATHS = {
    ("offline", "copies"), ("offline", "spill"), ("offline", "tiles"), ("logs",), ("serving_log", "folder"),
    ("server", "tls_certificate"), ("server", "tls_key"), ("server", "client_ca"),
}  # fmt: skip
"""The keys that are paths and nothing else."""


def _located(text: str, place: Place, root: Path) -> str:
    """A path made absolute where the key is one; any other text as it is."""
    if place == ("registry",):
        scheme, separator, rest = text.partition("://")
        if scheme in {"postgresql", "postgres"} and separator:
            return text
        if separator and (scheme != "sqlite" or not rest.startswith("/")):
            raise ValueError("a registry is a path, sqlite:///path or postgresql://…")
        return _absolute(rest[1:] if separator else text, root)
    if place == ("online",) and text.startswith("lmdb://"):
        folder, question, options = text.removeprefix("lmdb://").partition("?")
        return lmdb_url(_absolute(_without_nul(unquote(folder)), root)) + question + options
    if place == ("jwt", "jwks") and "://" not in text:
        return _absolute(text, root)
    if place[:1] == ("databases",) and text.startswith("sqlite:///"):
        return "sqlite://" + _absolute(text.removeprefix("sqlite:///"), root)
    if place[:1] == ("catalogs",) and place[-1:] == ("uri",) and text.startswith("sqlite:///"):
        return "sqlite:///" + _absolute(text.removeprefix("sqlite:///"), root)
    if place in PATHS or (place[:1] == ("sources",) and len(place) == 2 and "://" not in text):
        return _absolute(text, root)
    return text


def registry_place(text: str, root: Path) -> Path | str:
    """Where a registry is that is written as `registry` in featurestore.toml, variables included: a path or a postgresql:// URL.
    ConfigError, which shows nothing of it, where it is neither."""
    try:
        place: Path | str = _registry(_located(_without_nul(_interpolated(text)), ("registry",), root))
    except ValueError as error:
        raise ConfigError(f"The place of a registry: {error}") from None
    return place


def lmdb_url(folder: Path | str) -> str:
    """The URL of the embedded online store in a folder, whatever signs its path has that mean something in a URL."""
    return "lmdb://" + re.sub(r"[%?#\x00-\x20\x7f]", lambda found: f"%{ord(found[0]):02X}", str(folder))


def _absolute(path: str, root: Path) -> str:
    if not path:
        raise ValueError("a path must be given")
    return os.path.abspath(root / Path(path).expanduser())  # noqa: PTH100 - Path.resolve would follow links


def _show(config: Config, written: Mapping[Place, str]) -> None:
    """Give each table what it shows in place of the values that must not be seen."""
    for place, text in written.items():
        table: Table = getattr(config, str(place[0])) if place[0] in TABLES else config
        name, *within = place[1:] if place[0] in TABLES else place
        table._shown[str(name)] = _put(table._shown.get(str(name), getattr(table, str(name))), within, text)


def _put(value: Any, place: Sequence[str | int], text: str) -> Any:
    """A value with a text at a place in it."""
    if not place:
        return text
    if isinstance(value, Mapping):
        return {**value, place[0]: _put(value[place[0]], place[1:], text)}
    listed = list(value)
    listed[int(place[0])] = _put(listed[int(place[0])], place[1:], text)
    return tuple(listed)
