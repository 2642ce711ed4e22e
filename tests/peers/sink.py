"""A tiny sink: takes whatever is posted to it and says what came. It needs nothing but Python.

It reads PORT (0 takes a free one). SINK_FAIL=CODE[:N] answers the first N posts (or all) with CODE and takes nothing. SINK_DELAY_MS waits
before it answers. GET /<anything>/messages lists what was taken: the body, the headers that matter, how often it came, and what its bearer
claims (not the bearer, and nothing of it is checked).
"""

import base64
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOST = 200_000
LOCK = threading.Lock()
TAKEN = {}
FAIL_CODE, _, FAIL_TIMES = os.environ.get("SINK_FAIL", "").partition(":")
LEFT = [int(FAIL_TIMES) if FAIL_TIMES else (MOST if FAIL_CODE else 0)]
DELAY = int(os.environ.get("SINK_DELAY_MS") or 0) / 1000


def claims(header):
    try:
        part = header.split(" ", 1)[1].split(".")[1]
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except Exception:
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer must not wait for the acknowledgement of its own headers.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def say(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        if self.path.rstrip("/").endswith("/health"):
            return self.say(200, {"status": "ok"})
        with LOCK:
            return self.say(200, list(TAKEN.values()))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(DELAY)
        with LOCK:
            if LEFT[0] > 0:
                LEFT[0] -= 1
                return self.say(int(FAIL_CODE), {"error": "failing on request"})
            try:
                message = json.loads(body)
                note = message["note"]["id"]
            except (ValueError, KeyError, TypeError):
                return self.say(400, {"error": "no note with an id"})
            key = self.headers.get("Idempotency-Key")
            known = TAKEN.get(("key", key) if key else ("note", note))
            if known:
                known["times"] += 1
                return self.say(200, {"ok": True, "duplicate": True})
            if len(TAKEN) >= MOST:
                return self.say(507, {"error": "full"})
            TAKEN[("key", key) if key else ("note", note)] = {
                "path": self.path, "body": message, "noteId": note, "idempotencyKey": key, "times": 1,
                "claims": claims(self.headers.get("Authorization") or ""),
            }
        return self.say(200, {"ok": True})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    server = Server(("127.0.0.1", int(os.environ.get("PORT") or 0)), Handler)
    print(f"sink listens port={server.server_address[1]} pid={os.getpid()}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
