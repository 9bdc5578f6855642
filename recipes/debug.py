"""A whole run in seconds on a CPU, to see that everything works: shapes, codes, a tiny decoder.

What it draws is no art, but it goes through every stage that a real run goes through.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmgen.checkpoint import GenerationDefaults, SamplingDefaults
from mmgen.data.prepare import PrepareConfig
from mmgen.model import DecoderConfig
from mmgen.plugins import load_visual_tokenizer, located_visual_tokenizer
from mmgen.train.config import (
    DataConfig,
    ExportConfig,
    OptimConfig,
    ShardSource,
    TokenizerSource,
    TrainConfig,
)
from mmgen.train.sources import ShapesConfig
from mmgen.train.stage import Pipeline
from mmgen.train.stages import (
    PrepareJob,
    PrepareStage,
    TextTokenizerStage,
    chosen_layouts,
)
from mmgen.visual_tokenizer import Layout, VisualTokenizerSpec
from mmgen.vocabulary import Vocabulary

__all__ = ["Debug", "debug"]

_NUM_TEXT_IDS = 384
_NUM_WORDS = 80
"""Ids of a document besides the codes of its picture."""

_MIN_POSITIONS = 16
"""Positions below which a picture of shapes says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debug(Pipeline):
    """The stages of the debug run."""

    text_tokenizer: TextTokenizerStage
    """Words of captions and questions."""
    prepare: PrepareStage
    """Shapes to shards."""
    decoder: TrainConfig
    """Sixty steps."""


def debug(
    *, output: Path = Path("runs/debug"), tokenizer: str = "palette", lengths: tuple[int, ...] = ()
) -> Debug:
    """Return the debug run.

    Args:
        output: directory of everything that the run writes.
        tokenizer: visual tokenizer by name or folder, which needs no training; its smallest
            pictures are learned.
        lengths: numbers of codes, the default first, that a picture may have of a tokenizer of
            several lengths; without any, the tokenizer's default one.
    """
    name, path = located_visual_tokenizer(tokenizer)
    loaded = load_visual_tokenizer(name, path)
    spec = loaded.spec
    size, layout = _smallest(spec)
    side = max(size)
    shapes = ShapesConfig(seed=0, count=256, picture_size=side)
    held_out = ShapesConfig(seed=1, count=64, picture_size=side)
    num_codes = max(lengths or (layout.num_positions,)) * len(spec.codebook_sizes)
    context_length = _NUM_WORDS + num_codes
    settings = PrepareConfig(
        num_draw=2, num_describe=1, context_length=context_length, rows_per_shard=256
    )
    text, shards = output / "text", output / "shards"
    tokenizers = (TokenizerSource(name=name, path=path, sizes=(size,), lengths=lengths),)
    vocabulary = Vocabulary.build(num_text_ids=_NUM_TEXT_IDS, text_fingerprint="").extend(
        name,
        codebook_sizes=spec.codebook_sizes,
        layouts=chosen_layouts(loaded, tokenizers[0]),
    )
    return Debug(
        text_tokenizer=TextTokenizerStage(num_ids=_NUM_TEXT_IDS, sources=(shapes,), output=text),
        prepare=PrepareStage(
            text_tokenizer=text,
            visual_tokenizers=tokenizers,
            jobs=(
                PrepareJob(name="train", source=shapes, settings=settings),
                PrepareJob(name="held-out", source=held_out, settings=settings),
            ),
            output=shards,
        ),
        decoder=TrainConfig(
            decoder=DecoderConfig(
                vocab_size=vocabulary.size,
                hidden_size=64,
                num_layers=2,
                num_heads=2,
                num_kv_heads=1,
                intermediate_size=160,
                context_length=context_length,
            ),
            data=DataConfig(
                shards=(ShardSource(path=shards / "train"),),
                eval_shards=(shards / "held-out",),
                eval_batches=2,
                rows_per_batch=8,
            ),
            optim=OptimConfig(lr=1e-2, warmup_steps=5),
            export=ExportConfig(
                text_tokenizer=text,
                vocabulary=shards / "vocabulary.json",
                visual_tokenizers=tokenizers,
                dtype="float32",
                generation=GenerationDefaults(
                    tokenizer=name,
                    text=SamplingDefaults(temperature=0.7, top_p=0.9),
                    guidance_scale=2.0,
                ),
            ),
            output=output / "decoder",
            num_steps=60,
            ema_decay=0.9,
            precision="float32",
            compile="off",
            device="cpu",
            eval_every=30,
            checkpoint_every=30,
            log_every=5,
        ),
    )


def _smallest(spec: VisualTokenizerSpec) -> tuple[tuple[int, int], Layout]:
    """Return the smallest size that shows something, and the layout that it has."""
    first: dict[tuple[int, int], Layout] = {}
    for layout in spec.layouts:
        first.setdefault(spec.pixels.size_of(layout), layout)
    telling = {s: layout for s, layout in first.items() if layout.num_positions >= _MIN_POSITIONS}
    return min((telling or first).items(), key=lambda item: item[0][0] * item[0][1])
