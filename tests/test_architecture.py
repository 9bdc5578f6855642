"""The shape of the project, checked: who may import whom, and what a start-up loads."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmgen

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("mmgen", "plugins", "recipes")
    for path in (ROOT / folder).rglob("*.py")
    if "tests" not in path.parts and "build" not in path.parts
)
HEAVY = ("torch", "numpy", "PIL", "pyarrow", "tokenizers", "sentencepiece", "rich", "datasets")
MAX_LINES = 400
NEED_VLLM = [f"mmgen.generate.vllm_{name}" for name in ("bench", "engine", "launch", "logits")]
DOORS = {
    "datasets": {"mmgen/batch/readers/tables.py"},
    "flash_attn": {"mmgen/model/attention.py"},
    "fsspec": {"mmgen/batch/places.py"},
    "llguidance": {"mmgen/generate/forms.py"},
    "matplotlib": {"mmgen/evaluate/rate_plot.py", "mmgen/train/records.py"},
    "ray": {"mmgen/batch/ray_crew.py"},
    "transformers": {
        "mmgen/generate/bench.py",
        "mmgen/train/bench.py",
        "mmgen/train/perceptual.py",
    },
    "xformers": {"mmgen/model/attention.py"},
}


def modules_after(code: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter has loaded after some code."""
    script = f"{code}\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def run_mmgen(*words: str) -> str:
    """Return code that runs the command line to its end."""
    return (
        f"import sys; sys.argv = {['mmgen', *words]!r}\n"
        "from mmgen.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
    )


def dotted(path: Path) -> str:
    """Return the import name of a source file of mmgen."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_import_contract_is_kept() -> None:
    code = "from importlinter.cli import lint_imports_command as check; check()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_optional_packages_enter_by_their_doors_at_run_time_too() -> None:
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                named = node.args[0]
                if isinstance(named, ast.Constant):
                    package = str(named.value).partition(".")[0]
                    found.setdefault(package, set()).add(str(path.relative_to(ROOT)))
    assert {package: places for package, places in found.items() if package != "torch"} == DOORS


def test_only_starting_vllm_needs_it() -> None:
    loaded = modules_after("import mmgen.generate.vllm_start, mmgen.generate.vllm_rows")
    assert "vllm" not in loaded and not loaded & set(NEED_VLLM)


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = modules_after("import mmgen")
    assert not loaded & set(HEAVY)
    assert [name for name in loaded if name.startswith("mmgen")] == ["mmgen"]


def test_help_loads_no_heavy_package_and_no_command() -> None:
    loaded = modules_after(run_mmgen("--help"))
    assert not loaded & set(HEAVY)
    assert {name for name in loaded if name.startswith("mmgen.")} == {
        "mmgen.cli",
        "mmgen.cli.app",
        "mmgen.errors",
    }


def test_the_token_layer_loads_no_torch() -> None:
    layer = ("vocabulary", "grammar", "document", "text_tokenizer", "pictures", "plugins")
    loaded = modules_after("\n".join(f"import mmgen.{name}" for name in layer))
    assert "torch" not in loaded


def test_listing_tokenizers_imports_no_plugin() -> None:
    loaded = modules_after(run_mmgen("tokenizer", "list"))
    assert not [name for name in loaded if re.match(r"mmgen_(fsq|mini|palette)\b", name)]
    assert "torch" not in loaded


def test_listing_models_loads_no_torch() -> None:
    assert "torch" not in modules_after(run_mmgen("models", "list"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_why_it_exists_and_stays_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        return
    assert ast.get_docstring(ast.parse(text)), "a module needs a docstring"
    assert len(text.splitlines()) <= MAX_LINES


@pytest.mark.parametrize(
    "name",
    [dotted(path) for path in SOURCES if path.is_relative_to(ROOT / "mmgen")],
)
def test_all_lists_what_a_module_exports(name: str) -> None:
    if name == "mmgen.__main__":
        return
    if name in NEED_VLLM:
        pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")
    module = importlib.import_module(name)
    exported = module.__all__
    assert [entry for entry in exported if not hasattr(module, entry)] == []
    assert len(set(exported)) == len(exported)


def test_package_project_and_changelog_agree_on_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == mmgen.__version__
    changelog = (ROOT / "docs" / "changelog.md").read_text()
    assert f"## {mmgen.__version__}" in changelog


def test_tests_run_offline() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
