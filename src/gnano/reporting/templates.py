"""Renders the Jinja templates of the package: the plan, the page of a run, the model card."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_template(path: Path, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Render a template file with the filters and values that it names; HTML escapes them.

    Lines that hold only a tag leave no line in the text, and the last line has no line feed.
    """
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        undefined=StrictUndefined,
        autoescape=".html" in path.suffixes,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(path.name).render(values)
