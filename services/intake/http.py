"""HTTP requests to accepted records, and answers back to the callers who wait. Acknowledges nothing that is not in the log.

A request is refused before it is written, or it is written and then owes an answer: never half of each.
"""

import asyncio
import logging
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, replace
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from schemas.envelope import Envelope, Header
from schemas.messages import STATUS_OF, Failure, Reason, Request, Result
from schemas.topology import FEEDBACK, REQUESTS
from services.intake import decide
from services.intake.answers import NOT_AGAIN, chat_completion, error_object, error_of, headers_of, http_status
from services.intake.decide import BODY_BYTES_MAX, OPTIONS, Arrival, Submission
from services.intake.feedback import FIELDS, feedback_of, placed
from services.intake.idempotency import Claims, digest_of
from services.intake.keyring import Keyring
from services.intake.lag import Lags
from services.intake.models import models_of
from services.intake.replies import Replies
from shared import trace
from shared.broker import Headers, Output
from shared.catalogue import Catalogue
from shared.clock import Clock
from shared.codec import encode, headers_for
from shared.errors import BrokerUnavailableError, RecordTooLargeError
from shared.recent import Recent

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 30.0
WAIT_S_MAX = 120
KEEPALIVE_S = 60.0            # also the longest that headers may take
SHUTDOWN_S = 10.0
ANSWER_GRACE_S = 2.0          # the pipeline's own `expired` comes a little after the deadline
RETRY_AFTER_S = 2
WAITING_MAX = 10_000          # callers that hold a socket open
WRITTEN_MAX = 100_000         # ids of keyed requests that this replica remembers having written: half of them always, 2 MB

_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})")


class RefusedError(Exception):
    """Ends an HTTP request with an error object."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.response = _json(status, error_object(status, code, message, param), headers)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that may be written. `is_keyed`: it has an idempotency key, so others may be the same request."""

    envelope: Envelope[Request]
    trace: Headers
    is_keyed: bool


class HttpSource:
    """The HTTP interface of one replica. `write` returns when a record is acknowledged."""

    def __init__(
        self,
        write: Callable[[Output], Awaitable[None]],
        clock: Clock,
        catalogue: Callable[[], Catalogue],
        keyring: Keyring,
        claims: Claims,
        replies: Replies,
        lags: Lags,
        reply_partition: int,
    ) -> None:
        self._write = write
        self._clock = clock
        self._catalogue = catalogue
        self._keyring = keyring
        self._claims = claims
        self._replies = replies
        self._lags = lags
        self._reply = str(reply_partition)
        self._being_written: dict[str, asyncio.Task[None]] = {}
        self._written = Recent()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[errors_as_json])
        app.add_routes([
            web.post("/v1/requests", self.post_request),
            web.get("/v1/requests/{id}", self.get_request),
            web.post("/v1/chat/completions", self.post_chat),
            web.get("/v1/models", self.get_models),
            web.post("/v1/feedback", self.post_feedback),
        ])
        return app

    def runner(self) -> web.AppRunner:
        """What serves the app; it logs what is wrong here, not what callers send."""
        server_log = logging.getLogger(f"{__name__}.server")
        server_log.addFilter(_is_not_from_the_wire)
        return web.AppRunner(
            self.app(), access_log=None, logger=server_log, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=SHUTDOWN_S
        )

    # Routes ----------------------------------------------------------------------------------------------------------

    async def post_request(self, request: web.Request) -> web.Response:
        """202 once the request is in the log; with `wait`, its result in place when that comes in time."""
        tenant = self._tenant(request)
        wait_s = _wait_s(request)
        accepted = await self._accept(request, tenant, await self._submission(request, tenant))
        result = await self._answer(accepted, wait_s)
        if result is None:
            id = accepted.envelope.request_id
            return _json(202, {"id": id, "status_url": f"/v1/requests/{id}"}, {"x-baton-request-id": id})
        return _result(http_status(result.status, result.reason), result)

    async def get_request(self, request: web.Request) -> web.Response:
        """The result if it came back to this replica lately. Another tenant's is as unknown as one that never was."""
        tenant = self._tenant(request)
        result = self._replies.recent(request.match_info["id"])
        if result is None or result.tenant != tenant:
            raise RefusedError(
                404,
                "not_found",
                "no answer to this request has come back to this replica lately: ask again if it may still be running; "
                "every answer, whenever and wherever it was given, is on the topic `results`",
            )
        return _result(200, result)

    async def post_chat(self, request: web.Request) -> web.Response:
        """OpenAI's chat completions: waits for the answer until the request's deadline."""
        tenant = self._tenant(request)
        submission = await self._submission(request, tenant)
        if submission.body.get("stream"):
            raise RefusedError(
                400, "stream_not_supported", "stream: not supported yet; send false or leave it out", "stream"
            )
        accepted = await self._accept(request, tenant, submission)
        left_s = (accepted.envelope.deadline_ms - self._clock.now_ms()) / 1000
        result = await self._answer(accepted, max(left_s, 0) + ANSWER_GRACE_S)
        if result is None:
            raise _unanswered(accepted.envelope.request_id)
        headers = headers_of(result)
        if result.answer is None or http_status(result.status, result.reason) != 200:
            status, body = error_of(result)
            return _json(status, body, headers)
        return _json(200, chat_completion(result, result.answer), headers)

    async def get_models(self, request: web.Request) -> web.Response:
        """OpenAI's list of models: what the tenant may name."""
        tenant = self._tenant(request)
        return _json(200, models_of(self._catalogue(), tenant))

    async def post_feedback(self, request: web.Request) -> web.Response:
        """202 once it is in the log. Whether there is such a request of the tenant is settled by whoever learns from it."""
        said = feedback_of(await _body(request), self._tenant(request), self._clock.now_ms())
        if isinstance(said, Failure):
            raise _refused(said, FIELDS)
        said = placed(said, self._replies.recent(said.request_id))
        headers = headers_for(FEEDBACK, decide.STAGE, None)
        await self._write(Output(FEEDBACK.name, said.request_id.encode(), encode(FEEDBACK, said), headers))
        return _json(202, {"request_id": said.request_id})

    # Accepting -------------------------------------------------------------------------------------------------------

    def _tenant(self, request: web.Request) -> str:
        if not self._catalogue().version:
            raise _unavailable("no config has been applied yet; run `baton apply`")
        tenant = self._keyring.tenant_of(_only(request, "Authorization"))
        if tenant is None:
            raise RefusedError(
                401,
                "invalid_api_key",
                "no valid API key; send `Authorization: Bearer` with a key of a tenant in the config",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return tenant

    async def _submission(self, request: web.Request, tenant: str) -> Submission:
        """What was sent, all of it right; raises RefusedError otherwise."""
        submission = decide.read(await _body(request))
        if submission.failure is not None:
            raise _refused(submission.failure)
        named = submission.options.get("tenant", tenant)
        if named != tenant:
            raise RefusedError(400, "invalid_request", "tenant: is not the tenant of the API key; leave it out", "tenant")
        return _with_key(submission, _only(request, "Idempotency-Key"))

    async def _accept(self, request: web.Request, tenant: str, submission: Submission) -> Accepted:
        """Settle which request this is: a new one, or the one that its key already stands for."""
        if self._replies.waiting >= WAITING_MAX:
            raise _unavailable("too many callers are waiting")
        arrival = Arrival("http", secrets.token_hex(16), self._clock.now_ms(), self._reply)
        key = submission.idempotency_key
        envelope = decide.accept(submission, tenant, self._catalogue(), arrival)
        if key is None or not self._claims.holds(digest_of(tenant, key)):
            self._admit(envelope)
        if key is not None:
            proposal = decide.claim_of(tenant, key, submission.fingerprint, arrival.accepted_ms)
            winner = await self._claims.claim(digest_of(tenant, key), proposal)
            settled = decide.under(winner, arrival, submission.fingerprint)
            if isinstance(settled, Failure):
                raise RefusedError(422, "idempotency_key_reused", settled.message, "idempotency_key")
            envelope = decide.accept(submission, tenant, self._catalogue(), settled)
        headers = trace.taken_on(
            request.headers.get(Header.TRACEPARENT),
            request.headers.get(Header.TRACESTATE),
            secrets.token_bytes(trace.RANDOM_BYTES),
        )
        return Accepted(envelope, headers, is_keyed=key is not None)

    def _admit(self, envelope: Envelope[Request]) -> None:
        """Raises RefusedError for a new request that would only expire on its way: before it claims a key or is written."""
        late = decide.late(envelope, self._lags.wait_s(envelope.lane), self._clock.now_ms())
        if late is not None and late.reason is Reason.NO_TIME_LEFT:
            raise _unavailable(late.message)
        self._lags.joined(envelope.lane)

    async def _answer(self, accepted: Accepted, wait_s: float) -> Result | None:
        """Write the request unless it was, and wait for its result; None when that takes longer."""
        with self._replies.expecting(accepted.envelope.request_id) as answer:
            if not answer.done():
                await self._enter(accepted)
            if wait_s > 0:
                await asyncio.wait({answer}, timeout=wait_s)
            return answer.result() if answer.done() and wait_s > 0 else None

    async def _enter(self, accepted: Accepted) -> None:
        """Into the log. A keyed request goes in once per replica, however many callers send it; the pipeline drops repeats."""
        if not accepted.is_keyed:
            await self._put(accepted)
            return
        id = accepted.envelope.request_id
        if id in self._written:
            return
        task = self._being_written.get(id)
        if task is None:
            # A task of its own: the caller who came first may hang up while others wait for the same request.
            task = self._being_written[id] = asyncio.create_task(self._put(accepted))
            task.add_done_callback(lambda done: self._is_put(id, done))
        await asyncio.shield(task)

    async def _put(self, accepted: Accepted) -> None:
        envelope = accepted.envelope
        headers = headers_for(REQUESTS, decide.STAGE, envelope, accepted.trace)
        await self._write(Output(REQUESTS.name, envelope.key.encode(), encode(REQUESTS, envelope), headers))

    def _is_put(self, id: str, task: "asyncio.Task[None]") -> None:
        """What did not get into the log must be tried again by the next caller."""
        del self._being_written[id]
        if not task.cancelled() and task.exception() is None:
            self._written.add(id, 0, WRITTEN_MAX)


def _is_not_from_the_wire(record: logging.LogRecord) -> bool:
    """Errors of the protocol quote what was sent, which may be a key or a prompt; their sender is told, nobody else."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


# Reading a request --------------------------------------------------------------------------------------------------


async def _body(request: web.Request) -> bytes:
    """The body, never more than the limit of it. A length that is announced is believed before anything is read."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise RefusedError(408, "timeout", f"the body took longer than {BODY_TIMEOUT_S:g} s") from None
    except (web.RequestPayloadError, ConnectionError):
        raise RefusedError(400, "invalid_request", "the body could not be read: its encoding or length is wrong") from None


def _only(request: web.Request, name: str) -> str | None:
    """A header that may stand once: with two of them another server on the way might have believed the other one."""
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise RefusedError(400, "invalid_request", f"{name}: stands {len(values)} times; send it once", name)
    return values[0] if values else None


def _with_key(submission: Submission, header: str | None) -> Submission:
    """The header is the same as the field `idempotency_key`; both at once must agree."""
    if header is None:
        return submission
    problem = OPTIONS["idempotency_key"](header)
    if problem is None and not (header.isascii() and header.isprintable()):
        problem = "must be printable ASCII"
    if problem is None and submission.idempotency_key not in (None, header):
        problem = "differs from the field idempotency_key; send one of them"
    if problem is not None:
        raise RefusedError(400, "invalid_request", f"Idempotency-Key: {problem}", "Idempotency-Key")
    return replace(submission, options=submission.options | {"idempotency_key": header})


def _wait_s(request: web.Request) -> float:
    """Seconds the caller is ready to wait: `?wait=`, which must be right, else `Prefer: wait=`, which is only a wish."""
    asked = request.query.get("wait")
    if asked is None:
        wish = _PREFER_WAIT.search(request.headers.get("Prefer", ""))
        return min(int(wish[1]), WAIT_S_MAX) if wish else 0
    try:
        wait_s = float(asked)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s <= WAIT_S_MAX:
        raise RefusedError(400, "invalid_request", f"wait: must be seconds from 0 to {WAIT_S_MAX}", "wait")
    return wait_s


# Answering ----------------------------------------------------------------------------------------------------------


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)


def _result(status: int, result: Result) -> web.Response:
    body = result.model_dump_json().encode()
    return web.Response(body=body, status=status, content_type="application/json", headers=headers_of(result))


def _refused(failure: Failure, fields: Container[str] = OPTIONS) -> RefusedError:
    field = failure.message.partition(":")[0]
    status = http_status(STATUS_OF[failure.reason], failure.reason)
    return RefusedError(status, failure.reason.value, failure.message, field if field in fields else None)


def _too_large() -> RefusedError:
    return RefusedError(413, "too_large", f"the request is too large; send at most {BODY_BYTES_MAX} bytes")


def _unavailable(message: str) -> RefusedError:
    return RefusedError(503, "unavailable", message, headers={"Retry-After": str(RETRY_AFTER_S)})


def _unanswered(request_id: str) -> RefusedError:
    return RefusedError(
        504,
        "no_answer_yet",
        f"request {request_id} is accepted, but its answer has not come back to this replica before its deadline; "
        "it is, or will be, on the topic `results`",
        headers={"x-baton-request-id": request_id, **NOT_AGAIN},
    )


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every expected error as an error object; what is not expected stays a 500 of the server, and is logged by it."""
    try:
        return await handler(request)
    except RefusedError as error:
        return error.response
    except BrokerUnavailableError as error:
        log.warning("could not accept a request", extra={"error": str(error)})
        message = "the log cannot be reached; retry with the same Idempotency-Key, so that it counts once"
        return _unavailable(message).response
    except (web.HTTPRequestEntityTooLarge, RecordTooLargeError):
        return _too_large().response
    except web.HTTPException as error:
        code = "not_found" if error.status == 404 else "invalid_request"
        message = f"{error.reason}: {request.method} {request.path[:200]}"
        kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return _json(error.status, error_object(error.status, code, message), kept)
