"""The schedule, Muon's geometry, and which optimizer moves what."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from mmgen.model import Decoder, DecoderConfig
from mmgen.train.config import OptimConfig
from mmgen.train.optim import (
    Muon,
    build_optimizers,
    learning_rate,
    orthogonalised,
    run_progress,
)

SHAPE = DecoderConfig(
    vocab_size=64,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    intermediate_size=48,
    context_length=16,
)


def test_progress_follows_whichever_is_further() -> None:
    assert run_progress(30, 0.0, 100, None) == 0.3
    assert run_progress(30, 60.0, 100, 10.0) == 0.3
    assert run_progress(30, 300.0, 100, 10.0) == 0.5
    assert run_progress(200, 0.0, 100, 10.0) == 1.0


def test_wsd_rises_stays_and_falls() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=9, decay="wsd", decay_share=0.2, min_lr_ratio=0.1)
    rates = [learning_rate(config, step, step / 100) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:81] == pytest.approx([1.0] * 71)
    assert rates[90] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


def test_cosine_falls_all_along() -> None:
    config = OptimConfig(lr=2.0, warmup_steps=0, decay="cosine", min_lr_ratio=0.0)
    rates = [learning_rate(config, step, step / 100) for step in range(101)]
    assert rates[0] == 2.0 and rates[50] == pytest.approx(1.0) and rates[100] == pytest.approx(0.0)
    assert all(a > b for a, b in pairwise(rates))


@pytest.mark.parametrize("shape", [(2, 24, 24), (3, 16, 40), (1, 40, 16)])
def test_orthogonalised_matrices_keep_directions_and_even_out_sizes(
    shape: tuple[int, int, int],
) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    turned = orthogonalised(matrices)
    sizes = torch.linalg.svdvals(turned)
    assert sizes.max() < 1.3 and sizes[:, : min(shape[1:]) // 2].min() > 0.6
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    aligned = (left.mT @ turned @ right.mT).diagonal(dim1=1, dim2=2)
    off = turned - left @ torch.diag_embed(aligned) @ right
    assert off.abs().max() < 1e-4


def test_the_short_cut_for_wide_matrices_changes_nothing() -> None:
    wide = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(0))
    # Padding with zero rows makes a square matrix, which takes the plain way.
    square = torch.cat([wide, torch.zeros(2, 48, 64)], dim=1)
    torch.testing.assert_close(
        orthogonalised(wide), orthogonalised(square)[:, :16], rtol=1e-4, atol=1e-5
    )


def test_parts_of_one_parameter_move_as_separate_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradient = (torch.randn(24, 16, generator=generator) for _ in range(2))
    joined = nn.Parameter(start.clone())
    joined.grad = gradient.clone()
    Muon([joined], lr=0.1, momentum=0.9, weight_decay=0.1, splits={joined: [16, 8]}).step()
    parts = [nn.Parameter(part.clone()) for part in start.split([16, 8])]  # type: ignore[no-untyped-call]
    for part, part_gradient in zip(parts, torch.split(gradient, [16, 8]), strict=True):
        part.grad = part_gradient.clone()
    Muon(parts, lr=0.1, momentum=0.9, weight_decay=0.1, splits={}).step()
    torch.testing.assert_close(joined.detach(), torch.cat([part.detach() for part in parts]))


def test_a_muon_step_has_the_size_of_an_adamw_step() -> None:
    parameter = nn.Parameter(torch.zeros(64, 64))
    parameter.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    Muon([parameter], lr=1e-2, momentum=0.9, weight_decay=0.0, splits={}).step()
    size = parameter.detach().square().mean().sqrt().item()
    assert 0.1e-2 < size < 0.3e-2


@pytest.mark.parametrize("matrix_optimizer", ["muon", "adamw"])
def test_every_parameter_is_moved_once(matrix_optimizer: str) -> None:
    decoder = Decoder(SHAPE)
    config = OptimConfig(matrix_optimizer="muon" if matrix_optimizer == "muon" else "adamw")
    optimizers = build_optimizers(decoder, config)
    names = {parameter: name for name, parameter in decoder.named_parameters()}
    moved = [
        names[parameter]
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(moved) == sorted(names.values())
    matrices = [names[parameter] for parameter in optimizers[0].param_groups[0]["params"]]
    assert len(matrices) == 2 * 4 and all(name.startswith("blocks.") for name in matrices)
    assert optimizers[1].param_groups[0]["weight_decay"] == 0.0
    assert isinstance(optimizers[0], Muon) == (matrix_optimizer == "muon")
