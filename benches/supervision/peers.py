"""The peers: how each is given COUNT modules, started, told of a change, and stopped. Everything else is the same for all."""

import json
import os
import shutil
from pathlib import Path


class Peer:
    """A supervisor with modules 0..count, module i on port base + i with LEVEL in its environment."""

    name = ""
    #: Whether a round takes so long that three must do.
    slow = False
    #: Whether the start command ends when all is up, and must be waited for.
    ends = False
    #: Where the output of modules goes, for the table's notes.
    output = ""

    def __init__(self, tools):
        self.tools = tools

    def missing(self):
        """Why this peer cannot be measured here, or None."""
        return None

    def version(self):
        return ""

    def place(self, folder, base, count):
        self.dir, self.base, self.count = Path(folder), base, count
        self.write()

    def env(self):
        return {}

    def module(self, i, level="a"):
        """The environment of a module."""
        return {"PORT": str(self.base + i), "LEVEL": level}

    def write(self):
        """Writes whatever configures the modules."""

    def start(self):
        """The command that makes it so."""

    def change(self, i, level):
        """Prepares a change of LEVEL of one module; gives the command that makes it so."""

    def stop(self, pid):
        """The command that stops every module; pid is the start command's."""
        return ["kill", "-TERM", str(pid)]

    def after(self, pid):
        """A command that ends what `stop` leaves, or None."""

    # Helpers.

    def swap(self, target, text):
        """A new text beside a file, and the shell words that put it in its place."""
        new = self.dir / "new"
        new.write_text(text)
        if target.exists():
            new.chmod(target.stat().st_mode)
        return f"mv {new} {target}"


class Floor(Peer):
    name = "bare loop (C)"
    output = "one file for all"

    def start(self):
        return [self.tools.tool, "floor", str(self.base), str(self.count), str(self.dir)]

    def change(self, i, level):
        return ["sh", "-c", f"{self.swap(self.dir / 'change', f'{i} {level}')} && kill -HUP {self.pid}"]


class Trueup(Peer):
    name = "trueup, --once"
    ends = True
    output = "captured per service, stamped, rotated"

    def version(self):
        return self.tools.text([self.tools.trueup, "--version"]).split()[-1]

    def manifest(self, i, level="a"):
        env = ", ".join(f'{k}: "{v}"' for k, v in self.module(i, level).items() if k != "PORT")
        return (
            f"apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: m{i} }}\nspec:\n"
            f"  command: [{self.tools.tool}, module]\n  port: {self.base + i}\n  env: {{ {env} }}\n"
        )

    def write(self):
        self.tree = self.dir / "manifests"
        self.tree.mkdir()
        hub = "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: {}\n"
        (self.tree / "hub.yaml").write_text(hub)
        for i in range(self.count):
            (self.tree / f"m{i}.yaml").write_text(self.manifest(i))

    def words(self, *words):
        return [self.tools.trueup, *words, "-f", str(self.tree)]

    def start(self):
        return self.words("reconcile", "--once", "--timeout", "5m")

    def change(self, i, level):
        swap = self.swap(self.tree / f"m{i}.yaml", self.manifest(i, level))
        return ["sh", "-c", f"{swap} && exec {' '.join(self.words('reconcile', '--once'))}"]

    def stop(self, pid):
        return self.words("down")

    def after(self, pid):
        return self.words("down")


class TrueupDaemon(Trueup):
    name = "trueup, daemon"
    ends = False

    def start(self):
        return self.words("reconcile")

    def change(self, i, level):
        # Saving the file is all there is to do.
        return ["sh", "-c", self.swap(self.tree / f"m{i}.yaml", self.manifest(i, level))]


class Dinit(Peer):
    name = "dinit"
    output = "one file for all"

    def missing(self):
        return None if shutil.which("dinit") else "no Debian, npm or PyPI package; not on PATH"

    def version(self):
        return self.tools.text(["dinit", "--version"]).split("\n")[0].split()[-1].rstrip(".")

    def service(self, i):
        return f"type = process\ncommand = {self.tools.tool} module\nrestart = true\nenv-file = {self.dir}/m{i}.env\n"

    def write(self):
        for i in range(self.count):
            (self.dir / f"m{i}").write_text(self.service(i))
            (self.dir / f"m{i}.env").write_text("".join(f"{k}={v}\n" for k, v in self.module(i).items()))
        needs = "".join(f"waits-for: m{i}\n" for i in range(self.count))
        (self.dir / "boot").write_text(f"type = internal\n{needs}")

    def start(self):
        return ["dinit", "-q", "-d", str(self.dir), "-p", str(self.dir / "ctl")]

    def change(self, i, level):
        text = "".join(f"{k}={v}\n" for k, v in self.module(i, level).items())
        swap = self.swap(self.dir / f"m{i}.env", text)
        return ["sh", "-c", f"{swap} && dinitctl -p {self.dir}/ctl --quiet restart m{i}"]


class S6(Peer):
    name = "s6"
    output = "one file for all"
    notify = False

    def missing(self):
        return None if self.tools.has("s6-svscan") else "the package s6 is not installed, which needs root"

    def version(self):
        return self.tools.package("s6")

    def script(self, i, level="a"):
        words = self.module(i, level) | ({"NOTIFY_FD": "3"} if self.notify else {})
        sets = " ".join(f"{k}={v}" for k, v in words.items())
        return f"#!/bin/sh\n{sets} exec {self.tools.tool} module\n"

    def write(self):
        self.scan = self.dir / "scan"
        for i in range(self.count):
            folder = self.scan / f"m{i}"
            folder.mkdir(parents=True)
            (folder / "run").write_text(self.script(i))
            (folder / "run").chmod(0o700)
            if self.notify:
                (folder / "notification-fd").write_text("3\n")

    def start(self):
        return ["s6-svscan", "-c", "2000", str(self.scan)]

    def change(self, i, level):
        folder = self.scan / f"m{i}"
        return ["sh", "-c", f"{self.swap(folder / 'run', self.script(i, level))} && s6-svc -r {folder}"]

    def stop(self, pid):
        return ["s6-svscanctl", "-t", str(self.scan)]


class S6Ready(S6):
    name = "s6, readiness"
    notify = True


class Runit(S6):
    name = "runit"

    def missing(self):
        return None if self.tools.has("runsvdir") else "the package runit could not be had"

    def version(self):
        return self.tools.package("runit")

    def start(self):
        return ["runsvdir", "-P", str(self.scan)]

    def change(self, i, level):
        folder = self.scan / f"m{i}"
        return ["sh", "-c", f"{self.swap(folder / 'run', self.script(i, level))} && sv restart {folder}"]

    def stop(self, pid):
        return ["kill", "-HUP", str(pid)]


class Systemd(Peer):
    name = "systemd --user"
    output = "journal stream: none here, so one file"
    pause = "100ms"

    def missing(self):
        if not self.tools.systemd:
            return "no systemd on this machine"
        return None if os.geteuid() == 0 else "its own mount namespace needs root"

    def version(self):
        return self.tools.text(["systemctl", "--version"]).split()[1]

    def env(self):
        return {"XDG_RUNTIME_DIR": str(self.dir / "run"), "XDG_CONFIG_HOME": str(self.dir / "config")}

    def unit(self, i, level="a"):
        env = " ".join(f"{k}={v}" for k, v in self.module(i, level).items())
        return (
            f"[Service]\nExecStart={self.tools.tool} module\nEnvironment={env}\nRestart=always\nRestartSec={self.pause}\n"
            f"StandardOutput=inherit\n"
        )

    def write(self):
        self.units = self.dir / "config/systemd/user"
        self.units.mkdir(parents=True)
        (self.dir / "run").mkdir(mode=0o700)
        for i in range(self.count):
            (self.units / f"m{i}.service").write_text(self.unit(i))
        wants = " ".join(f"m{i}.service" for i in range(self.count))
        (self.units / "default.target").write_text(f"[Unit]\nWants={wants}\n")

    def start(self):
        # It refuses to be a user manager unless the machine was booted with systemd, which it knows by this folder.
        ready = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system"
        return ["unshare", "--mount", "sh", "-c", f"{ready} && exec {self.tools.systemd} --user"]

    def change(self, i, level):
        swap = self.swap(self.units / f"m{i}.service", self.unit(i, level))
        return ["sh", "-c", f"{swap} && systemctl --user daemon-reload && systemctl --user restart m{i}"]


class SystemdQuick(Systemd):
    name = "systemd --user, RestartSec=0"
    pause = "0"


class Supervisord(Peer):
    name = "supervisord"
    slow = True
    output = "captured per service, rotated"

    def missing(self):
        return None if self.tools.has("supervisord") else "pip could not install supervisor"

    def version(self):
        return self.tools.pip("supervisor")

    def config(self, changed=None, level="a"):
        lines = [
            f"[supervisord]\nnodaemon=true\nminfds=8192\nlogfile={self.dir}/log\npidfile={self.dir}/pid\nchildlogdir={self.dir}\n"
            f"[unix_http_server]\nfile={self.dir}/sock\n[supervisorctl]\nserverurl=unix://{self.dir}/sock\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        ]
        for i in range(self.count):
            env = ",".join(f'{k}="{v}"' for k, v in self.module(i, level if i == changed else "a").items())
            lines.append(f"[program:m{i}]\ncommand={self.tools.tool} module\nautorestart=true\nenvironment={env}\n")
        return "".join(lines)

    def write(self):
        self.file = self.dir / "supervisord.conf"
        self.file.write_text(self.config())

    def start(self):
        return ["supervisord", "-c", str(self.file)]

    def change(self, i, level):
        return ["sh", "-c", f"{self.swap(self.file, self.config(i, level))} && supervisorctl -c {self.file} update"]


class Circus(Peer):
    name = "circus"
    slow = True
    output = "captured per service"

    def missing(self):
        return None if self.tools.has("circusd") else "pip could not install circus"

    def version(self):
        return self.tools.pip("circus")

    def config(self, changed=None, level="a"):
        at = f"ipc://{self.dir}"
        lines = [f"[circus]\nendpoint={at}/ctl\npubsub_endpoint={at}/pub\nstats_endpoint={at}/stats\nwarmup_delay=0\n"]
        for i in range(self.count):
            lines.append(
                f"[watcher:m{i}]\ncmd={self.tools.tool} module\nnumprocesses=1\n"
                f"stdout_stream.class=FileStream\nstdout_stream.filename={self.dir}/m{i}.log\n"
            )
            env = self.module(i, level if i == changed else "a")
            lines.append(f"[env:m{i}]\n" + "".join(f"{k}={v}\n" for k, v in env.items()))
        return "".join(lines)

    def write(self):
        self.file = self.dir / "circus.ini"
        self.file.write_text(self.config())

    def start(self):
        return ["circusd", str(self.file)]

    def change(self, i, level):
        ctl = f"circusctl --endpoint ipc://{self.dir}/ctl reloadconfig"
        return ["sh", "-c", f"{self.swap(self.file, self.config(i, level))} && {ctl}"]


class Pm2(Peer):
    name = "pm2"
    slow = True
    ends = True
    output = "captured per service"

    def missing(self):
        return None if self.tools.has("pm2") else "npm could not install pm2"

    def version(self):
        return self.tools.npm("pm2")

    def env(self):
        return {"PM2_HOME": str(self.dir / "pm2")}

    def config(self, changed=None, level="a"):
        apps = [
            {
                "name": f"m{i}",
                "script": self.tools.tool,
                "args": "module",
                "interpreter": "none",
                "exec_mode": "fork",
                "env": self.module(i, level if i == changed else "a"),
            }
            for i in range(self.count)
        ]
        return json.dumps({"apps": apps})

    def write(self):
        self.file = self.dir / "eco.json"
        self.file.write_text(self.config())

    def start(self):
        return ["pm2", "start", "--silent", str(self.file)]

    def change(self, i, level):
        swap = self.swap(self.file, self.config(i, level))
        return ["sh", "-c", f"{swap} && pm2 restart --silent {self.file} --only m{i} --update-env"]

    def stop(self, pid):
        return ["pm2", "kill", "--silent"]

    def after(self, pid):
        return ["pm2", "kill", "--silent"]


ALL = [
    Floor,
    Trueup,
    TrueupDaemon,
    Dinit,
    S6,
    S6Ready,
    Runit,
    Systemd,
    SystemdQuick,
    Supervisord,
    Circus,
    Pm2,
]
