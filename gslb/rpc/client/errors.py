"""Errors that a call through our channels ends with before any server was reached."""

import traceback as tracebacks
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

import grpc
import grpc.aio
from typing_extensions import override

from gslb.model.errors import GslbError
from gslb.rpc.context import Metadata

if TYPE_CHECKING:  # generic in the stubs only
    FutureBase = grpc.Future[object]

    class CallBase(grpc.CallFuture[object], grpc.CallIterator[object]):
        """What gRPC's calls are: call, future and iterator in one."""

else:
    FutureBase = grpc.Future

    class CallBase(grpc.Call, grpc.Future):
        """What gRPC's calls are: call, future and iterator in one."""


class ConfigurationError(GslbError):
    """A channel cannot be made from what was given: the message says what is missing."""


class LocalRpcError(grpc.RpcError, grpc.Call, FutureBase):
    """A finished call with a status that we gave it ourselves; all that gRPC's own errors can be asked, it answers."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code = code
        self._details = details

    @override
    def code(self) -> grpc.StatusCode:
        return self._code

    @override
    def details(self) -> str:
        return self._details

    def debug_error_string(self) -> str:
        return f"{self._code.name}:{self._details}"

    @override
    def initial_metadata(self) -> Metadata:
        return ()

    @override
    def trailing_metadata(self) -> tuple[()]:
        return ()

    @override
    def is_active(self) -> bool:
        return False

    @override
    def time_remaining(self) -> float:
        return 0.0

    @override
    def cancel(self) -> bool:
        return False

    @override
    def add_callback(self, callback: Callable[[], None]) -> bool:
        """False, as for every call that has ended: the callback is not kept."""
        return False

    @override
    def cancelled(self) -> bool:
        return self._code is grpc.StatusCode.CANCELLED

    @override
    def running(self) -> bool:
        return False

    @override
    def done(self) -> bool:
        return True

    @override
    def result(self, timeout: float | None = None) -> NoReturn:
        raise self

    @override
    def exception(self, timeout: float | None = None) -> Exception:
        return self

    @override
    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        try:
            raise self
        except LocalRpcError as error:
            return error.__traceback__

    @override
    def add_done_callback(self, fn: Callable[[FutureBase], None]) -> None:
        fn(self)

    def __iter__(self) -> "LocalRpcError":
        return self

    def __next__(self) -> NoReturn:
        raise self

    @override
    def __str__(self) -> str:
        return (
            f"<{type(self).__name__} of RPC that terminated with: status = {self._code}, details = {self._details!r}>"
        )

    __repr__ = __str__


def describe(error: BaseException) -> str:
    """One line about an error, for logs and explanations."""
    return "".join(tracebacks.format_exception_only(error)).strip()[:300]


def aio_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    """The same for asyncio callers."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, f"{code.name}:{details}")
