"""State and files of the service under a real systemd: what root leaves, what a restore does, where logs go."""

from __future__ import annotations

import pytest

from tests.systemd.real.conftest import CONFIG, CONFIGURATION, STATE
from tests.systemd.real.machine import Machine

pytestmark = [pytest.mark.processes, pytest.mark.machine]

SERVICE, SOCKET = "wazuh-comms-apid.service", "wazuh-comms-apid.socket"
ALIVE = "curl -sSk --max-time 20 https://127.0.0.1:27000/api/v1/"
LOG_FILE = "/var/log/wazuh-comms/apid.log"
#: What a restore does that takes three seconds.
HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "r+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(3)
"""
ELSEWHERE = "/srv/comms/deep/state"


@pytest.fixture
def elsewhere(machine: Machine) -> Machine:
    """The state in a folder that isn't there yet, which no unit makes."""
    machine.shell("rm -rf /srv/comms")
    machine.write(CONFIG, f"{CONFIGURATION}  embedded: {{path: {ELSEWHERE}}}\n", "640", "root:wazuh-comms")
    drop_in = f"[Service]\nReadWritePaths=-{ELSEWHERE}\n"
    machine.write(f"/etc/systemd/system/{SERVICE}.d/state.conf", drop_in)
    machine.shell("systemctl daemon-reload")
    return machine


def owners(machine: Machine, folder: str) -> set[str]:
    return set(machine.shell(f"find {folder} -printf '%u:%g\\n'").split())


@pytest.mark.parametrize("before", ["rm -rf", "true"], ids=["no folder", "an empty folder"])
def test_a_restore_as_root_leaves_what_the_service_can_use(before: str, machine: Machine) -> None:
    machine.shell(f"""
        systemctl start {SERVICE}
        wazuh-comms agents add web-1 --uuid 0194857f-39b5-7bfb-a7bc-c5c6835f03d1
        wazuh-comms backup /root/comms.backup
        systemctl stop {SERVICE}
        {before} {STATE} && install -d -m 700 -o wazuh-comms -g wazuh-comms {STATE if before == "true" else "/tmp/none"}
        wazuh-comms restore /root/comms.backup
    """)
    assert owners(machine, STATE) == {"wazuh-comms:wazuh-comms"}
    machine.shell(f"systemctl start {SERVICE}; {ALIVE}; wazuh-comms agents list | grep web-1")
    assert machine.journal("--priority=warning") == ""


def test_a_restore_as_root_into_a_folder_that_no_unit_makes(elsewhere: Machine) -> None:
    elsewhere.write("/root/small.yml", f"{CONFIGURATION}  embedded: {{path: /root/made}}\n")
    elsewhere.shell("wazuh-comms --config /root/small.yml agents add web-1; rm -f /root/comms.backup")
    assert owners(elsewhere, "/root/made") == {"root:root"}  # a configuration of root's own: nobody else's state
    elsewhere.shell("wazuh-comms --config /root/small.yml backup /root/comms.backup; rm -rf /root/made")
    elsewhere.shell("wazuh-comms restore /root/comms.backup")
    assert owners(elsewhere, ELSEWHERE) == {"wazuh-comms:wazuh-comms"}
    assert elsewhere.shell("stat -c %U:%a /srv/comms /srv/comms/deep").split() == ["root:755", "root:755"]
    elsewhere.shell(f"systemctl start {SERVICE}; {ALIVE}; wazuh-comms agents list | grep web-1")


@pytest.mark.parametrize("command", ["agents add web-1", "quarantine list", "commands send --all restart"])
def test_whatever_root_does_first_leaves_what_the_service_can_use(command: str, elsewhere: Machine) -> None:
    elsewhere.shell(f"wazuh-comms {command} || true")
    assert owners(elsewhere, ELSEWHERE) == {"wazuh-comms:wazuh-comms"}
    elsewhere.shell(f"systemctl start {SERVICE}; {ALIVE}; wazuh-comms agents list")


def test_a_restore_says_what_holds_the_state(machine: Machine) -> None:
    machine.shell(f"systemctl enable --now {SERVICE} {SOCKET}; wazuh-comms backup /root/comms.backup")
    machine.shell(f"systemctl stop {SERVICE}; {ALIVE}")  # an agent starts it again
    machine.wait(f"systemctl is-active {SERVICE}")
    refused = machine.run("wazuh-comms", "restore", "/root/comms.backup", check=False)
    assert refused.returncode == 1
    assert f"systemctl stop {SOCKET} {SERVICE}" in refused.stderr
    machine.shell(f"systemctl stop {SOCKET} {SERVICE}; wazuh-comms restore /root/comms.backup")


def test_a_start_during_a_restore_waits_for_its_end(machine: Machine) -> None:
    machine.shell(f"systemctl enable --now {SOCKET} {SERVICE}; systemctl stop {SERVICE}")
    machine.write("/tmp/hold.py", HOLD)
    holder = machine.start("runuser", "-u", "wazuh-comms", "--", "python3", "/tmp/hold.py", f"{STATE}/state.lock")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    machine.shell(ALIVE)  # starts it, and is answered once the restore is over
    assert holder.poll() is not None
    holder.communicate()
    assert machine.property(SERVICE, "NRestarts") == "0"
    assert "is being restored; waiting for the end of that" in machine.journal()


def test_the_log_file_can_be_read_by_the_group(machine: Machine) -> None:
    machine.write(
        CONFIG, f"{CONFIGURATION}  logging: {{file: /var/log/wazuh-comms/apid.log}}\n", "640", "root:wazuh-comms"
    )
    machine.write(f"/etc/systemd/system/{SERVICE}.d/logs.conf", "[Service]\nLogsDirectory=wazuh-comms\n")
    machine.shell(f"systemctl daemon-reload; systemctl start {SERVICE}; {ALIVE}")
    assert machine.shell(f"stat -c %a:%U:%G {LOG_FILE}").strip() == "640:wazuh-comms:wazuh-comms"


def test_a_log_file_that_cannot_be_written_is_78(machine: Machine) -> None:
    machine.write(
        CONFIG, f"{CONFIGURATION}  logging: {{file: /var/log/wazuh-comms/apid.log}}\n", "640", "root:wazuh-comms"
    )
    started = machine.run("systemctl", "start", SERVICE, check=False)
    assert started.returncode == 1
    assert (machine.property(SERVICE, "ExecMainStatus"), machine.property(SERVICE, "NRestarts")) == ("78", "0")
    assert f"logging.file can't be written: {LOG_FILE}" in machine.journal("--priority=warning")


def test_the_check_as_root_says_what_the_service_cannot_read(machine: Machine) -> None:
    machine.shell("chmod 600 /etc/wazuh-server/certs/key.pem")
    try:
        for command in ("wazuh-comms-apid --check", "wazuh-comms config check"):
            said = machine.shell(command)
            assert "wazuh-comms" in said
            assert '"/etc/wazuh-server/certs/key.pem" can\'t be read: Permission denied' in said
    finally:
        machine.shell("chmod 640 /etc/wazuh-server/certs/key.pem")
    assert "Permission denied" not in machine.shell("wazuh-comms-apid --check; wazuh-comms config check")
