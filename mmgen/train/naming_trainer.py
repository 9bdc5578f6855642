"""Trains a network that names pictures, for tokenizers whose first codes say what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mmgen.autoencoding.naming import NamingNetwork, NamingSettings
from mmgen.errors import DataError
from mmgen.train.naming_config import NamingTrainConfig
from mmgen.train.picture_trainer import AbstractPictureTask, train_on_pictures
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.training_pictures import Batch
from mmgen.visual_tokenizer import Resize

__all__ = ["NamingTask", "train_namer"]


def train_namer(config: NamingTrainConfig, *, progress: AbstractProgress | None = None) -> bool:
    """Train from the newest state, or from the start, and save to `config.output/namer`.

    Returns:
        Whether the run is complete; otherwise it was asked to stop, and can be resumed.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
        DataError: a picture has no name, or all have the same.
        PluginError: the settings name what there is not.
    """
    settings = NamingSettings.of(config.settings, "the settings of the network that names")
    names = _names(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = NamingNetwork(settings, names)
    task = NamingTask(network, config.side)
    return train_on_pictures(config, task, progress or SilentProgress())


class NamingTask(AbstractPictureTask):
    """Find the name of each picture among all names."""

    result: ClassVar[str] = "namer"
    network: NamingNetwork
    resize: Resize = "pad"
    needs_captions = True

    def __init__(self, network: NamingNetwork, side: int) -> None:
        self.network = network
        self.size = (side, side)
        self._accuracy = 0.0

    def loss(self, batch: Batch, progress: float) -> Tensor:
        naming = self.network(batch.images, batch.captions, progress)
        self._accuracy = naming.accuracy.item()
        loss: Tensor = naming.loss
        return loss

    def figures(self) -> dict[str, float]:
        return {"accuracy": self._accuracy}

    def save(self, directory: Path) -> None:
        self.network.save(directory)


def _names(config: NamingTrainConfig) -> list[str]:
    """Return every name that the sources give, in order."""
    names: set[str] = set()
    for number, item in enumerate(config.sources):
        source = item.source.open()
        for index in range(source.num_rows):
            captions = source.row(index).captions
            if not captions:
                raise DataError(
                    f"row {index} of source {number} has no name; name a column of names in "
                    "caption_columns, and leave out rows without one"
                )
            names.update(captions)
    if len(names) < 2:
        raise DataError(f"names are learned from pictures of 2 names or more, got {sorted(names)}")
    return sorted(names)
