"""What /statusz and /readyz of an agent say. Called from the debug server's threads: reads only, and copies first."""

import math
from collections.abc import Sequence

from agents.keeper import Keeper, Kept
from agents.load.cpu import MachineLoad
from agents.registration.ledger import Ledger
from agents.registration.session import Session
from agents.remote.witness import Witness
from agents.reporting import ReportStream


def ready(session: Session) -> tuple[bool, str]:
    """Whether some replica holds this agent's session."""
    if session.replica is not None:
        return True, ""
    return False, f"not registered: {session.problem}"


def status(
    about: dict[str, object],
    keeper: Keeper,
    registration: tuple[Session, Ledger],
    streams: Sequence[ReportStream],
    seen: tuple[Witness, MachineLoad],
) -> dict[str, object]:
    """The page, as nested values."""
    session, ledger = registration
    witness, machine = seen
    return {
        "agent": about,
        "machine": {"utilization": round(machine.utilization, 4), "cores": machine.cores},
        "registration": {
            "replica": session.replica or "none",
            "problem": session.problem,
            "sessions": session.sessions,
            "not yet as wanted in BNS": ledger.unsettled(),
        },
        "reports": [
            {
                "replica": stream.address,
                "up": stream.up,
                "acknowledged": stream.acked_seq,
                "refused": stream.refused,
                "problem": stream.problem,
            }
            for stream in streams
        ],
        "tasks": [_task(kept, ledger) for kept in keeper.all()],
        "remote probes": witness.status(),
    }


def _task(kept: Kept, ledger: Ledger) -> dict[str, object]:
    return {
        "task": kept.task.name,
        "address": f"{kept.task.address} {kept.task.port}",
        "health": kept.health.status.name,
        "why": kept.health.reason,
        "cpu": None if math.isnan(kept.cpu_utilization) else round(kept.cpu_utilization, 4),
        "cpu_cores": kept.task.cpu_cores,
        "ok rps": round(sum(kept.rates.ok), 2),
        "error rps": round(sum(kept.rates.error), 2),
        "in flight": kept.rates.in_flight,
        "pid": kept.process.pid if kept.process is not None else None,
        "from": kept.origin.value,
        "attached": kept.attachment is not None,
        "in BNS": ledger.is_settled(kept.task.name),
        "probe": kept.task.probe.kind.name.lower(),
    }
