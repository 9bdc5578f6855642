"""Mixing: the first codes stay, the others are those of another picture of the same length."""

from __future__ import annotations

import numpy as np
import pytest

from mmgen.data.mixing import Mixing, mixed
from mmgen.data.shards import IMAGE, LOSS, Sample
from mmgen.errors import SettingsError


def sample(number: int, num_codes: int) -> Sample:
    """Return a document of an opening, codes that are its number, and a word that is 7."""
    ids = np.array([1, *[100 + number] * num_codes, 7], dtype=np.int32)
    flags = np.array([0, *[IMAGE] * num_codes, LOSS], dtype=np.uint8)
    return Sample(row=str(number), variant=0, ids=ids, flags=flags)


SAMPLES = [sample(number, 4 if number % 2 else 6) for number in range(40)]


def everyone(_: Sample) -> bool:
    return True


def test_all_but_the_first_codes_are_those_of_one_other_picture() -> None:
    found = mixed(SAMPLES, Mixing(share=1.0, num_kept=2), "seed", takes_part=everyone)
    num_same = 0
    for number, (before, after) in enumerate(zip(SAMPLES, found, strict=True)):
        assert (before.row, len(before.ids)) == (after.row, len(after.ids))
        assert after.ids[:3].tolist() == [1, 100 + number, 100 + number] and after.ids[-1] == 7
        (other,) = set(after.ids[3:-1].tolist())
        assert len(SAMPLES[other - 100].ids) == len(after.ids)
        num_same += other == 100 + number
    assert num_same < 8
    # What came in is as it was.
    assert all(item.ids[-2] == 100 + number for number, item in enumerate(SAMPLES))


def test_a_share_is_mixed_and_the_seed_says_which() -> None:
    def changed(share: float, seed: str = "seed") -> list[int]:
        found = mixed(SAMPLES, Mixing(share=share), seed, takes_part=everyone)
        pairs = zip(SAMPLES, found, strict=True)
        return [number for number, (one, two) in enumerate(pairs) if (one.ids != two.ids).any()]

    assert changed(0.0) == []
    assert 8 < len(changed(0.5)) < 32
    assert changed(0.5) == changed(0.5) != changed(0.5, "another")
    assert mixed([], Mixing(share=1.0), "seed", takes_part=everyone) == []


def test_only_those_that_take_part_are_mixed_and_lend_codes() -> None:
    found = mixed(
        SAMPLES, Mixing(share=1.0), "seed", takes_part=lambda item: int(item.row) % 3 == 0
    )
    for number, after in enumerate(found):
        others = {id_ - 100 for id_ in after.ids[2:-1].tolist()}
        assert others == {number} if number % 3 else all(other % 3 == 0 for other in others)


@pytest.mark.parametrize("settings", [{"share": -0.1}, {"share": 1.1}, {"num_kept": 0}])
def test_refuses_bad_settings(settings: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="share must lie in"):
        Mixing(**settings)  # type: ignore[arg-type]
