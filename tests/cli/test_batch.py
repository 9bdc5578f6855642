from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mmgen.batch.assembly import Progress
from mmgen.cli import batch_run
from mmgen.cli.batch import batch
from mmgen.cli.batch_run import shown_progress
from mmgen.errors import DataError, MmgenError, OutputError, SettingsError

SMALL = ("--size", "32x32", "--engine-rows", "8")


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model(tiny_checkpoint: Path) -> tuple[str, str]:
    return ("--model", str(tiny_checkpoint))


@pytest.fixture
def prompts() -> str:
    Path("prompts.txt").write_text("".join(f"draw a red {n}\n" for n in range(6)))
    return "prompts.txt"


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(batch, arguments, input=stdin)


def refused(result: Result, kind: type[MmgenError]) -> str:
    assert isinstance(result.exception, kind), (result.output, result.exception)
    return str(result.exception)


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_drawing(prompts: str, model: tuple[str, str]) -> None:
    result = run("generate", prompts, "-o", "job", *SMALL, *model)
    assert (result.exit_code, result.stdout) == (0, "job/results.jsonl\n")
    assert "6 of 6 rows answered, 0 failed; 6 in this run" in result.stderr
    assert all(Path("job", line["picture"]).is_file() for line in lines("job/results.jsonl"))
    again = run("generate", prompts, "-o", "job", *SMALL, *model)
    assert again.exit_code == 0 and "0 in this run" in again.stderr


def test_captioning_what_was_drawn(prompts: str, model: tuple[str, str]) -> None:
    run("generate", prompts, "-o", "job", *SMALL, *model)
    result = run(
        "caption", "job/pictures", "-o", "said", "--to", "sidecar", "--max-tokens", "4", *model
    )
    assert result.exit_code == 0, result.stderr
    assert len(list(Path("said/captions").iterdir())) == 6


def test_standard_input(model: tuple[str, str]) -> None:
    rows = '{"id": "a", "prompt": "draw a red 1"}\n{"id": "b", "prompt": "draw a red 2"}\n'
    result = run("generate", "-", "-o", "job", *SMALL, *model, stdin=rows)
    assert result.exit_code == 0, result.stderr
    assert [line["id"] for line in lines("job/results.jsonl")] == ["a", "b"]
    again = run("generate", "-", "-o", "job", *SMALL, *model, stdin="")
    assert again.exit_code == 0 and "0 in this run" in again.stderr


def test_a_dry_run_writes_nothing(prompts: str, model: tuple[str, str]) -> None:
    result = run("generate", prompts, "-o", "job", "--dry-run", *SMALL, *model)
    assert result.exit_code == 0, result.stderr
    assert "rows:      6" in result.stdout and "time:      about" in result.stdout
    result = run("generate", "-", "-o", "job", "--dry-run", *SMALL, *model, stdin="a red\n")
    assert "rows:      1" in result.stdout
    assert not Path("job").exists()


def test_rows_that_fail_are_explained(model: tuple[str, str]) -> None:
    good = {"prompt": "draw a red 1"}
    bad = [{"prompt": ""}, {"prompt": "x", "seed": "a"}, {"prompt": "x", "size": "99x99"}]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*bad, good]))
    result = run("generate", "a.jsonl", "-o", "job", *SMALL, *model)
    assert (result.exit_code, result.stdout) == (1, "job/results.jsonl\n")
    assert "2 of 4 rows cannot be used" in result.stderr
    assert "1 of 4 rows answered, 3 failed" in result.stderr
    assert "reasons are in job/errors.jsonl" in result.stderr
    reasons = [line["reason"] for line in lines("job/errors.jsonl")]
    assert "the row has no prompt" in reasons[0]
    assert reasons[1] == "seed must be a whole number, got 'a'"
    assert "no pictures of 99x99 pixels" in reasons[2]
    assert len(lines("job/results.jsonl")) == 1
    retried = run("generate", "a.jsonl", "-o", "job", "--retry-failed", *SMALL, *model)
    assert retried.exit_code == 1 and "3 in this run" in retried.stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("generate", "a.txt", "-o", "."), SettingsError, "lies in the job directory"),
        (("generate", "a.txt", "-o", "a.txt"), SettingsError, "lies in the input"),
        (("caption", "in", "-o", "in"), SettingsError, "lies in the input"),
        (("caption", "in", "-o", "in/job"), SettingsError, "lies in the input"),
        (("caption", "in", "-o", "."), SettingsError, "lies in the job directory"),
        (("generate", "none.txt", "-o", "job"), DataError, "there is no file none.txt"),
        (("generate", "in", "-o", "job"), SettingsError, "none of the 1 rows of in can be used"),
        (("generate", "empty.txt", "-o", "job"), DataError, "holds no rows"),
        (("generate", "a.txt", "-o", "full"), OutputError, "holds keep and is no batch job"),
        (("generate", "a.txt", "-o", "job", "--shard", "3/3"), SettingsError, "--shard is I/N"),
        (("generate", "-", "-o", "job", "--shard", "0/3"), SettingsError, "standard input"),
        (("generate", "a.txt", "-o", "job", "--top-k", "0"), SettingsError, "top-k must be 1"),
        (("generate", "a.txt", "-o", "job", "--guidance", "-1"), SettingsError, "guidance"),
        (("generate", "a.txt", "-o", "job", "--size", "big"), SettingsError, "WIDTHxHEIGHT"),
        (("generate", "a.txt", "-o", "job", "--quality", "5"), SettingsError, "quality"),
        (
            ("generate", "a.txt", "-o", "job", "--rows-per-shard", "0"),
            SettingsError,
            "rows per shard must be 1 or more",
        ),
        (("generate", "a.txt", "-o", "job", "--workers", "0"), SettingsError, "workers"),
        (("generate", "a.txt", "-o", "/dev/null/job"), OutputError, "cannot write into /dev/null"),
        (("caption", "in", "-o", "job", "--existing", "keep"), SettingsError, "add --to sidecar"),
        (("caption", "a.txt", "-o", "job", "--split", "x"), SettingsError, "--split is for"),
        (("caption", "double.jsonl", "-o", "job"), DataError, "the same id 'x'"),
        (("caption", "short.tar", "-o", "job"), DataError, "short.tar cannot be read"),
        (("caption", "short.parquet", "-o", "job"), DataError, "cannot be read as Parquet"),
    ],
)
def test_what_is_wrong_is_found_before_a_model_is_loaded(
    arguments: tuple[str, ...], kind: type[MmgenError], message: str
) -> None:
    Path("a.txt").write_text("a fox\n")
    Path("empty.txt").write_text("\n")
    Path("in").mkdir()
    Image.new("RGB", (4, 4)).save("in/a.png")
    Path("full").mkdir()
    Path("full/keep").touch()
    Path("double.jsonl").write_text('{"id": "x", "image": "in/a.png"}\n' * 2)
    with tarfile.open("short.tar", "w") as tar:
        tar.add("in/a.png")
    Path("short.tar").write_bytes(Path("short.tar").read_bytes()[:540])
    Path("short.parquet").write_bytes(b"PAR1")
    before = sorted(Path().rglob("*"))
    assert message in refused(run(*arguments, "--model", "no-such-model"), kind)
    assert sorted(Path().rglob("*")) == before


def test_a_job_in_parts(prompts: str, model: tuple[str, str]) -> None:
    run("generate", prompts, "-o", "whole", *SMALL, *model)
    for part in ("0/2", "1/2"):
        result = run("generate", prompts, "-o", "parts", "--shard", part, *SMALL, *model)
        assert result.exit_code == 0, result.stderr
    names = [f"parts/part-00{index}-of-002/results.jsonl" for index in range(2)]
    assert lines(names[0]) + lines(names[1]) == lines("whole/results.jsonl")


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from mmgen.cli.app import main
import mmgen.cli.batch_run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), -1))
main()
"""


@pytest.mark.parametrize("limit", [1500, 6000])
def test_a_full_disk_ends_the_run_and_spoils_nothing(model: tuple[str, str], limit: int) -> None:
    Path("p.txt").write_text("".join(f"draw a red {n}\n" for n in range(40)))
    words = ["batch", "generate", "p.txt", "-o", "job", *SMALL, *model, "--to", "files"]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(limit), *words], capture_output=True, text=True
    )
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert message.startswith("mmgen: error: cannot write job/")
    assert "Traceback" not in done.stderr
    assert run(*words[1:]).exit_code == 0
    run("generate", "p.txt", "-o", "other", *SMALL, *model)
    assert Path("job/results.jsonl").read_bytes() == Path("other/results.jsonl").read_bytes()


def test_an_interrupted_run_finishes_what_it_began(model: tuple[str, str]) -> None:
    Path("p.txt").write_text("".join(f"draw a red {n}\n" for n in range(3000)))
    words = ["batch", "generate", "p.txt", "-o", "job", *SMALL, *model]
    process = subprocess.Popen(
        [sys.executable, "-m", "mmgen", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    log = Path("job/log.jsonl")
    while not (log.exists() and log.stat().st_size):
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; repeat the command to continue" in err and "Traceback" not in err
    rows = [json.loads(line)["row"] for line in log.read_text().splitlines()]
    found = lines("job/results.jsonl")
    assert 0 < len(rows) < 3000 and len(set(rows)) == len(rows)
    assert [line["row"] for line in found] == list(range(len(found)))
    assert 0 < len(found) <= len(rows)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(screen: io.StringIO) -> str:
        monkeypatch.setattr(sys, "stderr", screen)
        with shown_progress(40) as tell:
            for done in (0, 10, 20):
                tell(Progress(num_rows=40, num_done=done, num_failed=3, num_ids=100 * done))
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())

    monkeypatch.setattr(batch_run, "_SECONDS_BETWEEN_LINES", 0.0)
    said = watch(io.StringIO()).splitlines()
    assert len(said) == 3
    assert re.fullmatch(
        r"20 of 40 rows, 3 failed, [\d.,]+ rows/s, [\d,]+ tokens/s, \d+\.\d s left", said[2]
    )
    monkeypatch.setenv("COLUMNS", "120")
    shown = watch(Terminal())
    assert re.search(r"20/40 +3 failed, [\d.,]+ rows/s, [\d,]+ tokens/s, \d+\.\d s left", shown)
