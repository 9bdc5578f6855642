"""A state is whole or absent, and is refused where it does not belong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mmgen.errors import CheckpointError, OutputError
from mmgen.train.state import (
    Counters,
    check_same_config,
    latest_state,
    load_decoder,
    read_state,
    restore_state,
    save_state,
    write_atomically,
)


def moved_network(seed: int) -> tuple[nn.Linear, torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    return network, optimizer


def save(directory: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    return save_state(
        directory,
        network=network,
        averaged={},
        optimizers=[optimizer],
        counters=Counters(step=3, elapsed=1.5, loader={"row": 7}),
        config={"a": 1},
        keep=1,
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    network, optimizer = moved_network(1)
    path = save(tmp_path, network, optimizer)
    other, other_optimizer = moved_network(2)
    counters = restore_state(
        path, network=other, averaged={}, optimizers=[other_optimizer], config={"a": 1}
    )
    assert counters == Counters(step=3, elapsed=1.5, loader={"row": 7})
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        expected, found = optimizer.state[one], other_optimizer.state[two]
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert {item.suffix for item in path.iterdir()} == {".safetensors", ".json"}


def test_an_unfinished_state_does_not_count(tmp_path: Path) -> None:
    network, optimizer = moved_network(1)
    path = save(tmp_path, network, optimizer)
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / ".step-00000010.tmp").mkdir()
    assert latest_state(tmp_path) == path
    assert latest_state(tmp_path / "nowhere") is None


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    network, optimizer = moved_network(1)
    averaged = {name: value.detach() + 1 for name, value in network.named_parameters()}
    path = save_state(
        tmp_path,
        network=network,
        averaged=averaged,
        optimizers=[optimizer],
        counters=Counters(step=3, elapsed=0.0, loader={}),
        config={},
        keep=1,
    )
    other, _ = moved_network(2)
    assert load_decoder(path, other) == 3
    assert torch.equal(other.bias, averaged["bias"])


def test_other_weights_are_refused(tmp_path: Path) -> None:
    network, optimizer = moved_network(1)
    path = save(tmp_path, network, optimizer)
    with pytest.raises(CheckpointError, match="other weights than this decoder"):
        load_decoder(path, nn.Linear(3, 2, bias=False))


def test_numbers_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    network, optimizer = moved_network(1)
    path = save(tmp_path, network, optimizer)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99, expected 1"):
        read_state(path)
    (path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(path)


def test_only_settings_that_matter_must_be_equal(tmp_path: Path) -> None:
    check_same_config({"num_steps": 1, "export": {"dtype": "a"}}, {"num_steps": 2}, tmp_path)
    with pytest.raises(CheckpointError, match="seed was 1 and is 2"):
        check_same_config({"seed": 1}, {"seed": 2}, tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    network, optimizer = moved_network(1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot save the run's state"):
        save(tmp_path / "file", network, optimizer)
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "x.json", "{}")
