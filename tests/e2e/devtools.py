"""A headless Chromium, spoken to through its DevTools protocol over a pipe: no port, no library, and what it complains of is kept."""

import base64
import json
import os
import subprocess
import tempfile
import time

# Seconds; a slow machine takes some to start a browser.
DEADLINE = 60


class Page:
    """One tab of a browser of its own."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(prefix="refwatch-chromium-")
        # Chromium reads commands from its descriptor 3 and writes answers to 4, each ended by a NUL.
        commands, self.write = os.pipe()
        self.read, answers = os.pipe()
        # Debian's wrapper is a shell script, and as root Chromium has no sandbox of its own.
        self.process = subprocess.Popen(
            ["bash", "-c", f"""exec 13<&{commands} 14>&{answers}; exec 3<&13 4>&14 13<&- 14>&-
             exec chromium --headless=new --no-sandbox --remote-debugging-pipe --user-data-dir='{self.profile.name}' \
             --no-first-run --disable-gpu --hide-scrollbars --disable-background-networking --disable-component-update \
             --disable-dev-shm-usage --force-color-profile=srgb about:blank"""],
            pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        self.buffer, self.number, self.session, self.width = b"", 0, None, None
        self.complaints, self.requests, self.loaded = [], [], 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Network", "Runtime", "Log", "Audits", "Accessibility"]:
            self.call(f"{domain}.enable")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)
        try:
            self.profile.cleanup()
        except OSError:
            pass  # A helper process of Chromium may still write there as it ends.

    def call(self, method, **parameters):
        """The answer to one command; events that come before it are taken note of."""
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            message = self.receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def receive(self):
        while b"\0" not in self.buffer:
            part = os.read(self.read, 1 << 20)
            assert part, "Chromium ended"
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(text)
        self.note(message.get("method"), message.get("params", {}))
        return message

    def note(self, event, said):
        if event == "Runtime.consoleAPICalled":
            self.complaints.append(f"console: {said['args']}")
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {said['exceptionDetails']['text']}")
        elif event == "Log.entryAdded":
            self.complaints.append(f"{said['entry']['source']}: {said['entry']['text']}")
        elif event == "Audits.issueAdded":
            self.complaints.append(f"{said['issue']['code']}: {json.dumps(said['issue']['details'])[:500]}")
        elif event == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif event == "Page.loadEventFired":
            self.loaded += 1

    def look(self, width, scheme):
        """From now on the window is so wide, and the user likes it light or dark."""
        self.width = width
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=860, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, url):
        self.complaints, self.requests = [], []
        self.await_load(lambda: self.call("Page.navigate", url=url))

    def await_load(self, act):
        """Does what leads to another page, and returns when that is there."""
        before, deadline = self.loaded, time.monotonic() + DEADLINE
        act()
        while self.loaded == before:
            assert time.monotonic() < deadline, "no page was loaded"
            self.receive()

    def evaluate(self, expression):
        """What JavaScript makes of an expression. The page's policy does not hold for it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def accessible(self):
        """What a screen reader is told: (role, name, properties) of each node that is not ignored."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        value = lambda node, what: node.get(what, {}).get("value", "")
        properties = lambda node: {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
        return [(value(node, "role"), value(node, "name"), properties(node)) for node in nodes if not node["ignored"]]

    def screenshot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
