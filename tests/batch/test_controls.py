from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from mmgen.batch.assembly import Job, run_job
from mmgen.batch.backend import SessionBackend
from mmgen.batch.tasks.caption import CaptionSettings, CaptionTask
from mmgen.batch.tasks.caption_controls import AnswerForm, CaptionControls
from mmgen.batch.tasks.generate import GenerateSettings, GenerateTask
from mmgen.batch.tasks.sampling import SamplingSettings
from mmgen.cli.batch import batch
from mmgen.errors import MmgenError, SettingsError
from mmgen.generate.provenance import Provenance
from mmgen.generate.scoring import scorer_of
from mmgen.generate.words import WordSettings

MakeJob = Callable[..., Job]
HOT = SamplingSettings(temperature=1.0)


def results(job: Job) -> list[dict[str, Any]]:
    """Run a job in which every row is answered; return its lines."""
    summary = run_job(job)
    errors = (job.directory.path / "errors.jsonl").read_text()
    assert summary.is_complete and not summary.num_failed, errors
    lines = (job.directory.path / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Four pictures with a title each."""
    for number, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{colour}.png")
        with (tmp_path / "rows.jsonl").open("a") as file:
            row = {"id": f"p{number}", "image": f"{colour}.png", "title": colour, "seed": number}
            file.write(json.dumps(row) + "\n")
    return tmp_path / "rows.jsonl"


def captions(make_job: MakeJob, rows: Path, **changes: Any) -> list[dict[str, Any]]:
    controls = CaptionControls(**changes)
    settings = CaptionSettings(max_tokens=24, sampling=HOT, controls=controls)
    return results(make_job(rows, "caption", settings=settings))


def test_several_captions_with_fields_and_a_beginning(make_job: MakeJob, rows: Path) -> None:
    prompts = {"short": "is this {title}?", "long": "what is {name} of {id}?"}
    found = captions(
        make_job, rows, prompts=prompts, prefix="a {title} ", words=WordSettings(max_words=6)
    )
    for number, (line, title) in enumerate(
        zip(found, ("red", "green", "blue", "white"), strict=True)
    ):
        assert line["id"] == f"p{number}" and line["prompt"] == f"is this {title}?"
        assert line["captions"].keys() == {"short", "long"}
        assert line["caption"] == line["captions"]["short"]
        for caption in line["captions"].values():
            assert caption.startswith(f"a {title}")
    assert any(line["captions"]["short"] != line["captions"]["long"] for line in found)


def test_json_answers_are_told_as_values_too(make_job: MakeJob, rows: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "n": {"type": "integer", "maximum": 9}},
        "required": ["kind", "n"],
        "additionalProperties": False,
    }
    form = AnswerForm("json", json.dumps(schema))
    for line in captions(make_job, rows, form=form):
        assert line["content"] == json.loads(line["caption"])
        assert line["content"]["kind"] in ("a", "b") and line["content"]["n"] <= 9


def test_the_likeliest_of_several_is_kept(
    make_job: MakeJob, rows: Path, backend: SessionBackend
) -> None:
    best = captions(make_job, rows, tries=6, form=AnswerForm("regex", "[a-d]{2}"))
    session = backend.session
    scorer = scorer_of(session)
    assert scorer is not None
    for line, colour in zip(best, ("red", "green", "blue", "white"), strict=True):
        request = scorer.caption_request(rows.parent / f"{colour}.png", line["caption"])
        (score,) = scorer.score([request])
        assert line["score"] == pytest.approx(score.mean, abs=1e-4)
    settings = CaptionSettings(
        max_tokens=24,
        sampling=HOT,
        controls=CaptionControls(has_scores=True, form=AnswerForm("regex", "[a-d]{2}")),
    )
    single = results(make_job(rows, "caption", settings=settings, name="single"))
    assert all(a["score"] >= b["score"] for a, b in zip(best, single, strict=True))
    assert any(a["score"] > b["score"] for a, b in zip(best, single, strict=True))


def test_a_caption_that_is_there_is_scored(make_job: MakeJob, rows: Path) -> None:
    found = captions(make_job, rows, given="title", form=AnswerForm("choice", "yes\nno"))
    assert len({line["given_score"] for line in found}) == 4
    assert {line["caption"] for line in found} <= {"yes", "no"}


def test_answers_that_are_not_as_they_must_be_are_errors(make_job: MakeJob, rows: Path) -> None:
    controls = CaptionControls(words=WordSettings(include=("elephant",)))
    job = make_job(rows, "caption", settings=CaptionSettings(max_tokens=3, controls=controls))
    summary = run_job(job)
    assert summary.num_failed == 4
    (line, *_) = (job.directory.path / "errors.jsonl").read_text().splitlines()
    assert "it ended by its length without saying 'elephant'" in json.loads(line)["reason"]
    form = CaptionControls(form=AnswerForm("regex", "[a-z]{40}"))
    cut = make_job(
        rows, "caption", settings=CaptionSettings(max_tokens=3, controls=form), name="cut"
    )
    run_job(cut)
    (line, *_) = (cut.directory.path / "errors.jsonl").read_text().splitlines()
    assert "cut off before its form was complete; raise --max-tokens" in line


def test_controls_that_cannot_be_are_refused(backend: SessionBackend) -> None:
    with pytest.raises(SettingsError, match="the JSON schema is not JSON"):
        AnswerForm("json", "{")
    with pytest.raises(SettingsError, match="a JSON schema is an object"):
        AnswerForm("json", "[]")
    with pytest.raises(SettingsError, match="words and a form exclude each other"):
        CaptionControls(form=AnswerForm("choice", "a"), words=WordSettings(avoid=("b",)))
    with pytest.raises(SettingsError, match="best-of must be within 1 and 64, got 65"):
        CaptionControls(tries=65)
    session = backend.session
    settings = CaptionSettings(controls=CaptionControls(tries=2), sampling=HOT)
    with pytest.raises(SettingsError, match="on the torch engine only"):
        CaptionTask(settings, session.checkpoint, session.codec)
    cold = CaptionSettings(
        controls=CaptionControls(tries=2), sampling=SamplingSettings(temperature=0.0)
    )
    with pytest.raises(SettingsError, match="best-of needs answers that differ"):
        CaptionTask(cold, session.checkpoint, session.codec, scorer=scorer_of(session))
    with pytest.raises(SettingsError, match="on the torch engine only"):
        GenerateTask(GenerateSettings(tries=2), session.checkpoint, model="tiny")


def test_the_best_of_several_pictures_is_kept(
    make_job: MakeJob, prompts: Path, backend: SessionBackend
) -> None:
    settings = GenerateSettings(size=(32, 32), tries=4, template="draw {prompt}", negative="blue")
    job = make_job(prompts, settings=settings, forms=("files",))
    scorer = scorer_of(backend.session)
    assert scorer is not None
    lines = (line for line in results_but(job, failed=1))
    for line in lines:
        assert line["score"] == max(line["scores"]) and len(set(line["scores"])) == 4
        assert line["prompt"].startswith("draw draw a") and line["negative"] == "blue"
        story = Provenance.read(job.directory.path / line["picture"])
        assert story.seed == line["seed"] and story.negative_prompt == "blue"


def results_but(job: Job, *, failed: int) -> list[dict[str, Any]]:
    """Run a job in which so many rows fail; return its lines."""
    assert run_job(job).num_failed == failed
    lines = (job.directory.path / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_command_takes_the_controls(tmp_path: Path, rows: Path, tiny_checkpoint: Path) -> None:
    def run(*words: str) -> Any:
        common = ["--model", str(tiny_checkpoint), "--temperature", "1.0", "--max-tokens", "12"]
        return CliRunner().invoke(batch, ["caption", str(rows), *common, *words])

    job = tmp_path / "job"
    done = run("-o", str(job), "--ask", "is this {title}?", "--choices", "yes,no", "--scores")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (job / "results.jsonl").read_text().splitlines()]
    assert {line["caption"] for line in lines} <= {"yes", "no"}
    assert [line["prompt"] for line in lines][1] == "is this green?"
    other = run("-o", str(job), "--ask", "is this {title}?", "--choices", "yes,no")
    assert "has_scores was true and is false" in str(other.exception)
    for words, message in [
        (["--ask", "{nothing}"], "names the field 'nothing', which the row does not have"),
        (["--choices", "a", "--regex", "b"], "exclude each other"),
        (["--min-side", "99"], "every picture is left out"),
        (["--json-schema", str(tmp_path / "none.json")], "cannot read"),
    ]:
        refused = run("-o", str(tmp_path / "refused"), *words)
        assert isinstance(refused.exception, MmgenError), refused.output
        assert message in str(refused.exception)
    assert not (tmp_path / "refused").exists()
