"""The documentation matches the program: its commands have the flags that it shows."""

import re
from functools import cache
from pathlib import Path

import pytest

from gnano.cli import COMMANDS, main
from gnano.config.recipe import list_recipes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "benchmarks/RESULTS.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_LINE = re.compile(r"(?:^ *|-m |--module |\$ |`)gnano ([a-z]+[^\n`]*)", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])(--?[a-z][\w.-]*)")
RECIPE_COMMANDS = {"prepare", "pretrain", "sft", "dpo", "plan"}


@cache
def help_flags(command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    return set(FLAG.findall(capsys.readouterr().out))


def parse_command(line):
    """Return the words that select a command's help, and the flags of the line."""
    words = line.split("  #")[0].split()
    command = words[: 2 if words[0] in ("data", "tokenizer") else 1]
    if words[0] in RECIPE_COMMANDS:
        command.append(words[1] if words[1:] and words[1] in list_recipes() else "demo")
    return tuple(command), set(FLAG.findall(" ".join(words)))


@pytest.mark.slow
def test_commands_in_the_documentation_have_the_flags_that_it_shows(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in COMMAND_LINE.findall(text):
            if line.split()[0] not in COMMANDS:
                continue
            command, flags = parse_command(line)
            known = help_flags(command, capsys) | {"--help"} if flags else set()
            unknown = {
                f for f in flags if f.replace("_", "-") not in known and ".sources." not in f
            }
            assert not unknown, f"{page.name}: gnano {line}"
