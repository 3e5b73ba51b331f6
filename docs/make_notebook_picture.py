"""A picture of a notebook on a light page and on a dark one, from its stored outputs, by a headless Chromium.

    python docs/make_notebook_picture.py      # examples/pictures.ipynb → docs/pictures/notebook-light.png and -dark.png

The pages have the colours of JupyterLab's two themes. HTML is shown as it was stored, without a script.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
NOTEBOOK = DOCS.parent / "examples" / "pictures.ipynb"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
)
THEMES = {  # background, text, background of code, links
    "light": ("#ffffff", "rgba(0,0,0,.87)", "#f5f5f5", "#1976d2"),
    "dark": ("#111111", "rgba(255,255,255,.87)", "#212121", "#64b5f6"),
}
SIZE = (900, 1680)
CELLS = range(1, 12)  # from the first code cell to the map


def page(cells: list[dict[str, Any]], theme: str) -> str:
    background, text, code, link = THEMES[theme]
    style = (
        f"body{{background:{background};color:{text};font:14px system-ui,sans-serif;margin:16px;width:868px}}"
        f"pre{{background:{code};padding:6px 10px;font:12.5px monospace;margin:10px 0 4px}}a{{color:{link}}}"
        ".out{padding-left:10px}.out img{max-width:660px;background:white}"
        # What a notebook has for tables in general:
        "table{font-size:12px}td,th{text-align:right;padding:4px}"
    )
    body = "".join(map(shown, cells))
    return f"<!doctype html><html><head><meta charset=utf-8><style>{style}</style></head><body>{body}</body></html>"


def shown(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return ""
    parts = [f"<pre>{escape(source)}</pre>"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "text/html" in data:
            parts.append(f'<div class="out">{"".join(data["text/html"])}</div>')
        elif "image/png" in data:
            parts.append(
                f'<div class="out"><img src="data:image/png;base64,{"".join(data["image/png"]).strip()}"></div>'
            )
    return "".join(parts)


def main() -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"No browser: none of {', '.join(BROWSERS)} is installed.")
    cells = [cell for n, cell in enumerate(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]) if n in CELLS]
    for theme in THEMES:
        target = DOCS / "pictures" / f"notebook-{theme}.png"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "page.html"
            path.write_text(page(cells, theme), encoding="utf-8")
            size = f"--window-size={SIZE[0]},{SIZE[1]}"
            command = [browser, *OPTIONS, size, f"--screenshot={target}", f"--user-data-dir={folder}/profile"]
            subprocess.run([*command, path.as_uri()], check=True, capture_output=True, timeout=120)
        smaller(target)
        print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


def smaller(path: Path) -> None:
    """256 colours that keep those of few pixels, too."""
    from PIL import Image

    with Image.open(path) as image:
        rgb = image.convert("RGB")
    small = rgb.quantize(colors=256, method=Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()
