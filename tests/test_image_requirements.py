"""What is pinned whole. The image installs everything by its hash, in the versions that are tested, and nothing is missing."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "deploy" / "image"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = re.findall(r"--extra (\w+)", re.findall(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0])


def pinned(name: str) -> dict[str, Requirement]:
    """The requirements of a file by their names. Each has a hash, and nothing says where it is fetched."""
    lines = (IMAGE / name).read_text().replace("\\\n", " ").splitlines()
    found: dict[str, Requirement] = {}
    for line in lines:
        if not line.startswith("#"):
            words, *hashes = re.split(r"\s+--hash=", line.strip())
            assert hashes
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
            assert "://" not in line
            requirement = Requirement(words)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def version(requirement: Requirement) -> str:
    (one,) = requirement.specifier
    assert one.operator == "=="
    return one.version


@pytest.mark.parametrize("name", ["requirements.txt", "build-requirements.txt"])
def test_versions_are_those_that_are_tested(name: str) -> None:
    """`make image-requirements` was run after the last change of constraints.txt."""
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    tested = {canonicalize_name(name): number for name, number in tested.items()}
    found = pinned(name)
    differs = {one: version(found[one]) for one in found if one in tested and tested[one] != version(found[one])}
    assert not differs
    assert found


def check_complete(found: dict[str, Requirement], wanted: list[str]) -> None:
    """That what is pinned has what is wanted, and what that needs."""
    seen: set[tuple[str, str]] = set()
    left = [Requirement(line) for line in wanted]
    while left:
        one = left.pop()
        name = canonicalize_name(one.name)
        assert name in found, f"{name} is missing"
        assert one.specifier.contains(version(found[name]), prereleases=True), name
        for extra in ["", *one.extras]:
            if (name, extra) not in seen:
                seen.add((name, extra))
                inner = [Requirement(line) for line in requires(one.name) or ()]
                left += [each for each in inner if each.marker is None or each.marker.evaluate({"extra": extra})]


def test_nothing_is_missing() -> None:
    """What the product and its extras of the image need; `make image-requirements` adds it."""
    wanted = [*PROJECT["project"]["dependencies"]]
    for extra in EXTRAS:
        wanted += PROJECT["project"]["optional-dependencies"][extra]
    check_complete(pinned("requirements.txt"), wanted)


def test_nothing_is_missing_beside_tensorflow() -> None:
    """Its environment is pinned whole, too, and is too large to be made every day."""
    lines = (ROOT / "tests/platforms_opt_in/environments/tensorflow.txt").read_text().split()
    found = {canonicalize_name(one.name): one for one in map(Requirement, lines)}
    check_complete(found, PROJECT["project"]["dependencies"])  # type: ignore[arg-type]  # names are texts


def test_the_build_has_what_builds() -> None:
    """The requirement of pyproject.toml."""
    (needed,) = (Requirement(line) for line in PROJECT["build-system"]["requires"])
    assert needed.specifier.contains(version(pinned("build-requirements.txt")[needed.name]))


def test_what_is_pinned_can_be_installed_by_the_oldest_python() -> None:
    """Some packages leave a Python in the middle of its life, and some need others in its first releases: pip finds nothing then. These
    are Debian's."""
    oldest = re.findall(r">=([\d.]+)", PROJECT["project"]["requires-python"])[0] + ".0"
    environment = {"python_full_version": oldest, "python_version": oldest.rpartition(".")[0], "extra": ""}
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = {canonicalize_name(name): number for name, number in (line.split("==") for line in lines)}
    installed = {canonicalize_name(one.name): one for one in distributions() if one.name is not None}
    tested = [one for name, one in installed.items() if pins.get(name) == one.version]
    assert len(tested) > len(pins) / 2
    for one in tested:
        assert "Requires-Python" not in one.metadata or SpecifierSet(one.metadata["Requires-Python"]).contains(
            oldest
        ), one.name
        needed = [Requirement(line) for line in one.requires or ()]
        absent = [each.name for each in needed if each.marker is not None and each.marker.evaluate(environment)]
        assert {canonicalize_name(name) for name in absent} <= {*pins}, one.name
