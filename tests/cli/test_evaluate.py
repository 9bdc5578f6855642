"""`mmgen evaluate` from arguments to files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mmgen.cli.app import cli
from mmgen.errors import DataError, OutputError, PluginError, SettingsError
from mmgen.pictures import to_picture
from mmgen.testing import draw_picture


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = []
    for seed in range(4):
        buffer = io.BytesIO()
        to_picture(draw_picture((64, 64), seed=seed)).save(buffer, "PNG")
        split = "val" if seed else "train"
        row = {"id": str(seed), "image": buffer.getvalue(), "split": split}
        rows.append({**row, "kind": "even" if seed % 2 == 0 else "odd"})
    path = tmp_path_factory.mktemp("pack") / "pictures.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmgen.evaluate.comparison.SPEED_SECONDS", 0.0)


def evaluate(pack: Path, output: Path, *words: str, column: str = "image") -> Result:
    arguments = ["--data", str(pack), "--picture-column", column, "-o", str(output), *words]
    return CliRunner().invoke(cli, ["evaluate", "tokenizer", "palette", *arguments])


def test_a_tokenizer_is_measured_and_all_is_written(pack: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "results"
    result = evaluate(pack, output, "--filter", "split=val")
    assert result.exit_code == 0, result.output
    results = json.loads((output / "results.json").read_text())
    (palette,) = results["tokenizers"]
    assert palette["num_pictures"] == 3
    assert palette["bits_per_picture"] == 512
    names = [curve["points"][0]["name"] for curve in results["codecs"]]
    assert {"JPEG", "WebP"} <= set(names)
    assert any("LPIPS and rFID" in item for item in results["not_measured"])
    assert (output / "results.md").read_text() == result.stdout
    with Image.open(output / "reconstructions.png") as sheet:
        assert sheet.width > 3 * 64
    with Image.open(output / "rate.png") as plot:
        assert plot.width > plot.height
    assert {path.name for path in output.iterdir()} == {
        "results.json",
        "results.md",
        "reconstructions.png",
        "rate.png",
        "measured",
    }
    again = evaluate(pack, output, "--filter", "split=val")
    assert again.stdout == result.stdout
    assert "palette: fidelity (measured before)" in again.stderr
    assert "reconstructing" not in again.stderr


def test_a_comparison_that_is_interrupted_says_how_to_go_on(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mmgen.evaluate.comparison.codec_curves", interrupted)
        stopped = evaluate(pack, tmp_path)
    assert stopped.exit_code == 130
    assert "the same command goes on" in stopped.stderr and stopped.stdout == ""
    assert not (tmp_path / "results.json").exists()
    result = evaluate(pack, tmp_path)
    assert result.exit_code == 0 and "palette: fidelity (measured before)" in result.stderr


def test_the_small_decoder_learns_from_the_rows_left_out(tmp_path: Path) -> None:
    rows = []
    for seed in range(24):
        buffer = io.BytesIO()
        to_picture(draw_picture((64, 64), seed=seed)).save(buffer, "PNG")
        rows.append({"image": buffer.getvalue(), "split": "val" if seed < 3 else "train"})
    path = tmp_path / "pictures.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    words = ["--filter", "split=val", "--with-lm", "--lm-steps", "2"]
    result = evaluate(path, tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    (palette,) = json.loads((tmp_path / "out" / "results.json").read_text())["tokenizers"]
    score = palette["code_model"]
    assert (score["num_train"], score["num_held_out"], score["num_steps"]) == (21, 3, 2)


def test_codes_are_probed_for_a_column(pack: Path, tmp_path: Path) -> None:
    result = evaluate(pack, tmp_path, "--filter", "split=val", "--probe", "kind")
    assert result.exit_code == 0, result.output
    (palette,) = json.loads((tmp_path / "results.json").read_text())["tokenizers"]
    # One picture to learn from, of the kind of one of the three others.
    assert palette["probe"]["num_train"] == 1 and palette["probe"]["num_pictures"] == 3
    assert palette["probe"]["codebooks"][0]["mean"] == pytest.approx(1 / 3)
    assert "## Probe of kind" in result.stdout


def test_json_goes_to_standard_output_alone(pack: Path, tmp_path: Path) -> None:
    result = evaluate(pack, tmp_path, "--limit", "2", "--json")
    assert json.loads(result.stdout)["tokenizers"][0]["num_pictures"] == 2
    assert "wrote results" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["palette"], "each tokenizer is named once"),
        (["fsq", "--weights", "elsewhere"], "is for none of palette, fsq; write NAME=DIRECTORY"),
        (["--weights", "palette=nowhere"], "there is no directory nowhere"),
        (["--probe", "kind"], "it leaves none"),
        (["--with-lm"], "3 pictures are too few to train a decoder on"),
        (["--lm-steps", "3"], "give --with-lm too"),
    ],
)
def test_comparisons_that_cannot_be_made(
    pack: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = evaluate(pack, tmp_path, *words)
    assert isinstance(result.exception, SettingsError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--filter", "split"], SettingsError),
        (["--filter", "split=test"], DataError),
        (["--picture-column", "split"], DataError),
    ],
)
def test_bad_settings_are_told_before_work(
    pack: Path, tmp_path: Path, words: list[str], error: type[Exception]
) -> None:
    result = evaluate(pack, tmp_path, *words)
    assert isinstance(result.exception, error)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused(pack: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = evaluate(pack, tmp_path / "file" / "below")
    assert isinstance(result.exception, OutputError)


def test_an_unknown_tokenizer_names_the_installed(pack: Path, tmp_path: Path) -> None:
    words = ["evaluate", "tokenizer", "pallete", "--data", str(pack), "-o", str(tmp_path)]
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, PluginError)
    assert "palette" in str(result.exception)


def test_a_model_is_measured_from_its_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    colours = {"red": (220, 30, 30), "blue": (30, 60, 220)}
    rows = []
    for index, split in enumerate(("train", "train", "val", "val_style")):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), colours["red" if index % 2 else "blue"]).save(buffer, "PNG")
        name = f"thing {index % 2}"
        texts = dict.fromkeys(("style", "style_phrase"), f"style{index}")
        texts |= dict.fromkeys(("concept", "name", "phrase", "caption_short"), name)
        rows.append(
            {"id": str(index), "split": split, "group": "objects", "tone": 0, **texts}
            | {"base_hexcode": name, "webp64": buffer.getvalue()}
        )
    data = tmp_path / "pack.parquet"
    pq.write_table(pa.Table.from_pylist(rows), data)
    output = tmp_path / "results"
    model = ["--model", str(tiny_checkpoint), "--data", str(data), "-o", str(output)]
    result = CliRunner().invoke(cli, ["evaluate", "model", *model, "--limit", "1", "--json"])
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)
    assert results == json.loads((output / "results.json").read_text())
    assert [drawing["guidance_scale"] for drawing in results["drawings"]] == [2.0, 2.0]
    assert results["captions"]["num_named"] == 1
