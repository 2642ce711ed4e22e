"""One run for all supervisors: see scripts/bench-supervision, which calls this with everything built and installed."""

import argparse
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers

#: Below the ports that the kernel gives away (32768), above those that services are known by.
BASE = 20000
#: A module that has run so long is healthy for every peer (supervisord and runit count one second).
HEALTHY = 1.5
#: Between two kills of one round.
BETWEEN = 0.3
KILLS = 3
IDLE = 10


#: Folders of rounds that are over, removed at the end: ext4 without a journal searches long for a free inode while many were freed
#: a moment ago, and that would be charged to whoever makes files next.
LEFT = []


class Tools:
    def __init__(self, args):
        self.tool, self.trueup = args.tool, args.trueup
        self.home = Path(args.peers)
        self.path = os.environ["PATH"]
        self.systemd = next((p for p in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd") if Path(p).exists()), None)

    def has(self, program):
        return shutil.which(program, path=self.path) is not None

    def text(self, command):
        done = subprocess.run(command, capture_output=True, text=True, env=self.env({}), timeout=30)
        return (done.stdout or done.stderr).strip()

    def env(self, more):
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG")}
        return keep | more

    def package(self, name):
        debs = sorted((self.home / "deb").glob(f"{name}_*.deb"))
        if debs:
            return debs[-1].name.split("_")[1]
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True)
        return done.stdout.strip()

    def pip(self, name):
        for line in self.text([str(self.home / "py/bin/pip"), "list", "--format", "freeze"]).splitlines():
            if line.startswith(name + "=="):
                return line.split("==")[1]
        return ""

    def npm(self, name):
        import json

        return json.loads((self.home / f"npm/node_modules/{name}/package.json").read_text())["version"]


def environ(pid):
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    return dict(v.split("=", 1) for v in text.decode(errors="replace").split("\0") if "=" in v)


def exe(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def pids():
    return [int(p) for p in os.listdir("/proc") if p.isdigit()]


class Round:
    """One life of one peer: everything that it starts carries a mark in its environment or runs our tool in our folder."""

    def __init__(self, tools, peer, count, limit):
        self.tools, self.peer, self.limit = tools, peer, limit
        self.dir = tempfile.mkdtemp(prefix="supervision-")
        self.mark = f"{os.getpid()}-{random.getrandbits(48):012x}"
        self.log = os.path.join(self.dir, "output")
        peer.place(self.dir, BASE, count)
        home = os.path.join(self.dir, "home")
        os.mkdir(home)
        self.env = tools.env({"HOME": home, "BENCH_RUN": self.mark, "LOG": self.log} | peer.env())

    def watch(self, what, first, second, command=None):
        """Milliseconds, or None when the limit passed. The peer's `pid` is that of the last command."""
        words = [self.tools.tool, "watch", what, str(first), str(second), str(int(self.limit * 1000))]
        words += ["--", *command] if command else []
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=self.limit + 30)
        fields = done.stdout.split()
        if len(fields) != 2:
            raise RuntimeError(f"{words}: {done.stderr.strip()}")
        self.command = int(fields[1])
        return None if fields[0] == "-1" else float(fields[0]) / 1000

    def settled(self, pid):
        """Waits for a command to end, however it was started."""
        until = time.monotonic() + self.limit
        while time.monotonic() < until and exe(pid):
            time.sleep(0.005)

    def modules(self):
        """Port to pid. A module is our own tool, told to be one, by whoever started it."""
        found = {}
        for pid in pids():
            if exe(pid) != self.tools.tool:
                continue
            port = environ(pid).get("PORT")
            if port:
                found[int(port)] = pid
        return found

    def supervisors(self):
        """Whatever carries our mark and is no module."""
        mine = [p for p in pids() if environ(p).get("BENCH_RUN") == self.mark]
        return [p for p in mine if not (exe(p) == self.tools.tool and environ(p).get("PORT"))]

    def close(self):
        after = self.peer.after(self.command) if hasattr(self, "command") else None
        if after:
            subprocess.run(after, env=self.env, capture_output=True, timeout=60)
        until = time.monotonic() + 15
        while (left := self.supervisors()) and time.monotonic() < until:
            time.sleep(0.05)
        # Everything here was started by this round: it has our mark, or is our tool.
        for pid in left + list(self.modules().values()):
            try:
                os.kill(pid, 9)
            except OSError:
                pass
        LEFT.append(self.dir)


def pss(all_pids):
    total = 0
    for pid in all_pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def cost(all_pids):
    """CPU seconds used and voluntary context switches made, all threads."""
    ticks = switches = 0
    for pid in all_pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
        for task in Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary"):
                    switches += int(line.split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), switches


def life(tools, kind, count, limit):
    """Cold start, kills, one change, memory, stop. Gives what was measured; what took too long is missing."""
    peer = kind(tools)
    round_ = Round(tools, peer, count, limit)
    got = {}
    try:
        got["cold"] = round_.watch("start", BASE, count, peer.start())
        if got["cold"] is None:
            return got
        pid = peer.pid = round_.command
        if peer.ends:
            round_.settled(pid)
        time.sleep(HEALTHY)
        before = round_.modules()
        kills = []
        for port in random.sample(range(BASE, BASE + count), KILLS):
            took = round_.watch("kill", port, before[port])
            kills.append(took)
            time.sleep(BETWEEN)
        got["restart"] = statistics.median(kills) if None not in kills else None
        time.sleep(HEALTHY)
        before = round_.modules()
        index = random.randrange(count)
        port = BASE + index
        got["change"] = round_.watch("change", port, count, peer.change(index, "b"))
        round_.settled(round_.command)
        after = round_.modules()
        if got["change"] is not None:
            moved = [p for p in before if p != port and before[p] != after.get(p)]
            level = environ(after[port]).get("LEVEL")
            if moved or level != "b":
                print(f"  {peer.name}: the change moved {len(moved)} others, LEVEL={level}", file=sys.stderr)
                got["change"] = None
        got["pss"] = pss(round_.supervisors())
        got["stop"] = round_.watch("stop", BASE, count, peer.stop(pid))
        round_.settled(round_.command)
        return got
    finally:
        round_.close()


def crowd(tools, kind, count, limit, idle):
    """Memory and idleness with many modules."""
    peer = kind(tools)
    round_ = Round(tools, peer, count, limit)
    got = {}
    try:
        took = round_.watch("start", BASE, count, peer.start())
        if took is None:
            return got
        got["coldMany"] = took
        pid = round_.command
        if peer.ends:
            round_.settled(pid)
        time.sleep(3)
        mine = round_.supervisors()
        got["pssMany"] = pss(mine)
        cpu, switches = cost(mine)
        time.sleep(idle)
        cpu2, switches2 = cost(mine)
        got["idle"] = 100 * (cpu2 - cpu) / idle
        got["wakes"] = (switches2 - switches) / idle
        round_.watch("stop", BASE, count, peer.stop(pid))
        round_.settled(round_.command)
        return got
    finally:
        round_.close()


class Pair(peers.TrueupDaemon):
    """b needs a; a takes 300 ms to listen."""

    def write(self):
        super().write()
        first = self.manifest(0).replace("env: {", 'env: { DELAY_MS: "300",')
        (self.tree / "m0.yaml").write_text(first)
        second = self.manifest(1) + "  dependsOn: [ { service: m0, condition: ready } ]\n"
        (self.tree / "m1.yaml").write_text(second)


def gap(tools, limit):
    round_ = Round(tools, peer := Pair(tools), 2, limit)
    try:
        return round_.watch("gap", BASE, BASE + 1, peer.start())
    finally:
        round_.close()


ROWS = [
    ("cold", "{n} services cold to all listening, ms"),
    ("restart", "kill -9 to listening again, ms"),
    ("change", "change one variable of {n}, to listening again, ms"),
    ("stop", "stop {n} gracefully, ms"),
    ("pss", "PSS of the supervisor, {n} children, MiB"),
    ("coldMany", "{m} services cold to all listening, ms"),
    ("pssMany", "PSS of the supervisor, {m} children, MiB"),
    ("idle", "idle CPU, {m} children, % of a core"),
    ("wakes", "wake-ups a second, {m} children"),
]
#: Rows where a ratio to the floor says something.
RATIOS = {"cold", "restart", "change", "stop", "coldMany"}


def shown(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def table(results, floor, n, many):
    names = list(results)
    rows = [(key, text) for key, text in ROWS if many or "{m}" not in text]
    lines = ["| peer | " + " | ".join(text.format(n=n, m=many) for _, text in rows) + " |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    for name in names:
        cells = []
        for key, _ in rows:
            value = results[name].get(key)
            base = results.get(floor, {}).get(key)
            ratio = f" ({value / base:.1f}x)" if key in RATIOS and value and base and name != floor else ""
            cells.append(shown(value) + ratio)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine():
    model = next((l.split(":")[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in l), "")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, load average {load:.1f} at the start"


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--tool", required=True)
    ask.add_argument("--trueup", required=True)
    ask.add_argument("--peers", required=True)
    ask.add_argument("--rounds", type=int, default=10)
    ask.add_argument("--slow-rounds", type=int, default=3)
    ask.add_argument("--count", type=int, default=100)
    ask.add_argument("--many", type=int, default=1000)
    ask.add_argument("--idle", type=int, default=IDLE)
    ask.add_argument("--limit", type=float, default=60, help="seconds that one step of one peer may take")
    ask.add_argument("--only", action="append", help="only peers whose name begins so")
    ask.add_argument("--note", default="", help="said above the table")
    ask.add_argument("--write", help="the file whose marked part is replaced")
    args = ask.parse_args()
    tools = Tools(args)
    began = machine()
    chosen, absent, versions = [], {}, {}
    for kind in peers.ALL:
        peer = kind(tools)
        if args.only and not any(peer.name.startswith(o) for o in args.only):
            continue
        why = peer.missing()
        if why:
            absent[peer.name] = why
        else:
            chosen.append(kind)
            versions[peer.name] = peer.version()
    samples = {kind.name: {} for kind in chosen}
    failed = {}
    for number in range(args.rounds):
        # Interleaved, so that whatever else the machine does hits everybody.
        for kind in random.sample(chosen, len(chosen)):
            if kind.slow and number >= args.slow_rounds:
                continue
            try:
                got = life(tools, kind, args.count, args.limit)
            except Exception as error:  # One peer's failure is a line in the notes, not the end of the run.
                failed[kind.name] = f"{type(error).__name__}: {error}"
                got = {}
            print(f"{number + 1}/{args.rounds} {kind.name}: {got}", file=sys.stderr, flush=True)
            for key, value in got.items():
                if value is not None:
                    samples[kind.name].setdefault(key, []).append(value)
    if args.many:
        for kind in chosen:
            try:
                got = crowd(tools, kind, args.many, max(args.limit, 180), args.idle)
            except Exception as error:
                failed[kind.name] = f"{type(error).__name__}: {error}"
                got = {}
            print(f"{args.many} {kind.name}: {got}", file=sys.stderr, flush=True)
            for key, value in got.items():
                samples[kind.name].setdefault(key, []).append(value)
    gaps = []
    if any(kind is peers.TrueupDaemon for kind in chosen):
        gaps = [g for g in (gap(tools, args.limit) for _ in range(args.rounds)) if g is not None]
    results = {name: {k: statistics.median(v) for k, v in got.items()} for name, got in samples.items()}
    text = [args.note] if args.note else []
    text.append(f"{time.strftime('%Y-%m-%d')}, {began}.")
    text.append(f"Medians of {args.rounds} rounds ({args.slow_rounds} for {', '.join(k.name for k in chosen if k.slow) or 'none'}), "
                f"peers interleaved; {args.many or 'no'} children measured once. Brackets: ratio to the bare loop.\n")
    text.append(table(results, peers.Floor.name, args.count, args.many) + "\n")
    if gaps:
        text.append(f"trueup, dependency listening to dependent listening: median {statistics.median(gaps):.1f} ms, "
                    f"worst {max(gaps):.1f} ms of {len(gaps)}.\n")
    text.append("Versions: " + ", ".join(f"{n} {v}" for n, v in versions.items() if v) + ".")
    text.append("Output of modules: " + "; ".join(f"{k.name}: {k.output}" for k in chosen) + ".")
    for name, why in (absent | failed).items():
        text.append(f"{name}: not measured{' in part' if name in failed else ''}, {why}.")
    body = "\n".join(text)
    print(body)
    if args.write:
        path = Path(args.write)
        old = path.read_text()
        begin, end = "<!-- supervision: begin -->", "<!-- supervision: end -->"
        head, rest = old.split(begin)
        path.write_text(head + begin + "\n" + body + "\n" + end + rest.split(end)[1])


try:
    main()
finally:
    for folder in LEFT:
        shutil.rmtree(folder, ignore_errors=True)
