"""JSON that every reader takes: it has no NaN and no infinity, so those are written as null."""

import json
import math
from typing import Any


def dump_json(value: Any, **options: Any) -> str:
    """The value as `json.dumps` writes it with these options; null for what is not finite."""
    return json.dumps(_replace_non_finite(value), allow_nan=False, **options)


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(inner) for inner in value]
    return value
