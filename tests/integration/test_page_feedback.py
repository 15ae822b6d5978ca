"""Feedback on the web page, in a real Chromium in front of a real gateway and TorchServe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

playwright = pytest.importorskip("playwright.sync_api")

from deploy.torchserve import TorchServe  # noqa: E402
from feedback.database import open_database, reading  # noqa: E402
from feedback.reading import Opined, content, counts, kept_pictures, opinions  # noqa: E402
from tests.integration.browser import CHROMIUM, DESK, PHONE, add, chromium, open_page  # noqa: E402
from tests.integration.gateways import running, settings_for  # noqa: E402

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium"
)
expect = playwright.expect


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'feedback.db'}"


@pytest.fixture
def address(server: TorchServe, url: str) -> Iterator[str]:
    with running(settings_for(server, feedback=url)) as address:
        yield address


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = Image.new("RGB", (120, 90), (40, 160, 90))
    ImageDraw.Draw(image).ellipse((10, 10, 60, 60), fill=(200, 30, 40))
    image.save(tmp_path / "sea.png")
    return tmp_path / "sea.png"


def stored(url: str) -> list[Opined]:
    with reading(open_database(url)) as connection:
        return list(opinions(connection))


def test_thumbs_and_a_better_caption(browser: Any, address: str, url: str, picture: Path):
    page = open_page(browser, address, **DESK)
    add(page, [picture])
    caption = page.locator(".card .caption").text_content()
    up = page.get_by_role("button", name="Good caption: sea.png")
    down = page.get_by_role("button", name="Bad caption: sea.png")
    told = page.locator("[data-part=told]")
    down.click()
    expect(told).to_have_text("Thank you.")
    up.click()
    expect(up).to_have_attribute("aria-pressed", "true")
    expect(down).to_have_attribute("aria-pressed", "false")
    page.wait_for_function("document.querySelector('[data-part=told]').textContent !== ''")

    # The form begins with the caption, and sends words alone unless the tick is set.
    page.get_by_role("button", name="Write a better caption: sea.png").click()
    field = page.get_by_role("textbox", name="A better caption")
    expect(field).to_have_value(caption)
    expect(field).to_be_focused()
    assert field.get_attribute("maxlength") == "500"
    field.fill("  a red ball on grass ")
    field.press("Enter")
    expect(field).to_be_hidden()
    [one] = stored(url)
    assert (one.caption, one.thumbs, one.correction) == (caption, 1, "a red ball on grass")
    with reading(open_database(url)) as connection:
        assert counts(connection).pictures == 0

    page.get_by_role("button", name="Write a better caption: sea.png").click()
    expect(field).to_have_value("a red ball on grass")
    page.get_by_role("checkbox", name="Keep this picture, to train on").check()
    page.get_by_role("button", name="Send").click()
    expect(told).to_have_text("Thank you. The picture is kept too.")
    with reading(open_database(url)) as connection:
        [kept] = kept_pictures(connection)
        assert content(connection, kept.sha256) == picture.read_bytes()
    assert kept.corrections == ("a red ball on grass",)

    # An alternative has thumbs of its own.
    page.locator(".others summary").click()
    other = page.locator(".others li").first
    text = re.sub(r" \d+%$", "", other.inner_text().strip())
    page.get_by_role("button", name=f"Bad caption: {text}", exact=True).click()
    expect(told).to_have_text("Thank you.")
    assert [(each.caption, each.thumbs) for each in stored(url)] == [(caption, 1), (text, -1)]

    # A new caption of the same picture begins without an opinion.
    page.get_by_role("button", name="Again: sea.png").click()
    expect(page.locator(".card")).to_have_attribute("data-state", "done")
    expect(up).to_have_attribute("aria-pressed", "false")
    expect(told).to_have_text("")
    page.context.close()


def test_what_the_server_says_against_it_is_shown(
    browser: Any, server: TorchServe, url: str, picture: Path
):
    limits: dict[str, Any] = {"feedback_rate": 0.001, "feedback_burst": 1}
    with running(settings_for(server, feedback=url, feedback_picture_bytes=0, **limits)) as address:
        page = open_page(browser, address, **DESK)
        add(page, [picture])
        page.get_by_role("button", name="Good caption: sea.png").click()
        expect(page.locator("[data-part=told]")).to_have_text("Thank you.")
        page.get_by_role("button", name="Bad caption: sea.png").click()
        expect(page.locator("[data-part=told]")).to_contain_text("Not stored: 127.0.0.1 may send")
        page.get_by_role("button", name="Write a better caption: sea.png").click()
        expect(page.get_by_role("checkbox")).to_have_count(0)  # pictures are not kept here
        page.context.close()


def test_by_keyboard(browser: Any, address: str, url: str, picture: Path):
    page = open_page(browser, address, **DESK)
    add(page, [picture])
    page.get_by_role("button", name="Remove: sea.png").focus()
    for name in ("Good caption: sea.png", "Bad caption: sea.png"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    write = page.get_by_role("button", name="Write a better caption: sea.png")
    expect(write).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("a boat")
    page.keyboard.press("Tab")
    expect(page.get_by_role("checkbox")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(write).to_be_focused()  # the form is closed, and the focus is where it was
    [one] = stored(url)
    assert (one.thumbs, one.correction) == (-1, "a boat")
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [PHONE, DESK], ids=["phone", "desk"])
def test_no_violation_of_accessibility_rules(
    browser: Any, address: str, picture: Path, device: dict[str, Any], scheme: str
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(browser, address, color_scheme=scheme, reduced_motion="reduce", **device)
    add(page, [picture, picture])
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.get_by_role("button", name="Good caption: sea.png").first.click()
    page.get_by_role("button", name="Write a better caption: sea.png").first.click()
    found = axe.run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == device["viewport"]["width"]
    page.context.close()


def test_a_server_without_feedback_shows_none(browser: Any, gateway: str, picture: Path):
    page = open_page(browser, gateway, **DESK)
    add(page, [picture])
    expect(page.locator("[data-part=feedback]")).to_be_hidden()
    expect(page.locator(".thumb")).to_have_count(0)
    page.context.close()
