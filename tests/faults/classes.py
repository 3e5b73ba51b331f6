"""The classes of faults, by the names of their modules."""

CLASSES = (
    "kill",
    "steps",
    "recovery",
    "io",
    "full",
    "damage",
    "strays",
    "concurrency",
    "fork",
    "model",
    "text",
    "queries",
    "files",
    "html",
)
