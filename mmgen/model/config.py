"""The settings that fix a decoder's shape, apart from torch so that recipes can be listed fast."""

from __future__ import annotations

from dataclasses import dataclass

from mmgen.errors import SettingsError

__all__ = ["HEAD_DIMS", "DecoderConfig"]

HEAD_DIMS = (64, 128)
"""Head sizes that every attention kernel and serving engine in use here accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder; the names are those of Qwen3 where Qwen3 has one."""

    vocab_size: int
    """Rows of the embedding table, padding included."""
    hidden_size: int
    """Width of the residual stream."""
    num_layers: int
    """Number of blocks."""
    num_heads: int
    """Query heads of a block."""
    num_kv_heads: int
    """Key and value heads of a block; each serves `num_heads / num_kv_heads` query heads."""
    head_dim: int = 64
    """Width of one head, 64 or 128."""
    intermediate_size: int
    """Width of the feed-forward layer."""
    context_length: int
    """Largest number of ids in a sequence; also the length of the rotary tables."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square inside every norm."""
    tie_word_embeddings: bool = True
    """Whether the output layer is the embedding table."""

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "intermediate_size",
            "context_length",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.head_dim not in HEAD_DIMS:
            raise SettingsError(f"head_dim must be one of {HEAD_DIMS}, got {self.head_dim}")
        if self.num_heads % self.num_kv_heads:
            raise SettingsError(
                f"num_heads must be a multiple of num_kv_heads, got {self.num_heads} and "
                f"{self.num_kv_heads}"
            )
        if not self.rope_theta > 0 or not self.rms_norm_eps > 0:
            raise SettingsError(
                f"rope_theta and rms_norm_eps must be positive, got {self.rope_theta} and "
                f"{self.rms_norm_eps}"
            )

    @property
    def num_layer_parameters(self) -> int:
        """Weights of one block."""
        query = self.num_heads * self.head_dim
        key = self.num_kv_heads * self.head_dim
        attention = self.hidden_size * (2 * query + 2 * key) + 2 * self.head_dim
        feed_forward = 3 * self.hidden_size * self.intermediate_size
        return attention + feed_forward + 2 * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """Weights of the whole decoder; a tied table counts once."""
        tables = 1 if self.tie_word_embeddings else 2
        return (
            tables * self.vocab_size * self.hidden_size
            + self.num_layers * self.num_layer_parameters
            + self.hidden_size
        )
