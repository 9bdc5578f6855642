"""One loop: it learns, it resumes exactly, it stops when asked, and it refuses another config."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.checkpoint import open_checkpoint
from mmgen.errors import CheckpointError, SettingsError
from mmgen.model import Decoder
from mmgen.train.config import DataConfig, OptimConfig, TrainConfig
from mmgen.train.export import export_run
from mmgen.train.measure import Tally
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.records import read_records
from mmgen.train.state import latest_state
from mmgen.train.trainer import Trainer, is_finished, train
from tests.train.conftest import World


class StopAt(SilentProgress):
    """Asks for a stop, as Ctrl-C does, once a step is logged."""

    def __init__(self, step: int) -> None:
        self._step = step

    def update(self, share: float, detail: str) -> None:
        if detail.startswith(f"step {self._step}:"):
            os.kill(os.getpid(), signal.SIGINT)


def weights(path: Path, config: TrainConfig) -> dict[str, torch.Tensor]:
    return open_checkpoint(path).load_decoder().state_dict()


def losses(output: Path) -> list[tuple[int, float]]:
    records = read_records(output / "log.jsonl")
    return [(record["step"], record["loss"]) for record in records if record["kind"] == "train"]


def test_a_stopped_run_ends_as_one_that_was_not(world: World, tmp_path: Path) -> None:
    straight = replace(world.config, output=tmp_path / "straight")
    assert train(straight).is_finished
    stopped = replace(world.config, output=tmp_path / "stopped")
    result = train(stopped, progress=StopAt(6))
    assert (result.step, result.is_finished) == (6, False)
    assert not is_finished(stopped)
    assert train(stopped).is_finished
    assert is_finished(stopped)
    assert losses(stopped.output) == losses(straight.output)
    assert [step for step, _ in losses(stopped.output)] == [2, 4, 6, 8, 10, 12]
    first = weights(straight.output / "checkpoint", straight)
    second = weights(stopped.output / "checkpoint", stopped)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_killed_run_goes_on_from_its_last_state(world: World, tmp_path: Path) -> None:
    config = replace(world.config, output=tmp_path / "killed")

    class Killed(BaseException):
        """Stands for a power cut: nothing is saved after it."""

    def cut(decoder: Decoder, step: int) -> None:
        if step == 7:
            raise Killed

    with pytest.raises(Killed):
        train(replace(config, sample_every=1), on_sample=cut)
    state = latest_state(config.output / "state")
    assert state is not None and state.name == "step-00000004"
    assert losses(config.output)[-1][0] == 6
    train(config)
    straight = replace(world.config, output=tmp_path / "straight")
    train(straight)
    assert losses(config.output) == losses(straight.output)


def test_it_learns_and_reports_each_modality(world: World, tmp_path: Path) -> None:
    train(replace(world.config, num_steps=40, curves="on", output=tmp_path))
    records = read_records(tmp_path / "log.jsonl")
    trained = [record for record in records if record["kind"] == "train"]
    assert trained[-1]["loss_image"] < 0.5 * trained[0]["loss_image"]
    assert trained[-1]["bits_per_image"] < 0.5 * trained[0]["bits_per_image"]
    assert {"loss_text", "bits_per_byte", "tokens_per_second", "matmul_share"} <= set(trained[0])
    held_out = [record["loss"] for record in records if record["kind"] == "eval"]
    assert held_out[-1] < held_out[0]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_rows_in_parts_give_the_gradient_of_all_rows(world: World, tmp_path: Path) -> None:
    gradients = []
    for rows in (None, 2):
        config = replace(
            world.config,
            data=replace(world.config.data, rows_at_once=rows),
            optim=OptimConfig(lr=1e-9, grad_clip=1e9),
            output=tmp_path / str(rows),
        )
        trainer = Trainer(config, SilentProgress())
        tally = Tally.empty()
        norm = trainer.take_step(1e-9, tally)
        gradients.append((norm, tally.report()["loss"], tally.num_ids))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


def test_the_average_is_exported_and_evaluated(world: World, tmp_path: Path) -> None:
    train(replace(world.config, output=tmp_path))
    exported = weights(tmp_path / "checkpoint", world.config)
    trainer = Trainer(replace(world.config, output=tmp_path), SilentProgress())
    raw = trainer.decoder.embedding.weight.detach().clone()
    with trainer.averaged_weights():
        averaged = trainer.decoder.embedding.weight.detach().clone()
    assert torch.equal(averaged.bfloat16().float(), exported["embedding.weight"])
    assert not torch.equal(averaged, raw)
    assert torch.equal(trainer.decoder.embedding.weight, raw)


def test_another_config_is_refused_by_field(world: World, tmp_path: Path) -> None:
    config = replace(world.config, output=tmp_path)
    train(config)
    other = replace(config, optim=replace(config.optim, lr=0.5), seed=7)
    with pytest.raises(CheckpointError, match=r"optim\.lr was 0\.01 and is 0\.5; seed was 0"):
        train(other)
    with pytest.raises(CheckpointError, match=r"optim\.lr"):
        is_finished(other)


def test_a_finished_run_can_be_made_longer(world: World, tmp_path: Path) -> None:
    config = replace(world.config, output=tmp_path)
    train(config)
    longer = replace(config, num_steps=14)
    assert not is_finished(longer)
    assert train(longer).step == 14


def test_the_clock_ends_a_run(world: World, tmp_path: Path) -> None:
    config = replace(world.config, num_steps=10**9, max_minutes=1e-6, output=tmp_path)
    result = train(config)
    assert (result.step, result.is_finished) == (1, True)


def test_a_running_run_can_be_exported(world: World, tmp_path: Path) -> None:
    config = replace(world.config, output=tmp_path / "run")
    with pytest.raises(CheckpointError, match="no saved state"):
        export_run(config, tmp_path / "now")
    train(config, progress=StopAt(4))
    assert export_run(config, tmp_path / "now") == 4
    assert open_checkpoint(tmp_path / "now").config == config.decoder


def test_only_the_newest_states_are_kept(world: World, tmp_path: Path) -> None:
    train(replace(world.config, keep_checkpoints=2, output=tmp_path))
    kept = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert kept == ["step-00000008", "step-00000012"]


def test_a_spoilt_state_is_named(world: World, tmp_path: Path) -> None:
    train(replace(world.config, output=tmp_path))
    state = latest_state(tmp_path / "state")
    assert state is not None
    weights_file = state / "weights.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors cannot be read"):
        train(replace(world.config, output=tmp_path, num_steps=20))


def test_the_vocabulary_must_fit(world: World, tmp_path: Path) -> None:
    decoder = replace(world.config.decoder, vocab_size=64)
    with pytest.raises(SettingsError, match=r"decoder\.vocab_size is 64, but .* has 576 rows"):
        train(replace(world.config, decoder=decoder, output=tmp_path))


def test_divergence_is_an_error(world: World, tmp_path: Path) -> None:
    trainer = Trainer(replace(world.config, output=tmp_path), SilentProgress())
    with torch.no_grad():
        trainer.decoder.norm.weight.fill_(float("inf"))
    with pytest.raises(SettingsError, match="diverged"):
        trainer.take_step(1e-3, Tally.empty())


def test_the_config_lies_beside_the_run(world: World, tmp_path: Path) -> None:
    train(replace(world.config, output=tmp_path))
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["optim"]["lr"] == 0.01 and stored["output"] == str(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda world: replace(world.config, num_steps=0), "num_steps must be 1 or more"),
        (lambda world: replace(world.config, ema_decay=1.0), "ema_decay"),
        (lambda world: replace(world.config, max_minutes=0.0), "max_minutes"),
        (lambda world: replace(world.config.data, rows_at_once=3), "must divide"),
        (lambda world: replace(world.config.data, word_dropout=0.95), "at most 1 together with"),
        (lambda world: DataConfig(shards=()), "at least one folder"),
        (lambda world: OptimConfig(lr=0.0), "lr must be positive"),
    ],
)
def test_settings_outside_their_domain(
    make: Callable[[World], object], message: str, world: World
) -> None:
    with pytest.raises(SettingsError, match=message):
        make(world)


def test_progress_is_an_abstract_door() -> None:
    with pytest.raises(TypeError):
        AbstractProgress()  # type: ignore[abstract]
