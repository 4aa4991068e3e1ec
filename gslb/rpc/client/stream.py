"""A bidirectional stream that is always wanted: dials, listens, and after a failure dials again, with back-off.

Both streams to the control plane (what is served, what was seen) live by this; they differ in what is sent and in
whether another replica will do.
"""

import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import grpc

from gslb.model import limits
from gslb.rpc.client.outbox import Outbox
from gslb.rpc.policy.backoff import backoff_s

log = logging.getLogger(__name__)

Sent = TypeVar("Sent")
Received = TypeVar("Received")
Heard_co = TypeVar("Heard_co", covariant=True)
Dial = Callable[[str], grpc.Channel]


class StreamCall(Protocol[Heard_co]):
    """What is used of a gRPC call with streamed responses."""

    def __iter__(self) -> Iterator[Heard_co]: ...
    def cancel(self) -> object: ...


class LastingStream(ABC, Generic[Sent, Received]):
    """One daemon thread that keeps one stream to one of `addresses`; `start` it, `close` it."""

    def __init__(self, name: str, addresses: Sequence[str], dial: Dial) -> None:
        self.address = ""  # of the replica that is listened to now; empty: none
        self.error = "not connected yet"
        self.received_s = 0.0  # monotonic; when the last message came
        self._addresses = list(addresses)
        self._dial = dial
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._outbox: Outbox[Sent] | None = None
        self._call: StreamCall[Received] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def open(self, channel: grpc.Channel, requests: Iterator[Sent]) -> StreamCall[Received]:
        """Starts the stream."""

    @abstractmethod
    def greeting(self) -> Sequence[Sent]:
        """What is sent first on each new stream."""

    @abstractmethod
    def on_message(self, message: Received) -> None:
        """Handles one message; must not raise."""

    def start(self) -> None:
        self._thread.start()

    def send(self, message: Sent) -> None:
        """Sends on the present stream; without one it is dropped, `greeting` says all that a new one needs."""
        with self._lock:
            outbox = self._outbox
        if outbox is not None:
            outbox.put(message)

    def leave(self, why: str) -> None:
        """Gives the present stream up; the next replica is tried."""
        with self._lock:
            call, address = self._call, self.address
        if call is not None:
            log.info("leaving control replica %s: %s", address, why)
            call.cancel()

    def close(self, grace_s: float = 0.0) -> None:
        """Ends the stream and the thread; waits at most 2 s, and before that `grace_s` for what is queued to be taken."""
        self._stop.set()
        with self._lock:
            call, outbox = self._call, self._outbox
        if outbox is not None:
            outbox.close()
        if grace_s:
            # The replica ends the stream once it has read what we sent.
            self._join(grace_s)
        if call is not None:
            call.cancel()
        self._join(2.0)

    def _join(self, timeout_s: float) -> None:
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        # Each client begins at another replica, so that they share the load.
        order = random.sample(self._addresses, len(self._addresses))
        failures, turn = 0, 0
        while not self._stop.is_set():
            address = order[turn % len(order)]
            before_s = self.received_s
            self._serve(address)
            if self._stop.is_set():
                return
            turn += 1
            failures = 1 if self.received_s > before_s else failures + 1
            if failures <= len(order):
                # Another replica may well be there: try all of them once before waiting in earnest.
                pause_s = limits.CONTROL_BACKOFF_MIN_S * random.random()
            else:
                pause_s = backoff_s(
                    failures - len(order), limits.CONTROL_BACKOFF_MIN_S, limits.CONTROL_BACKOFF_MAX_S, random.random()
                )
            self._stop.wait(pause_s)

    def _serve(self, address: str) -> None:
        """One stream, from dialling to its end."""
        outbox: Outbox[Sent] = Outbox(limits.REPORT_BACKLOG_MAX)
        with self._lock:
            # Before the greeting is made, so that what is sent meanwhile is in the one or the other.
            self._outbox = outbox
        for message in self.greeting():
            outbox.put(message)
        channel = self._dial(address)
        try:
            call = self.open(channel, outbox)
            with self._lock:
                self._call, self.address = call, address
            if self._stop.is_set():
                # `close` came before there was a call to cancel.
                call.cancel()
            self._listen(call, address)
        except grpc.RpcError as error:
            self._note(address, f"{error.code().name}: {error.details()}")
        except Exception as error:  # whatever a peer makes us do, the next attempt must come
            log.exception("control replica %s: the stream failed", address)
            self._note(address, str(error))
        else:
            self._note(address, "the replica ended the stream")
        finally:
            with self._lock:
                self._outbox, self._call, self.address = None, None, ""
            outbox.close()
            channel.close()

    def _listen(self, call: StreamCall[Received], address: str) -> None:
        for message in call:
            if self.error:
                log.info("listening to control replica %s", address)
                self.error = ""
            self.received_s = time.monotonic()
            self.on_message(message)

    def _note(self, address: str, error: str) -> None:
        if self._stop.is_set():
            return
        if not self.error or self.error == "not connected yet":
            log.warning("control replica %s: %s; trying again", address, error[:300])
        self.error = f"{address}: {error[:300]}"
