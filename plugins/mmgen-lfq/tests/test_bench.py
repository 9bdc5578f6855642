"""What is measured against vector-quantize-pytorch does the same as ours."""

from __future__ import annotations

import pytest
import torch

from mmgen.autoencoding.comparison import network_pair, run_comparison
from mmgen_lfq.bench import PAIR


def test_both_networks_draw_the_same() -> None:
    network, reference = network_pair(PAIR, 256)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = network.eval()(images), reference.eval()(images)
        codes = theirs.codes.reshape(2, 8, 8, 1)
        split = torch.cat([codes // 16, codes % 16], dim=-1)
    assert torch.equal(ours.codes, split.flatten(1, 2))
    torch.testing.assert_close(ours.reconstruction, theirs.reconstruction)
    torch.testing.assert_close(network.quantizer.vectors(split), reference.quantizer.vectors(codes))


def test_training_steps_begin_alike() -> None:
    network, reference = network_pair(PAIR, 256)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours, theirs = network.train()(images), reference.train()(images)
    (expected,) = theirs.losses.values()
    total = torch.stack(list(ours.losses.values())).sum()
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=1e-4)


def test_sizes_that_are_no_two_sub_codes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_comparison(PAIR, ["--size", "2048"])
    assert "need a power of 4 in all, got 2048" in capsys.readouterr().err
