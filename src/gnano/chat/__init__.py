"""The chat room: a conversation with a checkpoint, at a terminal or through a pipe."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.chat.history import Exchange, History
    from gnano.chat.opening import open_session, talk
    from gnano.chat.session import Session
    from gnano.chat.settings import Settings

__all__ = ["Exchange", "History", "Session", "Settings", "open_session", "talk"]

__getattr__ = lazily(
    __name__,
    {
        "Exchange": "history",
        "History": "history",
        "Session": "session",
        "Settings": "settings",
        "open_session": "opening",
        "talk": "opening",
    },
)
