"""One run for all who move blobs: see scripts/bench-storage, which calls this with everything built and installed."""

import argparse
import hashlib
import os
import platform
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

#: No step of anybody may take longer, in seconds.
LIMIT = 900
#: Memory is looked at this often, in seconds. The kernel keeps the highest value, so only what comes after the last look is missed.
LOOK = 0.02
KEY, SECRET, BUCKET = "AKIABENCH", "a-secret-of-the-bench", "blobs"
PATHS = {"fs": "a folder", "sqlite": "an SQLite file", "s3": "a bucket (s3s-fs on loopback)"}
#: Threads of the bare loop.
THREADS = os.cpu_count()
#: Folders of runs that are over, removed at the end: ext4 without a journal searches long for a free inode while many were freed a
#: moment ago, and that would be charged to whoever makes files next.
LEFT = []


def say(text):
    print(text, file=sys.stderr, flush=True)


class Run:
    """What one command cost. All of it is waited for; what does not end well ends the bench."""

    def __init__(self, words, cwd=None, env=None, kill_when=None):
        self.peak, self.killed, self.late = 0, False, False
        done = threading.Event()
        with tempfile.TemporaryFile() as out:
            began = time.monotonic()
            child = subprocess.Popen(words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

            def watch():
                while not done.wait(LOOK / 10 if kill_when else LOOK):
                    self.peak = max(self.peak, peak(child.pid))
                    self.late = time.monotonic() - began > LIMIT
                    if self.late or kill_when and kill_when():
                        self.killed = True
                        os.kill(child.pid, signal.SIGKILL)
                        return

            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                # Not yet reaped, so that its number stays its own until nobody looks any more.
                os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
                self.seconds = time.monotonic() - began
            except BaseException:
                child.kill()
                raise
            finally:
                done.set()
                watcher.join()
                _, status, used = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
            self.cpu = used.ru_utime + used.ru_stime
            self.killed = self.killed and child.returncode == -signal.SIGKILL
            out.seek(0)
            self.text = out.read().decode(errors="replace")
        if self.late or child.returncode and not self.killed:
            why = f"did not end in {LIMIT} s" if self.late else f"ended with {child.returncode}"
            raise RuntimeError(f"{words} {why}: {self.text[-2000:]}")


def peak(pid):
    """The most memory a process ever had, in MiB."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0


class Bench:
    def __init__(self, args, work):
        self.args, self.work = args, Path(work)
        self.counter = 0
        home = self.work / "home"
        home.mkdir()
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR")}
        self.env = keep | {
            "HOME": str(home), "BENCH_KEY": KEY, "BENCH_SECRET": SECRET, "RCLONE_CONFIG": "/dev/null",
            "RCLONE_CONFIG_BUCKET_TYPE": "s3", "RCLONE_CONFIG_BUCKET_PROVIDER": "Other",
            "RCLONE_CONFIG_BUCKET_ACCESS_KEY_ID": KEY, "RCLONE_CONFIG_BUCKET_SECRET_ACCESS_KEY": SECRET,
            "RCLONE_CONFIG_BUCKET_REGION": "us-east-1", "RCLONE_CONFIG_BUCKET_FORCE_PATH_STYLE": "true",
        }
        self.server = None

    def fresh(self, name):
        self.counter += 1
        return self.work / f"{self.counter}-{name}"

    def tool(self, *words):
        done = subprocess.run([self.args.tool, *map(str, words)], capture_output=True, text=True, timeout=LIMIT)
        if done.returncode:
            raise RuntimeError(f"{words}: {done.stderr}")
        return done.stdout.strip()

    def serve(self):
        """An S3 server that ends with us: it reads from a pipe that only we hold."""
        self.objects = self.work / "objects"
        self.objects.mkdir()
        words = [self.args.tool, "serve", str(self.objects), KEY, SECRET]
        log = open(self.work / "server.log", "wb")
        self.server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.signed, self.open = self.server.stdout.readline().split()
        self.env["RCLONE_CONFIG_BUCKET_ENDPOINT"] = f"http://{self.signed}"

    def close(self):
        if self.server:
            self.server.stdin.close()
            try:
                self.server.wait(10)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()


class Corpus:
    """A tree of trueup's with blobs in a folder, at rest, and what is needed to have it so again."""

    def __init__(self, bench, name, title, fill):
        self.bench, self.name, self.title = bench, name, title
        self.tree = bench.work / name
        self.blobs, self.state, self.kept = self.tree / "blobs", self.tree / ".trueup", self.tree / "kept"
        manifests = self.tree / "manifests"
        manifests.mkdir(parents=True)
        (manifests / "hub.yaml").write_text("apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: {}\n")
        # Making an index waits for the disk with every blob; in memory that costs nothing.
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=shm) as folder:
            index = Path(folder) / "index.db"
            fill(self.blobs, index)
            made = self.state / "blobs"
            for folder in (self.state, made):
                folder.mkdir(mode=0o700)
            shutil.copy(index, made / "index.db")
        # A folder with blobs has the mark of their owner, who is in the index.
        self.blobs.mkdir(exist_ok=True)
        (self.blobs / "trueup-owner").write_text(self.index("SELECT owner FROM book")[0][0])
        self.write("local")
        self.reconcile()
        self.state.rename(self.kept)
        self.files = {p.parent.name + p.name: p.stat().st_size for p in self.blobs.glob("??/*")}
        self.bytes = sum(self.files.values())
        self.sums = self.tree / "sums"
        self.sums.write_text("".join(f"{name}  {name[:2]}/{name[2:]}\n" for name in sorted(self.files)))

    def write(self, active, other=None):
        def backend(name, spec):
            return (f"apiVersion: trueup/v1\nkind: StorageBackend\nmetadata: {{ name: {name} }}\n"
                    f"spec: {{ {spec} }}\n---\n")
        text = backend("local", "fs: { path: ../blobs }") + (backend("other", other) if other else "")
        text += ("apiVersion: trueup/v1\nkind: Storage\nmetadata: { name: default }\n"
                 f"spec: {{ activeBackend: {active} }}\n")
        (self.tree / "manifests/storage.yaml").write_text(text)

    def reset(self):
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.copytree(self.kept, self.state)

    def reconcile(self, **more):
        words = [self.bench.args.trueup, "reconcile", "--once", "--timeout", f"{LIMIT}s"]
        return Run(words, cwd=self.tree, env=self.bench.env, **more)

    def index(self, sql):
        with sqlite3.connect(f"file:{self.state}/blobs/index.db?mode=ro", uri=True, timeout=10) as index:
            return index.execute(sql).fetchall()

    def warm(self):
        for path in self.blobs.glob("??/*"):
            with open(path, "rb") as file:
                while file.read(1 << 20):
                    pass


class Target:
    """An empty place of some kind, and what came to lie there."""

    def __init__(self, bench, kind):
        self.bench, self.kind = bench, kind
        self.path = bench.fresh(kind)
        if kind == "s3":
            self.name = f"b{bench.counter}-{BUCKET}"
            self.path = bench.objects / self.name
            self.path.mkdir()

    def spec(self):
        """For a manifest."""
        if self.kind == "s3":
            return (f"s3: {{ endpoint: 'http://{self.bench.signed}', bucket: {self.name}, "
                    "accessKeyId: { env: BENCH_KEY }, secretAccessKey: { env: BENCH_SECRET } }")
        return f"{self.kind}: {{ path: {self.path} }}"

    def bare(self):
        return f"{self.bench.open}/{self.name}" if self.kind == "s3" else self.path

    def remote(self):
        return f"bucket:{self.name}" if self.kind == "s3" else self.path

    def objects(self):
        """Names and bytes, by whatever way is not that of who wrote them."""
        if self.kind != "sqlite":
            for path in self.path.glob("[0-9a-f][0-9a-f]/*"):
                hasher = hashlib.sha256()
                with open(path, "rb") as file:
                    while piece := file.read(1 << 20):
                        hasher.update(piece)
                yield path.parent.name + path.name, hasher.hexdigest()
            return
        with sqlite3.connect(self.path) as database:
            if database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'blob'").fetchall():
                for name, data in database.execute("SELECT name, bytes FROM blob"):
                    yield name.hex(), hashlib.sha256(data).hexdigest()
                return
            for name, body in database.execute("SELECT name, body FROM objects").fetchall():
                hasher = hashlib.sha256()
                chunks = "SELECT bytes FROM chunks WHERE number >= ?1 << 20 AND number < (?1 + 1) << 20 ORDER BY number"
                for (data,) in database.execute(chunks, [body]):
                    hasher.update(data)
                yield name.hex(), hasher.hexdigest()

    def prove(self, corpus, who):
        """Every copy, by its name: fails loudly."""
        found = 0
        for name, digest in self.objects():
            if name != digest or name not in corpus.files:
                raise RuntimeError(f"{who}: WRONG COPY: {name} has the bytes of {digest} in {self.path}")
            found += 1
        if found != len(corpus.files):
            raise RuntimeError(f"{who}: {found} of {len(corpus.files)} blobs are in {self.path}")

    def drop(self, corpus):
        """Many files wait for the end, a few large ones do not."""
        # What was written is written back at the cost of nobody.
        subprocess.run(["sync", "-f", self.bench.work], check=True)
        if len(corpus.files) > 1000 and self.kind != "sqlite":
            LEFT.append(self.path)
            return
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            for path in self.path.parent.glob(self.path.name + "*"):
                path.unlink()


def best(*runs):
    return sum(r.seconds for r in runs), sum(r.cpu for r in runs), max(r.peak for r in runs)


class Trueup:
    name, durable, proved = "trueup reconcile --once", "yes, in groups", "read back, SHA-256, in an index"
    routes = ("fs", "sqlite", "s3")

    def run(self, bench, corpus, target):
        corpus.reset()
        corpus.write("other", target.spec())
        run = corpus.reconcile()
        active = corpus.index("SELECT place.name FROM book JOIN place ON place.id = book.active")
        if active != [("other",)]:
            raise RuntimeError(f"trueup says it is done, and {active} is active: {run.text}")
        return {self.name: best(run)}


class Bare:
    name, durable, proved = "bare loop", "yes, in groups", "read back, SHA-256"
    routes = ("fs", "sqlite", "s3")

    def run(self, bench, corpus, target):
        words = [bench.args.tool, "bare", target.kind, corpus.blobs, target.bare(), THREADS]
        return {self.name: best(Run([str(w) for w in words], env=bench.env))}


class Rclone:
    name, durable, proved = "rclone copy, check --download", "no", "read back and compared"
    routes = ("fs", "s3")

    def run(self, bench, corpus, target):
        if not shutil.which("rclone"):
            return {}
        # The marks of ours are no blobs.
        only = ["--include", "/[0-9a-f][0-9a-f]/**"]
        words = [str(corpus.blobs), str(target.remote())]
        copied = Run(["rclone", "copy", *only, *words], env=bench.env)
        checked = Run(["rclone", "check", "--download", "--one-way", *only, *words], env=bench.env)
        return {self.name: best(copied, checked)}


class Cp:
    name, durable, proved = "cp -r, sha256sum -c", "no", "read back, SHA-256"
    synced = "cp -r, sync -f, sha256sum -c"
    routes = ("fs",)

    def run(self, bench, corpus, target):
        copied = Run(["cp", "-r", str(corpus.blobs), str(target.path)], env=bench.env)
        synced = Run(["sync", "-f", str(target.path)], env=bench.env)
        checked = Run(["sha256sum", "--quiet", "-c", str(corpus.sums)], cwd=target.path, env=bench.env)
        return {self.name: best(copied, checked), self.synced: best(copied, synced, checked)}


PEERS = [Trueup, Bare, Rclone, Cp]
#: Rows as they are shown: durability and proof of each.
ROWS = {p.name: (p.durable, p.proved) for p in PEERS} | {Cp.synced: ("yes, once at the end", Cp.proved)}


def mib(size):
    return size / (1 << 20)


def shown(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def route_table(bench, corpus, kind, samples):
    size, count = corpus.bytes, len(corpus.files)
    lines = [f"**A folder to {PATHS[kind]}: {corpus.title}, {mib(size):.0f} MiB**\n",
             "| who | s | MiB/s | blobs/s | CPU s | peak RSS, MiB | speed, bare loop = 1 | durable | proved |",
             "|---|---|---|---|---|---|---|---|---|"]
    got = {name: [statistics.median(v[i] for v in values) for i in range(3)] for name, values in samples.items()}
    floor = got.get(Bare.name)
    for name in ROWS:
        if name not in got:
            continue
        seconds, cpu, rss = got[name]
        ratio = shown(floor[0] / seconds) if floor else "-"
        durable, proved = ROWS[name]
        if kind == "s3":
            durable = "as the server has it: no"
        spread = [v[0] for v in samples[name]]
        wide = f" ({shown(min(spread))} to {shown(max(spread))})" if len(spread) > 1 else ""
        lines.append(f"| {name} | {shown(seconds)}{wide} | {shown(mib(size) / seconds)} | {count / seconds:.0f} | {shown(cpu)} | "
                     f"{shown(rss)} | {ratio} | {durable} | {proved} |")
    ours = got.get(Trueup.name)
    words = []
    if ours and floor:
        words.append(f"{floor[0] / ours[0]:.2f} of the bare loop's speed")
    peers = {n: got[n][0] for n in got if n not in (Trueup.name, Bare.name)}
    if ours and peers:
        name = min(peers, key=peers.get)
        words.append(f"{peers[name] / ours[0]:.2f} times that of the best verifying peer ({name})")
        safe = {n: s for n, s in peers.items() if ROWS[n][0].startswith("yes")} if kind != "s3" else {}
        if safe and name not in safe:
            name = min(safe, key=safe.get)
            words.append(f"{safe[name] / ours[0]:.2f} times that of the best that is durable as well ({name})")
    if words:
        lines.append(f"\ntrueup: {', '.join(words)}.")
    return "\n".join(lines)


def routes(bench, corpora, chosen, kinds, rounds, slow_rounds):
    samples = {}
    for number in range(max(rounds, slow_rounds)):
        for corpus in corpora:
            for kind in kinds:
                if number >= (slow_rounds if kind == "s3" else rounds):
                    continue
                # Interleaved, so that whatever else the machine does hits everybody.
                for peer in random.sample(chosen, len(chosen)):
                    if kind not in peer.routes:
                        continue
                    target = Target(bench, kind)
                    got = peer().run(bench, corpus, target)
                    if got:
                        target.prove(corpus, peer.name)
                    for name, values in got.items():
                        samples.setdefault((corpus.name, kind), {}).setdefault(name, []).append(values)
                        say(f"{number + 1} {corpus.name} to {kind}: {name}: {values[0]:.2f} s, {values[1]:.2f} s of CPU, "
                            f"{values[2]:.0f} MiB")
                    target.drop(corpus)
    texts = []
    for corpus in corpora:
        for kind in kinds:
            if (corpus.name, kind) in samples:
                texts.append(route_table(bench, corpus, kind, samples[corpus.name, kind]))
    return texts


def stamps(folder):
    """What each copy is known by: a second copy of the same has another one."""
    found = {}
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        seen = path.stat()
        found[path.parent.name + path.name] = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
    return found


def resume(bench, corpus, chosen):
    """Killed half-way and run again: how much is done twice."""
    total = len(corpus.files)
    lines = ["**Killed at half (kill -9), and run again: " + f"{corpus.title}, a folder to a folder**\n",
             "| who | whole at the kill | written by the second run | for the second time | second run, s |",
             "|---|---|---|---|---|"]
    if Trueup in chosen:
        target = Target(bench, "fs")
        corpus.reset()
        corpus.write("other", target.spec())
        words = "SELECT objects FROM place WHERE name = 'other'"

        def half():
            try:
                return (corpus.index(words) or [(0,)])[0][0] >= total / 2
            except sqlite3.Error:
                return False

        if not corpus.reconcile(kill_when=half).killed:
            raise RuntimeError("trueup was done before it could be killed; take more --blobs")
        flipped = corpus.index(words)[0][0]
        before, begun = stamps(target.path), sum(1 for _ in (target.path / "tmp").iterdir())
        run = corpus.reconcile()
        after = stamps(target.path)
        target.prove(corpus, "trueup, resumed")
        changed = [n for n in before if after[n] != before[n]]
        written = total - (len(before) - len(changed))
        lines.append(f"| {Trueup.name} | {flipped} in the index, {len(before)} at the target | {written} | "
                     f"{len(changed) + begun} ({begun} were not whole, {len(before) - flipped} only read back) | {shown(run.seconds)} |")
        target.drop(corpus)
    if Rclone in chosen and shutil.which("rclone"):
        target = Target(bench, "fs")
        words = ["rclone", "copy", "-v", "--stats", "1h", "--include", "/[0-9a-f][0-9a-f]/**", str(corpus.blobs), str(target.path)]

        def half():
            return sum(len(os.listdir(f)) for f in target.path.glob("??")) >= total / 2

        if not Run(words, env=bench.env, kill_when=half).killed:
            raise RuntimeError("rclone was done before it could be killed; take more --blobs")
        before = stamps(target.path)
        whole = sum(corpus.files[name] == stamp[2] for name, stamp in before.items() if name in corpus.files)
        run = Run(words, env=bench.env)
        target.prove(corpus, "rclone, resumed")
        # Its own count: "Transferred: 10,012 / 10,012, 100%"; the line before it counts bytes.
        counts = [l.split()[1] for l in run.text.splitlines() if l.startswith("Transferred:") and "B" not in l.split("/")[0][12:]]
        written = int(counts[-1].replace(",", ""))
        lines.append(f"| rclone copy, no check | {whole} by their sizes | {written} | {written + len(before) - total} | {shown(run.seconds)} |")
        target.drop(corpus)
    return ["\n".join(lines)]


def tick(bench, count, runs):
    """What a look costs that finds nothing to do: with many blobs, and with none."""
    now = int(time.time() * 1000)
    trees = {n: Corpus(bench, f"tick{n}", "", lambda blobs, index, n=n: bench.tool("pretend", index, n, now)) for n in (0, count)}
    times = {n: [] for n in trees}
    looks = {n: float(bench.tool("look", corpus.kept / "blobs/index.db", 201).split()[0]) for n, corpus in trees.items()}
    words = [bench.args.trueup, "reconcile", "--once"]
    for corpus in trees.values():
        corpus.reset()
        corpus.reconcile()
    for _ in range(runs):
        for n, corpus in trees.items():
            times[n].append(1000 * Run(words, cwd=corpus.tree, env=bench.env).seconds)
    lines = [f"**Nothing to do, median of {runs}**\n",
             "| blobs in the index | index, MiB | `reconcile --once`, ms | one look at the index (`standing`), µs |", "|---|---|---|---|"]
    for n, corpus in trees.items():
        size = mib((corpus.state / "blobs/index.db").stat().st_size)
        lines.append(f"| {n:,} | {shown(size)} | {shown(statistics.median(times[n]))} | {shown(looks[n])} |")
    for corpus in trees.values():
        shutil.rmtree(corpus.tree)
    return ["\n".join(lines)]


def memory(bench, kinds, count, size):
    """Memory must not depend on the size of a blob."""
    now = int(time.time() * 1000)

    def hollow(blobs, index):
        bench.tool("hollow", blobs, index, count, size, 1 << 40, now)

    corpus = Corpus(bench, "huge", f"{count} blobs of {mib(size):.0f} MiB", hollow)
    lines = [f"**Memory: {corpus.title} (sparse at the source), trueup**\n", "| to | s | MiB/s | peak RSS, MiB |", "|---|---|---|---|"]
    for kind in kinds:
        target = Target(bench, kind)
        seconds, _, rss = Trueup().run(bench, corpus, target)[Trueup.name]
        target.prove(corpus, "trueup, large")
        target.drop(corpus)
        lines.append(f"| {PATHS[kind]} | {shown(seconds)} | {shown(mib(corpus.bytes) / seconds)} | {shown(rss)} |")
        say(f"{corpus.title} to {kind}: {seconds:.1f} s, {rss:.0f} MiB")
    shutil.rmtree(corpus.tree)
    return ["\n".join(lines)]


def machine(work):
    model = next((l.split(":")[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in l), "")
    kind = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", work], capture_output=True, text=True).stdout.strip()
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, {kind}"


def version(words):
    try:
        return subprocess.run(words, capture_output=True, text=True).stdout.splitlines()[0].split()[-1]
    except (OSError, IndexError):
        return ""


PARTS = ("fs", "sqlite", "s3", "resume", "tick", "memory")
SHORT = {"trueup": Trueup, "bare": Bare, "rclone": Rclone, "cp": Cp}


def main():
    ask = argparse.ArgumentParser(prog="scripts/bench-storage")
    ask.add_argument("--tool", required=True, help=argparse.SUPPRESS)
    ask.add_argument("--trueup", required=True, help=argparse.SUPPRESS)
    ask.add_argument("--quick", action="store_true", help="one round with a tenth of the blobs")
    ask.add_argument("--rounds", type=int, help="of each route (default 3; the bucket one)")
    ask.add_argument("--blobs", type=int, help="small ones, of 4 to 64 KiB (default 20,000)")
    ask.add_argument("--only", action="append", choices=[*PARTS, *SHORT], help="only these parts, or these peers")
    ask.add_argument("--note", default="", help="said above the tables")
    ask.add_argument("--write", help="the file whose marked part is replaced")
    args = ask.parse_args()
    small = args.blobs or (2_000 if args.quick else 20_000)
    large = 8 if args.quick else 64
    rounds = args.rounds or (1 if args.quick else 3)
    only = set(args.only or [])
    chosen = [SHORT[n] for n in SHORT if not only & set(SHORT) or n in only]
    parts = [p for p in PARTS if not only & set(PARTS) or p in only]
    began, load = time.monotonic(), os.getloadavg()[0]
    work = tempfile.mkdtemp(prefix="storage-bench-")
    bench = Bench(args, work)
    texts = []
    try:
        where = machine(work)
        kinds = [p for p in parts if p in PATHS]
        if "s3" in kinds or "memory" in parts:
            bench.serve()
        now = int(time.time() * 1000)

        def fill(count, smallest, largest, seed):
            return lambda blobs, index: bench.tool("fill", blobs, index, count, smallest, largest, seed, now)

        corpora = []
        if kinds or "resume" in parts:
            say("== the blobs are made")
            corpora.append(Corpus(bench, "small", f"{small:,} blobs of 4 to 64 KiB", fill(small, 4 << 10, 64 << 10, 1)))
        if kinds:
            corpora.append(Corpus(bench, "large", f"{large} blobs of 16 MiB", fill(large, 16 << 20, 16 << 20, 2)))
        for corpus in corpora:
            corpus.warm()
        if kinds:
            texts += routes(bench, corpora, chosen, kinds, rounds, args.rounds or 1)
        if "resume" in parts:
            say("== killed half-way")
            texts += resume(bench, corpora[0], chosen)
        if "tick" in parts:
            say("== nothing to do")
            texts += tick(bench, 100_000 if args.quick else 1_000_000, 11 if args.quick else 21)
        if "memory" in parts and not (args.quick and not only):
            say("== large blobs")
            texts += memory(bench, ["fs", "sqlite", "s3"], 2, 1 << 30)
    finally:
        bench.close()
        for folder in LEFT:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
    took = time.monotonic() - began
    versions = {"trueup": version([args.trueup, "--version"]), "rclone": version(["rclone", "version"]),
                "coreutils": version(["cp", "--version"])}
    head = [args.note] if args.note else []
    head.append(f"{time.strftime('%Y-%m-%d')}, {where}, load average {load:.1f} at the start; the run took {took / 60:.1f} minutes. "
                f"Medians of {rounds} rounds ({args.rounds or 1} to the bucket), peers interleaved, warm cache; in brackets the fastest "
                f"and the slowest. Times are of whole processes. The bare loop has {THREADS} threads, trueup's number is `auto`, "
                "rclone's is its own (4 transfers, 8 checkers), cp and sha256sum have one.")
    head.append("Versions: " + ", ".join(f"{n} {v or 'not there, so not measured'}" for n, v in versions.items()) + ".")
    body = "\n\n".join([*head, *texts])
    print(body)
    if args.write:
        path = Path(args.write)
        begin, end = "<!-- storage: begin -->", "<!-- storage: end -->"
        before, rest = path.read_text().split(begin)
        path.write_text(before + begin + "\n" + body + "\n" + end + rest.split(end)[1])


def leave(number, _):
    raise SystemExit(128 + number)


signal.signal(signal.SIGTERM, leave)
main()
