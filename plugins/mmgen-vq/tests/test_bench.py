"""What is measured against vector-quantize-pytorch does the same as ours."""

from __future__ import annotations

import json

import pytest
import torch

from mmgen.autoencoding.comparison import network_pair, run_comparison
from mmgen_vq.bench import PAIR


def test_both_networks_draw_the_same() -> None:
    network, reference = network_pair(PAIR, 64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = network.eval()(images), reference.eval()(images)
        again = reference.quantizer.vectors(theirs.codes)
    assert torch.equal(ours.codes, theirs.codes)
    torch.testing.assert_close(ours.reconstruction, theirs.reconstruction)
    torch.testing.assert_close(network.quantizer.vectors(ours.codes), again)


def test_training_steps_begin_alike() -> None:
    network, reference = network_pair(PAIR, 64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours, theirs = network.train()(images), reference.train()(images)
    torch.testing.assert_close(ours.losses["commitment"], theirs.losses["commitment"])
    torch.testing.assert_close(ours.reconstruction, theirs.reconstruction)


@pytest.mark.slow
def test_memory_is_that_of_the_large_codebook() -> None:
    words = ["--size", "65536", "--work", "encode", "--batch-size", "4", "--repeats", "1"]
    (peak,) = json.loads(run_comparison(PAIR, ["--json", *words]))["peaks"]
    # One-hot integers alone are 256 latents by 65,536 codes by 8 bytes.
    assert peak["reference_mib"] > 128 and peak["mib"] < peak["reference_mib"] / 2
