"""The training of a network that names pictures, as one frozen stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mmgen.errors import SettingsError
from mmgen.train.picture_config import AbstractPictureTrainConfig
from mmgen.train.progress import AbstractProgress

__all__ = ["NamingTrainConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamingTrainConfig(AbstractPictureTrainConfig):
    """Teach a network the names of pictures; it ends in `output/namer`.

    The captions of the sources are the names: each different one is a class of its own.
    """

    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Fields of `NamingSettings`; empty for its defaults."""
    side: int = 64
    """Height and width in pixels of the pictures as they are held in memory."""
    caption_dropout: float = 0.0
    """Nothing else means anything here: a caption is what is to be found."""

    def __post_init__(self) -> None:
        if self.side < 8:
            raise SettingsError(f"side must be 8 or more, got {self.side}")
        if self.caption_dropout:
            raise SettingsError(
                f"caption_dropout must be 0 where captions are names, got {self.caption_dropout}"
            )
        # Zero arguments would look for the class that `slots` has replaced.
        super(NamingTrainConfig, self).__post_init__()

    @property
    def title(self) -> str:
        return "train a network that names pictures"

    @property
    def is_finished(self) -> bool:
        from mmgen.train.naming_trainer import NamingTask
        from mmgen.train.picture_trainer import is_picture_run_finished

        return is_picture_run_finished(self, NamingTask.result)

    def run(self, progress: AbstractProgress) -> bool:
        from mmgen.train.naming_trainer import train_namer

        return train_namer(self, progress=progress)
