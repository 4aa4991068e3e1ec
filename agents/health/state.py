"""What one task's health is and why: a state folded from probe results and from what happened to its process. PURE.

The rules, in the order in which they win:

1. The process is gone: UNHEALTHY at once. No probe can undo it, because somebody else may have taken the port since; a
   new process that attaches does.
2. Failing probes: UNHEALTHY after `fall` in a row; after one, if the task's stream to the agent just broke.
3. The task asked for no more load (lame duck): DRAINING.
4. HEALTHY after `rise` successes in a row; the very first success of a process is enough, `rise` is about recovery.
5. Else UNKNOWN: no verdict yet. Reports leave such a task out, so that an agent that restarts unsettles nobody.
"""

from dataclasses import dataclass, replace

from bns.model import HealthStatus


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict on one task. `streak` counts equal results in a row: successes up, failures down."""

    verdict: HealthStatus = HealthStatus.UNKNOWN
    streak: int = 0
    ever_healthy: bool = False
    gone: bool = False
    suspect: bool = False
    lame_duck: bool = False
    detail: str = "not probed yet"

    @property
    def status(self) -> HealthStatus:
        """What is reported."""
        if self.lame_duck and self.verdict is not HealthStatus.UNHEALTHY:
            return HealthStatus.DRAINING
        return self.verdict

    @property
    def reason(self) -> str:
        """Why, for a person."""
        if self.status is HealthStatus.DRAINING:
            return f"lame duck: asks for no more load; {self.detail}"
        return self.detail


def probed(health: Health, ok: bool, detail: str, *, rise: int, fall: int) -> Health:
    """After one probe."""
    if health.gone:
        return health
    return _succeeded(health, detail, rise) if ok else _failed(health, detail, fall)


def _succeeded(health: Health, detail: str, rise: int) -> Health:
    streak = max(health.streak, 0) + 1
    if health.verdict is HealthStatus.HEALTHY or not health.ever_healthy or streak >= rise:
        return replace(
            health, verdict=HealthStatus.HEALTHY, streak=streak, ever_healthy=True, suspect=False, detail=detail
        )
    return replace(health, streak=streak, suspect=False, detail=f"{streak} of {rise} successes to recover: {detail}")


def _failed(health: Health, detail: str, fall: int) -> Health:
    streak = min(health.streak, 0) - 1
    if health.suspect:
        return replace(
            health, verdict=HealthStatus.UNHEALTHY, streak=streak, detail=f"its stream to the agent broke; {detail}"
        )
    if -streak >= fall or health.verdict is HealthStatus.UNHEALTHY:
        return replace(health, verdict=HealthStatus.UNHEALTHY, streak=streak, detail=detail)
    return replace(health, streak=streak, detail=f"{-streak} of {fall} failures: {detail}")


def process_gone(health: Health, detail: str, *, final: bool) -> Health:
    """The task's process ended. `final`: only a new process that attaches can bring the task back, else probes can."""
    return replace(
        health, verdict=HealthStatus.UNHEALTHY, streak=0, ever_healthy=True, gone=final, suspect=False, detail=detail
    )


def stream_lost(health: Health) -> Health:
    """The task's stream to the agent broke: one failing probe is enough now."""
    return replace(health, suspect=True)


def stream_back(health: Health) -> Health:
    """The same process attached again."""
    return replace(health, suspect=False)


def lame_duck(health: Health, on: bool) -> Health:
    """The task asked for no more load, or takes it back."""
    return replace(health, lame_duck=on)
