"""The tokenizer `holistic`: what names pictures, codes of that, and a decoder for all codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mmgen.train.meaning_config import MeaningTrainConfig
from mmgen.train.naming_config import NamingTrainConfig
from mmgen.train.sources import WeightedSource
from mmgen.train.stage import Pipeline
from mmgen.train.tokenizer_config import TokenizerTrainConfig
from recipes.packs import PHOTOS, emoji_pictures, photo_pictures
from recipes.tokenizers import tokenizer_run

__all__ = ["Holistic", "holistic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holistic(Pipeline):
    """The stages of the tokenizer `holistic`."""

    namer: NamingTrainConfig
    """What a picture shows, as one of the concepts of emoji or the labels of photographs."""
    meaning: MeaningTrainConfig
    """Four codes of what the name leaves out."""
    visual_tokenizer: TokenizerTrainConfig
    """The decoder of codes of what is shown and of the codes of `ordered`."""


def holistic(
    *,
    data: Path,
    output: Path = Path("runs/holistic"),
    namer_minutes: float = 17.0,
    minutes: float = 15.0,
) -> Holistic:
    """Return the run of the tokenizer `holistic`, whose detail begins as `ordered` has it.

    Args:
        data: directory of the packs.
        output: directory of everything that the run writes.
        namer_minutes: of training the network that names pictures.
        minutes: of training the decoder.
    """
    emoji = replace(emoji_pictures(data, "train"), caption_columns=("concept",))
    photos = [replace(photo_pictures(data, name), caption_columns=("label",)) for name in PHOTOS]
    named = (
        WeightedSource(source=emoji, weight=0.9),
        *(WeightedSource(source=item, weight=0.1 / len(photos)) for item in photos),
    )
    namer, meaning = output / "namer_run" / "namer", output / "meaning_run" / "meaning"
    run = tokenizer_run(
        "holistic",
        data=data,
        output=output / "tokenizer_run",
        minutes=minutes,
        settings={"min_psnr": 15.0, "meaning": str(meaning)},
        start_from="ordered",
    )
    return Holistic(
        namer=NamingTrainConfig(
            sources=named,
            output=output / "namer_run",
            num_steps=100_000,
            max_minutes=namer_minutes,
            batch_size=128,
            caption_dropout=0.0,
            max_shift=0,
            lr=4e-3,
            warmup=0.15,
            weight_decay=0.05,
            ema_decay=0.99,
        ),
        meaning=MeaningTrainConfig(namer=namer, sources=named, output=output / "meaning_run"),
        visual_tokenizer=replace(run, ema_decay=0.99, perceptual=namer, perceptual_weight=0.3),
    )
