"""The shipped model, from pictures to a checkpoint: fsq, a BPE, shards, a small decoder.

It draws emoji from words and says what pictures show. `data` is a directory of three packs:
`emoji/emoji-64.parquet` with captioned 64x64 pictures, `photos/photos-*.parquet` with labelled
photographs, and `stories/stories.parquet` with texts to learn English from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mmgen.checkpoint import GenerationDefaults, SamplingDefaults
from mmgen.data.augment import Augmentation
from mmgen.data.prepare import PrepareConfig
from mmgen.model import DecoderConfig
from mmgen.plugins import load_model_path
from mmgen.train.config import (
    DataConfig,
    ExportConfig,
    OptimConfig,
    ShardSource,
    TokenizerSource,
    TrainConfig,
)
from mmgen.train.sources import ParquetConfig, TextConfig, WeightedSource
from mmgen.train.stage import Pipeline
from mmgen.train.stages import PrepareJob, PrepareStage, TextTokenizerStage
from mmgen.train.tokenizer_config import TokenizerTrainConfig
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary

__all__ = ["Mini", "MiniMore", "emoji_pictures", "mini", "mini_more", "tokenizer_pictures"]

_NUM_TEXT_IDS = 2048
_NUM_CODES = 4375
_ROW_LENGTH = 256
_PHOTOS = ("clothing", "flowers", "grocery", "trash")
_AUGMENTATION = Augmentation(
    share=0.85, max_shift=0.06, max_zoom=0.1, max_brightness=0.08, max_hue=0.02
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mini(Pipeline):
    """The stages of the shipped model."""

    visual_tokenizer: TokenizerTrainConfig
    """Pictures to 64 codes of 4,375, learned from emoji and some photographs."""
    text_tokenizer: TextTokenizerStage
    """Words of captions, questions and stories."""
    prepare: PrepareStage
    """Pictures and words to shards."""
    decoder: TrainConfig
    """The decoder."""


def mini(
    *,
    data: Path,
    output: Path = Path("runs/mini"),
    tokenizer_minutes: float = 34.0,
    decoder_minutes: float = 77.0,
) -> Mini:
    """Return the run of the shipped model; the clock ends its trainings.

    Args:
        data: directory of the packs.
        output: directory of everything that the run writes.
        tokenizer_minutes: of training the visual tokenizer.
        decoder_minutes: of training the decoder; more gives a better model.
    """
    text, shards = output / "text", output / "shards"
    fsq = TokenizerSource(name="fsq", path=output / "fsq" / "tokenizer")
    emoji, stories = emoji_pictures(data, "train"), _stories(data)
    return Mini(
        visual_tokenizer=TokenizerTrainConfig(
            tokenizer="fsq",
            settings={"min_psnr": 20.0},
            sources=tokenizer_pictures(data),
            output=output / "fsq",
            num_steps=100_000,
            max_minutes=tokenizer_minutes,
        ),
        text_tokenizer=TextTokenizerStage(
            num_ids=_NUM_TEXT_IDS, sources=(emoji, stories), output=text
        ),
        prepare=PrepareStage(
            text_tokenizer=text,
            visual_tokenizers=(fsq,),
            jobs=_jobs(data, emoji, stories),
            output=shards,
        ),
        decoder=TrainConfig(
            decoder=DecoderConfig(
                vocab_size=_vocab_size(),
                hidden_size=256,
                num_layers=6,
                num_heads=4,
                num_kv_heads=2,
                intermediate_size=1024,
                context_length=512,
            ),
            data=DataConfig(
                shards=_mixture(shards, draw=0.47, describe=0.44, stories=0.04, photos=0.05),
                eval_shards=(shards / "emoji-val-style",),
                eval_batches=12,
                row_length=_ROW_LENGTH,
                rows_per_batch=10,
            ),
            optim=OptimConfig(lr=3e-3, warmup_steps=60, decay="wsd", decay_share=0.4),
            export=ExportConfig(
                text_tokenizer=text,
                vocabulary=shards / "vocabulary.json",
                visual_tokenizers=(fsq,),
                generation=GenerationDefaults(
                    tokenizer="fsq",
                    text=SamplingDefaults(temperature=0.0),
                    image=SamplingDefaults(temperature=0.8),
                    guidance_scale=3.0,
                    trained_length=_ROW_LENGTH,
                ),
            ),
            output=output / "decoder",
            num_steps=200_000,
            max_minutes=decoder_minutes,
            image_loss_weight=0.5,
            ema_decay=0.997,
            eval_every=250,
            sample_every=500,
            sample_prompts=(
                "a red apple",
                "a dog, Noto style",
                "a smiling face",
                "a blue car",
                "a heart, Twemoji style",
                "the flag of France",
                "a cat in Fluent 3D style",
                "a slice of pizza",
            ),
            checkpoint_every=150,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniMore(Pipeline):
    """The stages of training the shipped model further."""

    prepare: PrepareStage
    """Pictures and words to shards, with the shipped tokenizers."""
    decoder: TrainConfig
    """The decoder, from the shipped weights on."""


def mini_more(
    *, data: Path, output: Path = Path("runs/mini-more"), decoder_minutes: float = 120.0
) -> MiniMore:
    """Return a run that trains the installed `mini` further, with its own tokenizers.

    The shipped weights are those of `mini` after one such run. The rate falls all along, which is
    when a decoder of this size learns most.

    Args:
        data: directory of the packs.
        output: directory of everything that the run writes.
        decoder_minutes: of training.
    """
    run = mini(data=data, output=output, decoder_minutes=decoder_minutes)
    text = load_model_path("mini")
    fsq = TokenizerSource(name="fsq")
    return MiniMore(
        prepare=replace(run.prepare, text_tokenizer=text, visual_tokenizers=(fsq,)),
        decoder=replace(
            run.decoder,
            start_from="mini",
            data=replace(
                run.decoder.data,
                shards=_mixture(
                    output / "shards", draw=0.52, describe=0.42, stories=0.03, photos=0.03
                ),
            ),
            optim=replace(run.decoder.optim, lr=2e-3, decay_share=1.0),
            seed=1,
            export=replace(run.decoder.export, text_tokenizer=text, visual_tokenizers=(fsq,)),
        ),
    )


def _vocab_size() -> int:
    vocabulary = Vocabulary.build(num_text_ids=_NUM_TEXT_IDS, text_fingerprint="")
    return vocabulary.extend("fsq", codebook_sizes=(_NUM_CODES,), layouts=(Grid(8, 8),)).size


def emoji_pictures(data: Path, split: str) -> ParquetConfig:
    """Return the emoji of a split, with their captions and attributes."""
    return ParquetConfig(
        path=data / "emoji" / "emoji-64.parquet",
        picture_column="webp64",
        caption_columns=("caption", "caption_short"),
        attributes={
            "name": "name",
            "phrase": "phrase",
            "style": "style_phrase",
            "visual": "visual",
            "kind": "group",
            "subkind": "subgroup",
            "tone": "tone_name",
        },
        filters={"split": (split,)},
        # The skin tones of one thing in one style count together as one picture.
        balance=("style", "base_hexcode"),
    )


def tokenizer_pictures(data: Path) -> tuple[WeightedSource, ...]:
    """Return the emoji of the train split and some photographs: 85 and 15 of 100 pictures."""
    return (
        WeightedSource(source=emoji_pictures(data, "train"), weight=0.85),
        *(
            WeightedSource(source=_photos(data, name), weight=0.15 / len(_PHOTOS))
            for name in _PHOTOS
        ),
    )


def _photos(data: Path, name: str) -> ParquetConfig:
    return ParquetConfig(
        path=data / "photos" / f"photos-{name}.parquet",
        picture_column="webp",
        caption_columns=("caption",),
        attributes={"name": "label", "kind": "coarse_label"},
        constants={"style": "photo"},
        filters={"split": ("train",)},
    )


def _stories(data: Path) -> TextConfig:
    return TextConfig(
        path=data / "stories" / "stories.parquet",
        filters={"split": ("train",)},
        remove=r"<\|image:[^|]*\|>",
    )


def _jobs(data: Path, emoji: ParquetConfig, stories: TextConfig) -> tuple[PrepareJob, ...]:
    described = PrepareConfig(
        num_draw=0, num_describe=1, context_length=_ROW_LENGTH, augmentation=_AUGMENTATION
    )
    return (
        PrepareJob(
            name="emoji-draw",
            source=emoji,
            settings=PrepareConfig(
                num_draw=5, num_describe=0, num_mixed=1, context_length=_ROW_LENGTH
            ),
        ),
        PrepareJob(
            name="emoji-describe",
            source=emoji,
            settings=PrepareConfig(
                num_draw=0,
                num_describe=5,
                context_length=_ROW_LENGTH,
                augmentation=_AUGMENTATION,
            ),
        ),
        PrepareJob(
            name="emoji-val-style",
            source=emoji_pictures(data, "val_style"),
            settings=PrepareConfig(num_draw=1, num_describe=1, context_length=_ROW_LENGTH),
        ),
        PrepareJob(
            name="stories",
            source=stories,
            settings=PrepareConfig(context_length=_ROW_LENGTH, limit=300),
        ),
        *(
            PrepareJob(name=f"photos-{name}", source=_photos(data, name), settings=described)
            for name in _PHOTOS
        ),
    )


def _mixture(
    shards: Path, *, draw: float, describe: float, stories: float, photos: float
) -> tuple[ShardSource, ...]:
    return (
        ShardSource(path=shards / "emoji-draw", weight=draw),
        ShardSource(path=shards / "emoji-describe", weight=describe),
        ShardSource(path=shards / "stories", weight=stories),
        *(
            ShardSource(path=shards / f"photos-{name}", weight=photos / len(_PHOTOS))
            for name in _PHOTOS
        ),
    )
