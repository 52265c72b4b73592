"""The .deb on a clean Debian 12 with a real systemd and no network: built, installed, upgraded, removed, purged."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.tree import copy_tree
from tests.systemd.real.conftest import CONFIG, CONFIGURATION, INSTALL, MAKE_CERTIFICATES, STATE
from tests.systemd.real.machine import CHECKOUT, ROOT, WHEELS, Machine, boot, missing

pytestmark = [pytest.mark.processes, pytest.mark.machine, pytest.mark.long]

SERVICE, SOCKET = "wazuh-comms-apid.service", "wazuh-comms-apid.socket"
ALIVE = "curl -sSk --max-time 20 https://127.0.0.1:27000/api/v1/"
BEFORE, NOW = "0.1.0~1", "0.1.0~2"
BUILD = f"env PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} DEB_COMPRESSION=gzip SOURCE_DATE_EPOCH=1700000000"
BUILD += " DEB_ARCH=amd64 DEB_MACHINE=x86_64"
#: In the machines: this tree as it was when the tests began, whoever works on it meanwhile, and what is made of it.
TREE, MADE = "/tree", "/made"


def unpack_commit_before(folder: Path, tree: Path) -> None:
    """The last but one that could make a package; this tree where there is none."""
    done = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "log", "--format=%H", "-n", "2", "--", "packaging/deb/build"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    commit = "HEAD~1" if done.stdout.strip() else "HEAD"
    tar = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "archive", commit], cwd=ROOT, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        archive.extractall(folder, filter="data")
    if not (folder / "packaging/deb/build").exists():
        shutil.rmtree(folder)
        shutil.copytree(tree, folder)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package of this tree (``made/now``), that of the commit before (``made/before``), and this
    ``tree``."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("packages")
    copy_tree(folder / "tree")
    unpack_commit_before(folder / "earlier", folder / "tree")
    made = folder / "made"
    made.mkdir()
    trees = [f"{folder / 'earlier'}:/earlier", f"{folder / 'tree'}:{TREE}"]
    with boot("wazuh-comms-build", folder / "console", trees, [f"{made}:{MADE}"]) as machine:
        machine.shell(
            f"""
            mkdir {MADE}/now {MADE}/before
            {BUILD} DEB_VERSION={NOW} {TREE}/packaging/deb/build {MADE}/now
            {BUILD} DEB_VERSION={BEFORE} /earlier/packaging/deb/build {MADE}/before
        """,
            timeout=280,
        )
    return folder


@pytest.fixture
def clean(packages: Path, tmp_path: Path) -> Iterator[Machine]:
    """A machine without the program, and with the packages and the tree."""
    binds = [f"{packages / 'made'}:{MADE}", f"{packages / 'tree'}:{TREE}"]
    with boot("wazuh-comms-package", tmp_path / "console", binds) as machine:
        yield machine


def configure(machine: Machine) -> None:
    machine.shell(MAKE_CERTIFICATES)
    machine.write(CONFIG, CONFIGURATION, "640", "root:wazuh-comms")


def installed(machine: Machine) -> str:
    return machine.shell("dpkg-query --show --showformat='${Status} ${Version}' wazuh-comms", check=False)


def test_two_builds_are_the_same_and_lintian_finds_no_error(packages: Path, clean: Machine) -> None:
    clean.shell(f"umask 077; mkdir /tmp/again; cd /tmp; {BUILD} DEB_VERSION={NOW} {TREE}/packaging/deb/build again")
    clean.shell("cmp /tmp/again/*.deb /made/now/*.deb")
    (now,) = (packages / "made/now").glob("*.deb")
    if shutil.which("lintian") is None:
        pytest.skip("lintian isn't here")
    done = subprocess.run(
        ["lintian", "--fail-on", "error", str(now)], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_installed_upgraded_under_load_removed_and_purged(clean: Machine) -> None:
    clean.shell("dpkg --install /made/before/*.deb")
    assert (clean.state(SERVICE), clean.state(SOCKET)) == ("inactive", "inactive")  # it has no keys yet
    assert clean.shell(f"stat -c %a:%U:%G {CONFIG} {STATE}").split() == [
        "640:root:wazuh-comms",
        "700:wazuh-comms:wazuh-comms",
    ]
    clean.shell("""
        test -s /usr/share/man/man1/wazuh-comms.1.gz
        test -s /usr/share/bash-completion/completions/wazuh-comms
        test -s /usr/share/doc/wazuh-comms/sbom.cdx.json
        ! test -e /usr/lib/wazuh-comms/bin/pip
    """)
    configure(clean)
    clean.shell(f"systemctl enable --now {SOCKET} {SERVICE}; {ALIVE}; wazuh-comms agents add web-1")
    supervisor = clean.property(SERVICE, "MainPID")

    load = clean.start("sh", "-c", f"while ! test -e /tmp/done; do {ALIVE} > /tmp/answer || echo refused; done")
    clean.shell("dpkg --install /made/now/*.deb")
    clean.shell(f"touch /tmp/done; {ALIVE}")
    assert "refused" not in load.communicate(timeout=60)[0]
    assert installed(clean) == f"install ok installed {NOW}"
    conf = clean.shell("cd /usr/share/doc/wazuh-comms/conf; ls */* | cut -d/ -f1 | sort -u").split()
    assert conf == ["balancers", "fleets", "grafana", "prometheus"]
    assert clean.property(SERVICE, "MainPID") != supervisor
    clean.wait("wazuh-comms status")
    assert "web-1" in clean.shell("wazuh-comms agents list")
    assert clean.shell(f"systemctl is-enabled {SERVICE} {SOCKET}").split() == ["enabled", "enabled"]

    clean.shell("dpkg --remove wazuh-comms")
    assert (clean.state(SERVICE), clean.state(SOCKET)) == ("inactive", "inactive")
    clean.shell(
        f"test -s {STATE}/state.db; test -s {CONFIG}; ! test -e /usr/lib/wazuh-comms; ! test -e /usr/bin/wazuh-comms"
    )
    clean.shell(f"dpkg --install /made/now/*.deb; systemctl start {SERVICE}; wazuh-comms agents list | grep web-1")

    clean.shell("dpkg --purge wazuh-comms")
    left = clean.shell("""
        find / -xdev -name '*wazuh*' | grep -Ev '^/(proc|made|src|tree|tmp)/' || true
        getent passwd wazuh-comms || true
    """)
    assert [path for path in left.split() if "machine-id" not in path and not path.startswith("/run")] == [
        "/etc/wazuh-server",  # keys are in it, which are nobody's to delete
        CONFIG,  # it was replaced by one of the operator's own
    ], left
    assert clean.shell("find /etc/wazuh-server -type f | sort").split() == [
        "/etc/wazuh-server/certs/cert.pem",
        "/etc/wazuh-server/certs/key.pem",
        CONFIG,
    ]


def test_a_configuration_that_another_package_owns_survives_a_purge(clean: Machine) -> None:
    clean.shell(f"""
        mkdir -p /tmp/other/DEBIAN /tmp/other/etc/wazuh-server
        cp {TREE}/conf/wazuh-server.yml /tmp/other{CONFIG}
        printf '%s\\n' 'Package: wazuh-other' 'Version: 1' 'Architecture: all' 'Maintainer: A <a@example.com>' \\
            'Description: x' > /tmp/other/DEBIAN/control
        dpkg-deb --build /tmp/other /tmp/other.deb
        dpkg --install /tmp/other.deb /made/now/*.deb
        dpkg --purge wazuh-comms
        cmp {CONFIG} {TREE}/conf/wazuh-server.yml
        dpkg --purge wazuh-other
        dpkg --install /made/now/*.deb
        test -s {CONFIG}
        dpkg --purge wazuh-comms
        ! test -e {CONFIG}
        ! test -e /etc/wazuh-server
    """)


@pytest.mark.parametrize("prefix", ["/usr/local", "/opt/comms", "/usr"])
def test_what_the_script_had_installed_is_taken_over(prefix: str, clean: Machine) -> None:
    clean.shell(f"cd /; {INSTALL.replace(CHECKOUT, TREE)} --prefix {prefix}")
    configure(clean)
    clean.shell(f"systemctl enable --now {SOCKET} {SERVICE}; {prefix}/bin/wazuh-comms agents add web-1")
    clean.shell("dpkg --install /made/now/*.deb")
    assert clean.shell("command -v wazuh-comms").strip() == "/usr/bin/wazuh-comms"
    unit = clean.property(SERVICE, "FragmentPath")
    assert clean.shell(f"realpath {unit}").strip() == f"/usr/lib/systemd/system/{SERVICE}"
    assert clean.shell(f"systemctl is-enabled {SERVICE} {SOCKET}").split() == ["enabled", "enabled"]
    supervisor = clean.property(SERVICE, "MainPID")
    assert "/usr/bin/wazuh-comms-apid" in clean.shell(f"tr '\\0' ' ' < /proc/{supervisor}/cmdline")
    clean.shell(f"{ALIVE}; wazuh-comms agents list | grep web-1; systemctl restart {SERVICE}; {ALIVE}")
    if prefix != "/usr":
        assert clean.shell(f"find {prefix} -name '*wazuh*'") == ""
