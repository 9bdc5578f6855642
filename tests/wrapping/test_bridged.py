"""Bins for continuous latents: equal shares, ordered codes, fewer bins less like the latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmgen.errors import PluginError, SettingsError
from mmgen.plugins import load_visual_tokenizer, located_visual_tokenizer
from mmgen.testing import check, draw_picture
from mmgen.wrapping.bridged import BinRule, BridgedTokenizer, bridge_tokenizer, continuous
from mmgen.wrapping.wrapper import Wrapped, load_wrapped

PICTURES = [draw_picture((16, 16), seed=seed) for seed in range(60)]


@pytest.fixture(scope="module")
def wrapped(continuous_folder: Path) -> Wrapped:
    return load_wrapped("continuous", continuous_folder)


def bridged(wrapped: Wrapped, num_bins: int, rule: BinRule = "quantile") -> BridgedTokenizer:
    latents = continuous(wrapped).encode_latents(PICTURES)
    return bridge_tokenizer(wrapped, latents, num_bins=num_bins, bins=rule)


@pytest.mark.parametrize("rule", ["quantile", "gaussian"])
def test_the_contract_is_kept(wrapped: Wrapped, tmp_path: Path, rule: BinRule) -> None:
    made = bridged(wrapped, 7, rule)
    assert made.spec.codebook_sizes == (7, 7, 7)
    report = check(made)
    assert report.is_passed, report.to_text()
    made.save(tmp_path)
    loaded = load_visual_tokenizer(*located_visual_tokenizer(str(tmp_path)))
    assert loaded.fingerprint == made.fingerprint
    assert loaded.encode(PICTURES[:3]) == made.encode(PICTURES[:3])


def test_bins_have_equal_shares_and_codes_their_order(wrapped: Wrapped) -> None:
    made = bridged(wrapped, 4)
    codes = np.concatenate([item.array for item in made.encode(PICTURES)])
    shares = [np.bincount(column, minlength=4) / len(column) for column in codes.T]
    assert np.allclose(shares, 0.25, atol=0.02)
    for book in range(3):
        centres = made.code_vectors(book)[:, 0]
        assert centres.shape == (4,) and (np.diff(centres) > 0).all()


def test_more_bins_are_nearer_to_the_latents(wrapped: Wrapped) -> None:
    latents = np.concatenate(continuous(wrapped).encode_latents(PICTURES))
    errors = []
    for num_bins in (2, 8, 24):
        made = bridged(wrapped, num_bins)
        codes = np.concatenate([item.array for item in made.encode(PICTURES)])
        columns = [made.code_vectors(book)[codes[:, book], 0] for book in range(3)]
        errors.append(float(((np.stack(columns, axis=1) - latents) ** 2).mean()))
    assert errors[0] > 4 * errors[1] > 8 * errors[2]


def test_the_rules_differ_and_so_do_fingerprints(wrapped: Wrapped) -> None:
    fingerprints = {
        bridged(wrapped, 6).fingerprint,
        bridged(wrapped, 7).fingerprint,
        bridged(wrapped, 6, "gaussian").fingerprint,
    }
    assert len(fingerprints) == 3


def test_what_cannot_be_bridged_is_refused(wrapped: Wrapped) -> None:
    with pytest.raises(SettingsError, match="'palette' has no continuous latents"):
        continuous(load_wrapped("palette"))
    latents = continuous(wrapped).encode_latents(PICTURES[:2])
    with pytest.raises(SettingsError, match="8 latents are too few for 16 bins"):
        bridge_tokenizer(wrapped, latents)
    still = [np.zeros((400, 3), dtype=np.float32)]
    with pytest.raises(SettingsError, match="never changes"):
        bridge_tokenizer(wrapped, still, num_bins=4)


def test_latents_that_are_no_numbers_name_the_plugin(
    wrapped: Wrapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bridged(wrapped, 4)
    broken = [np.full((4, 3), np.nan, dtype=np.float32)]
    monkeypatch.setattr(type(wrapped.tokenizer), "encode_latents", lambda self, images: broken)
    with pytest.raises(PluginError, match=r"'continuous' gave latents .* expected finite numbers"):
        made.encode(PICTURES[:1])
