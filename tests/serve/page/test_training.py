"""The views Training and API, in a real browser on a real server."""

import json
import re

import pytest
from tests.serve.page.conftest import until

pytestmark = pytest.mark.slow


def test_curves_grow_while_a_run_writes_its_metrics(open_page, server, runs):
    page = open_page(f"{server.url}/#training")
    page.get_by_role("button", name=re.compile("^small$")).click()
    page.locator("canvas").first.wait_for()
    assert page.locator("canvas").count() >= 4
    metrics = runs / "small-sft/metrics.jsonl"
    before = metrics.read_text("utf-8")
    line = json.loads([x for x in before.splitlines() if '"loss"' in x][-1])
    try:
        with metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"step": line["step"] + 1, "loss": 123.5}) + "\n")
        page.get_by_text(re.compile(r"123\.5|124")).first.wait_for(timeout=10_000)
    finally:
        metrics.write_text(before, "utf-8")


def test_a_checkpoint_leads_to_its_model(open_page, server):
    page = open_page(f"{server.url}/#training")
    page.get_by_role("region", name=re.compile("^Run small")).first.wait_for()
    run = page.get_by_role("region", name="Run small", exact=True)
    if not run.count():
        page.get_by_role("button", name="small", exact=True).click()
    run.get_by_role("button", name="9", exact=True).click()
    page.get_by_role("button", name="Talk to small@9").click()
    until(page, "location.hash === '#write'")
    assert "small@9" in page.get_by_role("button", name=re.compile("small@9")).first.inner_text()


def test_the_api_view_shows_the_last_request_and_the_prompt(open_page, server):
    page = open_page(f"{server.url}/#write")
    page.get_by_role("textbox", name="Document").fill("the river")
    page.keyboard.press("Control+Enter")
    until(page, "!document.querySelector('textarea[aria-busy=true]')")
    page.get_by_role("link", name="API").click()
    text = page.locator("main.api").inner_text()
    assert "curl" in text and "/v1/completions" in text and "the river" in text
    page.get_by_role("button", name="Python").click()
    assert "from openai import OpenAI" in page.locator("main.api").inner_text()
    page.get_by_text("<|endoftext|>").first.wait_for()  # control tokens are visible
