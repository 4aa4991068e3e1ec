"""Where zones and services' names meet."""

from dns_frontend.table.build import Named, build_table
from dns_frontend.table.serving import Serving
from dns_frontend.zone.master import parse_zone
from dns_frontend.zone.name import from_text
from dns_frontend.zone.rtype import RType
from tests.support.dns import ZONE_TEXT, catalog, service, view_of

HEAD = "$TTL 300\n@ IN SOA ns1 host 7 3600 600 604800 60\n@ NS ns1\n"


def table(names=None, *, https=(), **zones):
    services = {service: Named(tuple(its), service in https) for service, its in (names or {}).items()}
    return build_table([parse_zone(origin.replace("_", "."), text) for origin, text in zones.items()], services)


def test_empty_non_terminals_exist_and_hidden_names_do_not():
    found = table(example=HEAD + "a.b.c A 1.1.1.1\nsub NS ns.sub\nns.sub A 2.2.2.2\nd DNAME e\nx.d A 3.3.3.3\n")
    assert not found.nodes[from_text("b.c.example")].rrsets
    assert not found.nodes[from_text("c.example")].rrsets
    assert from_text("ns.sub.example") not in found.nodes
    assert from_text("x.d.example") not in found.nodes
    cut = found.nodes[from_text("sub.example")]
    assert cut.cut
    assert [owned.owner for owned in cut.glue] == [from_text("ns.sub.example")]
    assert any("hidden by DNAME" in problem for problem in found.problems)


def test_a_child_zone_takes_its_names_over_and_the_parent_keeps_ds():
    digest = "49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC49FD46E6C4B45C55D4AC4921"
    parent = HEAD + f"child NS ns.child\nchild DS 1 13 2 {digest}\nold.child A 9.9.9.9\n"
    found = table(example=parent, child_example=HEAD + "new A 1.1.1.1\n")
    assert found.nodes[from_text("child.example")].zone.origin == from_text("child.example")
    assert not found.nodes[from_text("child.example")].cut
    assert from_text("old.child.example") not in found.nodes
    assert RType.DS in found.parents[from_text("child.example")].rrsets


def test_a_service_name_joins_the_zone_that_covers_it():
    found = table({"gfe": ["www.example"]}, example=HEAD + 'www A 1.1.1.1\nwww TXT "kept"\n')
    node = found.nodes[from_text("www.example")]
    assert node.service == "gfe"
    assert set(node.rrsets) == {RType.TXT}
    assert node.zone.origin == from_text("example")
    assert len(found.problems) == 1  # the address that is not served


def test_a_service_name_outside_all_zones_gets_a_zone_of_its_own():
    found = table({"gfe": ["www.example", "a.www.example"], "api": ["api.other"]}, test=HEAD)
    assert {zone.origin for zone in found.zones.values() if zone.synthetic} == {
        from_text("www.example"),
        from_text("api.other"),
    }
    assert found.nodes[from_text("a.www.example")].zone.origin == from_text("www.example")
    assert from_text("example") not in found.nodes


def test_names_that_cannot_be_served_are_reported():
    names = {
        "a": ["www.example"],
        "b": ["WWW.example", "x..y"],
        "c": ["in.sub.example", "sub.example", "y.d.example"],
    }
    found = table(names, example=HEAD + "sub NS ns.else.\nd DNAME e\n")
    assert found.nodes[from_text("www.example")].service == "a"
    assert found.nodes[from_text("sub.example")].cut
    assert from_text("in.sub.example") not in found.nodes
    text = "\n".join(found.problems)
    for part in ("'a''s already", "x..y", "in.sub.example", "y.d.example", "sub.example. is delegated"):
        assert part.replace("''", "'") in text or part in text


def test_a_zone_that_becomes_bad_is_served_as_it_was():
    first = Serving().advance(catalog(), {"gfe": view_of()})
    bad = first.advance(catalog({"shakespeare.example": "rubbish"}), {"gfe": view_of()})
    assert from_text("ns1.shakespeare.example") in bad.table.nodes
    assert "served as it was" in bad.problems[0]
    # The same bad text again is not parsed again, nor forgotten.
    again = bad.advance(catalog({"shakespeare.example": "rubbish"}), {"gfe": view_of()})
    assert again.table is bad.table
    good = again.advance(catalog({"shakespeare.example": ZONE_TEXT + "new A 1.1.1.1\n"}), {"gfe": view_of()})
    assert from_text("new.shakespeare.example") in good.table.nodes
    assert not good.problems


def test_a_zone_that_was_never_good_leaves_its_services_reachable():
    found = Serving().advance(catalog({"shakespeare.example": "rubbish"}), {"gfe": view_of()})
    assert found.table.nodes[from_text("www.shakespeare.example")].zone.synthetic
    assert "rubbish" not in found.problems[0]
    assert "shakespeare.example:1" in found.problems[0]


def test_only_what_changed_is_built_anew():
    view, other = view_of(), view_of(service("b.example", name="b"))
    first = Serving().advance(catalog(), {"gfe": view, "b": other})
    second = first.advance(catalog(), {"gfe": view, "b": view_of(service("b.example", name="b", ttl_s=5))})
    assert second.table is first.table
    assert second.cidrs is first.cidrs
    assert second.services["gfe"] is first.services["gfe"]
    assert second.services["b"].ttl_s == 5


def test_deleted_things_go():
    first = Serving().advance(catalog(), {"gfe": view_of()})
    second = first.advance(catalog({}), {})
    assert not second.table.nodes
    assert not second.services
