"""The view Training, in a real browser on a real server."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import tomli_w
from playwright.sync_api import expect
from tests.serve.page.conftest import until
from tests.serve.server_process import ServerProcess
from tests.small_models import with_train
from tests.train.test_stability import Poison

from gnano.config.train_config import StabilityConfig
from gnano.train.trainer import train

pytestmark = pytest.mark.slow

LOSSES = re.compile(r"^Loss, step 20: (bumpy [\d.]+, many|many [\d.]+, bumpy) [\d.]+$")


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


@pytest.fixture(scope="module")
def other_server(runs, recipe, tmp_path_factory):
    """A server of a run that was rolled back, and of one with seven held-out sources."""
    folder = tmp_path_factory.mktemp("bumpy-runs")
    stability = StabilityConfig(rollback_after=3, max_rollbacks=1)
    bumpy = with_train(recipe, steps=20, save_every=5, stability=stability)
    per_step = bumpy.train.tokens_per_step // bumpy.model.block_size
    with pytest.MonkeyPatch.context() as patch:
        Poison(patch, set(range(12 * per_step, 15 * per_step)))  # of steps 13, 14, 15
        train(bumpy, folder / "bumpy")
    shutil.copytree(runs / "small", folder / "many")
    path = folder / "many/metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows:
        if heldout := row.get("heldout"):
            heldout["sources"] = {f"source-{n}": n + row["step"] / 100 for n in range(7)}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with ServerProcess(folder / "bumpy", "--runs", folder) as process:
        process.folder = folder
        yield process


def show(page, *names):
    """Draw these runs, whichever the page has chosen."""
    group = page.get_by_role("group", name="Runs")
    for name in names:
        expect(group.get_by_role("button", name=re.compile(f"^{name}( |$)"))).to_be_visible()
    for pressed, wanted in (("false", True), ("true", False)):  # at least one is always drawn
        for button in group.get_by_role("button").all():
            is_named = button.inner_text().removesuffix("running").strip() in names
            if is_named == wanted and button.get_attribute("aria-pressed") == pressed:
                button.click()


@pytest.mark.parametrize("width", [1280, 390])
def test_events_are_marked_and_runs_lie_over_each_other(open_page, other_server, width):
    page = open_page(f"{other_server.url}/#training", viewport={"width": width, "height": 820})
    show(page, "bumpy", "many")
    loss = page.locator(".chart[data-chart=loss]")
    expect(loss.locator(".legend li")).to_have_count(2)
    expect(loss.locator("[role=img]")).to_have_attribute("aria-label", LOSSES)
    page.get_by_text("4 events").click()
    rows = page.locator(".events tbody tr").all_inner_texts()
    assert [row.split("\t")[:2] for row in rows] == [["bumpy", n] for n in ("13", "14", "15", "15")]
    assert [row.split("\t")[2] for row in rows][2:] == [
        "step skipped: not finite",
        "rolled back to 10",
    ]
    page.get_by_role("button", name="Hours").click()
    expect(loss.locator("[role=img]")).to_have_attribute("aria-label", re.compile("^Loss, hour"))
    page.get_by_role("checkbox", name="log").check()
    page.wait_for_timeout(300)
    page.reload()  # the axes stay as they are
    expect(page.get_by_role("checkbox", name="log")).to_be_checked()
    expect(loss.locator("canvas")).to_be_visible()
    assert page.locator("main.training").evaluate("m => m.scrollWidth <= m.clientWidth")


def test_curves_grow_while_a_run_trains(open_page, other_server, recipe, tmp_path):
    folder = other_server.folder
    longer = with_train(recipe, steps=600, save_every=200)
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(asdict(longer)))
    command = [sys.executable, "-m", "gnano", "pretrain", tmp_path / "recipe.toml"]
    page = open_page(f"{other_server.url}/#training")
    with subprocess.Popen([*command, "--out", folder / "live"], stderr=subprocess.DEVNULL) as run:
        group = page.get_by_role("group", name="Runs")
        group.get_by_role("button", name="live").wait_for(timeout=60_000)
        show(page, "live")
        drawn = page.locator(".chart[data-chart=loss] [role=img]")
        steps: list[int] = []
        while not steps or steps[-1] < 600:
            label = drawn.get_attribute("aria-label") or ""
            steps.append(int(re.findall(r"step ([\d,]+)", label)[0].replace(",", "")))
            page.wait_for_timeout(200)
            assert run.poll() in (None, 0)
        assert len(set(steps)) > 2, "it grew in several parts"
        assert run.wait(60) == 0
    region = page.get_by_role("region", name="Run live")
    expect(region).to_contain_text("finished")
    expect(region.get_by_role("button", name="400")).to_be_visible()


def test_lines_of_many_sources_differ(open_page, other_server):
    page = open_page(f"{other_server.url}/#training")
    show(page, "many")
    swatches = page.locator(".chart[data-chart=heldout] .legend i")
    expect(swatches).to_have_count(8)  # with the total
    looks = swatches.evaluate_all("all => all.map((one) => one.className + one.style.color)")
    assert len(set(looks)) == 8
