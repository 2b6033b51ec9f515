"""Protect files that run code as this user, such as compiled kernels, from other users."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def private_folder(base: Path, *below: str) -> Path:
    """Make the folder ``base/stl-deploy/...`` with mode 0700 and return its real path.

    Where others may write into ``base``, its first part is named after the user.

    Raises:
        OSError: If the folder cannot be made, or another user can replace it or a file in it.
    """
    if not hasattr(os, "geteuid"):
        folder = base.joinpath("stl-deploy", *below)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"stl-deploy-{os.geteuid()}" if _is_shared(base.stat()) else "stl-deploy"
    folder = base / name
    for part in ("", *below):
        folder = folder / part
        folder.mkdir(mode=0o700, exist_ok=True)
    real = folder.resolve()
    require_private(real)
    real.chmod(0o700)
    return real


def require_private(place: Path) -> None:
    """Raise OSError unless only this user can write a file or folder, and only trusted users can rename it."""
    if not hasattr(os, "geteuid"):
        return
    folder = place.resolve(strict=True)
    status = folder.lstat()
    if status.st_uid != os.geteuid() or _is_shared(status):
        raise PermissionError(f"{folder} can be written by other users")
    trusted = {0, os.geteuid(), os.stat("/").st_uid}  # in a user namespace, / belongs to a number that stands for root
    for parent in folder.parents:
        above = parent.lstat()
        if above.st_uid not in trusted or (_is_shared(above) and not above.st_mode & stat.S_ISVTX):
            raise PermissionError(f"{parent}, above {folder}, can be written by other users")


def _is_shared(status: os.stat_result) -> bool:
    """Return whether users other than the owner may write."""
    by_group = bool(status.st_mode & stat.S_IWGRP) and not _is_own_group(status.st_gid, status.st_uid)
    return by_group or bool(status.st_mode & stat.S_IWOTH)


def _is_own_group(group: int, user: int) -> bool:
    """Return whether a group is the user's own: same number, and no other account in it (as may be in group 0)."""
    import grp
    import pwd

    if group != user:
        return False
    try:
        named = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        named = set()
    accounts = pwd.getpwall()
    others = {account.pw_name for account in accounts if account.pw_uid != user and account.pw_gid == group}
    return not others and named <= {account.pw_name for account in accounts if account.pw_uid == user}
