"""The plugin itself, and where a network that names pictures comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from torch import Tensor

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
        assert isinstance(network, HolisticNetwork)
        super().__init__(replace(settings, meaning=""), network, fingerprint)
        self._holistic_network = network

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        """Return a tokenizer whose first codes are those of `settings.meaning`.

        Raises:
            PluginError: no network is named, or it is of another shape.
        """
        config = HolisticSettings.of(settings, "the settings given for training")
        if not config.meaning:
            raise PluginError(
                "holistic has its codes of what is shown from elsewhere: set settings.meaning to "
                "the folder of a network that `mmgen train holistic` left"
            )
        meaning = MeaningNetwork.load(Path(config.meaning))
        _check_shape(config, meaning)
        tokenizer = super().untrained(settings, seed=seed)
        network = tokenizer.network()
        assert isinstance(network, HolisticNetwork)
        network.take(meaning)
        return tokenizer

    def begin_training(self, pictures: Tensor, captions: Sequence[str] = ()) -> None:
        network = self._holistic_network
        if not network.principal.is_fitted:
            network.principal.fit(pictures, network.quantizer.scalars)

    @classmethod
    def build(cls, settings: LearnedSettings) -> AbstractAutoencoder:
        assert isinstance(settings, HolisticSettings)
        return HolisticNetwork(settings)


def _check_shape(config: HolisticSettings, meaning: MeaningNetwork) -> None:
    """Raise PluginError unless the network is of the shape that the settings have."""
    namer = meaning.namer
    found = {
        "tower_side": namer.settings.side,
        "tower_widths": namer.settings.widths,
        "num_names": len(namer.names),
        "levels": meaning.settings.levels,
        "num_meanings": meaning.settings.num_codes,
        "coder_width": meaning.settings.coder_width,
    }
    wrong = [name for name, value in found.items() if getattr(config, name) != value]
    if wrong:
        raise PluginError(
            f"the network in {config.meaning} does not fit the settings: "
            + ", ".join(f"{name} is {found[name]}, not {getattr(config, name)}" for name in wrong)
            + "; set these as they are there"
        )
