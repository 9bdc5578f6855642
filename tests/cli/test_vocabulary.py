"""`mmgen vocabulary`: a checkpoint with one more tokenizer, and the losses it had and has."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mmgen.authoring import NewPackage, write_package
from mmgen.checkpoint import open_checkpoint
from mmgen.cli.vocabulary import vocabulary
from mmgen.data.prepare import PrepareConfig, prepare
from mmgen.data.shapes import ShapesSource
from mmgen.errors import DataError, MmgenError, OutputError, SettingsError, VocabularyError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(vocabulary, [str(item) for item in arguments])


def error_of(*arguments: object) -> MmgenError:
    result = run(*arguments)
    assert isinstance(result.exception, MmgenError), (result.exception, result.output)
    return result.exception


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new tokenizer, installed for one test."""
    package = NewPackage(name="added", kind="residual")
    source = write_package(package, tmp_path) / "src"
    metadata = source / "mmgen_added-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mmgen-added\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[mmgen.visual_tokenizers]\nadded = {package.module}:{package.class_name}\n"
    )
    monkeypatch.syspath_prepend(str(source))
    yield "added"
    for name in [name for name in sys.modules if name.startswith("mmgen_added")]:
        del sys.modules[name]


@pytest.fixture
def shards(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    settings = PrepareConfig(num_draw=1, num_describe=1, context_length=256)
    source = ShapesSource(0, 6, picture_size=32)
    prepare(settings, source, open_checkpoint(tiny_checkpoint).codec(), tmp_path / "shards")
    return tmp_path / "shards"


def test_show_lists_all_ids(tiny_checkpoint: Path) -> None:
    lines = run("show", tiny_checkpoint).stdout.splitlines()
    known = open_checkpoint(tiny_checkpoint).vocabulary
    assert lines[0].split() == ["text", "0", "to", str(known.num_text_ids - 1)]
    assert lines[-1].split() == ["unused", str(known.num_used_ids), "to", str(known.size - 1)]
    assert any(line.startswith("palette: codebook 0") for line in lines)
    shown = json.loads(run("show", tiny_checkpoint, "--json").stdout)
    assert shown["fingerprint"] == known.fingerprint


def test_extend_keeps_old_ids_and_tells_losses(
    tiny_checkpoint: Path, tmp_path: Path, added: str, shards: Path
) -> None:
    output = tmp_path / "extended"
    words = ("--tokenizer", added, "-o", output, "--size", "32x32", "--shards", shards)
    result = run("extend", tiny_checkpoint, *words, "--json")
    assert result.exception is None, result.exception
    facts = json.loads(result.stdout)
    before, after = open_checkpoint(tiny_checkpoint), open_checkpoint(output)
    assert facts["first_new_id"] == before.vocabulary.num_used_ids
    assert facts["num_new_ids"] == 1 + 216 + 343 + 125
    assert after.vocabulary.ranges[:-1] == before.vocabulary.ranges
    assert after.generation == before.generation
    assert set(after.visual_tokenizers) == {"palette", "added"}
    assert after.load_visual_tokenizer("added").spec.codebook_sizes == (216, 343, 125)
    (item,) = facts["losses"]
    for key in ("loss_text", "loss_image", "bits_per_byte", "bits_per_image"):
        # More ids share the probability, so a loss may rise, and by little.
        assert item["before"][key] <= item["after"][key] < item["before"][key] * 1.5
    assert "tokenizer `added` were added" in (output / "MODEL_CARD.md").read_text()
    table = run("extend", tiny_checkpoint, *words).stdout
    assert table.startswith(f"{output}\n") and "loss image" in table


def test_shards_of_the_extended_vocabulary_have_no_loss_before(
    tiny_checkpoint: Path, tmp_path: Path, added: str
) -> None:
    output, folder = tmp_path / "extended", tmp_path / "new-shards"
    words = ("--tokenizer", added, "-o", output, "--size", "32x32")
    assert run("extend", tiny_checkpoint, *words).exception is None
    settings = PrepareConfig(num_draw=1, num_describe=0, context_length=256, tokenizer=added)
    source = ShapesSource(0, 4, picture_size=32)
    prepare(settings, source, open_checkpoint(output).codec(), folder)
    result = run("extend", tiny_checkpoint, *words, "--shards", folder, "--json")
    (item,) = json.loads(result.stdout)["losses"]
    assert item["before"] is None
    assert item["after"]["loss_image"] > 0


def test_what_cannot_be_extended(
    tiny_checkpoint: Path, tmp_path: Path, added: str, shards: Path
) -> None:
    output = tmp_path / "extended"
    words = ("extend", tiny_checkpoint, "--tokenizer")
    assert isinstance(error_of(*words, "palette", "-o", output), VocabularyError)
    assert isinstance(error_of(*words, added, "-o", tiny_checkpoint), OutputError)
    assert "no pictures of 9x9" in str(error_of(*words, added, "-o", output, "--size", "9x9"))
    error = error_of(*words, added, "-o", output, "--size", "nine")
    assert isinstance(error, SettingsError) and "such as 64x64" in str(error)
    manifest = json.loads((shards / "mmgen.json").read_text())
    (shards / "mmgen.json").write_text(json.dumps(manifest | {"vocabulary": "f" * 64}))
    error = error_of(*words, added, "-o", output, "--shards", shards)
    assert isinstance(error, DataError) and "f" * 64 in str(error)
    assert not output.exists()
