"""The family of errors that say what was wrong with a value somebody gave us."""


class GslbError(Exception):
    """Base of all errors that a caller can understand and act upon."""


class InvalidValueError(GslbError):
    """A value from outside is not acceptable: the message names it and says what to do."""


class NotFoundError(GslbError):
    """A named thing does not exist."""


class RefusedError(GslbError):
    """The request is well-formed, and granting it would break a rule; `violations` has the rule with its numbers."""

    def __init__(self, message: str, violations: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.violations = violations
