"""A model whose codes another decoder draws: all that draws uses it, nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmgen.checkpoint import open_checkpoint, redecode_checkpoint
from mmgen.errors import CheckpointError, OutputError
from mmgen.generate.events import ImageFinished
from mmgen.generate.requests import DrawRequest
from mmgen.generate.session import open_session
from mmgen.plugins import load_visual_tokenizer, load_visual_tokenizer_class
from mmgen.wrapping.redecoded import RedecodedTokenizer

SMALL = {"decoder_widths": [8, 8, 8], "decoder_depths": [1, 1, 1]}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder")
    RedecodedTokenizer.untrained({**SMALL, "tokenizer": "palette"}, seed=0).save(path)
    return path


@pytest.fixture(scope="module")
def redecoded(
    tiny_checkpoint: Path, decoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("models") / "redecoded"
    redecode_checkpoint(open_checkpoint(tiny_checkpoint), "palette", decoder, path)
    return path


def draw(model: Path) -> ImageFinished:
    session = open_session(model)
    events = list(session.draw_many([DrawRequest(prompt="a red circle", seed=3)]))
    (finished,) = [event for event in events if isinstance(event, ImageFinished)]
    return finished


def test_codes_are_the_same_and_pixels_the_new_decoders(
    tiny_checkpoint: Path, redecoded: Path, decoder: Path
) -> None:
    before, after = draw(tiny_checkpoint), draw(redecoded)
    assert after.codes == before.codes
    assert not np.array_equal(after.picture, before.picture)
    drawn = RedecodedTokenizer.load(decoder).decode([after.codes])[0]
    assert np.array_equal(after.picture, drawn)


def test_the_model_says_that_it_is_another(tiny_checkpoint: Path, redecoded: Path) -> None:
    old, new = open_checkpoint(tiny_checkpoint), open_checkpoint(redecoded)
    assert new.fingerprint != old.fingerprint
    entry = new.visual_tokenizers["palette"]
    # Codes are what they were, so whatever holds them goes on fitting.
    assert entry.fingerprint == old.visual_tokenizers["palette"].fingerprint
    assert entry.decoder is not None
    assert new.load_visual_tokenizer("palette").fingerprint == entry.decoder.fingerprint
    own = new.load_visual_tokenizer("palette", as_trained=True)
    assert own.fingerprint == entry.fingerprint


def test_half_of_it_can_be_loaded(redecoded: Path) -> None:
    checkpoint = open_checkpoint(redecoded)
    picture = np.zeros((64, 64, 3), dtype=np.float32)
    encoder = checkpoint.load_visual_tokenizer("palette", parts="encoder")
    codes = encoder.encode([picture])
    assert codes == load_visual_tokenizer("palette").encode([picture])
    whole = checkpoint.load_visual_tokenizer("palette")
    half = checkpoint.load_visual_tokenizer("palette", parts="decoder")
    assert np.array_equal(half.decode(codes)[0], whole.decode(codes)[0])


def test_a_decoder_of_another_tokenizer_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shape = {"encoder_widths": [8, 8], "encoder_depths": [1, 1], **SMALL, "max_side": 16}
    fsq = load_visual_tokenizer_class("fsq").untrained({**shape, "default_side": 16}, seed=0)
    (tmp_path / "fsq").mkdir()
    fsq.save(tmp_path / "fsq")
    settings = {**SMALL, "tokenizer": str(tmp_path / "fsq")}
    made = RedecodedTokenizer.untrained(settings, seed=0)
    (tmp_path / "decoder").mkdir()
    made.save(tmp_path / "decoder")
    checkpoint = open_checkpoint(tiny_checkpoint)
    with pytest.raises(CheckpointError, match=rf"{made.wrapped_fingerprint}, but .* train a"):
        redecode_checkpoint(checkpoint, "palette", tmp_path / "decoder", tmp_path / "out")
    with pytest.raises(CheckpointError, match="is of no use: no redecoded tokenizer"):
        redecode_checkpoint(checkpoint, "palette", tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match="is the checkpoint to copy"):
        redecode_checkpoint(checkpoint, "palette", tmp_path / "decoder", tiny_checkpoint)


def test_a_decoder_that_was_changed_or_lost_is_refused(redecoded: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(redecoded, tmp_path / "changed"))
    RedecodedTokenizer.untrained({**SMALL, "tokenizer": "palette"}, seed=1).save(
        path / "decoders" / "palette"
    )
    with pytest.raises(CheckpointError, match="copy the checkpoint again"):
        open_checkpoint(path).load_visual_tokenizer("palette")
    shutil.rmtree(path / "decoders")
    with pytest.raises(CheckpointError, match="lacks the decoder"):
        open_checkpoint(path).load_visual_tokenizer("palette")


def test_a_model_without_another_decoder_has_none(tiny_checkpoint: Path) -> None:
    stored = json.loads((tiny_checkpoint / "mmgen.json").read_text())
    assert stored["visual_tokenizers"]["palette"].pop("decoder") is None
