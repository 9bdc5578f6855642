"""What is refused of a job on a server, before anything is read or before work starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mmgen.cli.batch import batch
from mmgen.errors import EngineError, MmgenError, SettingsError, TransientError
from tests.batch.conftest import Stranger


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    server = Stranger()
    yield server
    server.die()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(batch, [*map(str, arguments)])


def refused(result: Result, kind: type[MmgenError]) -> str:
    assert isinstance(result.exception, kind), (result.output, result.exception)
    return str(result.exception)


REFUSED: list[tuple[str, tuple[object, ...], str]] = [
    ("caption", ("--to", "codes"), "--to codes takes the model's own ids"),
    ("generate", ("--to", "codes"), "--to codes takes the model's own ids"),
    ("caption", ("--scores",), "likelihoods .* cannot be asked of a server"),
    ("caption", ("--best-of", 2, "--temperature", 1), "likelihoods"),
    ("generate", ("--best-of", 2), "likelihoods"),
    ("caption", ("--avoid", "cat"), "words .* cannot be asked of a server"),
    ("caption", ("--choices", "a,b"), "a form .* cannot be asked of a server"),
    ("caption", ("--prefix", "a "), "a beginning"),
    ("caption", ("--tokenizer", "fsq"), "a visual tokenizer"),
    ("caption", ("--ray", "local"), "--ray is about a model in this process"),
    ("generate", ("--engine", "vllm"), "--engine is about a model in this process"),
    ("generate", ("--device", "cuda"), "--device is about a model in this process"),
    ("generate", ("--workers", 4), "--workers is about a model in this process"),
]


@pytest.mark.parametrize(("task", "options", "message"), REFUSED)
def test_what_no_server_gives_is_refused_before_anything_is_read(
    tmp_path: Path, task: str, options: tuple[object, ...], message: str
) -> None:
    # Neither the input nor the server is there.
    words = (task, tmp_path / "none", "-o", tmp_path / "job", "--endpoint", "http://127.0.0.1:9")
    told = refused(run(*words, *options), SettingsError)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(told)
    assert "\n" not in told and not (tmp_path / "job").exists()


def test_what_only_a_server_takes_is_refused_without_one(tmp_path: Path) -> None:
    words = ("generate", tmp_path / "none", "-o", tmp_path / "job", "--concurrency", 3)
    assert "add --endpoint" in refused(run(*words), SettingsError)


def test_who_answers_is_found_before_work_starts(stranger: Stranger, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a fox\n")
    words = ("generate", tmp_path / "p.txt", "-o", tmp_path / "job", "--endpoint")
    down = refused(run(*words, "http://127.0.0.1:9"), TransientError)
    assert "http://127.0.0.1:9 does not answer" in down and "start it" in down
    other = run(*words, stranger.address, "--model", "big")
    assert "serves no model 'big'; there is: stranger" in refused(other, SettingsError)
    stranger.models = ["a", "b"]
    assert "choose with --model: a, b" in refused(run(*words, stranger.address), SettingsError)
    stranger.models = []
    assert "serves no model" in refused(run(*words, stranger.address), SettingsError)
    stranger.status = 401
    message = refused(run(*words, stranger.address), SettingsError)
    assert "refuses the key, or wants one (401)" in message
    stranger.status = 404
    message = refused(run(*words, stranger.address), EngineError)
    assert "does not tell its models (404 for /v1/models)" in message
    address = stranger.address.replace("//", "//me:secret@")
    assert "no user and no password" in refused(run(*words, address), SettingsError)
    assert not (tmp_path / "job").exists()


def test_a_batch_file_is_not_begun_without_a_server(stranger: Stranger, tmp_path: Path) -> None:
    body = {"model": "stranger", "messages": [{"role": "user", "content": "hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (tmp_path / "file.jsonl").write_text(json.dumps(line) + "\n")
    words = ("run", tmp_path / "file.jsonl", "-o", tmp_path / "job", "--endpoint")
    down = refused(run(*words, "http://127.0.0.1:9"), TransientError)
    assert "http://127.0.0.1:9 does not answer" in down and "start it" in down
    stranger.status = 401
    message = refused(run(*words, stranger.address), SettingsError)
    assert "refuses the key, or wants one (401)" in message
    stranger.status = 404
    message = refused(run(*words, stranger.address), EngineError)
    assert "does not tell its models (404 for /v1/models)" in message
    assert not (tmp_path / "job").exists()
