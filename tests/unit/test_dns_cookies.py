"""Cookies: the vectors of SipHash's paper and of RFC 9018, ages, rotation, and files of secrets."""

import ipaddress
import random

import pytest

from dns_frontend.responder.cookies import BadSecretError, Cookies, Shown, parse_secrets
from dns_frontend.responder.siphash import siphash24

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
CLIENT = bytes.fromhex("2464c4abcf10c957")
ADDRESS = ipaddress.ip_address("198.51.100.100").packed
NOW = 1_559_731_985


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, "310e0edd47db6f72"), (1, "fd67dc93c539f874"), (7, "37d1018bf50002ab"), (8, "6224939a79f5f593"),
     (15, "e545be4961ca29a1"), (63, "724506eb4c328a95")],
)  # fmt: skip
def test_siphash_vectors(length, expected):
    assert siphash24(bytes(range(16)), bytes(range(length))).hex() == expected


def test_rfc_9018_a1_a_new_cookie():
    made = Cookies((SECRET,)).answer(CLIENT, Shown.CLIENT, ADDRESS, NOW)
    assert made.hex() == "2464c4abcf10c957010000005cf79f111f8130c3eee29480"


def test_rfc_9018_a2_the_same_client_later_gets_a_fresh_one():
    jar = Cookies((SECRET,))
    shown = bytes.fromhex("2464c4abcf10c957010000005cf79f111f8130c3eee29480")
    at = NOW + 40 * 60
    assert jar.look(shown, ADDRESS, at) is Shown.GOOD
    assert jar.answer(shown, Shown.GOOD, ADDRESS, at).hex() == "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"


def test_rfc_9018_a3_reserved_octets_are_hashed():
    jar = Cookies((SECRET,))
    shown = bytes.fromhex("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5")
    address = ipaddress.ip_address("203.0.113.203").packed
    assert jar.look(shown, address, 1_559_728_000) is Shown.GOOD
    # The RFC's server renews it 97 minutes later; ours takes none older than an hour, as section 4.3 advises.
    made = jar.answer(shown, jar.look(shown, address, 1_559_734_700), address, 1_559_734_700)
    assert made.hex() == "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e"


def test_rfc_9018_a4_ipv6_and_a_rotated_secret():
    new, old = bytes.fromhex("445536bcd2513298075a5d379663c962"), bytes.fromhex("dd3bdf9344b678b185a6f5cb60fca715")
    address = ipaddress.ip_address("2001:db8:220:1:59de:d0f4:8769:82b8").packed
    shown = bytes.fromhex("22681ab97d52c298010000005cf7c57926556bd0934c72f8")
    jar = Cookies((new, old))
    assert jar.look(shown, address, 1_559_741_961) is Shown.GOOD
    made = jar.answer(shown, Shown.GOOD, address, 1_559_741_961)
    assert made.hex() == "22681ab97d52c298010000005cf7c609a6bb79d16625507a"
    assert Cookies((new,)).look(shown, address, 1_559_741_961) is Shown.STALE


def test_a_fresh_cookie_comes_back_as_it_is():
    jar = Cookies((SECRET,))
    made = jar.answer(CLIENT, Shown.CLIENT, ADDRESS, NOW)
    assert jar.answer(made, jar.look(made, ADDRESS, NOW + 1800), ADDRESS, NOW + 1800) == made
    assert jar.answer(made, jar.look(made, ADDRESS, NOW + 1801), ADDRESS, NOW + 1801) != made


@pytest.mark.parametrize(
    ("later_s", "shown"),
    [(0, Shown.GOOD), (3600, Shown.GOOD), (3601, Shown.STALE), (-300, Shown.GOOD), (-301, Shown.STALE)],
)
def test_the_age_of_a_cookie(later_s, shown):
    jar = Cookies((SECRET,))
    made = jar.answer(CLIENT, Shown.CLIENT, ADDRESS, NOW)
    assert jar.look(made, ADDRESS, NOW + later_s) is shown


def test_the_clock_of_cookies_wraps():
    jar = Cookies((SECRET,))
    made = jar.answer(CLIENT, Shown.CLIENT, ADDRESS, (1 << 32) - 10)
    assert jar.look(made, ADDRESS, (1 << 32) + 10) is Shown.GOOD


def test_a_cookie_is_good_for_its_address_its_client_and_its_secret_only():
    jar = Cookies((SECRET,))
    made = jar.answer(CLIENT, Shown.CLIENT, ADDRESS, NOW)
    assert jar.look(made, b"\xc6\x33\x64\x65", NOW) is Shown.STALE
    assert Cookies((bytes(16),)).look(made, ADDRESS, NOW) is Shown.STALE
    rng = random.Random(1)
    for at in range(len(made)):
        damaged = bytearray(made)
        damaged[at] ^= 1 << rng.randrange(8)
        assert jar.look(bytes(damaged), ADDRESS, NOW) is Shown.STALE, at


@pytest.mark.parametrize("size", range(60))
def test_lengths(size):
    shown = Cookies((SECRET,)).look(bytes(size), ADDRESS, NOW)
    if size == 8:
        assert shown is Shown.CLIENT
    elif 16 <= size <= 40:
        assert shown is Shown.STALE
    else:
        assert shown is Shown.MALFORMED


def test_a_file_of_secrets():
    text = f"# ours\n{SECRET.hex()}\n\n  {'AB' * 16}  # before\n"
    assert parse_secrets(text) == (SECRET, b"\xab" * 16)


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "0 secrets"), ("abc", "line 1"), ("ab" * 15, "line 1"), (f"{'ab' * 16}\n{'zz' * 16}", "line 2"),
     ("ab" * 16 + "\n" + ("cd" * 16 + "\n") * 4, "5 secrets")],
)  # fmt: skip
def test_a_bad_file_of_secrets_is_told_without_its_secrets(text, says):
    with pytest.raises(BadSecretError, match=says) as caught:
        parse_secrets(text)
    assert "zz" not in str(caught.value)
    assert "abab" not in str(caught.value)
