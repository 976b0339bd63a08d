"""Instructions and answers: records -> conversations -> ids with what is learned -> packed rows."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.data.instructions.conversations import Conversation, Preference, Turn
    from gnano.data.instructions.encoding import Example, Pair, encode, encode_pair, encode_prompt
    from gnano.data.instructions.files import files_of
    from gnano.data.instructions.gathering import Gathered, gather_conversations, gather_preferences
    from gnano.data.instructions.preference_batch import PreferenceBatch
    from gnano.data.instructions.reading import read_conversations, read_records
    from gnano.data.instructions.rows import InstructionRows, PairRows
    from gnano.data.instructions.templates import (
        ALPACA,
        Template,
        load_template,
        save_template,
        template_of,
    )

__all__ = [
    "ALPACA",
    "Conversation",
    "Example",
    "Gathered",
    "InstructionRows",
    "Pair",
    "PairRows",
    "Preference",
    "PreferenceBatch",
    "Template",
    "Turn",
    "encode",
    "encode_pair",
    "encode_prompt",
    "files_of",
    "gather_conversations",
    "gather_preferences",
    "load_template",
    "read_conversations",
    "read_records",
    "save_template",
    "template_of",
]

__getattr__ = lazily(
    __name__,
    {
        "ALPACA": "templates",
        "Conversation": "conversations",
        "Example": "encoding",
        "Gathered": "gathering",
        "InstructionRows": "rows",
        "Pair": "encoding",
        "PairRows": "rows",
        "Preference": "conversations",
        "PreferenceBatch": "preference_batch",
        "Template": "templates",
        "Turn": "conversations",
        "encode": "encoding",
        "encode_pair": "encoding",
        "encode_prompt": "encoding",
        "files_of": "files",
        "gather_conversations": "gathering",
        "gather_preferences": "gathering",
        "load_template": "templates",
        "read_conversations": "reading",
        "read_records": "reading",
        "save_template": "templates",
        "template_of": "templates",
    },
)
