"""Sends the events of simulated jobs to three receivers: the Python and the Node example of docs/notifications.md, which verify signatures, and
one that checks each request with the libraries for Standard Webhooks, CloudEvents and JSON Schema.

Usage: notify_receivers.py REFWATCH NODE

NODE is a directory in which the npm package standardwebhooks is installed. The secret is rotated: requests have two signatures, and the
receivers know one secret each.
"""

import base64
import contextlib
import datetime
import http.server
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import jsonschema
from cloudevents.http import from_http
from standardwebhooks import Webhook

DEADLINE_SECONDS = 60
JOBS = 8
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "simulated", "AWS_SECRET_ACCESS_KEY": "simulated"}
DOCUMENT = pathlib.Path("docs/notifications.md").read_text()


class CheckingReceiver(http.server.BaseHTTPRequestHandler):
    """Keeps each event, and the error of the first request that a library rejects."""

    webhook = validator = error = None
    events = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.events.append(self.check(body))
        except Exception as error:
            CheckingReceiver.error = CheckingReceiver.error or f"{error!r} for {body!r}, {dict(self.headers)}"
        self.send_response(204)
        self.end_headers()

    def check(self, body):
        self.webhook.verify(body, dict(self.headers))
        event = from_http(dict(self.headers), body)
        assert event["id"] == self.headers["webhook-id"], event
        assert self.headers["Content-Type"] == "application/cloudevents+json", self.headers
        assert len(body) <= 16 * 1024, len(body)
        self.validator.validate(json.loads(body))
        return event

    def log_message(self, *_):
        pass


def main(refwatch, node):
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        old, new = ("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
        (directory / "secrets").write_text(f"{new}\n{old}\n")
        python = start_example(stack, "python", directory / "python", old, [sys.executable, "receiver.py"])
        shutil.copytree(pathlib.Path(node) / "node_modules", directory / "js" / "node_modules")
        js = start_example(stack, "js", directory / "js", new, ["node", "receiver.mjs"])
        for port, _ in python, js:
            check_signatures(port, old if port == python[0] else new)
        checking = start_checking_receiver(stack, new)
        ends = start_daemon(stack, refwatch, directory, {"python": python[0], "js": js[0], "checking": checking})

        eventually("every end is received", lambda: CheckingReceiver.error or len(CheckingReceiver.events) >= JOBS)
        assert not CheckingReceiver.error, CheckingReceiver.error
        received = {event["id"]: (event["type"], event["subject"]) for event in CheckingReceiver.events}
        assert sorted(received.values()) == ends, (received, ends)
        expected = sorted(f"{id} {type} {subject}" for id, (type, subject) in received.items())
        for language, (_, output) in ("python", python), ("js", js):
            lines = lambda: sorted(line for line in output.read_text().splitlines() if " io.refwatch." in line)
            eventually(f"the example in {language} prints every event", lambda: lines() == expected)
    print(f"{len(received)} events received by three receivers")


def start_example(stack, language, directory, secret, command):
    """Runs the fence of the document that has the language and verifies signatures. Returns its port and the file with its output."""
    directory.mkdir(exist_ok=True)
    fences = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    (text,) = [fence for fence in fences if "standardwebhooks" in fence]
    port = free_port()
    assert text.count("8000") == 1, text
    (directory / command[-1]).write_text(text.replace("8000", str(port)))
    (directory / "webhook-secret").write_text(secret + "\n")
    output = directory / "output"
    start(stack, command, directory, output)
    eventually(f"the example in {language} listens", lambda: responds(port))
    return port, output


def check_signatures(port, secret):
    """The example accepts an event that the Python library signed, and none with another secret, another body or an old time stamp."""
    other = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    event = {"id": "evt_check", "type": "check", "subject": "check"}
    now = datetime.datetime.now(datetime.timezone.utc)
    body, changed = json.dumps(event), json.dumps(event | {"subject": "changed"})
    assert post(port, secret, now, body, body) == 204
    assert post(port, other, now, body, body) == 401
    assert post(port, secret, now, body, changed) == 401
    assert post(port, secret, now - datetime.timedelta(minutes=6), body, body) == 401


def post(port, secret, at, signed, sent):
    headers = {
        "content-type": "application/cloudevents+json",
        "webhook-id": "evt_check",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("evt_check", at, signed),
    }
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", sent.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def start_checking_receiver(stack, secret):
    schema = json.loads(pathlib.Path("config/notification.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    CheckingReceiver.validator = jsonschema.Draft202012Validator(schema)
    CheckingReceiver.webhook = Webhook(secret)
    server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), CheckingReceiver))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    return server.server_address[1]


def start_daemon(stack, refwatch, directory, ports):
    """Starts simulator and daemon. Returns type and subject of the expected event of each job."""
    config = directory / "refwatch.toml"
    simulator = f"127.0.0.1:{free_port()}"
    arguments = ["--listen", simulator, "--jobs", str(JOBS), "--mean-seconds", "10", "--quota", "50", "--config-out", config]
    start(stack, [refwatch, "simulate", *arguments], directory, directory / "simulator.log")
    eventually("the simulator's configuration exists", config.exists)
    text = config.read_text().replace("127.0.0.1:10210", "127.0.0.1:0")
    for name, port in ports.items():
        text += f'\n[[notify]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}/"\nsecret_file = "secrets"\n'
    (directory / "secrets").chmod(0o600)
    config.write_text(text)
    start(stack, [refwatch, "--config", config, "run"], directory, directory / "daemon.log")
    with urllib.request.urlopen(f"http://{simulator}/-/jobs") as response:
        jobs = json.load(response)
    end = lambda job: (
        f"io.refwatch.job.{job['timeline'][-1]['status'].lower()}.v1",
        f"{job['kind']}/{job['store_id']}/{job['id']}",
    )
    return sorted(end(job) for job in jobs)


def start(stack, command, directory, output):
    """Starts a process that ends with the check. If the check fails, prints its output."""
    with open(output, "w") as file:
        process = subprocess.Popen(command, cwd=directory, env=os.environ | CREDENTIALS, stdout=file, stderr=subprocess.STDOUT)

    def end(failure, *_):
        process.terminate()
        process.wait()
        if failure:
            print(f"-- {command[0]}\n{output.read_text()}")

    stack.push(end)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def responds(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def eventually(expectation, check):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not check():
        assert time.monotonic() < deadline, f"{expectation}: not within {DEADLINE_SECONDS} s"
        time.sleep(0.1)


main(*sys.argv[1:])
