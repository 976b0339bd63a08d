"""The export room: foreign formats, out and in; the card of a model, and publishing."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.export.formats import Exported, export
    from gnano.export.importing import import_model
    from gnano.export.kinds import Dtype, Format
    from gnano.export.lone_file import Hints
    from gnano.export.publishing import Published, publish
    from gnano.export.source import Source, open_source

__all__ = [
    "Dtype",
    "Exported",
    "Format",
    "Hints",
    "Published",
    "Source",
    "export",
    "import_model",
    "open_source",
    "publish",
]

__getattr__ = lazily(
    __name__,
    {
        "Dtype": "kinds",
        "Exported": "formats",
        "Format": "kinds",
        "Hints": "lone_file",
        "Published": "publishing",
        "Source": "source",
        "export": "formats",
        "import_model": "importing",
        "open_source": "source",
        "publish": "publishing",
    },
)
