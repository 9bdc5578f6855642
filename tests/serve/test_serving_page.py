"""The examples of docs/serving.md, run as they stand against a server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mmgen.pictures import open_picture
from mmgen.serve.settings import Limits
from tests.serve.conftest import RunningServer

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language: str, server: RunningServer) -> list[str]:
    """Return the page's blocks with this server's address and model."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [
        text.replace("http://127.0.0.1:8000", server.address).replace('"mini"', '"tiny"')
        for text in found
    ]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_page(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [text for text in blocks("bash", server) if "curl" in text]
    said = [
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], check=True, capture_output=True, text=True
        ).stdout
        for text in commands
    ]
    assert len(said) == 4
    assert open_picture(Path("apple.png")).size == (64, 64)
    assert '"b64_json"' in said[1] and "event: image_generation.completed" in said[1]
    assert '"chat.completion"' in said[2]
    assert '"guidance_scale":4.0,"image_guidance_scale":1.5' in said[3]
    assert '"error"' not in "".join(said)


def test_the_program_of_the_page(
    server: RunningServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("python", server)
    names: dict[str, object] = {}
    exec(compile(f"{program}\nclient.close()", "docs/serving.md", "exec"), names)
    assert open_picture(Path("apple.png")).size == (64, 64)
    said = capsys.readouterr().out
    assert "'guidance_scale': 2.5" in said
    assert "response.created" in said


def test_the_limits_of_the_page() -> None:
    limits = Limits()
    stated = dict(re.findall(r"^\| `--(max-[a-z]+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    assert stated == {
        "max-turns": str(limits.max_turns),
        "max-n": str(limits.max_n),
        "max-tokens": str(limits.max_tokens),
        "max-body": f"{limits.max_body_bytes // 2**20} MiB",
        "max-pixels": f"{limits.max_pixels // 10**6} million",
    }
    assert f"{limits.max_fetch_seconds:g} seconds" in PAGE
    assert f"{limits.max_fetch_bytes // 2**20} MiB" in PAGE
