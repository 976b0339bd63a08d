"""The view Write, in a real browser on a real server."""

import math
import re

import pytest
from playwright.sync_api import expect
from tests.serve.page.conftest import until

pytestmark = pytest.mark.slow


@pytest.fixture
def page(open_page, server):
    # with any seed, a text may end after a token
    page = open_page(
        f"{server.url}/#write",
        script="localStorage.setItem('gnano-settings', JSON.stringify({seed: '7'}))",
    )
    page.get_by_role("button", name=re.compile("^small")).first.wait_for()
    return page


def document(page):
    return page.get_by_role("textbox", name="Document")


def write(page, act):
    """Do what lets the model write, and wait for the end of the text."""
    with page.expect_request("**/v1/completions"):
        act()
    until(page, "!document.querySelector('textarea[aria-busy=true]')")


def go_on(page):
    write(page, lambda: page.keyboard.press("Control+Enter"))


def test_a_text_is_continued_from_its_last_letter_and_survives_a_reload(page):
    document(page).click()
    page.keyboard.type("the river and the house", delay=1)
    go_on(page)
    text = document(page).input_value()
    assert text.startswith("the river and the house") and len(text) > 25
    assert page.locator("[data-token]").count() > 1, "tokens are tinted"
    page.reload()
    document(page).wait_for()
    until(page, "document.querySelector('textarea')?.value.length > 25")
    assert document(page).input_value() == text


def test_another_token_is_chosen_and_the_old_branch_is_kept(page):
    document(page).fill("the river")
    go_on(page)
    before = document(page).input_value()
    token = page.locator("[data-token]").first
    box = token.bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2)
    choices = page.get_by_role("list", name="Alternatives").locator("button:not([disabled])")
    choices.first.wait_for()
    write(page, choices.first.click)
    assert document(page).input_value() != before
    branches = page.get_by_role("complementary", name="Branches").get_by_role("button")
    assert branches.count() >= 3
    branches.nth(1).click()
    expect(document(page)).to_have_value(before)


def test_a_text_is_scored_as_the_server_scores_it(page, server):
    text = "the river and the house"
    document(page).fill(text)
    page.get_by_role("button", name="Score my text").click()
    shown = page.get_by_text(re.compile(r"[\d.]+ bits per byte"))
    shown.wait_for()
    model = page.locator(".bar .status").inner_text().rpartition("· ")[2]
    body = {"model": model, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
    [choice] = server.http.post("/v1/completions", json=body).json()["choices"]
    nats = -sum(x for x in choice["logprobs"]["token_logprobs"] if x is not None)
    bits = nats / math.log(2) / len(text)
    assert f"{bits:.3f} bits" in shown.first.inner_text()


def point_at(page, token):
    token.scroll_into_view_if_needed()
    box = token.bounding_box()
    for x in (2, 3):
        page.mouse.move(box["x"] + x, box["y"] + box["height"] / 2)
    card = page.get_by_role("group", name=re.compile("^Token "))
    card.wait_for()
    return card


def test_a_token_in_the_middle_branches_and_each_branch_can_be_shown_again(page):
    document(page).fill("the river")
    go_on(page)
    before = document(page).input_value()
    kept = page.locator("[data-token]").all_inner_texts()[:3]
    card = point_at(page, page.locator("[data-token]").nth(3))
    choices = card.get_by_role("list", name="Alternatives").locator("button:not([disabled])")
    write(page, choices.first.click)
    after = document(page).input_value()
    assert page.locator("[data-token]").all_inner_texts()[:3] == kept and after != before
    branches = page.get_by_role("complementary", name="Branches").get_by_role("button")
    branches.nth(1).click()
    expect(document(page)).to_have_value(before)
    branches.nth(2).click()
    expect(document(page)).to_have_value(after)


def test_a_text_longer_than_the_context_is_scored_and_each_token_counts_once(page, server):
    text = ("the river finds 日本 near a house " * 40).strip()
    prompts = []

    def note(request):
        if request.url.endswith("/completions"):
            prompts.append(request.post_data_json)

    page.on("request", note)
    document(page).fill(text)
    page.get_by_role("button", name="Score my text").click()
    page.get_by_text(re.compile(r"[\d.]+ bits per byte")).wait_for(timeout=20_000)
    body = {"model": prompts[0]["model"], "content": text, "with_pieces": True}
    encoded = server.post("/tokenize", **body).json()
    ids, context = encoded["tokens"], 512
    assert len(ids) > context and len(prompts) > 2
    assert all(len(body["prompt"]) <= context for body in prompts[1:])
    status = page.locator(".bar .status")
    expect(status).to_contain_text(f"{len(text.encode()):,} bytes · {len(ids):,} tokens")
    # the probabilities lie on their own tokens up to the last
    card = point_at(page, page.locator("[data-token]").last)
    assert card.locator("header code").inner_text() == encoded["pieces"][-1].replace(" ", "·")


def test_the_bytes_of_a_character_that_several_tokens_make_are_shown(page):
    text = "No <|endoftext|> near 日本."
    document(page).fill(text)
    page.get_by_role("button", name="Score my text").click()
    page.get_by_text(re.compile(r"[\d.]+ bits per byte")).wait_for()
    assert "".join(page.locator("[data-token]").all_inner_texts()) == text
    card = point_at(page, page.locator("[data-token]", has_text="日"))
    expect(card).to_have_attribute("aria-label", "Token E6")
    card.get_by_role("button", name="97", exact=True).first.click()
    expect(card).to_have_attribute("aria-label", "Token 97")


def test_only_what_is_near_the_window_of_a_long_text_is_tinted(page, server):
    """A span for each token of 16,000 characters would make each frame of a stream take 60 ms."""
    text = ("the river finds a house near the stone and " * 400)[:16_000]
    document(page).fill(text)
    page.get_by_role("button", name="Score my text").click()
    page.get_by_text(re.compile(r"[\d.]+ bits per byte")).wait_for(timeout=60_000)
    spans = page.locator("[data-token]")
    whole = page.evaluate("document.querySelector('.tinted').textContent")
    assert whole == text, "the letters below the field are those of the field"
    page.locator("main.write .scroll").evaluate("e => e.scrollTo(0, 0)")
    expect(spans.first).to_have_attribute("data-token", "0")
    first = spans.count()
    page.locator("main.write .scroll").evaluate("e => e.scrollTo(0, e.scrollHeight)")
    expect(spans.first).not_to_have_attribute("data-token", "0")
    tokens = server.post("/tokenize", model="small", content=text).json()["tokens"]
    assert max(first, spans.count()) < len(tokens) / 2
    layers = page.locator(".sheet .tinted, .sheet textarea")
    heights = layers.evaluate_all("all => all.map((one) => one.scrollHeight)")
    assert heights[0] == heights[1], "tokens lie where their letters are"
