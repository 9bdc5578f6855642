"""The tutorial's code is the palette plugin's own, and works from an empty folder.

`python tests/test_writing_a_tokenizer.py` refreshes the page after the plugin has changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "writing-a-tokenizer.md"
PLUGIN = Path("plugins/mmgen-palette")
BLOCK = re.compile(r"<!-- include: (\S+) -->\n```(\w+)\n(.*?)```\n", re.DOTALL)


def included() -> dict[str, str]:
    """Return the text of each included block of the page by the path it is from."""
    return {path: code for path, _, code in BLOCK.findall(PAGE.read_text(encoding="utf-8"))}


def refresh() -> None:
    """Replace each included block of the page by the file it is from."""

    def current(found: re.Match[str]) -> str:
        code = (ROOT / found[1]).read_text(encoding="utf-8")
        return f"<!-- include: {found[1]} -->\n```{found[2]}\n{code}```\n"

    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(current, page), encoding="utf-8")


def test_blocks_equal_the_files() -> None:
    for path, code in included().items():
        assert code == (ROOT / path).read_text(encoding="utf-8"), (
            f"{path} differs from {PAGE.name}; run python {Path(__file__).relative_to(ROOT)}"
        )


def test_the_page_shows_the_whole_plugin() -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("pyproject.toml", "src/**/*.py", "tests/**/*.py")
        for path in (ROOT / PLUGIN).glob(pattern)
    }
    assert set(included()) == files


def test_every_check_is_explained() -> None:
    from mmgen.testing import CHECKS

    table = PAGE.read_text(encoding="utf-8").partition("## 5.")[2]
    explained = re.findall(r"`([a-z ]+)`", "".join(re.findall(r"^\| `[^|]*\|", table, re.M)))
    assert sorted(explained) == sorted(CHECKS)


def test_the_blocks_make_a_plugin_in_an_empty_folder(tmp_path: Path) -> None:
    for path, code in included().items():
        target = tmp_path / Path(path).relative_to(PLUGIN)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(code, encoding="utf-8")
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    ((name, value),) = project["entry-points"]["mmgen.visual_tokenizers"].items()
    module, _, attribute = value.partition(":")
    code = (
        f"import {module}, mmgen.testing as kit\n"
        f"report = kit.check({module}.{attribute}, skip=['fresh process', 'imports', 'speed'])\n"
        f"print({module}.__file__)\nassert report.is_passed, report.to_text()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "src"), str(ROOT)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert (name, project["name"]) == ("palette", "mmgen-palette")


if __name__ == "__main__":
    refresh()
