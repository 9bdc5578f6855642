"""Overrides: every annotation that configs use, and errors that say what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from mmgen.errors import RecipeError
from mmgen.train.overrides import apply_overrides, differences, to_plain, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    path: Path = Path("a")
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    decay: Literal["cosine", "wsd"] = "wsd"
    low: int = 1
    high: int = 2

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    parts: tuple[Part, ...] = (Part(), Part(path=Path("b")))
    names: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    limit: int | None = None
    minutes: float | None = None
    place: Path | None = None
    table: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)
    quiet: bool = False
    label: str = "x"
    optional: Inner | None = None


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("inner.lr=3e-4", "inner.lr", 3e-4),
        ("inner.lr=1", "inner.lr", 1.0),
        ("inner.betas=0.8,0.99", "inner.betas", (0.8, 0.99)),
        ("inner.betas=[0.8, 0.99]", "inner.betas", (0.8, 0.99)),
        ("inner.betas.1=0.5", "inner.betas", (0.9, 0.5)),
        ("inner.decay=cosine", "inner.decay", "cosine"),
        ("parts.1.weight=2", "parts", (Part(), Part(path=Path("b"), weight=2.0))),
        ('parts=[{"path": "c", "weight": 3}]', "parts", (Part(path=Path("c"), weight=3.0),)),
        ("parts.0.path=~/x", "parts", (Part(path=Path("~/x").expanduser()), Part(path=Path("b")))),
        ("names=a, b", "names", ("a", "b")),
        ("names=", "names", ()),
        ("sizes=[[64, 64], [64, 96]]", "sizes", ((64, 64), (64, 96))),
        ("limit=5", "limit", 5),
        ("limit=none", "limit", None),
        ("minutes=7", "minutes", 7.0),
        ("place=out/x", "place", Path("out/x")),
        ('table={"a": 1}', "table", {"a": 1.0}),
        ('extra={"a": [1, "b"]}', "extra", {"a": [1, "b"]}),
        ("quiet=true", "quiet", True),
        ("label=a=b", "label", "a=b"),
        ('optional={"lr": 0.5}', "optional", Inner(lr=0.5)),
    ],
)
def test_a_value_is_read_by_its_annotation(override: str, path: str, value: object) -> None:
    config: object = apply_overrides(Outer(), [override])
    for name in path.split("."):
        config = getattr(config, name)
    assert config == value and type(config) is type(value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.lrr=1", r"no field inner\.lrr; did you mean inner\.lr\?"),
        ("zzz=1", r"no field zzz; There are: inner, parts"),
        ("inner.lr=fast", r"inner\.lr must be float, got 'fast'"),
        ("inner.lr=nan", r"inner\.lr must be float"),
        ("limit=1.5", r"limit must be int or none, got '1\.5'"),
        ("inner.decay=linear", r"inner\.decay must be one of cosine, wsd, got 'linear'"),
        ("quiet=1", r"quiet must be bool, got '1'"),
        ("inner.betas=0.9", r"inner\.betas needs 2 values, got 1"),
        ("inner.betas=0.9,b", r"inner\.betas\.1 must be float, got 'b'"),
        ("parts.2.weight=1", r"parts\.2 does not exist: parts has 2 items"),
        ('parts=[{"pat": "c"}]', r"no field parts\.0\.pat; did you mean parts\.0\.path\?"),
        ("inner.lr.x=1", r"inner\.lr is 0\.001, which has no field 'x'"),
        ("inner.low=5", r"refuses low=5: low 5 is above high 2"),
        ("inner=3", r"inner must be Inner, got '3'"),
        ("table=[1]", r"table must be .*Mapping"),
        ("inner.lr", r"is no override; write field=value"),
        ("=3", r"is no override"),
        ("inner..lr=3", r"is no override"),
        ("place=", r"place must be Path or none"),
    ],
)
def test_what_does_not_fit_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        apply_overrides(Outer(), [override])


def test_overrides_are_applied_together() -> None:
    config = apply_overrides(Outer(), ["inner.low=5", "inner.high=9", "inner.high=7"])
    assert (config.inner.low, config.inner.high) == (5, 7)


def test_a_whole_and_its_part_cannot_both_be_set() -> None:
    with pytest.raises(RecipeError, match="which is set as a whole"):
        apply_overrides(Outer(), ['optional={"lr": 1}', "optional.lr=2"])


def test_differences_name_paths_and_both_values() -> None:
    old = to_plain(Outer())
    new = to_plain(apply_overrides(Outer(), ["inner.lr=1", "parts.1.path=c", "names=a"]))
    assert differences(old, old) == {}
    assert differences(old, new) == {
        "inner.lr": (1e-3, 1.0),
        "parts.1.path": ("b", "c"),
        "names": ([], ["a"]),
    }
    assert set(differences(to_plain(Outer(parts=())), new)) == {"parts", "inner.lr", "names"}


def test_a_field_newer_than_the_stored_config_is_no_difference() -> None:
    old = to_plain(Outer())
    assert isinstance(old, dict)
    del old["label"]
    assert differences(old, to_plain(Outer())) == {}


def test_walking_gives_every_leaf_in_the_form_of_an_override() -> None:
    leaves = dict(walk(to_plain(Outer())))
    assert leaves["inner.betas"] == [0.9, 0.95] and leaves["parts.1.path"] == "b"
    assert leaves["limit"] is None
