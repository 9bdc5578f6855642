"""The description of the routes against the routes, by requests that schemathesis makes of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serve.conftest import RunningServer, wait_until

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
ROUTES = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/images/generations"),
    ("POST", "/v1/images/edits"),
]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *((*route, mode) for route in ROUTES for mode in GenerationMode),
        ("GET", "/v1/models/{name}", GenerationMode.POSITIVE),
    ],
)
def test_every_answer_is_a_described_one(
    server: RunningServer, method: str, path: str, mode: GenerationMode
) -> None:
    """Requests that keep to the description, and such that do not."""
    described = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    operation = described[path][method]
    seen: Counter[int] = Counter()

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(timeout=60)
        seen[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500

    ask()
    wait_until(lambda: server.is_idle)
    assert sum(seen.values()) >= 10
    if mode is GenerationMode.NEGATIVE:
        assert max(seen) >= 400
