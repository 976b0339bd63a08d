"""Chat templates: text with placeholders, which gnano's models are tuned with.

Each answer ends with end-of-text, which the model learns; the text before an answer, from the start
or the previous answer, is its prompt:

    <|endoftext|>Below is an instruction …### Response:⏎Paris.<|endoftext|>⏎⏎### Instruction:⏎…
    └───────────────── prompt ─────────────────────────┘└── learned ──────┘└── prompt ──

A prompt ends with a new line, which no token of GPT-2's byte-level BPE crosses; so prompt and
answer have the same ids whether they are encoded separately or together.
"""

import json
import re
import tomllib
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from gnano.data.sft.conversations import Conversation, Turn
from gnano.data.sft.jinja_template import JinjaTemplate
from gnano.tokenizer.bpe import END_OF_TEXT
from gnano.tokenizer.hf_tokenizer import JINJA_TEMPLATE_FILE
from gnano.utils.files import read_text
from gnano.utils.validation import ConflictingValuesError

TEMPLATE_FILE = "template.json"  # in a checkpoint: the template of its tuning
MIN_STOP_CHARS = 6  # shorter openings of a question, such as "Q:", may be part of an answer
VARIABLE = re.compile(r"\{(content|context)\}")
REQUIRED_VARIABLES = {
    "system": ("content",),
    "user": ("content",),
    "user_with_context": ("content", "context"),
}
# a template as Jinja; each <field> becomes a Jinja expression of its text
JINJA_SOURCE = (
    "{{- bos_token }}"
    "{%- set first = (messages | selectattr('role', 'equalto', 'user') | list)[0] %}"
    "{%- if messages[0].role != 'system' %}{{- ((<begin_with_context>) if "
    "(first.context is defined and first.context and first.context | trim) else (<begin>)) }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'system' %}{{- <system> }}"
    "{%- elif message.role == 'user' %}{{- ((<user_with_context>) if "
    "(message.context is defined and message.context and message.context | trim) else (<user>)) }}"
    "{%- else %}{{- <assistant> + message.content | trim + eos_token }}"
    "{%- if not loop.last %}{{- <between> }}{%- endif %}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- <assistant> }}{%- endif %}"
)
_literal = partial(json.dumps, ensure_ascii=False)  # a Jinja string has JSON's escapes
JINJA_FIELD = re.compile("<([a-z_]+)>")
JINJA_TERM = r'"(?:[^"\\]|\\.)*"|\(message\.(?:content|context) \| trim\)'
JINJA_EXPRESSION = rf"(?:{JINJA_TERM})(?: \+ (?:{JINJA_TERM}))*"


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """The parts of a chat format; `{content}` and `{context}` are a turn's, stripped."""

    begin: str = ""  # the start of a conversation without a system turn
    begin_with_context: str = ""  # the same if the first question has a context
    system: str = "{content}\n\n"  # a system turn, instead of `begin`
    user: str = "{content}\n"
    user_with_context: str = "{content}\n\n{context}\n"
    assistant: str = "\n"  # before an answer; ends with a new line
    between: str = "\n\n"  # after an answer, before the next question

    def __post_init__(self) -> None:
        if not self.assistant.endswith("\n"):
            # else a prompt and its answer could share a token
            found = f"A template's `assistant` is {self.assistant!r}"
            raise ValueError(f"{found}; it must end with a new line.")
        for name, variables in REQUIRED_VARIABLES.items():
            for variable in variables:
                if f"{{{variable}}}" not in (text := getattr(self, name)):
                    raise ValueError(f"A template's `{name}` is {text!r}; it needs {{{variable}}}.")

    def render_turns(self, conversation: Conversation) -> list[tuple[str, str]]:
        """Return each answer with its prompt: [(prompt, answer), …]."""
        pairs: list[tuple[str, str]] = []
        first = next(turn for turn in conversation.turns if turn.role == "user")
        begin = self.begin_with_context if first.context else self.begin
        prompt = "" if conversation.turns[0].role == "system" else begin
        for turn in conversation.turns:
            if turn.role == "assistant":
                pairs.append((prompt + self.assistant, turn.content))
                prompt = self.between
                continue
            text = self.user_with_context if turn.context else self.user
            literals_and_variables = VARIABLE.split(self.system if turn.role == "system" else text)
            # not with `replace`: a question may itself contain {context}
            for number, part in enumerate(literals_and_variables):
                prompt += getattr(turn, part).strip() if number % 2 else part
        return pairs

    def render_prompt(self, turns: tuple[Turn, ...]) -> str:
        """Return the prompt of the next answer, including the earlier answers."""
        pairs = self.render_turns(Conversation((*turns, Turn("assistant", ""))))
        return END_OF_TEXT.join(prompt + answer for prompt, answer in pairs)

    def to_jinja(self) -> str:
        """Return a Jinja chat template for other programs; user messages may have a `context`."""
        expressions = {
            name: _text_to_jinja(text) if name in REQUIRED_VARIABLES else _literal(text)
            for name, text in asdict(self).items()
        }
        return JINJA_FIELD.sub(lambda field: expressions[field[1]], JINJA_SOURCE)

    @classmethod
    def from_jinja(cls, text: str) -> "ChatTemplate | None":
        """Return the template whose `to_jinja` is this text; None if it has another form."""
        seen: set[str] = set()

        def group(field: re.Match[str]) -> str:
            name, is_repeated = field[1], field[1] in seen
            seen.add(name)
            return f"(?P={name})" if is_repeated else f"(?P<{name}>{JINJA_EXPRESSION})"

        found = re.fullmatch(JINJA_FIELD.sub(group, re.escape(JINJA_SOURCE)), text)
        try:
            texts = found.groupdict() if found else {}
            template = cls(**{name: _jinja_to_text(part) for name, part in texts.items()})
        except ValueError:  # the fields are invalid
            return None
        return template if template.to_jinja() == text else None


ALPACA = ChatTemplate(
    begin="Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n",
    begin_with_context="Below is an instruction that describes a task, paired with an input that "
    "provides further context. Write a response that appropriately completes the request.\n\n",
    user="### Instruction:\n{content}\n\n",
    user_with_context="### Instruction:\n{content}\n\n### Input:\n{context}\n\n",
    assistant="### Response:\n",
)
CHATML = ChatTemplate(
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    user_with_context="<|im_start|>user\n{content}\n\n{context}<|im_end|>\n",
    assistant="<|im_start|>assistant\n",
    between="\n",
)
PLAIN = ChatTemplate(  # few tokens, for small models and short answers
    user="Question: {content}\n\n",
    user_with_context="{context}\n\nQuestion: {content}\n\n",
    assistant="Answer:\n",
)
NAMED_TEMPLATES = {"alpaca": ALPACA, "chatml": CHATML, "plain": PLAIN}


def load_template(name: str) -> ChatTemplate:
    """Return a template by its name, or from a TOML or JSON file with fields of `ChatTemplate`.

    Raises ValueError, with the file and the key, if it is not a template.
    """
    if name in NAMED_TEMPLATES:
        return NAMED_TEMPLATES[name]
    if not (path := Path(name)).is_file():
        raise ValueError(
            f"No template is called {name!r}, and there is no such file. Use "
            f"{', '.join(NAMED_TEMPLATES)}, or the path of a TOML file (data.template)."
        )
    try:
        text = read_text(path)
        content: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it is not a table")
        known = [field.name for field in fields(ChatTemplate)]
        for key, value in content.items():
            if key not in known:
                raise ValueError(f"unknown key {key!r}; known are {', '.join(known)}")
            if not isinstance(value, str):
                raise ValueError(f"{key} is {value!r}, not text")
        return ChatTemplate(**content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a template: {str(error).rstrip('.')}.") from None


def read_template(folder: Path) -> "AnyTemplate | None":
    """Return the template of a checkpoint's tuning, or of another family; None without one.

    Raises ValueError if gnano's file and the Jinja template for other programs differ.
    """
    path, jinja = folder / TEMPLATE_FILE, read_jinja_template(folder)
    if not path.is_file():
        own = ChatTemplate.from_jinja(jinja) if jinja else None
        return own or (JinjaTemplate(jinja, _special_tokens(folder)) if jinja else None)
    template = load_template(str(path))
    if jinja not in (None, template.to_jinja()):
        raise ConflictingValuesError(
            f"{path} and the chat template in the same folder ({JINJA_TEMPLATE_FILE}) state "
            f"different formats. Delete the wrong one."
        )
    return template


def _special_tokens(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the names and texts of a tokenizer's special tokens, which a template may use."""
    try:
        config = json.loads(read_text(folder / "tokenizer_config.json"))
    except (OSError, ValueError):  # the tokenizer's loader reports it
        return ()
    tokens = {key: value for key, value in config.items() if key.endswith("_token")}
    named = {
        key: value["content"] if isinstance(value, dict) else value for key, value in tokens.items()
    }
    return tuple((key, value) for key, value in named.items() if isinstance(value, str))


def read_jinja_template(folder: Path) -> str | None:
    """Return a folder's Jinja template from the files that `transformers` reads; None without."""
    path, config = folder / JINJA_TEMPLATE_FILE, folder / "tokenizer_config.json"
    if path.is_file():
        return read_text(path)
    try:
        found = json.loads(read_text(config)).get("chat_template")
    except (OSError, ValueError, AttributeError):  # the tokenizer's loader reports it
        return None
    return found if isinstance(found, str) else None


def save_template(template: ChatTemplate, folder: Path) -> None:
    """Write a template for gnano, and as a Jinja chat template for `transformers` and servers."""
    (folder / TEMPLATE_FILE).write_text(json.dumps(asdict(template), indent=2) + "\n", "utf-8")
    (folder / JINJA_TEMPLATE_FILE).write_text(template.to_jinja(), "utf-8")
    path = folder / "tokenizer_config.json"  # read by transformers before 4.50
    if path.is_file():
        config = {**json.loads(read_text(path)), "chat_template": template.to_jinja()}
        path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _text_to_jinja(text: str) -> str:
    """Return a Jinja expression of a message's text."""
    literals_and_variables = enumerate(VARIABLE.split(text))
    parts = [f"(message.{t} | trim)" if n % 2 else _literal(t) for n, t in literals_and_variables]
    return " + ".join(parts[:-1] if parts[-1] == '""' else parts)


def _jinja_to_text(expression: str) -> str:
    """Return the text whose `_text_to_jinja` or `_literal` is this expression."""
    return "".join(
        json.loads(part) if part.startswith('"') else f"{{{part[9:].partition(' ')[0]}}}"
        for part in re.findall(JINJA_TERM, expression)
    )


AnyTemplate = ChatTemplate | JinjaTemplate


def template_stop_strings(template: AnyTemplate) -> tuple[str, ...]:
    """Return the opening of a question, with which a model continues that did not learn to end."""
    user = template.user if isinstance(template, ChatTemplate) else ""
    opening = user.partition("{content}")[0].strip().partition("\n")[0].strip()
    return (opening,) if len(opening) >= MIN_STOP_CHARS else ()
