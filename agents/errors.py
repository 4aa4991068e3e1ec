"""The family of agent errors: each message says what was wrong, with which value, and what to do."""


class AgentError(Exception):
    """Base of every error that the agent raises on purpose."""


class ConfigError(AgentError):
    """The tasks file is not acceptable: `problems` has one FILE:LINE line for each thing that is wrong."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class AttachError(AgentError):
    """A task that asks to be looked after is refused. `code` is the gRPC status code's number."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
