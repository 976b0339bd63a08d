"""Renders the Jinja templates of the package: plans, pages, comparisons, the model card."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Filters = Mapping[str, Callable[..., Any]]


def render_template(path: Path, filters: Filters | None = None, **values: Any) -> str:
    """Render a template file with the filters and values that it names; HTML escapes them.

    Lines that hold only a tag leave no line in the text, and the last line has no line feed.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        undefined=StrictUndefined,
        autoescape=".html" in path.suffixes,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(path.name).render(values)
