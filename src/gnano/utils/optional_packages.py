"""Packages that only some features need; an extra of auto-g-nano installs them."""

from importlib.util import find_spec


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None  # no origin: only a folder of that name


def require(package: str, extra: str, problem: str, otherwise: str = "") -> None:
    """Raise ValueError unless the package is installed: the problem, and how to install it.

    >>> require("gguf", "gguf", "GGUF files need the package gguf")
    """
    if not is_installed(package):
        raise ValueError(f"{problem}: pip install 'auto-g-nano[{extra}]'{otherwise}.")
