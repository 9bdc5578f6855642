"""The command itself: what it offers, how fast, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmgen import __version__
from mmgen.cli import app
from mmgen.cli.app import COMMANDS, Place, cli, main

COMMANDS_THAT_END_BADLY = '''
import click
from mmgen.errors import CheckpointError

@click.command()
def fail():
    """Fail."""
    raise CheckpointError("no model\\nhere; there are: mini")

@click.command()
def interrupt():
    """Stop."""
    raise KeyboardInterrupt

@click.command()
def talk():
    """Talk without end."""
    while True:
        click.echo("word " * 100)
'''


@pytest.fixture
def endings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that fail, are interrupted and never stop talking."""
    (tmp_path / "endings.py").write_text(COMMANDS_THAT_END_BADLY)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("fail", "interrupt", "talk")
    monkeypatch.setattr(app, "COMMANDS", {n: Place(f"endings:{n}", f"{n}.") for n in names})
    return tmp_path


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mmgen", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_help_lists_every_command_in_order() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    places = [result.output.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_exists_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_help_is_quick() -> None:
    def processor_seconds() -> float:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmgen", "--help"], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_utime + usage.ru_stime

    # Processor time, because wall time depends on what else the machine does.
    assert min(processor_seconds() for _ in range(5)) < 0.3


def test_version() -> None:
    assert __version__ in CliRunner().invoke(cli, ["--version"]).output


@pytest.mark.parametrize(
    ("word", "hint"), [("genrate", "did you mean 'generate'?"), ("xyzzy", "there are: generate")]
)
def test_an_unknown_command_names_the_nearest_or_all(word: str, hint: str) -> None:
    result = CliRunner().invoke(cli, [word])
    assert result.exit_code == 2
    assert hint in result.output


def test_errors_are_one_line_on_standard_error(
    endings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "fail") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "mmgen: error: no model here; there are: mini\n"


def test_usage_errors_end_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "--nonsense") == 2
    assert "--nonsense" in capsys.readouterr().err


def test_an_interruption_ends_with_130(
    endings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "interrupt") == 130
    assert capsys.readouterr().err.strip() == "mmgen: interrupted"


def test_success_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, "--version") == 0


def test_a_reader_who_leaves_is_no_failure_to_speak_of(endings: Path) -> None:
    script = (
        "import sys; sys.argv = ['mmgen', 'talk']\n"
        f"sys.path.insert(0, {str(endings)!r})\n"
        "from mmgen.cli import app\n"
        "app.COMMANDS = {'talk': app.Place('endings:talk', 'talk')}\n"
        "app.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"word")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() not in (0, -signal.SIGPIPE)


def test_a_command_whose_distribution_is_missing_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = Place("mmgen_talk.cli:talk", "Talk.", distribution="mmgen-talk")
    monkeypatch.setattr(app, "COMMANDS", {"talk": talk})
    assert run_main(monkeypatch, "talk") == 1
    message = capsys.readouterr().err.strip()
    assert "`mmgen talk` belongs to a distribution of its own" in message
    assert message.endswith("pip install mmgen-talk")
