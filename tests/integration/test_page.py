"""The web page in a real Chromium, in front of a real gateway and TorchServe."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

playwright = pytest.importorskip("playwright.sync_api")

from client import CaptionClient  # noqa: E402
from deploy.torchserve import TorchServe  # noqa: E402
from gateway.access.keys import add_key  # noqa: E402
from tests.integration.browser import (  # noqa: E402
    CHROMIUM,
    DESK,
    PHONE,
    SCREENS,
    TABLET,
    add,
    chromium,
    open_page,
    take_screens,
)
from tests.integration.gateways import running, settings_for  # noqa: E402

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium"
)
Page, expect = playwright.Page, playwright.expect
#: A profile in which the tests may read the clipboard.
READABLE: dict[str, Any] = {"permissions": ["clipboard-read", "clipboard-write"]}
READ = "navigator.clipboard.readText()"
#: Gives the page files in the way of a drop or a paste: {kind, target, name -> base64}.
TRANSFER = """({kind, target, files}) => {
    const transfer = new DataTransfer();
    for (const [name, text] of Object.entries(files)) {
        const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
        transfer.items.add(new File([bytes], name));
    }
    const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
        : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
    document.querySelector(target).dispatchEvent(event);
}"""

#: Fields of a caption that differ in their last digits with the batch that it was in.
SCORES = ("confidence", "log_prob")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, gateway: str) -> Iterator[Any]:
    page = open_page(browser, gateway, **DESK, **READABLE)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    page.context.close()
    assert faults == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five pictures, each different. Their names need quoting in HTML, CSV and a shell."""
    folder = tmp_path_factory.mktemp("pictures")
    names = ["red.png", 'a "b", c.png', "d & <e>.png", "it's; f.png", "grün 5.png"]
    for place, name in enumerate(names):
        image = Image.new("RGB", (120, 90), (40 * place, 200 - 40 * place, 90))
        ImageDraw.Draw(image).ellipse((10 * place, 10, 60 + 10 * place, 60), fill=(200, 30, 40))
        image.save(folder / name)
    return [folder / name for name in names]


@pytest.fixture
def no_picture(tmp_path: Path) -> Path:
    file = tmp_path / "notes.txt"
    file.write_text("this is no picture")
    return file


def captioned(server: TorchServe, file: Path, **options: Any) -> dict[str, Any]:
    """What TorchServe answers to the picture."""
    with CaptionClient(server.rest) as client:
        return client.caption(file.read_bytes(), **options).to_dict()


def card(page: Any, file: Path) -> Any:
    return page.locator(".card").filter(has=page.get_by_role("heading", name=file.name, exact=True))


def part(page: Any, file: Path, name: str) -> Any:
    return card(page, file).locator(f"[data-part={name}]")


def transfer(page: Any, kind: str, files: list[Path], target: str = "body") -> None:
    texts = {file.name: base64.b64encode(file.read_bytes()).decode() for file in files}
    page.evaluate(TRANSFER, {"kind": kind, "target": target, "files": texts})


def test_several_pictures_get_their_captions_and_a_bad_one_the_servers_words(
    page: Any, gateway: str, server: TorchServe, files: list[Path], no_picture: Path
):
    add(page, [*files, no_picture])
    for file in files:
        expected = captioned(server, file, num_captions=3)
        expect(part(page, file, "caption")).to_have_text(expected["caption"])
        shown = f"{round(expected['confidence'] * 100)}% confidence"
        expect(part(page, file, "confidence")).to_have_text(shown)
        expect(part(page, file, "time")).to_have_text(re.compile(r"^\d+\.\d\d s$"))
        others = part(page, file, "alternatives").locator("li").all_text_contents()
        assert others == [
            f"{other['caption']} {round(other['confidence'] * 100)}%"
            for other in expected["captions"][1:]
        ]
    reply = httpx.post(f"{gateway}/v1/captions", files={"data": no_picture.read_bytes()})
    message = reply.json()["error"]["message"]
    expect(part(page, no_picture, "caption")).to_have_text(message)
    expect(page.locator("#count")).to_have_text("5 of 6 captioned, 1 failed")
    # A screen reader hears each caption and each error as it comes.
    log = page.get_by_role("log").locator("p")
    expect(log).to_have_count(6)
    expect(log.filter(has_text=no_picture.name)).to_have_text(f"notes.txt, error: {message}")


def test_three_requests_at_a_time(page: Any, files: list[Path]):
    under_way, most = 0, 0

    def count(change: int, request: Any) -> None:
        nonlocal under_way, most
        if request.url.endswith("/v1/captions"):
            under_way += change
            most = max(most, under_way)

    page.on("request", lambda request: count(1, request))
    page.on("requestfinished", lambda request: count(-1, request))
    add(page, files * 2)
    assert most == 3


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_dropped_or_pasted(page: Any, server: TorchServe, files: list[Path], kind: str):
    if kind == "drop":
        transfer(page, "dragenter", files[:2], "main")
        expect(page.locator("#drop")).to_have_class("drop over")
    transfer(page, kind, files[:2])
    for file in files[:2]:
        expected = captioned(server, file, num_captions=3)["caption"]
        expect(part(page, file, "caption")).to_have_text(expected)
    expect(page.locator("#drop")).to_have_class("drop")


def test_a_drop_without_a_file_is_explained(page: Any):
    transfer(page, "drop", [])
    expect(page.locator("#said")).to_contain_text("What was dropped holds no file.")
    expect(page.locator(".card")).to_have_count(0)


def test_a_phone_has_a_camera(browser: Any, gateway: str, files: list[Path]):
    page = open_page(browser, gateway, **PHONE)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").click()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(files[0])
    expect(card(page, files[0])).to_have_attribute("data-state", "done")
    page.context.close()


def test_options_are_the_servers(page: Any, gateway: str, server: TorchServe, files: list[Path]):
    description = httpx.get(f"{gateway}/v1/description").json()
    fields = page.locator("#options input")
    assert [field.get_attribute("name") for field in fields.all()] == list(description["options"])
    for name, option in description["options"].items():
        field = page.locator(f"#option-{name}")
        if option["type"] == "str":
            assert field.get_attribute("maxlength") == str(option["to"])
        else:
            limits = [float(field.get_attribute(key)) for key in ("min", "max", "placeholder")]
            assert limits == [option["from"], option["to"], option["default"]]
        expect(page.locator(f"#help-{name}")).to_contain_text(option["help"])
    expect(page.locator("#model")).to_have_text("clipcap 1.0")
    for name in description["formats"]:
        expect(page.locator("#limits")).to_contain_text(name)

    page.locator("#defaults").click()
    page.locator("#option-max_tokens").fill("3")
    add(page, files[:1])
    expected = captioned(server, files[0], max_tokens=3)
    expect(part(page, files[0], "caption")).to_have_text(expected["caption"])
    expect(part(page, files[0], "others")).to_be_hidden()

    # A value outside the limits: the server's own words. Then once more with a good one.
    page.locator("#option-num_beams").fill("99")
    part(page, files[0], "again").click()
    refused = httpx.post(
        f"{gateway}/v1/captions",
        files={"data": files[0].read_bytes()},
        data={"max_tokens": "3", "num_beams": "99"},
    )
    expect(part(page, files[0], "caption")).to_have_text(refused.json()["error"]["message"])
    page.locator("#option-num_beams").fill("1")
    page.locator("#again-all").click()
    expected = captioned(server, files[0], max_tokens=3, num_beams=1)
    expect(part(page, files[0], "caption")).to_have_text(expected["caption"])


def test_copies(page: Any, server: TorchServe, files: list[Path]):
    add(page, files)
    answers = [captioned(server, file, num_captions=3) for file in files]
    captions = [answer["caption"] for answer in answers]

    def copied(name: str) -> str:
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator("#said")).to_have_text("Copied.")
        return page.evaluate(READ)

    assert copied("Text").split("\n") == captions
    table = list(csv.DictReader(io.StringIO(copied("CSV"))))
    assert [(row["file"], row["caption"]) for row in table] == [
        (file.name, caption) for file, caption in zip(files, captions, strict=True)
    ]
    entries = json.loads(copied("JSON"))
    for entry, answer in zip(entries, answers, strict=True):
        # In a batch the last digits of a score are others than alone.
        for copy, one in zip(entry["captions"], answer["captions"], strict=True):
            scores = {name: pytest.approx(one[name], rel=1e-3) for name in SCORES}
            assert copy == {**one, **scores}
    assert [entry["model"] for entry in entries] == [answer["model"] for answer in answers]
    tags = copied("Alt attributes")
    read = page.evaluate(
        """(text) => [...new DOMParser().parseFromString(text, "text/html").images]
            .map((image) => [image.getAttribute("src"), image.alt])""",
        tags,
    )
    assert read == [[file.name, text] for file, text in zip(files, captions, strict=True)]
    assert copied(f"Copy text: {files[0].name}") == captions[0]


def test_copies_where_the_clipboard_interface_is_missing(
    browser: Any, gateway: str, server: TorchServe, files: list[Path]
):
    page = browser.new_context(**READABLE).new_page()
    page.add_init_script("delete Navigator.prototype.clipboard")
    page.goto(gateway)
    add(page, files[:1])
    assert page.evaluate("navigator.clipboard") is None
    part(page, files[0], "copyText").click()
    expect(page.locator("#said")).to_have_text("Copied.")
    reader = page.context.new_page()
    reader.goto(gateway)
    assert reader.evaluate(READ) == captioned(server, files[0])["caption"]
    page.context.close()


@pytest.mark.parametrize("language", ["curl", "Python"])
def test_the_code_captions_the_same_picture(page: Any, files: list[Path], language: str):
    if language == "curl" and not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("curl or bash is missing")
    page.get_by_role("radio", name=language).check()
    for file in files:
        add(page, [file])
        code = page.locator("#code").text_content()
        command = ["bash", "-c", code] if language == "curl" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=file.parent, capture_output=True, check=True, timeout=60)
        result = json.loads(done.stdout)["results"][0]
        assert result["caption"] == part(page, file, "caption").text_content()
        assert len(result["captions"]) == 3  # the option goes along


def test_pictures_wait_while_the_server_is_away(
    browser: Any, server: TorchServe, files: list[Path]
):
    settings = settings_for(server)
    with running(settings) as address:
        page = open_page(browser, address, **DESK)
        add(page, files[:1])
    page.set_input_files("#files", files[1:3])
    expect(page.locator("#notice-text")).to_contain_text("The server does not answer.")
    expect(page.locator("#notice")).to_be_visible()
    for file in files[1:3]:
        expect(card(page, file)).to_have_attribute("data-state", "waiting")
    with running(settings):
        for file in files[1:3]:
            expected = captioned(server, file, num_captions=3)["caption"]
            expect(part(page, file, "caption")).to_have_text(expected, timeout=30_000)
        expect(page.locator("#notice")).to_be_hidden()
        page.context.close()


def test_a_key_is_asked_for_and_kept_for_the_tab(
    browser: Any, server: TorchServe, files: list[Path], tmp_path: Path
):
    key = add_key(tmp_path / "keys", "page")
    with running(settings_for(server, keys=tmp_path / "keys")) as address:
        words = httpx.get(f"{address}/v1/description").json()["error"]["message"]
        page = browser.new_context(**DESK).new_page()
        page.goto(address)
        dialog = page.get_by_role("dialog", name="This server needs a key")
        expect(dialog.locator("#key-message")).to_have_text(words)

        # Pictures wait for the key; it can be given later, and a wrong one is refused.
        page.get_by_role("button", name="Not now").click()
        page.set_input_files("#files", files[:2])
        expect(card(page, files[0])).to_have_attribute("data-state", "waiting")
        page.get_by_role("button", name="Enter the key").click()
        page.get_by_label("Key", exact=True).fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        wrong = httpx.get(
            f"{address}/v1/description", headers={"Authorization": "Bearer wrong"}
        ).json()["error"]["message"]
        expect(dialog.locator("#key-message")).to_have_text(wrong)
        page.get_by_label("Key", exact=True).fill(key)
        page.keyboard.press("Enter")
        for file in files[:2]:
            expect(card(page, file)).to_have_attribute("data-state", "done")
        code = page.locator("#code").text_content()
        assert "Authorization: Bearer $CLIPCAP_KEY" in code
        assert key not in page.content()

        page.reload()
        page.wait_for_selector("body[data-server=ready]")
        expect(dialog).to_be_hidden()
        page.context.close()


def test_everything_by_keyboard(page: Any, server: TorchServe, files: list[Path]):
    page.on("filechooser", lambda _: None)  # Chromium hands choosers over from now on
    page.keyboard.press("Tab")
    expect(page.locator("#choose")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(files[:2])
    for file in files[:2]:
        expect(card(page, file)).to_have_attribute("data-state", "done")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.outerHTML"))
    controls = page.locator("button:visible, summary:visible, input:visible, pre").all()
    for control in controls:
        html = control.evaluate("(element) => element.outerHTML")
        one_of_group = 'name="language"' in html  # arrow keys reach the other one
        assert html in reached or one_of_group, html
    # Removing a card puts the focus on the next one's cross, then back at the start.
    part(page, files[0], "remove").press("Enter")
    expect(part(page, files[1], "remove")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#choose")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [PHONE, TABLET, DESK], ids=["phone", "tablet", "desk"])
def test_no_violation_of_accessibility_rules(
    browser: Any,
    gateway: str,
    files: list[Path],
    no_picture: Path,
    device: dict[str, Any],
    scheme: str,
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(browser, gateway, color_scheme=scheme, reduced_motion="reduce", **device)

    def check() -> None:
        found = axe.run(page).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width == device["viewport"]["width"]  # nothing sticks out

    check()
    add(page, [*files, no_picture])
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    check()
    page.evaluate("document.getElementById('key-dialog').showModal()")
    check()
    page.context.close()


def test_reduced_motion_is_respected(browser: Any, gateway: str):
    page = open_page(browser, gateway, reduced_motion="reduce", **DESK)
    moving = "[...document.querySelectorAll('*')].map((each) => getComputedStyle(each).transition)"
    assert set(page.evaluate(moving)) == {"none"}
    page.context.close()


def test_nothing_comes_from_elsewhere(browser: Any, gateway: str, files: list[Path]):
    page = browser.new_context(**DESK).new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(gateway)
    page.wait_for_selector("body[data-server=ready]")
    add(page, files[:1])
    assert [url for url in asked if not url.startswith((gateway, "data:", f"blob:{gateway}"))] == []
    assert complaints == []  # such as a breach of the Content-Security-Policy
    page.context.close()


def test_pictures_of_the_page(browser: Any, gateway: str, files: list[Path], tmp_path: Path):
    written = take_screens(browser, gateway, files, tmp_path)
    assert [file.stem for file in written] == list(SCREENS)
    for file in written:
        assert file.stat().st_size < 150_000
        assert len(Image.open(file).convert("RGB").getcolors(1 << 24)) > 20  # not an empty page


def test_too_large_a_file_gets_the_servers_words(
    browser: Any, server: TorchServe, files: list[Path], tmp_path: Path
):
    large = tmp_path / "large.png"
    large.write_bytes(files[0].read_bytes() + bytes(24 << 20))
    with running(settings_for(server, max_body_bytes=1 << 20)) as address:
        page = open_page(browser, address, **DESK)
        add(page, [large, files[0]])
        expect(part(page, large, "caption")).to_contain_text("1048576")
        expect(card(page, files[0])).to_have_attribute("data-state", "done")
        page.context.close()


@pytest.mark.parametrize("closed", [1, 2])
def test_a_connection_that_closes_is_tried_once_more(
    page: Any, server: TorchServe, files: list[Path], closed: int
):
    ends = iter([True] * closed)

    def end_or_pass(route: Any) -> None:
        if next(ends, False):
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/v1/captions", end_or_pass)
    add(page, files[:1])
    if closed == 1:
        expected = captioned(server, files[0], num_captions=3)["caption"]
    else:
        expected = re.compile("closed the connection twice without an answer")
    expect(part(page, files[0], "caption")).to_have_text(expected)


def test_a_busy_server_gets_the_pictures_later(browser: Any, server: TorchServe, files: list[Path]):
    statuses: list[int] = []
    with running(settings_for(server, max_in_flight=1)) as address:
        page = open_page(browser, address, **DESK)
        page.on("response", lambda reply: statuses.append(reply.status))
        add(page, files * 2)
        expect(page.locator("#count")).to_have_text("10 of 10 captioned")
        page.context.close()
    assert 503 in statuses


def test_a_file_that_is_gone_is_explained(browser: Any, server: TorchServe, tmp_path: Path):
    settings = settings_for(server)
    file = tmp_path / "gone.png"
    Image.new("RGB", (40, 30)).save(file)
    with running(settings) as address:
        page = open_page(browser, address, **DESK)
    page.set_input_files("#files", file)
    expect(page.locator("#notice")).to_be_visible()
    file.unlink()
    with running(settings):
        expect(part(page, file, "caption")).to_have_text(
            "The browser cannot read gone.png. It may be a folder, or it was moved or deleted.",
            timeout=30_000,
        )
        page.context.close()
