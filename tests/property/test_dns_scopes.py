"""Client subnet scopes are right for every client: what a resolver caches under one holds for all whom it covers."""

import ipaddress

import dns.message
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.dns import ask, catalog, endpoints, plan, responder_for, subnet_of, view_of

# Small worlds inside 10.1.0.0/16, so that areas, prefixes and clients meet often.
cidrs = st.builds(
    lambda third, fourth, length: str(ipaddress.ip_network((f"10.1.{third}.{fourth}", length), strict=False)),
    st.integers(0, 7),
    st.sampled_from([0, 16, 128, 200]),
    st.integers(14, 30),
)
worlds = st.fixed_dictionaries({"na": st.lists(cidrs, max_size=4), "eu": st.lists(cidrs, max_size=4)})
shares = st.sampled_from(
    [
        {"us-east1": 1.0},
        {"europe-west1": 1.0},
        {"us-east1": 0.5, "europe-west1": 0.5},
        {"asia-east1": 0.9, "europe-west1": 0.1},
    ]
)
clients = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255)), min_size=2, max_size=12)


def answer(message: dns.message.Message) -> frozenset[str]:
    return frozenset(rdata.address for rrset in message.answer for rdata in rrset)


@settings(max_examples=300, deadline=None)
@given(worlds, shares, shares, st.integers(1, 4), clients)
def test_scopes_hold_and_never_overlap(areas, na, eu, count, asked):
    unique = {name: tuple(dict.fromkeys(found)) for name, found in areas.items()}
    members = endpoints({"us-east1": count, "europe-west1": 2, "asia-east1": 1})
    responder = responder_for(view_of(planned=plan({"na": na, "eu": eu}), members=members), known=catalog(areas=unique))
    seen = []
    for third, fourth in asked:
        client = ipaddress.ip_address(f"10.1.{third}.{fourth}")
        message = ask(responder, "www.shakespeare.example", subnet=f"{client}/32")
        scope = subnet_of(message).scopelen
        seen.append((client, ipaddress.ip_network((client, scope), strict=False), answer(message)))
    for client, _, given_to in seen:
        for _, block, cached in seen:
            if client in block:
                assert given_to == cached, f"{client} is covered by {block} and gets another answer"
    for _, one, _ in seen:
        for _, two, _ in seen:
            assert one == two or not one.overlaps(two)
