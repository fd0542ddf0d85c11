"""Serve the page of a run that goes on: what the run appends to its files arrives in the browser."""

import asyncio
import hmac
import json
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from vgr_rl.viewer.follower import Follower
from vgr_rl.viewer.page import render
from vgr_rl.viewer.pictures import Album
from vgr_rl.viewer.reports import live_report

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "VGR_REPORT_TOKEN"
_POLL_S = 1.0
_POLLING = web.AppKey("polling", asyncio.Task[None])
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(run_dir: Path, token: str, samples: int, longest_side: int) -> web.Application:
    """Return the server of one run directory: the page, its pictures, and a stream of what the run appends.

    Args:
        run_dir: the run directory; its files may come later.
        token: what a browser has to know.
        samples: how many of the newest rollouts are kept.
        longest_side: of pictures, pixels.
    """
    follower = Follower(run_dir, samples, Album(longest_side))
    reading = asyncio.Lock()  # a poll has a thread of its own
    started = secrets.token_hex(4)  # versions of another server mean nothing here

    async def page(request: web.Request) -> web.Response:
        return web.Response(
            text=render(live_report(run_dir, follower.config, follower.album, started)), content_type="text/html"
        )

    async def picture(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number >= len(follower.album):
            raise web.HTTPNotFound(text="there is no such picture")
        encoded = await asyncio.to_thread(follower.album.encode, number)
        if encoded.problem:
            raise web.HTTPNotFound(text=encoded.problem)
        return web.Response(body=encoded.encoded, content_type=encoded.kind)

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        server, _, version = request.headers.get("Last-Event-ID", "").partition(".")
        seen = int(version) if server == started and version.isdigit() else 0
        while True:  # until the browser goes, which cancels this
            async with reading:
                state = {"server": started, **follower.since(seen)}
                seen = follower.version
            await response.write(f"id: {started}.{seen}\nevent: state\ndata: {json.dumps(state)}\n\n".encode())
            while follower.version == seen:
                if request.app[_POLLING].done():
                    request.app[_POLLING].result()  # it only ends by failing: say why
                await asyncio.sleep(_POLL_S / 2)

    async def polling(app: web.Application) -> AsyncIterator[None]:
        async def poll() -> None:
            while True:
                async with reading:
                    while await asyncio.to_thread(follower.poll):
                        pass
                await asyncio.sleep(_POLL_S)

        app[_POLLING] = asyncio.create_task(poll())
        yield
        app[_POLLING].cancel()

    app = web.Application(middlewares=[_guard(token)])
    app.add_routes([web.get("/", page), web.get(r"/picture/{number:\d{1,9}}", picture), web.get("/events", events)])
    app.cleanup_ctx.append(polling)
    app.on_response_prepare.append(_headers)
    return app


def serve(run_dir: Path, host: str, port: int, samples: int, longest_side: int) -> None:
    """Serve the page until the process is interrupted; the address with its token is logged.

    Raises:
        ValueError: when the run directory does not exist or the address cannot be listened at.
    """
    if not run_dir.is_dir():
        raise ValueError(f"{run_dir} is not a directory; give the run_dir of `python -m vgr_rl.main`")
    if (run_dir / "grpo").is_dir():
        raise ValueError(f"{run_dir} is a folder of several runs; follow one of them, such as {run_dir / 'grpo'}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValueError(f"--host {host} --port {port} cannot be listened at: {error}; choose others") from error
    token = os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(16)
    shown_host = f"[{host}]" if family == socket.AF_INET6 else host
    log.info(
        "follow %s at http://%s:%d/?token=%s", run_dir, shown_host, listening.getsockname()[1], quote(token, safe="")
    )
    web.run_app(
        application(run_dir, token, samples, longest_side),
        sock=listening,
        print=None,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1.0,
    )


def _guard(token: str) -> Any:
    """Return a middleware that lets in who knows the token: from the address once, then from a cookie."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        cookie = f"vgr-report-{request.url.port}"
        given = request.query.get("token")
        if given is not None and _same(given, token):
            redirect = web.HTTPFound(request.path)  # keeps the token out of the address line
            redirect.set_cookie(cookie, token, httponly=True, samesite="Strict")
            raise redirect
        if not _same(request.cookies.get(cookie, ""), token):
            raise web.HTTPUnauthorized(text="open the address that the command printed: it ends with a token")
        return await handler(request)

    return guard


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


async def _headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(
        {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
    )
