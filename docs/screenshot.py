"""Make the picture of the page in the README: the demo's model continues a text.

    make demo
    python docs/screenshot.py runs/demo runs/demo-sft        writes docs/page.png

Needs Chromium and the package playwright.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

TEXT = "Once upon a time, there was a small bird who lived"


def main() -> None:
    """Serve the runs that are named on the command line, and let the first one write."""
    command = [sys.executable, "-m", "gnano", "serve", *sys.argv[1:], "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        with sync_playwright() as api:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = api.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 600})
            page.goto(f"{url}/#write")
            page.get_by_role("button", name=re.compile("base")).wait_for()
            page.get_by_role("textbox", name="Document").fill(TEXT)
            page.keyboard.press("Control+Enter")
            page.get_by_text(re.compile("tokens/s")).wait_for()
            page.screenshot(path=Path(__file__).with_name("page.png"))
            browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
