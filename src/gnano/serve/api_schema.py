"""The description of the API: `openapi.json`, with the tables that requests are parsed with."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from gnano import __version__
from gnano.serve.api_requests import CHAT_FIELDS, COMPLETION_FIELDS, Field

FIELDS_BY_PATH = {"/v1/completions": COMPLETION_FIELDS, "/v1/chat/completions": CHAT_FIELDS}


@cache
def openapi_document() -> dict[str, Any]:
    """Return the document of the route `/openapi.json`."""
    document: dict[str, Any] = json.loads(
        Path(__file__).with_name("openapi.json").read_text("utf-8")
    )
    document["info"]["version"] = __version__
    for path, fields in FIELDS_BY_PATH.items():
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        body["schema"]["properties"] |= {name: _schema(field) for name, field in fields.items()}
    return document


def _schema(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [field.kind, "null"], "description": f"{field.help}."}
    bounds = {"minimum": field.allowed.minimum, "maximum": field.allowed.maximum}
    schema |= {key: bound for key, bound in bounds.items() if math.isfinite(bound)}
    return schema if field.default is None else schema | {"default": field.default}
