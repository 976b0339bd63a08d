"""Models side by side, blind preferences, and a prompt through a run, in a real browser."""

import json
import re
from itertools import takewhile

import pytest
from playwright.sync_api import Page, expect
from tests.serve.server_process import ServerProcess, wait_for

from gnano.data.sft.conversations import parse_preference

pytestmark = pytest.mark.slow

SETTINGS = {"temperature": 0.5, "seed": "7", "max_tokens": 24}
SETTINGS_SCRIPT = f"localStorage.setItem('gnano-settings', {json.dumps(json.dumps(SETTINGS))})"
QUESTION = "Where is the stone?"
PHONE = {"width": 390, "height": 844}


def ask(page: Page, prompt: str) -> None:
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.keyboard.press("Control+Enter")


def answer_of(page: Page, letter: str) -> str:
    return page.get_by_role("region", name=f"Answer {letter}").locator(".answer").inner_text()


def test_answers_part_where_their_tokens_do(server: ServerProcess, open_page):
    page = open_page(f"{server.url}/#compare", script=SETTINGS_SCRIPT)
    names = ["small@9", "small@12"]
    for number, name in enumerate(names, 1):
        page.get_by_label(f"Model {number}").select_option(name)
    page.get_by_role("checkbox").uncheck()
    expect(page.get_by_role("button", name="Question")).to_be_disabled()  # base models
    ask(page, "the")
    expect(page.get_by_role("button", name="Tie")).to_be_visible()
    shared = {"prompt": "the", "logprobs": 10, **SETTINGS, "seed": 7}
    told = [server.post("/v1/completions", model=name, **shared).json() for name in names]
    tokens = [one["choices"][0]["logprobs"]["tokens"] for one in told]
    same = [a for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(*tokens, strict=False))]
    assert same, "the test needs answers that begin alike"
    expect(page.locator(".facts")).to_contain_text(f"equal for {len(same)} token")
    for number in range(2):
        choice = told[number]["choices"][0]
        section = page.get_by_role("region", name=f"Answer {'AB'[number]}")
        expect(section).to_contain_text(names[number])
        assert section.locator(".answer").text_content() == choice["text"]
        assert section.locator(".same").text_content() == "".join(same)
        probabilities = choice["logprobs"]["top_logprobs"][len(same)]
        listed = page.get_by_label("First difference").locator(".distribution").nth(number)
        assert listed.get_by_role("listitem").count() == min(6, len(probabilities))
        chosen = listed.locator("[aria-current=true] code").inner_text()
        assert chosen.replace("·", " ") == tokens[number][len(same)]


def test_a_blind_preference_is_a_record_for_dpo(server: ServerProcess, open_page):
    page = open_page(f"{server.url}/#compare", script=SETTINGS_SCRIPT)
    page.get_by_label("Model 1").select_option("small-sft@4")
    page.get_by_label("Model 2").select_option("small-sft@8")
    ask(page, QUESTION)
    expect(page.get_by_role("button", name="B is better")).to_be_visible()
    assert "small-sft" not in page.locator("section[aria-label^=Answer]").first.inner_text()
    page.get_by_role("button", name="B is better").click()
    expect(page.get_by_role("status")).to_contain_text("is stored")
    expect(page.get_by_label("Answer B")).to_contain_text(re.compile("small-sft@[48]"))
    winner = page.get_by_label("Answer B").locator("h2 span").inner_text()
    expect(page.get_by_role("status")).to_contain_text(f"{winner} 1")
    expect(page.get_by_role("status")).to_contain_text(
        "gnano dpo small-sft-dpo --from runs/small-sft"
    )
    [line] = (server.folder / "preferences.jsonl").read_text("utf-8").splitlines()
    record = json.loads(line)
    assert record["prompt"] == QUESTION
    assert record["chosen"].strip() == answer_of(page, "B").strip()
    assert record["rejected"].strip() == answer_of(page, "A").strip()
    parse_preference(record)


def test_without_a_file_the_page_says_how_to_store_preferences(server: ServerProcess, open_page):
    page = open_page(f"{server.url}/#compare", "403", script=SETTINGS_SCRIPT)
    error = {"message": "Start the server with --preferences FILE.", "code": "no_preferences_file"}
    page.route("**/api/preferences", lambda r: r.fulfill(status=403, json={"error": error}))
    ask(page, QUESTION)
    page.get_by_role("button", name="A is better").click()
    expect(page.get_by_role("status")).to_contain_text("--preferences FILE")
    assert not page.get_by_text("is stored").count()


def test_a_slider_leads_through_the_answers_of_all_checkpoints(server: ServerProcess, open_page):
    page = open_page(
        f"{server.url}/#compare", script=SETTINGS_SCRIPT, viewport=PHONE, color_scheme="dark"
    )
    page.get_by_role("button", name="Timeline").click()
    page.get_by_label("Run", exact=True).select_option("small")
    ask(page, "the")
    last = page.get_by_role("region", name="Answer at step 12")
    expect(last).to_contain_text(re.compile("ended|length"), timeout=20_000)
    slider = page.get_by_role("slider", name="Checkpoint")
    for step in (12, 9):
        shown = page.get_by_role("region", name=f"Answer at step {step}").locator(".answer")
        body = {"model": f"small@{step}", "prompt": "the", "temperature": 0, "max_tokens": 24}
        told = server.post("/v1/completions", **body).json()["choices"][0]["text"]
        expect(shown).to_be_visible()
        assert shown.text_content() == told
        slider.press("ArrowLeft")
    expect(page.locator(".chart canvas")).to_be_visible()
    assert page.locator("main.compare").evaluate("m => m.scrollWidth <= m.clientWidth")


def test_another_mode_ends_the_answers_of_the_last(server: ServerProcess, open_page):
    settings = json.dumps(json.dumps(SETTINGS | {"max_tokens": 400, "temperature": 2}))
    page = open_page(
        f"{server.url}/#compare", script=f"localStorage.setItem('gnano-settings', {settings})"
    )
    page.get_by_role("button", name="Text", exact=True).click()
    ask(page, "the")
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_role("button", name="Timeline").click()
    wait_for(lambda: server.metric("gnano_texts_running") == 0, 2)  # 400 tokens take 4 s
