"""The measurements are of what they say: equal networks, all works, real memory."""

from __future__ import annotations

import json

import pytest
import torch

from mmgen_vq.bench import compare, main, network_pair


def test_both_networks_do_the_same_work() -> None:
    network, reference = network_pair(64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = network.eval()(images), reference.eval()(images)
    assert torch.equal(ours.codes, theirs.codes)
    torch.testing.assert_close(ours.reconstruction, theirs.reconstruction)


def test_training_steps_begin_alike() -> None:
    network, reference = network_pair(64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours, theirs = network.train()(images), reference.train()(images)
    torch.testing.assert_close(ours.losses["commitment"], theirs.losses["commitment"])
    torch.testing.assert_close(ours.reconstruction, theirs.reconstruction)


def test_every_work_is_compared_at_every_size() -> None:
    found = compare([32, 64], batch_size=1, repeats=1)
    works = ["train", "encode", "decode"]
    assert [(item.codebook_size, item.work) for item in found] == [
        (size, work) for size in (32, 64) for work in works
    ]
    assert all(item.images_per_second > 0 and item.ratio > 0 for item in found)


@pytest.mark.slow
def test_memory_is_that_of_the_large_codebook(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "--size", "65536", "--work", "encode", "--batch-size", "4", "--repeats", "1"])
    told = json.loads(capsys.readouterr().out)
    (peak,) = told["peaks"]
    # One-hot integers alone are 256 latents by 65,536 codes by 8 bytes.
    assert peak["reference_mib"] > 128 and peak["mib"] < peak["reference_mib"] / 2


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--repeats", "0"], "--repeats must be 1"), (["--size", "1"], "--size must be 2")],
)
def test_impossible_measurements_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err
