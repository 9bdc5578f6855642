"""The comparison of quantizers: equal networks, every work measured, memory of what is large."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from mmgen.autoencoding import AbstractQuantizer, FiniteScalarQuantizer, Quantized
from mmgen.autoencoding.comparison import QuantizerPair, compare, network_pair, run_comparison


class TableQuantizer(AbstractQuantizer):
    """Rounds as `FiniteScalarQuantizer` does, by a search in the table of all codes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner = rounding(size)
        self.dim, self.codebook_sizes = self.inner.dim, self.inner.codebook_sizes

    def forward(self, latents: Tensor) -> Quantized:
        return self.inner(latents)  # type: ignore[no-any-return]

    def vectors(self, codes: Tensor) -> Tensor:
        return self.code_vectors(0)[codes[..., 0]]

    def code_vectors(self, codebook: int) -> Tensor:
        return self.inner.code_vectors(codebook)


def rounding(size: int) -> FiniteScalarQuantizer:
    if size % 4:
        raise ValueError(f"4 levels an axis need a multiple of 4, got {size}")
    return FiniteScalarQuantizer((4, size // 4))


def nothing(ours: AbstractQuantizer, reference: AbstractQuantizer) -> None:
    assert torch.equal(ours.code_vectors(0), reference.code_vectors(0))


PAIR = QuantizerPair(
    module="nowhere.bench",
    distribution="torch",
    package="torch",
    ours=rounding,
    reference=TableQuantizer,
    align=nothing,
)


def test_both_networks_do_the_same_work() -> None:
    network, reference = network_pair(PAIR, 64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = network.eval()(images), reference.eval()(images)
    assert torch.equal(ours.codes, theirs.codes)
    assert torch.equal(ours.reconstruction, theirs.reconstruction)


def test_every_work_is_compared_at_every_size() -> None:
    found = compare(PAIR, [64, 128], batch_size=1, repeats=1)
    works = ["train", "encode", "decode"]
    assert [(item.codebook_size, item.work) for item in found] == [
        (size, work) for size in (64, 128) for work in works
    ]
    assert all(item.images_per_second > 0 and item.ratio > 0 for item in found)


def test_a_process_measures_its_own_memory() -> None:
    words = ["--measure", "ours", "--size", "64", "--work", "decode", "--batch-size", "1"]
    assert 0 <= float(run_comparison(PAIR, [*words, "--threads", "1"])) < 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeats", "0"], "--repeats must be 1 or more"),
        (["--size", "8"], "--size must be 64 or more"),
        (["--size", "66"], "--size: 4 levels an axis need a multiple of 4, got 66"),
        (["--work", "sleep"], "invalid choice: 'sleep'"),
    ],
)
def test_impossible_measurements_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_comparison(PAIR, words)
    assert message in capsys.readouterr().err


def test_a_missing_reference_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    pair = QuantizerPair(
        module="nowhere.bench",
        distribution="no-such-thing",
        package="no_such_thing",
        ours=rounding,
        reference=TableQuantizer,
        align=nothing,
    )
    with pytest.raises(SystemExit):
        run_comparison(pair, [])
    assert "no-such-thing is missing: pip install no-such-thing" in capsys.readouterr().err


def test_tables_and_json_hold_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmgen.autoencoding.comparison._peak_mib", lambda *_, **__: 7.0)
    words = ["--size", "64", "--work", "decode", "--repeats", "1", "--batch-size", "1"]
    told = json.loads(run_comparison(PAIR, [*words, "--json", "--threads", "1"]))
    assert told["speeds"][0]["work"] == "decode" and told["peaks"][0]["mib"] == 7.0
    text = run_comparison(PAIR, [*words, "--threads", "1"])
    assert "| decode | 64 |" in text and text.endswith("| decode | 64 | 7 | 7 |")
