"""How fast one training step is, beside a plain transformers step of the same size.

Both learn the same made-up rows in turns within one process, so that whatever else the machine
does falls on both. The plain step is what one would write first: Qwen3 from transformers, its own
loss over every position, AdamW.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mmgen.data.shards import IMAGE, LOSS, Manifest, Sample, write_shard
from mmgen.model import DecoderConfig
from mmgen.text_tokenizer import train_bpe
from mmgen.train.config import DataConfig, ExportConfig, OptimConfig, ShardSource, TrainConfig
from mmgen.train.measure import Tally
from mmgen.train.precision import autocast, matmul_rate, step_flops
from mmgen.train.progress import SilentProgress
from mmgen.train.trainer import Trainer
from mmgen.visual_tokenizer import Grid
from mmgen.vocabulary import Vocabulary

__all__ = ["TrainBenchConfig", "TrainBenchResult", "bench_training"]

_CODEBOOK_SIZE = 4096
_NUM_TEXT_IDS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBenchConfig:
    """What to measure."""

    hidden_size: int = 320
    """Width of the residual stream."""
    num_layers: int = 7
    """Number of blocks."""
    num_heads: int = 5
    """Query heads."""
    num_kv_heads: int = 5
    """Key and value heads."""
    intermediate_size: int = 864
    """Width of the feed-forward layer."""
    context_length: int = 256
    """Ids in a row."""
    rows: int = 16
    """Rows in a step."""
    num_steps: int = 7
    """Steps measured on each side, after one that is not."""
    matrix_optimizer: Literal["muon", "adamw"] = "muon"
    """Optimizer of our side's matrices."""
    compile: Literal["on", "off"] = "on"
    """Whether our side is compiled."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products, on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBenchResult:
    """Medians over the measured steps."""

    num_parameters: int
    """Weights of the decoder."""
    seconds: float
    """Of one of our steps."""
    tokens_per_second: float
    """Ids of rows that our step takes in, a second."""
    optimizer_share: float
    """Share of our step that the optimizers take."""
    matmul_share: float
    """Operations of our step's matrix products a second, over what a large product reaches."""
    matmul_rate: float
    """That rate of a large product of the same type, in operations a second."""
    plain_seconds: float
    """Of one plain step."""
    plain_tokens_per_second: float
    """Ids that the plain step takes in, a second."""
    speedup: float
    """Plain seconds over ours: median over pairs of steps that ran one after the other."""


def bench_training(config: TrainBenchConfig) -> TrainBenchResult:
    """Measure our training step and a plain one, in turns. Needs transformers."""
    with tempfile.TemporaryDirectory(prefix="mmgen-bench-") as directory:
        trainer = Trainer(_train_config(config, Path(directory)), SilentProgress())
        optimizer_seconds = _timed_optimizers(trainer)
        plain = _plain_step(trainer)
        trainer.take_step(1e-4, Tally.empty())
        plain()
        ours, theirs, shares, flops = [], [], [], []
        for _ in range(config.num_steps):
            optimizer_seconds.clear()
            tally = Tally.empty()
            ours.append(_seconds(lambda tally=tally: trainer.take_step(1e-4, tally)))  # type: ignore[misc]
            shares.append(sum(optimizer_seconds) / ours[-1])
            theirs.append(_seconds(plain))
            flops.append(
                step_flops(
                    trainer.config.decoder,
                    num_ids=tally.num_ids,
                    num_logits=tally.num_logits,
                    context_length=config.context_length,
                )
                / ours[-1]
            )
        peak = matmul_rate(trainer.device, trainer.dtype)
    num_ids = config.rows * config.context_length
    return TrainBenchResult(
        num_parameters=trainer.config.decoder.num_parameters,
        seconds=statistics.median(ours),
        tokens_per_second=num_ids / statistics.median(ours),
        optimizer_share=statistics.median(shares),
        matmul_share=statistics.median(flops) / peak,
        matmul_rate=peak,
        plain_seconds=statistics.median(theirs),
        plain_tokens_per_second=num_ids / statistics.median(theirs),
        speedup=statistics.median(b / a for a, b in zip(ours, theirs, strict=True)),
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _timed_optimizers(trainer: Trainer) -> list[float]:
    """Return a list to which each optimizer step adds its seconds."""
    seconds: list[float] = []
    starts: list[float] = []
    for optimizer in trainer.optimizers:
        optimizer.register_step_pre_hook(lambda *_: starts.append(time.perf_counter()))
        optimizer.register_step_post_hook(
            lambda *_: seconds.append(time.perf_counter() - starts.pop())
        )
    return seconds


def _train_config(config: TrainBenchConfig, directory: Path) -> TrainConfig:
    tokenizer = train_bpe([""], num_ids=_NUM_TEXT_IDS)
    vocabulary = Vocabulary.build(
        num_text_ids=tokenizer.num_ids, text_fingerprint=tokenizer.fingerprint
    ).extend("bench", codebook_sizes=(_CODEBOOK_SIZE,), layouts=(Grid(8, 8),))
    tokenizer.save(directory)
    (directory / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
    _write_shards(directory / "shards", vocabulary)
    return TrainConfig(
        decoder=DecoderConfig(
            vocab_size=vocabulary.size,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            intermediate_size=config.intermediate_size,
            context_length=config.context_length,
        ),
        data=DataConfig(
            shards=(ShardSource(path=directory / "shards"),), rows_per_batch=config.rows
        ),
        optim=OptimConfig(matrix_optimizer=config.matrix_optimizer),
        export=ExportConfig(text_tokenizer=directory, vocabulary=directory / "vocabulary.json"),
        output=directory / "run",
        num_steps=1000,
        precision=config.precision,
        compile=config.compile,
    )


def _write_shards(path: Path, vocabulary: Vocabulary) -> None:
    """Write documents of about a dozen words and one 8 by 8 picture, three quarters of them drawn.

    In the others the picture is the question, which has no loss.
    """
    generator = np.random.default_rng(0)
    ranges = vocabulary.tokenizer("bench")
    samples = []
    for index in range(2048):
        num_words = int(generator.integers(6, 20))
        words = generator.integers(0, _NUM_TEXT_IDS, num_words)
        codes = generator.integers(0, _CODEBOOK_SIZE, 64) + ranges.code_ids[0].start
        picture = [ranges.marker_id, *codes, vocabulary.end_image_id]
        is_drawn = index % 4 != 0
        question, answer = (words, picture) if is_drawn else (picture, words)
        head = [vocabulary.bos_id, vocabulary.user_id, *question, vocabulary.end_id]
        ids = [*head, vocabulary.assistant_id, *answer, vocabulary.end_id, vocabulary.eos_id]
        flags = np.zeros(len(ids), dtype=np.uint8)
        flags[len(head) + 1 :] = LOSS
        first = len(head) + 2 if is_drawn else 3
        flags[first : first + 64] |= IMAGE
        samples.append(
            Sample(row=str(index), variant=0, ids=np.array(ids, dtype=np.int32), flags=flags)
        )
    path.mkdir()
    shard = write_shard(path / "0.arrow", samples, start=0, stop=len(samples))
    Manifest(
        vocabulary=vocabulary.fingerprint, config={}, num_rows=len(samples), shards=(shard,)
    ).write(path)


def _plain_step(trainer: Trainer) -> Callable[[], None]:
    """Return a function that makes one plain step on rows of the trainer's shapes."""
    # Through import_module, so that nothing here depends on transformers to be imported.
    transformers = import_module("transformers")
    shape = trainer.config.decoder
    settings = transformers.Qwen3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.context_length,
        tie_word_embeddings=shape.tie_word_embeddings,
    )
    model: Any = transformers.Qwen3ForCausalLM(settings).to(trainer.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rows = trainer.config.data.rows_per_batch
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(shape.vocab_size, (rows, shape.context_length), generator=generator)
    ids = ids.to(trainer.device)

    def step() -> None:
        with autocast(trainer.device, trainer.dtype):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
