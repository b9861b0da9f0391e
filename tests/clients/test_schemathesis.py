"""Schemathesis: what the API says of itself, tried with what it says it takes.

No request may be answered by a failure of the hub, nor by a code or a type that is not in its OpenAPI.
"""

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from clients_parts import served

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
GROUPS = ["api/v1", "apis/clients.example/v1", "apis/coordination.k8s.io/v1", "apis/transom.dev/v1"]


class Caller:
    """A hub of its own, since much is deleted, and the administrator's way to it."""

    def __init__(self, hub):
        self.address = hub.plant.hub.address
        self.ca_file = str(hub.plant.hub.folder / "ca.pem")
        user = yaml.safe_load(hub.kubeconfig.read_text())["users"][0]["user"]
        self.headers = {"Authorization": f"Bearer {user['token']}"}

    def get(self, path):
        answer = requests.get(self.address + path, headers=self.headers, verify=self.ca_file, timeout=30)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    with served(tmp_path_factory.mktemp("schemathesis")) as hub:
        yield Caller(hub)


def tried(caller, group, examples, number):
    document = caller.get(caller.get("/openapi/v3")["paths"][group]["serverRelativeURL"])
    schema = schemathesis.openapi.from_dict(document)
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @seed(number)
        @settings(
            max_examples=examples,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def one(case):
            nonlocal count
            # Whoever watches waits, as is right.
            case.query.pop("watch", None)
            case.call_and_validate(
                base_url=caller.address,
                headers=caller.headers,
                verify=caller.ca_file,
                timeout=30,
                checks=CHECKS,
            )
            count += 1

        one()
    return count


@pytest.mark.parametrize("group", GROUPS)
def test_every_operation_answers_as_it_says(caller, group):
    assert tried(caller, group, examples=8, number=1) > 10


@pytest.mark.soak
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("group", GROUPS)
def test_every_operation_at_length(caller, group, number):
    assert tried(caller, group, examples=40, number=number) > 100
