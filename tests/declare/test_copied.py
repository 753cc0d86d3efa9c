"""What a declared function runs is what its fingerprint is of, whatever happens to its module afterwards."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from featurestore import Entity, FeatureView, ParquetSource, on_demand
from featurestore.declare.code import FunctionCode, changed_since, code_of
from featurestore.errors import DeclarationError
from featurestore.types import Float64, Int64
from tests.declare.test_code import BASE, FUNCTIONS, OTHER, SAME, namespace_of

WHERE = "feature_repo/x.py:12"
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "identity": (1,), "arithmetic": (5.0, 3.0), "default": (2.0,), "library": (4.0,), "constants": (1,), "enum": (1,),
    "helper": (3.0, 1.0), "mutual": (5,), "fstring": (1.5, 8), "loops": ([1, None, 200, 3],),
    "comprehension": ({"a": [1, -1], "b": [2]},), "match": ({"a": 1, "b": 2},), "try": (4,), "lambda": (3,),
    "nested": ([[3, 1], [2, 5]],), "text": ("abcdef",), "numbers": (),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def write(name: str, source: str) -> Path:
    path = Path(sys.path[0], f"{name}.py")
    path.write_text(source)
    importlib.invalidate_caches()
    return path


def module(name: str, source: str) -> ModuleType:
    write(name, source)
    return importlib.import_module(name)


def reload(of: ModuleType, source: str) -> ModuleType:
    """Reloaded as it is now. Compiled files are told from newer ones by the second and the size alone."""
    path = write(of.__name__, source)
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    return importlib.reload(of)


def copied(function: object) -> tuple[FunctionCode, FunctionType]:
    code = code_of(function, where=WHERE)
    return code, code.functions[0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_copy_does_what_its_function_does(name: str) -> None:
    function: Any = namespace_of(FUNCTIONS[name])["f"]
    given = ARGUMENTS[name]
    assert repr(copied(function)[1](*given)) == repr(function(*given))


@pytest.mark.parametrize("source", [BASE, *SAME.values(), *OTHER.values()])
def test_a_copy_of_any_variant_does_the_same(source: str) -> None:
    function: Any = namespace_of(source)["f"]
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    assert copied(function)[1](*range(1, len(needed) + 1)) == function(*range(1, len(needed) + 1))


HELPERS = "RATE = 2.0\ndef inner(x): return x + 1\ndef base(x): return inner(x) * RATE\n"
CHANGED = "RATE = 30.0\ndef inner(x): return x + 100\ndef base(x): return inner(x) * RATE * 7\n"


@pytest.mark.parametrize(
    "source",
    [
        "import own_helpers\ndef f(x): return own_helpers.base(x)\n",
        "from own_helpers import base\ndef f(x): return base(x)\n",
        "from own_helpers import inner, RATE\ndef f(x): return inner(x) * RATE\n",
        "import own_helpers as h\ndef f(x): return [h.inner(x) * h.RATE for _ in '1'][0]\n",
        "import own_helpers as h\ndef f(x):\n    def g(y): return h.inner(y)\n    return (lambda y: g(y) * h.RATE)(x)\n",
    ],
)
def test_a_reload_of_a_helper_does_not_reach_it(source: str) -> None:
    helpers = module("own_helpers", HELPERS)
    code, own = copied(module("own_uses", source).f)
    assert own(3.0) == 8.0
    reload(helpers, CHANGED)
    assert own(3.0) == 8.0
    again, new = copied(importlib.reload(sys.modules["own_uses"]).f)
    assert new(3.0) != 8.0
    assert again.fingerprint != code.fingerprint


def test_nothing_that_is_assigned_later_reaches_it() -> None:
    helpers = module("own_helpers", HELPERS)
    named = module(
        "own_named",
        "import own_helpers\nfrom own_helpers import inner\nK = 5.0\n"
        "def around(k):\n    def f(x, y=1.0, *, z=1.0): return (own_helpers.base(x) + inner(x)) * K * k * y * z\n    return f\n"
        "f = around(1.0)\n",
    )
    code, own = copied(named.f)
    assert own(3.0) == 60.0
    helpers.inner = named.inner = lambda x: 0.0  # type: ignore[attr-defined]  # as code that writes into a module
    helpers.base.__code__ = (lambda x: x).__code__
    helpers.RATE, named.K = 0.0, 0.0  # type: ignore[attr-defined]  # as code that writes into a module
    named.f.__defaults__, named.f.__kwdefaults__["z"] = (0.0,), 0.0
    named.f.__closure__[0].cell_contents = 0.0
    named.f.__code__ = named.around(0.0).__code__.replace(co_name="other")
    assert named.f(3.0) == 0.0
    del named.own_helpers, named.inner, named.K
    assert own(3.0) == 60.0
    assert code.names == ("own_named.around.<locals>.f", "own_helpers.base", "own_helpers.inner")


def test_a_member_of_an_enum_keeps_its_value() -> None:
    kinds = module("own_kinds", "import enum\nclass Kind(enum.Enum):\n    A = 1\n    B = 2\n")
    uses = module(
        "own_uses",
        "import own_kinds\nfrom own_kinds import Kind\ndef f(x): return x + Kind.A.value + own_kinds.Kind.B.value\n",
    )
    _, own = copied(uses.f)
    reload(kinds, "import enum\nclass Kind(enum.Enum):\n    A = 10\n    B = 20\n")
    uses.Kind = kinds.Kind  # type: ignore[attr-defined]  # as code that writes into a module
    assert own(0) == 3
    assert uses.f(0) == 30


def test_names_of_python_are_those_of_python() -> None:
    own = namespace_of("def f(x): return abs(x) + len('ab')")
    _, copy = copied(own["f"])
    own["abs"] = own["len"] = lambda _: 0
    assert copy(-3) == 5


def test_annotations_within_need_nothing() -> None:
    source = "import typing as t\nclass Own: ...\ndef f(x):\n    def g(y: Own, z: t.Optional[Own] = None) -> Own: return y\n    return g(x)"
    assert copied(namespace_of(source)["f"])[1](3) == 3


def test_what_it_says_of_itself_is_the_functions(tmp_path: Path) -> None:
    named = module("own_named", "def f(x):\n    'Doc.'\n    raise ValueError(x)\n")
    _, copy = copied(named.f)
    assert (copy.__name__, copy.__qualname__, copy.__module__, copy.__doc__) == ("f", "f", "own_named", "Doc.")
    with pytest.raises(ValueError, match="3") as raised:
        copy(3)
    assert (raised.traceback[-1].path, raised.traceback[-1].lineno) == (tmp_path / "own_named.py", 2)


# --- the source, and what runs -------------------------------------------------------------------


@pytest.mark.parametrize(
    "after",
    [
        "def f(x): return g(x) + 2\ndef g(x): return x\n",
        "def f(x): return g(x) + 1\ndef g(x): return -x\n",
        "def f(x): return g(x) + 1.0\ndef g(x): return x\n",
        "def f(x): return g(x) + True\ndef g(x): return x\n",
        "def f(x): return h(x) + 1\ndef g(x): return x\n",
        "def f(x): return (lambda y: y)(g(x)) + 1\ndef g(x): return x\n",
    ],
)
def test_a_body_that_was_edited_and_not_imported_is_refused(after: str) -> None:
    """Its fingerprint would be of the file, and what runs is what was imported."""
    named = module("own_named", "def f(x): return g(x) + 1\ndef g(x): return x\n")
    code_of(named.f, where=WHERE)
    path = write("own_named", after)
    os.utime(path, (1, 1))
    with pytest.raises(DeclarationError, match="differs from its source, which changed since it was imported"):
        code_of(named.f, where=WHERE)


def test_an_edit_that_changes_no_code_is_none() -> None:
    named = module("own_named", "K = 1\ndef f(x):\n    return g(x) + K\ndef g(x): return x\n")
    before = code_of(named.f, where=WHERE)
    path = write(
        "own_named", "K = 2\ndef f(x):  # why\n    return ( g(x)+K )\ndef g(x): return x  # and so\ndef h(): return 3\n"
    )
    os.utime(path, (1, 1))
    after = code_of(named.f, where=WHERE)
    assert after == before
    assert after.functions[0](1) == 2, "the constant is what was imported"


def asserts(x: float) -> float:
    """pytest rewrites this assertion, and what runs is what is written."""
    assert x > 0, "positive"
    return math.sqrt(x)


def test_code_that_a_test_runner_rewrote_runs_as_it_is_written() -> None:
    code, own = copied(asserts)
    assert "@pytest_ar" in asserts.__code__.co_names
    assert "@pytest_ar" not in own.__code__.co_names
    assert own(4.0) == 2.0
    with pytest.raises(AssertionError, match="^positive$"):
        own(-1.0)
    assert code.libraries == ("math",)


# --- what is said of it --------------------------------------------------------------------------


def test_it_is_told_which_functions_changed() -> None:
    helpers = module("own_helpers", HELPERS)
    named = module("own_named", "import own_helpers\ndef f(x): return own_helpers.base(x)\n")
    code = code_of(named.f, where=WHERE)
    assert changed_since(code, named.f, where=WHERE) == ()
    reload(helpers, HELPERS + "# more\n")
    assert changed_since(code, named.f, where=WHERE) == ()
    reload(helpers, HELPERS.replace("2.0", "3.0"))
    assert changed_since(code, named.f, where=WHERE) == (), "a constant is no code"
    reload(helpers, HELPERS.replace("x + 1", "x + 2"))
    assert changed_since(code, named.f, where=WHERE) == ("own_helpers.inner",)
    reload(helpers, HELPERS.replace("def inner(x): return x + 1", "import time\ndef inner(x): return time.time()"))
    assert changed_since(code, named.f, where=WHERE) == ("own_named.f",), "it could not be declared as it is now"


VIEW = FeatureView(
    "view", entity=Entity("thing", key={"thing": Int64}), source=ParquetSource("s", "s.parquet", event_time="at"),
    refresh="1h", features=["x"],
)  # fmt: skip


def test_a_declared_feature_calls_its_copy() -> None:
    features = []
    for factor in (1.0, 2.0, 3.0):

        def times(x: float) -> float:
            return x * factor  # noqa: B023 - that it is one name for all is what is tested

        features.append(on_demand(times, name=f"times{factor:.0f}", inputs=[VIEW["x"]], output=Float64))
    assert [feature(1.0) for feature in features] == [1.0, 2.0, 3.0]
    assert len({feature.code for feature in features}) == 3
