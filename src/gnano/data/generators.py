"""Sources of data that are written by Python code instead of being read from files."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from gnano.config.data_config import check_generator_path

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class SourceGenerator(Generic[ItemT]):
    """A source of data of your own: documents, or the conversations or preferences of a tuning.

    Put one into a module that Python can import,

        # my_texts.py
        from gnano.data.readers import Document
        pass  # SELFIMPORT

        def squares():
            for n in range(1_000_000):
                yield Document(f"The square of {n} is {n * n}.")

        SQUARES = SourceGenerator(squares, identity=lambda: "squares, version 1")

    and name it in a recipe:

        [data.sources.squares]
        kind = "generator"
        generator = "my_texts:SQUARES"
        max_bytes = 1_000_000

    `generate` must give the same items in the same order in every process; a corpus takes them
    until `max_bytes` are reached, so it may be endless. `identity` stands for them all: where it
    changes, prepared data is out of date.
    """

    generate: Callable[[], Iterable[ItemT]]
    identity: Callable[[], str]


def load_generator(path: str) -> SourceGenerator[object]:
    """Import MODULE:OBJECT. Raises ValueError where that is no SourceGenerator."""
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
    """Yield the items of MODULE:OBJECT. Raises ValueError for one that is not of this kind."""
    for item in load_generator(path).generate():
        if not isinstance(item, kind):
            raise ValueError(
                f"The generator {path!r} gives {type(item).__name__}; {kind.__name__} is needed."
            )
        yield item
