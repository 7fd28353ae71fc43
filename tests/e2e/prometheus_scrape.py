#!/usr/bin/env python3
"""Prometheus scrapes a daemon that watches a simulated HealthOmics, in both formats, with the rules of config/prometheus/ loaded.

Checks that all documented families exist and are equal in both formats, that rules and dashboard queries work on the data, that alerts
fire, that each alert has tests and a section in the runbook, and that the runbook's commands exist.

A relay between Prometheus and the daemon records the formats and requests the text format for one job, because this version of
Prometheus has no setting for it.
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

import dashboard
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

DEADLINE_SECONDS = 90
RULES, RULES_TESTS = pathlib.Path("config/prometheus/rules.yml"), pathlib.Path("tests/e2e/prometheus_rules.yml")
BOARD, RUNBOOK = pathlib.Path("config/grafana/refwatch.json"), pathlib.Path("docs/runbook.md")
TEXT, OPENMETRICS = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Every documented family by its type in the text format.
FAMILIES = {
    "counter": """
        refwatch_transitions_total refwatch_api_requests_total refwatch_api_request_failures_total
        refwatch_database_commits_total refwatch_database_failures_total refwatch_database_quarantined_total refwatch_task_restarts_total
        refwatch_http_requests_total refwatch_http_login_failures_total refwatch_listed_jobs_skipped_total
        refwatch_limit_exceeded_total refwatch_log_lines_dropped_total refwatch_notify_delivered_total refwatch_notify_attempts_total
        refwatch_notify_failed_total process_cpu_seconds_total""",
    "gauge": """
        refwatch_job_info refwatch_job_labels refwatch_job_status refwatch_job_items refwatch_job_up
        refwatch_job_created_timestamp_seconds refwatch_job_completed_timestamp_seconds
        refwatch_job_last_transition_timestamp_seconds refwatch_job_last_successful_poll_timestamp_seconds
        refwatch_job_next_poll_timestamp_seconds refwatch_watches refwatch_jobs refwatch_target_up refwatch_store_up
        refwatch_store_last_listed_timestamp_seconds refwatch_quota_allowed_requests_per_second
        refwatch_quota_configured_requests_per_second refwatch_sink_up refwatch_sink_disabled refwatch_notify_backlog
        refwatch_notify_oldest_undelivered_timestamp_seconds refwatch_database_up
        refwatch_database_size_bytes refwatch_database_wal_bytes
        refwatch_config_last_reload_successful refwatch_config_last_reload_success_timestamp_seconds refwatch_build_info
        process_open_fds process_max_fds process_resident_memory_bytes process_virtual_memory_bytes process_start_time_seconds
        process_threads""",
    "histogram": """
        refwatch_api_request_duration_seconds refwatch_quota_wait_seconds refwatch_detection_delay_seconds
        refwatch_job_duration_seconds refwatch_notify_delay_seconds""",
}

# Queries without a result in normal operation.
EMPTY = {'changes(refwatch_config_last_reload_success_timestamp_seconds{instance=~"$instance"}[1m]) > 0'}

ENDS = {
    "COMPLETED": None,
    "COMPLETED_WITH_FAILURES": "RefwatchJobCompletedWithFailures",
    "FAILED": "RefwatchJobFailed",
    "CANCELLED": "RefwatchJobCancelled",
}


def main():
    refwatch, directory = sys.argv[1], pathlib.Path(sys.argv[2], "scraped")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        daemon, stop_daemon = start_daemon(stack, refwatch, directory)
        relay = Relay(daemon)
        stack.callback(relay.shutdown)
        prometheus = Prometheus(stack, directory, relay)
        eventually("every end of a job", lambda: all(prometheus.values(ended(status)) for status in ENDS))
        eventually("alerts", lambda: set(filter(None, ENDS.values())) <= prometheus.alerts("firing").keys())
        check_formats(daemon)
        check_families(prometheus, relay)
        alerts = check_rules(prometheus)
        check_dashboard(prometheus, daemon)
        check_alert_tests(alerts)
        check_runbook(prometheus, alerts, refwatch, daemon)
        stop_daemon()
        eventually("RefwatchDown", lambda: "RefwatchDown" in prometheus.alerts("pending"))


def ended(status):
    return f'refwatch_job_status{{status="{status}"}} == 1'


def check_formats(daemon):
    """Parses with Prometheus's parsers for Python, which are stricter than Prometheus."""
    for accept, content_type, parse in [("*/*", TEXT, parse_text), (OPENMETRICS, OPENMETRICS, parse_openmetrics)]:
        headers, body = get(daemon, "/metrics", {"Accept": accept})
        check(headers["Content-Type"] == content_type, f"{accept}: {headers['Content-Type']}")
        parsed = {family.name: family.type for family in parse(body.decode())}
        expected = {name_in_format(name, kind, content_type) for name, kind in families()}
        check(set(parsed.items()) == expected, f"{content_type}: {set(parsed.items()) ^ expected}")


def name_in_format(name, kind, content_type):
    """A family as the parser returns it: counters without `_total`; `info` is a type in OpenMetrics only."""
    if content_type == OPENMETRICS and name.endswith("_info"):
        return name.removesuffix("_info"), "info"
    return name.removesuffix("_total") if kind == "counter" else name, kind


def families():
    return [(name, kind) for kind, names in FAMILIES.items() for name in names.split()]


def check_families(prometheus, relay):
    check(relay.formats["refwatch"] == {(OPENMETRICS, "gzip")}, f"OpenMetrics: {relay.formats['refwatch']}")
    check(relay.formats["text"] == {(TEXT, "gzip")}, f"text: {relay.formats['text']}")
    for name, kind in families():
        for series in [name + suffix for suffix in ("_bucket", "_sum", "_count")] if kind == "histogram" else [name]:
            for job in relay.formats:
                check(prometheus.values(f'{series}{{job="{job}"}}'), f"{series} has no series as {job}")
    # A new or ended series may have been scraped by one job only.
    eventually("equal series in both formats", lambda: prometheus.series("refwatch") == prometheus.series("text"))
    print(f"{len(families())} families, {len(prometheus.series('text'))} series, equal in both formats")


def check_rules(prometheus):
    eventually("evaluation of every rule", lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()))
    rules = prometheus.rules()
    for rule in rules:
        check(rule["health"] == "ok" and not rule.get("lastError"), f"{rule['name']}: {rule.get('lastError')}")
        if rule["type"] == "recording":
            eventually(f"series of {rule['name']}", lambda: prometheus.values(rule["name"]))
    for alert in prometheus.alerts("firing").values():
        text = " ".join(alert["annotations"].values())
        check(not re.search(r"<no value>|<error|\{\{|%!", text), f"{alert['labels']['alertname']}: {text}")
    print(f"{len(rules)} rules; firing: {', '.join(sorted(prometheus.alerts('firing')))}")
    return [rule for rule in rules if rule["type"] == "alerting"]


def check_dashboard(prometheus, daemon):
    board = json.loads(BOARD.read_text())
    queries = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    queries += [(annotation["name"], annotation["expr"]) for annotation in board["annotations"]["list"]]
    for title, query in queries:
        filled = query.replace("$__rate_interval", "1m").replace("$__range", "5m")
        filled = re.sub(r"\$(instance|target|watch)", ".*", filled)
        check("$" not in filled, f"{title}: a variable that Grafana does not replace: {filled}")
        values = prometheus.values(filled)
        check(bool(values) != (query in EMPTY), f"{title}: {len(values)} series of {filled}")
        check(not any(math.isnan(value) for value in values), f"{title}: not a number: {filled}")
    check(EMPTY <= {query for _, query in queries}, "EMPTY contains a query that is not on the dashboard")
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
            values = prometheus.api(f"label/{label}/values", {"match[]": re.sub(r"\$\w+", ".*", selector)})
            check(values, f"the variable {variable['name']} has no value")
    [job, *_] = json.loads(get(daemon, "/api/v1/jobs")[1])
    fields = {"${__data.fields.Kind}": job["kind"], "${__data.fields.Store}": job["store_id"], "${__data.fields.Job}": job["job_id"]}
    statuses = {sample["metric"]["status"] for sample in prometheus.samples("refwatch_job_status")}
    histograms = FAMILIES["histogram"].split()
    problems = [*dashboard.problems(board, statuses, histograms, lambda path: fetch(daemon, path, fields))]
    check(not problems, "\n".join(problems))
    print(f"{len(queries)} queries of the dashboard")


def fetch(daemon, path, fields):
    """The response to a link of the dashboard, in which Grafana replaces the fields."""
    for field, value in fields.items():
        path = path.replace(field, value)
    return get(daemon, path)[1].decode()


def check_alert_tests(alerts):
    tests = [test for group in yaml.safe_load(RULES_TESTS.read_text())["tests"] for test in group.get("alert_rule_test", [])]
    for alert in (alert["name"] for alert in alerts):
        for firing in (True, False):
            tested = any(test["alertname"] == alert and bool(test.get("exp_alerts")) == firing for test in tests)
            check(tested, f"{RULES_TESTS}: no test of {alert} {'firing' if firing else 'not firing'}")


def check_runbook(prometheus, alerts, refwatch, daemon):
    text, served = RUNBOOK.read_text(), get(daemon, "/runbook")[1].decode()
    sections, names = re.findall(r"^## (\w+)$", text, re.MULTILINE), [alert["name"] for alert in alerts]
    check(sorted(sections) == sorted(names), f"{RUNBOOK}: sections and alerts differ: {set(sections) ^ set(names)}")
    for alert in alerts:
        link = f"http://127.0.0.1:10210/runbook#{alert['name'].lower()}"
        check(alert["annotations"]["runbook_url"] == link, f"{alert['name']}: its runbook_url is not {link}")
        check(f'id="{alert["name"].lower()}"' in served, f"{alert['name']}: /runbook has no such anchor")
        for needed in ("summary", "description"):
            check(alert["annotations"].get(needed), f"{alert['name']} has no {needed}")
        check(alert["labels"]["severity"] in {"critical", "warning", "info"}, f"{alert['name']}: its severity")
    for anchor in re.findall(r"\(#([^)]*)\)", text):
        check(anchor in {name.lower() for name in names}, f"{RUNBOOK}: #{anchor} does not exist")
    for path in re.findall(r"\]\(\.\./([^)]*)\)", text):
        check(pathlib.Path(path).exists(), f"{RUNBOOK}: {path} does not exist")
    commands = "\n".join(first or second for first, second in re.findall(r"```sh\n(.*?)```|`([^`\n]*)`", text, re.DOTALL))
    for command in set(re.findall(r"(?:^|[`\s])refwatch ([a-z]+)", commands)):
        check(subprocess.run([refwatch, command, "--help"], capture_output=True).returncode == 0, f"refwatch {command}")
    for path in set(re.findall(r"127\.0\.0\.1:10210(/[^\s`]*)", commands)):
        check(get(daemon, path)[1], f"{RUNBOOK}: {path} has no response")
    sources = "".join(file.read_text() for file in pathlib.Path("src").rglob("*.rs"))
    for event in set(re.findall(r"--grep (\w+)", commands)):
        check(f'event = "{event}"' in sources, f"{RUNBOOK}: no log line has the event {event}")
    for metric in set(re.findall(r"'\^(refwatch_\w+)", commands)):
        check(any(name.startswith(metric) for name, _ in families()), f"{RUNBOOK}: no metric begins with {metric}")
    for query in set(re.findall(r"jq '([^']*)'", commands)):
        ran = subprocess.run(["jq", query], input="[]", capture_output=True, text=True)
        check(ran.returncode == 0, f"{RUNBOOK}: jq '{query}': {ran.stderr}")


class Relay(http.server.ThreadingHTTPServer):
    """Forwards scrapes to the daemon, below /text with `Accept` set to the text format. Records the formats of the responses."""

    daemon_threads = True

    def __init__(self, daemon):
        self.daemon, self.formats = daemon, {"refwatch": set(), "text": set()}
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
        self.server.formats[job].add((headers["Content-Type"], headers["Content-Encoding"]))
        self.send_response(200)
        for name in ("Content-Type", "Content-Encoding"):
            self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Prometheus:
    def __init__(self, stack, directory, relay):
        scraped = {"static_configs": [{"targets": [f"127.0.0.1:{relay.server_port}"]}]}
        jobs = [{"job_name": job, "metrics_path": f"/{job}/metrics"} | scraped for job in relay.formats]
        intervals = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config = {"global": intervals, "rule_files": [str(RULES.absolute())], "scrape_configs": jobs}
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        start(stack, directory / "prometheus.log", "prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
              f"--web.listen-address=127.0.0.1:{self.port}")
        eventually("Prometheus", lambda: is_ready(self.port, "/-/ready"))

    def api(self, path, arguments=()):
        _, body = get(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(arguments)}")
        return json.loads(body)["data"]

    def samples(self, query):
        return self.api("query", {"query": query})["result"]

    def values(self, query):
        return [float(sample["value"][1]) for sample in self.samples(query)]

    def series(self, job):
        """The series of the job's last scrape, without Prometheus's labels and with numeric bounds.

        Earlier scrapes are excluded: a short-lived series may be missing from the other job's scrapes."""
        series = [sample["metric"] for sample in self.samples(f'{{job="{job}", __name__=~"refwatch_.*|process_.*"}}')]
        for labels in series:
            del labels["job"], labels["instance"]
            if "le" in labels:
                labels["le"] = float(labels["le"])
        return {tuple(sorted(labels.items())) for labels in series}

    def rules(self):
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def alerts(self, state):
        return {alert["labels"]["alertname"]: alert for alert in self.api("alerts")["alerts"] if alert["state"] == state}


def start_daemon(stack, refwatch, directory):
    """Starts a daemon that watches a simulator's jobs by id and their store; some requests fail. It has a sink that works, and one that does not."""
    config, port = directory / "refwatch.toml", free_port()
    faults = [argument for fault in ("throttling=0.15", "internal=0.1") for argument in ("--fault", fault)]
    start(stack, directory / "simulator.log", refwatch, "simulate", "--listen", f"127.0.0.1:{free_port()}", "--jobs", "8", "--stuck", "1",
          "--mean-seconds", "10", "--quota", "20", "--config-out", config, f"--sink=127.0.0.1:{free_port()}", *faults)
    eventually("the simulator", config.exists)
    text = config.read_text()
    store = tomllib.loads(text)["job"][0]["reference_store_id"]
    text = text.replace("127.0.0.1:10210", f"127.0.0.1:{port}").replace("[[job]]\n", '[[job]]\nlabels = { project = "atlas" }\n', 1)
    text += f'\n[[store]]\nname = "shared references"\nreference_store_id = "{store}"\n'
    config.write_text(f'{text}\n[[notify]]\nname = "unreachable"\nurl = "http://127.0.0.1:{free_port()}"\n')
    process = start(stack, directory / "daemon.log", refwatch, "--config", config, "run")
    eventually("the daemon", lambda: is_ready(port, "/-/ready"))

    def stop():
        process.send_signal(signal.SIGTERM)
        check(process.wait(DEADLINE_SECONDS) == 0, f"the daemon ended with status {process.returncode}")

    return port, stop


def start(stack, log, *command):
    """Starts a process that ends with the check. If the check fails, prints the end of the log."""
    credentials = {"AWS_ACCESS_KEY_ID": "simulated", "AWS_SECRET_ACCESS_KEY": "simulated"}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=os.environ | credentials, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def end(failure, *_):
        process.terminate()
        process.wait()
        if failure:
            print(f"-- {log}", *log.read_text().splitlines()[-20:], sep="\n")

    stack.push(end)
    return process


def get(port, path, headers={}):
    """Accepts 200 and 503, which /-/ready may return."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        check(response.status in (200, 503), f"{path}: {response.status}")
        return response.headers, response.read()


def is_ready(port, path):
    try:
        return b"eady" in get(port, path)[1]
    except OSError:
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(expected, condition):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        check(time.monotonic() < deadline, f"no {expected} within {DEADLINE_SECONDS} s")
        time.sleep(0.2)


def check(condition, message):
    if not condition:
        sys.exit(f"error: {message}")


main()
