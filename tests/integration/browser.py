"""Chromium for tests of the page, and pictures of the page for the documentation.

`python -m tests.integration.browser http://127.0.0.1:8000 docs photo.jpg` writes `docs/page-*.png`
from a gateway that runs, and `docs/feedback.png` if it takes feedback.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
#: root needs --no-sandbox; the others keep the browser from asking hosts of its own.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
}
TABLET: dict[str, Any] = {
    "viewport": {"width": 820, "height": 1180},
    "has_touch": True,
    "is_mobile": True,
}
DESK: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
#: Pictures of the page: name -> device and colour scheme.
SCREENS = {
    "page-light": (DESK, "light"),
    "page-dark": (DESK, "dark"),
    "page-phone": (PHONE, "light"),
}


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


def open_page(browser: Browser, address: str, **settings: Any) -> Page:
    """The page in a new browser profile, when the server has described itself.

    Args:
        browser: From `chromium`.
        address: Of the gateway.
        settings: Of Playwright's `new_context`, such as `DESK`.
    """
    page = browser.new_context(**settings).new_page()
    page.set_default_timeout(20_000)
    page.goto(address)
    page.wait_for_selector("body[data-server=ready]")
    return page


def add(page: Page, files: Sequence[Path]) -> None:
    """Choose files, and wait until each has a caption or an error."""
    before = page.locator(".card").count()
    page.set_input_files("#files", list(files))
    ended = page.locator(".card[data-state=done], .card[data-state=failed]")
    ended.nth(before + len(files) - 1).wait_for()


def take_screens(browser: Browser, address: str, files: Sequence[Path], folder: Path) -> list[Path]:
    """Write a picture of the page for each of `SCREENS`, with captions of these files."""
    written = []
    for name, (device, scheme) in SCREENS.items():
        page = open_page(browser, address, color_scheme=scheme, **device)
        add(page, files)
        target = folder / f"{name}.png"
        page.screenshot(path=target)
        page.context.close()
        _shrink(target)
        written.append(target)
    return written


def take_feedback(browser: Browser, address: str, files: Sequence[Path], folder: Path) -> Path:
    """Write a picture of the cards of these files, with thumbs and the form for a better caption.

    The second caption gets thumbs up, which is sent.
    """
    page = open_page(browser, address, color_scheme="light", **DESK)
    add(page, files)
    page.locator("[data-part=thumbs] .thumb").nth(2).click()
    page.get_by_text("Thank you.").wait_for()
    page.locator("[data-part=better]").first.click()
    page.locator("[data-part=keep]").first.check()
    page.locator("[data-part=others]").evaluate_all("(all) => all.forEach((each) => each.remove())")
    target = folder / "feedback.png"
    page.locator("#cards").screenshot(path=target)
    page.context.close()
    _shrink(target)
    return target


def _shrink(file: Path) -> None:
    """128 colours keep a page of text below 150 kB; the photos lose little."""
    Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)


def main() -> None:
    """Write the pictures of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of a gateway that runs, such as http://127.0.0.1:8000")
    parser.add_argument("folder", type=Path, help="where the pictures are written, such as docs")
    parser.add_argument("files", type=Path, nargs="+", help="photos to caption")
    given = parser.parse_args()
    with chromium() as browser:
        for target in take_screens(browser, given.address, given.files, given.folder):
            print(target)
        if httpx.get(f"{given.address}/v1/description").json().get("feedback"):
            print(take_feedback(browser, given.address, given.files, Path(given.folder)))


if __name__ == "__main__":
    main()
