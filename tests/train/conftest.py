"""Tiny learnable shards: two-part documents whose second part repeats the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmgen.data.shards import CONDITION, IMAGE, LOSS, Manifest, Sample, write_shard
from mmgen.model import DecoderConfig
from mmgen.text_tokenizer import BpeTokenizer, train_bpe
from mmgen.train.config import (
    DataConfig,
    ExportConfig,
    OptimConfig,
    ShardSource,
    TokenizerSource,
    TrainConfig,
)
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary

CONTEXT = 64


@dataclass(frozen=True)
class World:
    """A vocabulary, its text tokenizer and folders of shards on disk."""

    root: Path
    vocabulary: Vocabulary
    text_tokenizer: BpeTokenizer
    config: TrainConfig


def write_folder(path: Path, samples: Sequence[Sample], vocabulary: Vocabulary) -> Path:
    path.mkdir(parents=True)
    shard = write_shard(path / "0.arrow", list(samples), start=0, stop=len(samples))
    Manifest(
        vocabulary=vocabulary.fingerprint, config={}, num_rows=len(samples), shards=(shard,)
    ).write(path)
    return path


def make_samples(vocabulary: Vocabulary, *, count: int, seed: int) -> list[Sample]:
    """Documents: USER word ASSISTANT image END EOS, the image decided by the word."""
    generator = np.random.default_rng(seed)
    ranges = vocabulary.tokenizer("palette")
    samples = []
    for index in range(count):
        word = int(generator.integers(97, 101))
        codes = [(word * 7 + step // 4) % 256 + ranges.code_ids[0].start for step in range(16)]
        head = [vocabulary.bos_id, vocabulary.user_id, word, vocabulary.end_id]
        reply = [vocabulary.assistant_id, ranges.marker_id, *codes, vocabulary.end_image_id]
        ids = [*head, *reply, vocabulary.end_id, vocabulary.eos_id]
        flags = np.full(len(ids), LOSS, dtype=np.uint8)
        flags[2] |= CONDITION
        flags[6:22] |= IMAGE
        samples.append(
            Sample(row=str(index), variant=0, ids=np.array(ids, dtype=np.int32), flags=flags)
        )
    return samples


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("train")
    tokenizer = train_bpe(["draw a red square"], num_ids=256)
    vocabulary = Vocabulary.build(
        num_text_ids=tokenizer.num_ids, text_fingerprint=tokenizer.fingerprint
    ).extend("palette", codebook_sizes=(256,), layouts=(Grid(4, 4),))
    (root / "text").mkdir()
    tokenizer.save(root / "text")
    (root / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
    write_folder(root / "shards", make_samples(vocabulary, count=64, seed=1), vocabulary)
    write_folder(root / "held-out", make_samples(vocabulary, count=16, seed=2), vocabulary)
    config = TrainConfig(
        decoder=DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            intermediate_size=48,
            context_length=CONTEXT,
        ),
        data=DataConfig(
            shards=(ShardSource(path=root / "shards"),),
            eval_shards=(root / "held-out",),
            eval_batches=1,
            rows_per_batch=4,
        ),
        optim=OptimConfig(lr=1e-2, warmup_steps=2),
        export=ExportConfig(
            text_tokenizer=root / "text",
            vocabulary=root / "vocabulary.json",
            visual_tokenizers=(TokenizerSource(name="palette"),),
        ),
        output=root / "run",
        num_steps=12,
        ema_decay=0.9,
        eval_every=6,
        checkpoint_every=4,
        log_every=2,
        curves="off",
        compile="off",
    )
    return World(root=root, vocabulary=vocabulary, text_tokenizer=tokenizer, config=config)
