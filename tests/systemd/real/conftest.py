"""One machine for all tests here, with the checkout installed by ``scripts/install``; each begins with a service that
was never started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.systemd.real.machine import CHECKOUT, WHEELS, Machine, boot, missing

CONFIG = "/etc/wazuh-server/wazuh-server.yml"
STATE = "/var/lib/wazuh-comms"
CERTIFICATES = "/etc/wazuh-server/certs"
CONFIGURATION = f"""\
communications_api:
  host: 0.0.0.0
  port: 27000
  workers: 2
  ssl: {{key: {CERTIFICATES}/key.pem, cert: {CERTIFICATES}/cert.pem}}
  backend: embedded
"""

INSTALL = f"env PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} {CHECKOUT}/scripts/install"
MAKE_CERTIFICATES = f"""
mkdir -p {CERTIFICATES}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 400 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {CERTIFICATES}/key.pem -out {CERTIFICATES}/cert.pem
chgrp -R wazuh-comms {CERTIFICATES}
chmod 640 {CERTIFICATES}/key.pem
"""
_CLEAN = f"""
systemctl stop wazuh-comms-apid.socket wazuh-comms-apid.service
systemctl disable --quiet wazuh-comms-apid.socket wazuh-comms-apid.service
systemctl reset-failed
rm -rf {STATE} /etc/systemd/system/wazuh-comms-apid.*.d /run/wazuh-server /var/log/wazuh-comms
install -d -m 700 -o wazuh-comms -g wazuh-comms {STATE}
systemctl daemon-reload
journalctl --quiet --rotate --vacuum-time=1s
"""


@pytest.fixture(scope="session")
def _booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    with boot("wazuh-comms-tests", tmp_path_factory.mktemp("machine") / "console") as machine:
        machine.shell(f"cd /\n{INSTALL}\n{MAKE_CERTIFICATES}")
        yield machine


@pytest.fixture
def machine(_booted: Machine) -> Machine:
    """With a configuration that can be used, and a service that is stopped and knows nothing."""
    _booted.shell(_CLEAN)
    _booted.write(CONFIG, CONFIGURATION, "640", "root:wazuh-comms")
    return _booted
