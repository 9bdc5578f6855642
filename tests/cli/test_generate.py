from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from mmgen.checkpoint import GenerationDefaults, save_checkpoint
from mmgen.cli.drawings import plan_paths, slug
from mmgen.cli.generate import caption, generate
from mmgen.errors import CheckpointError, MmgenError, OutputError, PluginError, SettingsError
from mmgen.generate.provenance import parse_size
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.pictures import open_picture, read_metadata, save_png
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import train_bpe
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary


def save_model(path: Path, seed: int) -> Path:
    text_tokenizer = train_bpe(["draw a red fox"], num_ids=270)
    palette = load_visual_tokenizer_class("palette").load()
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    ).extend(
        "palette",
        codebook_sizes=palette.spec.codebook_sizes,
        layouts=(Grid(4, 4), Grid(8, 12)),
    )
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=64,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            intermediate_size=64,
            context_length=160,
        )
    )
    init_weights(decoder, seed)
    with torch.no_grad():
        decoder.embedding.weight.mul_(20)
    save_checkpoint(
        path,
        decoder=decoder,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        visual_tokenizers={"palette": (palette, None)},
        generation=GenerationDefaults(tokenizer="palette", guidance_scale=2.0),
        model_card="",
    )
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "tiny", 0))


@pytest.fixture(autouse=True)
def in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


def draw(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(generate, arguments, input=stdin)


def look(*arguments: str) -> Result:
    return CliRunner().invoke(caption, arguments)


def refused(result: Result, kind: type[MmgenError]) -> str:
    assert isinstance(result.exception, kind), result.output
    assert result.stdout == ""
    return str(result.exception)


def test_one_picture_with_its_story(model: str) -> None:
    result = draw("a red fox", "-o", "fox.png", "--seed", "5", "--model", model, "--top-k", "9")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "fox.png\n", "")
    assert open_picture(Path("fox.png")).size == (32, 32)
    story = read_metadata(Path("fox.png"))
    assert (story["prompt"], story["seed"], story["model"]) == ("a red fox", "5", model)
    assert json.loads(story["settings"]) == {
        "guidance_scale": 2.0,
        "temperature": 1.0,
        "top_k": 9,
        "top_p": None,
        "size": "32x32",
        "tokenizer": "palette",
    }
    assert len(json.loads(story["codes"])) == 16
    assert all(len(story[f"{part}_fingerprint"]) == 64 for part in ("weights", "vocabulary"))


def test_a_length_of_pictures_that_have_none(model: str) -> None:
    result = draw("a red fox", "--model", model, "--length", "8")
    assert result.exit_code == 1 and result.stdout == ""
    assert "pictures of 'palette' have no lengths to choose from" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_from_repeats_bit_for_bit(model: str) -> None:
    settings = ("--temperature", "0.9", "--top-p", "0.9", "--guidance", "1.5", "--size", "96x64")
    first = draw("foxes", "-n", "3", "-o", "all", "--model", model, *settings)
    assert first.stdout.split() == [f"all/foxes-{sample}.png" for sample in (1, 2, 3)]
    again = draw("--from", "all/foxes-2.png", "-o", "again.png")
    assert (again.exit_code, again.stderr) == (0, "")
    assert Path("again.png").read_bytes() == Path("all/foxes-2.png").read_bytes()
    assert Path("all/foxes-1.png").read_bytes() != Path("all/foxes-2.png").read_bytes()
    assert open_picture(Path("again.png")).size == (96, 64)


def test_a_random_seed_is_recorded(model: str) -> None:
    seeds = set()
    for name in ("a.png", "b.png"):
        draw("a fox", "-o", name, "--model", model)
        seeds.add(read_metadata(Path(name))["seed"])
    assert len(seeds) == 2


def test_from_follows_the_record_where_arithmetic_differs(model: str) -> None:
    draw("a fox", "-o", "a.png", "--model", model)
    story = read_metadata(Path("a.png"))
    codes = json.loads(story["codes"])
    codes[3] = [(codes[3][0] + 1) % 256]
    save_png(open_picture(Path("a.png")), Path("b.png"), story | {"codes": json.dumps(codes)})
    result = draw("--from", "b.png", "-o", "c.png")
    assert result.exit_code == 0
    assert "draws 1 of 16 codes otherwise; the recorded ones are shown" in result.stderr
    assert json.loads(read_metadata(Path("c.png"))["codes"]) == codes


def test_from_refuses_another_model(model: str, tmp_path: Path) -> None:
    draw("a fox", "-o", "a.png", "--model", model)
    other = save_model(tmp_path / "other", 1)
    message = refused(
        draw("--from", "a.png", "-o", "b.png", "--model", str(other)), CheckpointError
    )
    theirs = json.loads((other / "mmgen.json").read_text())["weights"]["sha256"]
    assert read_metadata(Path("a.png"))["weights_fingerprint"] in message and theirs in message
    assert not Path("b.png").exists()


@pytest.mark.parametrize(
    ("extra", "name"),
    [(["a fox"], "PROMPT"), (["--seed", "1"], "--seed"), (["--top-k", "3"], "--top-k")],
)
def test_from_stands_alone(model: str, extra: list[str], name: str) -> None:
    draw("a fox", "-o", "a.png", "--model", model)
    assert f"leave out {name}" in refused(draw("--from", "a.png", *extra), SettingsError)


def test_from_needs_a_picture_of_ours(model: str) -> None:
    Image.new("RGB", (4, 4)).save("plain.png")
    message = refused(draw("--from", "plain.png"), SettingsError)
    assert "does not say how it was drawn (it lacks prompt, seed" in message
    draw("a fox", "-o", "a.png", "--model", model)
    story = read_metadata(Path("a.png")) | {"settings": "[]"}
    save_png(open_picture(Path("a.png")), Path("bad.png"), story)
    assert "damaged metadata" in refused(draw("--from", "bad.png"), SettingsError)


def test_prompts_from_standard_input_as_json(model: str) -> None:
    result = draw(
        "-", "--json", "-o", "out", "--seed", "3", "--model", model, stdin="fox\r\n\na bär\n"
    )
    first, second = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 0
    assert [first["prompt"], second["prompt"]] == ["fox", "a bär"]
    assert [first["path"], second["path"]] == ["out/001-fox.png", "out/002-a-bär.png"]
    assert (first["seed"], first["guidance_scale"], first["width"]) == (3, 2.0, 32)
    assert Path(second["path"]).is_file()


def test_no_prompts_at_all() -> None:
    assert "no prompts on standard input" in refused(draw(stdin="\n \n"), SettingsError)


def test_bad_prompts_leave_the_others(model: str) -> None:
    long = "1234567890" * 10_000
    arguments = ("fox", "", "a\x07b", long, "-o", "out", "-n", "2", "--model", model)
    result = draw(*arguments)
    assert result.exit_code == 1
    assert result.stdout.split() == ["out/001-fox-1.png", "out/001-fox-2.png"]
    empty, control, full = result.stderr.splitlines()
    assert "the prompt is empty" in empty
    assert "control character" in control and "\x07" not in control
    assert "tokens and the picture 16" in full and "of the 160 that fit" in full
    assert len(full) < 300
    lines = draw(*arguments, "--json").stdout.splitlines()
    assert ["error" in json.loads(line) for line in lines].count(True) == 3


def test_bytes_that_are_no_text_are_refused(model: str) -> None:
    result = draw("-o", "out", "--model", model, stdin=b"fox\n\xff\xfe\n")
    assert result.exit_code == 1
    assert "not UTF-8" in result.stderr
    assert result.stdout == "out/001-fox.png\n"


def test_bad_prompts_alone_load_no_model() -> None:
    result = draw(" ", "--model", "no-such-model")
    assert result.exit_code == 1 and "empty" in result.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--top-k", "0"), "top-k must be 1 or more, got 0"),
        (("--temperature", "-1"), "temperature must be 0 or more, got -1.0"),
        (("--top-p", "1.5"), "top-p must be above 0 and at most 1"),
        (("-n", "0"), "-n must be 1 or more, got 0"),
        (("--size", "big"), "a size is WIDTHxHEIGHT in pixels, such as 64x64, got 'big'"),
        (("--seed", "-1"), "a seed must be 0 or more and below 2**63, got -1"),
        (("-o", "fox.jpg"), "pictures are written as PNG, got fox.jpg"),
        (("-o", "fox.png", "-n", "2"), "2 pictures do not fit the one file fox.png"),
    ],
)
def test_bad_settings_are_found_before_a_model(option: tuple[str, ...], message: str) -> None:
    assert message in refused(draw("fox", "--model", "no-such-model", *option), SettingsError)


def test_unwritable_places_are_found_before_a_model() -> None:
    Path("file").write_text("")
    Path("dir.png").mkdir()
    for output in ("file/fox.png", "/proc/fox.png", "/proc/none/fox.png"):
        result = draw("fox", "--model", "no-such-model", "-o", output)
        assert "cannot write" in refused(result, OutputError)
    result = draw("dir", "--model", "no-such-model", "-o", "dir.png")
    refused(result, PluginError)  # an existing directory takes the picture


def test_a_size_that_the_model_lacks(model: str) -> None:
    result = draw("fox", "--size", "64x48", "--model", model)
    assert result.exit_code == 1
    assert (
        "no pictures of 64x48 pixels (width x height); choose one of 32x32, 96x64" in result.stderr
    )


def test_unknown_models_are_named() -> None:
    assert "no-such-model" in refused(draw("fox", "--model", "no-such-model"), PluginError)
    assert "no checkpoint at" in refused(draw("fox", "--model", "./none"), CheckpointError)


def test_a_failed_save_leaves_no_half_file(model: str) -> None:
    Path("out").mkdir()
    Path("out/002-bear.png").mkdir()
    Path("out/002-bear.png/keep").touch()
    assert "is a directory" in refused(
        draw("fox", "bear", "-o", "out", "--model", model), OutputError
    )
    assert [path.name for path in Path("out").iterdir()] == ["002-bear.png"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_picture(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.delenv("NO_COLOR", raising=False)
    generate.main(["fox", "-o", "fox.png", "--model", model], standalone_mode=False)
    path, *rows = out.getvalue().splitlines()
    assert path == "fox.png"
    assert len(rows) == 16 and all(row.count("▀") == 32 for row in rows)
    assert "drawing" in err.getvalue()


def test_no_file_is_overwritten_without_being_named(model: str) -> None:
    for expected in ("a-fox.png", "a-fox-2.png"):
        assert draw("A fox!", "--model", model).stdout == f"{expected}\n"


def test_captions_in_the_order_of_the_inputs(model: str) -> None:
    for name, colour in (("a.png", "red"), ("b.webp", "blue")):
        Image.new("RGB", (50, 40), colour).save(name)
    arguments = ("a.png", "b.webp", "a.png", "--seed", "1", "--max-tokens", "8", "--model", model)
    result = look(*arguments)
    lines = result.stdout.split("\n")
    assert result.exit_code == 0 and len(lines) == 4 and lines[3] == ""
    assert lines[0] == lines[2] and all(line == line.strip() for line in lines)
    assert not any(ord(character) < 32 for line in lines for character in line)
    found = [json.loads(line) for line in look(*arguments, "--json").stdout.splitlines()]
    assert [item["input"] for item in found] == ["a.png", "b.webp", "a.png"]
    assert all("caption" in item for item in found)


def test_bad_pictures_leave_the_others(model: str) -> None:
    Image.new("RGB", (50, 40)).save("a.png")
    Path("empty.png").touch()
    Path("text.png").write_text("no picture")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:60])
    names = ("none.png", "a.png", "empty.png", "text.png", "cut.png")
    result = look(*names, "--model", model, "--max-tokens", "3")
    assert result.exit_code == 1
    assert result.stdout.count("\n") == 1
    errors = result.stderr.splitlines()
    assert len(errors) == 4
    bad = ("none.png", "empty.png", "text.png", "cut.png")
    assert all(name in line for name, line in zip(bad, errors, strict=True))
    result = look(*names, "--model", model, "--json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [item["input"] for item in found] == list(names)
    assert ["error" in item for item in found] == [True, False, True, True, True]
    assert result.exit_code == 1


def test_bad_questions_are_found_before_a_model() -> None:
    arguments = ("a.png", "--model", "no-such-model")
    refused(look(*arguments, "--prompt", ""), SettingsError)
    refused(look(*arguments, "--max-tokens", "0"), SettingsError)
    refused(look(*arguments, "--top-k", "0"), SettingsError)


def test_names_of_files() -> None:
    assert slug("  A red-fox, éh?! ") == "a-red-fox-éh"
    assert slug("???") == "picture"
    assert len(slug("word " * 100)) <= 40
    prompts = ["fox", "../../etc/passwd"]
    expected = [Path("out/001-fox.png"), Path("out/002-etc-passwd.png")]
    assert plan_paths(prompts, 1, Path("out")) == expected
    assert plan_paths(["fox"], 1, Path("FOX.PNG")) == [Path("FOX.PNG")]
    assert plan_paths(["fox"], 2, Path("out"))[1] == Path("out/fox-2.png")


def test_sizes_are_width_first() -> None:
    assert parse_size("96x64") == parse_size(" 96X64 ") == (64, 96)
    for text in ("96", "x", "-1x4", "96x64x3", "1e2x4"):
        with pytest.raises(SettingsError):
            parse_size(text)


def test_a_negative_prompt_is_kept_with_the_picture(model: str) -> None:
    words = ("a fox", "--seed", "3", "--guidance", "4", "--model", model)
    for name, more in (("plain.png", ()), ("away.png", ("--negative", "a red fox red"))):
        assert draw(*words, *more, "-o", name).exit_code == 0
    assert Path("plain.png").read_bytes() != Path("away.png").read_bytes()
    settings = json.loads(read_metadata(Path("away.png"))["settings"])
    assert settings["negative_prompt"] == "a red fox red"
    assert draw("--from", "away.png", "-o", "again.png").exit_code == 0
    assert Path("away.png").read_bytes() == Path("again.png").read_bytes()
    refused(draw("--from", "away.png", "--negative", "x"), SettingsError)
