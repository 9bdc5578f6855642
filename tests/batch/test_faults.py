"""Jobs that are killed again and again end as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

COLOURS = ("red", "green", "blue", "white", "black", "yellow")

# Loads the model once; each attempt is a fork of it, killed at a random moment. After each kill
# every file under its final name must be whole, which is to say as in the undisturbed run.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path

import torch
torch.set_num_threads(1)

from mmgen.batch.assembly import BatchConfig, Job, run_job
from mmgen.batch.job import JobDirectory
from mmgen.batch.opening import open_backend
from mmgen.batch.readers import open_reader
from mmgen.batch.survey import survey
from mmgen.batch.tasks.caption import CaptionSettings, CaptionTask
from mmgen.batch.tasks.generate import GenerateSettings, GenerateTask

checkpoint, source, place, task, forms, num_kills = sys.argv[1:]
forms = tuple(filter(None, forms.split(",")))
place, num_kills = Path(place), int(num_kills)
TELLS_OF_RUNS = {"log.jsonl", "report.json", "report.html"}
GROWING = {"results.jsonl", "errors.jsonl", "mmgen.json", "sidecars"} | TELLS_OF_RUNS

backend = open_backend(checkpoint, parts="both", rows_per_request=2, num_rows=16)
session = backend.session


def run(folder):
    if task == "generate":
        settings = GenerateSettings(size=(32, 32))
        made, check = GenerateTask(settings, session.checkpoint, model="tiny"), settings.request
    else:
        settings = CaptionSettings(max_tokens=6)
        keep = bool({"parquet", "webdataset"} & set(forms))
        made = CaptionTask(settings, session.checkpoint, session.codec, keep_pictures=keep)
        check = settings.check
    reader = open_reader(source, meaning="prompt" if task == "generate" else "picture")
    run_job(Job(
        directory=JobDirectory(folder), reader=reader, survey=survey(reader, check), check=check,
        task=made, backend=backend, checkpoint=session.checkpoint, codec=session.codec,
        config=BatchConfig(forms=forms, rows_per_shard=40),
    ))


def attempt(folder, seconds):
    "Run in a fork, and kill it after some seconds; return whether it had time to finish."
    child = os.fork()
    if child == 0:
        try:
            run(folder)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"the job ended with {status}"
            return True
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def visible(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


whole = place / "whole"
started = time.monotonic()
assert attempt(whole, 3600)
seconds = time.monotonic() - started
expected = visible(whole)
rng = random.Random(0)
kills = jobs = 0
while kills < num_kills:
    jobs += 1
    folder = place / f"killed-{jobs}"
    while True:
        is_last = kills >= num_kills
        if attempt(folder, 3600 if is_last else rng.uniform(0, 2.5 * seconds / num_kills)):
            break
        kills += 1
        if not folder.exists():
            continue
        for name, data in visible(folder).items():
            if name.startswith("spool/") or Path(name).name in GROWING:
                continue
            assert expected[name] == data, f"{name} differs after a kill"
    log = [json.loads(line) for line in (folder / "log.jsonl").read_bytes().splitlines()]
    rows = [record["row"] for record in log]
    assert len(set(rows)) == len(rows), "a row was answered twice"
    found = visible(folder)
    for name in TELLS_OF_RUNS:
        del found[name]
    assert found.keys() == expected.keys() - TELLS_OF_RUNS, "files differ"
    different = [name for name in found if found[name] != expected[name]]
    assert not different, f"{different[:5]} differ"
    hidden = [path for path in folder.rglob(".*")]
    assert not hidden, hidden
print(json.dumps({"kills": kills, "jobs": jobs, "rows": len(rows), "seconds": seconds}))
"""


def killed(
    place: Path, checkpoint: Path, source: Path, task: str, forms: str, kills: int
) -> dict[str, float]:
    command = [sys.executable, "-c", KILLER, checkpoint, source, place, task, forms, kills]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, float] = json.loads(done.stdout)
    return result


def write_prompts(path: Path, num_rows: int) -> Path:
    with path.open("w") as file:
        for number in range(num_rows):
            # One row in fifty cannot be used.
            prompt = "" if number % 50 == 49 else f"draw a {COLOURS[number % 6]} {number}"
            file.write(json.dumps({"id": f"row {number}", "prompt": prompt}) + "\n")
    return path


def write_pictures(folder: Path, num_rows: int) -> Path:
    folder.mkdir()
    for number in range(num_rows):
        path = folder / f"{number:04d}.png"
        if number % 50 == 49:
            path.write_bytes(b"no picture")
        else:
            colour = (number % 256, number // 2 % 256, 3 * number % 256)
            Image.new("RGB", (32, 32), colour).save(path)
    return folder


GENERATED = ("files", "parquet", "webdataset", "codes")
CAPTIONED = ("sidecar", "parquet", "webdataset", "codes")


def test_drawing_killed_now_and_then(tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = write_prompts(tmp_path / "prompts.jsonl", 100)
    found = killed(tmp_path, tiny_checkpoint, source, "generate", ",".join(GENERATED), 8)
    assert found["kills"] == 8 and found["rows"] == 100


def test_captioning_killed_now_and_then(tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = write_pictures(tmp_path / "pictures", 100)
    found = killed(tmp_path, tiny_checkpoint, source, "caption", ",".join(CAPTIONED), 8)
    assert found["kills"] == 8 and found["rows"] == 100


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", *GENERATED, ",".join(GENERATED)])
def test_drawing_killed_fifty_times(tmp_path: Path, tiny_checkpoint: Path, form: str) -> None:
    source = write_prompts(tmp_path / "prompts.jsonl", 500)
    found = killed(tmp_path, tiny_checkpoint, source, "generate", form, 50)
    assert found["kills"] == 50 and found["rows"] == 500


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", *CAPTIONED, ",".join(CAPTIONED)])
def test_captioning_killed_fifty_times(tmp_path: Path, tiny_checkpoint: Path, form: str) -> None:
    source = write_pictures(tmp_path / "pictures", 500)
    found = killed(tmp_path, tiny_checkpoint, source, "caption", form, 50)
    assert found["kills"] == 50 and found["rows"] == 500
