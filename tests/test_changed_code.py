"""Code that is replaced in a running process: what was declared is trained and served, and it is said that more is there."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureService, FeatureStore, on_demand
from featurestore.types import Float64
from tests.small import apply, both, hours, opened, table, view_of

ROOT = Path(__file__).parent.parent
BEFORE = "def inner(x): return x + 1.0\ndef base(x): return inner(x) * 2.0\n"
AFTER = "def inner(x): return x + 100.0\ndef base(x): return inner(x) * 2.0\n"

USES = """
import shared_code
from featurestore import FeatureService, on_demand
from featurestore.types import Float64

def service(view):
    @on_demand(inputs=[view["x"]], output=Float64)
    def scored(x): return shared_code.base(x)
    return FeatureService("service", features=[view, scored])
"""


def edit(path: Path, source: str) -> None:
    """An edit that everybody sees, however coarse the times of files are."""
    later = path.stat().st_mtime + 10 if path.exists() else None
    path.write_text(source)
    if later is not None:
        os.utime(path, (later, later))


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(tmp_path)
    edit(tmp_path / "shared_code.py", BEFORE)
    edit(tmp_path / "own_features.py", USES)
    for name in ("shared_code", "own_features"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("own_features")
    for name in ("shared_code", "own_features"):
        sys.modules.pop(name, None)


def test_after_a_reload_the_fingerprint_is_still_that_of_what_runs(
    shared: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    view = view_of(table(thing=[1], at=[hours(-1)], x=[3.0]), ["x"])
    with opened(shared.service(view)) as (store, _):
        assert both(store, thing=[1])["scored"] == [8.0]
        first = store.get_online_features({"thing": 1}, "service").service.fingerprint
        assert not told(caplog)
        edit(tmp_path / "shared_code.py", AFTER)
        importlib.reload(shared.shared_code)
        assert shared.shared_code.base(3.0) == 206.0
        assert both(store, thing=[1])["scored"] == [8.0]
        assert store.get_online_features({"thing": 1}, "service").service.fingerprint == first
        (said,) = told(caplog)
        assert "On-demand feature 'scored': shared_code.inner changed since it was declared" in said
        assert "own_features.py:" in said
        (notice,) = [notice for notice in store.plan().notices if "changed since" in notice.text]
        assert (notice.name, notice.act) == ("scored", True)

        caplog.clear()
        apply(store, shared.service(view))
        assert both(store, thing=[1])["scored"] == [206.0]
        assert store.get_online_features({"thing": 1}, "service").service.fingerprint != first
        assert not told(caplog)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "changed since it was declared" in record.getMessage()]


def test_functions_of_a_loop_are_each_their_own(caplog: pytest.LogCaptureFixture) -> None:
    view = view_of(table(thing=[1], at=[hours(-1)], x=[3.0]), ["x"])
    scaled = []
    for factor in (1.0, 10.0, 100.0):

        def times(x: float) -> float:
            return x * factor  # noqa: B023 - that it is one name for all is what is tested

        scaled.append(on_demand(times, name=f"times{factor:.0f}", inputs=[view["x"]], output=Float64))
    with opened(FeatureService("service", features=scaled)) as (store, _):
        assert list(both(store, thing=[1]).values()) == [[3.0], [30.0], [300.0]]
        assert not told(caplog), "which is no change of the code"


def test_files_of_definitions_keep_the_code_that_they_were_opened_with(tmp_path: Path) -> None:
    (tmp_path / "featurestore.toml").write_text('project = "p"\n')
    edit(tmp_path / "shared_code.py", BEFORE)
    view = "from tests.small import hours, table, view_of\nview = view_of(table(thing=[1], at=[hours(-1)], x=[3.0]), ['x'])\n"
    (tmp_path / "definitions.py").write_text(f"{USES}\n{view}\nservice = service(view)\n")
    with FeatureStore(tmp_path) as store:
        scored = store.catalog.on_demand["scored"]
        edit(tmp_path / "shared_code.py", AFTER)
        assert scored(3.0) == 8.0
        assert scored.changed() == ("definitions.service.<locals>.scored",)
    with FeatureStore(tmp_path) as store:
        assert store.catalog.on_demand["scored"](3.0) == 206.0
        assert store.catalog.on_demand["scored"].code != scored.code


SHELL = """
import json, os, sys
from IPython.core.interactiveshell import InteractiveShell

path, before, after = {path!r}, {before!r}, {after!r}
shell = InteractiveShell.instance()

def cell(text):
    shell.run_cell(text).raise_error()

cell("%config Application.verbose_crash=False\\n%load_ext autoreload\\n%autoreload 2")
cell('''
import logging
import shared_code
{imports}
from featurestore import FeatureService, FeatureStore, ManualClock, on_demand
from featurestore.types import Float64
from tests.small import NOON, both, hours, table, view_of
logging.basicConfig(stream=open(logged := path + ".log", "w"))
view = view_of(table(thing=[1], at=[hours(-1)], x=[3.0]), ["x"])
store = FeatureStore.local(clock=ManualClock(NOON))
said = []
'''.replace("path", repr(path)))
declared = '''
@on_demand(inputs=[view["x"]], output=Float64)
def scored(x): return {call}(x)
store.apply([view, scored, FeatureService("service", features=[view, scored])])
'''
asked = '''
fingerprint = store.get_online_features({{"thing": 1}}, "service").service.fingerprint
said.append([both(store, thing=[1])["scored"], fingerprint, {call}(3.0)])
'''
cell(declared)
cell("both(store, thing=[1])")
cell(asked)
later = os.stat(path).st_mtime + 10
open(path, "w").write(after)
os.utime(path, (later, later))
cell(asked)
cell(declared)
cell("both(store, thing=[1])")
cell(asked)
cell("store.close()")
print(json.dumps([shell.user_ns["said"], open(path + ".log").read()]))
"""


@pytest.mark.parametrize(
    ("imports", "call"), [("", "shared_code.base"), ("from shared_code import base", "base")], ids=["module", "name"]
)
def test_autoreload_in_a_notebook(tmp_path: Path, imports: str, call: str) -> None:
    """IPython puts new code into the old functions whenever a cell is run."""
    path = tmp_path / "shared_code.py"
    edit(path, BEFORE)
    script = SHELL.format(path=str(path), before=BEFORE, after=AFTER, imports=imports, call=call)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "IPYTHONDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    (first, reloaded, declared), log = json.loads(done.stdout.splitlines()[-1])
    assert first[::2] == [[8.0], 8.0]
    assert reloaded == [[8.0], first[1], 206.0], "the notebook calls the new code, the store what was applied"
    assert "'scored': shared_code.inner changed since it was declared" in log
    assert declared[::2] == [[206.0], 206.0]
    assert declared[1] != first[1]
