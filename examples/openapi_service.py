"""A service described by OpenAPI becomes tools: one an operation, with a key that no plan and no log ever shows.

The service is a small one of this file's own, so that nothing else is needed; any document works the same way. It needs
`pip install 'open-autoglm[server,openapi]'`.

python examples/openapi_service.py
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import autoglm

KEY = "key-of-the-warehouse"

ITEM = {"name": "item", "in": "path", "required": True, "schema": {"type": "string"}}
ORDER = {
    "type": "object",
    "required": ["item", "count"],
    "properties": {"item": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Warehouse", "version": "1"},
    "security": [{"key": []}],
    "components": {"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}}},
    "paths": {
        "/stock/{item}": {
            "get": {
                "operationId": "stock",
                "summary": "Say how many there are.",
                "parameters": [ITEM],
                "responses": {"200": {"description": "The number."}},
            }
        },
        "/orders": {
            "post": {
                "operationId": "order",
                "summary": "Order more.",
                "requestBody": {"required": True, "content": {"application/json": {"schema": ORDER}}},
                "responses": {"201": {"description": "The order."}},
            }
        },
    },
}


class Warehouse(BaseHTTPRequestHandler):
    """The service."""

    # An order is made once for each Idempotency-Key, which is the same for every attempt at a step.
    orders: ClassVar[dict[str, dict[str, object]]] = {}

    def do_GET(self) -> None:
        if self.path == "/openapi.json":
            self.answer(200, DOCUMENT)
        elif self.headers["X-Key"] == KEY:
            self.answer(200, {"item": self.path.rpartition("/")[2], "count": 3})
        else:
            self.answer(401, {"error": "who are you?"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        order = self.orders.setdefault(self.headers["Idempotency-Key"], {"number": len(self.orders) + 1, **body})
        self.answer(201, order)

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> int:
    service = ThreadingHTTPServer(("127.0.0.1", 0), Warehouse)
    threading.Thread(target=service.serve_forever, daemon=True).start()

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "autoglm.json"  # JSON is YAML
        config.write_text(
            json.dumps(
                {
                    "providers": {"warehouse": f"openapi:http://127.0.0.1:{service.server_port}/openapi.json"},
                    "secrets": {"warehouse": "env:WAREHOUSE_KEY"},
                    "openapi": {"warehouse": {"auth": {"key": "secret://warehouse"}}},
                }
            )
        )
        os.environ["WAREHOUSE_KEY"] = KEY
        steps = [
            autoglm.StepDraft(id="stock", tool="warehouse.stock", arguments={"item": "lamp"}),
            autoglm.StepDraft(id="missing", tool="math.calculate", arguments={"expression": "10 - ${stock.count}"}),
            autoglm.StepDraft(
                id="order", tool="warehouse.order", arguments={"body": {"item": "lamp", "count": "${missing.result}"}}
            ),
        ]

        with autoglm.init(server_args=["--config", str(config)]) as client:
            for tool in client.tools.list():
                if tool.provider == "warehouse":
                    print(f"{tool.name}: {tool.description} ({tool.effect.name})")

            try:
                plan = client.run(steps=steps).result(timeout=60)
            except autoglm.PlanFailedError as error:
                print(error, file=sys.stderr)
                return 1

            print(plan.output)

    service.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
