"""Take the pictures of the page in docs/pictures/: light, dark and narrow, over examples/documents, in Chromium.

python examples/pictures_of_page.py [--out docs/pictures]

Needs Chromium, ChromeDriver and selenium (extra `dev`).
"""

from __future__ import annotations

import argparse
import base64
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import semsearch
from semsearch.server import create_app

DOCUMENTS = Path(__file__).parent / "documents"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    "--force-color-profile=srgb",
)


@contextmanager
def served(location: Path) -> Iterator[str]:
    """The address of a server over an index, while the block lasts."""
    app = create_app(location, roots=[DOCUMENTS])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not (server.started and server.servers):
            if not thread.is_alive():
                raise SystemExit("the server did not start")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """A Chromium without a window and with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def picture(
    driver: webdriver.Chrome, address: str, path: Path, *, size: tuple[int, int], dark: bool, ready: str
) -> None:
    """Open an address and keep what is seen of it once an element is there."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 2 if width < 500 else 1.5, "mobile": width < 500}
    scheme: dict[str, Any] = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    driver.get("about:blank")
    driver.get(address)
    WebDriverWait(driver, 60).until(lambda d: all(d.find_elements(By.CSS_SELECTOR, each) for each in ready.split(", ")))
    driver.execute_script("document.activeElement.blur()")
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    path.write_bytes(base64.b64decode(taken["data"]))
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "pictures")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        location = folder / "library"
        with semsearch.Index(location) as index:
            index.sync(DOCUMENTS)
            fees = index.get("services/late-fees.md")
        assert fees is not None
        start = fees.text.index("Late fees start")
        end = fees.text.index("for each item.", start) + len("for each item.")
        asked = "#q=How+much+is+a+book+a+day+when+it+is+late%3F&ask=1"
        reading = f"&doc=services%2Flate-fees.md&from={start}&to={end}"
        found = ".answer .place a, .hit, .chips button"
        with served(location) as address, browser(folder / "profile") as driver:
            page = f"{address}/{asked}"
            picture(
                driver, page + reading, out / "page-light.png", size=(1360, 880), dark=False, ready=found + ", .target"
            )
            picture(
                driver, page + reading, out / "page-dark.png", size=(1360, 880), dark=True, ready=found + ", .target"
            )
            picture(driver, page, out / "page-narrow.png", size=(360, 780), dark=False, ready=found)


if __name__ == "__main__":
    main()
