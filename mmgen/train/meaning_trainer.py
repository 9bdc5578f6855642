"""Learns codes of what pictures show, from what a network that names pictures sees in them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from mmgen.autoencoding.augmentation import augmented
from mmgen.autoencoding.meaning import MeaningNetwork, MeaningSettings
from mmgen.autoencoding.naming import NamingNetwork
from mmgen.errors import DataError
from mmgen.stopping import stop_signals
from mmgen.train.meaning_config import MeaningTrainConfig
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.stages import finish
from mmgen.train.training_pictures import TrainingPictures

__all__ = ["train_meaning"]

AT_ONCE = 256
"""Pictures looked at at once."""
LOOKING_SHARE = 0.4
"""Share of the progress display that looking at pictures takes."""


def train_meaning(config: MeaningTrainConfig, *, progress: AbstractProgress | None = None) -> bool:
    """Train and save to `config.output/meaning`.

    Returns:
        Whether the run is complete; asked to stop, it leaves nothing behind.

    Raises:
        DataError: a picture has no name, or one that the namer does not know.
        PluginError: there is no namer, or the settings name what there is not.
    """
    progress = progress or SilentProgress()
    settings = MeaningSettings.of(config.settings, "the settings of the codes")
    namer = NamingNetwork.load(config.namer)
    pictures = TrainingPictures.load(
        config.sources,
        progress,
        size=(config.side, config.side),
        resize="pad",
        needs_captions=True,
    )
    with stop_signals() as stop, torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = MeaningNetwork(namer, settings).train()
        features, targets = [], []
        for share, seen, names in _views(config, namer, pictures):
            features.append(seen)
            targets.append(names)
            progress.update(LOOKING_SHARE * share, f"{len(features) * AT_ONCE:,} views")
            if stop.is_set():
                return False
        told = _Lesson(torch.cat(features), torch.cat(targets), namer, config)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.lr, total_steps=config.num_steps, pct_start=0.1
        )
        for step in range(config.num_steps):
            inputs, wanted = told.batch()
            logits = network(inputs)
            loss = functional.cross_entropy(logits, wanted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if step % 10 == 0:
                right = (logits.argmax(dim=1) == wanted.argmax(dim=1)).float().mean()
                share = LOOKING_SHARE + (1 - LOOKING_SHARE) * step / config.num_steps
                progress.update(share, f"step {step}: loss {loss:.3g}, accuracy {right:.3g}")
            if stop.is_set():
                return False
        with torch.no_grad():
            network.coder.standardise(told.mean, told.deviation)
    result = config.output / "meaning"
    result.mkdir(parents=True, exist_ok=True)
    network.eval().save(result)
    finish(config, config.output)
    return True


class _Lesson:
    """What was seen in pictures, and what is to be told of it."""

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        namer: NamingNetwork,
        config: MeaningTrainConfig,
    ) -> None:
        self.mean = features.mean(dim=0)
        self.deviation = features.std(dim=0) + 1e-4
        self._features = features
        self._targets = targets
        self._namer = namer
        self._config = config

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return standardised features `[batch, width]` and shares of names `[batch, names]`."""
        config = self._config
        chosen = torch.randint(len(self._features), (config.batch_size,))
        standard = (self._features[chosen] - self.mean) / self.deviation
        standard = standard + config.noise * torch.randn_like(standard)
        with torch.no_grad():
            taught = self._namer.named(standard * self.deviation + self.mean).softmax(dim=1)
        true = functional.one_hot(self._targets[chosen], taught.shape[1])
        return standard, torch.lerp(true.to(taught.dtype), taught, config.taught_share)


@torch.no_grad()
def _views(
    config: MeaningTrainConfig, namer: NamingNetwork, pictures: TrainingPictures
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yield how much is done, features `[batch, width]` and names `[batch]`, as often as wanted."""
    generator = torch.Generator().manual_seed(config.seed)
    num_batches = -(-config.num_views * len(pictures.pixels) // AT_ONCE)
    for number in range(num_batches):
        batch = pictures.batch(AT_ONCE, max_shift=0, caption_dropout=0.0, generator=generator)
        unknown = sorted({name for name in batch.captions if name not in namer.names})
        if unknown:
            raise DataError(
                f"the namer in {config.namer} does not know {unknown[0]!r}; take the pictures and "
                "the column of names that it learned from"
            )
        is_plain = number < num_batches / config.num_views
        images = batch.images if is_plain else augmented(batch.images)
        yield number / num_batches, namer.tower(images), namer.ids_of(batch.captions)
