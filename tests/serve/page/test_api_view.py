"""The view API, in a real browser on a real server: its examples are run as they stand."""

import json
import os
import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from gnano.serve.api_requests import COMPLETION_FIELDS

pytestmark = pytest.mark.slow

PROMPT = 'the river\'s "house" $HOME \\n `id`\nand 日本'


def run(*command):
    done = subprocess.run(command, capture_output=True, timeout=60, env=os.environ, check=True)
    return done.stdout.decode()


def test_the_shown_command_and_program_ask_the_same_again(open_page, server):
    short = """localStorage.setItem("gnano-settings", '{"max_tokens": 24}')"""
    page = open_page(f"{server.url}/#write", script=short)
    page.get_by_role("button", name=re.compile("^small")).first.wait_for()
    field = page.get_by_role("textbox", name="Document")
    field.fill(PROMPT)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0, timeout=20_000)
    written = field.input_value().removeprefix(PROMPT)
    page.get_by_role("link", name="API").click()
    code = page.locator(".requests pre")

    page.get_by_role("button", name="Python", exact=True).click()
    assert run(sys.executable, "-c", code.inner_text()).replace("\r", "\n") == written

    page.get_by_role("button", name="curl", exact=True).click()
    events = re.findall(r"^data: (\{.*\})$", run("bash", "-c", code.inner_text()), re.MULTILINE)
    parts = [choice["text"] for event in events for choice in json.loads(event)["choices"]]
    assert "".join(parts).replace("\r", "\n") == written


def test_a_prompt_is_shown_token_by_token_with_its_special_tokens(open_page, server):
    page = open_page(f"{server.url}/#api")
    page.get_by_role("textbox", name="Question").fill("A <|endoftext|> in a café")
    prompt = page.get_by_role("region", name="Prompt")
    expect(prompt.locator(".prompt")).to_contain_text("caf")
    messages = [{"role": "user", "content": "A <|endoftext|> in a café"}]
    model = page.locator(".picker b").inner_text()
    found = server.post("/apply-template", model=model, messages=messages).json()
    tokens = prompt.locator("[data-token]")
    expect(tokens).to_have_count(len(found["tokens"]))
    ids = tokens.evaluate_all("all => all.map((token) => Number(token.title))")
    assert ids == found["tokens"]
    # what was typed is text; only the template's own tokens are special
    assert prompt.locator(".chip").count() == sum(found["special"]) == 1
    page.locator(".prompt").focus()
    page.keyboard.press("ArrowRight")
    expect(prompt.get_by_text("token 2 of")).to_contain_text(f"id {found['tokens'][1]}")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_reference_lists_the_fields_that_the_server_parses(open_page, server, width):
    page = open_page(f"{server.url}/#api", viewport={"width": width, "height": 820})
    reference = page.get_by_role("region", name="Reference")
    reference.get_by_text("/v1/completions").click()
    for name, field in COMPLETION_FIELDS.items():
        row = reference.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
        expect(row.first).to_contain_text(f"{field.help}.")
    row = reference.get_by_role("row").filter(has=page.get_by_text("temperature", exact=True))
    expect(row).to_contain_text("number, 0 to 2")
    prompt = reference.get_by_role("row").filter(has=page.get_by_text("prompt", exact=True))
    expect(prompt).to_contain_text("text or list of integer")
    assert page.locator("main.api").evaluate("m => m.scrollWidth <= m.clientWidth")
