"""`gslb check`: what is wrong now, each with what to do; exit code 1 when something is."""

import sys

import click

from gslb.cli.output import Column, show, with_format
from gslb.cli.session import Session, with_session
from gslb.v1 import admin_pb2

NAMES = {
    admin_pb2.SEVERITY_OK: "ok",
    admin_pb2.SEVERITY_WARNING: "warning",
    admin_pb2.SEVERITY_ERROR: "error",
}
COLUMNS = (Column("severity", "severity"), Column("subject", "subject"), Column("message", "message"))


@click.command(short_help="Say what is wrong now, and what to do.")
@click.option("--strict", is_flag=True, help="Warnings too make the exit code 1.")
@with_format
@with_session
def check(session: Session, strict: bool, output: str) -> None:
    """Look at everything that can be wrong: etcd, replicas, agents, tasks, records, plans, drains.

    Exit code 1 when there is an error (with --strict: or a warning). Every replica of --control is expected to answer.
    """
    findings = [*session.call(lambda admin: admin.Check, admin_pb2.CheckRequest()).findings]
    findings += _silent(session)
    ordered = sorted(findings, key=lambda finding: -finding.severity)
    rows = [{"severity": NAMES.get(f.severity, "?"), "subject": f.subject, "message": f.message} for f in ordered]
    show(output, rows, COLUMNS)
    worst = max((finding.severity for finding in findings), default=admin_pb2.SEVERITY_OK)
    sys.exit(1 if worst >= (admin_pb2.SEVERITY_WARNING if strict else admin_pb2.SEVERITY_ERROR) else 0)


def _silent(session: Session) -> list[admin_pb2.Finding]:
    """The replicas that should answer and do not."""
    return [
        admin_pb2.Finding(
            severity=admin_pb2.SEVERITY_ERROR,
            subject=f"replica {address}",
            message=f"{session.silent.get(address, 'it does not answer')}: look after it, or leave it out of --control",
        )
        for address in session.addresses
        if address in session.silent or not session.answers(address)
    ]
