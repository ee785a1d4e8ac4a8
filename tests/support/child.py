"""A service for the tests of whoever runs services: ready at /readyz, and ends as its environment says.

CHILD_EXITS: the code it ends with at once. CHILD_STUBBORN: SIGTERM does not end it. CHILD_NEVER_READY: answers 503.
Started as `python -m tests.support.child`.
"""

import http.server
import os
import signal
import sys
import time
from pathlib import Path


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if "CHILD_NEVER_READY" in os.environ else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


def stopped(*_: object) -> None:
    if journal := os.environ.get("CHILD_JOURNAL"):
        with Path(journal).open("a") as file:
            file.write(f"{os.environ['CHILD_NAME']} {time.monotonic()}\n")
    sys.exit(0)


if __name__ == "__main__":
    print("child says hello", flush=True)
    if code := os.environ.get("CHILD_EXITS"):
        sys.exit(int(code))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "CHILD_STUBBORN" in os.environ else stopped)
    http.server.HTTPServer(("127.0.0.1", int(os.environ["BATON_HEALTH_PORT"])), Health).serve_forever()
