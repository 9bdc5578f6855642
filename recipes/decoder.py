"""Another decoder for the codes of a tokenizer, trained after it and after a model that draws them.

First the model's confusions are counted: which code it draws in the place of which. Then a decoder
learns to draw pictures from their codes, a share of them exchanged as the model would. It starts as
the tokenizer's own decoder where the two have the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmgen.train.confusions import CONFUSIONS_FILE, ConfusionStage
from mmgen.train.stage import Pipeline
from mmgen.train.tokenizer_config import TokenizerTrainConfig
from recipes.packs import emoji_pictures
from recipes.tokenizers import tokenizer_run

__all__ = ["Decoder", "decoder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder(Pipeline):
    """The stages of the decoder run."""

    confusions: ConfusionStage
    """What the model draws in the place of each code."""
    decoder: TokenizerTrainConfig
    """The decoder."""


def decoder(
    *,
    data: Path,
    model: str,
    output: Path = Path("runs/decoder"),
    tokenizer: str = "fsq",
    minutes: float = 8.0,
    perturbation: float = 0.2,
) -> Decoder:
    """Return the run; `mmgen models redecode MODEL output/decoder/tokenizer` puts it to use.

    Args:
        data: directory of the packs.
        model: a checkpoint that draws the codes, by name or folder.
        output: directory of everything that the run writes.
        tokenizer: whose codes are drawn, by name or folder: one of grids.
        minutes: of training the decoder.
        perturbation: share of the codes that are exchanged.
    """
    counted = output / "confusions"
    return Decoder(
        confusions=ConfusionStage(
            model=model, source=emoji_pictures(data, "train"), output=counted
        ),
        decoder=tokenizer_run(
            "redecoded",
            data=data,
            output=output / "decoder",
            minutes=minutes,
            settings={
                "tokenizer": tokenizer,
                "perturbation": perturbation,
                "confusions": str(counted / CONFUSIONS_FILE),
            },
            start_from=tokenizer,
        ),
    )
