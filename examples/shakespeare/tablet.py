"""The tablet server: rows by key out of one SQLite file, the Bigtable of this example."""

import sqlite3
import time
from pathlib import Path

import click
import grpc
import grpc.aio
from typing_extensions import override

from examples.shakespeare import words
from examples.shakespeare.serving import Instruments, Options, caller_of, run, serve_grpc, server_options_of
from examples.shakespeare.v1 import shakespeare_pb2 as pb
from examples.shakespeare.v1 import shakespeare_pb2_grpc as rpc

KEYS_MAX = 500


class Rows:
    """An immutable table of rows. Raises click.ClickException when the file is none."""

    def __init__(self, path: Path) -> None:
        try:
            self._database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
            works = self.read([words.WORKS_KEY])
        except sqlite3.Error as error:
            raise click.ClickException(
                f"--index {path}: {error}; is it what `examples.shakespeare.index` wrote?"
            ) from error
        if not works:
            raise click.ClickException(f"--index {path} has no list of works: build it anew")

    def read(self, keys: list[str]) -> list[tuple[str, bytes]]:
        """The rows that exist, in the order asked."""
        query = "SELECT value FROM cell WHERE key = ?"
        found = ((key, self._database.execute(query, (key,)).fetchone()) for key in keys)
        return [(key, row[0]) for key, row in found if row is not None]


class Tablet(rpc.TabletServicer):
    """Serves rows."""

    def __init__(self, rows: Rows, instruments: Instruments) -> None:
        self._rows = rows
        self._instruments = instruments

    @override
    async def ReadRows(
        self, request: pb.ReadRowsRequest, context: "grpc.aio.ServicerContext[pb.ReadRowsRequest, pb.ReadRowsResponse]"
    ) -> pb.ReadRowsResponse:
        began_s = time.monotonic()
        if len(request.keys) > KEYS_MAX:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"{len(request.keys)} keys in one request: at most {KEYS_MAX}"
            )
        rows = self._rows.read(list(request.keys))
        self._instruments.done(f"ReadRows keys={len(request.keys)}", caller_of(context), began_s)
        return pb.ReadRowsResponse(rows=[pb.Row(key=key, value=value) for key, value in rows])


@click.command()
@click.option(
    "--index", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="SQLite file."
)
@server_options_of
def main(options: Options, index: Path) -> None:
    """Serve the rows of a datacenter's index."""
    instruments = Instruments(options)
    tablet = Tablet(Rows(index), instruments)
    run(serve_grpc(instruments, lambda server: rpc.add_TabletServicer_to_server(tablet, server)))


if __name__ == "__main__":
    main()
