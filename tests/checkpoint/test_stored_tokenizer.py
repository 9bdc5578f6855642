"""A visual tokenizer with weights travels inside the checkpoint and is verified when loaded."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mmgen.checkpoint import GenerationDefaults, open_checkpoint
from mmgen.errors import CheckpointError, PluginError
from mmgen.model import Decoder
from mmgen.plugins import load_visual_tokenizer, load_visual_tokenizer_class
from mmgen.text_tokenizer import TextTokenizer
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Grid, Picture
from mmgen.vocabulary import Vocabulary

PLUGIN = '''
import hashlib
from mmgen.plugins import load_visual_tokenizer_class


class DyedTokenizer(load_visual_tokenizer_class("palette")):
    """The palette, with a dye for weights."""

    def __init__(self, dye="none"):
        super().__init__()
        self.dye = dye

    @property
    def fingerprint(self):
        return hashlib.sha256((super().fingerprint + self.dye).encode()).hexdigest()

    @classmethod
    def load(cls, path=None, *, parts="both", device="cpu", dtype="float32"):
        return cls() if path is None else cls((path / "dye.txt").read_text())

    def save(self, path):
        (path / "dye.txt").write_text(self.dye)
'''


@pytest.fixture
def dyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AbstractVisualTokenizer]:
    """A tokenizer of a distribution that is installed for one test, dyed red."""
    site = tmp_path / "site"
    metadata = site / "mmgen_dyed-3.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mmgen-dyed\nVersion: 3.0\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text(
        "[mmgen.visual_tokenizers]\ndyed = mmgen_dyed:DyedTokenizer\n", encoding="utf-8"
    )
    (site / "mmgen_dyed.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "dye.txt").write_text("red", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield load_visual_tokenizer_class("dyed").load(tmp_path / "weights")
    sys.modules.pop("mmgen_dyed", None)


@pytest.fixture
def save_dyed(
    tmp_path: Path,
    dyed: AbstractVisualTokenizer,
    text_tokenizer: TextTokenizer,
    save: Callable[..., Decoder],
) -> Callable[[Path | None], Path]:
    """Saves a checkpoint whose tokenizer is the dyed one, loaded from the place given."""
    vocabulary = Vocabulary.build(
        num_text_ids=text_tokenizer.num_ids, text_fingerprint=text_tokenizer.fingerprint
    ).extend("dyed", codebook_sizes=(256,), layouts=(Grid(4, 4), Grid(8, 8)))

    def save_it(place: Path | None) -> Path:
        save(
            tmp_path / "model",
            vocabulary=vocabulary,
            visual_tokenizers={"dyed": (dyed, place)},
            generation=GenerationDefaults(tokenizer="dyed"),
        )
        return tmp_path / "model"

    return save_it


def test_weights_of_a_tokenizer_are_stored_and_loaded(
    tmp_path: Path, dyed: AbstractVisualTokenizer, save_dyed: Callable[[Path | None], Path]
) -> None:
    checkpoint = open_checkpoint(save_dyed(tmp_path / "weights"))
    entry = checkpoint.visual_tokenizers["dyed"]
    assert (entry.distribution, entry.version) == ("mmgen-dyed", "3.0")
    assert entry.weights == "visual_tokenizers/dyed"
    assert (checkpoint.path / entry.weights / "dye.txt").read_text(encoding="utf-8") == "red"
    loaded = checkpoint.codec().visual_tokenizers["dyed"]
    assert loaded.fingerprint == dyed.fingerprint == entry.fingerprint


def test_weights_that_were_changed_are_refused_with_both_fingerprints(
    tmp_path: Path, dyed: AbstractVisualTokenizer, save_dyed: Callable[[Path | None], Path]
) -> None:
    path = save_dyed(tmp_path / "weights")
    (path / "visual_tokenizers" / "dyed" / "dye.txt").write_text("blue", encoding="utf-8")
    found = load_visual_tokenizer_class("dyed").load(path / "visual_tokenizers" / "dyed")
    with pytest.raises(CheckpointError, match=f"{found.fingerprint}, expected {dyed.fingerprint}"):
        open_checkpoint(path).load_visual_tokenizer("dyed")


def test_weights_that_are_gone_are_named(
    tmp_path: Path, save_dyed: Callable[[Path | None], Path]
) -> None:
    path = save_dyed(tmp_path / "weights")
    place = path / "visual_tokenizers" / "dyed"
    (place / "dye.txt").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read: .*dye\.txt"):
        open_checkpoint(path).load_visual_tokenizer("dyed")
    place.rmdir()
    with pytest.raises(CheckpointError, match=r"lacks .*visual_tokenizers/dyed"):
        open_checkpoint(path).load_visual_tokenizer("dyed")


def test_a_tokenizer_that_is_not_as_its_distribution_ships_it_must_be_stored(
    tmp_path: Path, dyed: AbstractVisualTokenizer, save_dyed: Callable[[Path | None], Path]
) -> None:
    shipped = load_visual_tokenizer_class("dyed").load().fingerprint
    with pytest.raises(CheckpointError, match=f"{dyed.fingerprint}, but {shipped} when"):
        save_dyed(None)
    assert not (tmp_path / "model").exists()


def test_a_tokenizer_without_weights_leaves_no_directory(
    tmp_path: Path, save: Callable[..., Decoder]
) -> None:
    palette = load_visual_tokenizer_class("palette").load()
    save(tmp_path / "model", visual_tokenizers={"palette": (palette, tmp_path)})
    checkpoint = open_checkpoint(tmp_path / "model")
    assert checkpoint.visual_tokenizers["palette"].weights is None
    assert checkpoint.load_visual_tokenizer("palette").fingerprint == palette.fingerprint


def test_a_plugin_that_disappeared_is_named_with_its_version(
    tmp_path: Path, save_dyed: Callable[[Path | None], Path]
) -> None:
    path = save_dyed(tmp_path / "weights")
    shutil.rmtree(tmp_path / "site")
    importlib.invalidate_caches()
    checkpoint = open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"install mmgen-dyed \(version 3\.0 when"):
        checkpoint.load_visual_tokenizer("dyed")
    assert load_visual_tokenizer("palette").spec


def test_a_plugin_that_cannot_load_any_more_is_named_with_its_version(
    tmp_path: Path,
    dyed: AbstractVisualTokenizer,
    save_dyed: Callable[[Path | None], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = open_checkpoint(save_dyed(tmp_path / "weights"))

    def load(path: Path | None = None, **options: object) -> AbstractVisualTokenizer:
        raise RuntimeError("no driver")

    monkeypatch.setattr(type(dyed), "load", load)
    with pytest.raises(CheckpointError, match=r"mmgen-dyed 3\.0 .* RuntimeError: no driver; re"):
        checkpoint.load_visual_tokenizer("dyed")


def test_a_plugin_that_draws_no_numbers_is_named_with_its_version(
    tmp_path: Path,
    dyed: AbstractVisualTokenizer,
    save_dyed: Callable[[Path | None], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = open_checkpoint(save_dyed(tmp_path / "weights")).load_visual_tokenizer("dyed")
    codes = Codes(np.zeros((16, 1), dtype=np.int64), Grid(4, 4))
    assert tokenizer.decode([codes])[0].shape == (32, 32, 3)

    def decode(self: object, codes: list[Codes], **options: object) -> list[Picture]:
        return [np.full((32, 32, 3), np.nan, dtype=np.float32)]

    monkeypatch.setattr(type(dyed), "decode", decode)
    with pytest.raises(PluginError, match=r"of mmgen-dyed 3\.0 drew values nan to nan"):
        tokenizer.decode([codes])


def test_plugins_that_quarrel_over_a_name_harm_no_other(
    tmp_path: Path, save_dyed: Callable[[Path | None], Path]
) -> None:
    path = save_dyed(tmp_path / "weights")
    for rival in ("one", "other"):
        metadata = tmp_path / "site" / f"mmgen_{rival}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: mmgen-{rival}\nVersion: 1.0\n", encoding="utf-8"
        )
        (metadata / "entry_points.txt").write_text(
            "[mmgen.visual_tokenizers]\ntwice = nowhere:T\n", encoding="utf-8"
        )
    importlib.invalidate_caches()
    assert open_checkpoint(path).load_visual_tokenizer("dyed").spec
