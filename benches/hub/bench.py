#!/usr/bin/env python3
"""The hub of trueup beside other reverse proxies: requests per second, latency, memory, WebSockets. Called by scripts/bench-hub.

Every proxy stands before the same upstream (nginx, two workers, one of which answers 200 with 100 bytes or 64 KiB) on the same machine; they
are measured in turns, round after round, so that whatever else the machine does meets all of them. Only ratios of one run mean something.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, holds, seconds=20):
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            sys.exit(f"waited too long for {what}")
        time.sleep(0.05)


def answers(port, path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).status == 200
    except OSError:
        return False


def rss(pids):
    """MiB of the processes and their children."""
    total = 0
    for pid in pids:
        try:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        found = re.search(r"VmRSS:\s+(\d+)", status)
        total += int(found.group(1)) if found else 0
    return total / 1024


def with_children(pid):
    found = [pid]
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            if parent == pid:
                found.append(int(entry.name))
    return found


NGINX = """
worker_processes {workers}; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  {body}
}}
"""


class Proxy:
    """A process that serves at a port."""

    def __init__(self, name, port, start, pids=None):
        self.name, self.port, self.process = name, port, start
        self.pids = pids or (lambda: with_children(self.process.pid))


def nginx(folder, name, body, workers=2):
    config = folder / f"{name}.conf"
    config.write_text(NGINX.format(dir=folder, name=name, workers=workers, body=body))
    return subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL)


def wrk(port, path, seconds, connections, more=()):
    command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--latency", *more, f"http://127.0.0.1:{port}{path}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}

    def percentile(which):
        value, word = re.search(rf"{which}%\s+([\d.]+)(us|ms|s)", out).groups()
        return float(value) * unit[word]

    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: (.*)", out)
    return {
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
        "p50": percentile(50),
        "p99": percentile(99),
        "errors": (int(errors.group(1)) if errors else 0),
        "broken": broken.group(1) if broken else "",
    }


def cpu(pids):
    """Seconds of processor time that the processes used."""
    ticks = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle_connections(proxy, count):
    """KiB for each of so many connections that asked once and are kept."""
    before = rss(proxy.pids())
    kept = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", proxy.port))
        client.sendall(b"GET /echo/small HTTP/1.1\r\nhost: x\r\n\r\n")
        kept.append(client)
    for client in kept:
        client.recv(65536)
    after = rss(proxy.pids())
    for client in kept:
        client.close()
    return (after - before) * 1024 / count


def websocket(proxy, path, seconds, sockets):
    """Messages back and forth per second, over so many sockets."""
    key = base64.b64encode(os.urandom(16)).decode()
    head = (f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n").encode()
    frame = bytes([0x81, 0x80 | 32, 0, 0, 0, 0]) + b"x" * 32
    counts = [0] * sockets
    until = time.monotonic() + seconds

    def one(number):
        client = socket.create_connection(("127.0.0.1", proxy.port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(head)
        got = b""
        while b"\r\n\r\n" not in got:
            more = client.recv(4096)
            if not more:
                return
            got += more
        if b" 101 " not in got.split(b"\r\n", 1)[0]:
            return
        while time.monotonic() < until:
            client.sendall(frame)
            left = 34
            while left:
                left -= len(client.recv(left))
            counts[number] += 1
        client.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(sockets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--trueup", required=True)
    words.add_argument("--modules", help="the binary of the echo; default: the same")
    words.add_argument("--seconds", type=int, default=10)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--connections", type=int, default=64)
    words.add_argument("--idle", type=int, default=1000)
    words.add_argument("--only", action="append")
    words.add_argument("--json", action="store_true")
    args = words.parse_args()
    args.modules = args.modules or args.trueup
    wanted = lambda name: not args.only or name in args.only

    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-hub-"))
    # The workers of nginx may be another user.
    folder.chmod(0o755)
    processes = []
    try:
        upstream = free_port()
        (folder / "large").write_text("x" * 65536)
        body = (f"server {{ listen 127.0.0.1:{upstream} backlog=4096; "
                f"location = /echo/small {{ default_type text/plain; return 200 '{'x' * 100}'; }} "
                f"location = /echo/large {{ default_type text/plain; alias {folder}/large; }} "
                "location /echo/health { return 200 'ok'; } }")
        processes.append(nginx(folder, "upstream", body))
        wait_for("the upstream", lambda: answers(upstream, "/echo/small"))
        echo = free_port()
        processes.append(subprocess.Popen([args.modules, "demo", "echo", "--port", str(echo)], stdout=subprocess.DEVNULL,
                                          env={"PATH": os.environ["PATH"]}))
        wait_for("the echo", lambda: answers(echo, "/echo/health"))

        proxies = []
        if wanted("direct"):
            proxies.append(Proxy("direct", upstream, processes[0]))
        if wanted("nginx"):
            port = free_port()
            body = (f"upstream u {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }} "
                    f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1; "
                    "proxy_set_header Connection ''; proxy_set_header X-Forwarded-For $remote_addr; } "
                    f"location /echo/ws {{ proxy_pass http://127.0.0.1:{echo}; proxy_http_version 1.1; "
                    "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } "
                    "location = /healthz { return 200 'ok'; } }")
            processes.append(nginx(folder, "proxy", body))
            proxies.append(Proxy("nginx", port, processes[-1]))
        if wanted("caddy") and shutil.which("caddy"):
            port = free_port()
            config = folder / "Caddyfile"
            config.write_text(f"{{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{port} {{\n handle /healthz {{\n respond ok\n }}\n "
                              f"reverse_proxy /echo/ws 127.0.0.1:{echo}\n reverse_proxy 127.0.0.1:{upstream}\n}}\n")
            processes.append(subprocess.Popen(["caddy", "run", "--config", str(config)], stderr=subprocess.DEVNULL,
                                              env={**os.environ, "HOME": str(folder), "GOMAXPROCS": "2"}))
            proxies.append(Proxy("caddy", port, processes[-1]))
        elif wanted("caddy"):
            print("caddy is not on PATH", file=sys.stderr)
        if wanted("trueup"):
            port = free_port()
            tree = folder / "manifests"
            tree.mkdir()
            (tree / "hub.yaml").write_text("apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\n"
                                           f"spec: {{ listen: '127.0.0.1:{port}' }}\n")
            # Services of their own: a second nginx with the same answers, and an echo.
            inner, inner_echo = free_port(), free_port()
            body = (f"server {{ listen 127.0.0.1:{inner} backlog=4096; "
                    f"location = /echo/small {{ default_type text/plain; return 200 '{'x' * 100}'; }} "
                    f"location = /echo/large {{ default_type text/plain; alias {folder}/large; }} "
                    "location /echo/health { return 200 'ok'; } }")
            config = folder / "inner.conf"
            config.write_text(NGINX.format(dir=folder, name="inner", workers=2, body=body))
            (tree / "web.yaml").write_text(
                "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: web }\nspec:\n"
                f"  command: [nginx, -p, {folder}, -c, {config}]\n  port: {inner}\n  routes: [ {{ path: /echo }} ]\n"
                "  readiness: { http: { path: /echo/health }, period: 200ms }\n")
            (tree / "ws.yaml").write_text(
                "apiVersion: trueup/v1\nkind: Service\nmetadata: { name: ws }\nspec:\n"
                f"  command: [{args.modules}, demo, echo, --port, '{inner_echo}']\n  port: {inner_echo}\n"
                "  routes: [ { path: /echo/ws, websocket: true } ]\n  readiness: { http: { path: /echo/health }, period: 200ms }\n")
            environment = {"PATH": f"/usr/sbin:/usr/bin:/bin:{os.environ['PATH']}", "HOME": str(folder)}
            processes.append(subprocess.Popen([args.trueup, "reconcile"], cwd=folder, env=environment,
                                              stdout=(folder / "trueup.out").open("w"), stderr=subprocess.STDOUT))
            daemon = processes[-1]
            proxies.append(Proxy("trueup", port, daemon, lambda: [daemon.pid]))
        for proxy in proxies:
            wait_for(proxy.name, lambda: answers(proxy.port, "/echo/small"))

        results = {proxy.name: {} for proxy in proxies}
        put = lambda name, key, value: results[name].setdefault(key, []).append(value)
        for proxy in proxies:
            wrk(proxy.port, "/echo/small", 1, args.connections)
        for round_number in range(args.rounds):
            for proxy in proxies:
                used = cpu(proxy.pids())
                small = wrk(proxy.port, "/echo/small", args.seconds, args.connections)
                used = cpu(proxy.pids()) - used
                put(proxy.name, "small cpu us per request", used * 1e6 / (small["rps"] * args.seconds))
                large = wrk(proxy.port, "/echo/large", args.seconds, args.connections)
                new = wrk(proxy.port, "/echo/small", max(2, args.seconds // 2), args.connections, ["-H", "Connection: close"])
                for key, found in (("small", small), ("large", large), ("new", new)):
                    for word in ("rps", "p50", "p99"):
                        put(proxy.name, f"{key} {word}", found[word])
                    if found["errors"] or found["broken"]:
                        print(f"{proxy.name} {key}: {found['errors']} errors {found['broken']}", file=sys.stderr)
                if proxy.name != "direct":
                    put(proxy.name, "ws messages/s", websocket(proxy, "/echo/ws", max(2, args.seconds // 2), 8))
                    load = threading.Thread(target=wrk, args=(proxy.port, "/echo/small", args.seconds, args.connections))
                    load.start()
                    time.sleep(0.3)
                    health = wrk(proxy.port, "/healthz", max(1, args.seconds - 1), 2)
                    load.join()
                    put(proxy.name, "healthz p99 under load", health["p99"])
                put(proxy.name, "rss after load MiB", rss(proxy.pids()))
                print(f"round {round_number + 1}: {proxy.name} {small['rps']:.0f} rps", file=sys.stderr)
        for proxy in proxies:
            if proxy.name != "direct":
                put(proxy.name, "KiB per idle connection", idle_connections(proxy, args.idle))

        keys = list(dict.fromkeys(key for found in results.values() for key in found))
        middle = {name: {key: statistics.median(values) for key, values in found.items()} for name, found in results.items()}
        if args.json:
            print(json.dumps(middle, indent=2))
            return
        print(f"| figure | {' | '.join(middle)} |")
        print("|---|" + "---|" * len(middle))
        for key in keys:
            cells = [f"{middle[name][key]:,.2f}" if key in middle[name] else "" for name in middle]
            print(f"| {key} | {' | '.join(cells)} |")
        if "nginx" in middle and "trueup" in middle:
            ratio = lambda key: middle["trueup"][key] / middle["nginx"][key]
            print(f"\ntrueup / nginx: small {ratio('small rps'):.2f}, large {ratio('large rps'):.2f}, new connections {ratio('new rps'):.2f}")
    finally:
        if (folder / "manifests").exists():
            subprocess.run([args.trueup, "down"], cwd=folder, capture_output=True, check=False, timeout=60)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
