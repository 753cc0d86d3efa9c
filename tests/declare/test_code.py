"""An on-demand function's fingerprint changes with what it computes, and with nothing else.

Rewrite the golden fingerprints with `python tests/declare/test_code.py` (and say in the changelog why they changed).
"""

import ast
import copy
import importlib.util
import itertools
import json
import linecache
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.declare.code import FunctionCode, code_of
from featurestore.errors import DeclarationError

GOLDEN = Path(__file__).with_name("golden_code.json")
WHERE = "feature_repo/x.py:12"
COUNTER = itertools.count()


def namespace_of(source: str, name: str | None = None) -> dict[str, object]:
    """Runs source as a notebook runs a cell: linecache alone knows its text."""
    name = name or f"<cell {next(COUNTER)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, object] = {"__name__": "cells"}
    exec(compile(source, name, "exec"), namespace)
    return namespace


def code(source: str, function: str = "f") -> FunctionCode:
    return code_of(namespace_of(source)[function], where=WHERE)


def module_of(path: Path, source: str) -> ModuleType:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


# --- the committed fingerprints ------------------------------------------------------------------

FUNCTIONS = {
    "identity": "def f(x): return x",
    "arithmetic": "def f(a, b):\n    return (a - b) / (abs(a) + 1e-9) ** 2 // -3 % 7",
    "default": "def f(x, *, scale=2.5, name='a'):\n    return x * scale if name else None",
    "library": "import math\nimport numpy as np\nfrom math import exp\ndef f(x): return np.log1p(x) + exp(math.sqrt(x))",
    "constants": (
        "import datetime as dt, decimal, fractions\nA, B, C = 0.1, float('nan'), -0.0\nD = (1, 'é', b'\\xff', None, True, 1j)\n"
        "E = frozenset({'x', 'y', 1.5})\nF = dt.datetime(2024, 2, 29, tzinfo=dt.UTC)\nG = decimal.Decimal('1.10')\n"
        "H = fractions.Fraction(1, 3)\nI = dt.timedelta(hours=1)\ndef f(x): return (A, B, C, D, E, F, G, H, I, x)"
    ),
    "enum": "import enum\nclass Kind(enum.Enum):\n    A = 1\n    B = 'b'\ndef f(x): return x == Kind.A.value or x is Kind.B",
    "helper": "R = 6371.0\ndef f(a, b): return great(a) - great(b)\ndef great(x):\n    'Doc.'\n    return x * R",
    "mutual": "def f(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and f(n - 1)",
    "fstring": "def f(x, y):\n    return f'{x!r:>{y}} {{}} {x:.2f}' f'{y:}' 'z'",
    "loops": (
        "def f(xs):\n    total = 0\n    for i, x in enumerate(xs):\n        if x is None:\n            continue\n"
        "        while total > 100:\n            total -= 1\n        else:\n            total += i\n    return total"
    ),
    "comprehension": "def f(xs): return {k: [y for y in v if (last := y) > 0] for k, v in xs.items()} | {0: {*xs}}",
    "match": (
        "def f(x):\n    match x:\n        case {'a': a, **rest}: return a, rest\n        case [1, *more] | (2 as more): return more\n"
        "        case str(): return 's'\n        case _: return None"
    ),
    "try": "def f(x):\n    try:\n        return 1 / x\n    except (ZeroDivisionError, TypeError) as e:\n        raise ValueError('x') from e",
    "lambda": "f = lambda x, y=1: (x + y, x if y else -x)",
    "nested": "def f(xs):\n    def key(x, by=0): return x[by]\n    return sorted(xs, key=key), min(xs, key=lambda x: x[1])",
    "text": "def f(s): return s[1:-1:2].replace('\"', \"'\") + '\\u2028\\n' + r'\\d' + 'İ🛫'",
    "numbers": "def f(): return 0x10, 1_000, 1e400, 10**400, 0.1 + 2j, ...",
}


def golden() -> dict[str, str]:
    return {name: code(source).fingerprint for name, source in FUNCTIONS.items()}


def test_the_committed_fingerprints_hold() -> None:
    """A changed algorithm, or a Python version that reads code differently, shows here before it rebuilds users' views."""
    assert golden() == json.loads(GOLDEN.read_text())


def test_fingerprints_are_distinct() -> None:
    assert len(set(golden().values())) == len(FUNCTIONS)


# --- what does not matter, and what does ---------------------------------------------------------

BASE = "import math\nK = 2.0\ndef g(x): return x + 1\ndef f(x, y=1):\n    z = g(x) * K\n    return math.exp(z) - y\n"

SAME = {
    "comments": BASE.replace("return math", "# why\n    return math").replace("* K\n", "* K  # twice\n\n\n"),
    "docstrings": BASE.replace("y=1):\n", 'y=1):\n    """Doc."""\n').replace("def g(x): ", 'def g(x):\n  "Doc."\n  '),
    "annotations": BASE.replace("x, y=1)", "x: float, y: 'int' = 1) -> float").replace("z =", "z: float ="),
    "bare annotation": BASE.replace("    z =", "    z: float\n    z ="),
    "decorator": BASE.replace("def f", "def on_demand(**_): return lambda f: f\n@on_demand(\n  a=1,\n)\ndef f"),
    "line breaks": BASE.replace("g(x) * K", "(\n        g(\n            x,\n        )\n        * K\n    )"),
    "indentation": BASE.replace("    ", " "),
    "number style": BASE.replace("2.0", "20e-1").replace("y=1", "y=0x1"),
    "import style": BASE.replace("import math", "from math import exp as e").replace("math.exp", "e"),
    "import alias": BASE.replace("import math", "import math as m").replace("math.exp", "m.exp"),
    "function's name": BASE.replace("def f", "def named") + "f = named",
    "helper's name": BASE.replace("g(", "helper("),
    "constant's name": BASE.replace("K", "FACTOR"),
    "unread globals": "UNREAD = []\n" + BASE + "K3 = 3\n",
    "order in the file": BASE.replace("K = 2.0\n", "").replace("def g(x): return x + 1\n", "")
    + "K = 2.0\ndef g(x): return x + 1\n",
    "parentheses": BASE.replace("return math.exp(z) - y", "return ((math.exp((z))) - (y))"),
    "computed constant": BASE.replace("K = 2.0", "K = 4.0 / 2"),
    "default's expression": BASE.replace("y=1", "y=2 - 1"),
}

OTHER = {
    "operator": BASE.replace("g(x) * K", "g(x) / K"),
    "literal in a helper": BASE.replace("x + 1", "x + 2"),
    "literal's type": BASE.replace("x + 1", "x + 1.0"),
    "literal's bool": BASE.replace("x + 1", "x + True"),
    "constant": BASE.replace("K = 2.0", "K = 2.0000000000000004"),
    "constant's type": BASE.replace("K = 2.0", "K = 2"),
    "constant's sign": BASE.replace("K = 2.0", "K = -2.0"),
    "default": BASE.replace("y=1", "y=2"),
    "no default": BASE.replace("y=1", "y"),
    "keyword only": BASE.replace("y=1", "*, y=1"),
    "library function": BASE.replace("math.exp", "math.expm1"),
    "library": BASE.replace("import math", "import numpy as math"),
    "local's name": BASE.replace("z", "w"),
    "parameter's name": BASE.replace("x, y=1", "q, y=1").replace("g(x) *", "g(q) *"),
    "another helper": BASE.replace("def f", "def h(x): return x - 1\ndef f").replace("= g(x)", "= h(x)"),
    "statement": BASE.replace("    return math", "    z += 1\n    return math"),
    "order of arguments": BASE.replace("math.exp(z) - y", "y - math.exp(z)"),
    "grouping": BASE.replace("math.exp(z) - y", "math.exp(z - y)"),
    "string": BASE.replace("- y", "- y - len('a')"),
    "other string": BASE.replace("- y", "- y - len('b')"),
    "bytes": BASE.replace("- y", "- y - len(b'a')"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_matter(name: str) -> None:
    assert SAME[name] != BASE
    assert code(SAME[name]).fingerprint == code(BASE).fingerprint


@pytest.mark.parametrize("name", OTHER)
def test_what_matters(name: str) -> None:
    """Whatever changes the value changes the fingerprint, and the listing shows it."""
    assert code(OTHER[name]).fingerprint != code(BASE).fingerprint
    assert code(OTHER[name]).source != code(BASE).source


def test_changes_are_told_apart() -> None:
    assert len({code(source).fingerprint for source in OTHER.values()}) == len(OTHER)


def mutations(source: str) -> list[str]:
    """The source with one literal or operator changed, in every place."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):  # the parser shares one node between all uses of an operator
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.operator | ast.unaryop | ast.boolop):
                setattr(node, field, type(value)())
            elif isinstance(node, ast.Compare) and field == "ops":
                node.ops = [type(each)() for each in node.ops]
    function = next(node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef))
    swapped: dict[type[ast.AST], type[ast.AST]] = {
        ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mod,
        ast.Mod: ast.FloorDiv, ast.And: ast.Or, ast.Or: ast.And, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Gt: ast.GtE,
        ast.Is: ast.IsNot, ast.USub: ast.UAdd,
    }  # fmt: skip
    for index, node in enumerate(ast.walk(function)):
        changed = copy.deepcopy(tree)
        twin: Any = list(ast.walk(changed.body[tree.body.index(function)]))[index]
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | complex):
            twin.value = node.value + 1 if math.isfinite(abs(node.value)) else 5
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != "Doc.":
            twin.value = node.value + "?"
        elif type(node) in swapped:
            twin.__class__ = swapped[type(node)]
        else:
            continue
        found.append(ast.unparse(ast.fix_missing_locations(changed)))
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_literal_and_operator_matters(name: str) -> None:
    plain = code(ast.unparse(ast.parse(FUNCTIONS[name])))
    assert plain.fingerprint == code(FUNCTIONS[name]).fingerprint
    prints = [plain.fingerprint]
    for source in mutations(FUNCTIONS[name]):
        try:
            changed = code(source)
        except (ValueError, SyntaxError, TypeError):  # no program, or 'nan?' no float
            continue
        assert changed.source != plain.source, source
        prints.append(changed.fingerprint)
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("width", [20, 60, 200])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_formatting_does_not_matter(name: str, width: int) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), "format", "--isolated", f"--line-length={width}", "-"]
    source = subprocess.run(command, input=FUNCTIONS[name], capture_output=True, text=True, check=True).stdout
    assert code(source).fingerprint == code(FUNCTIONS[name]).fingerprint


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_comments_and_blank_lines_do_not_matter(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FUNCTIONS)))
    lines = []
    for line in FUNCTIONS[name].splitlines():
        lines += data.draw(st.lists(st.sampled_from(["", "   ", "# x", "        # 'y'"]), max_size=2))
        lines.append(line + data.draw(st.sampled_from(["", "  # z", "   "])))
    assert code("\n".join(lines) + "\n").fingerprint == code(FUNCTIONS[name]).fingerprint


@given(st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers() | st.decimals() | st.fractions())
def test_equal_fingerprints_are_equal_bits(value: object) -> None:
    """A constant counts by type and bits: the same value twice is the same, and 1, 1.0 and True are three."""

    def reads(constant: object) -> str:
        namespace = namespace_of("K = None\ndef f(): return K", "<constant>")
        namespace["K"] = constant
        return code_of(namespace["f"], where=WHERE).fingerprint

    assert reads(value) == reads(copy.deepcopy(value))
    others = [0, 0.0, -0.0, False, "", b"", None, (), (value,), frozenset(), str(value), math.nan, 1, 1.0, True]
    same = [each for each in others if type(each) is type(value) and repr(each) == repr(value)]
    assert [each for each in others if reads(each) == reads(value)] == same


# --- what is included ----------------------------------------------------------------------------


def test_includes_helpers_of_helpers_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions and constants of the repository's other modules count, whether as module.name or imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    helpers = "RATE = 3\nSHIFT = 1\ndef scale(x): return shift(x) * RATE\ndef shift(x): return x + SHIFT\n"
    views = "import fs_helpers\nfrom fs_helpers import shift as moved\ndef f(x): return fs_helpers.scale(x) + moved(x) + fs_helpers.RATE\n"

    def loaded(helper_source: str) -> FunctionCode:
        module_of(tmp_path / "fs_helpers.py", helper_source)
        return code_of(module_of(tmp_path / "fs_views.py", views).f, where=WHERE)

    before = loaded(helpers)
    assert before.names == ("fs_views.f", "fs_helpers.scale", "fs_helpers.shift")
    assert before.source == (
        "fs_helpers.RATE = 3\ndef f(x):\n    return scale(x) + shift(x) + fs_helpers.RATE\n\n"
        "RATE = 3\ndef scale(x):\n    return shift(x) * RATE\n\n"
        "SHIFT = 1\ndef shift(x):\n    return x + SHIFT\n"
    )
    assert loaded(helpers + "# more\n").fingerprint == before.fingerprint
    assert loaded(helpers.replace("SHIFT = 1", "SHIFT = 10")).fingerprint != before.fingerprint
    assert loaded(helpers.replace("RATE = 3", "RATE = 30")).fingerprint != before.fingerprint


def test_recursion_ends() -> None:
    assert code(FUNCTIONS["mutual"]).names == ("cells.f", "cells.odd")
    assert code("def f(n): return n and f(n - 1)").names == ("cells.f",)


def test_closures_over_literals_count_by_value() -> None:
    def scaled(by: Any) -> Callable[[float], float]:
        return lambda x: x * by

    first, again, other = (code_of(scaled(by), where=WHERE) for by in (2, 2, 3))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.source == "by = 2\ndef <lambda>(x):\n    return x * by\n"


def test_a_lambda_is_the_function_it_stands_for() -> None:
    assert code("f = lambda x, y=1: x + y").fingerprint == code("def f(x, y=1): return x + y").fingerprint


def test_defaults_count_by_value() -> None:
    sources = ["K = 1\ndef f(x=K): return x", "K = 2\ndef f(x=K): return x", "def f(x=2): return x"]
    first, second, third = (code(source).fingerprint for source in sources)
    assert first != second == third


def test_shadowed_names_are_local() -> None:
    """A name that is bound anywhere in its scope is no global, whatever the module holds under it."""
    source = (
        "x = y = z = e = k = v = t = w = rest = inner = []\n"
        "def f(x, q=1):\n"
        "    with q as w: pass\n"
        "    for y, (z, *t) in x: pass\n"
        "    try: pass\n    except ValueError as e: return e\n"
        "    def inner(v): return v, k\n"
        "    match x:\n        case {'a': 1, **rest}: return rest\n"
        "    return [k for v in y if (k := v)], {v: 1 for v in t}, z, w, (lambda k: k)(1), inner\n"
    )
    assert code(source).names == ("cells.f",)


@pytest.mark.parametrize("body", ["[x for x in x]", "[y for x in [1] for y in x] + x", "(lambda a=x: a)()"])
def test_names_outside_a_scope_are_global(body: str) -> None:
    with pytest.raises(DeclarationError, match="reads 'x', a global, of type 'list'"):
        code(f"x = []\ndef f(): return {body}")


def test_fingerprints_do_not_depend_on_the_process() -> None:
    """Sets of texts are iterated in another order by each process; their fingerprints and listings are the same."""
    command = [sys.executable, "-c", "import tests.declare.test_code as t; print(t.code(t.FUNCTIONS['constants']))"]
    root = Path(__file__).parents[2]
    outputs = {
        subprocess.run(
            command, cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "123"
    }
    assert outputs == {f"{code(FUNCTIONS['constants'])}\n"}


def test_notebook_cells_have_source() -> None:
    script = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_cell('%config Application.verbose_crash=False\\nK = 2\\ndef g(x): return x * K').raise_error()\n"
        "shell.run_cell('def f(x): return g(x) + 1').raise_error()\n"
        "from featurestore.declare.code import code_of\n"
        "print(code_of(shell.user_ns['f'], where='notebook').fingerprint)\n"
        "shell.run_cell('def f(x): return g(x) + 2').raise_error()\n"
        "print(code_of(shell.user_ns['f'], where='notebook').fingerprint)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    expected = [code(f"K = 2\ndef g(x): return x * K\ndef f(x): return g(x) + {n}").fingerprint for n in (1, 2)]
    assert done.stdout.split() == expected


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
