"""Chat templates: how a conversation becomes text, for training, chat and other programs.

A template is text with holes in it. Each answer is closed by end-of-text, which the model
learns; what leads to an answer, from the answer before or from the start, is its prompt:

    <|endoftext|>Below is an instruction …### Response:⏎Paris.<|endoftext|>⏎⏎### Instruction:⏎…
    └───────────────── prompt ─────────────────────────┘└── learned ──────┘└── prompt ──

Prompt and answer meet at a line's end, where no token of a byte-level BPE of GPT-2's kind
reaches across; so to encode them one by one, or all of it at once, gives the same ids.

Token ids of a conversation, and which of them are learned: the answers and their ends.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnano.data.sft.conversations import Conversation, Preference, Turn
from gnano.tokenizer.bpe import END_OF_TEXT, Tokenizer
from gnano.utils.text import read_text
from gnano.utils.validation import ConflictingValuesError


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """`{content}` and `{context}` are filled with a turn's, without white space around them."""

    begin: str = ""  # what comes first, where there is no system's turn
    begin_with_context: str = ""  # the same where the first question has a context
    system: str = "{content}\n\n"  # a system's turn, in the place of `begin`
    user: str = "{content}\n"
    user_with_context: str = "{content}\n\n{context}\n"
    assistant: str = "\n"  # what opens an answer; ends with a new line
    between: str = "\n\n"  # after an answer, before the next question

    def __post_init__(self) -> None:
        if not self.assistant.endswith("\n"):
            raise ValueError(
                f"A template's `assistant` is {self.assistant!r}; it must end with a new line, so "
                f"that a prompt and its answer share no token."
            )
        for name, holes in REQUIRED_VARIABLES.items():
            text = getattr(self, name)
            for hole in holes:
                if f"{{{hole}}}" not in text:
                    raise ValueError(f"A template's `{name}` is {text!r}; it needs {{{hole}}}.")

    def render_turns(self, conversation: Conversation) -> list[tuple[str, str]]:
        """Return each answer, with the text that leads to it: [(prompt, answer), …]."""
        pairs: list[tuple[str, str]] = []
        prompt = ""
        first = next(turn for turn in conversation.turns if turn.role == "user")
        if conversation.turns[0].role != "system":
            prompt = self.begin_with_context if first.context else self.begin
        for turn in conversation.turns:
            if turn.role == "assistant":
                pairs.append((prompt + self.assistant, turn.content))
                prompt = self.between
            else:
                prompt += self._render_turn(turn)
        return pairs

    def render_prompt(self, turns: tuple[Turn, ...]) -> str:
        """Return the prompt for the answer that is to come next, with the earlier answers."""
        pairs = self.render_turns(Conversation((*turns, Turn("assistant", ""))))
        return END_OF_TEXT.join(prompt + answer for prompt, answer in pairs)

    def to_jinja(self) -> str:
        """Return the same as a Jinja chat template, as `transformers` and servers read it.

        A user's message may have a `context` beside its `content`.
        """
        expressions = {
            name: _text_to_jinja(text) if name in REQUIRED_VARIABLES else _jinja_literal(text)
            for name, text in asdict(self).items()
        }
        return JINJA_FIELD.sub(lambda field: expressions[field[1]], JINJA_SOURCE)

    @classmethod
    def from_jinja(cls, text: str) -> "ChatTemplate | None":
        """Return the template whose `jinja` this is; None where it is of another form."""
        seen: set[str] = set()

        def group(field: re.Match[str]) -> str:
            name, known = field[1], field[1] in seen
            seen.add(name)
            return f"(?P={name})" if known else f"(?P<{name}>{JINJA_EXPRESSION})"

        found = re.fullmatch(JINJA_FIELD.sub(group, re.escape(JINJA_SOURCE)), text)
        try:
            texts = found.groupdict() if found else {}
            template = cls(**{name: _jinja_to_text(part) for name, part in texts.items()})
        except ValueError:  # of texts that a template's fields cannot have
            return None
        return template if template.to_jinja() == text else None

    def _render_turn(self, turn: Turn) -> str:
        user = self.user_with_context if turn.context else self.user
        text = self.system if turn.role == "system" else user
        # in one pass: a question may contain {context} itself
        return VARIABLE.sub(lambda hole: getattr(turn, hole[1]).strip(), text)


VARIABLE = re.compile(r"\{(content|context)\}")
REQUIRED_VARIABLES = {
    "system": ("content",),
    "user": ("content",),
    "user_with_context": ("content", "context"),
}
ALPACA = ChatTemplate(
    begin=(
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n"
    ),
    begin_with_context=(
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
    ),
    user="### Instruction:\n{content}\n\n",
    user_with_context="### Instruction:\n{content}\n\n### Input:\n{context}\n\n",
    assistant="### Response:\n",
)
# a template as Jinja; each <field> is an expression of its text
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
JINJA_FIELD = re.compile("<([a-z_]+)>")
JINJA_TERM = r'"(?:[^"\\]|\\.)*"|\(message\.(?:content|context) \| trim\)'
JINJA_EXPRESSION = rf"(?:{JINJA_TERM})(?: \+ (?:{JINJA_TERM}))*"
CHATML = ChatTemplate(
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    user_with_context="<|im_start|>user\n{content}\n\n{context}<|im_end|>\n",
    assistant="<|im_start|>assistant\n",
    between="\n",
)
PLAIN = ChatTemplate(  # few tokens, for a small model and short answers
    user="Question: {content}\n\n",
    user_with_context="{context}\n\nQuestion: {content}\n\n",
    assistant="Answer:\n",
)
NAMED_TEMPLATES = {"alpaca": ALPACA, "chatml": CHATML, "plain": PLAIN}
JINJA_TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FILE = "template.json"  # in a checkpoint: the template that it was tuned with


def load_template(name: str) -> ChatTemplate:
    """Return a template by its name, or from a TOML or JSON file with the fields of `Template`.

    Raises ValueError, naming the file and the key, where it is none.
    """
    if name in NAMED_TEMPLATES:
        return NAMED_TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"No template is called {name!r}, and no file: there are {', '.join(NAMED_TEMPLATES)}, or "
            f"give the path of a TOML file (data.template)."
        )
    try:
        text = read_text(path)
        content: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no table")
        known = [field.name for field in fields(ChatTemplate)]
        for key, value in content.items():
            if key not in known:
                raise ValueError(f"unknown key {key!r}; there are {', '.join(known)}")
            if not isinstance(value, str):
                raise ValueError(f"{key} is {value!r}, not text")
        return ChatTemplate(**content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no template: {str(error).rstrip('.')}.") from None


def read_template(folder: Path) -> ChatTemplate | None:
    """Return the one that a checkpoint was tuned with; None where there is none of this form.

    Raises ValueError where the form that we read and the one that others read differ.
    """
    path, jinja = folder / TEMPLATE_FILE, read_jinja_template(folder)
    if not path.is_file():
        return ChatTemplate.from_jinja(jinja) if jinja else None
    template = load_template(str(path))
    if jinja not in (None, template.to_jinja()):
        raise ConflictingValuesError(
            f"{path} and the chat template beside it ({JINJA_TEMPLATE_FILE}) state different formats; "
            f"delete the one that is wrong."
        )
    return template


def read_jinja_template(folder: Path) -> str | None:
    """Return a folder's chat template, from where `transformers` reads it; None without one."""
    path, config = folder / JINJA_TEMPLATE_FILE, folder / "tokenizer_config.json"
    if path.is_file():
        return read_text(path)
    try:
        found = json.loads(read_text(config)).get("chat_template")
    except (OSError, ValueError, AttributeError):  # who needs the file will say so
        return None
    return found if isinstance(found, str) else None


def save_template(template: ChatTemplate, folder: Path) -> None:
    """Write a template for gnano, and as a Jinja chat template for `transformers` and servers."""
    (folder / TEMPLATE_FILE).write_text(json.dumps(asdict(template), indent=2) + "\n", "utf-8")
    (folder / JINJA_TEMPLATE_FILE).write_text(template.to_jinja(), "utf-8")
    path = folder / "tokenizer_config.json"  # where readers before transformers 4.50 look
    if path.is_file():
        config = {**json.loads(read_text(path)), "chat_template": template.to_jinja()}
        path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _text_to_jinja(text: str) -> str:
    """Return a Jinja expression of a message's text."""
    literals_and_holes = VARIABLE.split(text)  # in turns
    if not literals_and_holes[-1]:
        literals_and_holes.pop()
    return " + ".join(
        f"(message.{part} | trim)" if number % 2 else _jinja_literal(part)
        for number, part in enumerate(literals_and_holes)
    )


def _jinja_to_text(expression: str) -> str:
    """Return the text of a Jinja expression that `_jinja` or `_literal` made."""
    return "".join(
        json.loads(part) if part.startswith('"') else f"{{{part[9:].partition(' ')[0]}}}"
        for part in re.findall(JINJA_TERM, expression)
    )


def _jinja_literal(text: str) -> str:
    """Return a string of Jinja, whose escapes are Python's."""
    return json.dumps(text, ensure_ascii=False)


MIN_PROMPT_TOKENS = 32  # tokens of the prompt that stay, where even the answer alone is too long


class Example(NamedTuple):
    ids: NDArray[np.int32]  # [n], n ≥ 2
    loss_mask: NDArray[np.bool_]  # [n]: is it part of an answer?
    is_truncated: bool = False  # is something of it missing?

    @property
    def examples(self) -> tuple["Example"]:
        return (self,)

    @property
    def num_positions(self) -> int:
        """Positions in a row: each id but the first is predicted from those before."""
        return len(self.ids) - 1

    @property
    def answer_start(self) -> int:
        """Where the last answer begins: after the last id that is not learned."""
        return int(np.flatnonzero(~self.loss_mask)[-1]) + 1

    def truncate(self, length: int) -> "Example":
        """Return the example in at most `length` positions.

        One that is too long loses its front, so that the last answer stays whole; where that
        is too long itself, it keeps the end of its prompt and loses the answer's end.
        """
        size, room = len(self.ids), length + 1
        if size <= room:
            return self
        start = min(size - room, max(self.answer_start - min(MIN_PROMPT_TOKENS, length), 0))
        part = slice(start, start + room)
        return Example(self.ids[part], self.loss_mask[part], is_truncated=True)


class PreferencePair(NamedTuple):
    """Two examples that begin with the same ids, the prompt's; each learns its answer."""

    chosen: Example
    rejected: Example
    is_truncated: bool = False  # is something of it missing?

    @property
    def examples(self) -> tuple[Example, Example]:
        return self.chosen, self.rejected

    @property
    def num_positions(self) -> int:
        return self.chosen.num_positions + self.rejected.num_positions

    def truncate(self, length: int) -> "PreferencePair":
        """Return the pair in at most `length` positions together.

        One that is too long loses the front of the prompt, on both sides alike; where the answers
        are too long themselves, they lose their ends, the longer one first.
        """
        if self.num_positions <= length:
            return self
        prompt = self.chosen.answer_start
        answers = [side.ids[prompt:] for side in self.examples]
        room, sizes = length + 2, [len(answer) for answer in answers]  # ids; each side has one more
        least = min(
            MIN_PROMPT_TOKENS, prompt, max(length // 4, 1)
        )  # of the prompt: half of a side at most
        kept = max((room - sum(sizes)) // 2, least)
        room -= 2 * kept
        longest = max(room - min(sizes), room // 2)
        front = self.chosen.ids[prompt - kept : prompt]
        chosen, rejected = (_build_example(front, answer[:longest]) for answer in answers)
        return PreferencePair(chosen, rejected, is_truncated=True)


def encode_conversation(
    conversation: Conversation, template: ChatTemplate, tokenizer: Tokenizer
) -> Example:
    """Return end-of-text, then prompt, answer and end-of-text for each answer."""
    ids, learned = [tokenizer.end_of_text_id], [False]
    for prompt, answer in template.render_turns(conversation):
        before = tokenizer.encode(prompt)
        after = [*tokenizer.encode(answer), tokenizer.end_of_text_id]
        ids += before + after
        learned += [False] * len(before) + [True] * len(after)
    return Example(np.array(ids, np.int32), np.array(learned))


def encode_prompt(turns: Sequence[Turn], template: ChatTemplate, tokenizer: Tokenizer) -> list[int]:
    """Return the ids, as in training, up to the answer that is to come after these turns."""
    example = encode_conversation(
        Conversation((*turns, Turn("assistant", ""))), template, tokenizer
    )
    ids: list[int] = example.ids[:-1].tolist()  # without the end of the empty answer
    return ids


def encode_preference(
    preference: Preference, template: ChatTemplate, tokenizer: Tokenizer
) -> PreferencePair:
    """Return two examples, of which only the last answer is learned."""
    turns = (*preference.turns, Turn("assistant", preference.chosen))
    chosen = encode_conversation(Conversation(turns), template, tokenizer)
    prompt, answer = np.split(chosen.ids, [chosen.answer_start])
    rejected = [*tokenizer.encode(preference.rejected), tokenizer.end_of_text_id]
    return PreferencePair(_build_example(prompt, answer), _build_example(prompt, rejected))


def _build_example(prompt: ArrayLike, answer: ArrayLike) -> Example:
    """Return an example that learns the answer alone."""
    before, after = np.asarray(prompt, np.int32), np.asarray(answer, np.int32)
    ids = np.concatenate([before, after])
    return Example(ids, np.arange(len(ids)) >= len(before))
