"""Complete small tokenizers, one of each kind, which `mmgen tokenizer new` copies into a package.

Each module is what its author finds: it imports of mmgen only what a plugin may, and its class is
called `StartTokenizer` until it is copied.
"""

__all__: list[str] = []
