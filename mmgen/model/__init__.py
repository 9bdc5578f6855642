"""The decoder: integers in, logits out. Nothing in this package knows what an id stands for."""

from __future__ import annotations

from mmgen.model.config import DecoderConfig
from mmgen.model.decoder import Decoder, init_weights
from mmgen.model.kv_cache import KVCache

__all__ = ["Decoder", "DecoderConfig", "KVCache", "init_weights"]
