"""Make docs/pictures/terminal.svg: what a person sees when the commands below run on a terminal.

    python docs/make_terminal_picture.py

The commands really run, on a pseudo-terminal with colours; their output is drawn as it came, and nothing is added.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

from run_blocks import DOCS, home

sys.path.insert(0, str(DOCS.parent / "tests"))

from pseudo_terminal import SEMSEARCH, PseudoTerminal, environment

PICTURE = DOCS / "pictures" / "terminal.svg"
COLUMNS = 96
COMMANDS = [
    ("index", "handbook"),
    ("search", "late fees", "-k", "3"),
    ("ask", "When do late fees start?"),
    ("ask", "Who was the first king of Norway?"),
]
# Foregrounds on #16181d, each with a contrast of more than 4.5 to 1.
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#f2cc60", "36": "#79c0ff"}
PLAIN, DIM, WIDTH, HEIGHT = "#e6e6e6", "#9aa4b2", 8.4, 20
SEQUENCE = re.compile(r"\x1b\[([0-9;]*)m|\x1b\[\??[0-9;]*[A-Za-z]")


def screens(folder: Path) -> list[str]:
    """The lines on the terminal, with their colours."""
    lines = []
    for command in COMMANDS:
        with PseudoTerminal([*SEMSEARCH, *command], folder, environment(NO_COLOR=None), (40, COLUMNS)) as terminal:
            terminal.wait()
        typed = " ".join(f'"{part}"' if " " in part else part for part in command)
        lines.append(f"\x1b[32m$\x1b[0m \x1b[1msemsearch {typed}\x1b[0m")
        # A bar is written over itself: its last state is what stays.
        lines += [line.rstrip("\r").rsplit("\r", 1)[-1] for line in terminal.screen.rstrip("\n").split("\n")]
        lines.append("")
    return lines[:-1]


def spans(line: str) -> str:
    """A line as SVG."""
    parts, style, position = [], "", 0
    for match in [*SEQUENCE.finditer(line), None]:
        text = line[position : match.start() if match else None]
        if text:
            parts.append(f"<tspan{style}>{escape(text)}</tspan>")
        if match is not None:
            codes = set((match[1] or "0").split(";"))
            fill = next((COLOURS[code] for code in codes if code in COLOURS), DIM if "2" in codes else PLAIN)
            style = f' fill="{fill}"' + (' font-weight="bold"' if "1" in codes else "")
            position = match.end()
    return "".join(parts)


def picture(lines: list[str]) -> str:
    """The whole terminal."""
    width, height = COLUMNS * WIDTH + 32, len(lines) * HEIGHT + 32
    rows = [
        f'<text x="16" y="{30 + number * HEIGHT}" xml:space="preserve">{spans(line)}</text>'
        for number, line in enumerate(lines)
        if line
    ]
    font = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}" role="img" aria-label="A terminal with semsearch">'
        f'<rect width="100%" height="100%" rx="8" fill="#16181d"/><g font-family="{font}" font-size="14" '
        f'fill="{PLAIN}">\n' + "\n".join(rows) + "\n</g></svg>\n"
    )


if __name__ == "__main__":
    with home() as folder:
        PICTURE.write_text(picture(screens(folder)), encoding="utf-8")
    print(PICTURE)
