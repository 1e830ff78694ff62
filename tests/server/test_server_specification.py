"""Requests drawn from the specification, valid and invalid ones: every answer is what it promises."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from kvsfs.server.access import ORIGINS, STATUSES
from tests.support.serving import RunningServer, running_server
from tests.support.specification import SPECIFICATION

pytest_plugins = ["schemathesis.pytest.plugin"]  # pyproject.toml keeps it from every other test

TOKEN = "token-of-joe"

EXAMPLES = 20
"""Drawn for each operation, beside schemathesis's own boundary cases: the whole takes a minute."""

Case = schemathesis.Case[Any]

LIVE = "live"
"""Stands for a store, run, Actor or task that is there."""

KEYS = ["INPUT", "page-1", "a!'()-_.z"]
"""Of the records in it."""

COLLECTION = "pages"
SCHEMA = {"collections": {COLLECTION: {"title": "Pages", "keyPrefix": "page-"}}}


def sharpened() -> dict[str, Any]:
    """Give the specification with what its prose says and its schemas do not, or say wrongly.

    Nothing is taken out of what it promises of answers.
    """
    sharp = copy.deepcopy(SPECIFICATION)
    parameters = sharp["components"]["parameters"]
    schemas = sharp["components"]["schemas"]
    for name in ("storeId", "runId", "actorId", "actorTaskId"):
        parameters[name]["schema"] = {"const": LIVE}
    # "Key of the record": which characters it may hold stands in the error invalid-record-key only.
    legal = {"type": "string", "pattern": r"^[a-zA-Z0-9!\-_.'()]{1,256}$"}
    parameters["recordKey"]["schema"] = {"anyOf": [{"enum": KEYS}, legal]}
    # Numbers of items, said to be doubles. Both official clients send 0 for "as many as you like", and more
    # than 1000 for the same: the server gives 1000, against the specification's bounds.
    count = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
    for name in ("offset", "limit", "limit-3"):
        parameters[name]["schema"] = {
            "anyOf": [count, {"const": ""}]
        }  # `limit=` is a limit that was not given
    # "The key-value store need to have a schema defined for this parameter to work": that of LIVE has one.
    for name in ("collectionKeys", "collectionRecords"):
        parameters[name]["schema"] = {"const": COLLECTION}
    for path, operations in sharp["paths"].items():
        for operation in operations.values():
            if not path.startswith("/v2/key-value-stores"):  # the default store of a run has no schema
                given = operation["parameters"]
                given[:] = [one for one in given if "collection" not in one.get("$ref", "")]
            if path.endswith("{recordKey}") and "requestBody" in operation:
                # An empty record is one, and HTTP cannot tell an empty body from none.
                operation["requestBody"]["required"] = False
    # "If `true` or `1`": the JavaScript client sends 1 and 0, and anything else is no.
    for name in ("attachment-2", "descCreatedAt", "unnamed"):
        parameters[name]["schema"] = {"anyOf": [{"enum": ["true", "1", "false", "0"]}, {}]}
    # Any text, but only these are statuses of a run.
    parameters["status-2"]["schema"] = {"enum": list(STATUSES)}
    # A name's rule stands in the documentation only.
    store_name = {"type": "string", "pattern": r"^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$"}
    fields = schemas["UpdateStoreRequest"]["properties"]
    fields["name"] = {"anyOf": [store_name, {"type": "null"}]}
    fields["title"] = {"type": ["string", "null"], "maxLength": 1000}  # both official clients send it
    sharp["paths"]["/v2/key-value-stores"]["post"]["parameters"][0]["schema"] = store_name
    parameters["Content-Encoding"]["schema"]["enum"].append("")  # an empty list of encodings (RFC 9110)
    # A record may be any JSON: the JavaScript client sends numbers, and null.
    schemas["PutRecordRequest"] = {}
    return sharp


schema = schemathesis.openapi.from_dict(sharpened())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("specification"), tokens=[f"{TOKEN}=joe"]) as running:
        yield running


class World:
    """Makes what LIVE stands for."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._made: dict[tuple[str, ...], str] = {}
        self._numbers = itertools.count()

    def bring_in(self, case: Case) -> None:
        """Put the reference of something that is there in the place of LIVE.

        Each operation has its own, which is made anew after a request that renames or deletes a store.
        """
        for parameter, value in case.path_parameters.items():
            if value == LIVE:
                filters = _valid_filters(case)
                made = (case.operation.label, *filters.values())
                if made not in self._made:
                    self._made[made], store_id = self._make(parameter, filters)
                    if "/keys" in case.path or "/records" in case.path:
                        self._fill(store_id)
                case.path_parameters[parameter] = self._made[made]
                if case.method in ("PUT", "DELETE") and "recordKey" not in case.path_parameters:
                    del self._made[made]

    def _make(self, parameter: str, filters: dict[str, str]) -> tuple[str, str]:
        """Make what a path parameter names; its reference and the ID of its store."""
        if parameter == "storeId":
            store_id = str(self._post("/v2/key-value-stores", json={"schema": SCHEMA})["id"])
            return store_id, store_id
        reference = f"joe~live-{next(self._numbers)}"
        folder = "actor-tasks" if parameter == "actorTaskId" else "actors"
        run = self._post(f"/v2/{folder}/{reference}/runs", params=filters)
        return run["id"] if parameter == "runId" else reference, run["defaultKeyValueStoreId"]

    def _fill(self, store_id: str) -> None:
        for key in KEYS:
            path = f"/v2/key-value-stores/{store_id}/records/{key}"
            assert self._http.put(path, json={"key": key}).status_code == 201

    def _post(self, path: str, **content: Any) -> dict[str, Any]:
        answer = self._http.post(path, **content)
        assert answer.status_code == 201
        made: dict[str, Any] = answer.json()["data"]
        return made


def _valid_filters(case: Case) -> dict[str, str]:
    """Give the filters of the last run that a run can have, so that there is one."""
    known = {"status": STATUSES, "origin": ORIGINS}
    return {name: case.query[name] for name in known if case.query.get(name) in known[name]}


@pytest.fixture(scope="module")
def world(server: RunningServer) -> Iterator[World]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as http:
        yield World(http)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,  # the same requests in every run
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
def test_answers_are_as_specified(case: Case, server: RunningServer, world: World) -> None:
    world.bring_in(case)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = case.call(base_url=server.url, headers=headers)
    # The data was right, the world was not: the specification has no 409 for it.
    name_is_taken = answer.status_code == 400 and "name-not-unique" in answer.text
    case.validate_response(
        answer,
        excluded_checks=[positive_data_acceptance] if name_is_taken else [],
        headers=headers,
        transport_kwargs={"base_url": server.url, "headers": headers},
    )
