"""Pages in a real browser, at the width of a desk, of a phone and on paper; needs chromium."""

import json
import re
import shutil
import subprocess

import made_up_run
import pytest
from made_up_run import sheet_of

from maml_jax.report import render

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

# Looks at every piece of text, picture and table, and tells those that lie over each other.
LOOK = """
<script>
addEventListener("load", () => {
  const kinds = "h1,h2,h3,.facts,.verdict,.notes li,nav a,.tiles > div,figcaption,.caption,img,"
    + ".scroll,.settings dt,.settings dd,footer";
  const pieces = [...document.querySelectorAll(kinds)].map(e => [e, e.getBoundingClientRect()]);
  const over = [], told = e => e.tagName + ": " + e.textContent.slice(0, 40);
  for (const [i, [a, p]] of pieces.entries()) for (const [b, q] of pieces.slice(i + 1)) {
    const width = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const height = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (width > 1 && height > 1 && !a.contains(b) && !b.contains(a))
      over.push([told(a), told(b)]);
  }
  const root = document.documentElement;
  const small = [...document.querySelectorAll("p,td,th,li,dt,dd,figcaption,a")]
    .filter(e => parseFloat(getComputedStyle(e).fontSize) < 11).length;
  const outside = pieces.filter(([e, p]) => p.right > root.clientWidth + 1 || p.left < 0)
    .map(([e]) => told(e));
  const images = [...document.images].map(e => ({
    natural: e.naturalWidth, shown: e.getBoundingClientRect().width,
    narrow: e.currentSrc !== e.src, ratio: e.naturalHeight / e.naturalWidth
      / (e.getBoundingClientRect().height / e.getBoundingClientRect().width),
  }));
  const cut = [...document.querySelectorAll(".tiles .value, .tiles dt, h3")]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent);
  const found = {
    width: root.clientWidth, whole: root.scrollWidth, pieces: pieces.length,
    over, small, outside, images, cut,
  };
  const note = document.createElement("pre");
  note.id = "found";
  note.textContent = JSON.stringify(found);
  document.body.append(note);
  parent.postMessage(note.textContent, "*");
});
</script>
"""
PHONE = """<!doctype html><body style="margin:0">
<script>addEventListener("message", e => {
  const told = document.createElement("pre"); told.id = "found"; told.textContent = e.data;
  document.body.append(told);
});</script>
<iframe src="page.html" style="border:0;width:375px;height:800px"></iframe>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("needs chromium")

    def call(*options):
        profile = tmp_path_factory.mktemp("profile")
        done = subprocess.run(
            [BROWSER, *QUIET, f"--user-data-dir={profile}", *map(str, options)],
            capture_output=True, text=True, timeout=180, check=True,
        )  # fmt: skip
        return done.stdout

    return call


WORLDS = ("many strategies", "thirty assets, hourly", "many assets", "a few bars")


@pytest.fixture(scope="module", params=WORLDS)
def folder(request, tmp_path_factory):
    made = {
        "many strategies": lambda: made_up_run.run_tables(2000, 3),
        "thirty assets, hourly": lambda: made_up_run.run_tables(3000, 30, step="h"),
        "many assets": lambda: made_up_run.with_unlike_assets(made_up_run.run_tables(300, 500)),
        "a few bars": lambda: made_up_run.run_tables(5, 1, ("maml", "buy and hold")),
    }[request.param]()
    notes = ("A note that is as long as notes are, of bars that are stale: AAA (5), BBB (413).",)
    page = render(sheet_of(made, notes, facts="2019-03-01 to 2024-08-21 · 2,000 bars, 252 a year"))
    path = tmp_path_factory.mktemp("page")
    (path / "page.html").write_text(page.replace("</body>", LOOK + "</body>"), encoding="utf-8")
    (path / "phone.html").write_text(PHONE, encoding="utf-8")
    (path / "paper.html").write_text(page, encoding="utf-8")
    return path


def looked_at(dom):
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', dom, re.S)
    return json.loads(found.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.mark.parametrize("width", [1280, 375])
def test_nothing_overlaps_sticks_out_or_is_too_small(browse, folder, width):
    file = folder / ("page.html" if width > 500 else "phone.html")
    options = (f"--window-size={max(width, 600)},900", "--virtual-time-budget=8000", "--dump-dom")
    found = looked_at(browse(*options, f"file://{file}"))
    assert abs(found["width"] - width) <= 20
    assert found["pieces"] > 60
    assert found["over"] == []
    assert found["outside"] == [] and found["cut"] == []
    assert found["whole"] <= found["width"] + 1
    assert found["small"] == 0
    for image in found["images"]:
        assert image["natural"] > 300 and image["shown"] > 300
        assert image["narrow"] or image["ratio"] == pytest.approx(1.0, abs=0.02)
    assert any(image["narrow"] for image in found["images"]) == (width < 500)


def test_paper_holds_all_of_it(browse, folder):
    if shutil.which("pdftotext") is None:
        pytest.skip("needs pdftotext, of poppler")
    pdf, boxes = folder / "paper.pdf", folder / "boxes.html"
    browse("--no-pdf-header-footer", f"--print-to-pdf={pdf}", f"file://{folder / 'paper.html'}")
    subprocess.run(["pdftotext", "-bbox", str(pdf), str(boxes)], check=True)
    text = boxes.read_text(encoding="utf-8")
    pages = re.findall(r'<page width="([\d.]+)" height="([\d.]+)">(.*?)</page>', text, re.S)
    assert 2 <= len(pages) <= 40
    for width, height, page in pages:
        words = re.findall(r'xMin="(.*?)" yMin="(.*?)" xMax="(.*?)" yMax="(.*?)"', page)
        for left, top, right, bottom in (map(float, word) for word in words):
            assert 0 < left and right < float(width) and 0 < top and bottom < float(height)
    told = re.sub(r"<[^>]+>", " ", text)
    assert "Settings" in told and "Drawdown" in told
