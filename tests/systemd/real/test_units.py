"""The units under a real systemd: reload, restart, stop, and what becomes of a configuration that can't be used."""

from __future__ import annotations

import pytest

from tests.systemd.real.conftest import CERTIFICATES, CONFIG, CONFIGURATION
from tests.systemd.real.machine import Machine

pytestmark = [pytest.mark.processes, pytest.mark.machine]

SERVICE, SOCKET = "wazuh-comms-apid.service", "wazuh-comms-apid.socket"
ALIVE = "curl -sSk --max-time 20 https://127.0.0.1:27000/api/v1/"
BROKEN = CONFIGURATION.replace("workers: 2", "workers: many")
ROOTS_KEY = f"chown root:root {CERTIFICATES}/key.pem; chmod 600 {CERTIFICATES}/key.pem"
GROUPS_KEY = f"chgrp wazuh-comms {CERTIFICATES}/key.pem; chmod 640 {CERTIFICATES}/key.pem"
CREDENTIALS = f"""\
[Service]
LoadCredential=ssl.key:{CERTIFICATES}/key.pem
LoadCredential=ssl.cert:{CERTIFICATES}/cert.pem
"""
UUID = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
#: Log-ins in turn, each with another wrong key, since one that is known to be wrong isn't hashed; says which ones
#: were answered otherwise than that.
LOG_IN = f"""
while ! test -e /tmp/seen; do
    number=$((number + 1))
    key=$(printf %032d $number)
    curl -sSk --max-time 20 -H 'Content-Type: application/json' -d '{{"uuid": "{UUID}", "key": "'$key'"}}' \\
        https://127.0.0.1:27000/api/v1/authentication | grep -v 'Invalid key'
done
"""
#: Waits until a thread of one of these processes is nicer than the process, and prints both nice values.
NICER_THREAD = """
import glob, sys, time
until = time.monotonic() + 60
def nice(file):
    try:
        return int(open(file).read().rpartition(")")[2].split()[16])
    except OSError:  # it ended meanwhile
        return -99
while time.monotonic() < until:
    for worker in sys.argv[1:]:
        own = nice(f"/proc/{worker}/stat")
        for thread in glob.glob(f"/proc/{worker}/task/*/stat"):
            if nice(thread) > own > -99:
                sys.exit(print(own, nice(thread)))
sys.exit("no thread is nicer than its process")
"""


def test_it_starts_serves_reloads_restarts_and_stops(machine: Machine) -> None:
    machine.shell(f"systemctl enable --now {SOCKET} {SERVICE}")
    machine.wait(f"systemctl status {SERVICE} | grep -q '2 of 2 workers serve'")
    machine.shell(ALIVE)
    machine.run("wazuh-comms", "status")
    supervisor = machine.property(SERVICE, "MainPID")
    machine.shell(f"systemctl reload {SERVICE}")
    assert machine.property(SERVICE, "MainPID") == supervisor
    machine.shell(f"systemctl restart {SERVICE}; {ALIVE}")
    machine.shell(f"systemctl stop {SOCKET} {SERVICE}")
    assert (machine.state(SERVICE), machine.state(SOCKET)) == ("inactive", "inactive")
    assert machine.journal("--priority=warning") == ""


def test_keys_are_hashed_behind_what_agents_wait_for(machine: Machine) -> None:
    """The unit's system call filter has a thread of a worker change its own priority."""
    machine.shell(f"rm -f /tmp/seen; systemctl enable --now {SOCKET} {SERVICE}; wazuh-comms agents add a --uuid {UUID}")
    machine.wait(f"systemctl status {SERVICE} | grep -q '2 of 2 workers serve'")
    workers = machine.shell(f"pgrep --parent {machine.property(SERVICE, 'MainPID')}").split()
    log_ins = machine.start("sh", "-c", f"number=0; {LOG_IN}")
    try:
        assert machine.run("python3", "-c", NICER_THREAD, *workers).stdout.split() == ["0", "5"]
    finally:
        machine.shell("touch /tmp/seen")
        answers = log_ins.communicate(timeout=60)[0]
    assert answers == ""  # each was answered, with the error of a wrong key


def test_a_reload_with_credentials_that_only_root_can_read(machine: Machine) -> None:
    machine.write(f"/etc/systemd/system/{SERVICE}.d/keys.conf", CREDENTIALS)
    machine.shell(f"{ROOTS_KEY}; systemctl daemon-reload; systemctl enable --now {SOCKET} {SERVICE}")
    try:
        machine.shell(f"systemctl reload {SERVICE}; {ALIVE}")
        machine.write(CONFIG, BROKEN, "640", "root:wazuh-comms")
        refused = machine.run("systemctl", "reload", SERVICE, check=False)
        assert refused.returncode == 1
        assert "communications_api.workers" in machine.journal("--priority=warning")
        machine.shell(ALIVE)
    finally:
        machine.shell(GROUPS_KEY)


def test_a_configuration_that_cannot_be_used_is_tried_once_and_heals_by_a_restart(machine: Machine) -> None:
    machine.shell(f"systemctl enable {SOCKET} {SERVICE}")
    machine.write(CONFIG, BROKEN, "640", "root:wazuh-comms")
    machine.shell(f"systemctl start {SOCKET}")
    agents = [machine.start("sh", "-c", f"{ALIVE} || true") for _ in range(5)]  # each would start the service
    machine.wait(f"systemctl is-failed {SERVICE}")
    machine.wait(f"! systemctl is-active {SOCKET}")
    for agent in agents:
        agent.communicate(timeout=30)
    machine.run("sh", "-c", f"{ALIVE}", check=False)
    assert machine.property(SERVICE, "ExecMainStatus") == "78"
    # The reason is where it is looked for, and once: there was no storm.
    assert machine.journal("--priority=warning").count("communications_api.workers") == 1
    assert machine.property(SERVICE, "NRestarts") == "0"

    machine.write(CONFIG, CONFIGURATION, "640", "root:wazuh-comms")
    machine.shell(f"systemctl restart {SERVICE}; {ALIVE}")
    assert (machine.state(SERVICE), machine.state(SOCKET)) == ("active", "active")
    supervisor = machine.property(SERVICE, "MainPID")
    machine.shell(f"systemctl restart {SERVICE}; {ALIVE}")  # the socket is passed again
    assert machine.property(SERVICE, "MainPID") != supervisor
    machine.wait("wazuh-comms status")  # the service is there with its first worker


def test_it_goes_on_trying_after_what_may_pass(machine: Machine) -> None:
    """Another program has the port for a while; afterwards the service is there again by itself."""
    machine.shell("systemd-run --unit=other python3 -m http.server 27000")
    machine.wait("ss -ltn | grep -q :27000")
    machine.shell(f"systemctl start --no-block {SERVICE}")
    machine.wait(f'[ "$(systemctl show --property=NRestarts --value {SERVICE})" -ge 6 ]', 60)
    machine.shell("systemctl stop other")
    machine.wait(f"systemctl is-active {SERVICE}")


def test_a_socket_unit_that_passes_nothing_is_said(machine: Machine) -> None:
    """Enabled, but the service was started without it: connections would be refused while it restarts."""
    machine.shell(f"systemctl enable --now {SERVICE} {SOCKET}; systemctl stop {SERVICE} {SOCKET}")
    machine.shell(f"systemctl mask --runtime {SOCKET}; systemctl start {SERVICE}; systemctl unmask --runtime {SOCKET}")
    said = f"{SOCKET} is enabled, but nothing was passed"
    assert said in machine.journal("--priority=warning")
    status = machine.run("wazuh-comms", "status", check=False)
    assert (status.returncode, said in status.stdout) == (1, True), status.stdout


def test_a_supervisor_that_hangs_is_replaced_by_the_service_manager(machine: Machine) -> None:
    """With the unit's own directives, but for the time: ten times as quick. Its workers go with it."""
    machine.write(f"/etc/systemd/system/{SERVICE}.d/soon.conf", "[Service]\nWatchdogSec=3\n")
    machine.shell(f"systemctl daemon-reload; systemctl enable --now {SOCKET} {SERVICE}")
    machine.wait(f"systemctl status {SERVICE} | grep -q '2 of 2 workers serve'")
    supervisor = machine.property(SERVICE, "MainPID")
    workers = machine.shell(f"pgrep --parent {supervisor}").split()
    machine.shell(f"kill -STOP {supervisor}")
    machine.wait(f'[ "$(systemctl show --property=NRestarts --value {SERVICE})" = 1 ]', 60)
    machine.wait(f"systemctl status {SERVICE} | grep -q '2 of 2 workers serve'")
    assert "watchdog" in machine.journal()
    assert machine.property(SERVICE, "MainPID") != supervisor
    for pid in (supervisor, *workers):
        machine.shell(f"! kill -0 {pid}")
    assert len(workers) == 2
    machine.shell(ALIVE)
