"""Payloads in every place that HTML output shows, in a page that a real browser loads.

Each payload stands as text, title, heading, id, source, metadata and query in what hits, answers, explanations,
reports, evaluations and an index give a notebook. Then: no script ran, no request left (a server on this machine
listens), there is no element and no attribute but ours, links lead to http, https and files only, and each payload is
there to be read as text. The same payloads without escaping are loaded too: if none of them did anything, the class
would prove nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any

from faults.outcome import Outcome
from semsearch.audit import Audit, Extreme, GroupOverlap, GroupShift
from semsearch.comparing import Comparison, Difference, IndexCost
from semsearch.display import Explanation, clean
from semsearch.evaluation import Evaluation
from semsearch.health import CheckReport
from semsearch.html import index_html
from semsearch.ingest import AddReport
from semsearch.records import Answer, Citation, Context, Hit, Passage, Sentence
from semsearch.retrieval import Hits
from semsearch.sync import SyncReport

PATIENCE = 120.0  # seconds for a page; it takes about two
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--virtual-time-budget=4000", "--dump-dom"),
)

# -- payloads ----------------------------------------------------------------------------------------------------------

# @ is a script that says it ran, # the address of a server that says it was asked.
ATTACKS = [
    *("<script>@</script>", "<script src=#></script>", "<img src=x onerror=@>", "<img src=#>", "<svg onload=@>"),
    *("<svg><script>@</script></svg>", "<svg><image href=#></image></svg>"),
    *("<iframe src=javascript:parent.@></iframe>", "<iframe src=#></iframe>"),
    *("<iframe srcdoc='<script>parent.@</script>'></iframe>", "<object data=#></object>", "<embed src=#>"),
    *("<link rel=stylesheet href=#>", "<style>@import '#';</style>", "<style>*{background:url(#)}</style>"),
    *("<body onload=@>", "<details open ontoggle=@>", "<video src=# onerror=@></video>", "<audio src=# onerror=@>"),
    *("<input autofocus onfocus=@>", "<marquee onstart=@>", "<math><mi xlink:href=javascript:@>x</mi></math>"),
    *("<a href=javascript:@>x</a>", "<form action=#><button>x</button></form>", "<base href=#>"),
    *("<frameset onload=@>", "<meta http-equiv=refresh content='0;url=#'>", "<table background=#>"),
    *("<div style='background:url(#)'>x</div>", "<x onclick=@ id=x tabindex=1 onfocus=@ autofocus>x</x>"),
    *("<template><script>@</script></template>", "<isindex action=#>"),
]
ESCAPES = [
    *("{}", "'>{}", '">{}', "</p>{}", "</b></mark>{}", "</style>{}", "</title>{}", "</script>{}", "</textarea>{}"),
    *("--> {}", "]]>{}", "<!--{}-->", "<![CDATA[{}]]>", "<noscript>{}", "<mark>{}</mark>", "\0{}", "<\0{}", "&lt;{}"),
    *("\u202e{}", "<mark><b>{}", "`{}`", "\r\n{}", "\ud800{}", "&#60;{}"),
]
WHOLE = [
    *("javascript:@", "JaVaScRiPt:@", " javascript:@", "java\tscript:@", "\x01javascript:@"),
    *("data:text/html,<script>@</script>", "vbscript:@", "//#", "http://x' onmouseover='@"),
    *('http://x" onmouseover="@', "http://x/><script>@</script>", "file:///x\"'>", "file:////host/share"),
    *("/etc/'\"><script>@</script>", "http:javascript:@", "https://[", "http://x\nonclick=@", "blob:x"),
    *("&lt;script&gt;@&lt;/script&gt;", "&#x3c;script&#x3e;@", "&amp;lt;script>", "%3Cscript%3E@%3C/script%3E"),
    *("+ADw-script+AD4-@", "\uff1cscript\uff1e@", "<scr\u00adipt>@</scr\u00adipt>", "<ſcript>@</ſcript>"),
    *("<%00script>@", "<script\x0c>@</script>", "<script/x>@</script>", "<<script>@//<</script>"),
    *("<img src=x onerror\x0b=@>", "<img/src=x/onerror=@>", "<IMG SRC=x ONERROR=@>", '" onfocus=@ autofocus x="'),
    *("' onfocus=@ autofocus x='", '" style="background:url(#)', "${@}", "{{constructor.constructor('@')()}}"),
    *("$$\\href{javascript:@}{x}$$", "[x](javascript:@)", "![x](#)", "<!--<img src=--><img src=x onerror=@>//"),
    *("<mark", "</div></section>"),
]


def payloads() -> list[str]:
    """The 200 payloads, @ and # not yet replaced."""
    mixed = [escape.format(attack) for escape, attack in product(ESCAPES, ATTACKS)]
    # A step with no common factor with the number of attacks: each attack and each escape has its turn.
    spread = [mixed[number * 7 % len(mixed)] for number in range(len(mixed))]
    chosen = dict.fromkeys([*ATTACKS, *WHOLE, *(each for each in spread if each not in ATTACKS)])
    return [*chosen][:200]


FULL = CI = len(payloads())


def unavailable() -> str | None:
    """Why this class cannot run here, None if it can."""
    return None if _browser() else f"no browser: none of {', '.join(BROWSERS)} is installed"


def _browser() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


# -- the page ----------------------------------------------------------------------------------------------------------


def outputs(payload: str) -> list[str]:
    """The HTML of everything that a notebook would show, with the payload wherever a string is."""
    text = f"word {payload} word"
    named = {"title": payload, "source": payload, "heading": f"{payload} > {payload}", payload: payload}
    passage = Passage(1, payload, text, 0, len(text), 3, named)
    hit = Hit(passage, 0.5, 1, {"dense": (1, 0.5), payload: (2, 0.1)})
    prefixed = [_hit_from(prefix + payload, text) for prefix in ("http://x/", "/tmp/", "file:///")]
    found = Answer(payload, 0.9, hit, 5, 5 + len(payload), (), (Citation(payload, 0, 4, 2, 0.5),))
    loose = Answer(payload, 0.9, hit, None, None, (), (Citation(payload, 0, 4, None, 0.5),))
    guess = Answer("", 0.1, None, None, None, (Answer(payload, 0.2, hit, 5, 5 + len(payload)),))
    tokens = ((payload, 0, 4, 0.5), (f"{payload}2", 5, 9, -0.5))
    shown: list[Any] = [Hits([hit, *prefixed], payload), Hits([hit], "word"), Hits([], payload), found, loose, guess]
    shown += [_generated(payload, passage, hit), Explanation({payload: 1.0, "word": 0.5}, tokens), *_reports(payload)]
    fusion = {"fusion": payload, "dense": 0.5, "learned": False}
    info = {"documents": 1, "passages": 1, "encoder": {"name": payload, "dimension": 1}, "language": payload}
    return [*(each._repr_html_() for each in shown), index_html(payload, {**info, "fusion": fusion})]


def _generated(payload: str, passage: Passage, hit: Hit) -> Answer:
    citation = Citation(payload, 0, passage.end, 2, 0.5)
    sentences = (Sentence(payload, 0, len(payload), (citation,)), Sentence(payload, 0, len(payload), ()))
    return Answer(
        *(payload, 0.5, hit), citations=(citation,), sentences=sentences, context=Context((passage,), (passage,))
    )


def _reports(payload: str) -> list[Any]:
    """What is done, found and measured, with the payload for every string."""
    pair = ((payload, payload),)
    measured = [Evaluation(name, payload, 1, {payload: 0.5}, {}, 1.0, 1.0) for name in (payload, f"{payload}2")]
    difference = Difference(f"{payload}2", payload, -0.5, 0.5, -0.5, 0.5)
    compared = Comparison(
        *(payload, payload, tuple(measured), (difference,), payload, payload, payload),
        (IndexCost(payload, 1, 1.0, 1),),
    )
    overlap = GroupOverlap(payload, (payload, payload), 1, 0.5, 0.5, 0.0, 0.0, 0.0)
    shift = GroupShift(payload, payload, 1, *([0.5] * 7))
    audit = Audit(1, 1, (overlap,), (shift,), (Extreme(payload, payload, payload, {payload: 1.0}),), (payload,))
    check = CheckReport(1, 1, *([(payload,)] * 4))
    return [AddReport(failures=pair, notes=pair), SyncReport(failures=pair), check, measured[0], compared, audit]


def _hit_from(source: str, text: str) -> Hit:
    return Hit(Passage(1, "a", text, 0, len(text), None, {"source": source}), 0.5, 1)


# What is in the page: every element and attribute of each section, scripts that ran, links.
INSPECTOR = """
const found = {title: document.title, ran: window.ran || 0, sections: []};
for (const section of document.querySelectorAll("body > section")) {
    const all = [...section.querySelectorAll("*")];
    found.sections.push({
        parts: [...new Set(all.flatMap(e => [e.localName, ...[...e.attributes].map(a => e.localName + " " + a.name)]))],
        links: [...new Set([...section.querySelectorAll("a")].map(e => e.protocol))],
        text: section.textContent,
    });
}
found.strays = [...document.body.children].map(e => e.localName).filter(n => n != "section" && n != "script");
const verdict = document.createElement("script");
verdict.type = "application/json";
verdict.id = "verdict";
verdict.textContent = encodeURIComponent(JSON.stringify(found).replace(/[\\ud800-\\udfff]/g, "?"));
document.documentElement.replaceChildren(verdict);
"""

OURS = {
    *("div", "div class", "style", "p", "p class", "b", "ol", "li", "li value", "span", "span class", "span style"),
    *("span title", "mark", "a", "a href", "a rel", "table", "thead", "tbody", "tr", "tr class", "td", "td class"),
    *("th", "th class", "th scope", "ul"),
}


def load(browser: str, folder: Path, sections: list[str]) -> dict[str, Any]:
    """What the inspector says of a page with these sections, after all that could run has run."""
    body = "".join(f"<section>{each}</section>\n" for each in sections)
    # After everything else had its time: handlers, refreshes, frames.
    script = f"setTimeout(() => {{{INSPECTOR}}}, 1500)"
    page = f"<!doctype html><html><head><meta charset=utf-8><title>untouched</title><script>{script}</script></head>"
    path = folder / "page.html"
    path.write_text(f"{page}<body>{body}</body></html>", "utf-8", errors="replace")
    command = [browser, *OPTIONS, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    dumped = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True).stdout.decode()
    _, _, rest = dumped.partition('id="verdict">')
    return dict(json.loads(_decoded(rest.partition("</script>")[0]))) if rest else {}


def _decoded(text: str) -> str:
    from urllib.parse import unquote

    return unquote(unescape(text))


@contextmanager
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server of this machine: its address, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", asked
        finally:
            listening.shutdown()
            thread.join()


def run(count: int, seed: int, folder: Path) -> Outcome:
    outcome = Outcome()
    browser = _browser()
    if browser is None:
        return outcome
    with server() as (address, asked):
        ready = [_armed(payload, number, address) for number, payload in enumerate(payloads()[:count])]
        (folder / "escaped").mkdir()
        found = load(browser, folder / "escaped", ["".join(outputs(payload)) for payload in ready])
        judge(outcome, found, ready)
        for path in asked:
            outcome.fail(f"the page of {ready[int(path.split('?')[1])]!r} asked the server for {path}")
        outcome.done = len(ready)
        asked.clear()
        _control(outcome, browser, folder, ready, asked)
    return outcome


def _armed(payload: str, number: int, address: str) -> str:
    script = "window.ran=(window.ran||0)+1;document.title=1"
    return payload.replace("#", f"{address}/?{number}").replace(
        "@", script.replace(";", ",") if "=@" in payload else script
    )


def judge(outcome: Outcome, found: dict[str, Any], ready: list[str]) -> None:
    """Note what is in the page that should not be, or is not there that should be."""
    if not found:
        outcome.fail("the browser showed another page than ours")
        return
    if found["title"] != "untouched" or found["ran"] or found["strays"]:
        outcome.fail(
            f"a script ran or broke out: {found['title']!r}, {found['ran']} times, {found['strays']} in the page"
        )
    if len(found["sections"]) != len(ready):
        outcome.fail(f"{len(found['sections'])} sections for {len(ready)} payloads")
    for payload, section in zip(ready, found["sections"], strict=False):
        outcome.counters["places"] += len(outputs(payload))
        foreign = set(section["parts"]) - OURS
        links = set(section["links"]) - {"http:", "https:", "file:", ":"}  # ":" is an address that leads nowhere
        if foreign or links:
            outcome.fail(f"{payload!r} made {sorted(foreign)}, links {sorted(links)}")
        readable = "".join(clean(payload[:20]).split())
        if readable.isascii() and readable not in "".join(section["text"].split()):
            outcome.fail(f"{payload!r} is not there to be read")


def _control(outcome: Outcome, browser: str, folder: Path, ready: list[str], asked: list[str]) -> None:
    """The same payloads as they are, a page each where the first would hide the rest."""
    some = [each for each in ready if "<script" in each or "onerror" in each or "<img" in each]
    tame = [each for each in some if "meta" not in each and "<!--" not in each and "frameset" not in each][:20]
    (folder / "raw").mkdir()
    found = load(browser, folder / "raw", tame)
    outcome.counters["scripts of unescaped payloads that ran"] = found.get("ran", 0)
    outcome.counters["requests of unescaped payloads"] = len(asked)
    if some and not (found.get("ran") and asked):
        outcome.fail("payloads that were not escaped did nothing: the page proves nothing")
