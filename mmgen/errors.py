"""Everything mmgen raises for a state of the world, as one small tree.

    MmgenError
    ├── CheckpointError     a checkpoint that is missing, incomplete, or does not match its parts
    ├── DataError           a source row or a shard that cannot be read
    ├── EngineError         a request that the engine cannot serve
    ├── GrammarError        token ids that spell no document (carries `position`)
    ├── OutputError         a result that cannot be written
    ├── PictureError        a file or bytes that hold no usable picture
    ├── PluginError         a plugin that is unknown, duplicated, broken or not the one expected
    ├── RecipeError         an unknown recipe or an override that does not fit its config
    ├── SettingsError       a setting outside its domain (also a `ValueError`)
    ├── TransientError      a fault that may pass: a connection, a server that is busy
    └── VocabularyError     ids, codes or fingerprints that a vocabulary does not have

A message says what was found, what was expected and what to do. Bugs are `assert`s, not these.
"""

__all__ = [
    "CheckpointError",
    "DataError",
    "EngineError",
    "GrammarError",
    "MmgenError",
    "OutputError",
    "PictureError",
    "PluginError",
    "RecipeError",
    "SettingsError",
    "TransientError",
    "VocabularyError",
]


class MmgenError(Exception):
    """Root of all errors that a user can cause or meet."""


class CheckpointError(MmgenError):
    """A checkpoint is missing, incomplete, or does not match its parts."""


class DataError(MmgenError):
    """A source row or a shard cannot be read."""


class EngineError(MmgenError):
    """A request cannot be served by the engine."""


class GrammarError(MmgenError):
    """Token ids spell no document; `position` is the index of the first offending id."""

    def __init__(self, message: str, *, position: int) -> None:
        super().__init__(f"position {position}: {message}")
        self.position = position


class OutputError(MmgenError):
    """A result cannot be written."""


class PictureError(MmgenError):
    """A file or bytes hold no usable picture."""


class PluginError(MmgenError):
    """A plugin is unknown, duplicated, broken or not the one expected."""


class RecipeError(MmgenError):
    """A recipe is unknown or an override does not fit its config."""


class SettingsError(MmgenError, ValueError):
    """A setting lies outside its domain."""


class TransientError(MmgenError):
    """A connection broke or a server is busy; the same may succeed later.

    `retry_after` is how many seconds to wait, where somebody said so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class VocabularyError(MmgenError):
    """A vocabulary does not have these ids, codes or fingerprints."""
