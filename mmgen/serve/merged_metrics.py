"""The counters of several replicas as one page, each with the number of its replica as a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

__all__ = ["merged_metrics"]


def merged_metrics(pages: Sequence[str | None]) -> bytes:
    """Return one page in Prometheus's format.

    Args:
        pages: what each replica says, in the same format; None for one that says nothing.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Pages(pages))
    return generate_latest(registry)


class _Pages(Collector):
    def __init__(self, pages: Sequence[str | None]) -> None:
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "mmgen_replica_up", "Whether a replica serves requests.", labels=["replica"]
        )
        families: dict[str, Metric] = {}
        for number, page in enumerate(self._pages):
            up.add_metric([str(number)], float(page is not None))
            for family in text_string_to_metric_families(page or ""):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "replica": str(number)}
                    merged.add_sample(sample.name, labels, sample.value)
        yield up
        yield from families.values()
