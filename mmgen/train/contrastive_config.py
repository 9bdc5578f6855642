"""The training of a teacher of pictures and words, as one frozen stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mmgen.errors import SettingsError
from mmgen.train.picture_config import AbstractPictureTrainConfig
from mmgen.train.progress import AbstractProgress

__all__ = ["ContrastiveTrainConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveTrainConfig(AbstractPictureTrainConfig):
    """Teach a network which words belong to which picture; it ends in `output/teacher`.

    Every picture of a batch is compared with the words of all, so large batches teach more.
    """

    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Fields of `ContrastiveSettings`; empty for its defaults."""
    side: int = 64
    """Height and width of the pictures in pixels, a multiple of 8."""

    def __post_init__(self) -> None:
        if self.side < 8 or self.side % 8:
            raise SettingsError(f"side must be a multiple of 8, got {self.side}")
        # Zero arguments would look for the class that `slots` has replaced.
        super(ContrastiveTrainConfig, self).__post_init__()

    @property
    def title(self) -> str:
        return "train a teacher of pictures and words"

    @property
    def is_finished(self) -> bool:
        from mmgen.train.contrastive_trainer import ContrastiveTask
        from mmgen.train.picture_trainer import is_picture_run_finished

        return is_picture_run_finished(self, ContrastiveTask.result)

    def run(self, progress: AbstractProgress) -> bool:
        from mmgen.train.contrastive_trainer import train_teacher

        return train_teacher(self, progress=progress)
