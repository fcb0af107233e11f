"""The gateway's own pages: /docs, /docs/errors, /openapi.json, health and metrics, served by FastAPI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from gateway.openapi.errors import ErrorLine
from gateway.openapi.schemas import Schema
from gateway.problems import Problem, refusal
from gateway.reasons import Reason
from gateway.wire import PAGE_POLICY, SAFE_HEADERS

PATHS = frozenset((b"/", b"/docs", b"/docs/errors", b"/openapi.json", b"/healthz", b"/readyz", b"/metrics"))
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem}"
    "code,.verb{font-family:ui-monospace,monospace}.verb{display:inline-block;width:4.5rem;font-weight:700}"
    "details{border-bottom:1px solid #ddd;padding:.35rem 0}summary{cursor:pointer}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}"
    "small{color:#555}p{white-space:pre-line}"
)


def build_pages(document: Schema, errors: Iterable[ErrorLine], is_ready: Callable[[], bool], docs_url: str) -> FastAPI:
    """Return the app of the gateway's own pages; `document` is the OpenAPI document of all other routes."""
    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    docs, reasons = docs_page(document), errors_page(errors)

    @pages.get("/")
    async def show_start() -> Response:
        return RedirectResponse("/docs")

    @pages.get("/docs")
    async def show_docs() -> Response:
        return HTMLResponse(docs, headers={"content-security-policy": PAGE_POLICY.decode()})

    @pages.get("/docs/errors")
    async def show_errors() -> Response:
        return HTMLResponse(reasons, headers={"content-security-policy": PAGE_POLICY.decode()})

    @pages.get("/openapi.json")
    async def show_document() -> Response:
        return JSONResponse(document)

    @pages.get("/healthz")
    async def show_health() -> Response:
        return PlainTextResponse("ok\n")

    @pages.get("/readyz")
    async def show_readiness() -> Response:
        ready = is_ready()
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    @pages.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    add_handlers(pages, docs_url)
    return pages


def add_handlers(pages: FastAPI, docs_url: str) -> None:
    """Give FastAPI's own errors the shape of all others, and every page the safe headers."""

    @pages.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        reason = Reason.METHOD_NOT_ALLOWED if error.status_code == 405 else Reason.ROUTE_NOT_FOUND
        return problem_page(refusal(error.status_code, reason, str(error.detail)), docs_url, error.headers)

    @pages.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return problem_page(refusal(400, Reason.INVALID_FIELD, "the request is not valid"), docs_url, None)

    @pages.middleware("http")
    async def add_headers(request: Request, call_next: Callable[..., object]) -> Response:
        response: Response = await call_next(request)  # type: ignore[misc]
        for name, value in SAFE_HEADERS:
            response.headers.setdefault(name.decode(), value.decode())
        return response


def problem_page(problem: Problem, docs_url: str, headers: object) -> Response:
    """Return a problem as FastAPI sends it."""
    kept = dict(headers) if isinstance(headers, dict) else {}
    body = problem.body(docs_url, "")
    return Response(body, problem.status, media_type="application/problem+json", headers=kept)


def page(title: str, body: str) -> str:
    """Return an HTML page that needs nothing from elsewhere."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>'


def docs_page(document: Schema) -> str:
    """Return /docs: every operation by service, with its parameters."""
    by_tag: dict[str, list[str]] = {}
    paths: dict[str, dict[str, Schema]] = document["paths"]  # type: ignore[assignment]
    for path, item in paths.items():
        for verb, operation in item.items():
            tag = str(operation["tags"][0])  # type: ignore[index]
            by_tag.setdefault(tag, []).append(operation_html(verb, path, operation))
    links = '<p><a href="/openapi.json">openapi.json</a> · <a href="/docs/errors">errors</a></p>'
    sections = (f"<h2>{escape(tag)}</h2>{''.join(lines)}" for tag, lines in sorted(by_tag.items()))
    return page("Kehu API", links + "".join(sections))


def operation_html(verb: str, path: str, operation: Schema) -> str:
    """Return one operation, folded."""
    rows = "".join(map(parameter_html, operation["parameters"]))  # type: ignore[call-overload]
    table = f"<table>{rows}</table>" if rows else ""
    body = ", ".join(operation.get("requestBody", {}).get("content", {}))  # type: ignore[attr-defined]
    taken = f"<p><small>body: {escape(body)}</small></p>" if body else ""
    summary = f'<span class="verb">{verb.upper()}</span><code>{escape(path)}</code>'
    told = escape(str(operation["description"]))
    return (
        f"<details><summary>{summary} <small>{escape(str(operation['summary']))}</small></summary>"
        f"<p>{told}</p>{table}{taken}</details>"
    )


def parameter_html(parameter: Schema) -> str:
    """Return one row of an operation's parameters."""
    if "$ref" in parameter:
        return ""
    told = escape(str(parameter.get("description", "")))
    return f"<tr><td><code>{escape(str(parameter['name']))}</code></td><td>{parameter['in']}</td><td>{told}</td></tr>"


def errors_page(lines: Iterable[ErrorLine]) -> str:
    """Return /docs/errors: every reason, with an anchor that problem types point to."""
    rows = "".join(
        f'<tr id="{line.reason}"><td><code>{line.reason}</code></td><td>{escape(line.service)}</td>'
        f"<td>{escape(line.meaning)}</td></tr>"
        for line in lines
    )
    return page("Kehu errors", f"<table><tr><th>reason</th><th>given by</th><th>meaning</th></tr>{rows}</table>")
