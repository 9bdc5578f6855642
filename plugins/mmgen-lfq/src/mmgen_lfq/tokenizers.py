"""The three tokenizers: the convolutions that tokenizers share, around the signs of latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmgen.autoencoding import (
    AbstractGridTokenizer,
    AbstractQuantizer,
    ConvolutionalSettings,
    LearnedSettings,
)
from mmgen_lfq.binary_spherical import BinarySphericalQuantizer
from mmgen_lfq.grouped import GroupedQuantizer
from mmgen_lfq.lookup_free import LookupFreeQuantizer
from mmgen_lfq.sign_quantizer import AbstractSignQuantizer, SignLosses

__all__ = [
    "BsqSettings",
    "BsqTokenizer",
    "GroupedLfqSettings",
    "GroupedLfqTokenizer",
    "LfqSettings",
    "LfqTokenizer",
    "SignSettings",
]

WEIGHTS = Path(__file__).parent / "weights"
MAX_GROUP_BITS = 16
MAX_JOINT_BITS = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class SignSettings(ConvolutionalSettings):
    """How many bits, how they are spelled, and how they are trained, which changes no picture."""

    ineffective: ClassVar[frozenset[str]] = ConvolutionalSettings.ineffective | {
        "commitment",
        "diversity",
        "entropy",
        "temperature",
    }

    groups: int = 2
    """Codes at a position."""
    group_bits: int = 9
    """Bits of each; a code is one of `2 ** group_bits`."""
    commitment: float = 0.1
    """Weight of the distance of latents from what their codes name."""
    entropy: float = 0.02
    """Weight of the entropy term."""
    diversity: float = 1.0
    """Weight of its second half, the spread over the codes, relative to the first."""
    temperature: float = 1.0
    """Softness of the entropy term's assignments."""

    def __post_init__(self) -> None:
        # Zero arguments would look for the class that `slots` has replaced.
        super(SignSettings, self).__post_init__()
        if self.groups < 1 or not 1 <= self.group_bits <= MAX_GROUP_BITS:
            raise ValueError(
                f"codes need 1 or more groups of 1 to {MAX_GROUP_BITS} bits, "
                f"got {self.groups} of {self.group_bits}"
            )
        if min(self.commitment, self.entropy, self.diversity) < 0 or not self.temperature > 0:
            raise ValueError(
                "commitment, entropy and diversity must not be negative and temperature positive, "
                f"got {self.commitment}, {self.entropy}, {self.diversity} and {self.temperature}"
            )

    @property
    def losses(self) -> SignLosses:
        """The weights of the terms."""
        return SignLosses(
            commitment=self.commitment,
            entropy=self.entropy,
            diversity=self.diversity,
            temperature=self.temperature,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LfqSettings(SignSettings):
    """Bits of one vocabulary, in sub-codes."""

    def __post_init__(self) -> None:
        super(LfqSettings, self).__post_init__()
        if self.groups * self.group_bits > MAX_JOINT_BITS:
            raise ValueError(
                f"the entropy of whole codes is summed over all of them, so there can be "
                f"{MAX_JOINT_BITS} bits at most, got {self.groups} groups of {self.group_bits}; "
                "glfq takes more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BsqSettings(SignSettings):
    """Bits on the sphere, in sub-codes."""

    temperature: float = 0.02
    """Softness of the entropy term's assignments; numbers of unit vectors are small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedLfqSettings(SignSettings):
    """Bits in independent groups."""

    groups: int = 4
    """Codes at a position."""
    group_bits: int = 8
    """Bits of each; a code is one of `2 ** group_bits`."""


class AbstractSignTokenizer(AbstractGridTokenizer):
    """Signs in sub-codes; a final class says which quantizer finds them."""

    quantizer_type: ClassVar[type[AbstractSignQuantizer]]

    @classmethod
    def make_quantizer(cls, settings: LearnedSettings) -> AbstractQuantizer:
        assert isinstance(settings, SignSettings)
        return cls.quantizer_type(
            groups=settings.groups, group_bits=settings.group_bits, losses=settings.losses
        )


class LfqTokenizer(AbstractSignTokenizer):
    """Lookup-free codes of many bits, spelled as two or more sub-codes."""

    name: ClassVar[str] = "lfq"
    settings_type: ClassVar[type[ConvolutionalSettings]] = LfqSettings
    shipped: ClassVar[Path] = WEIGHTS / "lfq"
    quantizer_type: ClassVar[type[AbstractSignQuantizer]] = LookupFreeQuantizer


class BsqTokenizer(AbstractSignTokenizer):
    """Binary spherical codes, spelled as sub-codes."""

    name: ClassVar[str] = "bsq"
    settings_type: ClassVar[type[ConvolutionalSettings]] = BsqSettings
    shipped: ClassVar[Path] = WEIGHTS / "bsq"
    quantizer_type: ClassVar[type[AbstractSignQuantizer]] = BinarySphericalQuantizer


class GroupedLfqTokenizer(AbstractSignTokenizer):
    """Lookup-free codes in independent groups."""

    name: ClassVar[str] = "glfq"
    settings_type: ClassVar[type[ConvolutionalSettings]] = GroupedLfqSettings
    shipped: ClassVar[Path] = WEIGHTS / "glfq"
    quantizer_type: ClassVar[type[AbstractSignQuantizer]] = GroupedQuantizer
