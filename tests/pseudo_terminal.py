"""A program on a pseudo-terminal of its own, as a person has it: keys in, what is on the screen out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

SEMSEARCH = (sys.executable, "-m", "semsearch.cli")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of a person at a terminal, with changes; None takes a variable out."""
    plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES", "CI")}
    values = {**plain, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **changes}
    return {key: value for key, value in values.items() if value is not None}


class PseudoTerminal:
    """`screen` is everything that the program wrote, with "\\n" for the terminal's line ends."""

    def __init__(
        self, command: Sequence[str], cwd: Path, env: dict[str, str] | None = None, size: tuple[int, int] = (30, 100)
    ) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        name = os.ttyname(slave)
        # The leader of a session that opens a terminal gets it as its own: then Ctrl-C reaches the program.
        opening = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', name, *command]
        self.process = subprocess.Popen(opening, cwd=cwd, env=env or environment(), start_new_session=True)
        self._slave = slave  # kept open until the program has it open, or the terminal would hang up
        self._raw = b""
        self._read = 0

    @property
    def screen(self) -> str:
        return self._raw.decode("utf-8", "replace").replace("\r\n", "\n")

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def expect(self, text: str, timeout: float = 120) -> str:
        """Wait until the program wrote a text after what was expected before; returns what it wrote up to there."""
        deadline = time.monotonic() + timeout
        while (at := self.screen.find(text, self._read)) < 0:
            if not self._take(deadline):
                raise AssertionError(f"{text!r} did not come. On the screen: {self.screen[self._read :]!r}")
        before, self._read = self.screen[self._read : at], at + len(text)
        return before

    def wait(self, timeout: float = 120) -> int:
        """Read until the program ends; returns its exit code."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"The program did not end. On the screen: {self.screen!r}")
            self._take(time.monotonic() + 0.05)
        while self._take(time.monotonic() + 0.05):
            pass
        return self.process.returncode

    def _take(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self._raw += piece
        return bool(piece)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self.master)
