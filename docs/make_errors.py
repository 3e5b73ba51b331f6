"""Write the page of errors: each class with its cause and cure, and every message that the source can raise.

    python docs/make_errors.py

The messages are read from the source, so that the page cannot fall behind it; a test compares the two.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from semsearch import errors

PAGE = Path(__file__).with_name("errors.md")
PACKAGE = Path(errors.__file__).parent

# What leads to an error of each class, and what helps. The message itself says it for the case at hand.
ABOUT = {
    "SemsearchError": (
        "Every error that the library raises on purpose is one of these.",
        "Catch it to catch them all; anything else that escapes is a bug.",
    ),
    "InputError": (
        "An argument has a value that cannot be used: an empty question, k below 1, an unknown name.",
        "Change the argument that the message names. It is a ValueError as well.",
    ),
    "FilterError": (
        "A `where` filter is not well formed: an unknown operator, a list without values, mixed types.",
        "Write it as the README shows; the message quotes the part that does not fit.",
    ),
    "ModelError": (
        "An encoder or reader cannot be found, loaded or used. Offline, only what ships or lies on the disk can be.",
        "Give the path of a folder with safetensors, ONNX or GGUF weights, or a name that is in the local cache.",
    ),
    "EncoderError": (
        "An encoder returned another shape, dimension or type than the `Encoder` protocol promises.",
        "Mend the encoder: (n, dimension) float32, one row for each text.",
    ),
    "MissingExtraError": (
        "An optional package is not installed.",
        "Install the extra that the message names. It is an ImportError as well.",
    ),
    "LoadError": (
        "A file cannot be turned into text: encrypted, damaged, too large, too slow, of an unknown format.",
        "In a sync it is listed under `failures` with the reason and stops nothing. Convert the file, or leave it out.",
    ),
    "StorageError": (
        "The folder on disk cannot be used as an index.",
        "Look at the classes below; those of this class itself are about paths, rights and SQLite.",
    ),
    "IndexNotFoundError": (
        "There is no index at the location, and none was to be made (`create=False` or `read_only=True`).",
        "Check the path, or make one: `semsearch index FOLDER`. It is a FileNotFoundError as well.",
    ),
    "IndexLockedError": (
        "Another process is writing. Readers are never locked out.",
        "Wait, or pass a longer `timeout`; `pid` and `host` say who it is.",
    ),
    "IndexMismatchError": (
        "The index was made with another encoder or analyzer than it is opened with.",
        "Open it with the one that the message names, or make a new index.",
    ),
    "IndexFormatError": (
        "The index was written by a later release, or the file is no index.",
        "Update semsearch. Nothing was changed in the folder.",
    ),
    "CorruptIndexError": (
        "A checksum does not fit, or SQLite says that the database is damaged.",
        "`index.check(repair=True)` mends what is derived; else restore a backup, or sync the folder into a new index.",
    ),
    "ReadOnlyIndexError": (
        "A write to an index that was opened with `read_only=True`.",
        "Open it without.",
    ),
    "ClosedIndexError": (
        "The index was closed before, or its `with` block has ended.",
        "Open it again; an `Index` opens in milliseconds.",
    ),
    "EngineUnavailableError": (
        "The server past this machine is away, or did not answer within the location's `timeout`, after several tries.",
        "Start it, or wait until it is there, and call again: what was written before is there, and a sync goes on.",
    ),
    "StorageFullError": (
        "No room is left on the disk, or a quota is reached. What was committed is intact.",
        "Make room and call again: a sync goes on where it was. It is an OSError as well.",
    ),
}  # fmt: skip


def page() -> str:
    """The text of the page."""
    found = messages()
    lines = [
        "# Errors",
        "",
        "Every error that semsearch raises on purpose: cause, cure, and the wording of all its messages. Words in",
        "braces stand for values. Made from the source by `python docs/make_errors.py`.",
        "",
        "```",
        *inspect.cleandoc(errors.__doc__ or "").splitlines()[2:-2],
        "```",
    ]
    for name in classes():
        cause, cure = ABOUT[name]
        lines += ["", f"## {name}", "", f"**Cause.** {cause}  ", f"**Cure.** {cure}"]
        if texts := sorted(found.get(name, ()), key=lambda pair: (pair[1], pair[0])):
            lines += ["", "| message | raised in |", "|---|---|"]
            lines += [f"| {_cell(text)} | `{module}` |" for text, module in texts]
    return "\n".join(lines) + "\n"


def classes() -> list[str]:
    """The names of all classes, in the order of the tree."""
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def messages() -> dict[str, set[tuple[str, str]]]:
    """For each class, its messages with the module that raises them."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            name = _error_class(node)
            if isinstance(node, ast.Call) and name is not None:
                found.setdefault(name, set()).update((text, module) for text in _texts(node, functions))
            elif isinstance(node, ast.ClassDef) and node.name in ABOUT:  # one that puts its message together itself
                calls = (inner for inner in ast.walk(node) if ast.unparse(inner).startswith("super().__init__("))
                own = {text for call in calls if isinstance(call, ast.Call) for text in _texts(call, functions)}
                found.setdefault(node.name, set()).update((text, module) for text in own)
    return found


def _error_class(node: ast.AST) -> str | None:
    """The name of the error class that a call makes an instance of."""
    if not isinstance(node, ast.Call):
        return None
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    return name if name in ABOUT else None


def _texts(call: ast.Call, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """The wordings of the first argument that is a text; where a function of the module makes it, what that returns."""
    for argument in call.args:
        texts = list(_wordings(argument, functions))
        if texts:
            yield from texts
            return


def _wordings(node: ast.AST, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(_part(part) for part in node.values)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = list(_wordings(node.left, functions)), list(_wordings(node.right, functions))
        yield from (a + b for a in left or ["{…}"] for b in right or ["{…}"])
    elif isinstance(node, ast.IfExp):
        yield from _wordings(node.body, functions)
        yield from _wordings(node.orelse, functions)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        for inner in ast.walk(functions[node.func.id]):
            if isinstance(inner, ast.Return) and inner.value is not None:
                yield from _wordings(inner.value, {})


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return "{" + ast.unparse(part.value) + "}" if isinstance(part, ast.FormattedValue) else ""


def _cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    text = " ".join(text.split()).replace("|", "\\|")
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("*", "\\*").replace("_", "\\_").replace("`", "\\`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name}: {sum(map(len, messages().values()))} messages")
