"""The training of a visual tokenizer, as one frozen stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mmgen.train.picture_config import AbstractPictureTrainConfig
from mmgen.train.progress import AbstractProgress

__all__ = ["TokenizerTrainConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerTrainConfig(AbstractPictureTrainConfig):
    """One complete training of a tokenizer's network; it ends in `output/tokenizer`."""

    tokenizer: str
    """The plugin, by name."""
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """What the plugin's `untrained` takes; empty for its own defaults."""
    start_from: str | None = None
    """A tokenizer, by name or as a folder that `save` wrote: every weight whose name and shape it
    shares is taken from there. The rest starts fresh."""

    @property
    def title(self) -> str:
        return f"train the visual tokenizer {self.tokenizer}"

    @property
    def is_finished(self) -> bool:
        from mmgen.train.picture_trainer import is_picture_run_finished
        from mmgen.train.tokenizer_trainer import TokenizerTask

        return is_picture_run_finished(self, TokenizerTask.result)

    def run(self, progress: AbstractProgress) -> bool:
        from mmgen.train.tokenizer_trainer import train_tokenizer

        return train_tokenizer(self, progress=progress)
