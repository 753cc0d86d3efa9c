"""How files of definitions are run: apart from other modules, told by file and line, and without touching what a command prints."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from featurestore import FeatureStore
from featurestore.cli import app
from featurestore.declare.declaration import OURS
from featurestore.errors import DeclarationError
from tests.loading.test_files import entities, entity, project


def refusal(folder: Path) -> str:
    """What opening the repository says."""
    with pytest.raises(DeclarationError) as refused:
        FeatureStore(folder)
    return str(refused.value)


# --- a repository that is opened while it is loaded ------------------------------------------


def test_definitions_that_open_their_repository_are_one_error_with_file_and_line(tmp_path: Path) -> None:
    """However far from the file of definitions the call is."""
    opens = "from featurestore import FeatureStore\n\n\nstore = FeatureStore('.')\n"
    folder = project(tmp_path, {"definitions.py": "import train\n", "train.py": opens})
    ran = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "featurestore.errors.DeclarationError: train.py:4 opens a repository while definitions.py is being loaded"
    )


def test_a_script_that_opens_the_store_under_a_guard_may_be_a_file_of_definitions(tmp_path: Path) -> None:
    guarded = f'{entity("one")}if __name__ == "__main__":\n    from featurestore import FeatureStore\n    print(FeatureStore("."))\n'
    folder = project(tmp_path, {"definitions.py": guarded})
    ran = subprocess.run(
        [sys.executable, "definitions.py"], cwd=folder, capture_output=True, text=True, timeout=600, check=True
    )
    assert "project='shop'" in ran.stdout


def test_a_store_can_be_opened_once_the_script_has_failed(tmp_path: Path) -> None:
    opens = f"from featurestore import FeatureStore\n\nFeatureStore({str(tmp_path)!r})\n"
    folder = project(tmp_path, {"definitions.py": opens})
    assert f"{folder}/definitions.py:3 opens a repository" in refusal(folder)
    (folder / "definitions.py").write_text("")
    FeatureStore(folder).close()


def test_threads_load_repositories_one_after_the_other(tmp_path: Path) -> None:
    """What loading changes belongs to the process: stdout, and which modules there are."""
    folders = []
    for name in ("one", "two", "three", "four"):
        (tmp_path / name).mkdir()
        helps = {"definitions.py": f"print({name!r})\nfrom helper import *\n", "helper.py": entity(name)}
        folders.append(project(tmp_path / name, helps))
    found: dict[str, list[str]] = {}
    before = sys.stdout
    threads = [threading.Thread(target=lambda f=f: found.update({f.name: entities(f)})) for f in folders * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {folder.name: [folder.name] for folder in folders}
    assert sys.stdout is before


def test_definitions_that_wait_for_a_thread_that_opens_a_store_do_not_wait_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = """
import concurrent.futures
from featurestore import FeatureStore

with concurrent.futures.ThreadPoolExecutor() as pool:
    pool.submit(lambda: FeatureStore(".")).result()
"""
    folder = project(tmp_path, {"definitions.py": waits})
    monkeypatch.chdir(folder)
    monkeypatch.setattr("featurestore.loading.load.WAITS_SECONDS", 0.01)
    assert "definitions.py:6: another thread has been loading definitions" in refusal(folder)


# --- what they print -------------------------------------------------------------------------


def test_what_definitions_print_does_not_reach_stdout(tmp_path: Path) -> None:
    """So `--json` is JSON: what Python prints, and what programs print that they start."""
    prints = "import os\nprint('a print')\nos.system('echo a program')\n"
    folder = project(tmp_path, {"definitions.py": prints + entity("one")})
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-m", "featurestore", "show", "--json"], cwd=folder, env=environ, capture_output=True, text=True,
        timeout=600, check=True,
    )  # fmt: skip
    assert [item["name"] for item in json.loads(ran.stdout)] == ["one"]
    assert "a print\n" in ran.stderr
    assert "a program\n" in ran.stderr


def test_a_command_whose_stdout_is_closed_loads_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a service's may be: there is nothing to keep apart."""
    folder = project(tmp_path, {"definitions.py": entity("one")})

    def closed(_: int) -> int:
        raise OSError("Bad file descriptor")

    monkeypatch.setattr("os.dup", closed)
    done = CliRunner().invoke(app, ["--repo", str(folder), "plan"])
    assert (done.exit_code, "+ one" in done.output) == (0, True)


def test_in_a_notebook_what_they_print_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FeatureStore(project(tmp_path, {"definitions.py": "print('loaded')\n"})).close()
    assert capsys.readouterr() == ("", "loaded\n")


def test_what_other_threads_print_meanwhile_goes_where_it_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prints = """
import logging
import sys

sys.wait_for_other()
print("of definitions")
logger = logging.getLogger("of definitions")
logger.addHandler(logging.StreamHandler(sys.stdout))
"""
    folder = project(tmp_path, {"definitions.py": prints + entity("one")})

    def wait_for_other() -> None:
        other = threading.Thread(target=lambda: print("of another thread"))
        other.start()
        other.join()

    sys.wait_for_other = wait_for_other  # type: ignore[attr-defined]  # an attribute for this test alone
    logger = logging.getLogger("of definitions")
    try:
        FeatureStore(folder).close()
        print("afterwards")
        logger.warning("logged by definitions")
    finally:
        del sys.wait_for_other  # type: ignore[attr-defined]  # an attribute for this test alone
        logger.handlers.clear()
    assert capsys.readouterr() == ("of another thread\nafterwards\n", "of definitions\nlogged by definitions\n")


# --- what failed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n\nundefined\n", "helper.py:3 cannot be loaded (loaded by {root}/definitions.py): NameError: name 'undefined'"),
        ("x = 1\ny = = 2\n", "helper.py:2 cannot be loaded (loaded by {root}/definitions.py): SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(2)\n", "helper.py:2 cannot be loaded (loaded by {root}/definitions.py): SystemExit: 2"),
        ("def f():\n    f()\nf()\n", "helper.py:2 cannot be loaded (loaded by {root}/definitions.py): RecursionError: "),
        ("exec('1 +')\n", "helper.py:1 cannot be loaded (loaded by {root}/definitions.py): SyntaxError: invalid syntax"),
        ("import nothing_of_the_name\n", "helper.py:1 cannot be loaded (loaded by {root}/definitions.py): ModuleNotFoundError: No module"),
        ("import json\njson.loads('x')\n", "helper.py:2 cannot be loaded (loaded by {root}/definitions.py): JSONDecodeError: "),
        ("x = 'é'\n", "helper.py"),  # written as Latin-1
        ("x = 1\0\n", "helper.py"),
    ],
)  # fmt: skip
def test_an_error_names_the_file_and_line_that_failed(tmp_path: Path, text: str, says: str) -> None:
    """Not only the file that imports it."""
    folder = project(tmp_path, {"definitions.py": "import helper\n"})
    (folder / "helper.py").write_bytes(text.encode("latin-1"))
    assert f"{folder}/{says.format(root=folder)}" in refusal(folder)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """As the file of definitions itself."""
    folder = project(tmp_path, {})
    (folder / "definitions.py").write_bytes("x = 'é'\n".encode("latin-1"))
    assert f"{folder}/definitions.py cannot be loaded: SyntaxError: " in refusal(folder).replace(
        "definitions.py:1", "definitions.py"
    )


def test_a_file_with_another_encoding_says_so_and_is_read(tmp_path: Path) -> None:
    folder = project(tmp_path, {})
    text = "# -*- coding: latin-1 -*-\nassert 'é' == chr(233)\n" + entity("one")
    (folder / "definitions.py").write_bytes(text.encode("latin-1"))
    assert entities(folder) == ["one"]


def test_a_folder_named_like_a_library_of_the_product_is_the_user_s(tmp_path: Path) -> None:
    """Where something was declared is found by whole names of folders."""
    folder = tmp_path / "pydantic-features"
    folder.mkdir()
    project(folder, {"definitions.py": "from featurestore import Entity\nEntity('one', key=5)\n"})
    assert f"{folder}/definitions.py:2)" in refusal(folder)
    assert all(ours.endswith(os.sep) for ours in OURS)


# --- whose modules they import -----------------------------------------------------------------


def test_two_repositories_import_each_its_own_module_of_one_name(tmp_path: Path) -> None:
    """In one process, which may have imported a third; that one stands again afterwards."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        project(folder, {"definitions.py": "from helper import *\n", "helper.py": entity(folder.name)})
    mine = sys.modules["helper"] = type(sys)("helper")
    before = set(sys.modules)
    try:
        assert [entities(folder) for folder in folders] == [["one"], ["two"]]
        assert sys.modules["helper"] is mine
    finally:
        del sys.modules["helper"]
    assert set(sys.modules) - before <= set(sys.stdlib_module_names)


def test_a_function_s_code_is_read_anew_with_it(tmp_path: Path) -> None:
    """Its fingerprint is that of the code that runs, also where the file kept its size and its time."""
    text = """
from featurestore import FeatureService, Request, on_demand
from featurestore.types import Int64

@on_demand(inputs=[Request("x", Int64)], output=Int64)
def more(x):
    return x + 1
"""
    folder = project(tmp_path, {"definitions.py": text})
    stat = (folder / "definitions.py").stat()
    found = []
    for number in ("1", "2"):
        (folder / "definitions.py").write_text(text.replace("x + 1", f"x + {number}"))
        os.utime(folder / "definitions.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        with FeatureStore(folder) as store:
            more = store.catalog.on_demand["more"]
            assert f"return x + {number}" in more.source
            found.append((more.code, more(1)))
    assert [value for _, value in found] == [2, 3]
    assert found[0][0] != found[1][0]


def test_a_folder_of_data_hides_no_module_of_its_name(tmp_path: Path) -> None:
    """Neither one that is imported already, nor one that is not; a folder of modules goes before both."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "later.py").write_text("PLACE = 'elsewhere'\n")
    sys.modules["before"] = type(sys)("before")
    folder = tmp_path / "repo"
    folder.mkdir()
    texts = "import before, later\nassert not hasattr(before, 'PLACE') and later.PLACE == 'elsewhere'\n"
    project(folder, {"before/a.csv": "", "later/b.csv": "", "definitions.py": texts + entity("one")})
    sys.path.append(str(elsewhere))
    try:
        assert entities(folder) == ["one"]
        project(
            folder,
            {
                "before/__init__.py": "PLACE = 'here'\n",
                "definitions.py": "import before\nassert before.PLACE == 'here'\n",
            },
        )
        assert entities(folder) == []
    finally:
        sys.path.remove(str(elsewhere))
        del sys.modules["before"]
        sys.modules.pop("later", None)


def test_what_they_import_is_read_anew_each_time(tmp_path: Path) -> None:
    """Also when it changes within a second and keeps its size, by which compiled files are told apart."""
    folder = project(tmp_path, {"definitions.py": "from features.names import *\n", "features/names.py": entity("one")},
                     'definitions = ["definitions.py"]\n')  # fmt: skip
    assert entities(folder) == ["one"]
    stat = (folder / "features/names.py").stat()
    (folder / "features/names.py").write_text(entity("two"))
    os.utime(folder / "features/names.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert entities(folder) == ["two"]
    assert not list(folder.rglob("__pycache__"))


def test_a_file_that_bears_a_library_s_name_takes_nothing_from_it(tmp_path: Path) -> None:
    """Nor does a file of definitions named as one: it is run, and the library stays what it is."""
    named = dict.fromkeys(
        ("calendar.py", "pandas.py", "featurestore.py", "six/__init__.py"), "raise ValueError('run')\n"
    )
    more = "import calendar, pandas\nfrom featurestore import *\nassert calendar.TextCalendar and pandas.DataFrame\n"
    folder = project(
        tmp_path, {**named, "definitions.py": more + entity("one"), "types.py": entity("kind")},
        'definitions = ["definitions.py", "types.py"]\n',
    )  # fmt: skip
    assert entities(folder) == ["kind", "one"]
    assert sys.modules["types"].__file__ != str(folder / "types.py")
    (folder / "definitions.py").write_text("from calendar import HOLIDAYS\n")
    assert "That is not calendar.py beside featurestore.toml" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("import redis\nredis.ours()\n", True),  # AttributeError
        ("import redis\nredis.Redis(ours=1)\n", True),  # TypeError
        ("import redis as library\nlibrary.ours()\n", True),
        ("from redis.ours import x\n", True),
        ("import redis\n1 / 0\n", False),
        ("import json\njson.ours()\n", False),
        ("import numpy\nnumpy.ours()\n", True),
    ],
)
def test_whatever_fails_for_a_file_that_bears_a_library_s_name_says_so(
    tmp_path: Path, text: str, is_told: bool
) -> None:
    """Only an ImportError did. Where the line that failed has nothing to do with the file, nothing is said of it."""
    ours = "def ours(): pass\n"
    folder = project(tmp_path, {"redis.py": ours, "numpy/__init__.py": ours, "definitions.py": text})
    assert ("the name is that of an installed module, so give the file another" in refusal(folder)) == is_told


@pytest.mark.parametrize("text", ["def ours(): pass\n", "raise ValueError('run')\n", "import nothing_of_that_name\n"])
@pytest.mark.parametrize("name", ["numpy.py", "pyarrow.py", "pydantic/__init__.py"])
def test_a_script_beside_a_file_that_bears_a_library_s_name_says_so(tmp_path: Path, name: str, text: str) -> None:
    """Python said that there is no FeatureStore in featurestore, and nothing of the file that is run in numpy's place."""
    script = "from featurestore import FeatureStore\nfrom featurestore.lazy import pa\npa.table({})\n"
    folder = project(tmp_path, {name: text, "script.py": script})
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environ, capture_output=True, text=True, timeout=600, check=False
    )
    library = name.partition(".")[0].partition("/")[0]
    assert f"{folder / name} is run in the place of the installed module {library}" in ran.stderr.splitlines()[-1]


def test_a_file_of_the_working_directory_takes_no_place_in_the_program_itself(tmp_path: Path) -> None:
    """`python -m` puts it before the standard library. Modules that only it has are found, as definitions may need them."""
    names = ("secrets.py", "queue.py", "sqlite3.py", "email.py", "rich.py", "pandas.py")
    files = {"repo/definitions.py": f"from ours import one\n{entity('two')}", "ours.py": entity("one")}
    project(tmp_path, {**dict.fromkeys(names, "raise ValueError('run')\n"), **files})
    (tmp_path / "featurestore.toml").rename(tmp_path / "repo/featurestore.toml")
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-m", "featurestore", "plan", "--repo", "repo"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "+ one" in ran.stdout


def test_modules_of_a_package_import_each_other_relatively_and_run_once(tmp_path: Path) -> None:
    """By either way of naming them."""
    count = "import sys\nsys.modules['times'].ran += 1\n"
    package = {
        "features/base.py": count + entity("base"),
        "features/more/orders.py": f"from ..base import base\n{entity('orders')}",
        "features/carts.py": "from features.base import base\nfrom .more import orders\nimport features.more.orders as again\nassert orders is again\n",
    }  # fmt: skip
    times = sys.modules["times"] = type(sys)("times")
    times.ran = 0  # type: ignore[attr-defined]  # an attribute for this test alone
    try:
        assert entities(project(tmp_path, package)) == ["base", "orders"]
    finally:
        del sys.modules["times"]
    assert times.ran == 1


def test_a_relative_import_beside_the_configuration_says_how_to_write_it(tmp_path: Path) -> None:
    folder = project(tmp_path, {"definitions.py": "from .helper import *\n", "helper.py": entity("one")})
    assert "definitions.py:1 cannot be loaded: ImportError: " in refusal(folder)
    assert "without the dot" in refusal(folder)


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    """A repository that is a link, and definitions that are, as a mounted configuration is."""
    for name in ("there", "data"):
        (tmp_path / name).mkdir()
    project(tmp_path / "there", {"helper.py": entity("one")})
    (tmp_path / "data/definitions.py").write_text("from helper import *\n")
    (tmp_path / "there/definitions.py").symlink_to(tmp_path / "data/definitions.py")
    (tmp_path / "repo").symlink_to(tmp_path / "there")
    assert entities(tmp_path / "repo") == ["one"]
    (tmp_path / "there/definitions.py").unlink()
    (tmp_path / "data/definitions.py").write_text(entity("two"))
    (tmp_path / "there/features").symlink_to(tmp_path / "data")
    assert entities(tmp_path / "repo") == ["two"]


def test_files_whose_names_are_no_names_of_modules_are_run(tmp_path: Path) -> None:
    listed = 'definitions = ["my-features.py", "v1.2/all.py", "__init__.py", "class.py"]\n'
    files = {
        "my-features.py": entity("a"),
        "v1.2/all.py": entity("b"),
        "__init__.py": entity("c"),
        "class.py": entity("d"),
    }
    assert entities(project(tmp_path, files, listed)) == ["a", "b", "c", "d"]


def test_a_package_does_not_hide_a_file_of_its_name(tmp_path: Path) -> None:
    files = {"orders.py": entity("a"), "orders/__init__.py": entity("b"), "orders/more.py": entity("c")}
    listed = 'definitions = ["orders.py", "orders/more.py"]\n'
    assert entities(project(tmp_path, files, listed)) == ["a", "c"]


# --- what init writes ----------------------------------------------------------------------------


def test_a_script_beside_what_init_writes_is_not_run(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["init", str(tmp_path / "shop")]).exit_code == 0
    (tmp_path / "shop" / "make_data.py").write_text("raise ValueError('run')\n")
    assert "customer_orders" in runner.invoke(app, ["plan", "--repo", str(tmp_path / "shop")]).stdout
