"""Load processes: a command a line on stdin, an answer a line on stdout, both JSON.

The load must not share an event loop (nor an interpreter lock) with what measures it. A load process ends when its
stdin does, so none outlives the benchmark, whatever happens to it.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping

Json = dict[str, object]
Command = Callable[[Json], Awaitable[Json]]

log = logging.getLogger(__name__)

LINE_MAX_BYTES = 64 << 20


async def serve(commands: Mapping[str, Command]) -> None:
    """Carries out commands `{"do": NAME, ...}` one after the other, until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_MAX_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        try:
            answer = await commands[request.pop("do")](request)
        except Exception as error:  # the benchmark says it, and goes on with the next one
            log.exception("cannot carry out %s", line.decode(errors="replace")[:300])
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def run(commands: Mapping[str, Command]) -> None:
    """The process's main: `commands` may hold state between them."""
    asyncio.run(serve(commands))
