"""Root until the ports are bound, and never again."""

import grp
import os
import pwd
from typing import NamedTuple

from dns_frontend.errors import FrontendError


class Account(NamedTuple):
    """Who to become."""

    uid: int
    gid: int
    name: str


def account(user: str | None, group: str | None) -> Account | None:
    """The account of these names or numbers; None when none is given. Raises FrontendError."""
    if user is None:
        if group is not None:
            raise FrontendError(f"--group {group!r} without --user: give both")
        return None
    try:
        found = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        gid = found.pw_gid
    except KeyError:
        raise FrontendError(f"--user {user[:80]!r}: this machine has no such user") from None
    if group is not None:
        try:
            gid = (grp.getgrgid(int(group)) if group.isdigit() else grp.getgrnam(group)).gr_gid
        except KeyError:
            raise FrontendError(f"--group {group[:80]!r}: this machine has no such group") from None
    return Account(found.pw_uid, gid, found.pw_name)


def drop(to: Account) -> None:
    """Becomes `to` for good, in every thread, with its group alone. Raises FrontendError; nothing is served then."""
    try:
        os.setgroups([])
        os.setresgid(to.gid, to.gid, to.gid)
        os.setresuid(to.uid, to.uid, to.uid)
    except OSError as error:
        raise FrontendError(
            f"cannot become user {to.name!r}: {error.strerror}; start as root, or leave --user"
        ) from error
    if os.getresuid() != (to.uid,) * 3 or os.getresgid() != (to.gid,) * 3:
        raise FrontendError(f"cannot become user {to.name!r}: the kernel did not let all of root go")
