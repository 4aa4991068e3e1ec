"""The ring on disk: its bounds, what a killed writer leaves, what a later version wrote, disks that fail."""

import os
import time
import zlib
from pathlib import Path

import pytest

from gslb.control.recorder import Recorder
from gslb.recorder.errors import RecordingError
from gslb.recorder.ring import Bounds, Ring, read_piece, segments
from gslb.recorder.segment import KEY, Reader, Writer, head_bytes, head_of
from tests.support.recording import steps

T0 = 1_800_000_000.0


@pytest.fixture(name="ring_of")
def _ring_of():
    """Makes rings that are closed in the end."""
    made = []

    def make(*arguments):
        made.append(Ring(*arguments))
        return made[-1]

    yield make
    for ring in made:
        ring.close()


def incompressible(size):
    return os.urandom(size)


def fill(ring, count, size, every_s=5.0, start_s=T0):
    for number in range(count):
        at_s = start_s + number * every_s
        ring.append(number, at_s, incompressible(size), key=ring.wants_key(at_s))


def on_disk(directory):
    return sum(path.stat().st_size for path in directory.glob("*.rec"))


def test_it_stays_within_its_bytes_and_loses_the_oldest(tmp_path, ring_of):
    ring = ring_of(tmp_path, Bounds(max_bytes=400_000), {"replica": "a"})
    most = 0
    for number in range(200):
        at_s = T0 + 5 * number
        ring.append(number, at_s, incompressible(10_000), key=ring.wants_key(at_s))
        most = max(most, on_disk(tmp_path))
        assert ring.size == on_disk(tmp_path)
    assert 300_000 < most <= 400_000
    found = segments(tmp_path)
    assert found[-1].to_s == T0 + 5 * 199
    assert found[0].from_s > T0
    assert [one.replica for one in found] == ["a"] * len(found)


def test_it_stays_within_its_age(tmp_path, ring_of):
    ring = ring_of(tmp_path, Bounds(max_age_s=60.0, segment_s=20.0), {})
    fill(ring, 100, 100)
    found = segments(tmp_path)
    assert found[-1].to_s == T0 + 495
    assert T0 + 495 - 60 - 40 <= found[0].to_s <= T0 + 495
    assert len(found) <= 6


def test_files_that_a_former_process_left_count_and_go_too(tmp_path, ring_of):
    first = ring_of(tmp_path, Bounds(max_bytes=200_000), {})
    fill(first, 30, 5_000)
    first.close()
    left = {one.name for one in segments(tmp_path)}
    second = ring_of(tmp_path, Bounds(max_bytes=200_000), {})
    fill(second, 30, 5_000, start_s=T0 + 1000)
    assert second.size == on_disk(tmp_path) <= 200_000
    assert not left <= {one.name for one in segments(tmp_path)}


def test_a_step_larger_than_the_ring_is_refused_and_the_next_goes_on(tmp_path, ring_of):
    ring = ring_of(tmp_path, Bounds(max_bytes=50_000), {})
    with pytest.raises(RecordingError, match="--recorder-mb"):
        ring.append(1, T0, incompressible(60_000), key=True)
    assert ring.wants_key(T0 + 5)
    ring.append(2, T0 + 5, incompressible(100), key=True)
    assert segments(tmp_path)[-1].steps == 1


def test_one_process_a_directory(tmp_path, ring_of):
    ring = ring_of(tmp_path, Bounds(), {})
    ring.append(1, T0, b"x", key=True)
    other = ring_of(tmp_path, Bounds(), {})
    with pytest.raises(OSError, match="another process"):
        other.append(1, T0, b"x", key=True)
    ring.close()
    other.append(1, T0 + 1, b"x", key=True)


def test_a_torn_last_record_is_left_out(tmp_path, ring_of):
    ring = ring_of(tmp_path, Bounds(), {})
    fill(ring, 5, 1000)
    path = next(tmp_path.glob("*.rec"))
    whole = path.read_bytes()
    sizes = {}
    _, head = head_of(whole)
    for cut in range(head, len(whole)):
        reader = Reader(whole[:cut])
        count = len(list(reader.records()))
        sizes.setdefault(count, []).append(bool(reader.notes))
    assert sorted(sizes) == [0, 1, 2, 3, 4]
    assert not sizes[0][0], "a file of a head alone is whole"
    assert all(noted for count in sizes for noted in sizes[count][1:])
    path.write_bytes(whole[:-1])
    assert segments(tmp_path)[0].steps == 4


def test_a_damaged_record_ends_the_file(tmp_path, ring_of):
    ring = ring_of(tmp_path, Bounds(), {})
    fill(ring, 5, 1000)
    path = next(tmp_path.glob("*.rec"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    reader = Reader(bytes(data))
    assert len(list(reader.records())) == 2
    assert "damaged" in reader.notes[0]


def test_a_record_of_a_later_version_is_skipped_with_a_line():
    writer = Writer()
    data = (
        head_bytes({})
        + writer.record(KEY, 1, T0, b"one")
        + writer.record(77, 1, T0, b"new")
        + writer.record(2, 2, T0, b"two")
    )
    reader = Reader(data)
    assert [record.data for record in reader.records()] == [b"one", b"two"]
    assert reader.notes == ["a record of type 77 is of a later version of gslb: skipped"]


def test_files_of_other_formats_are_passed_over_with_a_reason(tmp_path):
    (tmp_path / "a.rec").write_bytes(b"GSLBREC\x02" + bytes(100))
    (tmp_path / "b.rec").write_bytes(b"PK" + bytes(100))
    (tmp_path / "c.rec").write_bytes(b"")
    (tmp_path / "d.rec").write_bytes(head_bytes({"replica": "x"}))
    notes = [one.note for one in segments(tmp_path)]
    assert notes == [
        "format 2, this version of gslb reads format 1",
        "no recording: it does not begin as one",
        "no recording: it does not begin as one",
        "no step in it is whole",
    ]


def test_names_lead_nowhere_else(tmp_path):
    secret = tmp_path / "secret.rec"
    secret.write_bytes(b"secret")
    (tmp_path / "ring").mkdir()
    for name in ("../secret.rec", str(secret), "lock", "..", ""):
        with pytest.raises(RecordingError):
            read_piece(tmp_path / "ring", name, 0, 10)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_disk_that_fails_stops_nothing_and_is_told(tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, where the directory should be")
    monkeypatch.setattr("gslb.control.recorder.RETRY_S", 0.0)
    recorder = Recorder(blocked, Bounds(), "a")
    taken = list(steps(6))
    for one in taken[:3]:
        recorder.offer(one)
    until(lambda: recorder.failed == 3)
    assert "blocked" in recorder.trouble
    assert len([record for record in caplog.records if "not recorded" in record.message]) == 1
    blocked.unlink()
    for one in taken[3:]:
        recorder.offer(one)
    until(lambda: recorder.recorded == 3)
    assert recorder.trouble == ""
    recorder.close()
    assert segments(blocked)[0].steps == 3


def test_a_directory_that_cannot_be_is_an_outage_too():
    recorder = Recorder(Path("/dev/full/x"), Bounds(), "a")
    recorder.offer(next(iter(steps(1))))
    until(lambda: recorder.failed == 1)
    recorder.close()


def test_what_is_written_in_part_is_an_error(tmp_path, ring_of, monkeypatch):
    ring = ring_of(tmp_path, Bounds(), {})
    fill(ring, 2, 100)

    class Short:
        def __init__(self, file):
            self._file = file

        def write(self, data):
            return self._file.write(data[:10])

        def close(self):
            self._file.close()

    ring._file = Short(ring._file)
    with pytest.raises(OSError, match="No space"):
        ring.append(3, T0 + 10, b"abc" * 100, key=False)
    assert ring.wants_key(T0 + 15)
    reader = Reader(next(tmp_path.glob("*.rec")).read_bytes())
    assert len(list(reader.records())) == 2
    assert reader.notes


def test_a_slow_disk_drops_and_the_next_step_has_everything(tmp_path, monkeypatch):
    taken = list(steps(20))
    held = []
    real = Ring.append

    def slow(self, *args, **kwargs):
        until(lambda: not held)
        real(self, *args, **kwargs)

    monkeypatch.setattr(Ring, "append", slow)
    held.append(True)
    recorder = Recorder(tmp_path, Bounds(), "a")
    for one in taken[:-1]:
        recorder.offer(one)
    assert recorder.dropped >= 9
    held.clear()
    until(lambda: recorder.recorded + recorder.dropped == 19)
    recorder.offer(taken[-1])
    recorder.close()
    found = segments(tmp_path)
    assert sum(one.steps for one in found) == recorder.recorded
    assert len(found) == 2, "after the gap a file begins"


def test_the_clock_may_go_back(tmp_path, ring_of):
    ring = ring_of(tmp_path, Bounds(), {})
    fill(ring, 3, 100)
    assert ring.wants_key(T0 - 100)
    assert ring.wants_key(T0 + 1)
    assert not ring.wants_key(T0 + 12)


def test_compression_is_one_stream():
    step = next(iter(steps(1)))
    writer = Writer()
    data = repr(step).encode()
    first, second = (len(writer.record(KEY, n, T0, data)) for n in (1, 2))
    assert second < first / 2
    assert first < len(zlib.compress(data, 1)) + 100
