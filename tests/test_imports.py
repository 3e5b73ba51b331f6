"""What importing costs, which module may know which, and what is public."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import semsearch

PACKAGE = Path(semsearch.__file__).parent
HEAVY = {"torch", "transformers", "sentence_transformers", "faiss", "onnxruntime"}

# Each module and the ones of ours that it may import. records and errors are free for all; an arrow in brackets is
# taken when a function is called, not at import.
LEAF: set[str] = set()
ARROWS = {
    "analysis": LEAF,
    "archives": {"formats"},
    "audit": {"evaluation", "metrics", "(html)"},
    "backup": {"items", "locking", "store", "tables"},
    "binding": {"analysis", "encoding"},
    "blocks": LEAF,
    "calibration": {"(extraction)", "(metrics)"},
    "chat": {"followups", "prompts", "sentences", "(generation)", "(reading)", "(routing)"},
    "chunking": {"outline"},
    "citing": {"grounding", "links", "repeats"},
    "columns": {"blocks", "filters"},
    "comparing": {
        "datasets", "evaluation", "metrics", "(fusion)", "(html)", "(index)", "(loading)", "(plots)",
        "(reading)", "(retrieval)",
    },
    "compiling": {"encoding", "runtime"},
    "completion": LEAF,
    "copying": {"analysis", "entries", "items", "(embedded)", "(engines)"},
    "corpus": {
        "filters", "ingest", "(encoding)", "(exploring)", "(generation)", "(holdings)", "(html)", "(plots)",
        "(prompts)", "(retrieval)", "(snapshots)", "(summarizing)",
    },
    "datasets": LEAF,
    "decoding": {"formats"},
    "dense": {"blocks", "selection", "sieve", "vectors"},
    "detection": {"analysis"},
    "detokenising": {"outline"},
    "display": {"(analysis)", "(html)", "(plots)"},
    "drawing": {"display"},
    "embedded": {
        "analysis", "chunking", "engines", "entries", "filters", "legs", "snapshots", "store", "tables",
    },
    "encoding": {"runtime"},
    "endpoints": {"gate", "jobs", "schemas", "service"},
    "enginecheck": {"chunking", "engines", "enginestore", "health", "views"},
    "engineindex": {
        "analysis", "binding", "detection", "encoding", "engines", "enginesnapshot", "enginestore", "enginewriter",
        "filters", "forking", "index", "ingest", "items", "(backup)", "(enginecheck)", "(health)", "(reading)",
        "(tuning)",
    },
    "enginesnapshot": {"analysis", "engines", "enginestore", "filters", "fusion", "holdings", "snapshots"},
    "enginestore": {"engines"},
    "enginewriter": {"engines", "enginestore", "entries", "filters", "views"},
    "entries": {"chunking", "engines", "views"},
    "epub": {"archives", "decoding", "formats", "markup"},
    "errors": LEAF,
    "evaluation": {"datasets", "metrics", "(audit)", "(comparing)", "(html)"},
    "exploring": {"filters", "(holdings)", "(retrieval)", "(sentences)", "(snapshots)"},
    "extraction": {"runtime"},
    "filters": LEAF,
    "followups": LEAF,
    "forking": LEAF,
    "formats": LEAF,
    "frames": {"display", "outline"},
    "fusion": {"selection"},
    "gate": LEAF,
    "generation": {"detokenising", "packing", "prompts", "repeats", "sampling", "steps"},
    "grounding": {"sentences", "wording"},
    "health": {"inspection", "legs", "tables", "(html)"},
    "holdings": {"filters", "views"},
    "html": {"display"},
    "index": {
        "analysis", "binding", "corpus", "detection", "encoding", "filters", "forking", "holdings", "ingest", "items",
        "legs", "lexical", "snapshots", "store", "tables", "vectors", "writers", "(backup)", "(engines)", "(health)",
        "(inspection)", "(reading)", "(retrieval)", "(sync)", "(tuning)",
    },
    "indexmap": {"drawing", "projection", "(analysis)", "(filters)", "(index)"},
    "ingest": {"chunking", "legs", "tables", "writers", "(display)", "(encoding)", "(html)"},
    "inspection": {"chunking", "filters", "seals", "tables"},
    "items": LEAF,
    "jobs": {"items", "(index)", "(sync)"},
    "judging": {"encoding", "extraction", "grounding", "wording"},
    "legs": {"blocks", "chunking", "columns", "dense", "filters", "lexical", "locking", "tables", "(analysis)"},
    "lexical": {"postings", "rankbm25", "scan", "selection", "vocabulary"},
    "links": LEAF,
    "loading": {
        "archives", "decoding", "epub", "formats", "mail", "markup", "opendocument", "sheets", "slides",
        "word", "(parsing)",
    },
    "locking": LEAF,
    "mail": {"decoding", "formats", "markup"},
    "markup": {"formats"},
    "mcp_server": {"gate", "server", "service"},
    "metrics": LEAF,
    "opendocument": {"archives", "formats", "markup", "sheets", "slides"},
    "opening": {"extraction", "generation", "(pretrained)", "(prompts)", "(remote)"},
    "outline": LEAF,
    "packing": {"sentences"},
    "parsing": {"formats", "loading"},
    "plots": {"drawing", "indexmap", "metrics", "(comparing)", "(evaluation)", "(extraction)"},
    "postings": {"blocks", "vocabulary"},
    "parquet": {"engines", "items", "locking"},
    "pretrained": {"generation", "prompts", "sampling"},
    "projection": LEAF,
    "prompts": LEAF,
    "rankbm25": {"postings", "selection", "vocabulary"},
    "reading": {
        "calibration", "extraction", "generation", "opening", "routing", "writing", "(chat)", "(datasets)",
        "(encoding)", "(prompts)", "(retrieval)",
    },
    "records": {"(display)", "(html)"},
    "remote": {"detokenising", "display", "generation", "outline", "packing", "prompts"},
    "repeats": {"sentences"},
    "reranking": {"(encoding)", "(extraction)"},
    "retrieval": {
        "display", "filters", "fusion", "(extraction)", "(frames)", "(html)", "(index)", "(reranking)",
        "(snapshots)", "(tuning)",
    },
    "routing": LEAF,
    "runtime": LEAF,
    "sampling": LEAF,
    "scan": {"postings", "selection"},
    "schemas": LEAF,
    "seals": LEAF,
    "selection": LEAF,
    "sentences": LEAF,
    "server": {"gate", "items", "(endpoints)", "(index)", "(service)"},
    "service": {"analysis", "gate", "jobs", "outline", "(index)", "(reading)", "(retrieval)"},
    "shards": {
        "analysis", "copying", "detection", "encoding", "engines", "entries", "ingest", "items", "parquet", "runtime",
        "tables", "(display)",
    },
    "sheets": {"archives", "formats"},
    "shell": {"display", "terminal", "(reading)", "(retrieval)"},
    "sieve": {"blocks"},
    "slides": {"archives", "formats", "markup"},
    "snapshots": {"analysis", "filters", "fusion", "holdings", "legs", "views", "(lexical)", "(tuning)"},
    "steps": LEAF,
    "store": {"locking", "tables"},
    "summarizing": {"extraction", "opening", "prompts", "writing", "(encoding)", "(exploring)", "(generation)"},
    "sync": {"ingest", "items", "loading", "parsing", "tables", "writers"},
    "tables": {"filters", "seals", "views"},
    "terminal": {"display", "items"},
    "tuning": {"datasets", "fusion", "metrics", "(html)"},
    "vectors": {"blocks", "selection"},
    "views": {"filters", "seals"},
    "vocabulary": {"blocks"},
    "watching": {"loading", "sync"},
    "word": {"archives", "formats", "markup"},
    "wording": LEAF,
    "writers": {"views"},
    "writing": {"citing", "generation", "reranking", "routing", "(encoding)", "(judging)"},
}  # fmt: skip

# What encodes on several machines knows more, when it is called.
ENCODING_ARROWS = {"(display)", "(encoding)", "(items)", "(parquet)", "(runtime)", "(shards)"}


def imported(path: Path) -> set[str]:
    """The modules of ours that a module imports; in brackets those that only a function or type checking does."""
    tree = ast.parse(path.read_text())
    at_import: set[str] = set()
    every: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "semsearch":
            names = [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
            every.update(names)
            if node in tree.body:
                at_import.update(names)
    every -= {"errors", "records"}
    return {name if name in at_import else f"({name})" for name in every}


@pytest.mark.parametrize("module", sorted(path.stem for path in PACKAGE.glob("*.py")))
def test_arrows(module: str) -> None:
    if module in ("__init__", "cli", "commands"):
        pytest.skip("may import everything")
    allowed = ARROWS[module] | {f"({name})" for name in ARROWS[module]}
    assert imported(PACKAGE / f"{module}.py") - allowed == set()


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("engines/*.py")), ids=lambda path: path.stem)
def test_arrows_of_engines(path: Path) -> None:
    """An engine knows what goes in and comes out, and nothing of what an index makes of it."""
    allowed = {"engines", "filters"} | (ENCODING_ARROWS if path.stem.startswith("ray") else set())
    assert imported(path) - (allowed | {f"({name})" for name in allowed}) == set()


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_loads_nothing_heavy() -> None:
    assert modules_after("import semsearch") & (HEAVY | {"numpy", "sqlite_utils", "tokenizers", "tqdm"}) == set()


def test_search_and_answer_of_a_new_process_load_no_torch(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index") as index:
        index.add([("a", "The library closes at nine in the evening."), ("b", "Late fees are twenty cents a day.")])
    code = f"""
import semsearch
with semsearch.Index({str(tmp_path / "index")!r}, read_only=True) as index:
    assert index.search("late fees", k=1)[0].passage.document_id == "b"
    assert index.ask("How much are late fees?").document_id == "b"
"""
    assert (
        modules_after(code) & {"torch", "transformers", "sentence_transformers", "scipy", "pandas", "sqlite_utils"}
        == set()
    )


def test_import_is_not_slower_than_numpy_by_more_than_a_tenth_of_a_second() -> None:
    code = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"

    def best(module: str) -> float:
        runs = [
            subprocess.run([sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True)
            for _ in range(5)
        ]
        return min(float(run.stdout) for run in runs)

    assert best("semsearch") <= best("numpy") + 0.1


def test_public_names() -> None:
    assert set(semsearch.__all__) == {
        "Answer", "Answerer", "Citation", "Document", "Encoder", "Hit", "Index", "Passage", "Reader", "Retriever",
        "SemsearchError", "compare", "compile_encoder", "errors", "evaluate", "fusion", "load",
    }  # fmt: skip
    for name in semsearch.__all__:
        assert getattr(semsearch, name) is not None
    assert dir(semsearch) == sorted(semsearch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'index_folder'"):
        _ = semsearch.index_folder


def test_every_error_is_ours_and_drawn() -> None:
    drawing = semsearch.errors.__doc__ or ""
    for name in semsearch.errors.__all__:
        assert issubclass(getattr(semsearch.errors, name), semsearch.SemsearchError)
        assert name in drawing


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_no_pickle_and_no_remote_code(path: Path) -> None:
    """P15, P16: nothing in the package can run code from a file."""
    text = path.read_text()
    for forbidden in ("allow_pickle=True", "trust_remote_code=True", "torch.load("):
        assert forbidden not in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"pickle", "marshal", "shelve", "dill"}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__")


def test_nothing_is_imported_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the folder was imported')")
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import semsearch; semsearch.Index"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
