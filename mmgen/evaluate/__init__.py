"""Measuring: how faithful a tokenizer is, what a model can draw and name, how fast it all runs.

Each measure is a plain function of pictures and answers; the commands `mmgen evaluate` and
`mmgen bench` only gather inputs and show results.
"""

__all__: list[str] = []
