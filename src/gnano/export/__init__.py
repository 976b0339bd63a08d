"""Exports a model to other formats, imports it from them, and publishes it with a model card."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.export.formats import export
    from gnano.export.importing import import_model
    from gnano.export.kinds import Dtype, Format
    from gnano.export.lone_file import Hints
    from gnano.export.publishing import publish

__all__ = ["Dtype", "Format", "Hints", "export", "import_model", "publish"]

__getattr__ = lazily(
    __name__,
    {
        "Dtype": "kinds",
        "Format": "kinds",
        "Hints": "lone_file",
        "export": "formats",
        "import_model": "importing",
        "publish": "publishing",
    },
)
