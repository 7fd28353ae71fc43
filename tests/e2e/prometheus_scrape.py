#!/usr/bin/env python3
"""Prometheus scrapes a daemon that watches a simulated HealthOmics, in both formats, with the rules of config/prometheus/ loaded.

Every family of the contract is there and is the same in both formats; every rule and every query of the Grafana board is evaluated on
that data; alerts fire; each alert has its tests and its section of the runbook, and what the runbook tells to run exists.

Between Prometheus and the daemon stands a relay that notes what went over it and, for the one job, asks for the text format: this
version of Prometheus has no setting for that.
"""

import contextlib
import http.client
import http.server
import json
import math
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.parse

import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

DEADLINE_SECONDS = 90
RULES, RULES_TESTS = pathlib.Path("config/prometheus/rules.yml"), pathlib.Path("tests/e2e/prometheus_rules.yml")
BOARD, RUNBOOK = pathlib.Path("config/grafana/refwatch.json"), pathlib.Path("docs/runbook.md")
TEXT, OPENMETRICS = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8"

# The contract: every family, by its type in the text format.
FAMILIES = {
    "counter": """
        refwatch_transitions_total refwatch_api_requests_total refwatch_api_request_failures_total
        refwatch_database_commits_total refwatch_database_failures_total refwatch_database_quarantined_total refwatch_task_restarts_total
        refwatch_log_lines_dropped_total process_cpu_seconds_total""",
    "gauge": """
        refwatch_job_info refwatch_job_status refwatch_job_items refwatch_job_up
        refwatch_job_created_timestamp_seconds refwatch_job_completed_timestamp_seconds
        refwatch_job_last_transition_timestamp_seconds refwatch_job_last_successful_poll_timestamp_seconds
        refwatch_job_next_poll_timestamp_seconds refwatch_watches refwatch_jobs refwatch_target_up refwatch_store_up
        refwatch_store_last_listed_timestamp_seconds refwatch_quota_allowed_requests_per_second
        refwatch_quota_configured_requests_per_second refwatch_database_up
        refwatch_config_last_reload_successful refwatch_config_last_reload_success_timestamp_seconds refwatch_build_info
        process_open_fds process_max_fds process_resident_memory_bytes process_virtual_memory_bytes process_start_time_seconds
        process_threads""",
    "histogram": """
        refwatch_api_request_duration_seconds refwatch_quota_wait_seconds refwatch_detection_delay_seconds""",
}

# What is empty while all is well.
EMPTY = {"changes(refwatch_config_last_reload_success_timestamp_seconds[1m]) > 0"}

ENDS = {
    "COMPLETED": None,
    "COMPLETED_WITH_FAILURES": "RefwatchJobCompletedWithFailures",
    "FAILED": "RefwatchJobFailed",
    "CANCELLED": "RefwatchJobCancelled",
}


def main():
    refwatch, folder = sys.argv[1], pathlib.Path(sys.argv[2], "scraped")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        daemon, stop_daemon = start_daemon(stack, refwatch, folder)
        relay = Relay(daemon)
        stack.callback(relay.shutdown)
        prometheus = Prometheus(stack, folder, relay)
        eventually("every end of a job", lambda: all(prometheus.values(ended(status)) for status in ENDS))
        eventually("alerts", lambda: set(filter(None, ENDS.values())) <= prometheus.alerts("firing").keys())
        the_formats_are_valid(daemon)
        the_contract_holds(prometheus, relay)
        alerts = the_rules_are_healthy(prometheus)
        the_board_shows_data(prometheus)
        the_alerts_are_tested(alerts)
        the_runbook_fits(prometheus, alerts, refwatch, daemon)
        stop_daemon()
        eventually("RefwatchAbsent", lambda: "RefwatchAbsent" in prometheus.alerts("pending"))


def ended(status):
    return f'refwatch_job_status{{status="{status}"}} == 1'


def the_formats_are_valid(daemon):
    """Prometheus's own parsers for Python are stricter than Prometheus."""
    for accept, content_type, parse in [("*/*", TEXT, parse_text), (OPENMETRICS, OPENMETRICS, parse_openmetrics)]:
        headers, body = get(daemon, "/metrics", {"Accept": accept})
        check(headers["Content-Type"] == content_type, f"{accept}: {headers['Content-Type']}")
        found = {family.name: family.type for family in parse(body.decode())}
        expected = {spelled(name, kind, content_type) for name, kind in families()}
        check(set(found.items()) == expected, f"{content_type}: {set(found.items()) ^ expected}")


def spelled(name, kind, content_type):
    """A family as the parser tells of it: counters go without `_total`; infos are a type of OpenMetrics alone."""
    if content_type == OPENMETRICS and name.endswith("_info"):
        return name.removesuffix("_info"), "info"
    return name.removesuffix("_total") if kind == "counter" else name, kind


def families():
    return [(name, kind) for kind, names in FAMILIES.items() for name in names.split()]


def the_contract_holds(prometheus, relay):
    check(relay.seen["refwatch"] == {(OPENMETRICS, "gzip")}, f"as OpenMetrics: {relay.seen['refwatch']}")
    check(relay.seen["text"] == {(TEXT, "gzip")}, f"as text: {relay.seen['text']}")
    for name, kind in families():
        for series in [name + suffix for suffix in ("_bucket", "_sum", "_count")] if kind == "histogram" else [name]:
            for job in relay.seen:
                check(prometheus.values(f'{series}{{job="{job}"}}'), f"{series} has no series as {job}")
    # A series that has just begun or ended may have been scraped by one job and not yet by the other.
    eventually("series of both formats that are the same", lambda: prometheus.series("refwatch") == prometheus.series("text"))
    print(f"{len(families())} families, {len(prometheus.series('text'))} series, the same in both formats")


def the_rules_are_healthy(prometheus):
    eventually("evaluation of every rule", lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()))
    rules = prometheus.rules()
    for rule in rules:
        check(rule["health"] == "ok" and not rule.get("lastError"), f"{rule['name']}: {rule.get('lastError')}")
        if rule["type"] == "recording":
            eventually(f"series of {rule['name']}", lambda: prometheus.values(rule["name"]))
    for alert in prometheus.alerts("firing").values():
        told = " ".join(alert["annotations"].values())
        check(not re.search(r"<no value>|<error|\{\{|%!", told), f"{alert['labels']['alertname']}: {told}")
    print(f"{len(rules)} rules; firing: {', '.join(sorted(prometheus.alerts('firing')))}")
    return [rule for rule in rules if rule["type"] == "alerting"]


def the_board_shows_data(prometheus):
    board = json.loads(BOARD.read_text())
    queries = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    queries += [(annotation["name"], annotation["expr"]) for annotation in board["annotations"]["list"]]
    for title, query in queries:
        filled = query.replace("$__rate_interval", "1m").replace("$__range", "5m")
        filled = re.sub(r"\$(target|watch)", ".*", filled)
        check("$" not in filled, f"{title}: a variable that Grafana does not fill in: {filled}")
        found = prometheus.values(filled)
        check(bool(found) != (query in EMPTY), f"{title}: {len(found)} series of {filled}")
        check(not any(math.isnan(value) for value in found), f"{title}: not a number: {filled}")
    check(EMPTY <= {query for _, query in queries}, "EMPTY names a query that no board has")
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
            values = prometheus.api(f"label/{label}/values", {"match[]": selector.replace("$target", ".*")})
            check(values, f"the variable {variable['name']} has no value")
    identities = [panel["id"] for panel in board["panels"]]
    check(len(set(identities)) == len(identities), "two panels with one id")
    print(f"{len(queries)} queries of the board")


def the_alerts_are_tested(alerts):
    tests = [test for group in yaml.safe_load(RULES_TESTS.read_text())["tests"] for test in group.get("alert_rule_test", [])]
    for alert in (alert["name"] for alert in alerts):
        for firing in (True, False):
            tested = any(test["alertname"] == alert and bool(test.get("exp_alerts")) == firing for test in tests)
            check(tested, f"{RULES_TESTS}: no test has {alert} {'firing' if firing else 'not firing'}")


def the_runbook_fits(prometheus, alerts, refwatch, daemon):
    text = RUNBOOK.read_text()
    sections, names = re.findall(r"^## (\w+)$", text, re.MULTILINE), [alert["name"] for alert in alerts]
    check(sorted(sections) == sorted(names), f"{RUNBOOK}: not one section for each alert: {set(sections) ^ set(names)}")
    for alert in alerts:
        link = f"{RUNBOOK}#{alert['name'].lower()}"
        check(alert["annotations"]["runbook"] == link, f"{alert['name']}: its runbook is not {link}")
        for needed in ("summary", "description"):
            check(alert["annotations"].get(needed), f"{alert['name']} has no {needed}")
        check(alert["labels"]["severity"] in {"critical", "warning", "info"}, f"{alert['name']}: its severity")
    for anchor in re.findall(r"\(#([^)]*)\)", text):
        check(anchor in {name.lower() for name in names}, f"{RUNBOOK}: #{anchor} leads nowhere")
    for path in re.findall(r"\]\(\.\./([^)]*)\)", text):
        check(pathlib.Path(path).exists(), f"{RUNBOOK}: {path} is not there")
    commands = "\n".join(first or second for first, second in re.findall(r"```sh\n(.*?)```|`([^`\n]*)`", text, re.DOTALL))
    for command in set(re.findall(r"(?:^|[`\s])refwatch ([a-z]+)", commands)):
        check(subprocess.run([refwatch, command, "--help"], capture_output=True).returncode == 0, f"refwatch {command}")
    for path in set(re.findall(r"127\.0\.0\.1:10210(/[^\s`]*)", commands)):
        check(get(daemon, path)[1], f"{RUNBOOK}: {path} has no answer")
    sources = "".join(file.read_text() for file in pathlib.Path("src").rglob("*.rs"))
    for event in set(re.findall(r"--grep (\w+)", commands)):
        check(f'event = "{event}"' in sources, f"{RUNBOOK}: no line of the log has the event {event}")
    for metric in set(re.findall(r"'\^(refwatch_\w+)", commands)):
        check(any(name.startswith(metric) for name, _ in families()), f"{RUNBOOK}: no metric begins with {metric}")
    for query in set(re.findall(r"jq '([^']*)'", commands)):
        ran = subprocess.run(["jq", query], input="[]", capture_output=True, text=True)
        check(ran.returncode == 0, f"{RUNBOOK}: jq '{query}': {ran.stderr}")


class Relay(http.server.ThreadingHTTPServer):
    """Hands a scrape on to the daemon: below /text with what is accepted set to the text format. Notes what was answered."""

    daemon_threads = True

    def __init__(self, daemon):
        self.daemon, self.seen = daemon, {"refwatch": set(), "text": set()}
        super().__init__(("127.0.0.1", 0), Relayed)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Relayed(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        _, job, path = self.path.split("/", 2)
        accept = "text/plain;version=0.0.4" if job == "text" else self.headers["Accept"]
        try:
            headers = {"Accept": accept, "Accept-Encoding": self.headers["Accept-Encoding"]}
            headers, body = get(self.server.daemon, f"/{path}", headers)
        except OSError:
            return self.send_error(502)
        self.server.seen[job].add((headers["Content-Type"], headers["Content-Encoding"]))
        self.send_response(200)
        for name in ("Content-Type", "Content-Encoding"):
            self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Prometheus:
    def __init__(self, stack, folder, relay):
        scraped = {"static_configs": [{"targets": [f"127.0.0.1:{relay.server_port}"]}]}
        jobs = [{"job_name": job, "metrics_path": f"/{job}/metrics"} | scraped for job in relay.seen]
        intervals = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config = {"global": intervals, "rule_files": [str(RULES.absolute())], "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        start(stack, folder / "prometheus.log", "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
              f"--web.listen-address=127.0.0.1:{self.port}")
        eventually("Prometheus", lambda: answers(self.port, "/-/ready"))

    def api(self, path, arguments=()):
        _, body = get(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(arguments)}")
        return json.loads(body)["data"]

    def samples(self, query):
        return self.api("query", {"query": query})["result"]

    def values(self, query):
        return [float(sample["value"][1]) for sample in self.samples(query)]

    def series(self, job):
        """What the job's last scrape had, without what Prometheus adds. It takes a bound as it is written, 1 or 1.0.

        Not what its scrapes ever had: a series may be so short that the other job's scrapes have missed it."""
        found = [sample["metric"] for sample in self.samples(f'{{job="{job}", __name__=~"refwatch_.*|process_.*"}}')]
        for labels in found:
            del labels["job"], labels["instance"]
            if "le" in labels:
                labels["le"] = float(labels["le"])
        return {tuple(sorted(labels.items())) for labels in found}

    def rules(self):
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def alerts(self, state):
        return {alert["labels"]["alertname"]: alert for alert in self.api("alerts")["alerts"] if alert["state"] == state}


def start_daemon(stack, refwatch, folder):
    """A daemon that watches the jobs of a simulator by their ids and their store as a whole, while some of its requests fail."""
    config, port = folder / "refwatch.toml", free_port()
    faults = [argument for fault in ("throttling=0.15", "internal=0.1") for argument in ("--fault", fault)]
    start(stack, folder / "simulator.log", refwatch, "simulate", "--listen", f"127.0.0.1:{free_port()}", "--jobs", "8", "--stuck", "1",
          "--mean-seconds", "10", "--quota", "20", "--config-out", config, *faults)
    eventually("the simulator", config.exists)
    text = config.read_text()
    store = tomllib.loads(text)["job"][0]["reference_store_id"]
    text = text.replace("127.0.0.1:10210", f"127.0.0.1:{port}")
    config.write_text(f'{text}\n[[store]]\nname = "shared references"\nreference_store_id = "{store}"\n')
    process = start(stack, folder / "daemon.log", refwatch, "--config", config, "run")
    eventually("the daemon", lambda: answers(port, "/-/ready"))

    def stop():
        process.send_signal(signal.SIGTERM)
        check(process.wait(DEADLINE_SECONDS) == 0, f"the daemon ended with status {process.returncode}")

    return port, stop


def start(stack, log, *command):
    """Starts a process that ends with the check; where that fails, what it said may tell why."""
    signed = {"AWS_ACCESS_KEY_ID": "simulated", "AWS_SECRET_ACCESS_KEY": "simulated"}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=os.environ | signed, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def end(failure, *_):
        process.terminate()
        process.wait()
        if failure:
            print(f"-- {log}", *log.read_text().splitlines()[-20:], sep="\n")

    stack.push(end)
    return process


def get(port, path, headers={}):
    """Whatever the status: /-/ready says 503 for a reason."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        check(response.status in (200, 503), f"{path}: {response.status}")
        return response.headers, response.read()


def answers(port, path):
    try:
        return b"eady" in get(port, path)[1]
    except OSError:
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, state):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not state():
        check(time.monotonic() < deadline, f"no {what} within {DEADLINE_SECONDS} s")
        time.sleep(0.2)


def check(holds, otherwise):
    if not holds:
        sys.exit(f"error: {otherwise}")


main()
