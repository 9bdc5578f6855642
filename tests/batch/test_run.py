"""Whole jobs in one process: outputs, continuing, refusing, trying again, stopping."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmgen.batch.assembly import run_job
from mmgen.batch.job import Part
from mmgen.batch.readers import open_reader
from mmgen.batch.rows import Row
from mmgen.batch.runner import RunnerConfig
from mmgen.batch.tasks.caption import CaptionSettings
from mmgen.batch.tasks.generate import GenerateSettings
from mmgen.batch.writers import SidecarRules
from mmgen.data import IGNORE_INDEX, pass_once
from mmgen.data.shards import IMAGE, LOSS, ShardFolder
from mmgen.errors import DataError, MmgenError, OutputError, SettingsError
from mmgen.generate.session import open_session
from mmgen.pictures import open_picture, read_metadata
from tests.batch.conftest import MakeJob, contents, lines


def test_pictures_of_prompts(make_job: MakeJob, prompts: Path, tmp_path: Path) -> None:
    summary = run_job(make_job(prompts, forms=["files"]))
    assert (summary.num_rows, summary.num_done, summary.num_failed) == (20, 20, 0)
    found = lines(tmp_path / "job" / "results.jsonl")
    assert [line["row"] for line in found] == list(range(20))
    assert (found[3]["id"], found[3]["seed"], found[4]["guidance"]) == ("three", 7, 1.0)
    assert found[4]["temperature"] == 0.5 and found[5]["temperature"] == 1.0
    assert len({line["seed"] for line in found}) == 20
    for line in found:
        path = tmp_path / "job" / line["picture"]
        assert open_picture(path).size == (line["width"], line["height"])
        assert read_metadata(path)["prompt"] == line["prompt"]
    assert found[0]["picture"] == "pictures/000000-draw-a-red-0.png"
    assert not list((tmp_path / "job" / "spool").iterdir())


def test_a_picture_is_that_of_a_single_request(
    make_job: MakeJob, prompts: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    run_job(make_job(prompts, forms=["files"]))
    line = lines(tmp_path / "job" / "results.jsonl")[8]
    events = list(
        open_session(tiny_checkpoint).draw(line["prompt"], seed=line["seed"], size=(32, 32))
    )
    drawn = events[-2]
    codes = json.loads(read_metadata(tmp_path / "job" / line["picture"])["codes"])
    assert drawn.codes.array.tolist() == codes  # type: ignore[union-attr]


def test_captions_of_a_folder(make_job: MakeJob, pictures: Path, tmp_path: Path) -> None:
    run_job(make_job(pictures, "caption", forms=["sidecar"]))
    found = lines(tmp_path / "job" / "results.jsonl")
    assert [line["id"] for line in found][-4:] == [f"more/{n:02d}.jpg" for n in (0, 3, 6, 9)]
    for line in found:
        sidecar = (tmp_path / "job" / "captions" / line["id"]).with_suffix(".txt")
        assert sidecar.read_text() == line["caption"] + "\n"


@pytest.mark.parametrize("task", ["generate", "caption"])
def test_packed_outputs_say_the_same(
    make_job: MakeJob, prompts: Path, pictures: Path, tmp_path: Path, task: str
) -> None:
    source = prompts if task == "generate" else pictures
    forms = ["parquet", "webdataset", "codes"]
    summary = run_job(make_job(source, task, forms=forms, rows_per_shard=7))
    job = tmp_path / "job"
    found = lines(job / "results.jsonl")
    num_shards = -(-summary.num_rows // 7)
    tables = [pq.read_table(path) for path in sorted((job / "parquet").iterdir())]
    assert len(tables) == num_shards and len(list((job / "webdataset").iterdir())) == num_shards
    rows = [row for table in tables for row in table.to_pylist()]
    for row, line in zip(rows, found, strict=True):
        assert {name: row[name] for name in line} == line
    again = open_reader(str(job / "webdataset" / "{00000..00001}.tar"), meaning="picture")
    for packed, row in zip(again.rows(), rows[:14], strict=True):
        assert isinstance(packed, Row) and packed.picture is not None
        assert packed.id == row["id"] and packed.picture.read() == row["image"]["bytes"]
    assert not list((job / "spool").iterdir())


def test_parquet_is_a_data_set_with_pictures(
    make_job: MakeJob, prompts: Path, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    run_job(make_job(prompts, forms=["files", "parquet"]))
    loaded = datasets.Dataset.from_parquet(
        str(tmp_path / "job" / "parquet" / "part-00000.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    line = lines(tmp_path / "job" / "results.jsonl")[2]
    drawn = open_picture(tmp_path / "job" / line["picture"])
    assert np.array_equal(np.asarray(loaded[2]["image"]), np.asarray(drawn))


@pytest.mark.parametrize("task", ["generate", "caption"])
def test_codes_are_training_data(
    make_job: MakeJob, prompts: Path, pictures: Path, tmp_path: Path, task: str
) -> None:
    job = make_job(prompts if task == "generate" else pictures, task, forms=["codes"])
    assert job.checkpoint is not None and job.codec is not None
    run_job(job)
    shards = ShardFolder(
        tmp_path / "job" / "codes", fingerprint=job.checkpoint.vocabulary.fingerprint
    )
    assert shards.manifest.is_complete and len(shards) == len(job.rows)
    batches = pass_once(
        shards.path, vocabulary=job.checkpoint.vocabulary, context_length=256, rows_per_batch=4
    )
    num_learnt = sum(int((batch.targets != IGNORE_INDEX).sum()) for batch in batches)
    flags = [shards.sample(index).flags for index in range(len(shards))]
    assert num_learnt == sum(int(((item & LOSS) > 0).sum()) for item in flags) > 0
    line = lines(tmp_path / "job" / "results.jsonl")[0]
    sample = shards.sample(0)
    user, assistant = job.codec.decode(sample.ids).turns
    learnt = (sample.flags & LOSS) > 0
    has_codes = (sample.flags & IMAGE) > 0
    if task == "generate":
        assert [item.text for item in user.segments] == [f"draw {line['prompt']}"]  # type: ignore[union-attr]
        assert learnt[has_codes].all() and has_codes.sum() == 2 + 16  # rows, columns, codes
    else:
        assert "".join(item.text for item in assistant.segments).strip() == line["caption"]  # type: ignore[union-attr]
        assert not learnt[has_codes].any() and learnt.any()


@pytest.mark.parametrize(("form", "suffix"), [("webp", ".webp"), ("jpeg", ".jpg")])
def test_other_formats_keep_the_story(
    make_job: MakeJob, prompts: Path, tmp_path: Path, form: Any, suffix: str
) -> None:
    settings = GenerateSettings(size=(32, 32), picture_format=form)
    run_job(make_job(prompts, forms=["files"], settings=settings))
    run_job(make_job(prompts, forms=["files"], name="png"))
    line = lines(tmp_path / "job" / "results.jsonl")[0]
    path = tmp_path / "job" / line["picture"]
    png = lines(tmp_path / "png" / "results.jsonl")[0]
    assert path.suffix == suffix
    assert read_metadata(path) == read_metadata(tmp_path / "png" / png["picture"])
    pixels = np.asarray(open_picture(path), dtype=int)
    difference = np.abs(pixels - np.asarray(open_picture(tmp_path / "png" / png["picture"])))
    assert difference.mean() < (1e-9 if form == "webp" else 12)


def test_a_finished_job_asks_nothing(make_job: MakeJob, prompts: Path, tmp_path: Path) -> None:
    run_job(make_job(prompts, forms=["files", "parquet"]))
    before = contents(tmp_path / "job")
    job = make_job(prompts, forms=["files", "parquet"])
    num_ids = job.backend.num_ids
    assert run_job(job).num_before == 20
    assert job.backend.num_ids == num_ids and contents(tmp_path / "job") == before


def test_other_settings_are_refused_and_named(
    make_job: MakeJob, prompts: Path, tmp_path: Path
) -> None:
    run_job(make_job(prompts))
    with pytest.raises(SettingsError, match=r"settings.seed was 0 and is 1; settings.guidance"):
        run_job(make_job(prompts, settings=GenerateSettings(seed=1, size=(32, 32), guidance=4)))
    job = make_job(prompts)
    assert job.checkpoint is not None
    other = replace(job.checkpoint, weights=replace(job.checkpoint.weights, sha256="0" * 64))
    with pytest.raises(SettingsError, match=r"model.fingerprint was \"[0-9a-f]{64}\" and is"):
        run_job(replace(job, checkpoint=other))
    prompts.write_text(prompts.read_text().replace("red", "rot"))
    with pytest.raises(SettingsError, match=r"input\.digest was"):
        run_job(make_job(prompts))
    assert len(lines(tmp_path / "job" / "results.jsonl")) == 20


def test_directories_of_something_else(make_job: MakeJob, prompts: Path, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "thesis.tex").write_text("dear")
    with pytest.raises(OutputError, match=r"holds thesis.tex and is no batch job"):
        run_job(make_job(prompts))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a directory"):
        run_job(make_job(prompts, name="file"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "job.json").write_text('{"format": "something"}')
    with pytest.raises(OutputError, match="describes no batch job"):
        run_job(make_job(prompts, name="other"))


def test_two_processes_do_not_share_a_job(make_job: MakeJob, prompts: Path) -> None:
    job = make_job(prompts)
    with (
        job.directory.locked(),
        pytest.raises(OutputError, match="another process works on"),
    ):
        run_job(make_job(prompts))


def test_parts_make_up_the_whole(make_job: MakeJob, prompts: Path, tmp_path: Path) -> None:
    run_job(make_job(prompts, forms=["files"]))
    found = b""
    for index in range(3):
        part = Part(index, 3)
        run_job(make_job(prompts, name=f"part-{index}", forms=["files"], part=part))
        found += (tmp_path / f"part-{index}" / "results.jsonl").read_bytes()
    assert found == (tmp_path / "job" / "results.jsonl").read_bytes()
    assert Part.parse("7/8").folder(Path("x")) == Path("x/part-007-of-008")
    for text in ("8/8", "1", "a/b", "-1/2", "1/0"):
        with pytest.raises(SettingsError, match=r"--shard is I/N"):
            Part.parse(text)


def test_equal_ids_are_refused_before_work(make_job: MakeJob, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "x", "prompt": "a"}\n{"prompt": "b"}\n{"id": "x", "prompt": "c"}\n')
    with pytest.raises(DataError, match="rows 1 and 3 have the same id 'x'"):
        make_job(path)


@pytest.mark.parametrize("existing", ["keep", "overwrite", "append"])
def test_sidecars_that_exist(
    make_job: MakeJob, pictures: Path, tmp_path: Path, existing: Any
) -> None:
    (pictures / "more" / "00.txt").write_text("a red one\n")
    refuse = SidecarRules(folder=pictures)
    with pytest.raises(OutputError, match=r"more/00.txt exists; choose what to do"):
        run_job(make_job(pictures, "caption", forms=["sidecar"], sidecars=refuse))
    rules = SidecarRules(folder=pictures, existing=existing)
    run_job(make_job(pictures, "caption", forms=["sidecar"], sidecars=rules))
    found = {line["id"]: line for line in lines(tmp_path / "job" / "results.jsonl")}
    caption = found["more/00.jpg"]["caption"] + "\n"
    expected = {"keep": "a red one\n", "overwrite": caption, "append": "a red one\n" + caption}
    assert (pictures / "more" / "00.txt").read_text() == expected[existing]
    assert (pictures / "01.txt").read_text() == found["01.png"]["caption"] + "\n"


def test_pictures_that_would_share_a_sidecar(make_job: MakeJob, pictures: Path) -> None:
    Image.new("RGB", (8, 8)).save(pictures / "01.webp")
    with pytest.raises(DataError, match=r"01.png and 01.webp would both have the caption file"):
        run_job(make_job(pictures, "caption", forms=["sidecar"]))


def test_ids_too_long_for_a_file(make_job: MakeJob, pictures: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"id": "x" * 300, "image": str(pictures / "01.png")}) + "\n")
    with pytest.raises(DataError, match="more than 200 bytes; give the row a shorter id"):
        run_job(make_job(rows, "caption", forms=["sidecar"]))
    assert run_job(make_job(rows, "caption")).num_failed == 0


def test_whole_results_as_sidecars(make_job: MakeJob, pictures: Path, tmp_path: Path) -> None:
    rules = SidecarRules(extension=".json")
    run_job(make_job(pictures, "caption", forms=["sidecar"], sidecars=rules))
    for line in lines(tmp_path / "job" / "results.jsonl"):
        sidecar = (tmp_path / "job" / "captions" / line["id"]).with_suffix(".json")
        assert json.loads(sidecar.read_text()) == line
    with pytest.raises(SettingsError, match=r"nothing can be appended to .json"):
        SidecarRules(extension=".json", existing="append")
    with pytest.raises(SettingsError, match=r"an extension is like .txt, got 'txt'"):
        SidecarRules(extension="txt")


def test_answers_do_not_depend_on_their_neighbours(
    make_job: MakeJob, pictures: Path, tmp_path: Path
) -> None:
    settings = CaptionSettings(max_tokens=6)
    run_job(make_job(pictures, "caption", settings=settings))
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "01.png").write_bytes((pictures / "01.png").read_bytes())
    run_job(make_job(alone, "caption", settings=settings, name="one"))
    (one,) = lines(tmp_path / "one" / "results.jsonl")
    among = next(
        line for line in lines(tmp_path / "job" / "results.jsonl") if line["id"] == "01.png"
    )
    assert one | {"row": 0} == among | {"row": 0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: GenerateSettings(seed=-1), "a seed must be within"),
        (lambda: CaptionSettings(max_tokens=0), "max_tokens must be 1 or more"),
        (lambda: CaptionSettings(prompt=" "), "the prompt is empty"),
        (lambda: RunnerConfig(num_workers=0), "must be 1 or more"),
    ],
)
def test_settings_out_of_their_domains(settings: Callable[[], object], message: str) -> None:
    with pytest.raises(MmgenError, match=message):
        settings()
