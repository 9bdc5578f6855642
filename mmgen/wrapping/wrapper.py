"""What wrappers share: a folder that holds the wrapped tokenizer and says which one it is.

The wrapped tokenizer is saved whole beside what the wrapper adds, with its plugin's name, version
and fingerprint. Loading refuses any other, however alike.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmgen.errors import MmgenError, PluginError
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Parts

__all__ = ["AbstractWrapper", "Arrays", "Wrapped", "load_wrapped"]

Arrays = Mapping[str, npt.NDArray[Any]]
"""What a wrapper has learned, by name."""

FORMAT = 1
SETTINGS_FILE = "tokenizer_config.json"
ARRAYS_FILE = "wrapper.safetensors"
WRAPPED_DIRECTORY = "wrapped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A tokenizer inside of a wrapper."""

    name: str
    """Its plugin, by entry point."""
    tokenizer: AbstractVisualTokenizer
    """The tokenizer itself, without a guard."""

    @property
    def guarded(self) -> AbstractVisualTokenizer:
        """The tokenizer with a guard, so that its faults name it and not the wrapper."""
        from mmgen.plugins import guarded

        return guarded(self.tokenizer, self.name)


def load_wrapped(
    name: str,
    path: Path | None = None,
    *,
    parts: Parts = "both",
    device: str = "cpu",
    dtype: str = "float32",
) -> Wrapped:
    """Load a tokenizer to be wrapped; as `load_visual_tokenizer`, but without a guard.

    Raises:
        PluginError: it is unknown, or raises anything while it is imported or loaded.
    """
    from mmgen.plugins import VISUAL_TOKENIZERS, find, load_visual_tokenizer_class

    kind = load_visual_tokenizer_class(name)
    try:
        tokenizer: AbstractVisualTokenizer = kind.load(
            path, parts=parts, device=device, dtype=dtype
        )
    except MmgenError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        info = find(VISUAL_TOKENIZERS, name)
        raise PluginError(
            f"visual tokenizer {name!r} of {info.distribution} {info.version} cannot be loaded"
            f"{f' from {path}' if path else ''}: {type(error).__name__}: {error}; repair or "
            f"reinstall {info.distribution}"
        ) from error
    return Wrapped(name=name, tokenizer=tokenizer)


class AbstractWrapper(AbstractVisualTokenizer):
    """A tokenizer made of another one, settings and arrays. A final class adds the two directions.

    Its folder has `tokenizer_config.json`, `wrapper.safetensors` and the wrapped tokenizer in
    `wrapped/`, unless that one has nothing to save.
    """

    name: ClassVar[str]
    """The entry point."""
    maker: ClassVar[str]
    """The command that makes such a tokenizer, for messages."""

    def __init__(self, wrapped: Wrapped) -> None:
        self._wrapped = wrapped

    @property
    def wrapped_name(self) -> str:
        """The plugin of the wrapped tokenizer."""
        return self._wrapped.name

    @property
    def wrapped_fingerprint(self) -> str:
        """The fingerprint of the wrapped tokenizer."""
        return self._wrapped.tokenizer.fingerprint

    @abstractmethod
    def stated(self) -> dict[str, Any]:
        """Return the wrapper's own settings, as JSON takes them."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return what the wrapper has learned."""

    @classmethod
    @abstractmethod
    def restored(
        cls,
        wrapped: Wrapped,
        stated: Mapping[str, Any],
        arrays: Arrays,
        *,
        parts: Parts,
        device: str,
        dtype: str,
    ) -> Self:
        """Return the wrapper of these parts, as `stated` and `arrays` gave them.

        Raises:
            KeyError, TypeError, ValueError: they do not fit together.
        """

    def shaping(self) -> dict[str, Any]:
        """Return those settings that change a code or a pixel; without the others by default."""
        return {key: value for key, value in self.stated().items() if key != "min_psnr"}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the wrapped tokenizer's fingerprint, the settings and what was learned."""
        shaping = [self.name, self.wrapped_name, self.wrapped_fingerprint, self.shaping()]
        digest = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode())
        arrays = self.arrays()
        for key in sorted(arrays):
            digest.update(f"\0{key}\0{arrays[key].dtype}\0{list(arrays[key].shape)}\0".encode())
            digest.update(np.ascontiguousarray(arrays[key]).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        from mmgen.plugins import VISUAL_TOKENIZERS, find

        info = find(VISUAL_TOKENIZERS, self.wrapped_name)
        place = path / WRAPPED_DIRECTORY
        place.mkdir(exist_ok=True)
        self._wrapped.tokenizer.save(place)
        is_saved = any(place.iterdir())
        if not is_saved:
            place.rmdir()
        save_file({key: np.ascontiguousarray(item) for key, item in self.arrays().items()},
                  path / ARRAYS_FILE)  # fmt: skip
        stated = {
            "format": FORMAT,
            "plugin": self.name,
            "wraps": {
                "plugin": self.wrapped_name,
                "distribution": info.distribution,
                "version": info.version,
                "fingerprint": self.wrapped_fingerprint,
                "directory": WRAPPED_DIRECTORY if is_saved else None,
            },
            "settings": self.stated(),
        }
        text = json.dumps(stated, indent=1) + "\n"
        (path / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        if path is None:
            raise PluginError(
                f"{cls.name!r} wraps another tokenizer and ships none; make one with "
                f"`{cls.maker}` and give its folder"
            )
        stated = _read_settings(path / SETTINGS_FILE, cls.name)
        try:
            arrays = load_file(path / ARRAYS_FILE)
        except (OSError, SafetensorError) as error:
            raise PluginError(f"{path / ARRAYS_FILE} cannot be read: {error}") from error
        wrapped = _load_stated(path, stated, parts=parts, device=device, dtype=dtype)
        try:
            return cls.restored(
                wrapped, stated["settings"], arrays, parts=parts, device=device, dtype=dtype
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise PluginError(
                f"the {cls.name} tokenizer in {path} does not fit together: "
                f"{type(error).__name__}: {error}; make it again with `{cls.maker}`"
            ) from error


def _read_settings(file: Path, name: str) -> dict[str, Any]:
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
        found = (stated["format"], stated["plugin"])
        complete = isinstance(stated["settings"], dict) and isinstance(stated["wraps"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PluginError(
            f"no {name} tokenizer in {file.parent}: {file.name} cannot be used "
            f"({type(error).__name__}: {error})"
        ) from error
    if found != (FORMAT, name) or not complete:
        raise PluginError(
            f"{file} is of {found[1]!r} in format {found[0]!r}, expected {name!r} in format "
            f"{FORMAT}"
        )
    assert isinstance(stated, dict)
    return stated


def _load_stated(
    path: Path, stated: Mapping[str, Any], *, parts: Parts, device: str, dtype: str
) -> Wrapped:
    """Load the wrapped tokenizer of a folder, which must be the one that was wrapped."""
    from mmgen.plugins import VISUAL_TOKENIZERS, listed

    try:
        inner = stated["wraps"]
        name, directory, expected = inner["plugin"], inner["directory"], inner["fingerprint"]
        origin = f"{inner['distribution']} {inner['version']}"
    except KeyError as error:
        raise PluginError(f"{path / SETTINGS_FILE} lacks {error}; make it again") from error
    if name not in {info.name for info in listed(VISUAL_TOKENIZERS)}:
        raise PluginError(
            f"the tokenizer in {path} wraps {name!r}, which is not installed; install {origin}"
        )
    place = None if directory is None else path / directory
    wrapped = load_wrapped(name, place, parts=parts, device=device, dtype=dtype)
    found = wrapped.tokenizer.fingerprint
    if found != expected:
        raise PluginError(
            f"the tokenizer in {path} wraps {name!r} with the fingerprint {expected} of {origin}, "
            f"but {place or 'its distribution'} has {found}; take the one that was wrapped"
        )
    return wrapped
