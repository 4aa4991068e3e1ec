"""A small MapReduce (Dean and Ghemawat, 2004) over local worker processes: map, shuffle into partitions, reduce.

Mappers write one file per partition, so that the shuffle is a rename-free hand-over through the disk and no process holds
all of the data; each reducer merges its partition from every mapper.
"""

import hashlib
import marshal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

Key = str
Value = tuple[int, ...]
Mapper = Callable[[int, Path], Iterable[tuple[Key, Value]]]
Reducer = Callable[[Key, list[Value]], bytes]


def partition_of(key: Key, partitions: int) -> int:
    """Which reducer gets `key`: the same in every process (unlike hash())."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % partitions


def map_reduce(
    inputs: list[Path], mapper: Mapper, reducer: Reducer, *, scratch: Path, workers: int
) -> Iterator[tuple[Key, bytes]]:
    """Yields (key, reduced value), by partition, sorted by key within it.

    `mapper(i, inputs[i])` yields (key, value); `reducer(key, values)` gets the values in the order of inputs and of
    emission. Both run in worker processes, so they must be importable functions. `scratch` is an empty directory.
    """
    partitions = workers
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn")) as pool:
        maps = [pool.submit(_map_one, i, path, mapper, scratch, partitions) for i, path in enumerate(inputs)]
        for done in maps:
            done.result()
        reduces = [pool.submit(_reduce_one, p, len(inputs), reducer, scratch) for p in range(partitions)]
        for reduced in reduces:
            yield from reduced.result()


def _spill(scratch: Path, number: int, partition: int) -> Path:
    return scratch / f"map-{number:05d}-{partition:05d}"


def _map_one(number: int, path: Path, mapper: Mapper, scratch: Path, partitions: int) -> None:
    shuffled: list[list[tuple[Key, Value]]] = [[] for _ in range(partitions)]
    for key, value in mapper(number, path):
        shuffled[partition_of(key, partitions)].append((key, value))
    for partition, pairs in enumerate(shuffled):
        _spill(scratch, number, partition).write_bytes(marshal.dumps(pairs))


def _reduce_one(partition: int, mappers: int, reducer: Reducer, scratch: Path) -> list[tuple[Key, bytes]]:
    groups: defaultdict[Key, list[Value]] = defaultdict(list)
    for number in range(mappers):
        # Written by _map_one a moment ago, in a directory of this run's own: not foreign data.
        for key, value in marshal.loads(_spill(scratch, number, partition).read_bytes()):  # noqa: S302
            groups[key].append(value)
    return [(key, reducer(key, groups[key])) for key in sorted(groups)]
