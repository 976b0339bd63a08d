"""Chat and the frame of the page, in a real browser on a real server."""

import json
import re

import pytest
from tests.serve.page.conftest import until
from tests.serve.server_process import serve

pytestmark = pytest.mark.slow
PAYLOADS = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg/onload=window.hacked=1>",
    "[a](javascript:window.hacked=1)",
    "[a](data:text/html,<script>window.hacked=1</script>)",
    "![a](x' onerror='window.hacked=1)",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<a href='javascript:window.hacked=1'>a</a>",
    "`<img src=x onerror=window.hacked=1>`",
    "<math><mtext><style><img src=x onerror=window.hacked=1>",
    "<form action='javascript:window.hacked=1'><button>a</button></form>",
    "<details open ontoggle=window.hacked=1>",
    "<style>body{display:none}</style>",
    "| a |\n|---|\n| <img src=x onerror=window.hacked=1> |",
]


def ask(page, text="Where is the stone?"):
    page.get_by_role("textbox", name="Question").fill(text)
    page.keyboard.press("Enter")


def answers(page):
    return page.get_by_role("article", name="Answer", exact=True)


def finished(page, count=1):
    again = page.get_by_role("button", name="Answer again")
    again.nth(count - 1).wait_for()
    until(page, "!document.querySelector('button[aria-label=Stop]')")


def running_texts(server) -> float:
    lines = server.http.get("/metrics").text.splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith("gnano_texts_running"))


def open_chat(page):
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_role("textbox", name="Question").wait_for()


def test_a_question_is_answered_answered_again_and_edited_as_a_branch(page):
    open_chat(page)
    ask(page)
    finished(page)
    assert "tokens" in answers(page).inner_text() and "seed" in answers(page).inner_text()
    page.get_by_role("button", name="Answer again").click()
    finished(page)
    assert "2/2" in answers(page).inner_text()
    page.get_by_role("button", name="Previous version").click()
    assert "1/2" in answers(page).inner_text()
    page.get_by_role("button", name="Edit as a branch").click()
    page.get_by_role("textbox", name="Edit the question").fill("Where is the river?")
    page.keyboard.press("Enter")
    finished(page)
    question = page.get_by_role("article", name="Your question")
    assert "Where is the river?" in question.inner_text() and "2/2" in question.inner_text()


def test_escape_stops_the_answer_and_frees_its_place(page, server):
    open_chat(page)
    page.get_by_role("button", name="Sampling settings").click()
    page.keyboard.press("Escape")
    ask(page)
    page.get_by_role("button", name="Stop").wait_for()
    page.keyboard.press("Escape")
    finished(page)
    page.wait_for_timeout(500)
    assert running_texts(server) == 0


def test_enter_that_ends_a_composition_does_not_send(page):
    open_chat(page)
    box = page.get_by_role("textbox", name="Question")
    box.fill("にほん")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    box.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    page.wait_for_timeout(200)
    assert box.input_value() == "にほん" and not answers(page).count()


def test_nothing_is_lost_by_a_reload_in_mid_stream(page):
    open_chat(page)
    ask(page, "Where is the house?")
    page.get_by_role("button", name="Stop").wait_for()
    page.wait_for_timeout(400)
    page.reload()
    open_chat(page)
    page.get_by_role("article", name="Your question").wait_for()
    assert "Where is the house?" in page.get_by_role("article", name="Your question").inner_text()
    assert answers(page).count() == 1


def test_html_and_links_of_a_text_are_shown_and_not_run(open_page, server):
    """A chat that was stored earlier has the payloads as its answers."""
    page = open_page(server.url)
    module = "import('/page/markdown.js')"
    for payload in PAYLOADS:
        page.evaluate(
            f"""async (text) => {{
                const {{ Markdown }} = await {module};
                const {{ html, render }} = await import('/page/vendor/preact-htm.js');
                const place = document.createElement('div');
                place.className = 'probe';
                document.body.append(place);
                render(html`<${{Markdown}} text=${{text}} />`, place);
            }}""",
            payload,
        )
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
    found = page.evaluate(
        "[...document.querySelectorAll('.probe *')].map(e => e.localName + (e.href ?? ''))"
    )
    forbidden = re.compile(r"^(script|img|svg|iframe|style|form|math|a(javascript|data):)")
    assert found and not [name for name in found if forbidden.match(name)]


def test_a_key_is_asked_for_once_and_a_restart_is_noticed(open_page, runs):
    with serve(runs, "--api-key", "secret") as server:
        page = open_page(server.url, "401", "ERR_CONNECTION_REFUSED", "Failed to load resource")
        field = page.get_by_label("This server needs the key")
        field.fill("secret")
        page.keyboard.press("Enter")
        page.get_by_role("button", name=re.compile("small")).first.wait_for()
        server.process.kill()
        page.get_by_text("The server does not answer").wait_for(timeout=15_000)


def test_a_chat_is_exported_as_records_that_sft_reads(page, tmp_path):
    from gnano.data.sft.conversations import parse_conversation

    open_chat(page)
    ask(page)
    finished(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export this chat").click()
    download.value.save_as(tmp_path / "chat.jsonl")
    [line] = (tmp_path / "chat.jsonl").read_text("utf-8").splitlines()
    conversation = parse_conversation(json.loads(line))
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"]


@pytest.mark.parametrize(
    "options", [{"viewport": {"width": 390, "height": 780}}, {"color_scheme": "dark"}]
)
def test_a_phone_and_a_dark_screen_show_the_whole_page(open_page, server, options):
    page = open_page(server.url, **options)
    open_chat(page)
    ask(page)
    finished(page)
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "it does not scroll to the side"
    if "color_scheme" in options:
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", color)[:3])) < 200
