import re
from html.parser import HTMLParser

import pytest

from gnano.reporting.run_report import write_html_report

VOID = {"meta", "img", "source", "br"}


class Page(HTMLParser):
    """The report as a browser parses it: balanced tags, visible text, and references."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.references: list[str] = []
        self.alt = ""
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.alt = dict(attrs).get("alt") or self.alt
        self.references += [v for k, v in attrs if k in {"src", "srcset", "href", "action", "data"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture
def page(run):
    """A function that makes a run with these metrics, and returns its report."""
    return lambda metrics=None, *texts: Page(
        write_html_report(run(metrics), *texts).read_text("utf-8")
    )


def test_the_report_shows_the_run(page):
    text = page(
        None, {"hardware": "1 × H200"}, [("A story", "Once upon", " a time.\nThe end.")]
    ).text
    for words in (
        "first-try", "finished", "200 steps", "819.2 k tokens", "8,001 tokens per second",
        "100 s training time", "prose", "synthetic", "code", "hardware 1 × H200",
        "A story", "Once upon a time. The end.", 'note = "a < b & c"',
    ):  # fmt: skip
        assert words in text, words
    assert "not finished" not in text


def test_the_report_loads_nothing(run):
    text = write_html_report(run()).read_text("utf-8")
    assert "http" not in text and "url(" not in text and "@import" not in text
    page = Page(text)
    assert len(page.references) == 2  # the curves, on light and on dark paper
    assert all(reference.startswith("data:image/png;base64,iVBOR") for reference in page.references)


def test_untrusted_text_is_escaped(tmp_path, run, rows_with_tasks, without):
    without("matplotlib")
    attack = "<script>alert(1)</script>\"'&</p></main><img src=x onerror=alert(1)>"
    metrics = rows_with_tasks(steps=50, names=(attack, "<i>"))
    metrics[-1]["heldout"]["sources"] = {attack: 1.0}
    folder = run(metrics).rename(tmp_path / "<i>{css}")
    (folder / "recipe.toml").write_text(attack)
    page = Page(write_html_report(folder, {attack: attack}, [(attack,) * 3]).read_text("utf-8"))
    assert page.tags.count("script") == page.tags.count("img") == page.tags.count("i") == 0
    assert page.text.count(attack) == 8 and "<i>{css}" in page.text  # shown as it was written


def test_an_unfinished_run_of_one_step_has_a_report(run, rows):
    folder = run(rows(steps=1, every=0, final=False))
    (folder / "recipe.toml").unlink()
    page = Page(write_html_report(folder).read_text("utf-8"))
    assert "not finished: as of step 1" in page.text
    assert "– held-out bits per byte" in page.text
    assert "table" not in page.tags and "details" not in page.tags


def test_without_matplotlib_the_report_has_no_plot(page, without):
    without("matplotlib")
    found = page()
    assert found.references == [] and "prose" in found.text


def test_a_report_is_replaced_atomically(run, without):
    without("matplotlib")
    folder = run()
    for word in ("first", "second"):
        write_html_report(folder, {"try": word})
    assert "second" in (folder / "report.html").read_text("utf-8")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["metrics.jsonl", "recipe.toml", "report.html"]


def test_a_folder_without_a_log_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "metrics.jsonl"))):
        write_html_report(tmp_path)


def test_the_report_shows_the_tasks(page, rows_with_tasks):
    found = page(rows_with_tasks())
    for words in (
        "task step 50 step 200 metric",
        "hellaswag 0.300 ± 0.020 0.450 ± 0.020 acc_norm",
        "lambada 0.150 ± 0.020 0.300 ± 0.020 acc",
        "source step 50 all held-out text",
    ):
        assert words in found.text, words
    assert "accuracy on tasks" in found.alt


def test_a_report_without_tasks_does_not_mention_them(page):
    found = page()
    assert "task" not in found.text and found.tags.count("table") == 1
    assert found.alt == "Training loss and held-out bits per byte against steps"


def test_a_task_missing_at_the_end_has_a_dash(page, rows_with_tasks, without):
    without("matplotlib")
    metrics = rows_with_tasks()
    del metrics[-1]["tasks"]["lambada"]
    assert "lambada 0.150 ± 0.020 – acc" in page(metrics).text


def test_tasks_evaluated_once_have_one_column(page, rows_with_tasks, without):
    without("matplotlib")
    text = page(rows_with_tasks(tasks_every=1_000)).text
    assert "task step 200 metric hellaswag 0.450 ± 0.020 acc_norm" in text


def test_damaged_tasks_leave_the_rest_of_the_report(page, rows, damaged, without):
    without("matplotlib")
    metrics = rows(steps=20)
    metrics[9]["tasks"] = damaged
    text = page(metrics).text
    assert "prose" in text and "Accuracy" not in text
