"""What a gRPC stream sends, fed from other threads: a bounded queue that ends when it is closed."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Iterated by gRPC's sending thread. When full the oldest goes: the newest says most."""

    def __init__(self, most: int) -> None:
        self._items: deque[T] = deque(maxlen=most)
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> None:
        """Queues `item`; nothing happens when closed."""
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def close(self) -> None:
        """Ends the iteration after what is queued."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            if self._items:
                return self._items.popleft()
            raise StopIteration
