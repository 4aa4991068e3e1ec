"""The data plane and the reference on the zones of the corpus, whole, and on names of tasks."""

import pytest

from dns_frontend.metrics import Counters, Transport
from dns_frontend.native import NativeTable, NoDataPlaneError, load_library
from dns_frontend.responder.respond import Responder
from dns_frontend.table.build import build_table
from dns_frontend.table.compile import compiled
from dns_frontend.table.serving import Serving
from dns_frontend.zone.name import from_text
from tests.support.corpus import Question, ask_wire, questions, zones
from tests.support.dns import ANYBODY, catalog, view_of

try:
    LIBRARY = load_library()
except NoDataPlaneError:
    pytest.skip("the data plane is not built here", allow_module_level=True)


def compare(serving: Serving, asked: list[Question]) -> int:
    """How many the data plane answered by itself."""
    responder = Responder(Counters())
    responder.serving = serving
    table = NativeTable(LIBRARY, compiled(serving, "", None).octets, None)
    by_itself = 0
    for question in asked:
        for transport, payload in ((Transport.UDP, 512), (Transport.UDP, 1232), (Transport.TCP, 1232)):
            wire = ask_wire(question, payload)
            found = table.answer(wire, ANYBODY, transport)
            if found is not None:
                by_itself += 1
                assert found[0] == responder.respond(wire, ANYBODY, transport), question
    return by_itself


def test_every_question_of_the_corpus():
    asked = questions()[::3]
    serving = Serving(ready=True, table=build_table(list(zones().values()), {}))
    assert compare(serving, asked) > len(asked), "most questions are the data plane's own"


def test_names_of_tasks_are_left_to_the_reference():
    origin = "shakespeare.example"
    serving = Serving(bns_origins=(from_text(origin),)).advance(catalog(), {"gfe": view_of()})
    job = f"gfe.test.us-east1.bns.{origin}"
    for name in (f"0.{job}", job, f"9.{job}", f"_main._tcp.{job}"):
        assert compare(serving, [Question(name, "A"), Question(name, "SRV")]) == 0
    assert compare(serving, [Question(f"bns.{origin}", "A"), Question(f"ns1.{origin}", "A")]) > 0
