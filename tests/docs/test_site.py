"""The site that `make docs` has built, named by the environment variable SITE: complete, offline, whole on a phone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("SITE", ""))
WIDTHS = (1300, 400)
SECONDS = 120
"""A browser that takes longer is stuck."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("SITE"), reason="no site: make docs builds it, and runs this"),
]


class Page(HTMLParser):
    """What a page links to, what it loads, what can be linked to in it, its formulas, and its text that is no code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.loads, self.ids, self.formulas, self.text = [], [], set(), 0, ""
        self.inside: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        self.formulas += tag == "math"
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given["rel"] not in ("author", "copyright", "index", "next", "prev", "search"):
            self.loads.append(given["href"])
        if tag != "a":
            self.loads += [given[name] for name in ("src", "srcset", "poster", "data") if given.get(name)]
        if tag in ("script", "style", "code", "pre", "math"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data):
        if self.inside[-1:] == ["style"]:
            self.loads += addresses(data)
        if not self.inside:
            self.text += data


def addresses(style: str) -> list[str]:
    """What a style sheet loads."""
    return re.findall(r"url\(\s*[\"']?([^\"')\s]+)", style) + re.findall(r"@import\s+[\"']([^\"']+)", style)


@cache
def pages() -> dict[Path, Page]:
    found = {path.resolve(): Page(path) for path in sorted(SITE.rglob("*.html"))}
    assert {"index.html", "REPORT.html", "06_loss_landscape.html"} <= {path.name for path in found}
    return found


def test_nothing_is_loaded_from_elsewhere():
    loads = [(path, load) for path, page in pages().items() for load in page.loads]
    loads += [(path, load) for path in SITE.rglob("*.css") for load in addresses(path.read_text(encoding="utf-8"))]
    assert any(load.endswith("math.woff") for _, load in loads)
    assert not [(str(path), load) for path, load in loads if urlsplit(load).netloc]


def test_links_inside_the_site_resolve():
    broken = []
    for path, page in pages().items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages()[target].ids if target in pages() else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in known):
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_every_formula_is_drawn_and_none_left_as_text():
    for path, page in pages().items():
        source = ROOT / "docs" / path.relative_to(SITE.resolve()).with_suffix(".md")
        notebook = ROOT / "notebooks" / f"{path.stem}.ipynb"
        if source.exists():
            assert page.formulas == len(re.findall(r"\$`.+?`\$", source.read_text(encoding="utf-8"))), path
        if notebook.exists():
            cells = nbformat.read(notebook, as_version=4).cells
            text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
            assert page.formulas == len(re.findall(r"\$\$.+?\$\$|\$.+?\$", text, re.S)), path
        if "_modules" not in path.parts:
            assert not re.search(r"\$.*\\|\\[(\[]", page.text), path


def test_the_appendix_has_a_pdf():
    assert (SITE / "appendix/appendix.pdf").read_bytes().startswith(b"%PDF-")


CHECK = """<!DOCTYPE html><link rel="icon" href="data:,"><iframe style="height: 900px; border: 0"></iframe><script>
const frame = document.querySelector("iframe");
async function look(page) {
  await new Promise(loaded => { frame.onload = loaded; frame.src = page; });
  const seen = frame.contentDocument, images = [...seen.images];
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  await seen.fonts.ready;
  const formulas = [...seen.querySelectorAll("math")], font = [...seen.fonts].find(face => face.family == "Formulas");
  const lines = formulas.filter(each => each.getAttribute("display") == "block");
  const sizes = formulas.map(each => each.getBoundingClientRect());
  const found = {
    page, formulas: formulas.length,
    "figures that did not load": images.filter(image => !image.naturalWidth).map(image => image.getAttribute("src")),
    "formulas without a size": sizes.filter(box => !(box.width && box.height)).length,
    "formulas without their font": formulas.length && font?.status != "loaded" ? formulas.length : 0,
  };
  for (const width of WIDTHS) {
    frame.style.width = width + "px";
    const root = seen.documentElement;
    if (width == WIDTHS[0]) found["formulas cut"] = lines.filter(each => each.scrollWidth > each.clientWidth).length;
    found["pixels too wide at " + width] = Math.max(root.scrollWidth, seen.body.scrollWidth) - root.clientWidth;
  }
  return found;
}
function choose(seen, name, value) {
  seen.getElementById(name).value = value;
  seen.getElementById(name).dispatchEvent(new Event("input"));
}
async function play(page) {
  await new Promise(loaded => { frame.onload = loaded; frame.src = page; });
  const seen = frame.contentDocument, text = name => seen.getElementById(name).textContent, claims = {}, steps = [];
  for (const {value} of seen.querySelectorAll("#claim option")) {
    choose(seen, "claim", value);
    const rows = [...seen.querySelectorAll("#claim-numbers tbody tr")];
    const controls = [...seen.querySelectorAll("#claim-controls tbody tr")].map(row => row.cells[0].textContent);
    claims[value] = {
      outcome: text("outcome"), controls, numbers: rows.map(row => [...row.cells].map(cell => cell.textContent)),
      drawn: seen.querySelectorAll("#claim-figure circle, #claim-figure path").length,
      said: seen.getElementById("claim-figure").getAttribute("aria-label"),
    };
  }
  const tasks = [...seen.querySelectorAll("#tasks option")].map(each => each.value);
  for (let step = 0; step <= +seen.getElementById("step").max; step++) {
    choose(seen, "tasks", tasks[1]); choose(seen, "step", step);
    steps.push(text("phase-says"));
  }
  choose(seen, "variant", "up");
  const plane = seen.getElementById("plane"), before = text("plane-says");
  plane.dispatchEvent(new frame.contentWindow.KeyboardEvent("keydown", {key: "ArrowRight", cancelable: true}));
  return {claims, steps, before, after: text("plane-says")};
}
(async () => {
  const found = [await play("/explorer.html").catch(error => ({error: String(error)}))];
  for (const page of PAGES) found.push(await look(page).catch(error => ({page, error: String(error)})));
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


BROKEN = """<!DOCTYPE html><img src="broken.png"><p style="width: 500px">Too wide at 400.
<math style="display: none"><mi>x</mi></math><script>console.error("broken")</script>"""


def check_explorer(claims: dict, steps: list, before: str, after: str) -> None:
    """What the page showed after each choice is what the records say."""
    records = {path.stem: json.loads(path.read_text()) for path in (ROOT / "records/theory/claims").glob("*.json")}
    assert set(claims) == set(records)
    for name, shown in claims.items():
        units = records[name]["payload"]["units"]
        items = units["claim"]["items"]
        assert shown["outcome"].startswith(units["claim"]["outcome"])
        assert shown["controls"] == [control for control in units if control != "claim"]
        assert [row[0] for row in shown["numbers"]] == [item["label"] for item in items]
        measured = [float(row[1].split(" ")[0]) for row in shown["numbers"]]
        assert measured == pytest.approx([float(item["measured"]) for item in items], rel=1e-3)
        assert shown["drawn"] > 2
        assert len(shown["said"]) > 80, "the figure's text alternative"
    more, fewer = records["lemma_phase"]["payload"]["units"]["claim"]["curves"][2:4]
    for said, x, *shares in zip(steps, more["x"], more["y"], fewer["y"], strict=True):
        assert f"beta_low L1 = {x:g}, 2 tasks: " in said
        assert f"more in {100 * shares[0]:.1f} %, fewer in {100 * shares[1]:.1f} %" in said
    cells = json.loads((ROOT / "records/landscape/demo.json").read_text())["payload"]["cells"]
    cell = next(cell for cell in cells if cell["row"] == "up")
    middle = len(cell["coordinates"]) // 2
    assert before.startswith(f"Meta-loss {cell['plane'][middle][middle]:.3f} at (0.0, 0.0)")
    right = cell["coordinates"][middle + 1]
    assert after.startswith(f"Meta-loss {cell['plane'][middle + 1][middle]:.3f} at ({right:.1f}, 0.0)")


class Server(SimpleHTTPRequestHandler):
    """The site, a broken page, a page that looks at all of them, and what that page has found."""

    def __init__(self, *arguments, made: dict[str, str], found: list, done: threading.Event, **options) -> None:
        self.made, self.found, self.done = made, found, done
        super().__init__(*arguments, **options)

    def do_GET(self):
        if self.path in self.made:
            self._answer(self.made[self.path].encode())
        else:
            super().do_GET()

    def do_POST(self):
        self.found += json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"")
        self.done.set()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def test_the_explorer_works_from_a_disk(tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    command = [
        browser,
        *options,
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
        (SITE.resolve() / "explorer.html").as_uri(),
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    assert '<p id="outcome">' in page
    assert 'id="plane-says">Meta-loss' in page


def test_pages_are_whole_in_a_browser(tmp_path):
    """One browser loads all pages one after the other, and reaches no other host."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    names = [f"/{path.relative_to(SITE.resolve())}" for path in pages()] + ["/broken"]
    check = CHECK.replace("PAGES", json.dumps(names)).replace("WIDTHS", json.dumps(WIDTHS))
    found, done = [], threading.Event()
    serve = partial(Server, directory=SITE, made={"/check": check, "/broken": BROKEN}, found=found, done=done)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={tmp_path / 'profile'}"]
    log = tmp_path / "log"
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server, log.open("w") as stream:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [browser, *options, "--window-size=1400,1000", f"http://127.0.0.1:{server.server_port}/check"]
        process = subprocess.Popen(command, stderr=stream)
        in_time = done.wait(SECONDS)
        process.terminate()
        process.wait()
        server.shutdown()
    said = log.read_text(errors="replace")
    assert in_time, said[-3000:]
    played = found.pop(0)
    assert [entry.pop("page") for entry in found] == names
    assert [entry.pop("formulas") for entry in found] == [*(page.formulas for page in pages().values()), 1]
    faults = {name: {what: n for what, n in entry.items() if n} for name, entry in zip(names, found, strict=True)}
    assert len(faults.pop("/broken")) == 4, "the control: what is looked for is found where it is"
    assert not {name: entry for name, entry in faults.items() if entry}
    messages = [line for line in said.splitlines() if "CONSOLE" in line]
    assert [line for line in messages if "broken" in line]
    assert not [line for line in messages if "broken" not in line]
    assert "error" not in played, played
    check_explorer(**played)
