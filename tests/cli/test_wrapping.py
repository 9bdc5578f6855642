"""`mmgen tokenizer merge` and `bridge`, `mmgen models redecode`, and folders in place of names."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mmgen.autoencoding.continuous import ContinuousTokenizer
from mmgen.cli.app import cli
from mmgen.errors import MmgenError
from mmgen.pictures import save_png, to_picture
from mmgen.testing import draw_picture
from mmgen.wrapping.redecoded import RedecodedTokenizer


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "pack.parquet"
    pictures = []
    for seed in range(40):
        buffer = io.BytesIO()
        to_picture(draw_picture((64, 64), seed=seed)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    split = ["train"] * 30 + ["val"] * 10
    pq.write_table(pa.table({"webp64": pictures, "split": split}), path)
    return path


def run(*words: object) -> str:
    """Return what a command prints; its error is raised."""
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def merged(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "merged"
    words = ("tokenizer", "merge", "palette", "--data", pack, "--filter", "split=train")
    assert run(*words, "--merges", 60, "-o", path).strip() == str(path)
    return path


def test_a_folder_is_taken_wherever_a_name_is(merged: Path, pack: Path, tmp_path: Path) -> None:
    facts = json.loads(run("tokenizer", "info", merged, "--json"))
    assert (facts["name"], facts["distribution"]) == ("merged", "mmgen")
    assert facts["codebook_sizes"] == [316]
    save_png(to_picture(draw_picture((64, 64), seed=3)), tmp_path / "in.png", {})
    run("tokenizer", "encode", merged, tmp_path / "in.png", "-o", tmp_path / "codes.json")
    run("tokenizer", "decode", merged, tmp_path / "codes.json", "-o", tmp_path / "out.png")
    assert (tmp_path / "out.png").is_file()
    assert "passed" in run("tokenizer", "check", merged, "--only", "pixels")
    words = ("--data", pack, "--filter", "split=val", "-o", tmp_path / "results", "--json")
    results = json.loads(run("evaluate", "tokenizer", merged, "palette", *words))
    assert "merged" in json.dumps(results)


def test_a_name_and_weights_are_a_folder_too(merged: Path) -> None:
    assert run("tokenizer", "info", "merged", "--weights", merged) == run(
        "tokenizer", "info", merged
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tokenizer", "info", "{merged}", "--weights", "{merged}"), "leave out --weights"),
        (("tokenizer", "info", "./nowhere"), "is no folder of a tokenizer"),
        (("tokenizer", "info", "merged"), "make one with `mmgen tokenizer merge`"),
        (
            ("tokenizer", "merge", "palette", "--data", "{pack}", "-o", "{merged}"),
            "is not empty; choose another place",
        ),
        (
            ("tokenizer", "bridge", "palette", "--data", "{pack}", "-o", "{merged}2"),
            "has no continuous latents",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    merged: Path, pack: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(MmgenError, match=message):
        run(*(word.format(merged=merged, pack=pack) for word in words))


def test_bridging_from_a_folder(pack: Path, tmp_path: Path) -> None:
    settings = {
        "dim": 2,
        "encoder_widths": [8, 8],
        "encoder_depths": [1, 1],
        "decoder_widths": [8, 8, 8],
        "decoder_depths": [1, 1, 1],
        "max_side": 64,
    }
    (tmp_path / "continuous").mkdir()
    ContinuousTokenizer.untrained(settings, seed=0).save(tmp_path / "continuous")
    words = ("tokenizer", "bridge", tmp_path / "continuous", "--data", pack, "--bins", 5)
    run(*words, "--rule", "gaussian", "-o", tmp_path / "bridged")
    facts = json.loads(run("tokenizer", "info", tmp_path / "bridged", "--json"))
    assert facts["codebook_sizes"] == [5, 5] and facts["tokens_per_picture"] == 128


def test_redecoding_a_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = {
        "tokenizer": "palette",
        "decoder_widths": [8, 8, 8],
        "decoder_depths": [1, 1, 1],
    }
    made = RedecodedTokenizer.untrained(settings, seed=0)
    (tmp_path / "decoder").mkdir()
    made.save(tmp_path / "decoder")
    run("models", "redecode", tiny_checkpoint, tmp_path / "decoder", "-o", tmp_path / "model")
    facts = json.loads(run("models", "info", tmp_path / "model", "--json"))
    assert facts["tokenizers"][0]["decoder"] == made.fingerprint
    assert (
        json.loads(run("models", "info", tiny_checkpoint, "--json"))["tokenizers"][0]["decoder"]
        == "its own"
    )
