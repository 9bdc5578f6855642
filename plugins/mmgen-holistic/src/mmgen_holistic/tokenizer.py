"""The plugin itself, and where learned codes of meaning come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from mmgen.autoencoding import (
    AbstractAutoencoder,
    AbstractSequenceTokenizer,
    LearnedSettings,
    MeaningNetwork,
    SequenceSettings,
)
from mmgen.errors import PluginError
from mmgen_holistic.network import HolisticNetwork, HolisticSettings

__all__ = ["HolisticTokenizer"]


class HolisticTokenizer(AbstractSequenceTokenizer):
    """Codes of what is shown, then codes of how it looks, coarse to fine; any prefix decodes."""

    name: ClassVar[str] = "holistic"
    settings_type: ClassVar[type[SequenceSettings]] = HolisticSettings
    shipped: ClassVar[Path] = Path(__file__).parent / "weights"

    def __init__(
        self, settings: LearnedSettings, network: AbstractAutoencoder, fingerprint: str | None
    ) -> None:
        assert isinstance(settings, HolisticSettings)
        super().__init__(replace(settings, meaning=""), network, fingerprint)

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        """Return a tokenizer whose meanings are those of `settings.meaning`.

        Raises:
            PluginError: no codes are named, or they are of another shape.
        """
        config = HolisticSettings.of(settings, "the settings given for training")
        if not config.meaning:
            raise PluginError(
                "holistic takes its first codes from elsewhere: set settings.meaning to the "
                "folder of those that `mmgen train holistic` learned"
            )
        meaning = MeaningNetwork.load(Path(config.meaning))
        _check_shape(config, meaning)
        tokenizer = super().untrained(settings, seed=seed)
        network = tokenizer.network()
        assert isinstance(network, HolisticNetwork)
        network.take(meaning)
        return tokenizer

    @classmethod
    def build(cls, settings: LearnedSettings) -> AbstractAutoencoder:
        assert isinstance(settings, HolisticSettings)
        return HolisticNetwork(settings)


def _check_shape(config: HolisticSettings, meaning: MeaningNetwork) -> None:
    """Raise PluginError unless tower and codes are of the shape that the settings have."""
    namer, coding = meaning.namer.settings, meaning.settings
    found = {
        "tower_side": namer.side,
        "tower_widths": namer.widths,
        "levels": coding.levels,
        "num_meanings": coding.num_codes,
        "coder_width": coding.coder_width,
    }
    wrong = [name for name, value in found.items() if getattr(config, name) != value]
    if wrong:
        raise PluginError(
            f"the codes of meaning in {config.meaning} do not fit the settings: "
            + ", ".join(f"{name} is {found[name]}, not {getattr(config, name)}" for name in wrong)
            + "; set these as they are there"
        )
