"""The debug recipe, from nothing to a picture, with its losses as a golden file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmgen.checkpoint import open_checkpoint
from mmgen.errors import CheckpointError, RecipeError
from mmgen.generate.events import ImageFinished
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine
from mmgen.train.progress import SilentProgress
from mmgen.train.records import read_records
from mmgen.train.run import configure, run
from mmgen.train.samples import draw_samples
from mmgen.train.trainer import Trainer
from recipes.debug import Debug, debug

GOLDEN = Path(__file__).parent.parent / "golden" / "debug_cpu.txt"
# The same run differs by up to 1e-5 between instruction sets (SSE, AVX2, AVX-512), because sums
# are taken in another order; a mistake in the model, the loss or the data moves it by far more.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Debug:
    config = configure(debug, [f"output={tmp_path_factory.mktemp('debug')}"])
    assert isinstance(config, Debug)
    assert run(config).done == ("text_tokenizer", "prepare", "decoder")
    return config


def test_losses_are_golden(finished: Debug) -> None:
    records = read_records(finished.decoder.output / "log.jsonl")
    found = [(record["step"], record["loss"]) for record in records if record["kind"] == "train"]
    golden = np.loadtxt(GOLDEN)
    np.testing.assert_array_equal([step for step, _ in found], golden[:, 0])
    np.testing.assert_allclose([loss for _, loss in found], golden[:, 1], rtol=TOLERANCE)


def test_everything_is_found_finished(finished: Debug) -> None:
    assert run(finished).done == ()


def test_the_checkpoint_draws(finished: Debug) -> None:
    checkpoint = open_checkpoint(finished.decoder.output / "checkpoint")
    session = Session(checkpoint, TorchEngine(checkpoint.load_decoder(), num_rows=2))
    events = list(session.draw("a red circle", seed=1))
    pictures = [event.picture for event in events if isinstance(event, ImageFinished)]
    assert [picture.shape for picture in pictures] == [(32, 32, 3)]


def test_samples_are_sheets(finished: Debug) -> None:
    trainer = Trainer(finished.decoder, SilentProgress())
    draw_samples(finished.decoder, trainer.decoder, 60, ["a red circle", "two blue stars"])
    sheet = finished.decoder.output / "samples" / "step-00000060.png"
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert open_checkpoint(finished.decoder.output / "sampled").config == finished.decoder.decoder


def test_stages_of_other_settings_are_refused(finished: Debug) -> None:
    stage = finished.text_tokenizer
    other = replace(stage, num_ids=300)
    with pytest.raises(CheckpointError, match="num_ids was 384 and is 300"):
        assert other.is_finished
    (stage.output / "finished.json").read_text()
    assert json.loads((stage.output / "finished.json").read_text())["num_ids"] == 384


def test_the_nearest_field_is_named() -> None:
    with pytest.raises(RecipeError, match=r"did you mean decoder\.optim\.lr\?"):
        configure(debug, ["decoder.optim.lrr=1"])
