"""Sources of rows as frozen values, for the stages of a recipe; each opens what it describes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmgen.errors import SettingsError

if TYPE_CHECKING:
    from mmgen.data.sources import AbstractSource

__all__ = [
    "AbstractSourceConfig",
    "FolderConfig",
    "ParquetConfig",
    "ShapesConfig",
    "TextConfig",
    "WeightedSource",
]


class AbstractSourceConfig(ABC):
    """What a source is made of."""

    __slots__ = ()

    @abstractmethod
    def open(self) -> AbstractSource:
        """Return the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapesConfig(AbstractSourceConfig):
    """Coloured shapes with captions, drawn on the spot."""

    seed: int = 0
    """Another seed gives other rows."""
    count: int
    """Rows."""
    picture_size: int = 64
    """Height and width in pixels."""

    def open(self) -> AbstractSource:
        from mmgen.data.shapes import ShapesSource

        return ShapesSource(self.seed, self.count, picture_size=self.picture_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetConfig(AbstractSourceConfig):
    """Pictures in a column of a Parquet file."""

    path: Path
    """The file."""
    picture_column: str
    """Column of encoded pictures."""
    caption_columns: tuple[str, ...] = ()
    """Columns of captions."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Attribute to column."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Attribute to the value that every row has."""
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column to the values of which a row must have one."""
    balance: tuple[str, ...] = ()
    """Columns; rows equal in all of them count as one."""

    def open(self) -> AbstractSource:
        from mmgen.data.sources import ParquetSource

        return ParquetSource(
            self.path,
            picture_column=self.picture_column,
            caption_columns=self.caption_columns,
            attributes=self.attributes,
            constants=self.constants,
            filters=self.filters,
            balance=self.balance,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderConfig(AbstractSourceConfig):
    """Pictures of a folder, each with a text file of captions beside it."""

    path: Path
    """The folder."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Attribute to the value that every row has."""

    def open(self) -> AbstractSource:
        from mmgen.data.files import FolderSource

        return FolderSource(self.path, constants=self.constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig(AbstractSourceConfig):
    """Plain texts: a column of a Parquet file, a text file or a folder of them."""

    path: Path
    """The file or folder."""
    column: str = "text"
    """Column of a Parquet file."""
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column to the values of which a row must have one."""
    remove: str = ""
    """Regular expression of what to leave out."""

    def open(self) -> AbstractSource:
        from mmgen.data.texts import TextSource

        return TextSource(self.path, column=self.column, filters=self.filters, remove=self.remove)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedSource:
    """One source of a mixture."""

    source: AbstractSourceConfig
    """The rows."""
    weight: float = 1.0
    """Share of the draws that go to it, in proportion to the other sources."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise SettingsError(f"a source's weight must be positive, got {self.weight}")
