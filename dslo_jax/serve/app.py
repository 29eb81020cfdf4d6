"""The addresses of the page.

=======================================  ============================================
address                                  answer
=======================================  ============================================
``GET /``, ``GET /r/RESULT``             the page
``GET /page/FILE``                       its style, scripts and icon
``GET /api/about``                       networks, modes, options, scenes, limits
``GET /api/state``                       what is compiled in the background
``GET /api/scenes/SEED``                 a small picture of a drawn scene
``POST /api/scenes/SEED``                draws a scene and keeps it as a photo
``POST /api/photos``                     keeps the image file in the body as a photo
``GET /api/photos/PHOTO``                the photo, as large as the page shows it
``POST /api/segment``                    events, one JSON object on each line
``POST /api/click``                      the same: what belongs to a point
``GET /api/results/RESULT``              facts of a result
``GET /api/results/RESULT/labels``       labels of the view
``GET /api/results/RESULT/maps``         maps of all classes
``GET /api/results/RESULT/photo``        the photo, as large as the page shows it
``GET /api/results/RESULT/files``        all files of the result in one zip
=======================================  ============================================
"""

import asyncio
import json
import logging
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dslo_jax.errors import DsloError, RequestError
from dslo_jax.serve import views
from dslo_jax.serve.bodies import Bodies, ClientLeft
from dslo_jax.serve.guard import App, Guard
from dslo_jax.serve.limits import Limits
from dslo_jax.serve.line import (
    Busy,
    Done,
    Event,
    Failed,
    Line,
    Running,
    Task,
    Waiting,
    Work,
    bug,
)
from dslo_jax.serve.secrecy import redacted
from dslo_jax.serve.studio import Studio
from dslo_jax.serve.wishes import check_click, check_wish, gone


_LOG = logging.getLogger(__name__)
_STATUS = {
    **{"V01": 403, "V02": 400, "V03": 413, "V04": 408, "V05": 503, "V06": 410},
    **{"V07": 404, "V08": 500, "I04": 413},
}
_STATUS_OF_ROOM = {"O": 400, "C": 400, "I": 400, "S": 422, "D": 503, "W": 500}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_KINDS |= {"svg": "image/svg+xml"}
_SEED = re.compile("[0-9]{1,4}")
_GZIP = {"content-encoding": "gzip"}
Answer = Callable[[Request], Awaitable[Response]]


class Page:
    """The page and what it needs: a studio, and the lines before it.

    Args:
        studio: Photos and results.
        limits: Limits of requests.
    """

    def __init__(self, studio: Studio, limits: Limits):
        self.studio, self.limits = studio, limits
        self.solving = Line("dslo-solve", limits.waiting)
        self.files = Line("dslo-files", 2 * limits.waiting)
        self.bodies = Bodies(limits.bodies_bytes, limits.body_seconds)
        self._assets = _read_assets()
        self._about = json.dumps(studio.about()).encode()

    def app(self, names: Collection[str], *, any_address: bool = False) -> App:
        """The application.

        Args:
            names: As for ``Guard``.
            any_address: As for ``Guard``.
        """
        result = "/api/results/{name}"
        routes = [
            ("GET", "/", self._page),
            ("GET", "/r/{name}", self._page),
            ("GET", "/page/{name}", self._asset),
            ("GET", "/api/about", self._tell_about),
            ("GET", "/api/state", self._state),
            ("GET", "/api/scenes/{seed}", self._scene_picture),
            ("POST", "/api/scenes/{seed}", self._scene),
            ("POST", "/api/photos", self._photo),
            ("GET", "/api/photos/{name}", self._photo_picture),
            ("POST", "/api/segment", self._segment),
            ("POST", "/api/click", self._click),
            ("GET", result, self._result),
            ("GET", f"{result}/labels", self._labels),
            ("GET", f"{result}/maps", self._maps),
            ("GET", f"{result}/photo", self._result_picture),
            ("GET", f"{result}/files", self._archive),
        ]
        app = Starlette(
            routes=[
                Route(path, _answered(answer), methods=[method])
                for method, path, answer in routes
            ],
            exception_handlers={404: _not_found, 405: _not_found, 500: _fault},
        )
        app.router.redirect_slashes = False
        return Guard(app, names, any_address=any_address, refuse=error_response)

    def warm_up(self) -> None:
        """Compile what the first requests need, while nobody waits."""
        for _, work in self.studio.warm_up():
            self.solving.when_idle(work)

    def close(self) -> None:
        """End the threads."""
        for line in (self.solving, self.files):
            line.close()

    async def _page(self, request: Request) -> Response:
        del request
        return _file(self._assets["index.html"], "html")

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._assets:
            raise _no_such_address()
        return _file(self._assets[name], name.rpartition(".")[2])

    async def _tell_about(self, request: Request) -> Response:
        del request
        return Response(self._about, media_type="application/json")

    async def _state(self, request: Request) -> Response:
        del request
        warming = self.studio.warming
        ready = not warming and not self.solving.num_spare
        return _json({"warming": warming, "ready": ready})

    async def _scene_picture(self, request: Request) -> Response:
        seed = _seed_of(request)
        for each in self.studio.scenes:
            if each["seed"] == seed:
                return Response(each["jpeg"], media_type="image/jpeg")
        raise _no_such_address()

    async def _scene(self, request: Request) -> Response:
        seed = _seed_of(request)
        await self.bodies.read(request.scope, request.receive, 0)
        return _json(await _done(self.files, lambda _: self.studio.add_scene(seed)))

    async def _photo(self, request: Request) -> Response:
        content = await self.bodies.read(
            request.scope, request.receive, self.limits.photo_bytes
        )
        return _json(await _done(self.files, lambda _: self.studio.add_photo(content)))

    async def _photo_picture(self, request: Request) -> Response:
        name = request.path_params["name"]

        def draw(_: object) -> bytes:
            return views.picture(self.studio.photo(name), self.limits)

        return Response(await _done(self.files, draw), media_type="image/jpeg")

    async def _segment(self, request: Request) -> Response:
        asked = await self.bodies.read_json(
            request.scope, request.receive, self.limits.json_bytes
        )
        wish = check_wish(asked, self.studio.segmenter.config, self.limits)
        if not self.studio.knows(wish.photo):
            raise gone(self.limits)
        return self._told(partial(self.studio.segment, wish))

    async def _click(self, request: Request) -> Response:
        asked = await self.bodies.read_json(
            request.scope, request.receive, self.limits.json_bytes
        )
        click = check_click(asked, self.studio.segmenter.config)
        if not self.studio.knows(click.photo):
            raise gone(self.limits)
        return self._told(partial(self.studio.click, click))

    def _told(self, work: Work) -> Response:
        """The response that tells the events of a task that computes."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        task = _join(self.solving, work, events)
        return StreamingResponse(
            _lines(self.solving, task, events), media_type="application/x-ndjson"
        )

    async def _result(self, request: Request) -> Response:
        return _json(self.studio.summary(request.path_params["name"]))

    async def _labels(self, request: Request) -> Response:
        result = self.studio.result(request.path_params["name"])
        content = await _done(self.files, lambda _: views.labels(result, self.limits))
        return Response(content, headers=_GZIP, media_type="application/octet-stream")

    async def _maps(self, request: Request) -> Response:
        result = self.studio.result(request.path_params["name"])
        content = await _done(self.files, lambda _: views.maps(result))
        return Response(content, headers=_GZIP, media_type="application/octet-stream")

    async def _result_picture(self, request: Request) -> Response:
        photo = self.studio.result(request.path_params["name"]).segmentation.photo
        content = await _done(self.files, lambda _: views.picture(photo, self.limits))
        return Response(content, media_type="image/jpeg")

    async def _archive(self, request: Request) -> Response:
        result = self.studio.result(request.path_params["name"])
        content = await _done(self.files, lambda _: views.archive(result))
        attached = {"content-disposition": 'attachment; filename="dslo-result.zip"'}
        return Response(content, headers=attached, media_type="application/zip")


def error_response(error: DsloError) -> Response:
    """The response that tells of an error, as JSON with its code and message."""
    status = _STATUS.get(error.code, _STATUS_OF_ROOM.get(error.code[:1], 400))
    headers = {"connection": "close"} if status in (403, 408, 413) else {}
    if isinstance(error, Busy):
        headers["retry-after"] = str(error.seconds)
    return _json({"error": _facts(error)}, status, headers)


def _answered(answer: Answer) -> Answer:
    """The same, with a response for each error."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except DsloError as error:
            return error_response(error)
        except ClientLeft:
            return Response(status_code=400)

    return answered


def _join(line: Line, work: Work, events: "asyncio.Queue[Event]") -> Task:
    """Put a task into a line; its events come to a queue of this event loop."""
    loop = asyncio.get_running_loop()

    def tell(event: Event) -> None:
        with suppress(RuntimeError):  # the loop has ended, so nobody listens
            loop.call_soon_threadsafe(events.put_nowait, event)

    return line.join(work, tell)


async def _done(line: Line, work: Work) -> Any:
    """The result of a task, once it has been done.

    Raises:
        DsloError: It has none.
    """
    events: asyncio.Queue[Event] = asyncio.Queue()
    task = _join(line, work, events)
    try:
        while True:
            event = await events.get()
            if isinstance(event, Done):
                return event.result
            if isinstance(event, Failed):
                raise event.error
    finally:
        line.cancel(task)


async def _lines(
    line: Line, task: Task, events: "asyncio.Queue[Event]"
) -> AsyncIterator[bytes]:
    """The events of a task, one JSON object on each line.

    When the client leaves, the response is closed, and so the task is cancelled.
    """
    try:
        while True:
            event = await events.get()
            yield json.dumps(_told(event)).encode() + b"\n"
            if isinstance(event, Done | Failed):
                return
    finally:
        line.cancel(task)


def _told(event: Event) -> dict[str, Any]:
    if isinstance(event, Waiting):
        return {"waiting": event.before}
    if isinstance(event, Running):
        return {"stage": event.stage, "compiles": event.compiles}
    if isinstance(event, Done):
        return {"result": event.result}
    return {"error": _facts(event.error)}


def _facts(error: DsloError) -> dict[str, str]:
    message = redacted(str(error)).removeprefix(f"[{error.code}] ")
    return {"code": error.code, "message": message}


def _json(
    value: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    content = json.dumps(value, allow_nan=False).encode()
    return Response(content, status, headers, "application/json")


def _file(content: bytes, ending: str) -> Response:
    return Response(content, media_type=_KINDS[ending])


def _read_assets() -> dict[str, bytes]:
    """The files of the page by name; no other file is ever served."""
    folder = resources.files("dslo_jax.serve") / "page"
    return {
        each.name: each.read_bytes()
        for each in folder.iterdir()
        if each.name.rpartition(".")[2] in _KINDS
    }


def _seed_of(request: Request) -> int:
    """The seed of a drawn scene; a number of thousands of digits is none."""
    seed = request.path_params["seed"]
    if not _SEED.fullmatch(seed):
        raise _no_such_address()
    return int(seed)


def _no_such_address() -> RequestError:
    return RequestError("V07", "there is no such address here; begin at /")


async def _not_found(request: Request, error: Exception) -> Response:
    del request, error
    return error_response(_no_such_address())


async def _fault(request: Request, error: Exception) -> Response:
    del request
    _LOG.error("%s", redacted("".join(traceback.format_exception(error))))
    return error_response(bug())
