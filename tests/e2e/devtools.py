"""Controls a headless Chromium through the DevTools protocol over a pipe, and collects its errors."""

import base64
import json
import os
import subprocess
import tempfile
import time

# Seconds. A slow machine takes long to start a browser.
DEADLINE = 60


class Page:
    """One tab of a new browser."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(prefix="refwatch-chromium-")
        # Chromium reads commands from descriptor 3 and writes responses to 4, each terminated by NUL.
        commands, self.write = os.pipe()
        self.read, responses = os.pipe()
        # Debian's wrapper is a shell script. As root Chromium cannot use its sandbox.
        self.process = subprocess.Popen(
            ["bash", "-c", f"""exec 13<&{commands} 14>&{responses}; exec 3<&13 4>&14 13<&- 14>&-
             exec chromium --headless=new --no-sandbox --remote-debugging-pipe --user-data-dir='{self.profile.name}' \
             --no-first-run --disable-gpu --hide-scrollbars --disable-background-networking --disable-component-update \
             --disable-dev-shm-usage --force-color-profile=srgb about:blank"""],
            pass_fds=(commands, responses), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(responses)
        self.buffer, self.number, self.session, self.width, self.scheme = b"", 0, None, None, None
        self.errors, self.requests, self.loaded = [], [], 0
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
            pass  # A helper process of Chromium may still be writing.

    def call(self, method, **parameters):
        """Returns the response to a command. Records earlier events."""
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
        self.record(message.get("method"), message.get("params", {}))
        return message

    def record(self, event, parameters):
        if event == "Runtime.consoleAPICalled":
            self.errors.append(f"console: {parameters['args']}")
        elif event == "Runtime.exceptionThrown":
            self.errors.append(f"exception: {parameters['exceptionDetails']['text']}")
        elif event == "Log.entryAdded":
            self.errors.append(f"{parameters['entry']['source']}: {parameters['entry']['text']}")
        elif event == "Audits.issueAdded":
            self.errors.append(f"{parameters['issue']['code']}: {json.dumps(parameters['issue']['details'])[:500]}")
        elif event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event == "Page.loadEventFired":
            self.loaded += 1

    def set_window(self, width, scheme):
        """Sets the width and the preferred colour scheme."""
        self.width, self.scheme = width, scheme
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=860, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, url):
        self.errors, self.requests = [], []
        self.await_load(lambda: self.call("Page.navigate", url=url))

    def await_load(self, action):
        """Runs an action that loads a page, and waits for the page."""
        before, deadline = self.loaded, time.monotonic() + DEADLINE
        action()
        while self.loaded == before:
            assert time.monotonic() < deadline, "no page was loaded"
            self.receive()

    def evaluate(self, expression):
        """Evaluates JavaScript. The page's content security policy does not apply to it."""
        response = self.call("Runtime.evaluate", expression=expression, returnByValue=True, userGesture=True, awaitPromise=True)
        assert "exceptionDetails" not in response, response["exceptionDetails"]
        return response["result"].get("value")

    def title(self):
        return self.evaluate("document.title")

    def icon(self):
        return self.evaluate("document.querySelector('link[rel=icon]').href")

    def accessible(self):
        """The accessibility tree: (role, name, properties) of each node that is not ignored."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        value = lambda node, key: node.get(key, {}).get("value", "")
        properties = lambda node: {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
        return [(value(node, "role"), value(node, "name"), properties(node)) for node in nodes if not node["ignored"]]

    def screenshot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
