"""What `mmgen tokenizer new` writes is a plugin that installs and keeps the contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from mmgen.authoring import KINDS, NewPackage, write_package
from mmgen.errors import OutputError, PluginError, SettingsError
from mmgen.plugins import located_visual_tokenizer
from mmgen.testing import check
from mmgen.visual_tokenizer import AbstractVisualTokenizer

ROOT = Path(__file__).parents[2]
# Tests in another process start torch and this kit again; one kind without torch is enough here.
OWN_PROCESS = ("imports", "fresh process", "speed")


def run(*words: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([path, str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_starting_point_keeps_the_contract(kind: str) -> None:
    module = import_module(f"mmgen.authoring.starting_points.{kind}")
    tokenizer: type[AbstractVisualTokenizer] = module.StartTokenizer
    report = check(tokenizer, skip=OWN_PROCESS)
    assert report.is_passed, report.to_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_complete_and_tidy(kind: str, tmp_path: Path) -> None:
    folder = write_package(NewPackage(name="my-own_1", kind=kind), tmp_path)
    assert folder == tmp_path / "mmgen-my-own_1"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"]["mmgen.visual_tokenizers"]
    assert entries == {"my-own_1": "mmgen_my_own_1:MyOwn1Tokenizer"}
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not any("StartTokenizer" in text or "$" in text for text in texts)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    config = str(ROOT / "pyproject.toml")
    # How imports are sorted depends on where a package lies.
    for words in (["check", "--ignore", "I001"], ["format", "--check"]):
        done = run("ruff", *words, "--config", config, "--no-cache", str(folder), cwd=tmp_path)
        assert done.returncode == 0, done.stdout


def test_weights_of_a_learned_package_say_whose_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name of its own: the module stays imported, and others find it taken.
    folder = write_package(NewPackage(name="lasting", kind="learned"), tmp_path)
    monkeypatch.syspath_prepend(str(folder / "src"))
    tokenizer: type[AbstractVisualTokenizer] = import_module("mmgen_lasting").LastingTokenizer
    weights = tmp_path / "weights"
    weights.mkdir()
    saved = tokenizer.untrained({}, seed=0)
    saved.save(weights)
    assert located_visual_tokenizer(str(weights)) == ("lasting", weights)
    assert tokenizer.load(weights).fingerprint == saved.fingerprint
    config = weights / "tokenizer_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"plugin": "stale"}))
    with pytest.raises(PluginError, match="a tokenizer of 'stale', expected 'lasting'"):
        tokenizer.load(weights)
    # Folders written before they said their plugin are read as they are.
    del values["plugin"]
    config.write_text(json.dumps(values))
    assert tokenizer.load(weights).fingerprint == saved.fingerprint


@pytest.mark.slow
def test_a_package_installs_and_passes_its_own_tests(tmp_path: Path) -> None:
    folder = write_package(NewPackage(name="fresh", kind="ordered"), tmp_path)
    place = tmp_path / "site"
    words = ["install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target"]
    done = run("pip", *words, str(place), str(folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = run("mmgen", "tokenizer", "list", cwd=tmp_path, path=str(place))
    assert "fresh" in listed.stdout and "mmgen-fresh 0.1.0" in listed.stdout
    tested = run("pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=folder, path=str(place))
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_package_passes_its_own_tests(kind: str, tmp_path: Path) -> None:
    folder = write_package(NewPackage(name="fresh", kind=kind), tmp_path)
    source = str(folder / "src")
    tested = run("pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=folder, path=source)
    assert tested.returncode == 0, tested.stdout


def test_nothing_is_written_over_another_package(tmp_path: Path) -> None:
    package = NewPackage(name="fresh", kind="grid")
    write_package(package, tmp_path)
    with pytest.raises(OutputError, match="exists; choose another name"):
        write_package(package, tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_package(NewPackage(name="fresh", kind="grid"), tmp_path / "file")


@pytest.mark.parametrize("name", ["", "Big", "9lives", "a b", "../up", "end-", "käse"])
def test_names_that_packages_cannot_have(name: str) -> None:
    with pytest.raises(SettingsError, match="cannot name a tokenizer"):
        NewPackage(name=name, kind="grid")


def test_a_name_whose_module_exists(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a module mmgen_palette already"):
        write_package(NewPackage(name="palette", kind="grid"), tmp_path)


def test_an_unknown_kind() -> None:
    with pytest.raises(SettingsError, match="no kind is called 'cube'; there are grid"):
        NewPackage(name="fresh", kind="cube")
