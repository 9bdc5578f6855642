"""Optimizers and the learning rate: Muon or AdamW for the matrices of blocks, AdamW for the rest.

Muon turns the momentum of a matrix into the nearest matrix whose singular values are all about
one. That costs a few matrix products a step and needs clearly fewer tokens than AdamW. This one
works in the weights' own precision and stacks matrices of one shape, which suits a CPU.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mmgen.model import Decoder
from mmgen.train.config import OptimConfig

__all__ = ["Muon", "build_optimizers", "learning_rate", "orthogonalised", "run_progress"]


def run_progress(step: int, elapsed: float, num_steps: int, max_minutes: float | None) -> float:
    """Return how much of a run is done, 0..1: by steps or by the clock, whichever is further.

    Args:
        elapsed: seconds over all resumptions.
    """
    progress = step / num_steps
    if max_minutes is not None:
        progress = max(progress, elapsed / (60 * max_minutes))
    return min(1.0, progress)


def learning_rate(config: OptimConfig, step: int, progress: float) -> float:
    """Return the rate of the step with this number (from 0) at this progress of the run."""
    floor = config.min_lr_ratio
    if config.decay == "cosine":
        share = floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
    else:
        left = (1 - progress) / config.decay_share if config.decay_share else 1.0
        share = floor + (1 - floor) * min(1.0, left)
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.lr * share * warmup


_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""A quintic that moves singular values in 0..1 towards one (Jordan et al., 2024)."""


def orthogonalised(matrices: Tensor, *, num_iterations: int = 4) -> Tensor:
    """Return the matrices with singular values turned to about one (0.7 to 1.2).

    Values below a hundredth of the norm end lower; four iterations do not reach them.

    Args:
        matrices: `[count, rows, columns]`.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    if x.shape[2] >= 2 * x.shape[1]:
        x = _turned_by_gram(x, num_iterations)
    else:
        for _ in range(num_iterations):
            x = _polynomial(x @ x.mT) @ x
    return x.mT if is_tall else x


def _turned_by_gram(x: Tensor, num_iterations: int) -> Tensor:
    """Iterate on the small square `x @ x.mT` alone, and apply what came of it to the wide `x`.

    Equal to the plain iteration but for rounding, and half its work where `x` is four times as
    wide as high.
    """
    gram = x @ x.mT
    factor = _polynomial(gram)
    turn = factor
    for _ in range(num_iterations - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        turn = factor @ turn
    return turn @ x


def _polynomial(gram: Tensor) -> Tensor:
    """Return `a + b gram + c gram²`, `[count, rows, rows]`."""
    a, b, c = _COEFFICIENTS
    result = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal(dim1=1, dim2=2).add_(a)
    return result


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for matrices.

    Args:
        parameters: matrices.
        splits: rows of each matrix inside one parameter, for parameters that hold several; each
            part is orthogonalised on its own.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        splits: Mapping[nn.Parameter, list[int]],
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.splits = splits

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        assert closure is None, "Muon evaluates nothing by itself"
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = self._momentum(parameter, group["momentum"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                rows = self.splits.get(parameter, [len(parameter)])
                for part, target in zip(
                    torch.split(update, rows), torch.split(parameter, rows), strict=True
                ):
                    by_shape[tuple(part.shape)].append((part, target))
            for (num_rows, num_columns), parts in by_shape.items():
                turned = orthogonalised(torch.stack([part for part, _ in parts]))
                # Brings the update to the root mean square that AdamW's usually has.
                size = group["lr"] * 0.2 * max(num_rows, num_columns) ** 0.5
                torch._foreach_add_([target for _, target in parts], turned.unbind(), alpha=-size)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Return the parameter's look-ahead momentum, its average updated."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum"]
        average.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(average, momentum)


def build_optimizers(decoder: Decoder, config: OptimConfig) -> tuple[torch.optim.Optimizer, ...]:
    """Return the optimizers that together move every parameter of `decoder` once."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    splits: dict[nn.Parameter, list[int]] = {}
    shape = decoder.config
    kv_rows = shape.num_kv_heads * shape.head_dim
    for name, parameter in decoder.named_parameters():
        if parameter.ndim != 2 or not name.startswith("blocks."):
            others.append(parameter)
            continue
        matrices.append(parameter)
        if name.endswith("qkv.weight"):
            splits[parameter] = [shape.num_heads * shape.head_dim, kv_rows, kv_rows]
        elif name.endswith("gate_up.weight"):
            splits[parameter] = [shape.intermediate_size, shape.intermediate_size]
    rest = torch.optim.AdamW(others, lr=config.lr, betas=config.betas, weight_decay=0.0, fused=True)
    if config.matrix_optimizer == "muon":
        return (
            Muon(
                matrices,
                lr=config.lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                splits=splits,
            ),
            rest,
        )
    return (
        torch.optim.AdamW(
            matrices,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        ),
        rest,
    )
