"""Makes the corpus of the data plane's fuzz targets anew: `python tools/dns_fuzz_corpus.py`, after a change of the format."""

import random
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from dns_frontend.responder.guard import Clock  # noqa: E402
from dns_frontend.table.compile import compiled  # noqa: E402
from dns_frontend.table.serving import Serving  # noqa: E402
from tests.support import dns_worlds as worlds  # noqa: E402
from tests.support.dns import catalog, endpoints, plan, service, view_of  # noqa: E402

CORPUS = ROOT / "dns_frontend" / "dataplane" / "fuzz" / "corpus"


def main() -> None:
    """Writes every file; equal from run to run."""
    rng = random.Random(3)  # noqa: S311  not a secret
    shares = {"na": {"us-east1": 0.5, "asia-east1": 0.5}, "eu": {"europe-west1": 1.0}}
    members = {**endpoints({"us-east1": 4, "europe-west1": 1}), **endpoints({"asia-east1": 2}, ipv6=True)}
    served = service("www.shakespeare.example", alpn=("h3", "h2"))
    view = view_of(served, plan(shares), members)
    guard = worlds.guard(rng, Clock(lambda: 1.8e9, lambda: 0)).guarding(bytes(16))
    serving = Serving().advance(catalog(), {view.name: view})
    first = compiled(serving, "", None, guard)
    (CORPUS / "table" / "world").write_bytes(first.octets)
    changed = view_of(served, plan(version=2), members)
    patch = compiled(serving.advance(catalog(), {view.name: changed}), "", first, guard)
    (CORPUS / "table" / "patch").write_bytes(patch.octets)
    for number in range(40):
        (CORPUS / "packet" / f"query-{number:02d}").write_bytes(worlds.message(rng))
        data = worlds.subnet(rng)
        option = struct.pack("!HH", 8, len(data)) + data
        (CORPUS / "subnet" / f"option-{number:02d}").write_bytes(rng.randbytes(8) + option)


if __name__ == "__main__":
    main()
