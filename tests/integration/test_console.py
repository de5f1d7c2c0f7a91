"""The console at the local stack's root, as a person at a browser meets it: by keyboard, by ear, on a phone.

What the code writes is hostile: shown, it does nothing. Where the two layers that see to that are taken away it does.
"""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from accessibility import overflow, violations
from browser import ALT, CTRL, SHIFT, Browser, Page, browser, needs_chromium
from local_stack import DEADLINE_S, ROOT, LocalStack, local_stack

pytestmark = needs_chromium

SHOWN = "document.querySelector('#stop').hidden && document.querySelector('#status').className"
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\n"
TABLE = "import pandas as pd\npd.DataFrame({'city': ['Oslo', 'Lima'], 'units': [12, 7]})\n"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def page(chromium: Browser, product: LocalStack) -> Iterator[Page]:
    opened = chromium.page(product.ready["console"])
    yield opened
    opened.close()


def write(page: Page, code: str) -> None:
    """Code in place of what the editor holds."""
    page.run("document.querySelector('#code').select()")
    page.type(code)


def run(page: Page, code: str) -> str:
    """What the page says once the code has run."""
    write(page, code)
    page.press("Enter", CTRL)
    page.wait_for(SHOWN)
    return said(page)


def said(page: Page) -> str:
    return str(page.run("document.querySelector('#answer').innerText"))


def editor(page: Page) -> str:
    return str(page.run("document.querySelector('#code').value"))


def test_code_runs_and_everything_it_wrote_is_shown(page: Page) -> None:
    shown = run(
        page,
        "import sys, warnings\nprint('to stdout')\nprint('to stderr', file=sys.stderr)\nwarnings.warn('mind')\n6 * 7",
    )
    assert "✓ Done with a result." in shown
    for part in (
        "Result\n42",
        "Printed (stdout)\nto stdout",
        "stderr\nto stderr",
        "mind",
        "CPU",
        "memory",
        "whole call",
    ):
        assert part in shown
    assert page.run("document.querySelector('#status').getAttribute('role')") == "status"
    assert page.look.complaints == []


def test_an_error_is_marked_at_its_line_until_the_code_changes(page: Page) -> None:
    shown = run(page, "a = 1\nb = 0\nprint('before')\na / b")
    assert "✗ Failed ZeroDivisionError: division by zero (runtime)" in shown
    assert "Printed (stdout)\nbefore" in shown
    assert page.run("document.querySelector('#mark').dataset.line") == "4"
    assert page.run("document.querySelector('#gutter b').textContent") == "✗ 4"
    top = "document.querySelector('{}').getBoundingClientRect().top"
    assert page.run(f"Math.abs({top.format('#mark')} - {top.format('#gutter b')})") < 6
    assert page.run("document.querySelector('#code').getAttribute('aria-invalid')") == "true"
    page.run("document.querySelector('#status button').click()")
    page.type("a")
    assert editor(page) == "a = 1\nb = 0\nprint('before')\na", "the line was selected"
    assert page.run("document.querySelector('#mark').hidden")
    assert not page.run("document.querySelector('#code').hasAttribute('aria-invalid')")


def test_a_blocked_operation_is_named(page: Page) -> None:
    shown = run(page, "import os\nprint('before')\nos.system('id')")
    assert "✗ Blocked Security Error: Blocked dangerous operation: os.system (security)" in shown
    assert "Blocked operations\nos.system" in shown
    assert page.run("document.querySelector('#mark').dataset.line") == "3"


def test_a_figure_and_a_table(page: Page) -> None:
    run(page, FIGURE)
    page.wait_for("document.querySelector('figure img').naturalWidth > 100")
    assert page.run("document.querySelector('figure img').alt")
    run(page, TABLE)
    frame = "document.querySelector('iframe')"
    assert page.run(f"{frame}.getAttribute('sandbox')") == ""
    assert "Oslo" in page.run(f"{frame}.srcdoc")
    assert page.run(f"{frame}.title")


def test_files_go_there_and_come_back(page: Page, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("thé")
    (tmp_path / "in.bin").write_bytes(b"\xff\x00\xfe")
    field = page.ask("Runtime.evaluate", expression="document.querySelector('#files')")["result"]["objectId"]
    page.ask("DOM.setFileInputFiles", files=[str(tmp_path / "in.txt"), str(tmp_path / "in.bin")], objectId=field)
    page.wait_for("document.querySelectorAll('#given li').length === 2")
    shown = run(
        page,
        "text, raw = open('in.txt').read(), open('in.bin', 'rb').read()\n"
        "open('out.txt', 'w').write(text * 2)\n"
        "print(text, raw)",
    )
    assert r"thé b'\xff\x00\xfe'" in shown
    page.run(
        "[...document.querySelectorAll('#parts button')]"
        ".find(one => one.textContent.includes('bring back out.txt')).click()"
    )
    page.wait_for("document.querySelector('#parts')?.innerText.includes('Save out.txt')")
    assert "théthé" in said(page)


def test_by_keyboard_alone(page: Page) -> None:
    assert page.run("document.activeElement.id") == "code", "the editor has the keyboard from the start"
    assert "2" in run(page, "print(1 + 1)")
    assert "16" in run(page, "print(4 * 4)")
    page.type("# a draft\n")
    page.press("ArrowUp", ALT)
    assert (editor(page), "Run 2 of 2." in said(page)) == ("print(4 * 4)", True)
    page.press("ArrowUp", ALT)
    assert (editor(page), "Run 1 of 2." in said(page)) == ("print(1 + 1)", True)
    assert "Printed (stdout)\n2" in said(page), "with the answer it had"
    page.press("ArrowUp", ALT)
    assert editor(page) == "print(1 + 1)", "there is nothing before it"
    page.press("ArrowDown", ALT)
    page.press("ArrowDown", ALT)
    assert editor(page).endswith("# a draft\n")
    write(page, "if True:")
    page.press("Enter")
    page.type("x = 1")
    assert editor(page) == "if True:\n    x = 1"
    page.press("Tab")
    page.press("Tab", SHIFT)
    page.press("Tab", SHIFT)
    assert editor(page).strip() == "if True:\nx = 1"
    page.press("Escape")
    page.press("Tab")
    assert page.run("document.activeElement.id") == "run", "Escape lets Tab out of the editor"


def test_pages_of_this_machine_reach_the_function_and_no_others(chromium: Browser, product: LocalStack) -> None:
    page = chromium.page(product.ready["console"].replace("127.0.0.1", "localhost"))
    assert "Result\n42" in run(page, "6 * 7")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert product.call(call, origin="http://pages.example").status == 403


def test_copied_as_curl_it_gives_the_same(page: Page) -> None:
    code = "print(\"it's\", '$HOME', '\\\\')"
    run(page, code)
    page.run("document.querySelector('#curl').click()")
    page.wait_for("document.querySelector('#copied').value")
    command = page.run("document.querySelector('#copied').value")
    assert shlex.split(command)[0] == "curl"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert "it's $HOME" in done.stdout
    assert "it's $HOME \\\n" in page.run("document.querySelector('#parts pre').textContent")
    page.run("document.querySelector('#requirements').value = 'humanize==4.9.0, six'")
    page.run("document.querySelector('#curl').click()")
    page.wait_for("document.querySelector('#copied').value.includes('humanize')")
    body = shlex.split(page.run("document.querySelector('#copied').value"))[-1]
    assert json.loads(body)["params"]["arguments"]["requirements"] == ["humanize==4.9.0", "six"]


def test_the_key_is_asked_for_and_kept_nowhere_and_cold_is_told_from_warm(chromium: Browser, tmp_path: Path) -> None:
    template = str(ROOT / "sam" / "template.yaml")
    with local_stack(tmp_path, "--template", template, "--api-key", "open sesame") as stack:
        page = chromium.page(stack.ready["console"])
        assert "wants an API key" in run(page, "1")
        assert page.run("document.activeElement.id") == "key"
        page.type("open sesame")
        page.press("Enter", CTRL)
        page.wait_for("document.querySelector('#chips').innerText.includes('cold start, init')")
        assert "Result\n1" in said(page)
        page.press("Enter", CTRL)
        page.wait_for("document.querySelector('#chips').innerText.includes('warm, call 2')")
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        assert "sesame" not in page.run(kept)
        page.run("document.querySelector('#curl').click()")
        page.wait_for("document.querySelector('#copied').value")
        command = page.run("document.querySelector('#copied').value")
        assert '"x-api-key: $MCP_API_KEY"' in command
        assert "sesame" not in command


@pytest.fixture
def canary() -> Iterator[tuple[str, list[str]]]:
    """An address whose page is empty, and what else was asked of it."""
    asked: list[str] = []

    class Canary(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/canary/"):
                asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Canary) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


HOSTILE = """
class Hostile:
    def _repr_html_(self):
        return '''<script>top.document.title = "owned"; fetch("{0}/canary/fetch")</script><img src="{0}/canary/img">
            <img src=x onerror="top.document.title = 'owned'"><svg onload="top.document.title = 'owned'"></svg>
            <style>body {{ background: url({0}/canary/style) }}</style><link rel="stylesheet" href="{0}/canary/link">
            <iframe src="{0}/canary/frame"></iframe><meta http-equiv="refresh" content="0; url={0}/canary/refresh">
            <table><tr><td>shown</td></tr></table>'''
print("<img src=x onerror=\\"document.title = 'owned'\\"><script>document.title = 'owned'</script>")
open("<img src=x onerror=\\"document.title = 'owned'\\">", "w").close()
Hostile()
"""
# A document in a frame of its own, until everything in it has been tried.
FRAMED = """new Promise(loaded => {
    const frame = document.createElement('iframe');
    if (%s) frame.setAttribute('sandbox', '');
    frame.srcdoc = %s;
    frame.onload = () => setTimeout(() => loaded(document.title), 50);
    document.body.append(frame);
})"""
OWN_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def hostile_frame(page: Page, address: str) -> str:
    """What the console put into the frame of a hostile table."""
    run(page, HOSTILE.format(address))
    document = str(page.run("document.querySelector('iframe').srcdoc"))
    assert address in document
    return document


def test_hostile_output_is_shown_and_does_nothing(page: Page, canary: tuple[str, list[str]]) -> None:
    address, asked = canary
    document = hostile_frame(page, address)
    assert "Printed (stdout)\n<img src=x onerror=" in said(page)
    assert "Files written\n<img src=x onerror=" in said(page)
    assert page.run(FRAMED % ("true", json.dumps(document))) == "Python console"
    assert asked == []


@pytest.mark.parametrize(
    ("policy", "sandbox", "title", "loads"),
    [
        pytest.param(True, False, "Python console", False, id="policy-alone"),
        pytest.param(False, True, "", True, id="sandbox-alone-runs-no-script"),
        pytest.param(False, False, "owned", True, id="with-neither-it-owns-the-page"),
    ],
)
def test_what_each_layer_holds_alone(
    chromium: Browser,
    page: Page,
    canary: tuple[str, list[str]],
    policy: bool,
    sandbox: bool,
    title: str,
    loads: bool,
) -> None:
    address, asked = canary
    document = hostile_frame(page, address)
    if not policy:
        page, document = chromium.page(address), OWN_POLICY.sub("", document)
    assert page.run(FRAMED % (json.dumps(sandbox), json.dumps(document))) == title
    assert bool(asked) == loads


@pytest.mark.parametrize("dark", [pytest.param(False, id="light"), pytest.param(True, id="dark")])
@pytest.mark.parametrize("width", [pytest.param(390, id="phone"), pytest.param(1280, id="desk")])
def test_it_is_accessible_in_every_state(chromium: Browser, product: LocalStack, width: int, dark: bool) -> None:
    page = chromium.page(product.ready["console"], width=width, dark=dark)
    assert (violations(page), overflow(page)) == ([], [])
    for code in (
        FIGURE + TABLE + "print('x' * 500)\nopen('out.csv', 'w').write('1')\n1 / 0",
        "import os; os.system('id')",
    ):
        run(page, code)
        page.run("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert (violations(page), overflow(page)) == ([], [])
    page.run("document.querySelector('#describe').click()")
    page.wait_for("document.querySelector('#parts').innerText.includes('Confinement')")
    assert (violations(page), overflow(page)) == ([], [])
