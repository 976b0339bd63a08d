"""Data sources that are written by Python code instead of being read from files."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from gnano.config.data_config import check_generator_path

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class SourceGenerator(Generic[ItemT]):
    """A custom source: documents, or the conversations or preferences of fine-tuning.

    Define one in a module that Python can import, such as my_texts.py,

        from gnano.data.generators import SourceGenerator
        from gnano.data.readers import Document

        def squares():
            for n in range(1_000_000):
                yield Document(f"The square of {n} is {n * n}.")

        SQUARES = SourceGenerator(squares, identity=lambda: "squares, version 1")

    and name it in a recipe:

        [data.sources.squares]
        kind = "generator"
        generator = "my_texts:SQUARES"
        max_bytes = 1_000_000

    `generate` must yield the same items in the same order in every process; a corpus reads them
    until `max_bytes` is reached, so it may be endless. `identity` identifies all items: when it
    changes, prepared data is out of date.
    """

    generate: Callable[[], Iterable[ItemT]]
    identity: Callable[[], str]


def load_generator(path: str) -> SourceGenerator[object]:
    """Import MODULE:OBJECT; raise ValueError if it is not a SourceGenerator."""
    check_generator_path(path)
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"The generator {path!r} cannot be imported: {error}.") from error
    if not isinstance(found, SourceGenerator):
        raise ValueError(
            f"The generator {path!r} is {type(found).__name__}; a gnano.data.generators."
            f"SourceGenerator is needed."
        )
    return found


def iter_items(path: str, kind: type[ItemT]) -> Iterator[ItemT]:
    """Yield the items of MODULE:OBJECT; raise ValueError for an item of another type."""
    for item in load_generator(path).generate():
        if not isinstance(item, kind):
            raise ValueError(
                f"The generator {path!r} gives {type(item).__name__}; {kind.__name__} is needed."
            )
        yield item
