"""The network that names pictures: its tower, its loss, that it learns, its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.autoencoding.naming import SMOOTHING, MeaningTower, NamingNetwork, NamingSettings
from mmgen.errors import PluginError

SMALL = NamingSettings(side=16, first_side=8, widths=(8, 12, 16))
COLOURS = {
    "red": (0.9, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.1, 0.1, 0.9),
    "white": (0.95, 0.95, 0.95),
}


def network(settings: NamingSettings = SMALL) -> NamingNetwork:
    torch.manual_seed(0)
    return NamingNetwork(settings, list(COLOURS))


def fields(side: int = 16) -> torch.Tensor:
    values = torch.tensor(list(COLOURS.values()))
    return values[:, :, None, None].expand(-1, -1, side, side).contiguous()


def pictures(count: int, side: int) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_the_tower_halves_and_looks_at_every_size_alike() -> None:
    tower = MeaningTower(SMALL).eval()
    with torch.no_grad():
        for images in (pictures(2, 16), torch.rand(2, 3, 24, 40)):
            assert [tuple(plane.shape) for plane in tower.planes(images)] == [
                (2, 8, 8, 8),
                (2, 12, 4, 4),
                (2, 16, 2, 2),
            ]
            last = tower.planes(images)[-1]
            assert torch.allclose(tower(images), last.mean(dim=(2, 3)), atol=1e-6)
        assert tower.planes(pictures(2, 16), side=8)[0].shape == (2, 8, 4, 4)
        assert tower(pictures(2, 16), side=8).shape == (2, 16)
        # A field of one colour is the same field at any size.
        assert torch.allclose(tower(fields(40)), tower(fields()), atol=1e-5)


def test_the_loss_is_that_of_smoothed_names() -> None:
    namer = network().eval()
    images, names = pictures(4, 16), ["blue", "red", "blue", "white"]
    found = namer(images, names, 1.0)
    logits, right = namer.named(namer.tower(images)), torch.tensor([2, 0, 2, 3])
    assert torch.equal(namer.ids_of(names), right)
    nats = -logits.log_softmax(dim=1)
    of_name = nats[torch.arange(4), right]
    expected = (1 - SMOOTHING) * of_name + SMOOTHING * nats.mean(dim=1)
    assert torch.allclose(found.loss, expected.mean(), atol=1e-5)
    assert found.accuracy == (logits.argmax(dim=1) == right).float().mean()


def test_the_first_part_of_training_looks_at_fewer_pixels() -> None:
    settings = replace(SMALL, first_share=0.5)
    namer, coarse = network(settings).eval(), network(replace(settings, side=8)).eval()
    images, names = pictures(4, 16), list(COLOURS)
    early, late = namer(images, names, 0.49).loss, namer(images, names, 0.5).loss
    assert early == coarse(images, names, 1.0).loss != late


def test_it_learns_what_is_called_what() -> None:
    # Recolouring would make a red field a green one, so the pictures are given as they are.
    namer = network().eval()
    optimizer = torch.optim.Adam(namer.parameters(), lr=1e-2)
    images, names = fields(), list(COLOURS)
    before = namer(images, names, 1.0).loss
    for _ in range(40):
        loss = namer(images, names, 1.0).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = namer(images, names, 1.0)
    assert found.accuracy == 1 and found.loss < 0.7 * before


def test_training_changes_pictures_first() -> None:
    namer = network()
    images, names = pictures(4, 16), list(COLOURS)
    torch.manual_seed(1)
    assert namer.train()(images, names, 1.0).loss != namer(images, names, 1.0).loss
    assert namer.eval()(images, names, 1.0).loss == namer(images, names, 1.0).loss


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    namer = network().train()
    # What normalises is not as it began.
    namer(pictures(4, 16), list(COLOURS), 1.0)
    namer.eval().save(tmp_path)
    loaded = NamingNetwork.load(tmp_path)
    assert loaded.settings == SMALL and loaded.names == tuple(COLOURS) and not loaded.training
    theirs = loaded.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in namer.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded.tower(fields()), namer.tower(fields()))


def test_names_of_every_alphabet_are_kept(tmp_path: Path) -> None:
    names = ["fleur étoilée", "花", '"quoted"']
    NamingNetwork(SMALL, names).save(tmp_path)
    assert NamingNetwork.load(tmp_path).names == tuple(names)


def test_files_that_are_missing_or_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"namer_config\.json is missing"):
        NamingNetwork.load(tmp_path)
    network().save(tmp_path)
    file = tmp_path / "namer_config.json"
    stated = json.loads(file.read_text(encoding="utf-8"))
    for change, message in (
        ({"names": ["red", "green"]}, "do not fit its settings"),
        ({"settings": {**stated["settings"], "widths": [8, 12]}}, "do not fit its settings"),
        ({"settings": {"depth": 2}}, "'depth'"),
    ):
        file.write_text(json.dumps({**stated, **change}), encoding="utf-8")
        with pytest.raises(PluginError, match=message):
            NamingNetwork.load(tmp_path)
    (tmp_path / "namer.safetensors").unlink()
    with pytest.raises(PluginError, match=r"namer\.safetensors is missing"):
        NamingNetwork.load(tmp_path)


@pytest.mark.parametrize("names", [[], ["alone"]])
def test_one_name_is_none(names: list[str]) -> None:
    with pytest.raises(PluginError, match="2 names or more"):
        NamingNetwork(SMALL, names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": [8, 0]}, "must be positive"),
        ({"side": 0}, "must be positive"),
        ({"widths": [8]}, "two widths or more"),
        ({"widths": []}, "two widths or more"),
        ({"first_side": 0}, "must be positive"),
        ({"first_share": 1.5}, "first_share must lie in 0..1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        NamingSettings.of(settings, "the settings")
