"""Checks across processes, loads and halves catch their faults."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from mmgen.errors import PluginError
from mmgen.testing import check
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Codes, Parts, Picture
from mmgen_palette import PaletteTokenizer


class Tinted(PaletteTokenizer):
    """Honest: one setting, which is saved and is part of the fingerprint."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift = shift

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint} {self.shift}".encode()).hexdigest()

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        honest = super().encode(images, length=length, quality=quality, captions=captions)
        return [Codes((item.array + self.shift) % 256, item.layout) for item in honest]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        super().decode(codes)  # refuses what is illegal
        return super().decode(
            [Codes((item.array - self.shift) % 256, item.layout) for item in codes]
        )

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        return cls() if path is None else cls(json.loads((path / "shift.json").read_text()))

    def save(self, path: Path) -> None:
        (path / "shift.json").write_text(json.dumps(self.shift))


class SavesNothing(Tinted):
    def save(self, path: Path) -> None:
        pass


class SavesNothingAndHidesIt(SavesNothing):
    @property
    def fingerprint(self) -> str:
        return "5" * 64


class Pickles(Tinted):
    def save(self, path: Path) -> None:
        super().save(path)
        (path / "weights.pt").write_bytes(b"")


class SaltedFingerprint(PaletteTokenizer):
    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(str(hash("palette")).encode()).hexdigest()


class ShortFingerprint(PaletteTokenizer):
    @property
    def fingerprint(self) -> str:
        return super().fingerprint[:8]


class CountingFingerprint(PaletteTokenizer):
    looks = 0

    @property
    def fingerprint(self) -> str:
        self.looks += 1
        return f"{self.looks:064x}"


class OneHalf(PaletteTokenizer):
    """Honest: the encoder alone cannot decode, and says so."""

    parts: Parts = "both"
    refusal: type[Exception] = PluginError

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        loaded = cls()
        loaded.parts = parts
        return loaded

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        if self.parts == "encoder":
            raise self.refusal("the decoder was not loaded")
        return super().decode(codes)


class OneHalfCrashes(OneHalf):
    refusal = AttributeError


@pytest.mark.parametrize(
    ("faulty", "name", "found"),
    [
        (SavesNothing(7), "save and load", "when loaded"),
        (SavesNothingAndHidesIt(7), "save and load", "codes differ"),
        (Pickles(), "save and load", "weights.pt"),
        (SaltedFingerprint(), "fresh process", "there"),
        (ShortFingerprint(), "fingerprint", "64 lower-case hex digits"),
        (CountingFingerprint(), "fingerprint", "from one look to the next"),
        (OneHalfCrashes(), "halves", "AttributeError"),
    ],
)
def test_fault_is_caught(faulty: AbstractVisualTokenizer, name: str, found: str) -> None:
    (result,) = check(faulty, only=[name]).failures
    assert result.name == name
    assert found in result.found
    assert result.remedy


@pytest.mark.parametrize("honest", [Tinted(7), OneHalf()])
def test_honest_tokenizers_pass(honest: AbstractVisualTokenizer) -> None:
    report = check(honest, skip=("imports", "fresh process", "speed"))
    assert report.is_passed, report.to_text()


def test_settings_reach_the_fresh_process() -> None:
    report = check(Tinted(7), only=["fresh process"])
    assert report.is_passed, report.to_text()


def test_class_of_a_function_cannot_be_found_elsewhere() -> None:
    class Local(PaletteTokenizer):
        pass

    (result,) = check(Local, only=["fresh process"]).failures
    assert "define it in a module" in result.found


@pytest.fixture
def plugin_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("greedy_"):
            del sys.modules[name]


def test_import_of_another_part_of_mmgen_is_caught(plugin_directory: Path) -> None:
    (plugin_directory / "greedy_layers.py").write_text(
        "import mmgen.plugins\nfrom mmgen_palette import PaletteTokenizer\n"
        "class Greedy(PaletteTokenizer): pass\n"
    )
    (result,) = check(import_module("greedy_layers").Greedy, only=["imports"]).failures
    assert result.found == (
        "importing greedy_layers imports mmgen.guarded_tokenizer, mmgen.plugins"
    )


def test_cuda_at_import_is_caught(plugin_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A small torch of our own stands in: no test machine need have a CUDA device.
    (plugin_directory / "torch.py").write_text(
        "class cuda:\n    is_initialized = staticmethod(lambda: True)\n"
    )
    (plugin_directory / "greedy_device.py").write_text(
        "import torch\nfrom mmgen_palette import PaletteTokenizer\n"
        "class Greedy(PaletteTokenizer): pass\n"
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    (result,) = check(import_module("greedy_device").Greedy, only=["imports"]).failures
    assert result.found == "importing greedy_device initialises CUDA"


def test_failure_in_the_fresh_process_is_reported(plugin_directory: Path) -> None:
    (plugin_directory / "greedy_once.py").write_text(
        "import os\nfrom mmgen_palette import PaletteTokenizer\n"
        "class Greedy(PaletteTokenizer): pass\n"
    )
    kind = import_module("greedy_once").Greedy
    (plugin_directory / "greedy_once.py").write_text("raise RuntimeError('only once')\n")
    (result,) = check(kind, only=["imports"]).failures
    assert "ended with code 1: RuntimeError: only once" in result.found
