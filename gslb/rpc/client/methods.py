"""Methods of stubs as cheap keys, so that each connection makes its own multi-callable of each only once."""

from collections.abc import Callable
from dataclasses import dataclass

Serializer = Callable[[object], bytes]
Deserializer = Callable[[bytes], object]

# A program that makes serializers on the fly must not fill the memory; its methods just are not shared then.
_SHARED_MAX = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One method of a stub; compared by identity."""

    kind: str  # unary_unary, unary_stream, stream_unary, stream_stream
    name: str
    serializer: Serializer | None
    deserializer: Deserializer | None
    registered: bool

    def on(self, channel: object) -> object:
        """gRPC's multi-callable for this method on a channel to one task, sync or asyncio."""
        make: Callable[..., object] = getattr(channel, self.kind)
        return make(
            self.name,
            request_serializer=self.serializer,
            response_deserializer=self.deserializer,
            _registered_method=self.registered,
        )


class Methods:
    """The methods asked of one channel: the same arguments give the same object."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Method] = {}

    def get(
        self, kind: str, name: str, serializer: Serializer | None, deserializer: Deserializer | None, registered: bool
    ) -> Method:
        """The key of this method."""
        key = (kind, name, serializer, deserializer, registered)
        found = self._found.get(key)
        if found is None:
            found = Method(kind, name, serializer, deserializer, registered)
            if len(self._found) < _SHARED_MAX:
                self._found[key] = found
        return found
