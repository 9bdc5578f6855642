"""Saving a run and continuing it: weights, optimizers, data position, step and elapsed time.

A state is a directory of safetensors and JSON that appears by one rename, so that it is whole or
absent whenever the process dies. Every random act of training is a function of a seed and of the
numbers kept here, so there are no generator states to keep.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmgen.errors import CheckpointError, OutputError
from mmgen.train.config import FREE_ON_RESUME
from mmgen.train.overrides import Plain, differences

__all__ = [
    "Counters",
    "check_same_config",
    "latest_state",
    "load_decoder",
    "read_state",
    "restore_state",
    "save_state",
    "write_atomically",
]

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Where a run stands."""

    step: int
    """Steps done."""
    elapsed: float
    """Seconds spent over all resumptions."""
    loader: Mapping[str, Any]
    """The data position."""


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def latest_state(directory: Path) -> Path | None:
    """Return the newest whole state in a run's `state/`, if any."""
    found = [path for path in directory.glob("step-*") if (path / "state.json").is_file()]
    return max(found, key=lambda path: path.name, default=None)


def save_state(
    directory: Path,
    *,
    network: nn.Module,
    averaged: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    counters: Counters,
    config: Plain,
    keep: int,
) -> Path:
    """Write `directory/step-N`, drop all but the newest `keep`, and return its path."""
    final = directory / f"step-{counters.step:08d}"
    temporary = directory / f".{final.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _save_tensors(_learned(network), temporary / "weights.safetensors")
        _save_tensors(averaged, temporary / "averaged.safetensors")
        _save_tensors(_moments(network, optimizers), temporary / "optimizer.safetensors")
        state = {
            "format": _FORMAT,
            "step": counters.step,
            "elapsed": counters.elapsed,
            "loader": counters.loader,
            "config": config,
        }
        write_atomically(temporary / "state.json", json.dumps(state, indent=1) + "\n")
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OutputError(f"cannot save the run's state to {final}: {error}") from error
    for old in sorted(directory.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return final


def check_same_config(stored: Plain, config: Plain, path: Path) -> None:
    """Refuse to continue a run with settings that would have made another one of it."""
    changed = {
        name: values
        for name, values in differences(stored, config).items()
        if not any(name == free or name.startswith(f"{free}.") for free in FREE_ON_RESUME)
    }
    if changed:
        listed = "; ".join(f"{name} was {old} and is {new}" for name, (old, new) in changed.items())
        raise CheckpointError(
            f"{path} was trained with other settings: {listed}. "
            "Use the former values, or another output to start anew"
        )


def restore_state(
    path: Path,
    *,
    network: nn.Module,
    averaged: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    config: Plain,
) -> Counters:
    """Load a state into the network, its average and the optimizers."""
    state = read_state(path)
    check_same_config(state["config"], config, path)
    _copy(_load_tensors(path / "weights.safetensors"), _learned(network), path)
    _copy(_load_tensors(path / "averaged.safetensors"), averaged, path)
    moments = _load_tensors(path / "optimizer.safetensors")
    for optimizer in optimizers:
        for parameter, name in _names(network, optimizer):
            prefix = f"{name}:"
            found = {
                key.removeprefix(prefix): value
                for key, value in moments.items()
                if key.startswith(prefix)
            }
            # The count of steps stays where it was. The rest lies in memory as the parameter does:
            # fused optimizers walk both in storage order.
            optimizer.state[parameter] = {
                key: value if value.shape != parameter.shape else _placed_like(value, parameter)
                for key, value in found.items()
            }
    return Counters(step=state["step"], elapsed=state["elapsed"], loader=state["loader"])


def _placed_like(value: Tensor, parameter: Tensor) -> Tensor:
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _learned(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and what layers keep of what they saw, each once, to be read or written."""
    kept = network.state_dict(keep_vars=True).keys()
    buffers = {name: value for name, value in network.named_buffers() if name in kept}
    return {**dict(network.named_parameters()), **buffers}


def load_decoder(path: Path, network: nn.Module) -> int:
    """Load the weights to use, the averaged ones if there are any; return the step."""
    step: int = read_state(path)["step"]
    averaged = _load_tensors(path / "averaged.safetensors")
    tensors = averaged or _load_tensors(path / "weights.safetensors")
    _copy(tensors, dict(network.named_parameters()), path)
    return step


def read_state(path: Path) -> dict[str, Any]:
    """Return the numbers and the config of a state."""
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        stored = state["format"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path / 'state.json'} cannot be read ({error}); delete {path} to fall back to an "
            "older state or to start anew"
        ) from error
    if stored != _FORMAT:
        raise CheckpointError(f"{path} has state format {stored}, expected {_FORMAT}")
    return state


def _names(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[tuple[nn.Parameter, str]]:
    names = {parameter: name for name, parameter in network.named_parameters()}
    return [
        (parameter, names[parameter])
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def _moments(network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{name}:{key}": value
        for optimizer in optimizers
        for parameter, name in _names(network, optimizer)
        for key, value in optimizer.state[parameter].items()
    }


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); delete {path.parent} to fall back to an older "
            "state or to start anew"
        ) from error


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path) -> None:
    if source.keys() != target.keys():
        odd = sorted(source.keys() ^ target.keys())
        raise CheckpointError(f"{path} holds other weights than this decoder has: {odd[:5]}")
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])
