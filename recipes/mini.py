"""The shipped model, from pictures to a checkpoint: holistic, a BPE, shards, a small decoder.

It draws emoji from words and says what pictures show. `data` is a directory of three packs, which
`recipes.packs` describes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mmgen.checkpoint import GenerationDefaults, SamplingDefaults
from mmgen.data.augment import Augmentation
from mmgen.data.mixing import Mixing
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
from mmgen.train.sources import ParquetConfig, TextConfig
from mmgen.train.stage import Pipeline
from mmgen.train.stages import PrepareJob, PrepareStage, TextTokenizerStage
from mmgen.visual_tokenizer import Ordered
from mmgen.vocabulary import Vocabulary
from recipes.holistic import Holistic, holistic
from recipes.packs import PHOTOS, emoji_pictures, photo_pictures, story_texts

__all__ = ["Mini", "MiniMore", "mini", "mini_more"]

_NUM_TEXT_IDS = 4096
_NUM_CODES = 6017
_LENGTH = 21
_ROW_LENGTH = 256
_AUGMENTATION = Augmentation(
    share=0.9, max_shift=0.08, max_zoom=0.12, max_brightness=0.1, max_hue=0.02
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mini(Pipeline):
    """The stages of the shipped model."""

    visual_tokenizer: Holistic
    """Pictures to 21 codes of 6,017, the first ones for what is shown."""
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
    namer_minutes: float = 17.0,
    tokenizer_minutes: float = 15.0,
    decoder_minutes: float = 160.0,
) -> Mini:
    """Return the run of the shipped model; the clock ends its trainings.

    Args:
        data: directory of the packs.
        output: directory of everything that the run writes.
        namer_minutes: of training the network that names pictures.
        tokenizer_minutes: of training the rest of the visual tokenizer.
        decoder_minutes: of training the decoder; more gives a better model.
    """
    text, shards = output / "text", output / "shards"
    tokenizer = holistic(
        data=data,
        output=output / "holistic",
        namer_minutes=namer_minutes,
        minutes=tokenizer_minutes,
    )
    source = TokenizerSource(
        name="holistic", path=tokenizer.visual_tokenizer.output / "tokenizer", lengths=(_LENGTH,)
    )
    emoji, stories = emoji_pictures(data, "train"), story_texts(data)
    return Mini(
        visual_tokenizer=tokenizer,
        text_tokenizer=TextTokenizerStage(
            num_ids=_NUM_TEXT_IDS, sources=(emoji, stories), output=text
        ),
        prepare=PrepareStage(
            text_tokenizer=text,
            visual_tokenizers=(source,),
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
                tie_word_embeddings=False,
            ),
            data=DataConfig(
                shards=_mixture(
                    shards, draw=0.74, describe=0.13, name=0.09, stories=0.02, photos=0.02
                ),
                eval_shards=(shards / "emoji-val-style",),
                eval_batches=12,
                row_length=_ROW_LENGTH,
                rows_per_batch=10,
                condition_dropout=0.04,
            ),
            optim=OptimConfig(lr=3e-3, warmup_steps=60, decay="wsd", decay_share=0.8),
            export=ExportConfig(
                text_tokenizer=text,
                vocabulary=shards / "vocabulary.json",
                visual_tokenizers=(source,),
                generation=GenerationDefaults(
                    tokenizer="holistic",
                    text=SamplingDefaults(temperature=0.0),
                    image=SamplingDefaults(temperature=0.3),
                    guidance_scale=1.0,
                    trained_length=_ROW_LENGTH,
                ),
            ),
            output=output / "decoder",
            num_steps=200_000,
            max_minutes=decoder_minutes,
            ema_decay=0.99,
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

    The rate falls all along, which is when a decoder of this size learns details.

    Args:
        data: directory of the packs.
        output: directory of everything that the run writes.
        decoder_minutes: of training.
    """
    run = mini(data=data, output=output, decoder_minutes=decoder_minutes)
    text = load_model_path("mini")
    source = TokenizerSource(name="holistic", lengths=(_LENGTH,))
    return MiniMore(
        prepare=replace(run.prepare, text_tokenizer=text, visual_tokenizers=(source,)),
        decoder=replace(
            run.decoder,
            start_from="mini",
            data=replace(
                run.decoder.data,
                shards=_mixture(
                    output / "shards",
                    draw=0.78,
                    describe=0.11,
                    name=0.09,
                    stories=0.01,
                    photos=0.01,
                ),
            ),
            optim=replace(run.decoder.optim, lr=1.8e-3, warmup_steps=30, decay_share=0.85),
            seed=1,
            export=replace(run.decoder.export, text_tokenizer=text, visual_tokenizers=(source,)),
        ),
    )


def _vocab_size() -> int:
    vocabulary = Vocabulary.build(num_text_ids=_NUM_TEXT_IDS, text_fingerprint="")
    layouts = (Ordered(_LENGTH),)
    return vocabulary.extend("holistic", codebook_sizes=(_NUM_CODES,), layouts=layouts).size


def _jobs(data: Path, emoji: ParquetConfig, stories: TextConfig) -> tuple[PrepareJob, ...]:
    described = PrepareConfig(
        num_draw=0,
        num_describe=1,
        context_length=_ROW_LENGTH,
        augmentation=_AUGMENTATION,
        limit=1500,
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
                num_describe=4,
                context_length=_ROW_LENGTH,
                augmentation=_AUGMENTATION,
            ),
        ),
        PrepareJob(
            name="emoji-name",
            source=emoji,
            settings=PrepareConfig(
                num_draw=0,
                num_describe=0,
                num_name=2,
                name_mixing=Mixing(share=0.7),
                context_length=_ROW_LENGTH,
                augmentation=_AUGMENTATION,
                seed=1,
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
            PrepareJob(name=f"photos-{name}", source=photo_pictures(data, name), settings=described)
            for name in PHOTOS
        ),
    )


def _mixture(
    shards: Path, *, draw: float, describe: float, name: float, stories: float, photos: float
) -> tuple[ShardSource, ...]:
    return (
        ShardSource(path=shards / "emoji-draw", weight=draw),
        ShardSource(path=shards / "emoji-describe", weight=describe),
        ShardSource(path=shards / "emoji-name", weight=name),
        ShardSource(path=shards / "stories", weight=stories),
        *(
            ShardSource(path=shards / f"photos-{name}", weight=photos / len(PHOTOS))
            for name in PHOTOS
        ),
    )
