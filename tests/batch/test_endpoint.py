"""Rows answered by a server: as by the same model here, continued, refused, and when it dies."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("fastapi")

from mmgen.batch.assembly import Job, run_job
from mmgen.batch.tasks.caption import CaptionSettings
from mmgen.batch.tasks.caption_controls import CaptionControls
from mmgen.batch.tasks.generate import GenerateSettings
from mmgen.batch.tasks.sampling import SamplingSettings
from mmgen.cli.batch import batch
from mmgen.errors import MmgenError, SettingsError
from mmgen.serve.settings import ServerConfig
from tests.batch.conftest import Stranger
from tests.serve.conftest import RunningServer, unhurried

MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path) -> Iterator[RunningServer]:
    """The model that jobs here use, behind HTTP."""
    session = unhurried(tiny_checkpoint, 0.0)
    running = RunningServer(session, ServerConfig(model_name="tiny", api_key="secret"))
    yield running
    running.close()


def run(*arguments: object, key: str | None = None) -> Result:
    environment = {} if key is None else {"MMGEN_API_KEY": key}
    return CliRunner().invoke(batch, [*map(str, arguments)], env=environment)


def answered(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stderr


def refused(result: Result, kind: type[MmgenError]) -> str:
    assert isinstance(result.exception, kind), (result.output, result.exception)
    return str(result.exception)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pictures_are_those_of_the_same_model_here(
    make_job: MakeJob, prompts: Path, server: RunningServer, tmp_path: Path
) -> None:
    settings = GenerateSettings(size=(32, 32), negative="a green", seed=3)
    # One row has no guidance, from which nothing could lead away.
    rows = [row for row in lines_of(prompts) if "guidance" not in row]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_job(make_job(prompts, name="here", forms=("files",), settings=settings))
    options = ("--size", "32x32", "--negative", "a green", "--seed", 3)
    words = ("generate", prompts, "-o", tmp_path / "there", "--endpoint", server.address)
    told = answered(run(*words, *options, key="secret"))
    assert "19 of 19 rows answered, 0 failed; 19 in this run" in told
    # Bytes of files hold all that a picture was drawn with, the codes among it.
    assert files_of(tmp_path / "there/pictures") == files_of(tmp_path / "here/pictures")
    results = (tmp_path / "there/results.jsonl").read_bytes()
    assert results == (tmp_path / "here/results.jsonl").read_bytes()
    again = answered(run(*words, *options, "--api-key", "secret"))
    assert "0 in this run" in again


def test_captions_are_those_of_the_same_model_here(
    make_job: MakeJob, pictures: Path, server: RunningServer, tmp_path: Path
) -> None:
    Image.new("RGBA", (30, 20), (0, 0, 255, 100)).save(pictures / "clear.tiff")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.radial_gradient("L").save(pictures / "turned.jpg", exif=turned)
    settings = CaptionSettings(
        max_tokens=6,
        seed=5,
        sampling=SamplingSettings(temperature=1.0, top_k=40),
        controls=CaptionControls(prompts={"a": "what is {id}?", "b": "a red or a blue?"}),
    )
    asking = ("--ask", "a=what is {id}?", "--ask", "b=a red or a blue?", "--seed", 5)
    choosing = ("--max-tokens", 6, "--temperature", 1, "--top-k", 40)
    forms = ("parquet", "sidecar")
    run_job(make_job(pictures, "caption", name="here", forms=forms, settings=settings))
    words = ("caption", pictures, "-o", tmp_path / "there", "--endpoint", server.address + "/v1")
    told = answered(run(*words, *asking, *choosing, "--to", "parquet", "--to", "sidecar",
                        key="secret"))  # fmt: skip
    assert "14 of 14 rows answered" in told
    found = lines_of(tmp_path / "there/results.jsonl")
    assert found == lines_of(tmp_path / "here/results.jsonl")
    assert all(set(line["captions"]) == {"a", "b"} for line in found)
    assert len({line["caption"] for line in found}) > 1
    import pyarrow.parquet as pq

    here, there = (
        pq.read_table(tmp_path / name / "parquet/part-00000.parquet") for name in ("here", "there")
    )
    assert there.column("image").equals(here.column("image"))


def test_the_usual_question_is_the_servers(
    make_job: MakeJob, pictures: Path, server: RunningServer, tmp_path: Path
) -> None:
    run_job(make_job(pictures, "caption", name="here"))
    words = ("caption", pictures, "-o", tmp_path / "there", "--endpoint", server.address)
    answered(run(*words, "--max-tokens", 6, key="secret"))
    found = lines_of(tmp_path / "there/results.jsonl")
    assert found == lines_of(tmp_path / "here/results.jsonl")
    assert {line["prompt"] for line in found} == {"what is this?"}


def test_what_the_server_refuses_is_said_for_its_row(server: RunningServer, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [{"prompt": "a red", "size": size} for size in ("32x32", "99x99", "big")]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("generate", source, "-o", tmp_path / "job", "--endpoint", server.address,
               key="secret")  # fmt: skip
    assert done.exit_code == 1 and "1 of 3 rows answered, 2 failed" in done.stderr
    there, here = lines_of(tmp_path / "job/errors.jsonl")
    assert there["reason"].startswith("the server refused it (400): ")
    assert "99x99" in there["reason"] and there["attempts"] == 1
    assert "a size is WIDTHxHEIGHT" in here["reason"]
    num_asked = server.desk.metrics.value("mmgen_images_total")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    Image.new("RGB", (8, 8)).save(tmp_path / "whole.png")
    done = run("caption", tmp_path / "*.png", "-o", tmp_path / "said", "--endpoint", server.address,
               "--max-tokens", 2, key="secret")  # fmt: skip
    (fault,) = lines_of(tmp_path / "said/errors.jsonl")
    assert fault["error"] == "PictureError"
    assert server.desk.metrics.value("mmgen_images_total") == num_asked


def said(content: Any, **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}}]}


def test_a_stranger_is_asked_in_openais_words(
    stranger: Stranger, pictures: Path, tmp_path: Path
) -> None:
    stranger.answer = lambda body: said([{"type": "text", "text": " a fox"}, {"type": "odd"}])
    words = ("caption", pictures, "-o", tmp_path / "job", "--endpoint", stranger.address)
    message = refused(run(*words), SettingsError)
    assert "this server does not tell what is usual; give --prompt" in message
    answered(run(*words, "--prompt", "what?", "--top-p", 0.5))
    first, *_ = found = lines_of(tmp_path / "job/results.jsonl")
    # Neither how it ended nor tokens were told.
    assert first.keys() == {"row", "id", "caption", "prompt", "seed"}
    assert {line["caption"] for line in found} == {"a fox"} and len(found) == 12
    asked = next(body for body in stranger.seen if body["seed"] == first["seed"])
    assert asked.keys() == {"model", "messages", "max_tokens", "seed", "top_p", "path"}
    assert (asked["model"], asked["path"]) == ("stranger", "/v1/chat/completions")
    picture, question = asked["messages"][0]["content"]
    assert question == {"type": "text", "text": "what?"}
    uri = picture["image_url"]["url"]
    assert uri.startswith("data:image/")
    sent = base64.b64decode(uri.partition(",")[2])
    assert sent == (pictures / first["id"]).read_bytes()


def test_a_stranger_draws(stranger: Stranger, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (1, 2, 3)).save(buffer, format="PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    stranger.answer = lambda body: {"data": [{"b64_json": encoded, "revised_prompt": "a big fox"}]}
    (tmp_path / "p.txt").write_text("a fox\n")
    words = ("generate", tmp_path / "p.txt", "-o", tmp_path / "job")
    options = ("--format", "webp", "--omit", "seed", "--omit", "response_format")
    answered(run(*words, "--endpoint", stranger.address, "--guidance", 3, *options))
    (line,) = lines_of(tmp_path / "job/results.jsonl")
    assert line == {
        "row": 0, "id": "0", "prompt": "a fox", "revised_prompt": "a big fox", "width": 5,
        "height": 4, "picture": "pictures/000000-a-fox.webp",
    }  # fmt: skip
    with Image.open(tmp_path / "job" / line["picture"]) as picture:
        assert picture.getpixel((0, 0)) == (1, 2, 3)
    (asked,) = stranger.seen
    assert asked == {"model": "stranger", "prompt": "a fox", "n": 1, "guidance_scale": 3.0,
                     "path": "/v1/images/generations"}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        ({}, "EngineError", "the server's answer has no choices; it has: none"),
        ([], "EngineError", "answered with list, not an object"),
        (said(None, refusal="not that"), "EngineError", "the server's model refuses: not that"),
        (said(None), "EngineError", "has no text"),
        ((422, {"detail": "no seed"}), "SettingsError", "refused it (422): {'detail': 'no seed'}"),
        ((404, {"error": "no model"}), "SettingsError", "refused it (404): no model"),
        ((503, {"error": {"message": "busy"}}), "TransientError", "answered 503"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    stranger: Stranger, tmp_path: Path, answer: Any, kind: str, reason: str
) -> None:
    stranger.answer = lambda body: answer
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = ("caption", tmp_path / "a.png", "-o", tmp_path / "job", "--prompt", "what?")
    done = run(*words, "--endpoint", stranger.address, "--attempts", 1)
    assert done.exit_code == 1, done.output
    (fault,) = lines_of(tmp_path / "job/errors.jsonl")
    assert fault["error"] == kind and reason in fault["reason"]


def test_another_model_or_server_does_not_go_on(stranger: Stranger, tmp_path: Path) -> None:
    stranger.answer = lambda body: (400, {"error": {"message": "no"}})
    (tmp_path / "p.txt").write_text("a fox\n")
    words = ("generate", tmp_path / "p.txt", "-o", tmp_path / "job", "--endpoint", stranger.address)
    assert run(*words).exit_code == 1
    stranger.models = ["other"]
    message = refused(run(*words), SettingsError)
    assert 'model.name was "stranger" and is "other"' in message
    stranger.models = ["stranger"]
    local = run(*words[:4], "--omit", "seed", *words[4:])
    assert "settings.omitted" in refused(local, SettingsError)


def test_training_shards_need_a_model(make_job: MakeJob, prompts: Path) -> None:
    job = make_job(prompts, forms=["codes"])
    with pytest.raises(SettingsError, match="the model's own ids, which no server gives"):
        replace(job, checkpoint=None, codec=None)


def test_a_dry_run_asks_for_no_answer(stranger: Stranger, tmp_path: Path) -> None:
    source = tmp_path / "p.jsonl"
    source.write_text('{"prompt": "a fox"}\n{"prompt": "a cat", "seed": "x"}\n')
    done = run("generate", source, "-o", tmp_path / "job", "--endpoint", stranger.address,
               "--dry-run")  # fmt: skip
    assert done.exit_code == 1
    assert "rows:      2" in done.stdout and "unusable:  1" in done.stdout
    assert stranger.seen == [] and not (tmp_path / "job").exists()


def test_requests_are_under_way_together_and_no_more_than_asked(
    stranger: Stranger, tmp_path: Path
) -> None:
    lock, open_now, most = threading.Lock(), [0], [0]

    def answer(body: dict[str, Any]) -> Any:
        with lock:
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
        time.sleep(0.02)
        with lock:
            open_now[0] -= 1
        return said("a fox")

    stranger.answer = answer
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = tmp_path / "rows.jsonl"
    source.write_text('{"image": "a.png"}\n' * 40)
    words = ("caption", source, "-o", tmp_path / "job", "--prompt", "what?")
    answered(run(*words, "--endpoint", stranger.address, "--concurrency", 6))
    assert 3 <= most[0] <= 6
