"""The page of the control port in a browser: what happens while it is open appears on it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pytest_flymachines.emulator.launch import EmulatorProcess
from tests.emulator.conftest import App, Serve
from tests.emulator.fidelity import shows

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
#: As root there is no sandbox; the rest keeps it from looking for anything but the page.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
]
PATIENCE_MS = 60_000

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="there is no chromium here; scripts/system-packages installs one"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=PROGRAM, args=ARGUMENTS, timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context.new_page()
    context.close()


def open_with_token(page: Page, emulator: EmulatorProcess) -> None:
    page.goto(f"{emulator.control_url}/#token={emulator.token}")
    expect(page.locator("#contact")).to_have_text("live")


@shows("page", "machines, their states, events and requests appear while it is open", "ours")
def test_what_happens_appears_while_the_page_is_open(page: Page, app: App) -> None:
    open_with_token(page, app.fly.emulator)
    assert "token" not in page.url
    expect(page.locator("#apps")).to_contain_text(app.name)
    machine = app.create("sleep", "inf", name="seen", skip_launch=True, wait="stopped")
    row = page.locator("#machines tr", has_text=machine.id)
    expect(row).to_contain_text("stopped")
    machine.post("start")
    expect(row).to_contain_text("started")
    machine.post("suspend")
    expect(row).to_contain_text("suspended")
    machine.post("stop")
    expect(row).to_contain_text("stopped")
    expect(page.locator("#events")).to_contain_text("exit code 137, as requested")
    app.fly("GET", f"{machine.path}/nothing-of-the-kind")
    app.fly.error("POST", f"{machine.path}/stop", [])
    requests = page.locator("#requests")
    expect(requests).to_contain_text("json: cannot unmarshal array")
    expect(requests).to_contain_text("/nothing-of-the-kind")
    app.fly.ok("POST", f"{app.path}/volumes", {"name": "disk"})
    expect(page.locator("#volumes")).to_contain_text("disk")
    machine.destroy()
    expect(row).to_contain_text("destroyed")


@shows("page", "text from outside is shown, and never run", "ours")
def test_names_are_text_and_no_markup(page: Page, app: App) -> None:
    alarms: list[str] = []
    page.on("dialog", lambda dialog: alarms.append(dialog.message))
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    app.create(
        "sleep",
        "inf",
        name=markup,
        image=f"debian:{markup.replace(' ', '/')}",
        metadata={"a": markup},
    )
    app.fly("GET", f"/v1/apps/{markup}")
    open_with_token(page, app.fly.emulator)
    expect(page.locator("#machines")).to_contain_text(markup)
    expect(page.locator("#requests")).to_contain_text("onerror=alert(1)")
    assert page.locator("main img, main script").count() == 0
    assert alarms == []


def test_token_is_asked_for_and_a_wrong_one_shows_nothing(page: Page, app: App) -> None:
    machine = app.create(skip_launch=True, wait=None)
    page.goto(app.fly.emulator.control_url)
    contact = page.locator("#contact")
    expect(contact).to_have_text("needs the token")
    field = page.get_by_label("Token of this emulator")
    field.fill("emu-wrong")
    page.get_by_role("button", name="Show").click()
    expect(contact).to_have_text("this is not the token")
    assert machine.id not in page.content()
    field.fill(app.fly.emulator.token)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#machines")).to_contain_text(machine.id)
    expect(field).to_be_hidden()
    page.reload()
    expect(page.locator("#machines")).to_contain_text(machine.id)


def test_page_says_when_the_emulator_has_ended(page: Page, serve: Serve) -> None:
    with serve("--app", "short") as emulator:
        open_with_token(page, emulator)
    expect(page.locator("#contact")).to_have_text(re.compile("no answer"))
    expect(page.locator("#apps")).to_contain_text("short")
