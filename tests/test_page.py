"""The page in a real browser: searching, asking, reading, by mouse and keyboard, with hostile documents, in both
colour schemes.

axe-core, which checks accessibility, is no part of the repository: `npm pack axe-core`, unpack it, and name the file in
AXE_CORE (default: build/axe-core/package/axe.min.js). Without it that check is skipped; names, roles, contrast and
keyboard are checked without it, too.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from faults.html import _armed, payloads
from faults.html import server as listening
from serving import client, served
from toy import WordEncoder

import semsearch
from semsearch.gate import Limits

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

ROOT = Path(__file__).parent.parent
AXE = Path(os.environ.get("AXE_CORE", ROOT / "build" / "axe-core" / "package" / "axe.min.js"))
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 90.0
TOKEN = "correct-horse-battery-staple"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
LONG = "\n\n".join(f"Paragraph {number} is about nothing." for number in range(2000))
DOCUMENTS = [
    {
        "id": "fees.md",
        "title": "Late fees",
        "text": "# Late fees\n\nNothing here.\n\n## Charges\n\n🦉 A late book costs 20 cents a day. 🦉 Ask us.",
        "metadata": {"suffix": ".md"},
    },
    {"id": "owl.txt", "text": "The owl 🦉🦉🦉 pays no late fee ever.", "metadata": {"suffix": ".txt"}},
    {
        "id": "tides.pdf",
        "text": "The first page.\fHigh tide comes late in June.\fThe end.",
        "metadata": {"suffix": ".pdf", "pages": 3},
    },
    {"id": "long.txt", "text": f"{LONG}\n\nThe aardvark hides here.\n\n{LONG}", "metadata": {"suffix": ".txt"}},
    {"id": "odd \udcff.txt", "text": "A walrus with a name that no address can hold.", "metadata": {"suffix": ".txt"}},
    *(
        {"id": f"other-{number}.txt", "text": f"Late number {number}.", "metadata": {"suffix": ".txt"}}
        for number in range(9)
    ),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="chromium and chromedriver are not installed"),
]


class Page:
    """The page in a browser."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, **state: Any) -> Page:
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}/#{urlencode(state, doseq=True)}")
        return self

    def all(self, selector: str) -> list[Any]:
        return [each for each in self.driver.find_elements(By.CSS_SELECTOR, selector) if each.is_displayed()]

    def wait(self, true: Callable[[], Any]) -> Any:
        changing = (StaleElementReferenceException, IndexError)  # the page is being drawn: look again
        return WebDriverWait(self.driver, PATIENCE, 0.05, changing).until(lambda _: true())

    def one(self, selector: str) -> Any:
        return self.wait(lambda: self.all(selector))[0]

    def texts(self, selector: str) -> list[str]:
        return [
            str(text)
            for text in self.run(
                f"return [...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
            )
        ]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def search(self, query: str) -> None:
        box = self.one("#query")
        box.clear()
        box.send_keys(query, Keys.ENTER)
        self.wait(lambda: query in self.texts("#status")[0])

    @property
    def focused(self) -> str:
        return str(self.run("const e = document.activeElement; return e.id || e.textContent"))

    def scheme(self, name: str, width: int = 1200, height: int = 900) -> None:
        features = {"features": [{"name": "prefers-color-scheme", "value": name}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def errors(self) -> list[str]:
        """What the console says that is no answer of a refused request."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in said if "Failed to load resource" not in message]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[semsearch.Index]:
    with semsearch.Index(
        tmp_path_factory.mktemp("index") / "library", encoder=WordEncoder(), analyzer="english"
    ) as index:
        index.add(DOCUMENTS)
        yield index


@pytest.fixture(scope="module")
def address(index: semsearch.Index) -> Iterator[str]:
    with client(index) as asking:
        yield str(asking.base_url).rstrip("/")


@pytest.fixture
def page(driver: Any, address: str) -> Iterator[Page]:
    page = Page(driver, address)
    page.scheme("light")
    driver.get_log("browser")
    yield page
    assert page.errors() == []


# -- searching, asking, reading ----------------------------------------------------------------------------------------


def test_a_search_shows_passages_with_the_words_marked(page: Page) -> None:
    page.open(mode="lexical")
    assert "14 documents" in page.one("#collection").text
    page.search("late fee")
    assert page.driver.title == "late fee – semsearch"
    assert len(page.all(".hit")) == 10
    assert page.one("#more").is_displayed()
    by_title = dict(zip(page.texts(".hit h3"), page.all(".hit"), strict=False))
    owl = by_title["owl.txt"]
    assert [mark.text for mark in owl.find_elements(By.CSS_SELECTOR, ".text mark")] == ["late", "fee"]
    assert owl.find_element(By.CSS_SELECTOR, ".text").text == "The owl 🦉🦉🦉 pays no late fee ever."
    page.one("#more").click()
    page.wait(lambda: len(page.all(".hit")) == 12)
    assert not page.all("#more")


def sources(page: Page) -> set[str]:
    return set(page.texts(".hit .place .part:first-child"))


def test_filters_and_ways_of_searching(page: Page) -> None:
    page.open(q="late fee")
    page.wait(lambda: len(page.all(".hit")) == 10)
    page.one("button[data-suffix='.md']").click()
    page.wait(lambda: sources(page) == {"fees.md"})
    assert "in .md files" in page.texts("#status")[0]
    page.one("button[data-suffix='.pdf']").click()
    page.wait(lambda: sources(page) == {"fees.md", "tides.pdf"})
    page.run(
        "const mode = document.querySelector('#mode'); mode.value = 'lexical'; mode.dispatchEvent(new Event('change'))"
    )
    page.wait(lambda: "mode=lexical" in page.driver.current_url)
    page.driver.back()
    page.driver.back()
    page.wait(lambda: sources(page) == {"fees.md"})
    assert [b.get_attribute("aria-pressed") for b in page.all("#suffixes button[data-suffix='.pdf']")] == ["false"]


def test_why_a_passage_was_found(page: Page) -> None:
    page.open(q="late fee")
    page.one(".why summary").click()
    page.wait(lambda: page.all(".why th"))
    assert {row.text for row in page.all(".why th")} <= {"late", "fee"}
    assert "by words: rank" in page.one(".why .legs").text


def test_nothing_found_is_said(page: Page) -> None:
    page.open(q="zyzzyva", mode="lexical")
    page.wait(lambda: page.texts("#status") == ["No passage found for “zyzzyva”."])
    assert not page.all(".hit")


def test_an_answer_is_marked_where_it_stands(page: Page) -> None:
    page.open()
    page.one("#query").send_keys("How much does a late book cost a day?")
    page.one("#ask").click()
    said = page.one("#answer-body .said:not(.long)").text
    assert "20 cents" in said
    assert [mark.text for mark in page.all("#answer mark.span")] == [said]
    assert "🦉 A late book costs" in page.one("#answer blockquote").text
    assert page.all(".hit")
    page.one("#answer .place a").click()
    page.wait(lambda: page.texts(".target") == [said])


def test_no_answer_is_said_to_be_none(page: Page) -> None:
    page.open(q="Who won the chess championship in 1972?", ask=1)
    page.wait(lambda: page.texts("#answer .said") == ["There is no answer in these documents."])
    assert not page.all("#answer mark")


def test_a_document_is_read_where_the_passage_is(page: Page) -> None:
    page.open(q="late fee")
    page.wait(lambda: len(page.all(".hit")) == 10)
    page.run("[...document.querySelectorAll('.hit h3 a')].find(a => a.textContent == 'Late fees').click()")
    text = DOCUMENTS[0]["text"]
    page.wait(lambda: page.texts(".pages .text") == [text])
    assert page.texts("#reader-title") == ["Late fees"]
    assert page.focused == "reader-title"
    assert {mark.lower() for mark in page.texts(".pages mark")} == {"late", "fees"}
    assert "".join(page.texts(".pages .target")) in text
    assert page.all(".hit.open")


def test_offsets_beyond_the_basic_plane_are_exact(page: Page) -> None:
    text = DOCUMENTS[0]["text"]
    start = text.index("20 cents")
    page.open(doc="fees.md", **{"from": start, "to": start + 8})
    page.wait(lambda: page.texts(".target") == ["20 cents"])


def test_pages_of_a_document_are_told_apart(page: Page) -> None:
    page.open(q="tide", doc="tides.pdf", **{"from": 16, "to": 46})
    page.wait(lambda: page.texts(".pages .page") == ["Page 1", "Page 2", "Page 3"])
    assert page.texts(".pages mark") == ["tide"]


def test_a_long_document_is_loaded_in_parts_and_scrolled_to(page: Page) -> None:
    text = DOCUMENTS[3]["text"]
    start = text.index("The aardvark")
    page.open(doc="long.txt", **{"from": start, "to": start + 24})
    goal = page.one(".target")
    assert goal.text == "The aardvark hides here."
    box, frame = goal.rect, page.one("#pages").rect
    inside = page.run(
        "const top = (e) => e.getBoundingClientRect().top; return top(arguments[0]) - top(arguments[1])",
        goal,
        page.one("#pages"),
    )
    assert 0 < inside < frame["height"] - box["height"]
    for label in ("Later text", "Earlier text"):
        while buttons := [each for each in page.all(".pages > button") if each.text == label]:
            length = len(page.texts(".pages .text")[0])
            page.run("arguments[0].click(); arguments[0].click()", buttons[0])  # twice is not one part more
            page.wait(lambda before=length: len(page.texts(".pages .text")[0]) > before)
            page.wait(lambda was=buttons[0], name=label: was not in page.all(".pages > button") or was.text == name)
    assert page.texts(".pages .text") == [text]
    assert page.texts(".target") == ["The aardvark hides here."]


def test_a_document_that_no_address_can_name_is_read(page: Page) -> None:
    page.open(q="walrus")
    page.wait(lambda: "odd" in "".join(page.texts(".hit h3")[:1]))
    page.one(".hit h3 a").click()
    page.wait(lambda: page.texts(".pages .text") == ["A walrus with a name that no address can hold."])
    page.driver.refresh()
    page.wait(lambda: page.texts(".pages .text") == ["A walrus with a name that no address can hold."])


def test_a_problem_is_told_in_the_words_of_the_server(page: Page) -> None:
    page.open(doc="gone.txt")
    assert page.one("#problem").text == "There is no document 'gone.txt'."


def test_the_keyboard_is_enough(page: Page) -> None:
    page.open()
    page.wait(lambda: page.focused == "query")
    page.press("late fee", Keys.ENTER)
    page.wait(lambda: len(page.all(".hit")) == 10)
    titles = page.texts(".hit h3")
    page.press(Keys.ARROW_DOWN)
    assert page.focused == titles[0]
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert page.focused == titles[1]
    page.press(Keys.ENTER)
    page.wait(lambda: page.focused == "reader-title")
    page.press(Keys.TAB)
    assert page.focused == "pages"  # and there the arrows scroll
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.all("#reader"))
    assert page.focused == titles[1]
    page.press("/")
    assert page.focused == "query"
    page.press("owl", Keys.TAB, Keys.TAB, Keys.ENTER)  # the button Ask
    page.wait(lambda: "ask=1" in page.driver.current_url)
    page.wait(lambda: page.all("#answer .said"))
    page.press(Keys.ESCAPE)
    assert page.focused == "query"


def test_hits_stay_the_openers_when_the_same_words_are_asked(page: Page) -> None:
    page.open()
    page.search("late fee")
    page.wait(lambda: len(page.all(".hit")) == 10)
    page.one("#ask").click()
    page.wait(lambda: page.all("#answer .said"))
    third = page.all(".hit h3 a")[2]
    third.click()
    page.wait(lambda: page.focused == "reader-title")
    assert page.texts(".hit.open h3") == [third.text]
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.all("#reader"))
    assert page.run("return document.activeElement === arguments[0]", third)


def test_a_server_with_small_limits(driver: Any, index: semsearch.Index) -> None:
    with client(index, limits=Limits(max_k=3, max_window=500)) as asking:
        page = Page(driver, str(asking.base_url).rstrip("/"))
        page.open(q="late fee", k=20, ask=1)
        page.wait(lambda: len(page.all(".hit")) == 3)
        page.wait(lambda: page.all("#answer .said"))
        start = DOCUMENTS[3]["text"].index("The aardvark")
        page.open(doc="long.txt", **{"from": start, "to": start + 12})
        page.wait(lambda: page.texts(".target") == ["The aardvark"])
        assert not page.all("#problem")


def test_every_stop_of_the_keyboard_is_seen(page: Page) -> None:
    page.open(q="late fee", doc="fees.md")
    page.wait(lambda: page.all(".pages .text") and page.all(".hit"))
    page.run("document.activeElement.blur()")
    seen: set[str] = set()
    rounds = 0
    for _ in range(100):
        page.press(Keys.TAB)
        style = page.run(
            "const s = getComputedStyle(document.activeElement), r = document.activeElement.getBoundingClientRect();"
            "return [document.activeElement === document.body, s.outlineStyle, parseFloat(s.outlineWidth), r.width]"
        )
        if style[0]:  # the end of the page; the next stop is its beginning
            rounds += 1
            if rounds == 2:
                break
            continue
        seen.add(page.focused)
        assert style[1] != "none", page.focused
        assert style[2] >= 2, page.focused
        assert style[3] > 0, page.focused
    assert {"query", "mode", "close", "pages"} <= seen


def test_the_token_is_asked_for_and_kept_for_the_tab(driver: Any, index: semsearch.Index) -> None:
    with served(index, token=TOKEN) as address:
        page = Page(driver, address).open(q="owl")
        page.one("#token").send_keys(Keys.ESCAPE)
        page.one("#token").send_keys(Keys.ESCAPE)
        page.one("#token").send_keys("wrong", Keys.ENTER)
        assert page.one("#login-problem").text == "That is not the token."
        page.one("#token").send_keys(TOKEN, Keys.ENTER)
        page.wait(lambda: page.all(".hit"))
        page.driver.refresh()
        page.wait(lambda: page.all(".hit"))
        assert not page.all("#login")
        driver.execute_script("sessionStorage.clear()")
        page.open(token=TOKEN, q="owl")
        page.wait(lambda: page.all(".hit"))
        assert TOKEN not in page.driver.current_url
    driver.get_log("browser")


def test_a_folder_is_brought_up_to_date(driver: Any, tmp_path: Path) -> None:
    (tmp_path / "handbook").mkdir()
    (tmp_path / "handbook" / "a.txt").write_text("The walrus is late.")
    with (
        semsearch.Index(tmp_path / "library", encoder=WordEncoder()) as index,
        served(index, roots=[tmp_path / "handbook"]) as address,
    ):
        page = Page(driver, address).open(q="walrus")
        page.wait(lambda: page.texts("#status") == ["No passage found for “walrus”."])
        page.one("#sync button").click()
        page.wait(lambda: page.texts(".hit h3"))
        assert page.texts(".hit .place")[0].startswith("a.txt")
        assert "1 added" in page.one("#sync").text
    driver.get_log("browser")


# -- what a document cannot do -----------------------------------------------------------------------------------------


def test_hostile_documents_are_only_read(driver: Any, tmp_path: Path) -> None:
    """The payloads of `faults.html`, in every place that the page shows, and as queries: no script runs, no request
    leaves, no element is there but ours, and each payload is there to be read."""
    with listening() as (elsewhere, asked), semsearch.Index(tmp_path / "library", encoder=WordEncoder()) as index:
        armed = [_armed(payload, number, elsewhere) for number, payload in enumerate(payloads())]
        assert len(armed) == 200
        for number, payload in enumerate(armed):
            metadata = {
                "suffix": payload,
                "heading": payload,
                "source": payload,
                payload: payload,
                "pages": 2,
                "number": number,
            }
            text = f"{payload} word {number}\f{payload}"
            index.add([{"id": f"{number} {payload}", "text": text, "title": payload, "metadata": metadata}])
        with client(index) as web:
            page = Page(driver, str(web.base_url).rstrip("/"))
            page.scheme("light")
            page.open()
            page.wait(lambda: page.all("#collection"))
            ours = set(page.run(PARTS)) | ALLOWED
            page.open(q="word", k=100)
            page.wait(lambda: len(page.all(".hit")) >= 100)
            check_harmless(page, ours)
            for number, payload in enumerate(armed):
                hit = web.post("/api/search", json={"query": "word", "k": 1, "where": {"number": number}}).json()[
                    "hits"
                ][0]
                page.run(
                    "location.hash = arguments[0]",
                    "#" + urlencode({"q": "word " + clean(payload), "passage": hit["passage_id"], "to": 9}),
                )
                head = "".join(c for c in payload[:12] if c.isascii() and c.isprintable())
                page.wait(
                    lambda start=head: (
                        all(c in page.texts(".pages .text")[0] for c in start) if page.texts(".pages .text") else False
                    )
                )
                if number % 20 == 0:
                    page.run("for (const each of document.querySelectorAll('.why')) each.open = true")
                    page.wait(lambda: page.all(".why .legs"))
                    check_harmless(page, ours)
            page.run("location.hash = '#q=%3Cscript%3Ewindow.ran=1%3C/script%3E&ask=1'")
            page.wait(lambda: page.all("#answer .said"))
            check_harmless(page, ours)
            assert asked == []
            violations = [each for each in page.errors() if "Content Security Policy" in each or "Trusted" in each]
            assert violations == []


ALLOWED = {
    *("blockquote", "details", "summary", "table", "caption", "tbody", "tr", "th", "td", "i", "b", "small", "ul", "li"),
    *("mark", "span", "p", "a", "button", "div", "h2", "h3", "article"),
}
PARTS = "return [...new Set([...document.querySelectorAll('*')].map(e => e.localName))]"


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def readable(text: str) -> str:
    return "".join(c for c in text if c.isascii() and c.isprintable())


def check_harmless(page: Page, ours: set[str]) -> None:
    found = page.run(
        "return {ran: window.ran || 0, title: document.title, parts: [...new Set([...document.querySelectorAll('*')]"
        ".map(e => e.localName))], handlers: [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
        ".filter(n => n.startsWith('on')), links: [...document.querySelectorAll('[href], [src]')]"
        ".map(e => new URL(e.href || e.src, location).origin), once: ['img', 'script', 'link', 'form', 'dialog',"
        "'noscript', 'input', 'meta', 'title'].map(n => document.getElementsByTagName(n).length)}"
    )
    assert found["ran"] == 0
    assert found["title"].endswith("semsearch")
    assert found["handlers"] == []
    assert set(found["parts"]) <= ours, set(found["parts"]) - ours
    assert found["once"] == [1, 1, 2, 2, 1, 1, 2, 3, 1]
    assert set(found["links"]) == {page.address}


# -- for everyone ------------------------------------------------------------------------------------------------------

VIEWS = {
    "welcome": {},
    "results": {"q": "late fee"},
    "answer": {"q": "How much does a late book cost a day?", "ask": 1},
    "reading": {"q": "late fee", "doc": "fees.md", "from": 30, "to": 60},
    "nothing": {"q": "zyzzyva", "mode": "lexical"},
    "problem": {"doc": "gone.txt"},
}
READY = {
    "welcome": "#collection",
    "results": ".hit",
    "answer": "#answer blockquote",
    "reading": ".target",
    "nothing": "#status",
    "problem": "#problem",
}


def views(page: Page) -> Iterator[str]:
    """Each view in light and dark, wide and narrow, with the explanations opened."""
    for scheme, width in (("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)):
        page.scheme(scheme, width)
        for name, state in VIEWS.items():
            page.open(**state)
            page.one(READY[name])
            page.wait(lambda: page.all("#suffixes button"))
            if name == "results":
                page.one(".why summary").click()
                page.wait(lambda: page.all(".why th"))
                page.one("#suffixes button").send_keys(Keys.SPACE)
                page.wait(lambda: page.all("#suffixes [aria-pressed=true]"))
            yield f"{name}, {scheme}, {width}"
    page.scheme("light")


@pytest.mark.skipif(not AXE.is_file(), reason=f"there is no {AXE.name}: npm pack axe-core, see the top of this file")
def test_axe_finds_nothing(page: Page) -> None:
    script = AXE.read_text()
    for view in views(page):
        page.driver.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": script}
        )  # not as a script of the page: its policy
        found = page.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
            ".then(r => done({passes: r.passes.length, unsure: r.incomplete.map(v => v.id), violations: r.violations"
            ".map(v => [v.id, v.help, v.nodes.map(n => n.html.slice(0, 200) + ' ' + n.failureSummary)])}))"
        )
        assert found["violations"] == [], view
        assert found["passes"] > 15, view


CONTRAST = """
const paint = (color) => {
  const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
  return [r, g, b, a];
};
const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3])).concat(1);
const behind = (e) => {
  const layers = [];
  for (; e; e = e.parentElement) layers.unshift(paint(getComputedStyle(e).backgroundColor));
  return layers.reduce((below, top) => over(top, below), [255, 255, 255, 1]);
};
const light = (c) => c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const found = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const e = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !e.checkVisibility({visibilityProperty: true})) continue;
  if (e.closest(".away, noscript, option")) continue;
  const ground = behind(e), ink = over(paint(getComputedStyle(e).color), ground);
  const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
  found.push([(a + .05) / (b + .05), e.localName + "." + e.className + ": " + texts.currentNode.data.slice(0, 40)]);
}
return found.sort((x, y) => x[0] - y[0]).slice(0, 3).concat([[found.length, "texts"]]);
"""


def test_every_text_can_be_read_in_both_schemes(page: Page) -> None:
    """WCAG 1.4.3: text against what is behind it, at least 4.5 to 1."""
    for view in views(page):
        *lowest, (count, _) = page.run(CONTRAST)
        assert count > 5, view
        assert lowest[0][0] >= 4.5, (view, lowest)


def test_nothing_sticks_out_at_360_pixels(page: Page) -> None:
    for view in views(page):
        if view.endswith("360"):
            assert page.run("return document.documentElement.scrollWidth") <= 360, view
            small = page.run(
                "return [...document.querySelectorAll('button, select, input')].filter(e => e.checkVisibility())"
                ".filter(e => e.getBoundingClientRect().height < 24).map(e => e.outerHTML)"
            )
            assert small == [], view  # WCAG 2.5.8


def test_everything_has_a_name_and_what_changes_is_announced(page: Page) -> None:
    page.open(q="late fee", ask=1, doc="fees.md")
    page.wait(lambda: page.all(".hit") and page.all(".pages .text"))
    names = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [
        (each.get("role", {}).get("value"), each.get("name", {}).get("value", ""))
        for each in names
        if not each["ignored"]
    ]
    for role, name in shown:
        if (
            role in ("button", "link", "searchbox", "combobox", "region", "article", "search", "list")
            and role != "search"
        ):
            assert name or role in ("list", "article"), (role, name)
    roles = {role for role, _ in shown}
    assert {"banner", "main", "contentinfo", "search", "searchbox", "status", "heading", "list"} <= roles
    assert page.run("return document.documentElement.lang") == "en"
    headings = "return [...document.querySelectorAll('h1, h2, h3')].filter(e => e.checkVisibility())"
    levels = [int(level) for level in page.run(f"{headings}.map(e => e.localName[1])")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_an_answer_that_is_late_does_not_replace_a_newer_one(page: Page) -> None:
    page.open(q="owl")
    for query in ("late", "fee", "walrus", "tide", "aardvark"):
        page.run(
            "document.querySelector('#query').value = arguments[0]; document.querySelector('#form').requestSubmit()",
            query,
        )
    page.wait(lambda: "“aardvark”" in page.texts("#status")[0])
    time.sleep(0.5)
    assert "“aardvark”" in page.texts("#status")[0]
    assert page.texts(".hit h3")[0] == "long.txt"
