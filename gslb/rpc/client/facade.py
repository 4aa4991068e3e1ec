"""What the sync and the asyncio channel share: the service's core, its methods, and the face that both show."""

from collections.abc import Mapping
from typing import Final, Generic, Protocol, TypeVar

import grpc

from gslb.rpc.client.core import L, ServiceCore
from gslb.rpc.client.explain import explain
from gslb.rpc.client.methods import Deserializer, Method, Methods, Serializer

UU_co = TypeVar("UU_co", covariant=True)
US_co = TypeVar("US_co", covariant=True)
SU_co = TypeVar("SU_co", covariant=True)
SS_co = TypeVar("SS_co", covariant=True)
Made_co = TypeVar("Made_co", covariant=True)


class Routed(Generic[L]):
    """What the multi-callables of all four arities hold."""

    def __init__(self, core: ServiceCore[L], method: Method) -> None:
        self._core = core
        self._method = method


class Make(Protocol[L, Made_co]):
    """The class of one arity's multi-callables."""

    def __call__(self, core: ServiceCore[L], method: Method) -> Made_co: ...


class Facade(Generic[L, UU_co, US_co, SU_co, SS_co]):
    """The factories of multi-callables that generated stubs call, and what a channel tells about itself."""

    def __init__(
        self,
        core: ServiceCore[L],
        unary: tuple[Make[L, UU_co], Make[L, US_co]],
        streamed: tuple[Make[L, SU_co], Make[L, SS_co]],
    ) -> None:
        self._core = core
        self._methods = Methods()
        self._unary_unary, self._unary_stream = unary
        self._stream_unary, self._stream_stream = streamed

    @property
    def core(self) -> ServiceCore[L]:
        """Picks and counts, for tests, benchmarks and status pages."""
        return self._core

    def pick(self) -> L | None:
        """The task that a call would go to now; None: there is nobody. Sends and counts nothing."""
        return self._core.pick()

    def explain(self) -> dict[str, object]:
        """Where calls go and why: shares, tasks with their state, counts."""
        return explain(self._core)

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool = False,
    ) -> UU_co:
        found = self._methods.get("unary_unary", method, request_serializer, response_deserializer, _registered_method)
        return self._unary_unary(self._core, found)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool = False,
    ) -> US_co:
        found = self._methods.get("unary_stream", method, request_serializer, response_deserializer, _registered_method)
        return self._unary_stream(self._core, found)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool = False,
    ) -> SU_co:
        found = self._methods.get("stream_unary", method, request_serializer, response_deserializer, _registered_method)
        return self._stream_unary(self._core, found)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer | None = None,
        response_deserializer: Deserializer | None = None,
        _registered_method: bool = False,
    ) -> SS_co:
        found = self._methods.get(
            "stream_stream", method, request_serializer, response_deserializer, _registered_method
        )
        return self._stream_stream(self._core, found)


CallOptions = Mapping[str, object]
PLAIN: Final[CallOptions] = {}  # of a call that says nothing special


def call_options(
    credentials: grpc.CallCredentials | None, wait_for_ready: bool | None, compression: grpc.Compression | None
) -> CallOptions:
    """What of a call's arguments goes on to each attempt."""
    # Waiting until one task is ready would keep the call from going to another: it is for us to wait.
    del wait_for_ready
    return {"credentials": credentials, "compression": compression}
