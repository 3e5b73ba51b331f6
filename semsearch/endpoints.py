"""The addresses of the server and what each of them takes, over `semsearch.service`. Needs the extra `server`."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from anyio import CancelScope
from fastapi import FastAPI, Query, Request  # noqa: TID253
from fastapi.exceptions import RequestValidationError  # noqa: TID253
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse  # noqa: TID253
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import semsearch
from semsearch.errors import (
    IndexLockedError,
    IndexNotFoundError,
    InputError,
    MissingExtraError,
    ModelError,
    ReadOnlyIndexError,
    SemsearchError,
    StorageError,
    StorageFullError,
)
from semsearch.gate import Counters, headers_for
from semsearch.jobs import RunningError
from semsearch.schemas import (
    Ask,
    AskedAnswer,
    DocumentPart,
    Explain,
    ExplainedPassage,
    Failure,
    FoundPassages,
    Health,
    Info,
    PassageId,
    Piece,
    Search,
    SyncJob,
    SyncStart,
)
from semsearch.service import NotFoundError, Service, log, plain

__all__ = ["PATHS", "build"]

WEB = Path(__file__).parent / "web"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/marks.js": ("marks.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
PATHS = (
    *("/api/search", "/api/explain", "/api/ask/stream", "/api/ask", "/api/document", "/api/info", "/api/sync"),
    *("/health", "/metrics", "/openapi.json"),
    *(path for path in FILES if path != "/"),
)
# The first that fits.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, 404),
    (RunningError, 409),
    (IndexLockedError, 409),
    (ReadOnlyIndexError, 403),
    (StorageFullError, 507),
    (IndexNotFoundError, 503),
    (StorageError, 503),
    (ModelError, 503),
    (MissingExtraError, 503),
    (InputError, 400),
)
NO_TOKEN: dict[str, Any] = {"security": []}


def build(service: Service, counters: Counters) -> FastAPI:
    """The application without the gate before it."""
    refused: dict[int | str, dict[str, Any]] = {
        400: {"model": Failure, "description": "a value that cannot be used"},
        401: {"model": Failure, "description": "the token is missing or wrong"},
        413: {"model": Failure, "description": "the request is too large"},
        422: {"model": Failure, "description": "the request has another form than described here"},
        503: {"model": Failure, "description": "too many requests at once, or the index cannot be read"},
    }
    app = FastAPI(
        title="semsearch",
        version=semsearch.__version__,
        summary="Search and answers over one index of documents.",
        description="All offsets count characters (Unicode code points) of the document's text.",
        docs_url=None,
        redoc_url=None,
        responses=refused,
        lifespan=_lifespan(service),
    )
    _add_errors(app, service)
    _add_pages(app)
    _add_search(app, service)
    _add_answers(app, service)
    _add_syncs(app, service)
    _add_state(app, service, counters)
    _describe(app)
    return app


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = threading.Thread(target=service.warm_up, name="warm-up")
        warming.start()
        try:
            yield
        finally:
            await run_in_threadpool(warming.join)  # a process that ends while a model is being loaded aborts
            await run_in_threadpool(service.close)

    return lifespan


def _add_errors(app: FastAPI, service: Service) -> None:
    def failed(status: int, error: str, message: str) -> Response:
        return JSONResponse({"error": error, "message": message}, status)

    async def ours(request: Request, error: Exception) -> Response:
        status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
        if status >= 500:
            log.error("%s: %s", type(error).__name__, error)
        return JSONResponse(service.failure(error), status)

    async def unexpected(request: Request, error: Exception) -> Response:
        response = JSONResponse(service.failure(error), 500)
        response.raw_headers += headers_for(request.url.path)  # this one is sent from outside of the gate
        return response

    async def malformed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Where and what, never the value: it may be large, or no text at all.
        found = [f"{_place(each['loc'])}: {each['msg']}" for each in error.errors()[:5]]
        return failed(422, "ValidationError", str(plain("; ".join(found))))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "NotFoundError", 405: "MethodNotAllowed"}.get(error.status_code, "BadRequest")
        message = {404: "There is nothing at this address.", 405: "This address does not take that method."}
        response = failed(error.status_code, kind, message.get(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(SemsearchError, ours)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:80] for part in location[1:]) or "body"


def _add_pages(app: FastAPI) -> None:
    def serve(path: str, name: str, kind: str) -> None:
        content = (WEB / name).read_bytes()

        @app.get(path, include_in_schema=False)
        async def page() -> Response:
            return Response(content, media_type=kind)

    for path, (name, kind) in FILES.items():
        serve(path, name, kind)


def _add_search(app: FastAPI, service: Service) -> None:
    @app.post("/api/search", response_model=FoundPassages, tags=["search"])
    def search(request: Search) -> Any:
        """The best passages for a query."""
        return service.search(request.query, request.k, request.mode, request.where)

    @app.post("/api/explain", response_model=ExplainedPassage, tags=["search"], responses=_missing("passage"))
    def explain(request: Explain) -> Any:
        """Why a passage was found: the matched terms, and how near each token is to the query."""
        return service.explain(request.query, request.passage_id)

    @app.get("/api/document", response_model=DocumentPart, tags=["read"], responses=_missing("document"))
    def document(
        id: Annotated[str | None, Query(description="the document's id")] = None,
        passage_id: Annotated[PassageId | None, Query(description="a passage of it, in place of id")] = None,
        start: Annotated[int, Query(ge=0, lt=2**53, description="the first character")] = 0,
        size: Annotated[
            int | None, Query(ge=1, description="how many characters; if not given 20,000, or max_window if less")
        ] = None,
        query: Annotated[str, Query(description="whose words are to be marked")] = "",
    ) -> Any:
        """A part of a document's text: from a character on, or around a passage."""
        if (id is None) == (passage_id is None):
            raise InputError("Name the document by id or by passage_id, one of them.")
        if id is not None:
            return service.document(id, start, size, query)
        assert passage_id is not None
        return service.document_of(passage_id, size, query)


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/api/ask", response_model=AskedAnswer, tags=["answer"])
    def ask(request: Ask) -> Any:
        """The answer to a question, with where it was read, or that there is none."""
        return service.answer(request.question, request.k, request.where)

    @app.post(
        "/api/ask/stream",
        tags=["answer"],
        response_class=StreamingResponse,
        response_model=None,
        responses={200: {"content": {"application/x-ndjson": {"schema": Piece.model_json_schema(
            ref_template="#/components/schemas/{model}"
        )}}, "description": "a JSON value a line"}},
    )  # fmt: skip
    async def stream(request: Ask) -> StreamingResponse:
        """The answer as it comes, a JSON value a line: pieces of its text, then the whole of it.

        A generating reader stops when the connection is closed.
        """
        events = await run_in_threadpool(service.answering, request.question, request.k, request.where)
        # Proxies such as nginx would otherwise collect the lines.
        return _Stream(_lines(events), media_type="application/x-ndjson", headers={"x-accel-buffering": "no"})


class _Stream(StreamingResponse):
    """A streaming response that closes its source, however it ends."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().__call__(scope, receive, send)


async def _lines(events: Iterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """The events as lines of JSON, each taken in a worker thread."""
    try:
        while (event := await run_in_threadpool(next, events, None)) is not None:
            yield (json.dumps(event, ensure_ascii=False) + "\n").encode()
    finally:
        with CancelScope(shield=True):
            await run_in_threadpool(events.close)  # type: ignore[attr-defined]


def _add_syncs(app: FastAPI, service: Service) -> None:
    answers: dict[int | str, dict[str, Any]] = {
        409: {"model": Failure, "description": "another sync, or another process, is writing"}
    }

    @app.post("/api/sync", response_model=SyncJob, status_code=202, tags=["sync"], responses=answers)
    def start(request: SyncStart) -> Any:
        """Start to bring the index up to the state of an allowed folder; one at a time."""
        return service.start_sync(request.root)

    @app.get("/api/sync", response_model=list[SyncJob], tags=["sync"])
    def every() -> Any:
        """The last syncs, the newest first."""
        return [service.job(job) for job in service.jobs.all()]

    @app.get("/api/sync/{id}", response_model=SyncJob, tags=["sync"], responses=_missing("sync"))
    def one(id: int) -> Any:
        """How a sync stands."""
        return service.get_sync(id)

    @app.delete("/api/sync/{id}", response_model=SyncJob, tags=["sync"], responses=_missing("sync"))
    def cancel(id: int) -> Any:
        """Stop a sync after the file that it is at; what is committed stays."""
        return service.get_sync(id, cancel=True)


def _add_state(app: FastAPI, service: Service, counters: Counters) -> None:
    @app.get("/api/info", response_model=Info, tags=["state"])
    def info() -> Any:
        """What is served, and the limits."""
        return service.info()

    @app.get(
        "/health",
        response_model=Health,
        tags=["state"],
        openapi_extra=NO_TOKEN,
        responses={503: {"model": Health, "description": "not ready"}},
    )
    def health() -> Any:
        """Whether the server can answer; needs no token."""
        found = service.health()
        return JSONResponse(found, 200 if found["ready"] else 503)

    @app.get("/metrics", response_class=PlainTextResponse, tags=["state"])
    def metrics() -> Response:
        """Counters and gauges in the text format of Prometheus."""
        return Response(counters.text(service.gauges()), media_type="text/plain; version=0.0.4; charset=utf-8")


def _missing(what: str) -> dict[int | str, dict[str, Any]]:
    return {404: {"model": Failure, "description": f"there is no such {what}"}}


def _describe(app: FastAPI) -> None:
    """Say in the OpenAPI page that a token may be needed, and what the lines of the stream are."""
    made: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        page = made()
        parts = page["components"]
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": "if one is set"}}
        page["security"] = [{}, {"token": []}]
        lines = page["paths"]["/api/ask/stream"]["post"]["responses"]["200"]["content"]["application/x-ndjson"]
        for name, schema in lines["schema"].pop("$defs", {}).items():
            parts["schemas"].setdefault(name, schema)
        return page

    app.openapi = openapi  # type: ignore[method-assign]
