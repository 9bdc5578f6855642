from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_objects import drawn, png
from shipped import MINI_CODES, MINI_GUIDANCE

from mmgen.errors import OutputError, SettingsError
from mmgen_chat.backend import CaptionRequest, ChatRequest, DrawRequest, TurnSettings
from mmgen_chat.conversation import Picture
from mmgen_chat.once import make_request, read_words, save_new

SETTINGS = TurnSettings(seed=1)


def chat(
    folder: Path, *arguments: str, given: bytes | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a process without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "mmgen", "chat", "--once", *arguments],
        cwd=folder,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def objects(result: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_drawing_goes_through_pipes_into_files(tmp_path: Path) -> None:
    first = chat(tmp_path, "--seed", "1", given=b"draw a red apple\n")
    assert (first.returncode, first.stdout, first.stderr) == (0, b"draw-a-red-apple.png\n", b"")
    before = (tmp_path / "draw-a-red-apple.png").read_bytes()
    assert before.startswith(b"\x89PNG")

    arguments = ("draw a red apple", "--seed", "1", "--json")
    again = chat(tmp_path, *arguments, "-o", "out/deep")
    assert again.returncode == 0
    told = objects(again)
    kinds = [item["event"] for item in told]
    assert kinds[0] == "started" and kinds[-1] == "finished"
    [image] = [item for item in told if item["event"] == "image"]
    assert image["path"] == "out/deep/draw-a-red-apple.png"
    assert (image["num_codes"], image["width"]) == (MINI_CODES, 64)
    assert image["guidance_scale"] == MINI_GUIDANCE
    assert image["alt"]
    progress = [item["num_done"] for item in told if item["event"] == "image_progress"]
    assert progress == sorted(progress) and progress[-1] == MINI_CODES
    assert told[-1]["usage"]["image_ids"] == MINI_CODES
    assert (tmp_path / image["path"]).read_bytes() == before, "one seed, one picture"


def test_a_picture_is_edited_by_picture_and_words_apart(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png(64, 64))
    words = ("--attach", "red.png", "--draw", "a blue heart", "--seed", "1", "--json")
    told = objects(chat(tmp_path, *words, "--guidance", "4", "--image-guidance", "1.5"))
    [image] = [item for item in told if item["event"] == "image"]
    assert (image["guidance_scale"], image["image_guidance_scale"]) == (4.0, 1.5)
    told = objects(chat(tmp_path, "draw a fox", "--json", "--image-guidance", "1.5"))
    [image] = [item for item in told if item["event"] == "image"]
    assert image["image_guidance_scale"] is None, "nothing was attached"


def test_a_picture_is_described(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png(64, 64))
    named = chat(tmp_path, "--attach", "red.png")
    piped = chat(tmp_path, "-a", "-", given=png(64, 64))
    assert named.returncode == piped.returncode == 0, named.stderr + piped.stderr
    assert named.stdout == piped.stdout != b""
    assert named.stdout.endswith(b"\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("draw a fox", "-a", "absent.png"), b"there is no file absent.png"),
        (("draw a fox", "--model", "minni"), b"mini"),
        (("draw a fox", "--size", "63x63"), b"there are 64x64"),
        (("draw a fox", "--guidance", "strong"), b"a number of 0 or more"),
        (("draw a fox", "-n", "2"), b"need --draw"),
        (("   ",), b"the prompt is empty"),
        ((), b"the prompt is empty"),
        (("hi", "--endpoint", "http://127.0.0.1:9"), b"nothing answers at http://127.0.0.1:9/v1"),
        (("hi", "-o", "file.txt"), b"is a file"),
        (("hi", "--settings", "absent.toml"), b"no settings file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], message: bytes
) -> None:
    (tmp_path / "file.txt").touch()
    result = chat(tmp_path, *arguments, given=b"")
    assert result.returncode == 1
    assert result.stdout == b""
    assert result.stderr.startswith(b"mmgen: error: ") and result.stderr.count(b"\n") == 1
    assert message in result.stderr
    assert names_in(tmp_path) == ["file.txt", "home"]


def test_a_failure_as_an_object(tmp_path: Path) -> None:
    result = chat(tmp_path, "hi", "--json", "--endpoint", "http://127.0.0.1:9")
    assert result.returncode == 1 and result.stderr == b""
    [told] = objects(result)
    assert told["event"] == "failed" and "nothing answers" in told["error"]


def test_the_screen_needs_a_terminal(tmp_path: Path) -> None:
    program = "from mmgen_chat.cli import main; main()"
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert result.returncode == 1
    assert b"needs a terminal; --once" in result.stderr


def test_one_shot_use_loads_no_screen() -> None:
    program = (
        "import sys; import mmgen_chat.cli, mmgen_chat.once, mmgen_chat.embedded, "
        "mmgen_chat.settings; print([m for m in ('textual', 'torch', 'httpx') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert result.stdout == b"[]\n", result.stderr


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Listen to Ctrl-C: in the background of a shell, tests and what they start ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupting_leaves_a_line_and_the_right_status(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mmgen", "chat", "--once", "--json", "--draw", "-n", "8", "a fox"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "image_progress":
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == b"mmgen: interrupted"
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_what_is_asked_for() -> None:
    picture = Picture(png=png(), size=(4, 6), source="sea.png")

    def asked(text: str, *pictures: Picture, forced: Any = None, number: int = 1) -> Any:
        return make_request(text, pictures, SETTINGS, forced=forced, number=number)

    assert isinstance(asked("hello"), ChatRequest)
    assert isinstance(asked("a fox", forced="draw", number=3), DrawRequest)
    assert asked("", picture) == CaptionRequest(picture=picture, settings=SETTINGS)
    assert asked("what?", picture, forced="describe").prompt == "what?"
    redrawn = asked("in blue", picture, forced="draw")
    assert isinstance(redrawn, ChatRequest) and redrawn.must_draw
    assert redrawn.turns[0].pictures == (picture,)
    for wrong in (
        {"text": "hi", "forced": "describe"},
        {"text": "a\x1b[2Jb"},
        {"text": "hi", "number": 2},
        {"text": "  ", "forced": "draw"},
    ):
        with pytest.raises(SettingsError):
            asked(**wrong)


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    picture = drawn()
    paths = [save_new(picture, tmp_path / "new") for _ in range(3)]
    names = ["a-red-apple.png", "a-red-apple-2.png", "a-red-apple-3.png"]
    assert [path.name for path in paths] == names
    assert names_in(tmp_path / "new") == sorted(names)
    unfinished = save_new(picture, tmp_path / "new", is_finished=False)
    assert unfinished.name == "a-red-apple-unfinished.png"
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another place"):
        save_new(picture, tmp_path / "file")


def test_words_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_words(("draw", "a", "fox")) == "draw a fox"
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert read_words(("-",)) == ""
