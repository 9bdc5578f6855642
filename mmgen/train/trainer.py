"""The one training loop of decoders.

A step is a function of the config, the weights and a few counters, so that a run that was stopped
anywhere continues as if it had not been. Asked to stop, it finishes the step, saves and returns.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmgen.data import Batch, PackedLoader
from mmgen.errors import OutputError, SettingsError
from mmgen.model import Decoder
from mmgen.stopping import stop_signals
from mmgen.text_tokenizer import load_text_tokenizer
from mmgen.train.alternatives import Alternatives
from mmgen.train.config import TrainConfig
from mmgen.train.export import export_decoder, load_vocabulary
from mmgen.train.loss import decoder_loss
from mmgen.train.measure import Tally, text_id_bytes
from mmgen.train.optim import build_optimizers, learning_rate, run_progress
from mmgen.train.overrides import to_plain
from mmgen.train.precision import (
    autocast,
    choose_device,
    choose_dtype,
    matmul_rate,
    step_flops,
    wants_compile,
)
from mmgen.train.processes import current_processes
from mmgen.train.progress import AbstractProgress, SilentProgress
from mmgen.train.records import RunRecords, numbers
from mmgen.train.start import start_weights
from mmgen.train.state import (
    Counters,
    check_same_config,
    latest_state,
    read_state,
    restore_state,
    save_state,
    write_atomically,
)

__all__ = ["OnSample", "TrainResult", "Trainer", "is_finished", "train"]

OnSample = Callable[[Decoder, int], None]
"""Called with the decoder, its averaged weights in place if there are any, and the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """How a call of `train` ended."""

    step: int
    """Steps done over all resumptions."""
    is_finished: bool
    """Whether the run is complete; otherwise it was asked to stop, and can be resumed."""
    checkpoint: Path
    """The exported checkpoint; exists once the run is finished."""


def is_finished(config: TrainConfig) -> bool:
    """Return whether the run of this config is complete.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
    """
    state = latest_state(config.output / "state")
    if state is None or not (config.output / "checkpoint").is_dir():
        return False
    stored = read_state(state)
    check_same_config(stored["config"], to_plain(config), state)
    done = run_progress(stored["step"], stored["elapsed"], config.num_steps, config.max_minutes)
    return done >= 1.0


def train(
    config: TrainConfig,
    *,
    progress: AbstractProgress | None = None,
    on_sample: OnSample | None = None,
) -> TrainResult:
    """Train from the newest state in `config.output`, or from the start, and export.

    Ctrl-C or SIGTERM ends the run after the current step, with its state saved.

    Args:
        on_sample: called every `sample_every` steps and at the end.

    Raises:
        CheckpointError: `config.output` holds a run with other settings.
    """
    trainer = Trainer(config, progress or SilentProgress())
    with stop_signals() as stop:
        return trainer.run(stop, on_sample)


class Trainer:
    """A decoder with all that changes while it is trained."""

    def __init__(self, config: TrainConfig, progress: AbstractProgress) -> None:
        """Build everything and continue from the newest state, if there is one."""
        self.config = config
        self.processes = current_processes()
        self.processes.check_rows(config.data.rows_per_batch)
        self.progress = progress if self.processes.is_first else SilentProgress()
        self.vocabulary = load_vocabulary(config.export.vocabulary)
        if self.vocabulary.size != config.decoder.vocab_size:
            raise SettingsError(
                f"decoder.vocab_size is {config.decoder.vocab_size}, but the vocabulary in "
                f"{config.export.vocabulary} has {self.vocabulary.size} rows; set it to that"
            )
        self.id_bytes = text_id_bytes(load_text_tokenizer(config.export.text_tokenizer))
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.precision, self.device)
        self.alternatives = Alternatives.of(self.vocabulary, self.device)
        self.decoder = Decoder(config.decoder)
        start_weights(self.decoder, config, self.vocabulary)
        self.decoder.to(self.device)
        self.optimizers = build_optimizers(self.decoder, config.optim)
        self.averaged: dict[str, Tensor] = {}
        if config.ema_decay:
            self.averaged = {
                name: value.detach().clone() for name, value in self.decoder.named_parameters()
            }
        self.loader = PackedLoader(
            {source.path: source.weight for source in config.data.shards},
            vocabulary=self.vocabulary,
            context_length=config.data.row_length or config.decoder.context_length,
            rows_per_batch=config.data.rows_per_batch,
            seed=config.seed,
            condition_dropout=config.data.condition_dropout,
            word_dropout=config.data.word_dropout,
        )
        self.step = 0
        self.elapsed = 0.0
        try:
            (config.output / "state").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {config.output}: {error.strerror}") from error
        self._restore()
        self._clock = time.monotonic() - self.elapsed
        self.network: Callable[[Tensor, Tensor, Tensor], Tensor] = self.decoder
        if wants_compile(config.compile, self.device, config.num_steps):
            self.network = torch.compile(self.decoder, dynamic=False)

    @property
    def share_done(self) -> float:
        """How much of the run is done, 0..1."""
        return run_progress(self.step, self.elapsed, self.config.num_steps, self.config.max_minutes)

    def run(self, stop: threading.Event, on_sample: OnSample | None) -> TrainResult:
        """Train until the end or until `stop` is set; save either way, export at the end."""
        config = self.config
        is_first = self.processes.is_first
        records = RunRecords(config.output, step=self.step) if is_first else None
        peak = matmul_rate(self.device, self.dtype)
        self.progress.begin(self._title())
        tally, mark = Tally.empty(), time.monotonic()
        try:
            while self.share_done < 1.0 and not any(self.processes.largest(stop.is_set())):
                lr = learning_rate(config.optim, self.step, self.share_done)
                grad_norm = self.take_step(lr, tally)
                (self.elapsed,) = self.processes.largest(time.monotonic() - self._clock)
                is_last = self.share_done >= 1.0
                if self._is_due(config.log_every) or is_last:
                    tally.add_up(self.processes)
                    record = self._train_record(tally, lr, grad_norm, time.monotonic() - mark, peak)
                    if records is not None:
                        records.write(record)
                    self.progress.update(self.share_done, _detail(record))
                    tally, mark = Tally.empty(), time.monotonic()
                pause = time.monotonic()
                if config.data.eval_shards and (self._is_due(config.eval_every) or is_last):
                    report = self.evaluate()
                    if records is not None:
                        records.write({"kind": "eval", "step": self.step, **report})
                    self.progress.note(f"step {self.step}, held out: {numbers(report)}")
                is_sampled = self._is_due(config.sample_every) or is_last
                if on_sample is not None and is_first and is_sampled:
                    with self.averaged_weights():
                        on_sample(self.decoder, self.step)
                if self._is_due(config.checkpoint_every) and not is_last:
                    self.save()
                    if config.curves == "on" and records is not None:
                        records.draw_now_and_then()
                mark += time.monotonic() - pause
            self.save()
            if config.curves == "on" and records is not None:
                records.draw()
        finally:
            self.progress.end()
            if records is not None:
                records.close()
        checkpoint = config.output / "checkpoint"
        is_complete = self.share_done >= 1.0
        if is_complete and is_first:
            with self.averaged_weights():
                export_decoder(self.decoder, self.vocabulary, config.export, checkpoint)
        return TrainResult(step=self.step, is_finished=is_complete, checkpoint=checkpoint)

    def take_step(self, lr: float, tally: Tally) -> float:
        """Learn from the next batch, adding its losses to `tally`; return the gradient's norm."""
        config = self.config
        batch = next(self.loader)
        normaliser = _total_weight(batch, config.image_loss_weight)
        rows = config.data.rows_at_once or config.data.rows_per_batch
        for part in self.processes.share(batch).split(rows):
            loss = self._loss(part, self.network, normaliser, tally)
            loss.backward()  # type: ignore[no-untyped-call]
        parameters = [value for value in self.decoder.parameters() if value.grad is not None]
        self.processes.add_up(value.grad for value in parameters if value.grad is not None)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.optim.grad_clip).item()
        if not math.isfinite(norm):
            raise SettingsError(
                f"the gradient is {norm} at step {self.step}: training diverged; lower optim.lr "
                f"or raise optim.warmup_steps. The last good state is in {config.output / 'state'}"
            )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._average()
        self.step += 1
        return norm

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the losses on the held-out shards, the same batches every time."""
        config = self.config
        loader = PackedLoader(
            config.data.eval_shards,
            vocabulary=self.vocabulary,
            context_length=config.data.row_length or config.decoder.context_length,
            rows_per_batch=config.data.rows_per_batch,
            seed=0,
            condition_dropout=0.0,
        )
        tally = Tally.empty()
        with self.averaged_weights():
            for _ in range(config.data.eval_batches):
                batch = next(loader)
                rows = config.data.rows_at_once or config.data.rows_per_batch
                for part in self.processes.share(batch).split(rows):
                    self._loss(part, self.decoder, 1.0, tally)
        tally.add_up(self.processes)
        return tally.report()

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Put the averaged weights into the decoder for a while, where there are any."""
        parameters = dict(self.decoder.named_parameters()) if self.averaged else {}
        raw = {name: value.detach().clone() for name, value in parameters.items()}
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(self.averaged[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in parameters.items():
                    value.copy_(raw[name])

    def save(self) -> None:
        """Save the state of the run."""
        self.processes.check_alike(self.decoder.parameters())
        if not self.processes.is_first:
            return
        save_state(
            self.config.output / "state",
            network=self.decoder,
            averaged=self.averaged,
            optimizers=self.optimizers,
            counters=Counters(step=self.step, elapsed=self.elapsed, loader=self.loader.state()),
            config=to_plain(self.config),
            keep=self.config.keep_checkpoints,
        )

    def _restore(self) -> None:
        path = latest_state(self.config.output / "state")
        if path is None:
            if self.processes.is_first:
                text = json.dumps(to_plain(self.config), indent=1) + "\n"
                write_atomically(self.config.output / "config.json", text)
            return
        counters = restore_state(
            path,
            network=self.decoder,
            averaged=self.averaged,
            optimizers=self.optimizers,
            config=to_plain(self.config),
        )
        self.loader.restore(counters.loader)
        self.step, self.elapsed = counters.step, counters.elapsed

    def _loss(
        self,
        batch: Batch,
        network: Callable[[Tensor, Tensor, Tensor], Tensor],
        normaliser: float,
        tally: Tally,
    ) -> Tensor:
        moved = batch.to(self.device)
        with autocast(self.device, self.dtype):
            hidden = network(moved.ids, moved.positions, moved.document_ids)
        loss, sums = decoder_loss(
            hidden.to(self.dtype),
            self.decoder.head.weight,
            moved.targets,
            moved.modality,
            alternatives=self.alternatives,
            num_text_ids=self.vocabulary.num_text_ids,
            normaliser=normaliser,
            image_weight=self.config.image_loss_weight,
            z_loss=self.config.z_loss,
        )
        tally.add(sums, batch.targets, self.id_bytes, self.vocabulary.end_image_id)
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        if not self.averaged:
            return
        # The average of a young run would otherwise be mostly its random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        values = [value.detach() for value in self.decoder.parameters()]
        torch._foreach_lerp_(list(self.averaged.values()), values, 1 - decay)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _train_record(
        self, tally: Tally, lr: float, grad_norm: float, seconds: float, peak: float
    ) -> dict[str, float | int | str]:
        flops = step_flops(
            self.config.decoder,
            num_ids=tally.num_ids,
            num_logits=tally.num_logits,
            context_length=self.config.data.row_length or self.config.decoder.context_length,
        )
        return {
            "kind": "train",
            "step": self.step,
            **tally.report(),
            "lr": lr,
            "grad_norm": grad_norm,
            "tokens_per_second": tally.num_ids / seconds,
            "matmul_share": flops / seconds / peak,
            "elapsed": self.elapsed,
            "progress": self.share_done,
        }

    def _title(self) -> str:
        millions = self.config.decoder.num_parameters / 1e6
        kind = str(self.dtype).removeprefix("torch.")
        begun = f"from step {self.step}" if self.step else "from the start"
        return f"decoder of {millions:.1f}M parameters, {kind} on {self.device.type}, {begun}"


def _total_weight(batch: Batch, image_weight: float) -> float:
    counts = batch.targets >= 0
    num_image = int((counts & (batch.modality == 1)).sum())
    return max(1.0, int(counts.sum()) - num_image + image_weight * num_image)


def _detail(record: dict[str, float | int | str]) -> str:
    shown = {
        name: value
        for name, value in record.items()
        if name in ("loss", "loss_text", "loss_image", "bits_per_byte", "bits_per_image")
    }
    speed = f"{record['tokens_per_second']:,.0f} ids/s"
    return f"step {record['step']}: {numbers(shown)}, {speed}"
