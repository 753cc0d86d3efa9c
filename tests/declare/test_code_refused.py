"""An on-demand function that is not pure, or whose meaning its code does not fix, is refused with the way out."""

import functools
import itertools
import linecache
from collections.abc import Callable
from pathlib import Path

import pytest

from featurestore.declare.code import FunctionCode, code_of
from featurestore.errors import DeclarationError

WHERE = "feature_repo/x.py:12"
COUNTER = itertools.count()


def code(source: str) -> FunctionCode:
    """The code of the source's f, run as a notebook runs a cell: linecache alone knows its text."""
    name = f"<cell {next(COUNTER)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, object] = {"__name__": "cells"}
    exec(compile(source, name, "exec"), namespace)
    return code_of(namespace["f"], where=WHERE)


IMPURE = {
    "datetime.now": "from datetime import datetime\ndef f(): return datetime.now()",
    "module.datetime.now": "import datetime as dt\ndef f(): return dt.datetime.now(dt.UTC)",
    "utcnow": "from datetime import datetime\ndef f(): return datetime.utcnow()",
    "date.today": "import datetime\ndef f(): return datetime.date.today()",
    "a clock under another name": "from datetime import datetime\nnow = datetime.now\ndef f(): return now()",
    "a clock that is passed on": "import time\ndef f(x): return x.map(time.time)",
    "time.time": "from time import time as t\ndef f(): return t()",
    "perf_counter": "import time\ndef f(): return time.perf_counter()",
    "pandas.Timestamp.now": "import pandas as pd\ndef f(): return pd.Timestamp.now()",
    "Timestamp('now')": "import pandas as pd\ndef f(): return pd.Timestamp('now')",
    "datetime64('today')": "import numpy as np\ndef f(): return np.datetime64('today')",
    "random.random": "import random\ndef f(): return random.random()",
    "imported random": "from random import random\ndef f(): return random()",
    "randint": "from random import randint\ndef f(): return randint(1, 2)",
    "numpy.random": "import numpy as np\ndef f(): return np.random.default_rng(0)",
    "imported numpy.random": "from numpy import random as r\ndef f(): return r.rand()",
    "imported rand": "from numpy.random import rand\ndef f(): return rand()",
    "numpy.empty": "import numpy as np\ndef f(): return np.empty(3)",
    "uuid4": "from uuid import uuid4\ndef f(): return uuid4()",
    "secrets": "import secrets\ndef f(): return secrets.token_hex()",
    "os.environ": "import os\ndef f(): return os.environ['X']",
    "os.getpid": "from os import getpid\ndef f(): return getpid()",
    "os.path": "import os.path\ndef f(x): return os.path.exists(x)",
    "Path": "from pathlib import Path\ndef f(x): return Path(x).read_text()",
    "open": "def f(x): return open(x).read()",
    "input": "def f(): return input()",
    "print": "def f(x): print(x)",
    "urllib": "import urllib.request\ndef f(x): return urllib.request.urlopen(x)",
    "httpx": "import httpx\ndef f(x): return httpx.get(x)",
    "socket": "import socket\ndef f(): return socket.gethostname()",
    "subprocess": "import subprocess\ndef f(): return subprocess.run(['ls'])",
    "eval": "def f(x): return eval(x)",
    "exec": "def f(x): exec(x)",
    "compile": "def f(x): return compile(x, '', 'eval')",
    "__import__": "def f(x): return __import__(x)",
    "globals": "def f(): return globals()",
    "locals": "def f(): return locals()",
    "hash": "def f(x): return hash(x)",
    "id": "def f(x): return sorted(x, key=id)",
    "in a nested function": "def f(x):\n    def g(y): return hash(y)\n    return g(x)",
    "in a comprehension": "def f(x): return [hash(y) for y in x]",
    "fromtimestamp": "from datetime import datetime\ndef f(x): return datetime.fromtimestamp(x)",
}


@pytest.mark.parametrize("name", IMPURE)
def test_impure_calls_are_refused(name: str) -> None:
    with pytest.raises(
        DeclarationError, match=r"On-demand function 'f' (uses|calls) '.*\(at <cell \d+>:\d\)\. .*x\.py:12"
    ):
        code(IMPURE[name])


def test_a_timezone_makes_it_pure() -> None:
    code("from datetime import UTC, datetime\ndef f(x): return datetime.fromtimestamp(x, UTC)")


REFUSED = {
    "list": ("K = [1]\ndef f(): return K", "reads 'K', a global, of type 'list'.*make it a constant of"),
    "dict": ("K = {}\ndef f(x): return K.get(x)", "reads 'K', a global, of type 'dict'"),
    "set": ("K = {1}\ndef f(x): return x in K", "reads 'K', a global, of type 'set'"),
    "list in a tuple": ("K = ([],)\ndef f(): return K", "reads 'K', a global, of type 'tuple'"),
    "object": ("K = object()\ndef f(): return K", "reads 'K', a global, of type 'object'"),
    "numpy scalar": ("import numpy as np\nK = np.float64(1)\ndef f(): return K", "reads 'K', a global, of type 'float64'"),
    "array": ("import numpy as np\nK = np.zeros(1)\ndef f(): return K", "reads 'K', a global, of type 'ndarray'"),
    "named tuple": ("import collections\nK = collections.namedtuple('K', 'a')(1)\ndef f(): return K", "reads 'K'"),
    "class": ("class K: pass\ndef f(): return K()", "reads 'K', a global, the class 'K'"),
    "method of a class": ("class K:\n    def m(self): return 1\ndef f(): return K.m(1)", "reads 'K', a global, the class 'K'"),
    "enum with methods": (
        "import enum\nclass K(enum.Enum):\n    A = 1\n    def m(self): return 2\ndef f(): return K.A.m()",
        "reads 'K.A'",
    ),
    "enum itself": ("import enum\nclass K(enum.Enum):\n    A = 1\ndef f(x): return K(x)", "reads 'K', a global, the class"),
    "enum of lists": ("import enum\nclass K(enum.Enum):\n    A = []\ndef f(): return K.A", "reads 'K.A'"),
    "partial": ("import functools\nK = functools.partial(int, base=2)\ndef f(x): return K(x)", "reads 'K', a global, of type 'partial'"),
    "cached helper": ("import functools\n@functools.cache\ndef g(x): return x\ndef f(x): return g(x)", "_lru_cache_wrapper"),
    "wrapped helper": (
        "import functools\ndef twice(h):\n    @functools.wraps(h)\n    def w(x): return 2 * h(x)\n    return w\n@twice\ndef g(x): return x\ndef f(x): return g(x)",
        "uses 'g', which reads 'h', a variable of the function around it, of type 'function'",
    ),
    "a library's wrapper": (
        "import contextlib\n@contextlib.contextmanager\ndef g(): yield 1\ndef f():\n    with g() as x: return x",
        "reads 'g', a global, of type 'function'",
    ),
    "attribute of a function": ("def g(): pass\ng.k = 1\ndef f(): return g.k", "reads an attribute of the function 'g'"),
    "undefined": ("def f(): return missing", "reads 'missing', which is not defined.*Define it above"),
    "file": ("__file__ = 'x'\ndef f(): return __file__", "reads '__file__', which differs between machines"),
    "global": ("K = 1\ndef f():\n    global K\n    K = 2", "has a 'global' statement"),
    "nonlocal": ("def f():\n    x = 1\n    def g():\n        nonlocal x\n        x = 2\n    return g()", "has a 'nonlocal'"),
    "import": ("def f(x):\n    import math\n    return math.exp(x)", "imports inside the function.*top of the file"),
    "from import": ("def f(x):\n    from math import exp\n    return exp(x)", "imports inside the function"),
    "class inside": ("def f(x):\n    class K: pass\n    return K", "defines a class"),
    "async": ("async def f(x): return x", "is async"),
    "async helper": ("async def g(x): return x\ndef f(x): return g(x)", "uses 'g', which is async"),
    "async inside": ("def f(x):\n    async def g(): pass\n    return g", "defines an async function"),
    "async generator": ("async def f(x): yield x", "is async"),
    "generator": ("def f(x): yield x", "is a generator"),
    "*args": ("def f(*args): return args", r"takes \*args"),
    "**kwargs": ("def f(**kwargs): return kwargs", r"takes \*args or \*\*kwargs"),
    "mutable default": ("def f(x=[]): return x", "has a default of 'x' that is a list"),
    "mutable keyword default": ("def f(*, x={}): return x", "has a default of 'x' that is a dict"),
    "changed defaults": ("def f(x=1): return x\nf.__defaults__ = (1, 2)", "had its defaults changed"),
    "two lambdas": ("f, g = lambda x: x, lambda x: -x", "is not the only lambda of its statement.*as a 'def'"),
    "two lambdas of a line": ("f = lambda x: x; g = lambda x: -x", "is not the only lambda"),
    "lambda in a lambda": ("f = lambda x: (lambda y: y)(x)", "is not the only lambda"),
    "callable object": ("class K:\n    def __call__(self, x): return x\nf = K()", "is a K, not a Python function"),
    "a class itself": ("class f: pass", "is a class"),
    "method": ("class K:\n    def m(self): return 1\nf = K.m", "is a class's method"),
    "bound method": ("class K:\n    def m(self): return 1\nf = K().m", "is a method, not"),
    "builtin": ("f = len", "is a builtin_function_or_method"),
    "C function": ("import math\nf = math.exp", "is a builtin_function_or_method"),
    "ufunc": ("import numpy\nf = numpy.exp", "is a ufunc"),
    "writes to a module": ("import math\ndef f(x): math.pi = 3", "changes 'math.pi'"),
    "closure over a list": ("def g(k):\n    return lambda x: x + k\nf = g([])", "reads 'k', a variable of the function around it, of type 'list'"),
    "closure over a function": ("def g(k):\n    return lambda x: k(x)\nf = g(len)", "reads 'k', a variable of the function around it"),
    "unset closure": ("def g():\n    def h(x): return k\n    return h\n    k = 1\nf = g()", "'k' of the function around it, which has no"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    source, message = REFUSED[name]
    with pytest.raises(DeclarationError, match=rf"(?s)^On-demand function '.*{message}.*\({WHERE}\)$"):
        code(source)


def test_without_source_it_is_refused() -> None:
    namespace: dict[str, object] = {}
    exec("f = lambda x: x\ndef g(x): return x", namespace)
    for name in "fg":
        with pytest.raises(DeclarationError, match=r"has no source \(at <string>:\d\)\. Define it in a file"):
            code_of(namespace[name], where=WHERE)


def test_a_file_that_changed_since_it_was_imported_is_refused(tmp_path: Path) -> None:
    file, namespace = tmp_path / "views.py", {}
    file.write_text("def f(x):\n    return x\n")
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    code_of(namespace["f"], where=WHERE)
    file.write_text("def f(x, y):\n    return x\n")
    with pytest.raises(DeclarationError, match="changed since it was imported.*Import it again"):
        code_of(namespace["f"], where=WHERE)


def test_the_message_says_where_in_a_helper() -> None:
    with pytest.raises(DeclarationError) as caught:
        code("import time\n\ndef g(x):\n    return x - time.time()\n\ndef f(x):\n    return g(x)\n")
    cell = f"<cell {next(COUNTER) - 1}>"
    assert str(caught.value) == (
        f"On-demand function 'f' uses 'g', which uses 'time.time', which reads a clock (at {cell}:4). "
        "Take RequestTime() as an input instead. (feature_repo/x.py:12)"
    )


def test_a_wrapper_is_read_itself_not_what_it_wraps() -> None:
    def doubled(function: Callable[[int], int]) -> Callable[[int], int]:
        @functools.wraps(function)
        def wrapper(x: int) -> int:
            return 2 * function(x)

        return wrapper

    with pytest.raises(DeclarationError, match="reads 'function', a variable of the function around it"):
        code_of(doubled(lambda x: x), where=WHERE)
