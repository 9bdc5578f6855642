"""What captions lead to expect: found from pictures, taken off before codes and given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmgen.testing import draw_picture
from mmgen_caption import CaptionTokenizer
from mmgen_caption.forecast import RIDGE, SHARPEST, CaptionForecast
from mmgen_caption.reader import pieces_of
from mmgen_caption.tokenizer import CaptionNetwork

COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.2), "blue": (0.1, 0.2, 0.9)}


@pytest.fixture(scope="module")
def seen() -> tuple[Tensor, list[str]]:
    """Pictures of one colour each, with some noise, and what is said of them."""
    generator = torch.Generator().manual_seed(0)
    names = [list(COLOURS)[index % len(COLOURS)] for index in range(96)]
    plain = torch.tensor([COLOURS[name] for name in names]).reshape(-1, 3, 1, 1)
    noise = torch.rand(len(names), 3, 16, 16, generator=generator) * 0.2 - 0.1
    return (plain + noise).clamp(0, 1), [f"a {name} picture" for name in names]


@pytest.fixture(scope="module")
def begun(seen: tuple[Tensor, list[str]], small_settings: dict[str, Any]) -> CaptionTokenizer:
    tokenizer = CaptionTokenizer.untrained(small_settings, seed=3)
    tokenizer.begin_training(*seen)
    return tokenizer


def network_of(tokenizer: CaptionTokenizer) -> CaptionNetwork:
    network = tokenizer.network()
    assert isinstance(network, CaptionNetwork)
    return network


def forecast(num_buckets: int = 512) -> CaptionForecast:
    return CaptionForecast(num_buckets=num_buckets, num_positions=2, dim=3)


def test_nothing_is_expected_before_pictures_were_seen() -> None:
    expectation = forecast()(["a red apple", ""])
    assert not expectation.latents.any() and expectation.latents.shape == (2, 2, 3)
    assert (expectation.sharpness == 1).all()


def test_a_forecast_is_the_ridge_regression_of_its_words() -> None:
    generator = torch.Generator().manual_seed(1)
    captions = [f"{one} {other}" for one in ("red", "blue") for other in ("disc", "box", "star")]
    latents = torch.randn(6, 2, 3, generator=generator)
    ours = forecast()
    ours.fit(captions, latents)
    table = np.zeros((6, 512))
    for row, caption in enumerate(captions):
        for word in caption.split():
            for piece in pieces_of(word, 512):
                table[row, piece] += 1
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    # The dual of the same problem, whose matrix is small.
    kernel = table @ table.T
    wanted = kernel @ np.linalg.solve(kernel + RIDGE * np.eye(6), latents.flatten(1).numpy())
    assert np.allclose(ours(captions).latents.flatten(1).numpy(), wanted, atol=1e-5)


def test_a_caption_without_words_leads_to_expect_nothing(begun: CaptionTokenizer) -> None:
    network = network_of(begun)
    assert not network.forecast(["", "…"]).latents.any()
    assert network.forecast(["a red picture"]).latents.any()


def test_words_never_met_are_taken_by_what_they_share() -> None:
    ours = forecast()
    latents = torch.ones(16, 2, 3) * torch.tensor([1.0, -1.0]).repeat(8).reshape(-1, 1, 1)
    ours.fit(["strawberry", "motorcycle"] * 8, latents)
    berry, cycle = ours(["strawberries", "motorcycles"]).latents
    assert (berry > 0.2).all() and (cycle < -0.2).all()


def test_what_is_left_is_made_as_wide_as_the_whole_was(
    begun: CaptionTokenizer, seen: tuple[Tensor, list[str]]
) -> None:
    network = network_of(begun)
    whole = network.principal.analysed(seen[0])
    rest = network.principal.analysed(seen[0], network.forecast(seen[1]))
    sharpness = network.forecast.sharpness
    # Two directions tell three colours apart; what they say, captions say as well.
    assert (sharpness.flatten()[:2] > 2).all() and sharpness.max() <= SHARPEST
    assert torch.allclose(rest.std(dim=0)[0, :2], whole.std(dim=0)[0, :2], rtol=0.5)


def test_the_right_caption_draws_the_colour_without_codes(begun: CaptionTokenizer) -> None:
    codes = begun.encode([draw_picture((16, 16), seed=0)], length=1)[0]
    nothing = type(codes)(codes.array[:0], codes.layout)
    for name, colour in COLOURS.items():
        drawn = begun.preview(nothing, caption=f"a {name} picture")
        assert np.abs(drawn.mean(axis=(0, 1)) - colour).max() < 0.15, name


def test_codes_of_an_expected_picture_are_those_of_no_surprise(
    begun: CaptionTokenizer, seen: tuple[Tensor, list[str]]
) -> None:
    network = network_of(begun)
    plain = torch.tensor(COLOURS["red"]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    right = network.principal.analysed(plain, network.forecast(["a red picture"]))
    wrong = network.principal.analysed(plain, network.forecast(["a blue picture"]))
    assert right.abs().max() < wrong.abs().max() / 2


def test_a_saved_forecast_is_the_same(begun: CaptionTokenizer, tmp_path: Path) -> None:
    begun.save(tmp_path)
    again = CaptionTokenizer.load(tmp_path)
    one, other = (network_of(item).forecast(["a red box"]) for item in (begun, again))
    assert torch.equal(one.latents, other.latents) and torch.equal(one.sharpness, other.sharpness)


def test_components_taken_from_another_tokenizer_stay(
    begun: CaptionTokenizer, seen: tuple[Tensor, list[str]], small_settings: dict[str, Any]
) -> None:
    later = CaptionTokenizer.untrained(small_settings, seed=4)
    principal = network_of(later).principal
    principal.load_state_dict(network_of(begun).principal.state_dict())
    images, captions = seen
    later.begin_training(images[:48], captions[:48])
    assert torch.equal(principal.components, network_of(begun).principal.components)
    assert network_of(later).forecast(captions[:1]).latents.any()
