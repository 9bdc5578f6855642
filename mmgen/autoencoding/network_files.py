"""A network in a folder: a file of settings beside one of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from mmgen.errors import PluginError

__all__ = ["NetworkFiles"]


@dataclass(frozen=True, slots=True)
class NetworkFiles:
    """What the two files of one kind of network are called."""

    kind: str
    """What is not in a folder without these files, for errors."""
    settings: str
    weights: str

    def save(self, directory: Path, network: nn.Module, stated: object) -> None:
        """Write weights and what is stated of them into an existing directory."""
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(state, directory / self.weights)
        text = json.dumps(stated, indent=1, ensure_ascii=False) + "\n"
        (directory / self.settings).write_text(text, encoding="utf-8")

    def stated(self, directory: Path) -> Any:
        """Return what `save` was told to state.

        Raises:
            PluginError: a file is missing.
        """
        for file in (self.settings, self.weights):
            if not (directory / file).is_file():
                raise PluginError(f"no {self.kind} in {directory}: {file} is missing")
        return json.loads((directory / self.settings).read_text(encoding="utf-8"))

    def origin(self, directory: Path) -> str:
        """Return what errors call the settings in a folder."""
        return f"the settings in {directory / self.settings}"

    def fill(self, directory: Path, network: nn.Module) -> None:
        """Give a network the weights of the folder, and make it ready for use.

        Raises:
            PluginError: the weights are those of a network of another shape.
        """
        try:
            network.load_state_dict(load_file(directory / self.weights), strict=True)
        except RuntimeError as error:
            raise PluginError(
                f"the weights in {directory} do not fit its settings: {error}"
            ) from error
        network.eval()
