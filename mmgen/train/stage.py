"""What a recipe is made of: stages, and pipelines of stages that run one after another.

Both are frozen configs. A stage knows from what lies in its output directory whether it is done,
so that a pipeline which was stopped anywhere goes on there.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

from mmgen.train.progress import AbstractProgress

__all__ = ["AbstractStage", "Pipeline"]


class AbstractStage(ABC):
    """A frozen config that can carry itself out."""

    __slots__ = ()

    @property
    @abstractmethod
    def title(self) -> str:
        """A few words for the progress display."""

    @property
    @abstractmethod
    def is_finished(self) -> bool:
        """Whether the results are there already.

        Raises:
            MmgenError: results of other settings are in the way.
        """

    @property
    def is_shared(self) -> bool:
        """Whether several processes carry it out together; otherwise the first does, alone."""
        return False

    @abstractmethod
    def run(self, progress: AbstractProgress) -> bool:
        """Do the work, or what is left of it; return False if it was asked to stop early."""


class Pipeline(ABC):  # noqa: B024
    """A frozen dataclass whose fields are stages or pipelines, run in the order of the fields."""

    __slots__ = ()

    def stages(self) -> dict[str, AbstractStage]:
        """Return the stages in order by dotted name.

        Raises:
            TypeError: a field is neither a stage nor a pipeline.
        """
        assert dataclasses.is_dataclass(self), f"{type(self).__name__} must be a dataclass"
        found: dict[str, AbstractStage] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Pipeline):
                found |= {f"{field.name}.{name}": stage for name, stage in value.stages().items()}
            elif isinstance(value, AbstractStage):
                found[field.name] = value
            else:
                raise TypeError(f"{type(self).__name__}.{field.name} is no stage: {value!r}")
        return found
