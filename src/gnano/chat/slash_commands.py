"""Lines of a conversation: questions, and commands, which begin with a slash."""

from collections.abc import Generator
from difflib import get_close_matches
from pathlib import Path

from gnano.chat.conversation import ChatSession, ConversationHistory

COMMANDS = {
    "help": ("", "this list"),
    "reset": ("", "begin anew; the system's text and the settings stay"),
    "system": ("TEXT", "tell the model what holds for all answers; without TEXT, nothing"),
    "set": ("NAME VALUE", "change how answers are drawn; alone, it shows the settings"),
    "regen": ("", "another answer to the last question"),
    "save": ("FILE", "write the conversation as JSON, which `gnano sft` can learn from"),
    "load": ("FILE", "go on with a conversation that was saved"),
    "stats": ("", "tokens, their speed, and how full the context is"),
    "quit": ("", "leave (as Ctrl-D does)"),
}
MORE_HELP = (
    "//… is a text that begins with /. Alt-Enter, or \\ at a line's end, begins another line. "
    "Ctrl-C stops an answer."
)


def run_line(line: str, session: ChatSession) -> Generator[str] | str:
    """Start the answer to a question, or run a command and return its message.

    Raises ValueError, in a sentence, for what cannot be done, and EOFError to leave.
    """
    if line.startswith("//") or not line.startswith("/"):
        return session.ask(line.removeprefix("/"))
    name, argument = (*line[1:].split(maxsplit=1), "", "")[:2]
    argument = argument.strip()
    if name not in COMMANDS:
        nearest = get_close_matches(name, COMMANDS, n=1, cutoff=0)[0]
        raise ValueError(
            f"There is no command /{name}; did you mean /{nearest}? (/help lists all, and a text "
            f"that begins with / is written //{name}.)"
        )
    if COMMANDS[name][0] == "FILE" and not argument:
        raise ValueError(f"/{name} needs the name of a file: /{name} FILE.")
    match name:
        case "help":
            usages = [(f"/{name} {what}".strip(), text) for name, (what, text) in COMMANDS.items()]
            return "\n".join([*(f"{usage:<16} {text}" for usage, text in usages), MORE_HELP])
        case "reset":
            session.reset()
            return "A new conversation."
        case "system":
            session.set_system_prompt(argument)
            if not argument:
                return "No system text."
            return "The system's text holds from the next answer on."
        case "set":
            return _change_setting(argument, session)
        case "regen":
            return session.regenerate()
        case "save":
            return f"Saved as {session.history.save(Path(argument))}."
        case "load":
            session.resume(ConversationHistory.load(Path(argument)))
            count = len(session.history.exchanges)
            return f"Loaded {count:,} question{'s' if count > 1 else ''} with their answers."
        case "stats":
            return _format_stats(session)
        case _:
            raise EOFError


def _change_setting(argument: str, session: ChatSession) -> str:
    names = list(session.settings.as_dict())
    if argument:
        name, _, value = argument.partition(" ")
        if not value.strip():
            raise ValueError(f"/set {name} needs a value: /set {name} VALUE.")
        session.settings = session.settings.with_value(name, value.strip())
        names = [name]
    return "\n".join(f"{name} {session.settings.format_value(name)}" for name in names)


def _format_stats(session: ChatSession) -> str:
    answers = session.answer_stats
    tokens, seconds = sum(s.tokens for s in answers), sum(s.decode_seconds for s in answers)
    # a first token has no time of its own: it ends the reading of the prompt
    timed = sum(max(s.tokens - 1, 0) for s in answers)
    rate = f" at {timed / seconds:,.1f} tokens/s" if seconds else ""
    full = answers[-1].prompt_tokens + answers[-1].tokens if answers else 0
    lines = [
        f"answers    {len(answers):,}, {tokens:,} tokens{rate}",
        f"prompts    {sum(s.prompt_tokens for s in answers):,} tokens, "
        f"{sum(s.first_token_seconds for s in answers):.2f} s until the first token of an answer, in all",
        f"context    {full:,} of {session.context_length:,} tokens at the last answer",
        f"questions  {len(session.history.exchanges):,} in the conversation; the model has "
        f"forgotten {session.num_dropped:,} of them",
    ]
    return "\n".join(lines)
