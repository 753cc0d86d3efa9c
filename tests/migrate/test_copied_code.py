"""A user's functions are copied with what they need, and nothing of Feast's; what cannot be copied says why."""

from __future__ import annotations

import ast
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from featurestore.migrate.copied_code import CopiedModule, UncopiedError, copy_function, copy_text, mentioned
from tests.migrate.feast_records import (
    Repository,
    entity,
    fields,
    formatter,
    matters,
    projection,
    reasons,
    rows,
    service,
    view,
)
from tests.small import hours


def copied(text: str, name: str = "f", line: int | None = None) -> str:
    text = textwrap.dedent(text)
    module = CopiedModule("feast_m", "m.py", ast.parse(text))
    copy_function(module, text, name, line)
    return module.text()


def test_what_a_function_needs_comes_along_and_nothing_else() -> None:
    """Imports, constants and helpers, through one another; with comments, and without the decorators of Feast's."""
    found = copied(
        """
        from __future__ import annotations
        import os
        from typing import Any, Dict
        import numpy as np
        from feast import Entity, on_demand_feature_view

        LIMIT = 3  # rides
        OTHER = Entity(name="x")
        try:
            import pandas as pd
        except ImportError:
            pd = None

        def half(x: float) -> float:
            # as ever
            return x / TWO

        TWO = 2.0

        @on_demand_feature_view(sources=[OTHER], schema=[])
        def f(inputs: Dict[str, Any]) -> Dict[str, Any]:
            return {"a": [half(x) if x > LIMIT else np.nan for x in inputs["x"]]}

        def g():
            return os.environ
        """
    )
    assert found == (
        '"""Functions of m.py, as they are there."""\n\n'
        "import numpy as np\nfrom typing import Any, Dict\n\n"
        "LIMIT = 3  # rides\n\n\n"
        "def half(x: float) -> float:\n    # as ever\n    return x / TWO\n\n\n"
        "TWO = 2.0\n\n\n"
        "def f(inputs: Dict[str, Any]) -> Dict[str, Any]:\n"
        '    return {"a": [half(x) if x > LIMIT else np.nan for x in inputs["x"]]}\n'
    )


def test_imports_within_a_function_go_to_the_top() -> None:
    found = copied(
        '''
        def f(inputs):
            """Says what it does."""
            import pandas as pd
            try:
                from math import sqrt as root
            except ImportError:
                root = None
            return pd.DataFrame({"y": inputs["x"].map(root)})
        '''
    )
    assert found.startswith(
        '"""Functions of m.py, as they are there."""\n\nimport pandas as pd\nfrom math import sqrt as root\n\n\ndef f('
    )
    assert "import" not in found.split("def f(")[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("from feast import Field\ndef f(inputs):\n    return Field\n", "it uses 'Field' of Feast"),
        ("from .helpers import clean\ndef f(inputs):\n    return clean(inputs)\n", r"another module of the repository declares \(.helpers\)"),
        ("def outer():\n    def f(inputs):\n        return inputs\n    return f\n", "is not a function at the top of its module"),
        ("f = lambda inputs: inputs\n", "is not a function at the top of its module"),
    ],
)  # fmt: skip
def test_what_cannot_be_copied_says_why(text: str, why: str) -> None:
    with pytest.raises(UncopiedError, match=why):
        copied(text)


def test_of_two_functions_of_a_name_the_line_tells_which() -> None:
    text = "@deco_feature_view\ndef f(x):\n    return 1\n\n@other_feature_view\ndef f(x):\n    return 2\n"
    assert "return 1" in copied(text, line=1)
    assert "return 2" in copied(text, line=5)
    assert "return 2" in copied(text, line=6)


def test_of_a_text_alone_usual_names_are_known() -> None:
    """As a registry has it; a name of which nothing is known is refused."""
    module = CopiedModule("feast_registry", "the registry", ast.parse(""))
    text = "@on_demand_feature_view(\n    sources=[x],\n)\ndef f(inputs: pd.DataFrame) -> pd.DataFrame:\n    return np.sqrt(inputs)\n"
    assert copy_text(module, text) == "f"
    assert module.text().startswith(
        '"""Functions of the registry, as they are there."""\n\nimport numpy as np\nimport pandas as pd\n'
    )
    with pytest.raises(UncopiedError, match="nothing says what clean is"):
        copy_text(module, "def g(inputs):\n    return clean(inputs)\n")
    with pytest.raises(UncopiedError, match="cannot be parsed"):
        copy_text(module, "lambda inputs: (\n")


@pytest.mark.parametrize(
    ("body", "only"),
    [
        ('return inputs["a"] + inputs["b"]', True),
        ('return inputs[["a", "b"]].sum(axis=1)', True),
        ('return inputs.get("a")', True),
        ("return inputs.sum(axis=1)", False),
        ("return clean(inputs)", False),
        ("return inputs[NAME]", False),
    ],
)
def test_a_function_that_reads_columns_by_name_is_told_from_others(body: str, only: bool) -> None:
    module = CopiedModule("m", "m.py", ast.parse(""))
    copy_text_or_function = f"def f(inputs):\n    {body}\n"
    module.parts[1] = copy_text_or_function
    words, by_name = mentioned(module, "f")
    assert by_name is only
    assert ("a" in words) is ('"a"' in body)


# --- whole on-demand views ----------------------------------------------------------------------


def on_demand(path: Path, name: str, line: int, *, mode: str, outputs: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": "OnDemandFeatureView", "mode": mode, "fields": fields(**outputs),
        "inputs": [projection("stats", "rate", "trips")],
        "requests": [{"name": "asked", "fields": fields(extra="Int64")}],
        "code": {"text": "", "name": name, "file": str(path), "line": line}, **more,
    }  # fmt: skip


PANDAS = """import pandas as pd


def both(inputs: pd.DataFrame) -> pd.DataFrame:
    df = pd.DataFrame()
    df["more"] = inputs["rate"] + inputs["extra"]
    df["many"] = (inputs["stats__trips"].fillna(0) > 2).map({True: "yes", False: "no"})
    return df
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    found = Repository(tmp_path)
    rows(found.feast)
    return found


def move(repository: Repository, *functions: dict[str, Any], **objects: Any) -> Any:
    stats = view("stats", {"rate": "Float32", "trips": "Int64"}, "driver")
    return repository.move(entities=[entity("driver")], views=[stats], on_demand=list(functions), **objects)


def test_a_view_of_two_outputs_is_two_functions_that_call_the_users_own(repository: Repository) -> None:
    """Which gets the frame that Feast gives it: floats with NaN for null."""
    file = repository.feast / "features.py"
    file.write_text(PANDAS)
    both = on_demand(file, "both", 4, mode="pandas", outputs={"more": "Float64", "many": "String"})
    moved = move(repository, both, services=[service("model", projection("both", "many", "more"))])
    assert moved.refused == []
    assert matters(moved, "both")["split"] == "one function for each"
    assert (
        repository.out / "feast_features.py"
    ).read_text() == f'"""Functions of features.py, as they are there."""\n\n{PANDAS}'
    line = [*formatter(), "format", "--check", "--diff", "--line-length", "120", "."]
    done = subprocess.run(line, cwd=repository.out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    spine = {"driver_id": [1, 2, 3], "extra": [1, 1, 1], "event_timestamp": [hours(1)] * 3}
    import pandas as pd

    with repository.opened() as store:
        found = store.get_historical_features(pd.DataFrame(spine), "model").to_pandas()
        assert found["more"].to_list()[:1] == [1.75]
        assert found["more"].isna().to_list() == [False, True, True]
        assert found["many"].to_list() == ["yes", "yes", "no"]
        store.apply()
        store.materialize(progress=False)
        online = store.get_online_features([{"driver_id": 1, "extra": 1}], "model").to_dict()
    assert (online["many"], online["more"]) == (["yes"], [2.0])


@pytest.mark.parametrize("singleton", [False, True])
def test_a_function_over_dicts_is_given_lists_of_one_or_scalars(repository: Repository, singleton: bool) -> None:
    take = 'inputs["trips"] * 2' if singleton else '[x * 2 for x in inputs["trips"]]'
    file = repository.feast / "features.py"
    file.write_text(f'def twice(inputs):\n    return {{"double": {take}}}\n')
    twice = on_demand(file, "twice", 1, mode="python", outputs={"double": "Int64"}, singleton=singleton, stored=True)
    moved = move(repository, twice)
    assert moved.refused == []
    assert matters(moved, "twice")["write_to_online_store"] == "computed at each lookup"
    assert ("rows at once" in matters(moved, "twice")) is not singleton
    import pandas as pd

    with repository.opened() as store:
        assert [one.columns[0] for one in store.catalog.on_demand["double"].selections] == ["stats__trips"]
        spine = pd.DataFrame({"driver_id": [1], "extra": [1], "event_timestamp": [hours(1)]})
        assert store.get_historical_features(spine, ["double"]).to_pandas()["double"].to_list() == [6]


@pytest.mark.parametrize(
    ("body", "more", "why"),
    [
        ('    print("x")\n    return inputs', {}, "print"),
        ("    return datetime.now()", {}, "reads a clock"),
        ("    import not_there_at_all\n    return not_there_at_all.f(inputs)", {}, "No module named 'not_there_at_all'"),
        ("    return inputs", {"mode": "substrait"}, "its mode is 'substrait'"),
        ("    return inputs", {"inputs": [projection("gone", "x")]}, "it reads view 'gone', which is not taken over"),
        ('    return inputs["gone"]', {"inputs": [projection("stats", "gone")]}, "it reads 'stats:gone', which is not taken over"),
        ("    return inputs", {"aggregations": [{"column": "x", "function": "sum"}]}, "it aggregates rows"),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_is_refused_by_name_with_its_services(
    repository: Repository, body: str, more: dict[str, Any], why: str
) -> None:
    file = repository.feast / "features.py"
    file.write_text(f"from datetime import datetime\n\n\ndef bad(inputs):\n{body}\n")
    said = {"mode": "python", "outputs": {"out": "Int64"}, **more}
    moved = move(repository, on_demand(file, "bad", 4, **said), services=[service("model", projection("bad", "out"))])
    assert why in reasons(moved, "on-demand feature view")["bad"]
    assert reasons(moved, "feature service") == {"model": "none of its features is taken over: bad:out"}
    assert sorted(path.name for path in repository.out.iterdir()) == [
        ".gitignore",
        "definitions.py",
        "featurestore.toml",
    ]
    repository.opened().close()


def test_outputs_that_have_a_taken_name_are_renamed_and_told(repository: Repository) -> None:
    """Another output's, a request value's, a key's, a word of Python's."""
    file = repository.feast / "features.py"
    file.write_text(
        'def one(inputs):\n    return {name: inputs["trips"] for name in ("extra", "class", "x")}\n\n\ntwo = one\n\n\ndef three(inputs):\n    return {"x": inputs["trips"]}\n'
    )
    one = on_demand(
        file,
        "one",
        1,
        mode="python",
        singleton=True,
        outputs={"extra": "Int64", "class": "Int64", "x": "Int64", "driver_id": "Int64"},
    )
    three = on_demand(file, "three", 8, mode="python", singleton=True, outputs={"x": "Int64"})
    moved = move(repository, one, three)
    assert moved.functions["one"].features == {
        "extra": "one_extra",
        "class": "class",
        "x": "x",
        "driver_id": "one_driver_id",
    }
    assert moved.functions["three"].features == {"x": "three_x"}
    assert "def class_(" in repository.definitions
    with repository.opened() as store:
        assert set(store.catalog.on_demand) == {"one_extra", "class", "x", "one_driver_id", "three_x"}


def test_floats_are_float64_since_nothing_is_rounded(repository: Repository) -> None:
    file = repository.feast / "features.py"
    file.write_text('def third(inputs):\n    return {"third": inputs["trips"] / 3}\n')
    moved = move(repository, on_demand(file, "third", 1, mode="python", singleton=True, outputs={"third": "Float32"}))
    assert matters(moved, "third")["type"] == "Float64"
    import pandas as pd

    with repository.opened() as store:
        spine = pd.DataFrame({"driver_id": [1], "extra": [1], "event_timestamp": [hours(0)]})
        assert store.get_historical_features(spine, ["third"]).to_pandas()["third"].to_list() == [1 / 3]


def test_what_other_modules_of_the_repository_declare_comes_along(repository: Repository) -> None:
    """By an absolute import or a relative one, through another module, and with what it needs there; no more than that."""
    texts = {
        "lib/__init__.py": "from lib.scales import scale as scaled\nimport not_there_at_all\n",
        "lib/scales.py": "from lib import units\nfrom .deep.units import TEN\nimport math\n\n\ndef scale(x):\n    return math.floor(x * TEN)\n\n\nOTHER = 3\n",
        "lib/deep/__init__.py": "",
        "lib/deep/units.py": "ONE = 1\nTEN = ONE * 10\n",
        "lib/mine.py": "from lib import scaled\nfrom . import scaled as again\n\n\ndef f(inputs):\n    return {'y': scaled(inputs['x']) + again(1)}\n",
    }
    for name, text in texts.items():
        (repository.feast / name).parent.mkdir(parents=True, exist_ok=True)
        (repository.feast / name).write_text(text)
    code = {"name": "f", "file": str(repository.feast / "lib/mine.py"), "line": 5, "text": ""}
    asked = [{"name": "asked", "fields": fields(x="Float64")}]
    view_of_f = {
        "name": "f", "kind": "OnDemandFeatureView", "fields": fields(y="Int64"), "requests": asked, "mode": "python",
        "singleton": True, "code": code,
    }  # fmt: skip
    moved = repository.move(on_demand=[view_of_f])
    assert reasons(moved) == {}
    assert {*moved.modules} == {"feast_mine.py", "feast_lib.py", "feast_scales.py", "feast_units.py"}
    assert "OTHER" not in moved.modules["feast_scales.py"]
    assert "not_there" not in moved.modules["feast_lib.py"]
    with repository.opened() as store:
        assert store.catalog.on_demand["y"](2.5) == 35


def test_a_helper_that_is_not_where_it_is_imported_from_is_told(repository: Repository) -> None:
    (repository.feast / "helpers.py").write_text("from helpers import *\n")
    (repository.feast / "mine.py").write_text(
        "from helpers import gone\n\n\ndef f(inputs):\n    return {'y': gone()}\n"
    )
    code = {"name": "f", "file": str(repository.feast / "mine.py"), "line": 4, "text": ""}
    asked = [{"name": "asked", "fields": fields(x="Float64")}]
    one = {
        "name": "f",
        "kind": "OnDemandFeatureView",
        "fields": fields(y="Int64"),
        "requests": asked,
        "mode": "python",
        "code": code,
    }
    assert reasons(repository.move(on_demand=[one])) == {
        "f": "it uses 'gone', which stands at the top of helpers.py under no such name"
    }


def test_files_of_one_name_in_two_folders_are_two_modules(repository: Repository) -> None:
    calls = []
    for folder in ("a", "b"):
        file = repository.feast / folder / "features.py"
        file.parent.mkdir()
        file.write_text(f'VALUE = "{folder}"\n\n\ndef f(inputs):\n    return {{"{folder}_out": VALUE}}\n')
        function = on_demand(file, "f", 4, mode="python", singleton=True, outputs={f"{folder}_out": "String"})
        calls.append({**function, "name": f"f_{folder}"})
    moved = move(repository, *calls)
    assert moved.refused == []
    with repository.opened() as store:
        assert [one(1) for one in store.catalog.on_demand.values()] == ["a", "b"]
