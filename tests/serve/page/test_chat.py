"""Chat and the frame of the page, in a real browser on a real server."""

import json
import re

import pytest
from tests.serve.page.conftest import LAN, until
from tests.serve.server_process import serve, wait_for

from gnano.data.sft.conversations import parse_conversation

pytestmark = pytest.mark.slow
IN_QUESTION = "document.activeElement.ariaLabel === 'Question'"
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
    again.nth(count - 1).wait_for(timeout=40_000)  # a checkpoint may be loaded first
    until(page, "!document.querySelector('button[aria-label=Stop]')")


def write_on(page, server):
    """Let no answer end before its length: those of a model this small are short."""
    messages = [{"role": r, "content": "a"} for r in ("user", "assistant", "user")]
    reply = server.post("/apply-template", model="small-sft", messages=messages).json()
    bias = {
        t: -100 for t, special in zip(reply["tokens"], reply["special"], strict=True) if special
    }

    def change(route):
        route.continue_(post_data={**route.request.post_data_json, "logit_bias": bias})

    page.route("**/v1/chat/completions", change)


def running_texts(server):
    return server.metric("gnano_texts_running")


def set_fields(page, **values):
    page.get_by_role("button", name="Sampling settings").click()
    for name, value in values.items():
        page.locator(f"#{name}").fill(value)
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")


def import_chat(page, path, messages):
    path.write_text(json.dumps({"messages": messages}), "utf-8")
    page.get_by_label("Import").set_input_files(path)


def open_chat(page):
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_role("textbox", name="Question").wait_for()


def test_a_question_is_answered_answered_again_and_edited_as_a_branch(page):
    open_chat(page)
    ask(page)
    finished(page)
    assert "tokens" in answers(page).inner_text() and "seed" in answers(page).inner_text()
    page.get_by_role("button", name="Answer again").click()
    answers(page).get_by_text("2/2").wait_for()
    finished(page)
    page.get_by_role("button", name="Previous version").click()
    answers(page).get_by_text("1/2").wait_for()
    page.get_by_role("button", name="Edit as a branch").click()
    page.get_by_role("textbox", name="Edit the question").fill("Where is the river?")
    page.keyboard.press("Enter")
    question = page.get_by_role("article", name="Your question")
    question.get_by_text("2/2").wait_for()
    finished(page)
    assert "Where is the river?" in question.inner_text()


def test_escape_stops_the_answer_and_frees_its_place(page, server):
    open_chat(page)
    write_on(page, server)
    set_fields(page, max_tokens="400")
    ask(page)
    wait_for(lambda: running_texts(server) == 1)
    until(page, "document.querySelector('.assistant .text').innerText.length > 20")
    page.locator(".brand").focus()
    page.keyboard.press("Escape")  # wherever the focus is
    wait_for(lambda: running_texts(server) == 0, 2)
    finished(page)
    assert "stopped" in answers(page).inner_text()


def test_settings_and_the_system_text_hold_for_the_next_answer(page):
    open_chat(page)
    set_fields(page, temperature="0.5", max_tokens="5", seed="7")
    page.get_by_text("System text").click()
    page.get_by_role("textbox", name="System text").fill("You are brief.")
    texts: list[str] = []
    for _ in range(2):
        with page.expect_request("**/v1/chat/completions") as sent:
            if texts:
                page.get_by_role("button", name="Answer again").click()
            else:
                ask(page)
        if texts:
            page.get_by_text("2/2").wait_for()
        finished(page)
        body = sent.value.post_data_json
        assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.5, 5, 7)
        assert body["messages"][0] == {"role": "system", "content": "You are brief."}
        texts.append(page.locator(".assistant .text").inner_text())
    assert texts[0] == texts[1]
    page.reload()
    finished(page)
    box = page.get_by_role("textbox", name="System text")
    assert box.input_value() == "You are brief."
    page.get_by_role("button", name="Sampling settings").click()
    assert page.locator("#seed").input_value() == "7"


def test_the_keyboard_alone_chooses_a_model_asks_and_edits(page):
    page.get_by_role("heading", name="Ask small-sft").wait_for()
    page.keyboard.press("Control+k")
    page.keyboard.type("sft@4")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Ask small-sft@4").wait_for()
    page.keyboard.type("Where is the bird?")
    page.keyboard.press("Enter")
    finished(page)
    assert "small-sft@4" in answers(page).inner_text()
    until(page, IN_QUESTION)
    page.keyboard.press("ArrowUp")
    page.get_by_role("textbox", name="Edit the question").wait_for()
    page.keyboard.press("End")
    page.keyboard.type(" Where?")
    page.keyboard.press("Enter")
    page.get_by_role("article", name="Your question").get_by_text("2/2").wait_for()
    finished(page)
    until(page, IN_QUESTION)
    page.keyboard.type("the focus is here again")
    box = page.get_by_role("textbox", name="Question", exact=True)
    assert box.input_value() == "the focus is here again"


def test_copies_where_the_browser_has_no_clipboard_object(open_page, server):
    page = open_page(f"http://{LAN}:{server.port}")
    open_chat(page)
    assert not page.evaluate("isSecureContext")
    ask(page, "Where is the road?")
    finished(page)
    page.get_by_role("article", name="Your question").get_by_role("button", name="Copy").click()
    box = page.get_by_role("textbox", name="Question", exact=True)
    box.focus()
    page.keyboard.press("Control+v")
    assert box.input_value() == "Where is the road?"


def test_enter_that_ends_a_composition_does_not_send(page):
    open_chat(page)
    box = page.get_by_role("textbox", name="Question")
    box.fill("にほん")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    box.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    page.wait_for_timeout(200)
    assert box.input_value() == "にほん" and not answers(page).count()


def test_nothing_is_lost_by_a_reload_in_mid_stream(page, server):
    open_chat(page)
    write_on(page, server)
    set_fields(page, max_tokens="400")
    ask(page, "Where is the house?")
    text = page.locator(".assistant .text")
    until(page, "document.querySelector('.assistant .text')?.textContent.length > 60")
    seen = text.text_content().strip()
    page.reload()
    finished(page)
    assert "Where is the house?" in page.get_by_role("article", name="Your question").inner_text()
    assert text.text_content().strip().startswith(seen)
    assert "interrupted by a reload" in answers(page).inner_text()
    wait_for(lambda: running_texts(server) == 0, 2)


def test_html_and_links_of_a_text_are_shown_and_not_run(page, tmp_path):
    open_chat(page)
    roles = ("user", "assistant")
    talk = [{"role": role, "content": text} for text in PAYLOADS for role in roles]
    import_chat(page, tmp_path / "chat.jsonl", [{"role": "system", "content": PAYLOADS[0]}, *talk])
    page.get_by_role("article").nth(2 * len(PAYLOADS) - 1).wait_for()
    page.wait_for_timeout(300)  # for what an event of an image would run
    assert page.evaluate("window.hacked") is None
    assert page.get_by_role("article", name="Your question").locator(".text").all_inner_texts() == (
        PAYLOADS
    )
    shown = "".join(answers(page).locator(".text").all_inner_texts())
    assert all(text in shown for text in PAYLOADS if text[0] in "<[!")
    names = page.evaluate(
        "[...document.querySelectorAll('.text *')].map(e => e.localName + ' ' + (e.href ?? ''))"
    )
    assert {name.split()[0] for name in names} <= set(
        "p code div table thead tbody tr th td".split()
    )


def test_a_question_without_an_answer_does_not_spoil_the_chat(open_page, server, tmp_path):
    page = open_page(server.url, "status of 400")
    open_chat(page)
    ask(page, "bird " * 600)
    error = page.get_by_role("alert")
    error.wait_for()
    [request] = re.findall(r"request (\S+)", error.inner_text())
    assert any(request in line for line in server.log)
    error.get_by_role("button", name="Retry").click()
    page.get_by_text("2/2").wait_for()
    finished(page)
    ask(page, "Where is the stone?")
    finished(page, 2)
    assert page.get_by_role("alert").count() == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Export this chat").click()
    download.value.save_as(tmp_path / "chat.jsonl")
    [line] = (tmp_path / "chat.jsonl").read_text("utf-8").splitlines()
    turns = parse_conversation(json.loads(line)).turns
    assert [(turn.role, turn.content) for turn in turns[:1]] == [("user", "Where is the stone?")]
    assert len(turns) == 2


def test_a_key_is_asked_for_and_asked_for_again_only_on_demand(open_page, runs):
    with serve(runs, "--api-key", "secret") as server:
        faster = "const every = setInterval; window.setInterval = (f, ms) => every(f, ms / 10);"
        page = open_page(server.url, "status of 401", script=faster)
        field = page.get_by_label("This server needs the key")
        field.wait_for()
        page.keyboard.press("Escape")
        page.wait_for_timeout(1_500)  # the page asks for the models every half a second here
        assert not field.count()
        page.get_by_role("button", name="Enter it").click()
        field.fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_label("The server does not accept this key").fill("secret")
        page.keyboard.press("Enter")
        page.get_by_role("button", name=re.compile("small-sft")).wait_for()
        assert not page.get_by_role("status").count()
        page.close()  # before the server, which it would ask again


def test_a_restart_of_the_server_is_noticed_and_survived(open_page, runs):
    with serve(runs) as server:
        page = open_page(server.url, "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED")
        open_chat(page)
        port = server.port
        page.get_by_role("heading", name="Ask small-sft").wait_for()
    ask(page)
    banner = page.get_by_text("This page keeps what you have")
    banner.wait_for()
    with serve(runs, "--port", port):
        banner.wait_for(state="detached")
        page.get_by_role("button", name="Retry").click()
        answers(page).get_by_text("2/2").wait_for()
        finished(page)
        assert not page.get_by_role("alert").count()


# Answers a question with 16,000 characters, 40 in a frame, and notes the work of each frame.
LONG_STREAM = r"""
const real = window.fetch;
const words = 'The **stone** is `under` the river, and the bird sees it from the road. ';
const list = '\n\n- one\n- two\n\n';
let text = '';
for (let i = 0; text.length < 16000; i++) text += words + (i % 4 ? '' : list);
async function send(stream) {
  for (let at = 0; at < text.length; at += 40) {
    const reason = at + 40 < text.length ? null : 'stop';
    const choice = { delta: { content: text.slice(at, at + 40) }, finish_reason: reason };
    const event = `data: ${JSON.stringify({ choices: [choice] })}\n\n`;
    stream.enqueue(new TextEncoder().encode(event));
    await new Promise(requestAnimationFrame);
  }
  stream.close();
}
window.fetch = (path, ...rest) => path === '/v1/chat/completions'
  ? Promise.resolve(new Response(new ReadableStream({ start: (s) => void send(s) })))
  : real(path, ...rest);
const work = (window.frameWork = []);
const channel = new MessageChannel();
let start = 0;
channel.port1.onmessage = () => work.push(performance.now() - start);
function measure() {
  requestAnimationFrame(measure);
  start = performance.now();
  channel.port2.postMessage(0);
}
measure();
"""


def test_sixteen_thousand_characters_are_drawn_without_a_stutter(open_page, server):
    page = open_page(server.url, script=LONG_STREAM)
    open_chat(page)
    ask(page)
    page.wait_for_timeout(100)
    page.evaluate("window.frameWork.length = 0")
    finished(page)
    work = sorted(page.evaluate("window.frameWork"))
    length = len(page.locator(".assistant .text").text_content())
    assert length > 14_000 and len(work) > 50
    assert work[len(work) // 2] < 32, "the median is about 5 ms where nothing else runs"


def test_a_stopped_answer_is_exported_as_such(page, server, tmp_path):
    open_chat(page)
    write_on(page, server)
    set_fields(page, max_tokens="400")
    ask(page)
    until(page, "document.querySelector('.assistant .text')?.textContent.length > 20")
    page.get_by_role("button", name="Stop").click()
    finished(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export this chat").click()
    download.value.save_as(tmp_path / "chat.jsonl")
    [line] = (tmp_path / "chat.jsonl").read_text("utf-8").splitlines()
    record = json.loads(line)
    assert [turn.role for turn in parse_conversation(record).turns] == ["user", "assistant"]
    assert record["messages"][1]["stopped"] is True


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
    for button in page.locator("header.top :is(a, button)").all():
        button.click(trial=True)  # nothing covers it
    assert page.get_by_role("textbox", name="Question").bounding_box()["width"] > 250
    if "color_scheme" in options:
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", color)[:3])) < 200
