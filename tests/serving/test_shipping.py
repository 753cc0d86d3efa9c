"""The serving log in an object store that is a folder: all that is our own of it. Over a server: tests/platforms/test_shipped_log.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from featurestore import FeatureStore
from featurestore.errors import ConfigError, LogError
from featurestore.sources import object_stores
from tests.serving.shipped_cases import (  # noqa: F401 - the cases are collected here
    HOUR,
    NINE,
    TEN,
    filled,
    local,
    requests,
    shop,
    test_a_bucket_that_is_not_there_is_told,
    test_a_key_that_one_machine_forgot_leaves_the_disk_of_another,
    test_each_hour_is_shipped_once_and_read_from_there,
    test_files_of_others_beside_the_log_are_left_alone,
    test_several_ship_at_once,
    test_what_comes_late_and_what_was_merged_again_counts_once,
    test_what_is_damaged_here_is_read_and_erased_there,
    test_what_was_damaged_there_is_told,
    there,
    wait_until,
)


class Folders(pafs.FileSystemHandler):
    """A folder as an object store is: what is put somewhere makes the folders above it. is_away: it answers nothing."""

    def __init__(self, base: Path) -> None:
        self._real = pafs.SubTreeFileSystem(str(base), pafs.LocalFileSystem())
        self.is_away = False

    def _there(self) -> pafs.FileSystem:
        if self.is_away:
            raise OSError("the store is away")
        return self._real

    def get_type_name(self) -> str:
        return "folders"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> Any:
        return self._there().get_file_info(paths)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> Any:
        return self._there().get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._there().create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._there().delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._there().delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        self._there().delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self._there().move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._there().copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self._there().open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        return self._there().open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self._there().create_dir(str(Path(path).parent), recursive=True)
        return self._there().open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    (tmp_path / "store" / "logs").mkdir(parents=True)
    made = Folders(tmp_path / "store")
    monkeypatch.setattr(object_stores, "_system", lambda scheme, process: pafs.PyFileSystem(made))
    return made


@pytest.fixture
def s3(folders: Folders) -> pafs.FileSystem:
    return pafs.PyFileSystem(folders)


def test_a_store_that_is_away_is_told_and_shipped_to_when_it_is_back(
    folders: Folders, s3: pafs.FileSystem, tmp_path: Path
) -> None:
    """By a call, and by the thread of a process that serves; nothing is deleted meanwhile."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"'))
    with store:
        clock.set(TEN + 48 * HOUR)
        folders.is_away = True
        with pytest.raises(LogError, match="are not to be had: .*the store is away"):
            store.compact_serving_log()
        with pytest.raises(LogError, match="are not to be had"):
            store.forget("carrier", {"carrier": "UA"})
        shipping = store._project.serving_log._shipping
        assert shipping is not None
        shipping.wake()
        wait_until(lambda: "the store is away" in (store.serving_log_losses().last_error or ""))
        assert local(store)
        folders.is_away = False
        shipping.wake()
        wait_until(lambda: not local(store))
        assert len(there(s3)) == 3
        assert requests(store) == NINE
        assert [name for name, _ in store._project.serving_log.versions()] == ["model"]  # which lies there alone


@pytest.mark.parametrize(
    "url",
    [
        "served",
        "file:///served",
        "s3://",
        "s3://key:secret@logs/x",
        "s3://logs/*",
        "s3://logs//x",
        "s3://logs/..",
        "s3://logs/a/../b",
        "s3://logs/./x",
        "s3://logs/x\\ny",
    ],  # fmt: skip
)
def test_a_place_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    folder = shop(tmp_path / "shop")
    (folder / "featurestore.toml").write_text(f'project = "shop"\n[serving_log]\nship_to = "{url}"\n')
    with pytest.raises(ConfigError, match="serving_log.ship_to.* must be a folder in an object store") as caught:
        FeatureStore(folder)
    assert "secret" not in str(caught.value)
