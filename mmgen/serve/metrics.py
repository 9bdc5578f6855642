"""What a server counts, for Prometheus. Rates are taken there: `rate(mmgen_tokens_total[1m])`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mmgen.generate.engine import AbstractEngine
from mmgen.generate.events import Usage

__all__ = ["Metrics"]

_NOW = ("num_waiting", "num_running")
"""Counters of an engine that also fall."""

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters and gauges of one server."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, engine: AbstractEngine) -> None:
        """Start at zero, in a registry of its own.

        Args:
            engine: tells what it counts of itself, as `mmgen_engine_*`.
        """
        self.registry = registry = CollectorRegistry()
        registry.register(_EngineCounters(engine))
        self._requests = Counter(
            "mmgen_requests", "Requests by route and HTTP status.", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self._refused = Counter(
            "mmgen_requests_refused", "Requests turned away before work.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "mmgen_turns_waiting", "Turns without a first token yet.", registry=registry
        )
        self._running = Gauge("mmgen_turns_running", "Turns that get tokens.", registry=registry)
        self._turns = Counter("mmgen_turns", "Turns by how they ended.", ["end"], registry=registry)
        self._tokens = Counter(
            "mmgen_tokens", "Tokens generated, of finished text and pictures.",
            ["modality"], registry=registry,
        )  # fmt: skip
        self._prompt_tokens = Counter(
            "mmgen_prompt_tokens", "Tokens read, of finished turns.", registry=registry
        )
        self._images = Counter("mmgen_images", "Pictures drawn.", registry=registry)
        self._previews = Counter(
            "mmgen_previews", "Previews by what became of them.", ["outcome"], registry=registry
        )
        self._first_token = Histogram(
            "mmgen_time_to_first_token_seconds", "From the request to its first token.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._first_preview = Histogram(
            "mmgen_time_to_first_preview_seconds", "From the request to its first preview.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._turn_seconds = Histogram(
            "mmgen_turn_seconds", "From the request to the end of its turn.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        for modality in ("text", "image"):
            self._tokens.labels(modality)

    def text(self) -> bytes:
        """Return everything in Prometheus's format."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float:
        """Return one value by the name and labels that the text has."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def request(self, route: str, status: int) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()

    def refused(self, reason: Literal["key", "body", "load"]) -> None:
        """Count a request that was turned away."""
        self._refused.labels(reason).inc()

    def turn_waits(self) -> None:
        """Count a turn in."""
        self._waiting.inc()

    def turn_starts(self, seconds: float) -> None:
        """Count a turn as running, with the time to its first token."""
        self._waiting.dec()
        self._running.inc()
        self._first_token.observe(seconds)

    def turn_ends(self, end: str, seconds: float, *, was_running: bool) -> None:
        """Count a turn out."""
        (self._running if was_running else self._waiting).dec()
        self._turns.labels(end).inc()
        self._turn_seconds.observe(seconds)

    def image(self, num_codes: int) -> None:
        """Count a picture."""
        self._images.inc()
        self._tokens.labels("image").inc(num_codes)

    def used(self, usage: Usage) -> None:
        """Count what a finished turn read and said."""
        self._prompt_tokens.inc(usage.prompt_ids)
        self._tokens.labels("text").inc(usage.text_ids)

    def preview(self, outcome: Literal["sent", "dropped"]) -> None:
        """Count a preview."""
        self._previews.labels(outcome).inc()

    def first_preview(self, seconds: float) -> None:
        """Note the time to a turn's first preview."""
        self._first_preview.observe(seconds)


class _EngineCounters(Collector):
    """What an engine counts, looked up whenever somebody asks."""

    def __init__(self, engine: AbstractEngine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        for name, value in self._engine.counters.items():
            label, words = name.removeprefix("num_"), name.removeprefix("num_").replace("_", " ")
            if name in _NOW:
                yield GaugeMetricFamily(
                    f"mmgen_engine_{label}", f"Engine: {words} requests.", value=value
                )
            else:
                yield CounterMetricFamily(
                    f"mmgen_engine_{label}", f"Engine: {words} so far.", value=value
                )
