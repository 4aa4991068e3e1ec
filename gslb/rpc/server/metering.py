"""Handlers within quotas: who asks for more than his share is refused, and what the others take is measured.

CPU time is that of the thread while the handler runs. A coroutine is measured step by step, from where the event loop
resumes it to where it waits again, so that others' steps in between are not its own. What a handler starts elsewhere
(tasks, threads, processes) is not seen, nor is what gRPC itself does for a request.
"""

import inspect
import time
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar, cast

import grpc

from gslb.rpc.server.caller import CalledContext, caller_of

if TYPE_CHECKING:  # it brings the connection to the control plane along
    from gslb.rpc.server.quotas import Passage, Quotas

T = TypeVar("T")
Charge = Callable[[float], None]
Step = Generator[object, object, T]


class Context(CalledContext, Protocol):
    """What is used of a servicer context, asyncio's and that of synchronous handlers."""

    # Asyncio's is a coroutine; the others are not, and raise.
    def abort(self, code: grpc.StatusCode, details: str) -> Awaitable[NoReturn]: ...


Coroutine = Callable[[object, Context], Awaitable[object]]
Responses = Callable[[object, Context], AsyncGenerator[object, None]]
Plain = Callable[[object, Context], object]
PlainStream = Callable[[object, Context], Generator[object, None, None]]
Behaviour = Callable[..., object]


def limited(quotas: "Quotas", behaviour: Behaviour, *, streaming: bool) -> Behaviour:
    """The same kind of function (gRPC looks at it to know how to run it), within quotas."""
    if inspect.isasyncgenfunction(behaviour):
        return _generator(quotas, cast(Responses, behaviour))
    if inspect.iscoroutinefunction(behaviour):
        return _coroutine(quotas, cast(Coroutine, behaviour))
    if streaming:
        return _plain_stream(quotas, cast(PlainStream, behaviour))
    return _plain(quotas, behaviour)


@types.coroutine
def metered(work: Awaitable[T], charge: Charge) -> Step[T]:
    """Awaits `work` and charges the CPU time of each of its steps."""
    steps = work.__await__()
    resume: Callable[[], object] = steps.__next__
    while True:
        began_s = time.thread_time()
        try:
            step = resume()
        except StopIteration as done:
            return cast(T, done.value)
        finally:
            charge(time.thread_time() - began_s)
        try:
            sent = yield step
        except GeneratorExit:
            _close(steps)
            raise
        except BaseException as error:  # noqa: BLE001  # a cancellation, too, is for the handler
            resume = _throwing(steps, error)
        else:
            resume = _sending(steps, sent)


def _sending(steps: object, value: object) -> Callable[[], object]:
    if value is None:
        return cast("Generator[object, object, object]", steps).__next__
    return lambda: cast("Generator[object, object, object]", steps).send(value)


def _throwing(steps: object, error: BaseException) -> Callable[[], object]:
    return lambda: cast("Generator[object, object, object]", steps).throw(error)


def _close(steps: object) -> None:
    cast("Generator[object, object, object]", steps).close()


async def _admitted(quotas: "Quotas", context: Context) -> "Passage":
    passage = quotas.enter(caller_of(context))
    if passage.refusal:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, passage.refusal)
    return passage


def _admitted_here(quotas: "Quotas", context: Context) -> "Passage":
    passage = quotas.enter(caller_of(context))
    if passage.refusal:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, passage.refusal)
    return passage


def _coroutine(quotas: "Quotas", inner: Coroutine) -> Coroutine:
    async def behaviour(request: object, context: Context) -> object:
        passage = await _admitted(quotas, context)
        with passage:
            return await metered(inner(request, context), passage.charge)

    return behaviour


def _generator(quotas: "Quotas", inner: Responses) -> Responses:
    async def behaviour(request: object, context: Context) -> AsyncGenerator[object, None]:
        passage = await _admitted(quotas, context)
        with passage:
            async with aclosing(inner(request, context)) as responses:
                while True:
                    try:
                        response = await metered(anext(responses), passage.charge)
                    except StopAsyncIteration:
                        return
                    yield response

    return behaviour


def _plain(quotas: "Quotas", inner: Plain) -> Plain:
    def behaviour(request: object, context: Context) -> object:
        passage = _admitted_here(quotas, context)
        with passage:
            began_s = time.thread_time()
            try:
                return inner(request, context)
            finally:
                passage.charge(time.thread_time() - began_s)

    return behaviour


def _plain_stream(quotas: "Quotas", inner: PlainStream) -> PlainStream:
    def behaviour(request: object, context: Context) -> Generator[object, None, None]:
        passage = _admitted_here(quotas, context)
        with passage, closing(inner(request, context)) as responses:
            while True:
                # Between two responses this thread may do something else.
                began_s = time.thread_time()
                try:
                    response = next(responses)
                except StopIteration:
                    return
                finally:
                    passage.charge(time.thread_time() - began_s)
                yield response

    return behaviour
