"""Pages of docs/runbooks, from beginning to end, with the real daemon and tool."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.runbooks.pages import Step, run_page
from wazuh_comms_trio.testing import throwaway_certificate

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

UUID = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
KEY = "k" * 32
#: An agent that goes on and on, as the page's own would, with events each second.
AGENT_STARTS = f"""\
wazuh-comms agents add web-1 --uuid {UUID} --key {KEY}
printf '{{"uuid": "{UUID}", "name": "web-1", "key": "{KEY}"}}\\n' > /agents.jsonl
echo 'fleet: {{stateless: {{every: 1}}}}' > /mix.yml
wazuh-comms simulate-fleet --agents 1 --agents-file /agents.jsonl --mix /mix.yml --ramp 0 \
    --url "https://$(sed -n 's/^  host: //p' /etc/wazuh-server/wazuh-server.yml):27000" > /log 2>&1 &
until wazuh-comms events tail --agent web-1 | grep -q original; do sleep 0.1; done
"""
CONFIGURATION = """\
communications_api:
  host: 127.0.0.1
  workers: 1
  backend: embedded
  ssl:
    key: /etc/wazuh-server/certs/node-key.pem
    cert: /etc/wazuh-server/certs/node.pem
  embedded:
    path: /var/lib/wazuh-comms
  files:
    path: /etc/wazuh-server/groups
"""


def node(*more: str, machine: str = "node", host: str = "127.0.0.1", backend: str = "embedded") -> list[Step]:
    """One that serves, and more; what the first page makes, with less to wait for."""
    certificate = throwaway_certificate()
    start = f"""\
cd /etc/wazuh-server
mkdir -p groups
cat > certs/node.pem <<'END'
{certificate.cert.read_text()}END
cat > certs/node-key.pem <<'END'
{certificate.key.read_text()}END
cat > wazuh-server.yml <<'END'
{CONFIGURATION.replace("127.0.0.1", host).replace("backend: embedded", f"backend: {backend}")}END
systemctl start wazuh-comms-apid
"""
    return [Step(machine, each) for each in (start, *more)]


def test_first_node(tmp_path: Path) -> None:
    said = run_page("first-node", tmp_path)
    assert "node.pem: OK" in said[1]
    assert said[2].count("/etc/wazuh-server/wazuh-server.yml can be used") == 2
    assert "1 of 1 serve" in said[3]
    assert "1 agent: " in said[4]
    assert "failed" not in said[4]
    assert re.search(r"fleet-[0-9a-f]{4}-00001 +active", said[4])
    assert "removed " in said[4]
    assert "nothing is damaged" in said[5]


def test_leaked_agent_key(tmp_path: Path) -> None:
    ended = "until wazuh-comms agents why web-1 | grep wrong_key; do sleep 0.1; done\n"
    said = run_page("leaked-agent-key", tmp_path, before=node(AGENT_STARTS), after=[Step("node", ended)])
    assert "has never logged in" not in said[0]
    assert re.search(r"^key +[A-Za-z0-9]{32}$", said[1], re.MULTILINE)
    assert KEY not in said[1]
    assert "@received" in said[3] or "original" in said[3]
    assert "wrong_key" in said[4]


def test_moving(tmp_path: Path) -> None:
    said = run_page("moving", tmp_path, before=node("wazuh-comms agents add web-1\n", machine="old"))
    assert "web-1" in said[2]
    assert "1 of 1 serve" in said[2]


def test_upgrading(tmp_path: Path) -> None:
    said = run_page("upgrading", tmp_path, before=node())
    assert "can be used" in said[1]
    assert "1 of 1 serve" in said[3]


def test_damaged_store(tmp_path: Path) -> None:
    damage = """\
file=$(ls /var/lib/wazuh-comms/events/*.ndjson | head -1)
printf x | dd of="$file" bs=1 seek=300 conv=notrunc status=none
"""
    said = run_page("damaged-store", tmp_path, before=node(AGENT_STARTS, damage))
    assert "can't be read" in said[0]
    assert "web-1" in said[3]


@pytest.mark.balancers
def test_behind_a_balancer(tmp_path: Path) -> None:
    if shutil.which("haproxy") is None:
        pytest.skip("HAProxy isn't here")
    said = run_page("behind-a-balancer", tmp_path, before=node(host="10.0.0.11"))
    assert "10.0.0.99" in said[4]
    assert "drain" in said[5]


#: An OpenSearch for both machines; it ends with the namespaces.
INDEXER_STARTS = """\
cd "$WAZUH_COMMS_SOURCE"
cat > /indexer.py <<'END'
import time
from pathlib import Path
from tests.indexer.cluster import nodes
with nodes(1) as (indexer,):
    Path("/backups/part").write_text(str(indexer.port))
    Path("/backups/part").rename("/backups/indexer")
    time.sleep(3600)
END
PYTHONPATH=. python /indexer.py > /indexer.log 2>&1 &
until [ -e /backups/indexer ]; do kill -0 $! || { cat /indexer.log; exit 1; }; sleep 0.1; done
"""
SHARED = """\
cat >> /etc/wazuh-server/wazuh-server.yml <<END
  token:
    private_key: /etc/wazuh-server/certs/token.pem
indexer:
  hosts: [{host: 127.0.0.1, port: $(cat /backups/indexer)}]
  username: admin
  password: admin
  ssl: {use_ssl: false}
END
"""
SIGNING = "openssl ecparam -name prime256v1 -genkey -noout -out /etc/wazuh-server/certs/token.pem\n"


@pytest.mark.indexer
def test_several_nodes(tmp_path: Path) -> None:
    first, second = (node(machine=f"node-{n}", host=f"10.0.0.1{n}", backend="wazuh") for n in (1, 2))
    made = [Step(each.machine, each.text.replace("systemctl start wazuh-comms-apid\n", "")) for each in first + second]
    before = [*made, Step("node-1", INDEXER_STARTS), Step("node-1", SHARED + SIGNING), Step("node-2", SHARED)]
    before.append(Step("node-1", "systemctl start wazuh-comms-apid\n"))
    said = run_page("several-nodes", tmp_path, before=before)
    assert "both-1" in said[4]
    assert "both-1" in said[5]
