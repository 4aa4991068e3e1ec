"""What a configuration file that cannot be read raises."""

from gslb.model import limits
from gslb.model.errors import InvalidValueError


class ConfigError(InvalidValueError):
    """Everything that is wrong with a file, one `FILE:LINE: what is wrong, which value, what to do` a line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems[: limits.CONFIG_ERRORS_MAX])
        hidden = len(problems) - len(self.problems)
        super().__init__("\n".join([*self.problems, *([f"... and {hidden} more"] if hidden else [])]))
