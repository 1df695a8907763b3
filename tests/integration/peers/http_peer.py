"""The OpenAPI service: its document and its operations, on the port given. While ``v2`` is in its folder, another schema."""

# ruff: noqa: T201 - a script
from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import behaviour  # type: ignore[import-not-found]

TEXT = {"type": "string"}


def document() -> dict[str, Any]:
    names = ["do", "text", *(["more"] if (behaviour.FOLDER / "v2").exists() else [])]
    done = {"200": {"description": "Done."}}
    parameters = [{"name": name, "in": "query", "schema": TEXT} for name in names]
    body = {"type": "object", "properties": dict.fromkeys(names, TEXT)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Peer", "version": "1"},
        "paths": {
            "/read": {"get": {"operationId": "read", "parameters": parameters, "responses": done}},
            "/write": {
                "post": {
                    "operationId": "write",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
                    "responses": done,
                }
            },
        },
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/openapi.json":
            self.give("application/json", json.dumps(document()).encode())
        else:
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            # What only reads carries no key: the text is as good as one here.
            self.work(asked["do"], asked["text"], asked["text"])

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.work(asked["do"], asked["text"], self.headers["idempotency-key"])

    def work(self, do: str, text: str, key: str) -> None:
        match do:
            case "garbage":
                behaviour.note("http", key)
                self.give("application/json", b'{"this is": no JSON')
            case "noise":
                if behaviour.note("http", key) > 1:
                    self.give("text/plain", b"done")
                else:
                    self.wfile.write(b"this is no HTTP\r\n\r\n")
                    self.close_connection = True
            case "huge":
                self.give("text/plain", b"x" * behaviour.HUGE)
            case _:
                self.give("text/plain", behaviour.work("http", do, text, key).encode())

    def give(self, media_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True


ThreadingHTTPServer.allow_reuse_address = True
ThreadingHTTPServer.daemon_threads = True
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
