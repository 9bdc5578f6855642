"""The command line: a thin client of the library, one module per group of commands."""

__all__: list[str] = []
