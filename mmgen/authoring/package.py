"""Writing the package of a new visual tokenizer: whole or not at all, and never over another."""

from __future__ import annotations

import importlib.util
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import MappingProxyType

from mmgen.authoring.texts import PYPROJECT, README, TEST_HEAD, TESTS, TRAINING
from mmgen.errors import OutputError, SettingsError

__all__ = ["KINDS", "NewPackage", "write_package"]

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "grid": "one code for each block of a picture, in rows",
        "residual": "several codes for each block, coarse to fine",
        "scales": "several grids, coarse to fine, each added to those before it",
        "ordered": "a sequence of codes, the most telling first, of any length",
        "learned": "one code for each block, with weights to train (needs torch)",
    }
)
"""The kinds of tokenizers to start from, and what each is."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_STARTING_POINTS = Path(__file__).parent / "starting_points"
_DEPENDENCIES = {"learned": ("mmgen", "numpy", "torch>=2.5", "safetensors>=0.4")}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPackage:
    """What the parts of a package are called."""

    name: str
    """What users write: the entry point."""
    kind: str
    """One of `KINDS`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"no kind is called {self.kind!r}; there are {', '.join(KINDS)}")
        if not _NAME.fullmatch(self.name) or self.name.endswith(("-", "_")):
            raise SettingsError(
                f"{self.name!r} cannot name a tokenizer: take small letters, digits, '-' and '_', "
                "with a letter first and no sign last"
            )

    @property
    def distribution(self) -> str:
        """What pip calls it."""
        return f"mmgen-{self.name}"

    @property
    def module(self) -> str:
        """What Python calls it."""
        return f"mmgen_{self.name}".replace("-", "_")

    @property
    def class_name(self) -> str:
        """The tokenizer's class."""
        words = re.split("[-_]+", self.name)
        return "".join(word[:1].upper() + word[1:] for word in words) + "Tokenizer"

    def files(self) -> dict[str, str]:
        """Return the text of each file by its path in the package."""
        dependencies = _DEPENDENCIES.get(self.kind, ("mmgen", "numpy"))
        words = {
            "name": self.name,
            "distribution": self.distribution,
            "module": self.module,
            "class_name": self.class_name,
            "kind": self.kind,
            "what": KINDS[self.kind],
            "dependencies": ", ".join(f'"{item}"' for item in dependencies),
        }
        words["training"] = Template(TRAINING).substitute(words) if self.kind == "learned" else ""
        source = (_STARTING_POINTS / f"{self.kind}.py").read_text(encoding="utf-8")
        source = source.replace("StartTokenizer", self.class_name)
        source = source.replace('PLUGIN = "start"', f'PLUGIN = "{self.name}"')
        package = f"src/{self.module}"
        return {
            "pyproject.toml": Template(PYPROJECT).substitute(words),
            "README.md": Template(README).substitute(words),
            f"{package}/__init__.py": (
                f'"""The visual tokenizer `{self.name}` for mmgen."""\n\n'
                f"from {self.module}.tokenizer import {self.class_name}\n\n"
                f'__all__ = ["{self.class_name}"]\n'
            ),
            f"{package}/tokenizer.py": _with_sorted_names(source),
            f"{package}/py.typed": "",
            f"tests/test_{self.module}.py": Template(TEST_HEAD + TESTS[self.kind]).substitute(
                words
            ),
        }


def write_package(package: NewPackage, parent: Path) -> Path:
    """Write `mmgen-NAME` into a directory and return its path.

    Raises:
        SettingsError: Python has another module of the package's name.
        OutputError: something lies there already, or the directory cannot be written.
    """
    target = parent / package.distribution
    if target.exists():
        raise OutputError(f"{target} exists; choose another name, or another place with -o")
    if importlib.util.find_spec(package.module) is not None:
        raise SettingsError(
            f"there is a module {package.module} already, which mmgen-{package.name} would hide; "
            "choose another name"
        )
    part = parent / f".{package.distribution}.{secrets.token_hex(4)}.part"
    try:
        for place, text in package.files().items():
            path = part / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        part.rename(target)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror}; choose another place with -o"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _with_sorted_names(source: str) -> str:
    """Return a module whose `__all__` is in order after the class has its own name."""

    def ordered(found: re.Match[str]) -> str:
        names = re.findall(r'"(\w+)"', found[1])
        # Classes stand before functions, as linters want it.
        names.sort(key=lambda name: (name[0].islower(), name))
        listed = ", ".join(f'"{name}"' for name in names)
        return f"__all__ = [{listed}]"

    return re.sub(r"^__all__ = \[(.*?)\]", ordered, source, count=1, flags=re.MULTILINE)
