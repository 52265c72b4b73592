"""The alert rules and the dashboard of conf/, by promtool: each rule fires and stops."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.operators.prometheus import ROOT, RULES, promtool
from tests.operators.test_page import everything
from wazuh_comms_trio.api.metrics_page import render
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.families import FAMILIES

pytestmark = pytest.mark.prometheus
DASHBOARD = ROOT / "conf/grafana/wazuh-comms.json"
P = "wazuh_comms_"
INSTANCE = 'instance="n1",job="wazuh-comms"'
#: promtool's clock begins here.
DAY = 86400

#: Of each rule: the series, a minute a step; minutes at which it fires and at which it has stopped; labels that the
#: alert has besides.
CASES: dict[str, tuple[dict[str, str], int, int, dict[str, str]]] = {
    "WazuhCommsDown": ({"up": "1 0x10 1x20"}, 8, 20, {}),
    "WazuhCommsNotReady": ({P + "ready": "1 0x10 1x20"}, 8, 20, {}),
    "WazuhCommsWorkersMissing": (
        {P + 'workers{state="serving"}': "4 3x10 4x20", P + "workers_configured": "4x40"},
        9,
        20,
        {},
    ),
    "WazuhCommsWorkersRestart": ({P + "worker_restarts_total": "0+1x10 10x40"}, 10, 40, {}),
    "WazuhCommsServerErrors": (
        {
            P + 'http_requests_total{listener="agents",route="/a",status="200"}': "0+90x60",
            P + 'http_requests_total{listener="agents",route="/a",status="503"}': "0+10x20 200x40",
        },
        15,
        40,
        {},
    ),
    "WazuhCommsSlowBackend": (
        {
            P + 'backend_call_duration_seconds_bucket{backend="events",call="bulk",le="2.5"}': "0x20 0+100x60",
            P + 'backend_call_duration_seconds_bucket{backend="events",call="bulk",le="5.0"}': "0+10x20 200+100x60",
            P + 'backend_call_duration_seconds_bucket{backend="events",call="bulk",le="+Inf"}': "0+10x20 200+100x60",
        },
        18,
        60,
        {"backend": "events", "call": "bulk"},
    ),
    "WazuhCommsLoginsRefused": (
        {P + 'logins_refused_total{cause="wrong_key"}': "0+20x30 600x40"},
        25,
        60,
        {"cause": "wrong_key"},
    ),
    "WazuhCommsHandshakesFail": (
        {P + 'tls_handshakes_failed_total{listener="agents",cause="distrusts_us"}': "0+20x30 600x40"},
        25,
        60,
        {"cause": "distrusts_us"},
    ),
    "WazuhCommsEventsQuarantined": (
        {P + 'events_total{kind="stateful",outcome="quarantined"}': "0 5x60"},
        5,
        40,
        {"kind": "stateful", "outcome": "quarantined"},
    ),
    "WazuhCommsStoreFillsUp": (
        {P + 'store_used_bytes{store="events"}': "81x20 70x30", P + 'store_limit_bytes{store="events"}': "100x60"},
        10,
        40,
        {"store": "events"},
    ),
    "WazuhCommsCertificateEnds": (
        {P + "tls_certificate_not_after_timestamp_seconds": f"{5 * DAY}x20 {300 * DAY}x30"},
        10,
        40,
        {},
    ),
    "WazuhCommsWarning": ({P + 'warnings{kind="disk"}': "1x20 0x30"}, 10, 40, {"kind": "disk"}),
    "WazuhCommsEventLoopLate": ({P + "event_loop_lag_seconds": "1.5x20 0.01x30"}, 10, 40, {}),
    "WazuhCommsDescriptorsRunOut": (
        {
            P + "open_files": "900x20 100x30",
            P + "open_files_limit": "1024x60",
            P + "listeners_out_of_descriptors": "0x60",
        },
        10,
        40,
        {},
    ),
    "WazuhCommsCommandsArentConfirmed": (
        {P + 'commands_total{state="released"}': "0+10x20 200x60", P + 'commands_total{state="sent"}': "0+1x80"},
        20,
        70,
        {},
    ),
    "WazuhCommsNoLeader": ({P + "leaders": "0x10 1x20"}, 8, 20, {}),
}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def metrics_of(expression: str) -> set[str]:
    """Names of ours, without a histogram's suffixes."""
    names = set(re.findall(r"\bwazuh_comms_\w+", expression))
    return {name if name in FAMILIES else re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def series(name: str) -> str:
    metric, brace, labels = name.partition("{")
    return f"{metric}{{{INSTANCE}{',' + labels if brace else '}'}"


def test_each_rule_has_its_case() -> None:
    assert {rule["alert"] for rule in rules()} == set(CASES)
    for rule in rules():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert metrics_of(rule["expr"]) <= set(FAMILIES), rule["alert"]


def test_promtool_takes_rules_and_metrics() -> None:
    assert f"{len(CASES)} rules found" in promtool("check", "rules", str(RULES))
    page, _ = render(everything(), "")
    assert promtool("check", "metrics", given=page) == ""


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_and_it_stops(tmp_path: Path, alert: str) -> None:
    values, fires, stops, more = CASES[alert]
    (severity,) = [rule["labels"]["severity"] for rule in rules() if rule["alert"] == alert]
    labels = {"instance": "n1", "job": "wazuh-comms", "severity": severity, **more}
    once = tmp_path / "expected.yml"
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series(name), "values": value} for name, value in values.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
                        "eval_time": f"{minute}m",
                        "exp_samples": [{"labels": "{}", "value": firing}],
                    }
                    for minute, firing in ((0, 0), (fires, 1), (stops, 0))
                ]
                + [
                    {
                        "expr": f'group by ({", ".join(labels)}) (ALERTS{{alertname="{alert}", alertstate="firing"}})',
                        "eval_time": f"{fires}m",
                        "exp_samples": [{"labels": json_labels(labels), "value": 1}],
                    }
                ],
            }
        ],
    }
    once.write_text(yaml.safe_dump(test))
    assert "SUCCESS" in promtool("test", "rules", str(once))


def json_labels(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def test_what_alerts_on_an_increase_begins_at_nought() -> None:
    """The first event in quarantine is an increase only if the counter was there before it."""
    body, _ = render(Metrics().snapshot(), "")
    samples = {line.rpartition(" ")[0] for line in body.decode().splitlines() if line.endswith(" 0.0")}
    found = re.findall(r"increase\((\w+)(\{[^}]*\})?", RULES.read_text())
    assert len(found) == 4
    for name, matchers in found:
        wanted = set(re.findall(r'\w+="[^"]*"', matchers))
        begun = [sample for sample in samples if sample.partition("{")[0] == name]
        assert any(wanted <= set(re.findall(r'\w+="[^"]*"', sample)) for sample in begun), (name, matchers)


def targets() -> list[dict[str, Any]]:
    """What the dashboard's panels ask for."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target for panel in panels for target in panel.get("targets", ())]


def test_the_dashboard_shows_what_there_is(tmp_path: Path) -> None:
    """Each panel's expression is one that Prometheus takes, of metrics that there are."""
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for target in targets()]
    assert len(expressions) > 20
    for expression in expressions:
        assert metrics_of(expression), expression
        assert metrics_of(expression) <= set(FAMILIES), expression
    plain = [
        {"record": f"panel:number:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": plain}]}))
    assert f"{len(expressions)} rules found" in promtool("check", "rules", str(file))
    boxes = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(x, y) for b in boxes for x in range(b["x"], b["x"] + b["w"]) for y in range(b["y"], b["y"] + b["h"])]
    assert len(cells) == len(set(cells))  # no panel lies on another
    assert max(x for x, _ in cells) < 24


#: What Grafana's published schema of a dashboard wants of each kind of panel.
OPTIONS = {
    "stat": "colorMode graphMode justifyMode orientation percentChangeColorMode reduceOptions showPercentChange"
    " textMode wideLayout",
    "timeseries": "legend tooltip",
}


def test_panels_have_the_options_that_the_schema_wants() -> None:
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    assert {panel["type"] for panel in panels} == set(OPTIONS)
    for panel in panels:
        assert sorted(panel["options"]) == OPTIONS[panel["type"]].split(), panel["title"]


def test_numbers_of_the_dashboard_have_units_and_colours_of_their_own() -> None:
    """Grafana's own colours of a number turn red at 80, whatever the number is."""
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    for panel in panels:
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in {"short", "percentunit", "s", "bytes", "Bps", "reqps", "cps", "ops"}, panel["title"]
        is_rate = all(re.search(r"\brate\(", target["expr"]) for target in panel["targets"])
        assert is_rate or defaults["unit"] not in {"Bps", "reqps", "cps", "ops"}, panel["title"]
        if panel["type"] == "stat":
            steps = defaults["thresholds"]["steps"]
            assert steps[0]["value"] is None, panel["title"]
            assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_of_several_nodes_the_dashboard_shows_the_fullest_store(tmp_path: Path) -> None:
    (panel,) = [target["expr"] for target in targets() if "store_used_bytes" in target["expr"]]
    amounts = {"n1": (90, 100), "n2": (200, 1000)}
    values = {
        f'{P}store_{what}_bytes{{instance="{node}",job="wazuh-comms",store="events"}}': amount
        for node, both in amounts.items()
        for what, amount in zip(("used", "limit"), both, strict=True)
    }
    check_panel(tmp_path, panel, values, {'{store="events"}': 0.9})


@pytest.mark.parametrize(
    ("embedded", "sharing", "shown"),
    [((10, 5), (), 15), ((), (20, 20), 20), ((10,), (20, 19), 30)],
    ids=["each its own", "all the same", "both"],
)
def test_of_several_nodes_the_dashboard_counts_each_agent_once(
    tmp_path: Path, embedded: tuple[int, ...], sharing: tuple[int, ...], shown: int
) -> None:
    expressions = {target["expr"] for target in targets() if "comms_agents{" in target["expr"]}
    (panel,) = expressions  # of the number and of the graph
    values = {}
    for number, (count, is_shared) in enumerate([*((n, 0) for n in embedded), *((n, 1) for n in sharing)]):
        labels = f'instance="n{number}",job="wazuh-comms"'
        values[f"{P}agents_shared{{{labels}}}"] = is_shared
        values[f'{P}agents{{{labels},status="active"}}'] = count
        values[f'{P}agents{{{labels},status="never"}}'] = 0
    check_panel(tmp_path, panel, values, {'{status="active"}': shown, '{status="never"}': 0})


def check_panel(folder: Path, panel: str, values: Mapping[str, float], shown: Mapping[str, float]) -> None:
    """What a panel's expression shows, by labels, of these series."""
    wanted = {
        "expr": panel.replace("$instance", ".*"),
        "eval_time": "1m",
        "exp_samples": [{"labels": labels, "value": value} for labels, value in shown.items()],
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"{amount}x5"} for name, amount in values.items()],
        "promql_expr_test": [wanted],
    }
    once = folder / "expected.yml"
    once.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", str(once))
