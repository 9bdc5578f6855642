"""Checks of trainable tokenizers: the network, and that the fingerprint follows its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmgen.testing.subject import (
    CAPTION,
    TOLERATED_CODES,
    Check,
    Fault,
    NotApplicable,
    Subject,
    check_same_codes,
    check_same_pictures,
    decode,
    encode,
)
from mmgen.visual_tokenizer import AbstractVisualTokenizer, TrainingOutput

if TYPE_CHECKING:
    import torch

__all__ = ["TRAINING_CHECKS"]

MAX_TENSORS = 8
"""Weights that are changed one by one, of a network with many."""


def _training(subject: Subject) -> str:
    _require_trainable(subject)
    import torch
    from einops import rearrange

    network = subject.reload().network().train()
    size = subject.sizes[0]
    pictures = [picture for picture in subject.mixed if picture.shape[:2] == size]
    batch = rearrange(torch.from_numpy(np.stack(pictures)), "b h w c -> b c h w").contiguous()
    captions = [[CAPTION] * (len(batch) - 1) + [""]] if subject.spec.captions_used else []
    output = network(batch, *captions)
    if not isinstance(output, TrainingOutput):
        raise Fault(f"the network gave a {type(output).__name__}, expected a TrainingOutput")
    if output.reconstruction.shape != batch.shape:
        raise Fault(
            f"the reconstruction of {list(batch.shape)} is {list(output.reconstruction.shape)}"
        )
    codes = output.codes
    num_codebooks = len(subject.spec.codebook_sizes)
    if codes.ndim != 3 or codes.shape[0] != len(batch) or codes.shape[2] != num_codebooks:
        raise Fault(
            f"the codes are {list(codes.shape)}, expected "
            f"[{len(batch)}, positions, {num_codebooks}]"
        )
    if codes.is_floating_point():
        raise Fault(f"the codes are {codes.dtype}, expected integers")
    loss = (output.reconstruction - batch).square().mean() + sum(output.losses.values())
    if not isinstance(loss, torch.Tensor) or not torch.isfinite(loss):
        raise Fault(f"the loss is {loss}")
    loss.backward()  # type: ignore[no-untyped-call]
    wanted = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    reached = [name for name, parameter in wanted if parameter.grad is not None]
    if not reached:
        raise Fault("no parameter gets a gradient")
    if not all(torch.isfinite(p.grad).all() for _, p in wanted if p.grad is not None):
        raise Fault("some gradients are not finite")
    return f"loss {float(loss.detach()):.3f}, gradients reach {len(reached)} of {len(wanted)}"


def _weights(subject: Subject) -> str:
    _require_trainable(subject)
    names = sorted(_tensors(subject.reload().network()))
    if not names:
        raise Fault("the network has no weights")
    picked = np.unique(np.linspace(0, len(names) - 1, MAX_TENSORS).round().astype(int))
    if not _check_moved(subject, names, "all"):
        raise Fault(
            "changing every weight of network() changes neither codes nor pixels: it is not the "
            "tokenizer's own"
        )
    telling = [_check_moved(subject, [names[index]], str(index)) for index in picked]
    return f"{len(names)} tensors; of {len(picked)} changed one by one, {sum(telling)} matter"


def _check_moved(subject: Subject, names: list[str], label: str) -> bool:
    """Change weights of a copy, save and load it; return whether codes or pixels changed."""
    copy = subject.reload()
    tensors = _tensors(copy.network())
    for name in names:
        tensors[name].add_(0.5)
    if not _is_different(subject, copy):
        return False
    weights = "every weight" if len(names) > 1 else names[0]
    original = subject.tokenizer.fingerprint
    if copy.fingerprint == original:
        raise Fault(f"changing {weights} changes codes or pixels, but not the fingerprint")
    directory = subject.directory / f"moved_{label}"
    directory.mkdir()
    copy.save(directory)
    loaded = type(copy).load(directory)
    if loaded.fingerprint != copy.fingerprint:
        raise Fault(
            f"after {weights} changed, the fingerprint is {copy.fingerprint} before saving and "
            f"{loaded.fingerprint} after loading"
        )
    codes = encode(copy, subject.mixed)
    check_same_codes(codes, encode(loaded, subject.mixed), tolerated=TOLERATED_CODES)
    return True


def _is_different(subject: Subject, copy: AbstractVisualTokenizer) -> bool:
    try:
        codes = encode(subject.reference, subject.mixed)
        check_same_codes(codes, encode(copy, subject.mixed), tolerated=0.0)
        pictures = decode(subject.reference, codes)
        check_same_pictures(pictures, decode(copy, codes), tolerated=0.0)
    except Fault:
        return True
    return False


def _tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the floating-point weights and buffers, sharing memory with the network."""
    return {
        name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()
    }


def _require_trainable(subject: Subject) -> None:
    if not subject.tokenizer.is_trainable:
        raise NotApplicable("the tokenizer is not trainable")


TRAINING_CHECKS = (
    Check(
        name="training",
        tried="one forward and one backward pass of network()",
        remedy="return TrainingOutput with a reconstruction that gradients flow through",
        run=_training,
    ),
    Check(
        name="weights",
        tried="change weights of network(), save, load; compare fingerprint, codes and pixels",
        remedy="hash every weight and buffer at the time fingerprint is read, and save the live "
        "weights",
        run=_weights,
    ),
)
