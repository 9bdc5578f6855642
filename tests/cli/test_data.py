"""`mmgen data`: from a source to shards and what is in them, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mmgen.checkpoint import GenerationDefaults, SamplingDefaults, save_checkpoint
from mmgen.cli.data import data
from mmgen.data.shards import Manifest
from mmgen.errors import DataError, MmgenError
from mmgen.model import Decoder, DecoderConfig, init_weights
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.text_tokenizer import train_bpe
from mmgen.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    palette = load_visual_tokenizer_class("palette").load()
    text_tokenizer = train_bpe(["draw a red circle"], num_ids=270)
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    ).extend("palette", codebook_sizes=palette.spec.codebook_sizes, layouts=palette.spec.layouts)
    decoder = Decoder(
        DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=64,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            head_dim=64,
            intermediate_size=64,
            context_length=256,
        )
    )
    init_weights(decoder, seed=0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(
        path,
        decoder=decoder,
        vocabulary=vocabulary,
        text_tokenizer=text_tokenizer,
        visual_tokenizers={"palette": (palette, None)},
        generation=GenerationDefaults(
            tokenizer="palette", text=SamplingDefaults(), image=SamplingDefaults()
        ),
        model_card="# Tiny\n",
    )
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(item) for item in arguments])


def output_of(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exception is None, (result.exception, result.output)
    return result.stdout


def usage_error_of(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, (result.exception, result.output)
    return " ".join(result.stderr.split())


def error_of(*arguments: object) -> MmgenError:
    result = run(*arguments)
    assert isinstance(result.exception, MmgenError), (result.exception, result.output)
    return result.exception


def shapes(output: Path, model: Path, *more: object) -> Sequence[object]:
    return ("prepare", "--kind", "shapes", "--limit", 6, "-o", output, "--model", model, *more)


def test_prepares_shapes_and_tells_what_there_is(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "shapes"
    line = output_of(*shapes(output, model, "--variants", 1, "--mixed", 1))
    assert line.startswith(f"{output}: 18 documents, ")
    facts = json.loads(output_of("info", output, "--json"))
    assert facts["is_complete"] is True
    assert facts["documents"] == 18
    assert facts["text_tokens"] + facts["image_tokens"] == facts["tokens"]
    assert facts["image_tokens"] % 18 == 0
    assert facts["samples"] == []
    shown = output_of("info", output, "--model", model, "--samples", 2)
    assert shown.count("user: ") >= 2 and shown.count("[palette picture]") == 2
    assert "image tokens" in shown


def test_prepares_documents_that_only_name(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "shapes"
    line = output_of(*shapes(output, model, "--variants", 0, "--name", 3))
    assert line.startswith(f"{output}: 18 documents, ")


def test_prepares_a_folder_and_leaves_out_what_is_broken(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("good", "bad"):
        Image.new("RGB", (20, 20), (200, 0, 0)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"A {name} picture.")
    (folder / "bad.png").write_bytes(b"broken")
    result = run("prepare", folder, "-o", tmp_path / "out", "--model", model, "--shift", 0.05)
    assert result.exception is None, result.output
    assert "left out 0: " in result.stderr and "bad.png" in result.stderr
    assert result.stdout.endswith("1 left out\n")
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.num_documents == 4
    (folder / "good.png").write_bytes(b"")
    error = error_of("prepare", folder, "-o", tmp_path / "none", "--model", model)
    assert isinstance(error, DataError) and "none of the 2 rows" in str(error)


def test_prepares_json_lines_with_attributes(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), (0, 0, 200)).save(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"file": "a.png", "label": "cup"}) + "\n")
    output_of(
        "prepare", path, "-o", tmp_path / "out", "--model", model, "--picture-column", "file",
        "--attribute", "name=label", "--constant", "style=photo", "--variants", 3,
    )  # fmt: skip
    shown = output_of("info", tmp_path / "out", "--model", model, "--samples", 6)
    assert "cup" in shown


def test_prepares_text(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text("Once <x> upon a time. " * 50)
    output = tmp_path / "out"
    output_of(
        "prepare", path, "-o", output, "--model", model, "--context-length", 100,
        "--remove", " <x>",
    )  # fmt: skip
    shown = output_of("info", output, "--model", model, "--samples", 1)
    assert "Once upon a time. Once upon a time." in shown


def test_goes_on_and_refuses_other_settings(model: Path, tmp_path: Path) -> None:
    first = output_of(*shapes(tmp_path / "out", model))
    assert output_of(*shapes(tmp_path / "out", model)) == first
    assert "seed was 0 and is now 1" in str(error_of(*shapes(tmp_path / "out", model, "--seed", 1)))


def test_refuses_unclear_and_unfitting_arguments(model: Path, tmp_path: Path) -> None:
    common = ("-o", tmp_path / "out", "--model", model)
    assert "name a SOURCE" in usage_error_of("prepare", *common)
    assert "give --kind" in usage_error_of("prepare", "things.xyz", *common)
    assert "needs the argument SOURCE" in usage_error_of("prepare", "--kind", "parquet", *common)
    assert "--balance does not fit a shapes source" in usage_error_of(
        *shapes(tmp_path / "out", model, "--balance", "style")
    )
    assert "'name' is not of the form" in usage_error_of(
        "prepare", "a.jsonl", *common, "--attribute", "name"
    )
    assert "no file" in str(error_of("prepare", "gone.parquet", *common))
    assert not (tmp_path / "out").exists()


def test_info_refuses_another_model_and_other_folders(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared data"):
        raise error_of("info", tmp_path)
    output_of(*shapes(tmp_path / "out", model))
    manifest = json.loads((tmp_path / "out" / "mmgen.json").read_text())
    manifest["vocabulary"] = "0" * 64
    (tmp_path / "out" / "mmgen.json").write_text(json.dumps(manifest))
    assert "0" * 64 in str(error_of("info", tmp_path / "out", "--model", model))


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from mmgen.cli.data import data;"
        "assert CliRunner().invoke(data, ['prepare', '--help']).exit_code == 0;"
        "print([name for name in ('torch', 'pyarrow', 'numpy', 'PIL') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
