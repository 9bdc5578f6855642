"""Speed and memory beside the same network around vector-quantize-pytorch's quantizer.

`python -m mmgen_vq.bench` builds both with equal weights for codebooks of several sizes and lets
them work in turns, so that whatever else the machine does meets both. Peak memory is read from
/proc, which Linux has. Needs vector-quantize-pytorch.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from einops import rearrange
from torch import Tensor

from mmgen.autoencoding import AbstractQuantizer, GridNetwork, Quantized
from mmgen_vq.losses import CodebookLosses
from mmgen_vq.tokenizers import VqSettings
from mmgen_vq.vector_quantizer import VectorQuantizer

__all__ = ["Comparison", "Peak", "ReferenceQuantizer", "compare", "main", "network_pair"]

SIZES = (2**10, 2**12, 2**14, 2**16, 2**18)
DIM = 8
DECAY = 0.97
SIDE = 64
WORKS = ("train", "encode", "decode")
FEW = 64
KIB_IN_MIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One kind of work at one codebook size, both ways."""

    work: str
    """`train` (forward, backward, optimizer), `encode` or `decode`."""
    codebook_size: int
    """Codes."""
    images_per_second: float
    """Of ours, by the median time."""
    reference_images_per_second: float
    """Of the network around vector-quantize-pytorch's quantizer."""
    ratio: float
    """Median over rounds of their time by ours in the same round: above 1, ours is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What one round of work needs beyond the same work with 64 codes, both ways."""

    work: str
    """As in `Comparison`."""
    codebook_size: int
    """Codes."""
    mib: float
    """Of ours, in MiB."""
    reference_mib: float
    """Of the network around vector-quantize-pytorch's quantizer."""


class ReferenceQuantizer(AbstractQuantizer):
    """The `VectorQuantize` of vector-quantize-pytorch with the same settings, as a quantizer."""

    def __init__(self, size: int, dim: int) -> None:
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        self.dim = dim
        self.codebook_sizes = (size,)
        self.quantize = VectorQuantize(
            dim=dim,
            codebook_size=size,
            decay=DECAY,
            use_cosine_sim=True,
            rotation_trick=False,
            commitment_weight=0.25,
            threshold_ema_dead_code=0.1,
        )

    def forward(self, latents: Tensor) -> Quantized:
        flat = rearrange(latents, "b h w c -> b (h w) c")
        vectors, codes, loss = self.quantize(flat)
        return Quantized(
            vectors=vectors.reshape(latents.shape),
            codes=codes.reshape(*latents.shape[:-1], 1),
            losses={"commitment": loss.sum()} if self.training else {},
        )

    def vectors(self, codes: Tensor) -> Tensor:
        found: Tensor = self.quantize.get_codes_from_indices(codes[..., 0])
        return found

    def code_vectors(self, codebook: int) -> Tensor:
        table: Tensor = self.quantize.codebook
        return table


def make_network(size: int, *, ours: bool) -> GridNetwork:
    """Return the network that mmgen-vq ships, around one of the two quantizers."""
    torch.manual_seed(0)
    losses = CodebookLosses(commitment=0.25, entropy=0.0, temperature=1.0)
    quantizer: AbstractQuantizer = (
        VectorQuantizer(size, DIM, decay=DECAY, losses=losses)
        if ours
        else ReferenceQuantizer(size, DIM)
    )
    network = GridNetwork(VqSettings(codebook_size=size, dim=DIM), quantizer)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def network_pair(size: int) -> tuple[GridNetwork, GridNetwork]:
    """Return our network and the reference, of equal weights and code vectors."""
    network, reference = make_network(size, ours=True), make_network(size, ours=False)
    reference.encoder = copy.deepcopy(network.encoder)
    reference.decoder = copy.deepcopy(network.decoder)
    ours, theirs = network.quantizer, reference.quantizer
    assert isinstance(ours, VectorQuantizer) and isinstance(theirs, ReferenceQuantizer)
    with torch.no_grad():
        ours.codebook.vectors.copy_(theirs.code_vectors(0))
        # Both codebooks begin in use: nothing has to be revived in the first step.
        ours.codebook.mass.fill_(1.0)
    return network, reference


def compare(
    sizes: Sequence[int], *, batch_size: int, repeats: int, works: Sequence[str] = WORKS
) -> list[Comparison]:
    """Measure both networks in turns, after one round that does not count."""
    found = []
    for size in sizes:
        pair = network_pair(size)
        images = torch.rand(batch_size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        images = images.contiguous(memory_format=torch.channels_last)
        for work in works:
            runs = [_task(work, network, images) for network in pair]
            times: list[tuple[float, float]] = []
            for number in range(repeats + 1):
                # Who goes first alternates, so that neither always finds the cache warm.
                order = (0, 1) if number % 2 else (1, 0)
                took = {which: _seconds(runs[which]) for which in order}
                times.append((took[0], took[1]))
            kept = times[1:]
            found.append(
                Comparison(
                    work=work,
                    codebook_size=size,
                    images_per_second=batch_size / median(mine for mine, _ in kept),
                    reference_images_per_second=batch_size / median(other for _, other in kept),
                    ratio=median(other / mine for mine, other in kept),
                )
            )
    return found


def peak_mib(size: int, work: str, *, batch_size: int, ours: bool) -> float:
    """Return what one round adds in a fresh process to the peak with few codes, in MiB."""
    command = [
        sys.executable, "-m", "mmgen_vq.bench", "--measure", "ours" if ours else "theirs",
        "--size", str(size), "--work", work, "--batch-size", str(batch_size),
        "--threads", str(torch.get_num_threads()),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _measured_here(size: int, work: str, *, batch_size: int, ours: bool) -> float:
    network = make_network(size, ours=ours)
    images = torch.rand(batch_size, 3, SIDE, SIDE)
    _task(work, make_network(FEW, ours=ours), images)()
    before = _high_water_mib()
    _task(work, network, images)()
    return _high_water_mib() - before


def _high_water_mib() -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / KIB_IN_MIB


def _task(work: str, network: GridNetwork, images: Tensor) -> Callable[[], object]:
    encoder, decoder, quantizer = network.encoder, network.decoder, network.quantizer
    assert encoder is not None and decoder is not None
    if work == "train":
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)

        def train() -> None:
            output = network.train()(images)
            loss = (output.reconstruction - images).square().mean()
            loss = torch.stack([loss, *output.losses.values()]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return train
    rows = SIDE // 8

    def encode() -> Tensor:
        network.eval()
        with torch.inference_mode():
            codes: Tensor = quantizer(rearrange(encoder(images), "b c h w -> b h w c")).codes
            return codes

    def decode() -> Tensor:
        network.eval()
        with torch.inference_mode():
            drawn: Tensor = decoder(rearrange(quantizer.vectors(codes), "b h w c -> b c h w"))
            return drawn

    codes = torch.randint(quantizer.codebook_sizes[0], (len(images), rows, rows, 1))
    return encode if work == "encode" else decode


def _seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def main(words: Sequence[str] | None = None) -> None:
    """Print a table of speeds and a table of memory, or both as JSON."""
    parser = argparse.ArgumentParser(prog="python -m mmgen_vq.bench", description=__doc__)
    parser.add_argument("--size", type=int, action="append", help="codes; may be repeated")
    parser.add_argument("--work", choices=WORKS, action="append", help="may be repeated")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures of 64 x 64")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--measure", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    sizes, works = chosen.size or SIZES, chosen.work or WORKS
    for name in ("batch_size", "repeats", "threads"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    if min(sizes) < 2:
        parser.error("--size must be 2 or more")
    torch.set_num_threads(chosen.threads)
    if chosen.measure:
        ours = chosen.measure == "ours"
        print(_measured_here(sizes[0], works[0], batch_size=chosen.batch_size, ours=ours))
        return
    try:
        import vector_quantize_pytorch  # noqa: F401
    except ImportError:
        parser.error("vector-quantize-pytorch is missing: pip install 'mmgen-vq[bench]'")
    found = compare(sizes, batch_size=chosen.batch_size, repeats=chosen.repeats, works=works)
    memory = [
        Peak(
            work=work,
            codebook_size=size,
            mib=peak_mib(size, work, batch_size=chosen.batch_size, ours=True),
            reference_mib=peak_mib(size, work, batch_size=chosen.batch_size, ours=False),
        )
        for work in works
        for size in sizes
    ]
    if chosen.json:
        speeds, peaks = [asdict(item) for item in found], [asdict(item) for item in memory]
        print(json.dumps({"speeds": speeds, "peaks": peaks}))
        return
    print("| | codes | ours images/s | theirs images/s | ratio |\n|---|---:|---:|---:|---:|")
    for item in found:
        print(
            f"| {item.work} | {item.codebook_size:,} | {item.images_per_second:.1f} "
            f"| {item.reference_images_per_second:.1f} | {item.ratio:.2f} |"
        )
    print("\n| | codes | ours MiB more | theirs MiB more |\n|---|---:|---:|---:|")
    for peak in memory:
        print(
            f"| {peak.work} | {peak.codebook_size:,} | {peak.mib:.0f} | {peak.reference_mib:.0f} |"
        )


if __name__ == "__main__":
    main()
