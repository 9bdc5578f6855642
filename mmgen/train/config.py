"""Everything that settles a decoder's training, as frozen values.

A recipe returns these, complete; nothing else reaches the trainer. Fields that cannot change what
is learned, or only for how long, are listed here, since a run may be resumed with other ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmgen.checkpoint import GenerationDefaults, SamplingDefaults
from mmgen.errors import SettingsError
from mmgen.model.config import DecoderConfig
from mmgen.train.progress import AbstractProgress
from mmgen.train.stage import AbstractStage

__all__ = [
    "FREE_ON_RESUME",
    "DataConfig",
    "ExportConfig",
    "OptimConfig",
    "ShardSource",
    "TokenizerSource",
    "TrainConfig",
]

FREE_ON_RESUME = frozenset(
    {
        "num_steps",
        "max_minutes",
        "compile",
        "eval_every",
        "sample_every",
        "sample_prompts",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "curves",
        "output",
        "data.eval_batches",
        "data.rows_at_once",
        "data.eval_shards",
        "export",
    }
)
"""Paths in `TrainConfig` below which values may differ when a run is resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSource:
    """One folder of pretokenised shards in the mixture."""

    path: Path
    """The folder."""
    weight: float = 1.0
    """Share of the ids of training that come from it, in proportion to the other folders."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise SettingsError(f"a shard's weight must be positive, got {self.weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What the decoder learns from."""

    shards: tuple[ShardSource, ...]
    """The mixture."""
    eval_shards: tuple[Path, ...] = ()
    """Held-out folders; without one, nothing is evaluated."""
    eval_batches: int = 8
    """Batches of each evaluation, the same ones every time."""
    row_length: int | None = None
    """Ids of one packed row; none means the decoder's context length."""
    rows_per_batch: int = 32
    """Rows in one step."""
    rows_at_once: int | None = None
    """Rows in one pass through the network, a divisor of `rows_per_batch`; none means all."""
    condition_dropout: float = 0.1
    """Share of pictures whose condition is replaced by nulls, for guidance."""
    word_dropout: float = 0.0
    """Further share of which only the words are, where the condition has pictures too: for models
    that edit pictures, to be guided by pictures and words apart."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise SettingsError("data.shards must name at least one folder")
        if self.rows_per_batch < 1 or self.eval_batches < 1:
            raise SettingsError(
                "data.rows_per_batch and data.eval_batches must be 1 or more, got "
                f"{self.rows_per_batch} and {self.eval_batches}"
            )
        if self.rows_at_once is not None and (
            self.rows_at_once < 1 or self.rows_per_batch % self.rows_at_once
        ):
            raise SettingsError(
                f"data.rows_at_once must divide data.rows_per_batch {self.rows_per_batch}, "
                f"got {self.rows_at_once}"
            )
        if not 0 <= self.condition_dropout <= 1:
            raise SettingsError(
                f"data.condition_dropout must lie in 0..1, got {self.condition_dropout}"
            )
        if self.word_dropout < 0 or not self.condition_dropout + self.word_dropout <= 1:
            raise SettingsError(
                f"data.word_dropout must lie in 0..1, and at most 1 together with "
                f"data.condition_dropout {self.condition_dropout}; got {self.word_dropout}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How weights change."""

    lr: float = 3e-3
    """Peak learning rate; Muon's updates are scaled so that AdamW's rates suit it too."""
    min_lr_ratio: float = 0.0
    """Rate at the very end, as a share of the peak."""
    warmup_steps: int = 100
    """Steps in which the rate rises from zero."""
    decay: Literal["cosine", "wsd"] = "wsd"
    """Falling all along, or constant with a linear fall in the last `decay_share`."""
    decay_share: float = 0.3
    """Share of the run in which a `wsd` rate falls."""
    matrix_optimizer: Literal["muon", "adamw"] = "muon"
    """What moves the matrices inside blocks; embeddings and norms always have AdamW."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices inside blocks; nothing else decays."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's two averages."""
    momentum: float = 0.95
    """Decay of Muon's average."""
    grad_clip: float = 1.0
    """Largest norm of the whole gradient."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise SettingsError(f"optim.lr must be positive, got {self.lr}")
        for name in ("min_lr_ratio", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"optim.{name} must lie in 0..1, got {getattr(self, name)}")
        if self.warmup_steps < 0 or self.weight_decay < 0 or not self.grad_clip > 0:
            raise SettingsError(
                "optim.warmup_steps and optim.weight_decay must not be negative and "
                f"optim.grad_clip must be positive, got {self.warmup_steps}, "
                f"{self.weight_decay} and {self.grad_clip}"
            )
        for decay in (*self.betas, self.momentum):
            if not 0 <= decay < 1:
                raise SettingsError(
                    f"optim.betas and optim.momentum must lie in 0..1, got {self.betas} and "
                    f"{self.momentum}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSource:
    """A visual tokenizer by plugin name."""

    name: str
    """The plugin."""
    path: Path | None = None
    """Directory of settings and weights; none for one that its distribution carries."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Picture sizes `(height, width)` that a new vocabulary has, the default first; without any,
    the tokenizer's default one."""
    lengths: tuple[int, ...] = ()
    """Numbers of positions that a new vocabulary has for each size, the default first, of a
    tokenizer that can be asked for several; without any, the tokenizer's default one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """What a checkpoint holds beside the weights."""

    text_tokenizer: Path
    """Directory of the text tokenizer."""
    vocabulary: Path
    """The vocabulary's JSON file, as preparation wrote it."""
    visual_tokenizers: tuple[TokenizerSource, ...] = ()
    """Every tokenizer of the vocabulary; the first is the default one."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights in the file."""
    generation: GenerationDefaults | None = None
    """How the model is used by default; none for the first tokenizer and usual settings."""
    model_card: Path | None = None
    """Markdown file for the checkpoint; none for a short generated one."""

    @property
    def generation_defaults(self) -> GenerationDefaults:
        """The settings given, or the usual ones."""
        if self.generation is not None:
            return self.generation
        return GenerationDefaults(
            tokenizer=self.visual_tokenizers[0].name if self.visual_tokenizers else "",
            text=SamplingDefaults(temperature=0.7, top_p=0.9),
            guidance_scale=3.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(AbstractStage):
    """One complete decoder training, itself a stage."""

    decoder: DecoderConfig
    """Shape of the decoder; `vocab_size` must be the vocabulary's."""
    data: DataConfig
    """What it learns from."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """How it learns."""
    export: ExportConfig
    """What the finished checkpoint holds beside the weights."""
    output: Path
    """Directory of the run: state, logs, samples and, at the end, `checkpoint/`."""
    num_steps: int
    """Steps of the run, unless `max_minutes` ends it first."""
    max_minutes: float | None = None
    """Wall-clock budget over all resumptions; the schedule then follows whichever of clock and
    steps is further on, and the run cannot be repeated bit for bit."""
    start_from: str | None = None
    """Checkpoint, by name or directory, whose weights the run begins with; none for fresh ones."""
    image_loss_weight: float = 1.0
    """Weight of a picture's ids in the loss; other ids have 1."""
    z_loss: float = 0.0
    """Weight of the squared log-normaliser, which keeps logits small."""
    ema_decay: float = 0.0
    """Decay a step of averaged weights, which are then evaluated and exported; 0 for none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products; auto is bfloat16 where the machine multiplies it faster."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to compile the network; auto is on for long runs where a compiler is found."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto is CUDA when there is one."""
    seed: int = 0
    """Seeds the weights and the order of samples."""
    eval_every: int = 250
    """Steps between evaluations; 0 for none."""
    sample_every: int = 0
    """Steps between sheets of samples; 0 for none."""
    sample_prompts: tuple[str, ...] = ()
    """What the samples are asked to show."""
    checkpoint_every: int = 250
    """Steps between saved states, the most that a killed run loses."""
    keep_checkpoints: int = 1
    """Saved states kept, the newest."""
    log_every: int = 10
    """Steps between log records."""
    curves: Literal["on", "off"] = "on"
    """Whether loss curves are drawn as a picture when the state is saved."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("eval_every", "sample_every", "z_loss", "seed"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise SettingsError(f"max_minutes must be positive, got {self.max_minutes}")
        if not self.image_loss_weight > 0:
            raise SettingsError(f"image_loss_weight must be positive, got {self.image_loss_weight}")
        if not 0 <= self.ema_decay < 1:
            raise SettingsError(f"ema_decay must lie in 0..1, got {self.ema_decay}")

    @property
    def title(self) -> str:
        return f"train a decoder in {self.output}"

    @property
    def is_shared(self) -> bool:
        return True

    @property
    def is_finished(self) -> bool:
        from mmgen.train.trainer import is_finished

        return is_finished(self)

    def run(self, progress: AbstractProgress) -> bool:
        from mmgen.train.samples import open_sampler
        from mmgen.train.trainer import train

        return train(self, progress=progress, on_sample=open_sampler(self)).is_finished
