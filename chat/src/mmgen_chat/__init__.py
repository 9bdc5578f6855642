"""A chat in the terminal where pictures appear as they are drawn.

Importing the package loads nothing else: one-shot use needs no user interface, and talking to a
server needs no model.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
