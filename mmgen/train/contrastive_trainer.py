"""Trains a teacher of pictures and words, for tokenizers whose codes should say what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mmgen.autoencoding.contrastive import ContrastiveNetwork, ContrastiveSettings
from mmgen.train.contrastive_config import ContrastiveTrainConfig
from mmgen.train.picture_trainer import AbstractPictureTask, train_on_pictures
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.training_pictures import Batch
from mmgen.visual_tokenizer import Resize

__all__ = ["ContrastiveTask", "train_teacher"]


def train_teacher(
    config: ContrastiveTrainConfig, *, progress: AbstractProgress | None = None
) -> bool:
    """Train from the newest state, or from the start, and save to `config.output/teacher`.

    Returns:
        Whether the run is complete; otherwise it was asked to stop, and can be resumed.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
        DataError: no picture has a caption.
        PluginError: the settings name what there is not.
    """
    settings = ContrastiveSettings.of(config.settings, "the settings of the teacher")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = ContrastiveNetwork(settings)
    task = ContrastiveTask(network, config.side)
    return train_on_pictures(config, task, progress or SilentProgress())


class ContrastiveTask(AbstractPictureTask):
    """Find for each picture of a batch the words that belong to it."""

    result: ClassVar[str] = "teacher"
    network: ContrastiveNetwork
    resize: Resize = "pad"
    needs_captions = True

    def __init__(self, network: ContrastiveNetwork, side: int) -> None:
        self.network = network
        self.size = (side, side)
        self._accuracy = 0.0

    def loss(self, batch: Batch, progress: float) -> Tensor:
        contrast = self.network(batch.images, batch.captions)
        self._accuracy = contrast.accuracy.item()
        loss: Tensor = contrast.loss
        return loss

    def figures(self) -> dict[str, float]:
        return {"accuracy": self._accuracy}

    def save(self, directory: Path) -> None:
        self.network.save(directory)
