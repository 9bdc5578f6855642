"""Resumable jobs over files of rows: every row answered once, whatever happens in between."""

__all__: list[str] = []
