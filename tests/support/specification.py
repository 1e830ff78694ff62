"""Holds answers of a server against Apify's specification."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

SPECIFICATION: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data" / "apify-kvs-openapi.json").read_text()
)

ROOT = "urn:apify"

HTTP_STATUSES = {206, 304, 408, 416}
"""What HTTP itself answers to ranges, conditions and stalls; the specification does not list them."""

_REGISTRY = Registry().with_resource(ROOT, Resource.from_contents(SPECIFICATION, DRAFT202012))


def check_answer(response: httpx.Response) -> None:
    """Fail when an answer's status or JSON is not what the specification says of its operation.

    To be used as an httpx event hook. Paths that the specification does not have are left alone.
    """
    path = _template(response.request.url.path)
    method = response.request.method.lower()
    if path is None or method not in SPECIFICATION["paths"][path] or response.status_code in HTTP_STATUSES:
        return
    answers = SPECIFICATION["paths"][path][method]["responses"]
    status = str(response.status_code)
    assert status in answers, f"{method} {path} is not specified to answer {status}"
    pointer = _schema_pointer(path, method, status)
    if pointer is not None and method != "head":
        response.read()
        validator = Draft202012Validator({"$ref": f"{ROOT}#{pointer}"}, registry=_REGISTRY)
        validator.validate(response.json())


def _schema_pointer(path: str, method: str, status: str) -> str | None:
    """Point at the schema of a JSON answer; None for bodies that are not JSON, records above all."""
    answer = SPECIFICATION["paths"][path][method]["responses"][status]
    pointer = f"/paths/{path.replace('/', '~1')}/{method}/responses/{status}"
    if "$ref" in answer:
        pointer = answer["$ref"].removeprefix("#")
        answer = SPECIFICATION["components"]["responses"][pointer.rpartition("/")[2]]
    if set(answer.get("content", {})) != {"application/json"}:
        return None
    return f"{pointer}/content/application~1json/schema"


def _template(path: str) -> str | None:
    for template in SPECIFICATION["paths"]:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return str(template)
    return None
