"""Tokenizers that take a tokenizer and give a tokenizer.

`merged` writes runs of codes as one code, `bridged` gives continuous latents codes after training,
`redecoded` draws the codes of a tokenizer with another decoder. Each is found by entry point like
any plugin, but ships nothing: its folder is what makes it one, and holds what it wraps.
"""

__all__: list[str] = []
