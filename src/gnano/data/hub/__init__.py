"""The Hugging Face Hub: what a data set holds, may we read it, and the files on this disk."""

from gnano.data.hub.files import HubFile, check, download, resolve

__all__ = ["HubFile", "check", "download", "resolve"]
