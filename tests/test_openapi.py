"""The schema in openapi.json is what the API does: examples made from it, valid and broken."""

import os

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tp1_mnist_api.app import create_app
from tp1_mnist_api.serving.model_file import LAB, Model

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
"""For each route; FUZZ_EXAMPLES=1500 makes 3,249 requests in all."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


app = create_app(Model(LAB / "model" / "mnist.tflite"))
config = schemathesis.Config.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": ["400", "408", "413", "415"]}}}
)
schema = schemathesis.openapi.from_wsgi("/openapi.json", app, config=config)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_the_schema_says(case):
    case.call_and_validate(checks=CHECKS)


def test_every_route_is_described():
    pages = {"/", "/docs", "/openapi.json"}
    assert {rule.rule for rule in app.url_map.iter_rules()} == set(
        schema.raw_schema["paths"]
    ) | pages
