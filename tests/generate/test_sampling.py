from __future__ import annotations

import math

import pytest
import torch

from mmgen.errors import SettingsError
from mmgen.generate.engine import SamplingParams
from mmgen.generate.sampling import (
    SamplingRows,
    guide,
    gumbel_noise,
    hash_ids,
    keep_top,
    sample,
)

MASK = (1 << 64) - 1


def column(*values: int) -> torch.Tensor:
    return torch.tensor(values).unsqueeze(1)


def splitmix(x: int) -> int:
    """The published finaliser, in unbounded integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def stack(*params: SamplingParams) -> SamplingRows:
    return SamplingRows.stack(params, range(len(params)))


@pytest.mark.parametrize("seed", [0, 1, 123456789, 2**62 + 5, 2**63 - 1])
def test_hash_is_splitmix_in_plain_integers(seed: int) -> None:
    stride = 0x9E3779B97F4A7C15
    ids = [0, 7, 65535, 151643]
    found = hash_ids(column(seed), column(3), torch.tensor(ids))[0].tolist()
    key = splitmix((splitmix((seed * stride) & MASK) + 3 * stride) & MASK)
    assert [bits & MASK for bits in found] == [splitmix((key + i * stride) & MASK) for i in ids]


def test_noise_does_not_depend_on_neighbours() -> None:
    seeds, steps, ids = column(5, 6, 7), column(0, 9, 2), torch.arange(1000)
    together = gumbel_noise(seeds, steps, ids)
    alone = gumbel_noise(column(6), column(9), torch.tensor([3, 998]))
    assert torch.equal(together[1, [3, 998]], alone[0])


def test_noise_is_gumbel() -> None:
    noise = gumbel_noise(column(*range(20)), column(*range(20)), torch.arange(10_000)).double()
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.std().item() == pytest.approx(math.pi / 6**0.5, abs=0.01)
    share_above_3 = (noise > 3).double().mean().item()
    assert share_above_3 == pytest.approx(1 - math.exp(-math.exp(-3)), abs=0.002)


def test_noise_of_other_seeds_steps_and_ids_is_unrelated() -> None:
    ids = torch.arange(4096)
    noise = gumbel_noise(column(1, 2, 1, 1), column(0, 0, 1, 2), ids)
    shifted = noise[0].roll(1)
    for other in (noise[1], noise[2], noise[3], shifted):
        assert abs(torch.corrcoef(torch.stack([noise[0], other]))[0, 1].item()) < 0.06


def test_sampling_follows_the_probabilities() -> None:
    rows = SamplingRows.stack([SamplingParams(temperature=0.5)] * 4000, range(4000))
    logits = torch.tensor([[0.0, 0.5, 1.0]]).repeat(4000, 1)
    chosen = sample(logits, torch.tensor([10, 11, 12]), torch.zeros(4000, 1).long(), rows)
    shares = torch.bincount(chosen - 10, minlength=3) / 4000
    assert torch.allclose(shares, (logits[0] / 0.5).softmax(0), atol=0.03)


def test_temperature_zero_takes_the_best() -> None:
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    rows = stack(*[SamplingParams(temperature=0)] * 8)
    chosen = sample(logits, torch.arange(50), torch.zeros(8, 1).long(), rows)
    assert torch.equal(chosen, logits.argmax(1))


def test_top_k_and_top_p_differ_by_row() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0]]).repeat(5, 1)
    kept = keep_top(
        logits,
        stack(
            SamplingParams(),
            SamplingParams(top_k=2),
            SamplingParams(top_p=0.7),
            SamplingParams(top_k=3, top_p=0.95),
            SamplingParams(top_k=100),
        ),
    ).isfinite()
    # Shares: .636 .234 .086 .032 .012; of the best three: .665 .245 .090.
    assert kept.sum(1).tolist() == [5, 2, 2, 3, 5]
    assert kept[:, 0].all()


def test_top_p_counts_at_the_temperature() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]]).repeat(3, 1)
    rows = stack(*[SamplingParams(temperature=t, top_p=0.9) for t in (1.0, 0.25, 4.0)])
    assert keep_top(logits, rows).isfinite().sum(1).tolist() == [3, 1, 4]


def test_top_p_alone_keeps_the_best_id_of_a_flat_row() -> None:
    kept = keep_top(torch.tensor([[9.0, 0.0]]), stack(SamplingParams(top_p=1e-9)))
    assert kept.isfinite().tolist() == [[True, False]]


def test_greedy_rows_may_carry_top_p() -> None:
    logits = torch.tensor([[1.0, 2.0]])
    rows = stack(SamplingParams(temperature=0, top_p=0.5))
    assert sample(logits, torch.arange(2), column(0), rows).tolist() == [1]


def test_limits_do_not_depend_on_neighbours() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 300, generator=generator)
    params = [
        SamplingParams(top_k=7),
        SamplingParams(temperature=0.7, top_p=0.8),
        SamplingParams(temperature=1.3, top_k=50, top_p=0.9),
    ]
    together = keep_top(logits, stack(*params)).isfinite()
    for row, one in enumerate(params):
        assert torch.equal(keep_top(logits[row : row + 1], stack(one)).isfinite()[0], together[row])


def test_few_candidates_are_chosen_from_as_from_all() -> None:
    logits = torch.randn(6, 400, generator=torch.Generator().manual_seed(2))
    ids, steps = torch.arange(1000, 1400), torch.arange(6).unsqueeze(1)
    params = [SamplingParams(top_k=3 + row, top_p=0.9 if row % 2 else None) for row in range(6)]
    rows = stack(*params)
    assert rows.num_candidates == 8
    beside_unlimited = stack(*params, SamplingParams())
    chosen = sample(logits, ids, steps, rows)
    more = sample(
        torch.cat([logits, logits[:1]]), ids, torch.cat([steps, steps[:1]]), beside_unlimited
    )
    assert torch.equal(chosen, more[:6])
    ranks = (logits > logits.gather(1, (chosen - 1000).unsqueeze(1))).sum(1)
    assert (ranks < torch.arange(3, 9)).all()


def test_guidance_reaches_beyond_the_condition() -> None:
    conditional, blank = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    guided = guide(conditional, blank.expand(2, -1), torch.tensor([[3.0], [1.0]]))
    assert guided.tolist() == [[3.0, -2.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top-k must be 1 or more, got 0"),
        ({"top_k": -3}, "top-k must be 1 or more, got -3"),
        ({"temperature": -0.1}, "temperature must be 0 or more, got -0.1"),
        ({"temperature": math.nan}, "temperature must be 0 or more, got nan"),
        ({"top_p": 0.0}, "top-p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top-p must be above 0 and at most 1, got 1.5"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SamplingParams(**settings)  # type: ignore[arg-type]
