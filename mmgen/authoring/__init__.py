"""Starting a plugin: a complete package of a visual tokenizer that works before it is changed."""

from __future__ import annotations

from mmgen.authoring.package import KINDS, NewPackage, write_package

__all__ = ["KINDS", "NewPackage", "write_package"]
