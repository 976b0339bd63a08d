"""Make the picture of the page in the README: a question to the demo's tuned model.

    make demo
    python docs/screenshot.py runs/demo-sft runs/demo        writes docs/page.png

Needs Chromium and the package playwright.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

QUESTION = "Name the module that iscoroutinefunction is in.\nfrom inspect import iscoroutinefunction"


def main() -> None:
    """Serve the runs that are named on the command line, and ask."""
    command = [sys.executable, "-m", "gnano", "serve", *sys.argv[1:], "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        with sync_playwright() as api:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = api.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.goto(f"{url}/#chat")
            page.get_by_role("button", name=re.compile("tuned")).wait_for()
            page.get_by_role("textbox", name="Question").fill(QUESTION)
            page.keyboard.press("Enter")
            page.get_by_text(re.compile("tokens/s")).wait_for()
            page.screenshot(path=Path(__file__).with_name("page.png"))
            browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
