"""Trains any visual tokenizer that has something to train.

The plugin brings its network and any loss terms of its own, this file what holds for all: losses
of reconstruction, and starting from the weights of another tokenizer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from mmgen.errors import PluginError
from mmgen.plugins import load_visual_tokenizer, untrained_visual_tokenizer
from mmgen.train.adversary import Adversary
from mmgen.train.perceptual import load_features, perceptual_loss
from mmgen.train.picture_trainer import AbstractPictureTask, train_on_pictures
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.tokenizer_config import TokenizerTrainConfig
from mmgen.train.training_pictures import Batch, TrainingPictures
from mmgen.visual_tokenizer import AbstractVisualTokenizer, TrainingOutput

__all__ = ["TokenizerTask", "pyramid_loss", "start_from", "train_tokenizer"]

_INNER = re.compile(r"\.(convolutions|details)\.")

NUM_BEGINNING = 4096
"""Pictures that a tokenizer may look at before its training begins."""

NUM_CAPTIONED = 16_384
"""The same where it reads captions: words are rarer than what pictures have in common."""


def pyramid_loss(reconstruction: Tensor, images: Tensor, *, num_levels: int = 3) -> Tensor:
    """Mean absolute plus squared error over a pyramid of halved sizes, and of edges at full size.

    Coarse levels keep colours right over areas, the edge term keeps outlines sharp.

    Args:
        reconstruction: `[batch, 3, height, width]`.
        images: the same shape, in 0..1.
    """
    error = reconstruction - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    total = error.square().mean() * 4 + edges * 0.5
    for level in range(num_levels):
        total = total + error.abs().mean()
        if level + 1 < num_levels:
            error = functional.avg_pool2d(error, 2)
    return total


def train_tokenizer(
    config: TokenizerTrainConfig, *, progress: AbstractProgress | None = None
) -> bool:
    """Train from the newest state, or from the start, and save to `config.output/tokenizer`.

    Ctrl-C or SIGTERM ends the run after the current step, with its state saved.

    Returns:
        Whether the run is complete; otherwise it was asked to stop, and can be resumed.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
        PluginError: no such plugin, or it has nothing to train.
    """
    progress = progress or SilentProgress()
    tokenizer = untrained_visual_tokenizer(config.tokenizer, config.settings, seed=config.seed)
    if config.start_from is not None:
        taken, total = start_from(tokenizer, config.start_from)
        progress.note(f"{taken} of {total} tensors start as {config.start_from} has them")
    return train_on_pictures(config, TokenizerTask(tokenizer, config), progress)


def start_from(tokenizer: AbstractVisualTokenizer, origin: str) -> tuple[int, int]:
    """Copy into a tokenizer every weight of another that has the same name and shape.

    A half that is another tokenizer's and something more holds that as `convolutions` or as
    `details`, words that are left out of the comparison.

    Args:
        tokenizer: the one to train.
        origin: a plugin by name, as it ships, or a folder that a tokenizer of any plugin with the
            same file was saved to.

    Returns:
        How many tensors were copied, and how many the tokenizer has.

    Raises:
        PluginError: there is no such tokenizer, or it shares no tensor.
    """
    if "/" in origin:
        file = Path(origin) / "tokenizer.safetensors"
        if not file.is_file():
            raise PluginError(f"no tokenizer to start from in {origin}: {file.name} is missing")
        theirs = load_file(file)
    else:
        theirs = dict(load_visual_tokenizer(origin).network().state_dict())
    ours = tokenizer.network().state_dict()
    names = {_INNER.sub(".", name): name for name in ours}
    shared = {
        names[short]: tensor
        for name, tensor in theirs.items()
        if (short := _INNER.sub(".", name)) in names and ours[names[short]].shape == tensor.shape
    }
    if not shared:
        raise PluginError(f"{origin} shares no weight with the tokenizer to train; start fresh")
    with torch.no_grad():
        for name, tensor in shared.items():
            ours[name].copy_(tensor)
    return len(shared), len(ours)


class TokenizerTask(AbstractPictureTask):
    """Reconstruct pictures, and whatever a plugin's network adds to that.

    What a picture is like to a network that sees, and whether a critic takes it for real, count as
    the configuration says.
    """

    result: ClassVar[str] = "tokenizer"

    def __init__(self, tokenizer: AbstractVisualTokenizer, config: TokenizerTrainConfig) -> None:
        spec = tokenizer.spec
        self._config = config
        self._features = None if config.perceptual is None else load_features(config.perceptual)
        if config.adversarial_weight:
            self.adversary = Adversary(
                width=config.critic_width, lr=config.critic_lr, seed=config.seed + 1
            )
        self._drawn: Tensor | None = None
        self._told: dict[str, float] = {}
        self.network = tokenizer.network()
        self.size = spec.sizes[0]
        self.resize = spec.resize
        self.needs_captions = bool(spec.captions_used)
        self._tokenizer = tokenizer
        self._seen = torch.zeros(sum(spec.codebook_sizes), dtype=torch.bool)
        self._psnr = 0.0

    def begin(self, pictures: TrainingPictures, seed: int) -> None:
        # What is taken from another tokenizer has seen more than these pictures: what begins can
        # build on it, and it is never lost to a beginning.
        self._take_over()
        if self.needs_captions:
            some = pictures.sample(NUM_CAPTIONED, seed=seed)
            self._tokenizer.begin_training(some.images, some.captions)
        else:
            some = pictures.sample(NUM_BEGINNING, seed=seed)
            self._tokenizer.begin_training(some.images)
        self._take_over()

    def _take_over(self) -> None:
        if self._config.start_from is not None:
            start_from(self._tokenizer, self._config.start_from)

    def loss(self, batch: Batch, progress: float) -> Tensor:
        config = self._config
        beside = [batch.captions] if self.needs_captions else []
        output = self.network(batch.images, *beside)
        assert isinstance(output, TrainingOutput), "a tokenizer's network gives a TrainingOutput"
        drawn = output.reconstruction
        seen = pyramid_loss(drawn, batch.images)
        if self._features is not None:
            term = perceptual_loss(self._features, drawn, batch.images)
            self._told["perceptual"] = term.item()
            seen = seen + config.perceptual_weight * term
        loss = seen
        for term in output.losses.values():
            loss = loss + term
        self._drawn = None
        if self.adversary is not None and progress >= config.adversarial_start:
            loss = loss + config.adversarial_weight * self.adversary.pull(drawn, seen)
            self._drawn = drawn.detach()
        self._note_codes(output.codes, self._seen)
        self._psnr = _psnr(drawn.detach(), batch.images)
        return loss

    def answer(self, batch: Batch) -> None:
        if self.adversary is not None and self._drawn is not None:
            self._told["critic"] = self.adversary.learn(batch.images, self._drawn)

    def figures(self) -> dict[str, float]:
        used = self._seen.float().mean().item()
        told = {"psnr": self._psnr, "codes_used": used, **self._told}
        self._seen.zero_()
        return told

    def save(self, directory: Path) -> None:
        self._tokenizer.save(directory)

    def _note_codes(self, codes: Tensor, seen: Tensor) -> None:
        first = 0
        for book, size in enumerate(self._tokenizer.spec.codebook_sizes):
            seen[first + codes[..., book].flatten()] = True
            first += size


def _psnr(reconstruction: Tensor, images: Tensor) -> float:
    error = (reconstruction.clamp(0, 1) - images).square().mean(dim=(1, 2, 3))
    return float(-10 * error.clamp_min(1e-10).log10().mean())
