"""Another decoder for the same codes: the contract, training, and what belongs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmgen.errors import PluginError, SettingsError
from mmgen.plugins import load_visual_tokenizer, located_visual_tokenizer
from mmgen.testing import check, draw_picture
from mmgen.train.tokenizer_trainer import start_from
from mmgen.wrapping.confusions import count_confusions, write_confusions
from mmgen.wrapping.merged import merge_tokenizer
from mmgen.wrapping.redecoded import RedecodedTokenizer
from mmgen.wrapping.wrapper import load_wrapped

SMALL = {"decoder_widths": [8, 8, 8], "decoder_depths": [1, 1, 1]}
PICTURES = [draw_picture((64, 64), seed=seed) for seed in range(4)]


@pytest.fixture(scope="module")
def over_palette() -> RedecodedTokenizer:
    return RedecodedTokenizer.untrained({**SMALL, "tokenizer": "palette"}, seed=0)


def test_the_contract_is_kept(over_palette: RedecodedTokenizer) -> None:
    report = check(over_palette)
    assert report.is_passed, report.to_text()


def test_codes_are_those_of_the_wrapped_tokenizer(
    over_palette: RedecodedTokenizer, tmp_path: Path
) -> None:
    palette = load_visual_tokenizer("palette")
    assert over_palette.encode(PICTURES) == palette.encode(PICTURES)
    assert over_palette.wrapped_fingerprint == palette.fingerprint != over_palette.fingerprint
    over_palette.save(tmp_path)
    loaded = load_visual_tokenizer(*located_visual_tokenizer(str(tmp_path)))
    assert loaded.fingerprint == over_palette.fingerprint


def test_a_decoder_learns(fsq_folder: Path) -> None:
    made = RedecodedTokenizer.untrained({**SMALL, "tokenizer": "palette"}, seed=0)
    network = made.network().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    images = torch.from_numpy(np.stack(PICTURES)).permute(0, 3, 1, 2).contiguous()
    losses = []
    for _ in range(60):
        loss = (network(images).reconstruction - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    drawn = made.decode(made.encode(PICTURES))
    error = float(np.mean([(a - b) ** 2 for a, b in zip(drawn, PICTURES, strict=True)]))
    assert error == pytest.approx(losses[-1], rel=0.2)


def test_a_decoder_may_start_as_the_one_that_it_replaces(fsq_folder: Path) -> None:
    made = RedecodedTokenizer.untrained({**SMALL, "tokenizer": f"{fsq_folder}/"}, seed=5)
    taken, total = start_from(made, f"{fsq_folder}/")
    assert taken == total
    fsq = load_visual_tokenizer("fsq", fsq_folder)
    pictures = [draw_picture((16, 16), seed=seed) for seed in range(3)]
    codes = fsq.encode(pictures)
    for ours, theirs in zip(made.decode(codes), fsq.decode(codes), strict=True):
        assert np.abs(ours - theirs).max() < 1e-5


def test_confusions_are_met_in_training_only(tmp_path: Path) -> None:
    file = tmp_path / "confusions.safetensors"
    palette = load_visual_tokenizer("palette")
    codes = torch.from_numpy(np.stack([item.array for item in palette.encode(PICTURES)]))
    table = count_confusions(codes, (codes + 1) % 256, (256,))
    write_confusions(table, file, fingerprint=palette.fingerprint, model="m")
    settings: dict[str, object] = {**SMALL, "tokenizer": "palette"}
    plain = RedecodedTokenizer.untrained(settings, seed=0)
    settings |= {"perturbation": 0.5, "confusions": str(file)}
    made = RedecodedTokenizer.untrained(settings, seed=0)
    assert made.fingerprint == plain.fingerprint
    images = torch.from_numpy(np.stack(PICTURES)).permute(0, 3, 1, 2).contiguous()
    network = made.network()
    with torch.no_grad():
        calm = network.eval()(images)
        assert calm.reconstruction.equal(plain.network().eval()(images).reconstruction)
        torch.manual_seed(0)
        assert not network.train()(images).reconstruction.equal(calm.reconstruction)
    write_confusions(table, file, fingerprint="0" * 64, model="m")
    with pytest.raises(PluginError, match="draw them anew"):
        RedecodedTokenizer.untrained(settings, seed=0)


def test_what_cannot_be_redecoded_is_refused(continuous_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="must name the tokenizer whose codes are drawn"):
        RedecodedTokenizer.untrained(SMALL, seed=0)
    with pytest.raises(PluginError, match="no visual tokenizer named 'nowhere'"):
        RedecodedTokenizer.untrained({**SMALL, "tokenizer": "nowhere"}, seed=0)
    wrapped = load_wrapped("palette")
    merge_tokenizer(wrapped, wrapped.tokenizer.encode(PICTURES), num_merges=3).save(tmp_path)
    with pytest.raises(SettingsError, match="'merged' cannot be given another decoder"):
        RedecodedTokenizer.untrained({**SMALL, "tokenizer": str(tmp_path)}, seed=0)
