"""Versions, their groups, and what each group's registry says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wazuh_comms_trio.errors import NotInRelease, WazuhInternalError
from wazuh_comms_trio.testing import open_fake_daemon
from wazuh_comms_trio.transport import open_pool, wazuh_sendasync, wazuh_sendsync
from wazuh_comms_trio.transport.registry import (
    HOME,
    Daemon,
    _registered,
    daemons,
    daemons_under,
    get_daemon,
    register_daemon,
)
from wazuh_comms_trio.transport.releases.release import GROUPS, HOME_5, Release, release_of
from wazuh_comms_trio.transport.releases.sockets import daemons_of
from wazuh_comms_trio.transport.switches import locate, resolve, set_defaults

VERSIONS = {
    "4.7.5": "A",
    "v4.8.2": "A",
    "4.9.0": "B",
    "4.12.0": "B",
    "4.13.0": "C",
    "4.14": "C",
    "4.14.1": "C",
    "4.14.2": "D",
    "4.14.9": "D",
    "4.15.0": "D",
    "5.0.0-alpha0": "alpha",
    "5.0.0-beta1": "E",
    "5.0.0-beta2": "F",
    "5.0.0-beta4": "F",
    "5.0.0-beta5": "G",
    "5.0.0-rc1": "G",
    "5.0.0": "G",
    "5.1.2": "G",
}

# name -> the groups that have it, and what is special about it there: written again from the description, by hand.
FRAMED_4 = "ABCDx"
EXISTS = {
    "wazuh-db": "ABCDxEFG",
    "task-manager": "ABCDxEFG",
    "upgrade": "ABCDxEFG",
    "authd": "ABCDxEFG",
    "remoted": "ABCDxEFG",
    "monitor": "ABCDxEFG",
    "wmodules": "ABCDxEFG",
    "control": "ABCDxEFG",
    "analysis": "ABCD",
    "engine": "xEFG",
    "engine-events": "xEFG",
    "com": FRAMED_4,
    "logtest": FRAMED_4,
    "agentless": FRAMED_4,
    "csyslog": FRAMED_4,
    "integrator": FRAMED_4,
    "mail": FRAMED_4,
    "logcollector": FRAMED_4,
    "syscheck": FRAMED_4,
    "execq": FRAMED_4,
    "analysisd": FRAMED_4,
    "ar": "ABCDxEF",
    "keystore": "EFG",
    "wdb-http": "CDxEFG",
    "vulnerability-detector": "FG",
    "inventory-sync": "G",
    "remoted-admin": "G",
}
LETTERS = {group: "x" if group == "alpha" else group for group in GROUPS}


@pytest.fixture
def own_registry() -> Iterator[None]:
    registered = dict(_registered)
    yield
    _registered.clear()
    _registered.update(registered)
    set_defaults()
    for name in set(daemons) - set(registered):
        del daemons[name]


@pytest.mark.parametrize(("version", "group"), VERSIONS.items())
def test_a_version_is_in_its_group(version: str, group: str) -> None:
    release = release_of(version)
    assert (release.group, str(release)) == (group, version.removeprefix("v"))
    assert release_of(release) is release


@pytest.mark.parametrize(
    "name", ["5.0", "5", "4", "", "five", "3.13.0", "4.14.2-1", "5.0.0-beta", " 4.7.5", 5, ["5.0.0"]]
)
def test_what_names_no_release(name: object) -> None:
    with pytest.raises(ValueError, match=r"write|named|older"):
        release_of(name)  # type: ignore[arg-type]


def test_a_group_is_its_last_version() -> None:
    assert release_of("C").version == "4.14.1"
    assert release_of("F").at_least("5.0.0-beta3")
    assert not release_of("5.0.0-beta2").at_least("5.0.0-beta3")
    assert release_of("4.14.0").at_least("C")
    assert not release_of("4.14.0").at_least("D")
    assert release_of("E").in_groups("E", "F")
    assert not release_of("G").in_groups("E", "F")


@pytest.mark.parametrize("group", GROUPS)
def test_the_registry_of_each_release(group: str) -> None:
    expected = {name for name, groups in EXISTS.items() if LETTERS[group] in groups}
    release = release_of(group)
    assert set(daemons_of(release)) == expected
    for name in set(EXISTS) - expected:
        with pytest.raises(NotInRelease, match=rf"Error 1013 .*{release.version} has no '{name}'"):
            get_daemon(name, release)
    for name in ("wazuh-db", "wazuh-manager-db"):
        assert get_daemon(name, release).paths == ("queue/db/wdb",)
    shown = daemons_under("/h", release)
    assert ("wazuh-manager-db" in shown) is (group in "EFG") is ("wazuh-db" not in shown)
    assert len(shown) == len(expected)


@pytest.mark.parametrize("group", GROUPS)
def test_what_changes_between_releases(group: str) -> None:
    release = release_of(group)
    assert get_daemon("task-manager", release).reusable is (group == "G")
    assert get_daemon("authd", release).reusable is False
    assert get_daemon("control", release).kind == "unframed"
    assert release.home == (HOME_5 if group in "EFG" else "/var/ossec")
    if group in "ABCD":
        assert get_daemon("analysis", release).kind == "stream"
    else:
        assert get_daemon("engine", release).paths == ("queue/sockets/analysis",)
        assert get_daemon("engine", release).kind == "http"
    if group != "G":
        places = {"F": "queue/sockets/ar"}.get(group, "queue/alerts/ar")
        assert get_daemon("ar", release).paths == (places,)
    if group in "EFG":
        assert get_daemon("keystore", release).reusable
    if EXISTS["wdb-http"].count(LETTERS[group]):
        assert get_daemon("wdb-http", release).reusable is (group != "G")


def test_the_vulnerability_detector_moved() -> None:
    with pytest.raises(NotInRelease):
        get_daemon("vulnerability-detector", release_of("5.0.0-beta2"))
    assert get_daemon("vulnerability-detector", release_of("5.0.0-beta3")).paths == ("queue/sockets/modulesd",)
    assert get_daemon("vulnerability-detector", release_of("5.0.0")).paths == ("queue/sockets/vd.sock",)


def test_both_names_of_the_database_without_a_release() -> None:
    assert get_daemon("wazuh-manager-db") is get_daemon("wazuh-db")
    assert daemons["wazuh-manager-db"] == daemons["wazuh-db"]
    with pytest.raises(KeyError):
        _ = daemons["nothing"]


@pytest.mark.usefixtures("own_registry")
def test_a_release_for_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAZUH_MANAGER_HOME", raising=False)
    register_daemon(Daemon("mine", ("run/mine",)))
    set_defaults(release="5.0.0-beta3")
    assert daemons["wazuh-db"]["path"] == daemons["wazuh-manager-db"]["path"] == f"{HOME_5}/queue/db/wdb"
    assert "wazuh-manager-db" in daemons
    assert "com" not in daemons
    assert daemons["mine"]["path"] == "/var/ossec/run/mine"
    assert resolve("ar").daemon.places(resolve("ar").home) == (f"{HOME_5}/queue/sockets/ar",)
    assert resolve("mine").daemon.paths == ("run/mine",)
    assert resolve("com", "4.7.5").home == HOME
    monkeypatch.setenv("WAZUH_MANAGER_HOME", "/srv/manager")
    assert locate(None, None) == (release_of("5.0.0-beta3"), "/srv/manager")
    assert locate("4.7.5", None)[1] == HOME
    set_defaults()
    assert daemons["wazuh-db"]["path"] == "/var/ossec/queue/sockets/wdb"
    assert locate(None, None) == (None, HOME)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("wrong", [{"release": "5"}, {"api": "4.14"}, {"api": "x"}])
def test_wrong_defaults_change_nothing(wrong: dict[str, str]) -> None:
    before = dict(daemons)
    with pytest.raises(ValueError, match=r"write"):
        set_defaults(**wrong)
    assert dict(daemons) == before
    assert locate(None, None)[0] is None


@pytest.mark.usefixtures("own_registry")
def test_what_a_program_changed_comes_first() -> None:
    daemons["wazuh-db"] = {"protocol": "TCP", "path": "/elsewhere/wdb", "header_format": "<I", "size": 4}
    try:
        assert get_daemon("wazuh-db", release_of("G")).paths == ("/elsewhere/wdb",)
    finally:
        daemons["wazuh-db"] = _registered["wazuh-db"].entry()


def test_an_unknown_name_in_a_release() -> None:
    with pytest.raises(WazuhInternalError, match=r"Error 1013 .*no daemon is called 'x'"):
        get_daemon("x", Release("G", "5.0.0"))


async def test_both_sendings_find_the_release_they_are_told(home: Path) -> None:
    answer = {"status": "ok", "task_id": "t"}
    async with open_fake_daemon("task-manager", [answer, answer], home=home) as daemon:
        told: dict[str, Any] = {"home": home, "release": "5.0.0"}
        assert await wazuh_sendasync("task-manager", {"action": "x"}, **told) == answer
        assert await wazuh_sendsync("task-manager", {"action": "x"}, **told) == '{"status":"ok","task_id":"t"}'
    assert daemon.requests == [b'{"action": "x"}'] * 2
    with pytest.raises(NotInRelease):
        await wazuh_sendasync("com", "getconfig internal", **told)


@pytest.mark.parametrize("release", [None, "4.7.5", "5.0.0"])
@pytest.mark.parametrize("name", ["wazuh-db", "wazuh-manager-db"])
async def test_both_names_of_the_database_in_every_call(home: Path, name: str, release: str | None) -> None:
    told: dict[str, Any] = {"home": home, "release": release}
    async with open_fake_daemon("wazuh-db", ["ok 1", "ok 2", "ok 3"], home=home):
        async with open_pool(name, **told) as pool:
            assert await pool.request("global x") == "ok 1"
        assert await wazuh_sendasync(name, "global x", **told) == 2
        assert await wazuh_sendsync(name, "global x", **told) == "ok 3"


@pytest.mark.parametrize(
    ("name", "release", "words"),
    [
        ("engine", "5.0.0", "speaks HTTP"),
        ("control", "5.0.0", "knows no frames"),
        ("ar", "5.0.0-beta1", "reads datagrams"),
    ],
)
async def test_what_takes_no_frames(home: Path, name: str, release: str, words: str) -> None:
    for send in (wazuh_sendasync, wazuh_sendsync):
        with pytest.raises(WazuhInternalError, match=f"Error 1013 .*{words}"):
            await send(name, "x", home=home, release=release)
    with pytest.raises(ValueError, match=words):
        async with open_pool(name, home=home, release=release):
            pass
