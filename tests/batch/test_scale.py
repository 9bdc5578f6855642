"""Large inputs: broken rows of many kinds are explained, and memory does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmgen.batch.assembly import Job, run_job
from mmgen.batch.tasks.caption import CaptionSettings

MakeJob = Callable[..., Job]

BROKEN: list[tuple[str | dict[str, Any], str]] = [
    ('{"image": "good.png"', "is not JSON"),
    ("[1, 2]", "is a list, expected an object"),
    ({"text": "x"}, "the row has no picture; its fields are: text"),
    ({"image": "none.png"}, "there is no file"),
    ({"image": "text.png"}, "is not a picture that can be read"),
    ({"image": "short.png"}, "is damaged or cut short"),
    ({"image": "empty.png"}, "is empty (0 bytes)"),
    ({"image": "good.png", "temperature": "warm"}, "temperature must be a number, got 'warm'"),
    ({"image": "good.png", "max_tokens": 0}, "max_tokens must be 1 or more, got 0"),
    ({"image": "good.png", "id": "../../x"}, "leads out of its folder"),
    ({"image": "good.png", "id": "a\nb"}, "holds a line break"),
    ({"image": "good.png", "prompt": "a\u0007"}, "holds the control character"),
    ({"image": "good.png", "prompt": "x" * 9000}, "which leaves no room for an answer"),
    ({"image": 3}, "must be a path, a URL or the bytes of a picture, got int"),
    ({"image": "\ud800.png"}, "no file can be named"),
    ({"image": "a\0.png"}, "with a zero byte"),
    ({"image": "x" * 300}, "File name too long"),
    ({"image": "/"}, "Is a directory"),
    ({"image": "huge.png"}, "pixels; at most 64,000,000 are decoded"),
]


def write_rows(folder: Path, num_rows: int) -> dict[int, str]:
    """Write rows of which one in twenty is broken; return what should be said of each of these."""
    Image.new("RGB", (8, 8), "red").save(folder / "good.png")
    (folder / "text.png").write_text("I am no picture")
    (folder / "short.png").write_bytes((folder / "good.png").read_bytes()[:50])
    (folder / "empty.png").write_bytes(b"")
    Image.new("1", (9000, 9000)).save(folder / "huge.png")
    expected = {}
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(num_rows):
            row: str | dict[str, Any] = {"image": "good.png"}
            if number % 20 == 7:
                row, expected[number] = BROKEN[number // 20 % len(BROKEN)]
            file.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    return expected


@pytest.mark.parametrize("num_rows", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_broken_rows_are_explained(make_job: MakeJob, tmp_path: Path, num_rows: int) -> None:
    expected = write_rows(tmp_path, num_rows)
    settings = CaptionSettings(max_tokens=2)
    job = make_job(tmp_path / "rows.jsonl", "caption", settings=settings)
    summary = run_job(job)
    assert (summary.num_done, summary.num_failed) == (num_rows, num_rows // 20)
    errors = (tmp_path / "job" / "errors.jsonl").read_text().splitlines()
    said = {line["row"]: line["reason"] for line in map(json.loads, errors)}
    assert said.keys() == expected.keys()
    assert [row for row, reason in said.items() if expected[row] not in reason] == []
    results = (tmp_path / "job" / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line)["row"] for line in results]
    assert rows == [row for row in range(num_rows) if row not in expected]


# Prints the resident memory, in MiB, when a quarter and when all of a job are done.
MEASURE = """
import json, sys
from pathlib import Path
from mmgen.batch.assembly import BatchConfig, Job, run_job
from mmgen.batch.job import JobDirectory
from mmgen.batch.opening import open_backend
from mmgen.batch.readers import open_reader
from mmgen.batch.survey import survey
from mmgen.batch.tasks.caption import CaptionSettings, CaptionTask
from mmgen.batch.tasks.generate import GenerateSettings, GenerateTask

checkpoint, source, place, task, forms = sys.argv[1:]
forms = tuple(filter(None, forms.split(",")))
backend = open_backend(checkpoint, parts="both", rows_per_request=2, num_rows=64)
session = backend.session
if task == "generate":
    settings = GenerateSettings(size=(32, 32), guidance=1.0)
    made, check = GenerateTask(settings, session.checkpoint, model="tiny"), settings.request
else:
    settings = CaptionSettings(max_tokens=2)
    made = CaptionTask(settings, session.checkpoint, session.codec, keep_pictures=True)
    check = settings.check
reader = open_reader(source, meaning="prompt" if task == "generate" else "picture")
seen = []


def watch(progress):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    seen.append((progress.num_done, pages * 4096 / 2**20))


run_job(
    Job(
        directory=JobDirectory(Path(place)), reader=reader, survey=survey(reader, check),
        check=check, task=made, backend=backend, checkpoint=session.checkpoint,
        codec=session.codec, config=BatchConfig(forms=forms, rows_per_shard=250),
    ),
    on_progress=watch,
)
quarter = max(memory for done, memory in seen if done <= seen[-1][0] / 4)
print(json.dumps([quarter, max(memory for _, memory in seen)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "form"),
    [
        *(("generate", form) for form in ("files", "parquet", "webdataset", "codes")),
        *(("caption", form) for form in ("sidecar", "parquet", "webdataset", "codes")),
    ],
)
def test_memory_does_not_grow(tmp_path: Path, tiny_checkpoint: Path, task: str, form: str) -> None:
    num_rows = 10_000
    if task == "generate":
        source = tmp_path / "prompts.txt"
        source.write_text("".join(f"draw a red circle {n}\n" for n in range(num_rows)))
    else:
        Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
        source = tmp_path / "rows.jsonl"
        source.write_text('{"image": "a.png"}\n' * num_rows)
    words = [MEASURE, tiny_checkpoint, source, tmp_path / "job", task, form]
    done = subprocess.run([sys.executable, "-c", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    quarter, whole = json.loads(done.stdout)
    print(f"{task} {form}: {quarter:.0f} MiB after a quarter, {whole:.0f} MiB at most")
    # What 7,500 more rows add; a picture alone would be 3 KB, a result line 0.3.
    assert whole - quarter < 12
