"""Compiled code is kept only in folders that no other user can write into, rename or replace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stl_deploy._util.private import private_folder

grp, pwd = pytest.importorskip("grp"), pytest.importorskip("pwd")
pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners of files here")
OTHER = 54321
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_made_for_the_user_alone_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = private_folder(tmp_path / "cache", "numba", "key")
    finally:
        os.umask(before)
    assert folder == tmp_path / "cache" / "stl-deploy" / "numba" / "key"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, *list(folder.parents)[:2])} == {0o700}


def test_a_folder_that_others_could_only_read_is_closed(tmp_path: Path) -> None:
    folder = private_folder(tmp_path, "numba")
    folder.chmod(0o755)
    assert stat.S_IMODE(private_folder(tmp_path, "numba").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o1777, 0o1770])
def test_in_a_folder_for_all_it_bears_the_users_number(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, -1, OTHER if os.geteuid() == 0 else os.getegid())
    shared.chmod(mode)
    folder = private_folder(shared, "numba")
    if os.geteuid() == 0 or mode & 0o002:
        assert folder == shared / f"stl-deploy-{os.geteuid()}" / "numba"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o702])
def test_where_others_may_rename_it_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    with pytest.raises(PermissionError, match=r"shared, above .* can be written by other users"):
        private_folder(tmp_path / "shared", "numba")


@as_root
def test_a_folder_of_a_group_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    private_folder(shared, "numba")  # the group of the user's own number
    os.chown(shared, 0, OTHER)
    shared.chmod(0o770)
    with pytest.raises(PermissionError, match="can be written by other users"):
        private_folder(shared, "numba")


@pytest.mark.parametrize(
    ("members", "accounts"),
    [(["helper"], []), ([], [("helper", 4242)])],
    ids=["in the group's list", "as the account's own group"],
)
def test_a_group_of_the_users_number_that_others_are_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[str], accounts: list[tuple[str, int]]
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    uid = os.geteuid()
    if shared.stat().st_gid != uid:
        pytest.skip("the group of new folders is not the user's own")
    shared.chmod(0o770)
    private_folder(shared, "numba")
    own = pwd.struct_passwd(("self", "x", uid, uid, "", "/", "/bin/sh"))
    others = [pwd.struct_passwd((name, "x", number, uid, "", "/", "/bin/sh")) for name, number in accounts]
    monkeypatch.setattr(pwd, "getpwall", lambda: [own, *others])
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("self", "x", gid, members)))
    with pytest.raises(PermissionError, match="can be written by other users"):
        private_folder(shared, "numba")


@as_root
def test_what_another_user_owns_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "theirs"
    base.mkdir(mode=0o755)
    os.chown(base, OTHER, OTHER)
    with pytest.raises(PermissionError, match="can be written by other users"):
        private_folder(base, "numba")
    os.chown(base, 0, 0)
    os.chown(private_folder(base, "numba"), OTHER, OTHER)
    with pytest.raises(PermissionError, match="can be written by other users"):
        private_folder(base, "numba")


def test_a_folder_that_others_could_write_into_is_not_trusted_again(tmp_path: Path) -> None:
    private_folder(tmp_path, "numba").chmod(0o777)
    with pytest.raises(PermissionError, match="numba can be written by other users"):
        private_folder(tmp_path, "numba")


def test_a_link_leads_to_where_it_is_checked(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "own" / "stl-deploy").symlink_to(tmp_path / "open")
    with pytest.raises(PermissionError, match="open, above"):
        private_folder(tmp_path / "own", "numba")
