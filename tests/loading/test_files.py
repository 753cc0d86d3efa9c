"""Which files of a repository are run when it is opened."""

import logging
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from featurestore import Entity, FeatureStore
from featurestore.cli import app
from featurestore.config import load_config
from featurestore.errors import ConfigError, DeclarationError
from featurestore.loading.files import definition_files
from featurestore.types import String

DECLARES = 'from featurestore import Entity\nfrom featurestore.types import String\n{name} = Entity("{name}", key={{"{name}": String}})\n'
FAILS = "raise ValueError('run')\n"


def entity(name: str) -> str:
    """The text of a file that declares one."""
    return DECLARES.format(name=name)


def project(folder: Path, files: dict[str, str], toml: str = "") -> Path:
    """A repository with these files beside its featurestore.toml."""
    (folder / "featurestore.toml").write_text(f'project = "shop"\n{toml}')
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def entities(folder: Path) -> list[str]:
    """Those that opening the repository finds."""
    with FeatureStore(folder) as store:
        return sorted(store.catalog.entities)


OTHERS = {
    "make_data.py": FAILS,
    "train.py": "from featurestore import FeatureStore\nFeatureStore('.')\n",
    "test_x.py": "import a_package_that_is_not_installed\n",
}


def test_definitions_py_alone_is_run(tmp_path: Path) -> None:
    """A generator of data, a script that opens the store and a test beside it are not."""
    assert entities(project(tmp_path, {"definitions.py": entity("one"), **OTHERS})) == ["one"]


def test_each_module_of_the_package_features_is_run(tmp_path: Path) -> None:
    """With or without __init__.py, in folders too; not its tests, nor what an editor keeps in hidden folders."""
    package = {
        "features/orders.py": entity("orders"),
        "features/more/carts.py": entity("carts"),
        "features/test_orders.py": FAILS,
        "features/conftest.py": FAILS,
        "features/tests/helper.py": FAILS,
        "features/__main__.py": FAILS,
        "features/.ipynb_checkpoints/orders-checkpoint.py": FAILS,
    }
    assert entities(project(tmp_path, {**package, **OTHERS})) == ["carts", "orders"]
    (tmp_path / "features/__init__.py").write_text(entity("whole"))
    assert entities(tmp_path) == ["carts", "orders", "whole"]


def test_a_folder_features_without_python_files_is_no_package(tmp_path: Path) -> None:
    """It may hold data."""
    data = {"features/a.csv": "", "features/test_a.py": "", "features/day=2025-01-01/made.py": FAILS}
    assert entities(project(tmp_path, {"definitions.py": entity("one"), **data})) == ["one"]


def test_both_are_refused_until_the_file_says_which(tmp_path: Path) -> None:
    """Neither goes silently before the other; each line that the error names is right."""
    files = {"definitions.py": entity("one"), "features/orders.py": entity("orders"), "features/test_orders.py": FAILS}
    folder = project(tmp_path, files)
    with pytest.raises(DeclarationError, match=r"has both definitions\.py and the package features/") as refused:
        FeatureStore(folder)
    lines = re.findall(r"definitions = \[.*?\]", str(refused.value))
    found = [entities(project(tmp_path, {}, f"{line}\n")) for line in lines]
    assert found == [["one"], ["one", "orders"]]


def test_a_repository_of_other_files_is_told_the_line_that_loads_them(tmp_path: Path) -> None:
    """Every *.py was run once; files that import nothing to declare with are not named."""
    folder = project(tmp_path, {"b.py": entity("b"), "a.py": entity("a"), **OTHERS})
    with pytest.raises(DeclarationError, match=r"neither definitions\.py nor a package features/") as refused:
        FeatureStore(folder)
    line = 'definitions = ["a.py", "b.py"]'
    assert line in str(refused.value)
    assert entities(project(tmp_path, {}, f"{line}\n")) == ["a", "b"]


def test_scripts_alone_declare_nothing(tmp_path: Path) -> None:
    """So a store opens whose features are declared in calls."""
    assert entities(project(tmp_path, OTHERS)) == []


def test_patterns_are_run_as_they_are_listed(tmp_path: Path) -> None:
    """Sorted, each once; folders and other files are left out."""
    names = ("b.py", "a.py", "c.txt", "more/deep/d.py", "more/e.py", "definitions.py", "features/f.py")
    folder = project(
        tmp_path, dict.fromkeys(names, ""), 'definitions = ["*.py", "more/**/*.py", "b.py", "none/*.py"]\n'
    )
    (folder / "folder.py").mkdir()
    found = [str(path.relative_to(folder)) for path in definition_files(load_config(folder)).loaded]
    assert found == ["a.py", "b.py", "definitions.py", "more/deep/d.py", "more/e.py"]


def test_a_listed_file_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it would be a plan that removes everything; what a variable holds is not shown."""
    monkeypatch.setenv("FS_SECRET", "sesame")
    folder = project(tmp_path, {"a.py": ""}, 'definitions = ["a.py", "${FS_SECRET}.py"]\n')
    with pytest.raises(ConfigError, match=re.escape("definitions[1]: there is no file '${FS_SECRET}.py'")) as refused:
        FeatureStore(folder)
    assert "sesame" not in str(refused.value)
    with pytest.raises(ConfigError, match=re.escape("definitions[0]: there is no module in 'none/'")):
        FeatureStore(project(tmp_path, {}, 'definitions = ["none/"]\n'))


def test_a_plan_removes_nothing_that_a_file_declares_which_was_run_once(tmp_path: Path) -> None:
    """It names the file and both lines: the one that loads it, and the one that means what the plan would do."""
    folder = project(tmp_path, {"definitions.py": entity("one"), "more.py": entity("two")}, 'definitions = ["*.py"]\n')
    with FeatureStore(folder) as store:
        store.apply()
    project(folder, {})
    with FeatureStore(folder) as store, pytest.raises(DeclarationError, match=r"'two' is applied.*more\.py") as refused:
        store.plan()
    keeps, removes = re.findall(r"definitions = \[.*?\]", str(refused.value))
    with FeatureStore(project(folder, {}, f"{keeps}\n")) as store:
        assert store.plan().is_empty
    with FeatureStore(project(folder, {}, f"{removes}\n")) as store:
        assert [step.name for step in store.plan().steps] == ["two"]
    project(folder, {"more.py": "# two\n"})
    with FeatureStore(folder) as store:
        assert [step.name for step in store.plan().steps] == ["two"]


def test_a_plan_of_no_files_does_not_remove_everything(tmp_path: Path) -> None:
    """Where definitions.py was moved away; what is removed on purpose is said so."""
    folder = project(tmp_path, {"definitions.py": entity("one")})
    with FeatureStore(folder) as store:
        store.apply()
    (folder / "definitions.py").unlink()
    with FeatureStore(folder) as store:
        with pytest.raises(DeclarationError, match="remove all that is applied. featurestore teardown does that"):
            store.apply()
        assert store.plan([Entity("one", key={"one": String})]).is_empty
    with FeatureStore(project(folder, {}, "definitions = []\n")) as store:
        assert len(store.plan().steps) == 1


def test_lists_of_definitions_are_declared(tmp_path: Path) -> None:
    """By the module's names that hold them, as by those that hold one; not what is nested deeper, nor what is another's."""
    text = """
from featurestore import Entity
from featurestore.types import String

made = [Entity(name, key={name: String}) for name in ("a", "b")]
by_name = {name: Entity(name, key={name: String}) for name in ("c", "d")}
nested = [[Entity("deep", key={"deep": String})], 5, None]
first, *others = made
"""
    assert entities(project(tmp_path, {"definitions.py": text})) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("files", "toml", "says"),
    [
        ({}, "", "has no definitions.py and no package features/; featurestore init DIR writes an example"),
        ({"definitions.py": "x = 1\n"}, "", "no name in definitions.py holds a definition"),
        ({"features/a.py": ""}, "", "no name in features/a.py holds a definition"),
        ({}, "definitions = []\n", "`definitions` in featurestore.toml names no file that is there"),
    ],
)
def test_a_repository_that_declares_nothing_says_where_it_would(
    tmp_path: Path, files: dict[str, str], toml: str, says: str
) -> None:
    """At the end of plan, apply and show."""
    folder = project(tmp_path, files, toml)
    for command in ("plan", "apply", "show"):
        done = CliRunner().invoke(app, ["--repo", str(folder), command])
        assert done.exit_code == 0
        assert done.stdout.splitlines()[-1].startswith("Nothing is declared: ")
        assert says in done.stdout


def test_linked_folders_of_a_package_are_loaded_once(tmp_path: Path) -> None:
    """They were passed over without a word; a link to a folder above, or to one that is loaded, brings nothing twice."""
    shared = tmp_path / "shared"
    (shared / "inner").mkdir(parents=True)
    (shared / "inner/carts.py").write_text(entity("carts"))
    (shared / "orders.py").write_text("from .inner.carts import carts\n" + entity("orders"))
    (tmp_path / "repo").mkdir()
    folder = project(tmp_path / "repo", {"features/own/base.py": entity("base")})
    (folder / "features/shared").symlink_to(shared)
    (folder / "features/again").symlink_to(folder / "features/own")
    (folder / "features/own/above").symlink_to(folder / "features")
    assert entities(folder) == ["base", "carts", "orders"]
    linked = tmp_path / "linked"
    linked.mkdir()
    project(linked, {})
    (linked / "features").symlink_to(folder / "features/own")
    assert entities(linked) == ["base", "carts", "orders"]  # by way of the link above


@pytest.mark.parametrize("toml", ["", 'definitions = ["features/"]\n'])
def test_a_folder_that_is_no_module_is_told(tmp_path: Path, toml: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where it seems to declare something; what editors and data leave is none."""
    folder = project(
        tmp_path,
        {
            "features/base.py": entity("base"), "features/my-views/carts.py": entity("carts"), "features/more/2024/old.py": entity("old"),
            "features/raw-data/notes.py": "x = 1\n", "features/.hidden-one/x.py": entity("hidden"), "features/tests/x.py": FAILS,
        }, toml,
    )  # fmt: skip
    caplog.set_level(logging.WARNING, "featurestore")
    assert entities(folder) == ["base"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2, told
    assert (
        "features/my-views is not loaded: 'my-views' is no name of a module; call the folder 'my_views', or list"
        in told[0] + told[1]
    )
    assert (
        "features/more/2024 is not loaded: '2024' is no name of a module; call the folder '_2024'" in told[0] + told[1]
    )
