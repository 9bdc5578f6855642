from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.checkpoint import open_checkpoint
from mmgen.errors import SettingsError
from mmgen.generate.bench import (
    GenerationBenchConfig,
    by_plain_loop,
    measure_generation,
    plain_model,
)
from mmgen.generate.engine import SamplingParams
from mmgen.generate.requests import DrawRequest
from mmgen.generate.session import Session, open_session
from mmgen.generate.torch_engine import TorchEngine


def test_the_plain_loop_draws_what_the_engine_draws(session: Session, model_path: Path) -> None:
    request = session.begin(0, DrawRequest(prompt="a red fox", seed=0)).span
    request = replace(request, sampling=SamplingParams(top_k=1))
    engine = TorchEngine(open_checkpoint(model_path).load_decoder())
    ours = [id_ for step in engine.generate([request]) for id_ in step.ids]
    theirs = by_plain_loop(plain_model(open_checkpoint(model_path)), request, 2)
    assert theirs.tolist() == [ours, ours]


def test_the_plain_loop_keeps_to_top_p(session: Session, model_path: Path) -> None:
    request = session.begin(0, DrawRequest(prompt="a red fox", seed=0)).span
    narrow = replace(request, sampling=SamplingParams(top_p=1e-6))
    model = plain_model(open_checkpoint(model_path))
    greedy = by_plain_loop(model, replace(request, sampling=SamplingParams(top_k=1)), 1)
    assert torch.equal(by_plain_loop(model, narrow, 1), greedy)
    assert not torch.equal(by_plain_loop(model, request, 1), greedy)


def test_all_figures_are_measured(model_path: Path) -> None:
    found = measure_generation(model_path, GenerationBenchConfig(counts=(1, 2), repeats=1))
    assert [speed.num_pictures for speed in found.speeds] == [1, 2]
    for speed in found.speeds:
        assert speed.num_codes == 16
        assert min(speed.seconds, speed.plain_seconds, speed.one_by_one_seconds) > 0
        assert speed.ratio == pytest.approx(speed.plain_seconds / speed.seconds)
        assert speed.one_by_one_ratio == pytest.approx(speed.one_by_one_seconds / speed.seconds)
        assert speed.codes_per_second == pytest.approx(16 * speed.num_pictures / speed.seconds)
    decoder = open_session(model_path, parts="decoder").checkpoint.load_decoder()
    blocks = sum(weight.numel() for weight in decoder.blocks.parameters())
    assert found.bytes_per_step == 4 * (blocks + 256 * 64)
    assert 0 < found.bandwidth_share and 0 < found.read_rate


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(SettingsError, match="counts and repeats must be 1 or more"):
        GenerationBenchConfig(counts=(0,))
    with pytest.raises(SettingsError, match="guidance 1 would be none"):
        GenerationBenchConfig(guidance_scale=1.0)
