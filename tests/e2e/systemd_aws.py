"""Simulates AWS's infrastructure on the loopback device of a container: `systemd_aws.py TLS_DIRECTORY KEYS_FILE`.

Serves the instance metadata service and the container credentials endpoint at their addresses, a name server that resolves every name
to loopback, an HTTP proxy, and TLS in front of the simulator. For each request, KEYS_FILE gets one line: the access key that signed
it, and whether it came through the proxy.
"""

import http.client
import http.server
import json
import pathlib
import re
import socket
import socketserver
import ssl
import sys
import threading

TLS, KEYS = map(pathlib.Path, sys.argv[1:])
SIMULATOR = ("127.0.0.1", 10211)
HEALTH_OMICS = ("127.0.0.1", 8443)
ROLE = "refwatch"
ROLES_PATH = "/latest/meta-data/iam/security-credentials/"
# Local ports of the proxy's connections.
proxied = set()


def credentials(key):
    return json.dumps(
        {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": key,
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": "2099-01-01T00:00:00Z",
        }
    )


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self, status, body, headers=()):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        body = self.paths.get(self.path)
        self.respond(200 if body else 404, body or "")


class InstanceMetadata(Handler):
    paths = {
        ROLES_PATH: ROLE,
        ROLES_PATH + ROLE: credentials("INSTANCE"),
        "/latest/meta-data/placement/region": "us-west-2",
    }

    def do_PUT(self):
        self.respond(200, "session", [("x-aws-ec2-metadata-token-ttl-seconds", "21600")])


class ContainerCredentials(Handler):
    paths = {"/credentials": credentials("CONTAINER")}


class HealthOmics(Handler):
    """Records the access key and forwards the request."""

    def do_GET(self):
        self.forward()

    def do_POST(self):
        self.forward()

    def forward(self):
        key = re.search(r"Credential=([^/]+)", self.headers.get("Authorization", ""))
        route = " by proxy" if self.client_address[1] in proxied else ""
        with KEYS.open("a") as keys:
            keys.write(f"{key[1] if key else 'nobody'}{route}\n")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        simulator = http.client.HTTPConnection(*SIMULATOR)
        simulator.request(self.command, self.path, body, dict(self.headers))
        response = simulator.getresponse()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in ("content-length", "transfer-encoding")]
        self.respond(response.status, response.read(), kept)


class Proxy(Handler):
    def do_CONNECT(self):
        upstream = socket.create_connection(HEALTH_OMICS)
        proxied.add(upstream.getsockname()[1])
        self.send_response(200)
        self.end_headers()
        threading.Thread(target=copy, args=(upstream, self.connection), daemon=True).start()
        copy(self.connection, upstream)
        self.close_connection = True


def copy(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.close()


class NameServer(socketserver.DatagramRequestHandler):
    """Resolves every name to 127.0.0.1, without IPv6 addresses."""

    def handle(self):
        query = self.rfile.read()
        end = query.index(b"\0", 12) + 5
        is_a = query[end - 4 : end - 2] == b"\0\1"
        header = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("127.0.0.1") if is_a else b""
        self.wfile.write(header + query[12:end] + answer)


def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "omics.crt", TLS / "omics.key")
    health_omics = http.server.ThreadingHTTPServer(HEALTH_OMICS, HealthOmics)
    health_omics.socket = context.wrap_socket(health_omics.socket, server_side=True)
    servers = [
        health_omics,
        http.server.ThreadingHTTPServer(("169.254.169.254", 80), InstanceMetadata),
        http.server.ThreadingHTTPServer(("169.254.170.2", 80), ContainerCredentials),
        http.server.ThreadingHTTPServer(("127.0.0.1", 3128), Proxy),
        socketserver.ThreadingUDPServer(("127.0.0.1", 53), NameServer),
    ]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()


main()
