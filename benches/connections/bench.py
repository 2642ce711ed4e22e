"""Connections: what a look at many of them costs when nothing changed, how long wiring takes, and the way back after a vault was away.

The baseline of a look is what it asks of the vault: the same list of triggers, fetched by a client that does nothing with it.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

LOOKED = re.compile(r"steps=(\d+).*?ms=(\d+)|ms=(\d+).*?steps=(\d+)")


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def tree(connections, hub, vault, mailbox, offset=0):
    head = f"""apiVersion: trueup/v1
kind: Hub
metadata: {{ name: home }}
spec: {{ listen: "127.0.0.1:{hub}" }}
---
apiVersion: trueup/v1
kind: Service
metadata: {{ name: vault }}
spec:
  command: [trueup, demo, vault]
  port: {vault}
  registersAs: parachute-vault
  routes: [ {{ path: /vault }} ]
  env: {{ LOG_LEVEL: debug }}
  readiness: {{ http: {{ path: /vault/default/health }} }}
  events: [ {{ key: note.created, filterSchema: {{ type: object, properties: {{ tags: {{ type: array }} }} }} }} ]
---
apiVersion: trueup/v1
kind: Service
metadata: {{ name: mailbox }}
spec:
  command: [trueup, demo, mailbox]
  port: {mailbox}
  registersAs: mailbox
  routes: [ {{ path: /mailbox }} ]
  actions: [ {{ key: message.deliver, endpoint: /api/deliver, scope: "mailbox:send" }} ]
---
apiVersion: trueup/v1
kind: Vault
metadata: {{ name: default }}
spec: {{ service: vault }}
"""
    one = """---
apiVersion: trueup/v1
kind: Connection
metadata: {{ name: c{number:05} }}
spec:
  source: {{ service: vault, vault: default, event: note.created, filter: {{ tags: [t{tag}] }} }}
  sink: {{ service: mailbox, action: message.deliver }}
"""
    return head + "".join(one.format(number=n, tag=n + offset) for n in range(connections))


class Bench:
    def __init__(self, args):
        self.args = args
        self.dir = Path(tempfile.mkdtemp(prefix="bench-connections-"))
        (self.dir / "manifests").mkdir()
        self.hub, self.vault, self.mailbox = free_ports(3)
        self.write(0)
        self.log = self.dir / "daemon.log"

    def write(self, offset):
        text = tree(self.args.connections, self.hub, self.vault, self.mailbox, offset)
        new = self.dir / "new.yaml"
        new.write_text(text)
        new.rename(self.dir / "manifests" / "tree.yaml")

    def trueup(self, *words):
        done = subprocess.run([self.args.trueup, *words], cwd=self.dir, capture_output=True, text=True)
        return done.stdout

    def ready(self):
        lines = [json.loads(line) for line in self.trueup("get", "connections", "-o", "json").splitlines()]
        lines = [line for line in lines if line.get("kind") == "Connection"]
        good = [l for l in lines if any(c["type"] == "Ready" and c["status"] == "True" for c in l["conditions"])]
        return len(good)

    def triggers(self):
        token = self.trueup("token", "mint", "--scope", "vault:default:admin", "--expires-in", "10m").strip().splitlines()[0]
        return token

    def fetch(self, token):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.vault}/vault/default/api/triggers", headers={"authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["triggers"]

    def until(self, what, limit=120):
        begun = time.monotonic()
        while time.monotonic() - begun < limit:
            if what():
                return time.monotonic() - begun
            time.sleep(0.02)
        sys.exit(f"gave up after {limit} s; see {self.log}")

    def looks(self):
        """Milliseconds of the looks that found nothing to do."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))
        found = []
        for line in text.splitlines():
            steps, ms = re.search(r"steps=(\d+)", line), re.search(r"\bms=(\d+)", line)
            if "looked" in line and steps and ms:
                found.append((int(steps[1]), int(ms[1])))
        return found

    def run(self):
        out = self.log.open("w")
        daemon = subprocess.Popen([self.args.trueup, "-v", "reconcile"], cwd=self.dir, stdout=out, stderr=out)
        result = {"connections": self.args.connections}
        try:
            begun = time.monotonic()
            self.until(lambda: "in sync" in self.log.read_text(errors="replace"))
            result["wiredSeconds"] = round(time.monotonic() - begun, 2)
            token = self.triggers()
            self.until(lambda: len(self.fetch(token)) == self.args.connections)
            before = len(self.looks())
            asked = self.gets()
            for _ in range(self.args.looks):
                self.trueup("reconcile", "--once")
            looks = [ms for steps, ms in self.looks()[before:] if steps == 0]
            result["looks"] = len(looks)
            result["lookMs"] = statistics.median(looks)
            result["listsPerLook"] = round((self.gets() - asked) / max(1, len(looks)), 2)
            plain = []
            for _ in range(self.args.looks):
                start = time.perf_counter()
                self.fetch(token)
                plain.append((time.perf_counter() - start) * 1_000)
            result["listMs"] = round(statistics.median(plain), 1)
            result["ownMs"] = round(result["lookMs"] - result["listMs"], 1)
            result["away"] = self.away(token)
        finally:
            daemon.terminate()
            daemon.wait(20)
            self.trueup("down")
        if not self.args.keep:
            shutil.rmtree(self.dir, ignore_errors=True)
        return result

    def gets(self):
        said = self.trueup("logs", "vault", "-n", "100000")
        return said.count("GET /vault/default/api/triggers 200")

    def away(self, token):
        """The vault is stopped, every connection is changed, the vault comes back: until all the new wiring stands."""
        self.trueup("stop", "vault")
        self.write(1_000_000)
        time.sleep(0.5)
        begun = time.monotonic()
        self.trueup("start", "vault", "--timeout", "1ms")
        def stands():
            try:
                triggers = self.fetch(token)
            except OSError:
                return False
            return all(int(t["when"]["tags"][0][1:]) >= 1_000_000 for t in triggers)
        self.until(stands)
        return {"secondsUntilAllNew": round(time.monotonic() - begun, 2)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trueup", required=True)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument("--keep", action="store_true", help="leaves the folder for a look")
    args = parser.parse_args()
    args.trueup = os.path.abspath(args.trueup)
    print(json.dumps(Bench(args).run(), indent=2))


if __name__ == "__main__":
    main()
