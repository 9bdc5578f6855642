"""Speed and memory of a network with two quantizers: a plugin's own, and a reference.

Both get equal weights and work in turns, so that whatever else the machine does meets both. A
plugin says what is compared; its module of measurements ends in `run_comparison`. Peak memory is
read from /proc, which Linux has.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
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

from mmgen.autoencoding.convolutions import FACTOR, ConvolutionalSettings
from mmgen.autoencoding.grid_tokenizer import GridNetwork
from mmgen.autoencoding.quantizer import AbstractQuantizer

__all__ = ["Comparison", "Peak", "QuantizerPair", "compare", "network_pair", "run_comparison"]

SIZES = (2**10, 2**12, 2**14, 2**16, 2**18)
SIDE = 64
WORKS = ("train", "encode", "decode")
KIB_IN_MIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerPair:
    """Two quantizers that should do the same."""

    module: str
    """The module that `python -m` runs for this comparison."""
    distribution: str
    """What has to be installed for the reference."""
    package: str
    """What the reference imports of it."""
    ours: Callable[[int], AbstractQuantizer]
    """Makes a quantizer of so many codes."""
    reference: Callable[[int], AbstractQuantizer]
    """Makes the other."""
    align: Callable[[AbstractQuantizer, AbstractQuantizer], None]
    """Gives ours the code vectors of the reference."""
    few: int = 64
    """Codes of a quantizer that takes next to no memory."""


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
    """Of the network around the reference."""
    ratio: float
    """Median over rounds of their time by ours in the same round: above 1, ours is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What one round of work needs beyond the same work with few codes, both ways."""

    work: str
    """As in `Comparison`."""
    codebook_size: int
    """Codes."""
    mib: float
    """Of ours, in MiB."""
    reference_mib: float
    """Of the network around the reference."""


def network_pair(pair: QuantizerPair, size: int) -> tuple[GridNetwork, GridNetwork]:
    """Return our network and the reference, of equal weights and code vectors."""
    network, reference = _network(pair.ours(size)), _network(pair.reference(size))
    reference.encoder = copy.deepcopy(network.encoder)
    reference.decoder = copy.deepcopy(network.decoder)
    with torch.no_grad():
        pair.align(network.quantizer, reference.quantizer)
    return network, reference


def compare(
    pair: QuantizerPair,
    sizes: Sequence[int],
    *,
    batch_size: int,
    repeats: int,
    works: Sequence[str] = WORKS,
) -> list[Comparison]:
    """Measure both networks in turns, after one round that does not count.

    Args:
        pair: what to compare.
        sizes: numbers of codes.
        batch_size: pictures of 64 x 64 at once.
        repeats: rounds that count.
        works: of `train`, `encode` and `decode`.
    """
    found = []
    for size in sizes:
        networks = network_pair(pair, size)
        images = _images(batch_size)
        for work in works:
            runs = [_task(work, network, images) for network in networks]
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


def _peak_mib(pair: QuantizerPair, size: int, work: str, *, batch_size: int, side: str) -> float:
    """Return what one round adds in a fresh process to the peak with few codes, in MiB."""
    command = [
        sys.executable, "-m", pair.module, "--measure", side, "--size", str(size),
        "--work", work, "--batch-size", str(batch_size), "--threads", str(torch.get_num_threads()),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _measured_here(
    make: Callable[[int], AbstractQuantizer], few: int, size: int, work: str, batch_size: int
) -> float:
    network, small = _network(make(size)), _network(make(few))
    images = _images(batch_size)
    _task(work, small, images)()
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
    rows = SIDE // FACTOR

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

    sizes = quantizer.codebook_sizes
    codes = torch.stack([torch.randint(n, (len(images), rows, rows)) for n in sizes], dim=-1)
    return encode if work == "encode" else decode


def _seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def _network(quantizer: AbstractQuantizer) -> GridNetwork:
    torch.manual_seed(0)
    network = GridNetwork(ConvolutionalSettings(), quantizer)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _images(batch_size: int) -> Tensor:
    images = torch.rand(batch_size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return images.contiguous(memory_format=torch.channels_last)


def run_comparison(pair: QuantizerPair, words: Sequence[str] | None = None) -> str:
    """Do what a command line asks for and return its output: two tables, or JSON.

    Args:
        pair: what to compare.
        words: of the command line; without them, those of this process.
    """
    parser = _parser(pair)
    chosen = parser.parse_args(words)
    for name in ("batch_size", "repeats", "threads"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    sizes, works = chosen.size or SIZES, chosen.work or WORKS
    if importlib.util.find_spec(pair.package) is None:
        parser.error(f"{pair.distribution} is missing: pip install {pair.distribution}")
    if min(sizes) < pair.few:
        parser.error(f"--size must be {pair.few} or more")
    torch.set_num_threads(chosen.threads)
    if chosen.measure:
        make = pair.ours if chosen.measure == "ours" else pair.reference
        return str(_measured_here(make, pair.few, sizes[0], works[0], chosen.batch_size))
    for size in sizes:
        try:
            pair.ours(size)
        except ValueError as error:
            parser.error(f"--size: {error}")
    found = compare(pair, sizes, batch_size=chosen.batch_size, repeats=chosen.repeats, works=works)
    peaks = [
        Peak(
            work=work,
            codebook_size=size,
            mib=_peak_mib(pair, size, work, batch_size=chosen.batch_size, side="ours"),
            reference_mib=_peak_mib(pair, size, work, batch_size=chosen.batch_size, side="theirs"),
        )
        for work in works
        for size in sizes
    ]
    if chosen.json:
        speeds, memory = [asdict(item) for item in found], [asdict(item) for item in peaks]
        return json.dumps({"speeds": speeds, "peaks": memory})
    return _tables(found, peaks)


def _parser(pair: QuantizerPair) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {pair.module}",
        description=f"Compare training, encoding and decoding with {pair.distribution}.",
    )
    parser.add_argument("--size", type=int, action="append", help="codes; may be repeated")
    parser.add_argument("--work", choices=WORKS, action="append", help="may be repeated")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures of 64 x 64")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--measure", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    return parser


def _tables(found: Sequence[Comparison], peaks: Sequence[Peak]) -> str:
    lines = ["| | codes | images/s | reference | ratio |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {item.work} | {item.codebook_size:,} | {item.images_per_second:.1f} "
        f"| {item.reference_images_per_second:.1f} | {item.ratio:.2f} |"
        for item in found
    ]
    lines += ["", "| | codes | more MiB | reference |", "|---|---:|---:|---:|"]
    lines += [
        f"| {peak.work} | {peak.codebook_size:,} | {peak.mib:.0f} | {peak.reference_mib:.0f} |"
        for peak in peaks
    ]
    return "\n".join(lines)
