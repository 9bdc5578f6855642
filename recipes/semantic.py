"""The tokenizer `semantic`: a teacher of pictures and words, then codes that say what it sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mmgen.train.contrastive_config import ContrastiveTrainConfig
from mmgen.train.sources import WeightedSource
from mmgen.train.stage import Pipeline
from mmgen.train.tokenizer_config import TokenizerTrainConfig
from recipes.packs import emoji_pictures
from recipes.tokenizers import tokenizer_run

__all__ = ["Semantic", "semantic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantic(Pipeline):
    """The stages of the tokenizer `semantic`."""

    teacher: ContrastiveTrainConfig
    """What a picture shows, from names and keywords."""
    visual_tokenizer: TokenizerTrainConfig
    """Two codes at each place: what is there, and how it looks."""


def semantic(
    *,
    data: Path,
    output: Path = Path("runs/semantic"),
    teacher_minutes: float = 64.0,
    minutes: float = 6.0,
) -> Semantic:
    """Return the run of the tokenizer `semantic`.

    Args:
        data: directory of the packs.
        output: directory of everything that the run writes.
        teacher_minutes: of training the teacher, which is not part of the tokenizer.
        minutes: of training the tokenizer.
    """
    # Names and keywords say what a picture shows; a caption would also say in which style.
    named = replace(emoji_pictures(data, "train"), caption_columns=("phrase", "keywords"))
    run = tokenizer_run(
        "semantic",
        data=data,
        output=output / "tokenizer_run",
        minutes=minutes,
        settings={"min_psnr": 20.0, "teacher": str(output / "teacher_run" / "teacher")},
        # Both halves begin trained: the one as fsq, the other as the teacher sees.
        lr=3e-4,
    )
    return Semantic(
        teacher=ContrastiveTrainConfig(
            sources=(WeightedSource(source=named),),
            output=output / "teacher_run",
            num_steps=100_000,
            max_minutes=teacher_minutes,
            batch_size=128,
            caption_dropout=0.0,
            lr=6e-4,
            ema_decay=0.99,
            weight_decay=0.05,
        ),
        visual_tokenizer=replace(run, ema_decay=0.99),
    )
