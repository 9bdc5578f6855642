"""What is measured of a tokenizer: plain values, which tables, plots and files are made from."""

from __future__ import annotations

from dataclasses import dataclass

from mmgen.evaluate.code_model import CodeModelScore
from mmgen.evaluate.glyphs import SignScore
from mmgen.evaluate.probe import ProbeScore
from mmgen.evaluate.robustness import Damage
from mmgen.evaluate.words import CaptionPoint
from mmgen.testing import Speed

__all__ = ["BookFigures", "Figures", "RatePoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookFigures:
    """How the pictures used one codebook."""

    size: int
    """Codes there are."""
    used: float
    """Share of the codes that occurred."""
    num_dead: int
    """Codes that never occurred in these pictures."""
    entropy: float
    """Bits that a code says, on average, when only its own frequency is known."""
    perplexity: float
    """Number of equally frequent codes of the same entropy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePoint:
    """Fidelity at one size."""

    tokens: float
    """Codes of a picture."""
    bytes_per_picture: float
    """Size of the codes when all of a codebook cost the same."""
    psnr: float
    """Mean over pictures, in dB."""
    ssim: float
    """Mean over pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one tokenizer."""

    name: str
    """What it is called."""
    fingerprint: str
    """The tokenizer's own fingerprint."""
    num_parameters: int | None
    """Weights of its network; none where it has nothing to train."""
    num_pictures: int
    """Pictures measured."""
    picture_sizes: tuple[tuple[int, int], ...]
    """Heights and widths in pixels at which they were."""
    tokens_per_picture: float
    """Mean number of codes."""
    bits_per_picture: float
    """Mean size of the codes when all of a codebook cost the same."""
    entropy_bits_per_picture: float
    """Mean size when each code costs what its frequency in these pictures says."""
    psnr: float
    """Mean over pictures, in dB."""
    ssim: float
    """Mean over pictures."""
    ms_ssim: float
    """Mean over pictures, at as many scales as `num_scales`."""
    num_scales: int
    """Scales that the smallest picture has room for, 5 in publications."""
    detail_psnr: float
    """Mean PSNR in dB of the tenth of the pixels where a picture changes most."""
    signs: tuple[SignScore, ...]
    """Letters and digits that can still be read, by size."""
    classifier_distance: float | None
    """Fréchet distance in the features of mmgen's own classifier; none without one."""
    codebooks: tuple[BookFigures, ...]
    """One item per codebook."""
    damage: tuple[Damage, ...]
    """Fidelity after codes were replaced."""
    rate: tuple[RatePoint, ...]
    """Fidelity at several lengths of the tokenizer, the shortest first; one point if it has one."""
    speeds: tuple[Speed, ...]
    """Pictures per second."""
    code_model: CodeModelScore | None = None
    """How hard the codes are to predict; none if that was not asked for."""
    probe: ProbeScore | None = None
    """What the codes say of a class; none if that was not asked for."""
    words: tuple[CaptionPoint, ...] = ()
    """What captions are worth; nothing of a tokenizer that reads none, or was given none."""
