"""The routes of the live page: the page, its events, and the reports. All are GET; nothing is written."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from muonlab.jobs.files import StudyError
from muonlab.jobs.optional import package
from muonlab.report.page import WRITTEN
from muonlab.report.svg import palette
from muonlab.serve.watching import Answers, Studies

SECONDS = 2.0  # between two looks at the files, while anybody watches
LONGEST_SILENCE = 15.0  # seconds: then a comment is sent, so that a connection that was cut is noticed
COOKIE = "muonlab-token"
HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'"


class Feed:
    """What the page shows now, made once for all who watch."""

    def __init__(self, root: Path, seconds: float = SECONDS):
        self._studies, self._answers, self.seconds = Studies(root), Answers(), seconds
        self._made: dict[str, tuple[float, str]] = {}
        self._lock = asyncio.Lock()

    async def text(self, name: str | None) -> str:
        """Return JSON of all studies, and of one in detail; no older than `seconds`."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            made, text = self._made.get(name or "", (-1e9, ""))
            if now - made >= 0.9 * self.seconds:
                text = json.dumps(await asyncio.to_thread(self._read, name))
                self._made[name or ""] = now, text
            return text

    def _read(self, name: str | None) -> dict[str, Any]:
        root = self._studies.root
        if not root.is_dir():
            return {"folder": str(root), "reason": f"the folder {root} is not there", "studies": [], "detail": None}
        told = {"folder": str(root), "reason": None, "studies": self._studies.summaries(), "detail": None}
        if name is not None:
            try:
                watched = self._studies.watched(name)
                watched.summary()
                told["detail"] = {"name": name, **watched.detail(), "verdict": self._answers.of(watched)}
            except (StudyError, OSError) as error:
                told["detail"] = {"name": name, "reason": str(error)}
        return told

    async def events(self, name: str | None, is_cut: Any) -> AsyncIterator[str]:
        """Yield server-sent events until the reader has gone: the state whenever it has changed."""
        sent, silent = "", 0.0
        while not await is_cut():
            text = await self.text(name)
            if text != sent:
                sent, silent = text, 0.0
                yield f"data: {text}\n\n"
            elif silent >= LONGEST_SILENCE:
                silent = 0.0
                yield ": still here\n\n"
            await asyncio.sleep(self.seconds)
            silent += self.seconds


def file_of(root: Path, path: str) -> Path | None:
    """Return the file of a report that a path names: report.html of a study, or what lies in its report/; else None.

    Links are followed first, so nothing outside the folder is ever returned.
    """
    try:
        found = (root / path).resolve()
        if not found.is_relative_to(root.resolve()) or not found.is_file():
            return None
    except (OSError, ValueError):  # no name that a file could have
        return None
    study = found.parent if found.name == "report.html" else found.parent.parent
    is_part = found.name == "report.html" or (found.parent.name == "report" and found.suffix in WRITTEN)
    return found if is_part and (study / "study.json").exists() else None


def make(root: Path, token: str | None = None, hosts: tuple[str, ...] = (), seconds: float = SECONDS) -> Any:
    """Return the application.

    Args:
        root: a folder of studies, or a study's own.
        token: what every request has to bring, as ?token= or in the cookie that the first one gets; None for none.
        hosts: names by which it may be called; a page of another name that points here gets nothing. All, if empty.
        seconds: between two looks at the files.

    Raises:
        StudyError: starlette is not installed.
    """
    for name in ("applications", "middleware.trustedhost", "middleware", "responses", "routing"):
        package(f"starlette.{name}", "muonlab[serve]", "muonlab serve")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    feed = Feed(root, seconds)
    page = (HERE / "page.html").read_text(encoding="utf-8").replace("/* palette */", palette(""))
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

    def refused(request: Request) -> Response | None:
        given = request.query_params.get("token") or request.cookies.get(COOKIE) or ""
        if token is None or hmac.compare_digest(given.encode(), token.encode()):
            return None
        return PlainTextResponse("This page needs its token: open the address that muonlab serve printed.\n", 403)

    async def show(request: Request) -> Response:
        if no := refused(request):
            return no
        answer = HTMLResponse(page, headers=headers)
        if token is not None:
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer

    async def events(request: Request) -> Response:
        if no := refused(request):
            return no
        stream = feed.events(request.query_params.get("study"), request.is_disconnected)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def file(request: Request) -> Response:
        if no := refused(request):
            return no
        found = file_of(root, request.path_params["path"])
        if found is None:
            return PlainTextResponse("There is no report at this address.\n", 404)
        return FileResponse(found, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

    routes = [Route("/", show), Route("/events", events), Route("/files/{path:path}", file)]
    guard = [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))] if hosts else []
    return Starlette(routes=routes, middleware=guard)
