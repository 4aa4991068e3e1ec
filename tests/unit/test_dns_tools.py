"""`gslb dns check-zone`, and what the command line of `gslb dns` refuses."""

import pytest
from click.testing import CliRunner, Result

from dns_frontend.command import command

HEAD = "$TTL 300\n@ SOA ns1 host 7 3600 600 604800 60\n@ NS ns1\nns1 A 127.0.0.1\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), env={"GSLB_CONTROL": None, "GSLB_DNS": None})


def test_a_good_zone(tmp_path):
    path = tmp_path / "zone"
    path.write_text(HEAD)
    done = run("check-zone", "--origin", "z.test", str(path))
    assert (done.exit_code, done.stdout) == (
        0,
        "z.test. serial 7: 2 names, 3 records, 0 files included, 0 warnings\n",
    )
    path.write_text("$ORIGIN z.test.\n" + HEAD + "@ MX 1 mail\n")
    done = run("check-zone", str(path))
    assert done.exit_code == 0
    assert done.stderr == f"warning: {path}:6: z.test. MX: mail.z.test. has neither A nor AAAA in this zone\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "\nx A 1.2.3\n", ":6: "),
        (HEAD + "x.elsewhere. A 1.2.3.4\n", ":5: x.elsewhere. is outside the zone z.test."),
        ("", "no SOA"),
    ],
)
def test_a_bad_zone(tmp_path, text, said):
    path = tmp_path / "zone"
    path.write_text(text)
    done = run("check-zone", "--origin", "z.test", str(path))
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {path}")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_bad_usage(tmp_path):
    for arguments, said in (
        ((), "--control"),
        (("--zone", "z.test"), "ORIGIN=FILE"),
        (("--control", "127.0.0.1:1", "--config", "x.yaml"), "leave it or --control"),
        (("--zone", "z.test=x", "--allow-transfer", "10.0.0.1/8"), "--allow-transfer"),
        (("--zone", "z.test=x", "--bns", "a..b"), "--bns"),
        (("check-zone",), "FILE"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2, arguments
        assert said in done.stderr, done.stderr
    missing = run("check-zone", str(tmp_path / "none"))
    assert missing.exit_code == 1
    assert "No such file" in missing.stderr


def test_a_start_with_a_bad_file_is_one_clear_line(tmp_path):
    path = tmp_path / "zone"
    path.write_text(HEAD + "x A 1.2.3\n")
    done = run("--listen", "127.0.0.1:0", "--zone", f"z.test={path}")
    assert done.exit_code == 1
    assert f"Error: {path}:5: " in done.stderr


def test_a_frontend_that_does_not_answer():
    done = run("reload", "--frontend", "127.0.0.1:1")
    assert done.exit_code == 1
    assert "is it running with --grpc?" in done.stderr
