"""The small decoder that says how hard codes are to predict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mmgen.authoring.starting_points import grid, ordered
from mmgen.errors import SettingsError
from mmgen.evaluate.code_model import CodeModelConfig, score_codes
from mmgen.evaluate.comparison import compare
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.yardstick import Candidate, CodeModelTask
from mmgen.pictures import to_picture
from mmgen.testing import draw_picture
from mmgen.visual_tokenizer import Codes, Grid, Ordered
from mmgen_palette import PaletteTokenizer


def test_the_small_decoder_knows_what_it_can_know() -> None:
    """Codes at random cost what they weigh; codes that follow from the first cost that one."""
    random = np.random.default_rng(0)
    layout = Grid(4, 4)
    sizes = (8, 4)
    free = [
        Codes(np.stack([random.integers(0, size, 16) for size in sizes], axis=1), layout)
        for _ in range(200)
    ]
    bound = [
        Codes(np.stack([(np.arange(16) + n) % size for size in sizes], axis=1), layout)
        for n in random.integers(0, 8, 200)
    ]
    config = CodeModelConfig(hidden_size=64, num_layers=1, num_steps=60)
    weight = 16 * (3 + 2)
    state = torch.get_rng_state()
    chaos = score_codes(free[:160], free[160:], sizes, config, progress=unwatched)
    order = score_codes(bound[:160], bound[160:], sizes, config, progress=unwatched)
    assert torch.equal(torch.get_rng_state(), state)
    assert weight - 1 < chaos.bits_per_image < weight * 1.1
    assert order.bits_per_image < weight / 3
    assert (order.num_train, order.num_held_out, order.num_steps) == (160, 40, 60)
    assert score_codes(bound[:160], bound[160:], sizes, config, progress=unwatched) == order


def test_the_small_decoder_pays_for_lengths_and_not_for_what_is_absent() -> None:
    random = np.random.default_rng(1)
    lengths = random.choice([2, 8], 240)
    codes = [Codes(random.integers(0, 4, (length, 1)), Ordered(int(length))) for length in lengths]
    config = CodeModelConfig(hidden_size=64, num_layers=1, num_steps=96)
    score = score_codes(codes[:192], codes[192:], (4,), config, progress=unwatched)
    # One bit says which of two lengths it is, and two bits stand for each code at random.
    weight = 1 + 2 * float(np.mean(lengths[-48:]))
    assert weight - 0.7 < score.bits_per_image < weight * 1.15


def test_the_small_decoder_is_of_one_size_whatever_the_codebooks() -> None:
    config = CodeModelConfig(hidden_size=64, num_layers=1, num_steps=1)
    scores = []
    for sizes in ((4,), (512,), (16, 16, 16)):
        codes = [Codes(np.zeros((4, len(sizes)), dtype=np.int64), Grid(2, 2))] * 20
        scores.append(score_codes(codes[:16], codes[16:], sizes, config, progress=unwatched))
    assert len({score.num_parameters for score in scores}) == 1
    assert len({score.num_table_parameters for score in scores}) == 3


def test_the_small_decoder_needs_one_layout_and_enough_pictures() -> None:
    one = Codes(np.zeros((4, 1), dtype=np.int64), Grid(2, 2))
    other = Codes(np.zeros((4, 1), dtype=np.int64), Grid(1, 4))
    with pytest.raises(SettingsError, match="2 layouts"):
        score_codes([one], [other], (2,), CodeModelConfig(), progress=unwatched)
    with pytest.raises(SettingsError, match="5 pictures are too few"):
        score_codes([one] * 5, [one], (2,), CodeModelConfig(), progress=unwatched)
    with pytest.raises(SettingsError, match="1 or more"):
        CodeModelConfig(num_steps=0)


def drawn(count: int, size: tuple[int, int] = (64, 64), first: int = 0) -> list[Image.Image]:
    return [to_picture(draw_picture(size, seed=first + seed)) for seed in range(count)]


def test_every_tokenizer_learns_from_other_pictures_than_it_is_scored_on() -> None:
    candidates = [
        Candidate(name="blocks", tokenizer=grid.StartTokenizer(), num_parameters=None),
        Candidate(name="waves", tokenizer=ordered.StartTokenizer(), num_parameters=None),
    ]
    config = CodeModelConfig(hidden_size=64, num_layers=1, num_steps=4)
    pictures = drawn(24)
    for task, counts in (
        (CodeModelTask(config=config, pictures=tuple(drawn(20, first=100))), (20, 24)),
        # Without others, the last fifth of the measured ones is kept from learning.
        (CodeModelTask(config=config), (19, 5)),
    ):
        comparison, _ = compare(
            candidates, pictures, judge=None, code_model=task, progress=unwatched
        )
        scores = [item.code_model for item in comparison.tokenizers]
        for score in scores:
            assert score is not None and (score.num_train, score.num_held_out) == counts
        assert "in 4 steps" in comparison.markdown()


def test_what_a_small_decoder_cannot_learn_is_refused_before_anything_is_measured() -> None:
    candidates = [Candidate(name="palette", tokenizer=PaletteTokenizer(), num_parameters=None)]
    seen: list[str] = []

    def watching(items: list[object], label: str) -> list[object]:
        seen.append(label)
        return items

    task = CodeModelTask(config=CodeModelConfig(), pictures=tuple(drawn(20)))
    with pytest.raises(SettingsError, match="palette would take these at 64x64, 64x96"):
        compare(
            candidates,
            drawn(2, (64, 96)),
            judge=None,
            code_model=task,
            progress=watching,  # type: ignore[arg-type]
        )
    assert seen == []
