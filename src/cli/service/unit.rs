//! The text of the systemd unit, from plain data: what is asked of the service manager, and why.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The first line of every unit that is ours; a file without it is somebody else's.
const MARKER: &str = "# Written by 'trueup service install'.";
/// The second line: whose it is. Two trees on one machine need two names.
const TREE: &str = "# State folder: ";

/// Which service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The one of the machine.
    System,
    /// The one of this user.
    User,
}

/// What a unit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub scope: Scope,
    /// All three are absolute.
    pub binary: PathBuf,
    pub manifests: PathBuf,
    pub state: PathBuf,
    /// What modules get of the environment. A service manager gives less than a shell, and a difference restarts modules.
    pub environment: Vec<(String, String)>,
    /// The same for what is not set.
    pub unset: Vec<String>,
}

/// Whose a unit file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Written for this tree.
    Ours,
    /// Written for the tree with this state folder (as it stands in the file).
    OtherTree(String),
    /// Not written by us.
    Stranger,
}

impl Unit {
    /// Whose a file with this text is.
    pub fn owner(&self, text: &str) -> Owner {
        let mut lines = text.lines();
        if lines.next() != Some(MARKER) {
            return Owner::Stranger;
        }
        match lines.next().and_then(|line| line.strip_prefix(TREE)) {
            Some(state) if state == quote(&self.state) => Owner::Ours,
            Some(state) => Owner::OtherTree(state.to_owned()),
            None => Owner::Stranger,
        }
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text);
            out.push('\n');
        };
        line(MARKER);
        line(&format!("{TREE}{}", quote(&self.state)));
        line("# Keep your own settings in a drop-in ('systemctl edit'): the next install writes this file anew.");
        line("");
        line("[Unit]");
        line(&format!("Description=trueup keeps this machine true to {}", percent(&self.manifests.to_string_lossy())));
        if self.scope == Scope::System {
            line("Wants=network-online.target");
            line("After=network-online.target");
        }
        line("# A daemon that fails harms no module, so there is no number of failures after which it is given up.");
        line("StartLimitIntervalSec=0");
        line("");
        line("[Service]");
        line("Type=notify");
        line("NotifyAccess=main");
        line(&format!("ExecStart={} reconcile {} --lock-timeout 1m", self.program(), self.flags()));
        line("# The running daemon looks again, and the reload ends when everything is as it should be.");
        line(&format!("ExecReload={} reconcile --once {}", self.program(), self.flags()));
        for (name, value) in &self.environment {
            line(&format!("Environment={}", quote_text(&format!("{name}={value}"), Dollar::Plain)));
        }
        if !self.unset.is_empty() {
            line(&format!("UnsetEnvironment={}", self.unset.join(" ")));
        }
        for text in BODY {
            line(text);
        }
        line("");
        line("[Install]");
        line(match self.scope {
            Scope::System => "WantedBy=multi-user.target",
            Scope::User => "WantedBy=default.target",
        });
        out
    }

    /// No variables are put into the first word (systemd.service(5), COMMAND LINES), so a dollar stands for itself there.
    fn program(&self) -> String {
        quote_bytes(self.binary.as_os_str().as_bytes(), Dollar::Plain)
    }

    fn flags(&self) -> String {
        format!("-f {} --state {}", argument(&self.manifests), argument(&self.state))
    }
}

/// What every unit says.
const BODY: &[&str] = &[
    "Restart=on-failure",
    "RestartSec=1s",
    "# What a restart would not mend: invalid manifests, a refusal, another instance, a wrong command line.",
    "RestartPreventExitStatus=3 4 5 64",
    "# Ended by a person with SIGINT.",
    "SuccessExitStatus=8",
    "# The daemon says that it goes round; one that hangs is ended and started again. Modules do not notice.",
    "WatchdogSec=60s",
    "TimeoutStopSec=30s",
    "",
    "# Only the daemon is stopped with this unit. The keeper and its modules live in the same control group and must",
    "# outlive a restart or an upgrade of the daemon; 'trueup down' stops them. Their own groups may be made below this one.",
    "KillMode=process",
    "Delegate=yes",
    "# Limits of this unit would count all modules together, and one module killed for memory would stop the daemon.",
    "TasksMax=infinity",
    "OOMPolicy=continue",
    "",
    "# Modules inherit whatever is set here, so the usual hardening is left out on purpose:",
    "#   NoNewPrivileges, RestrictSUIDSGID, CapabilityBoundingSet: modules may run sudo or ping, switch users, use low ports.",
    "#   ProtectSystem, ProtectHome, PrivateTmp, ReadOnlyPaths and all that implies a mount namespace: modules write where",
    "#     their manifests say; and the daemon would get a new namespace with each restart, while keeper and modules stay in",
    "#     the old one and see other files.",
    "#   SystemCallFilter, MemoryDenyWriteExecute, RestrictNamespaces, RestrictAddressFamilies: runtimes with a compiler,",
    "#     containers and servers need these.",
    "#   UMask: files of modules would get it; the state folder has mode 0700 without it.",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dollar {
    Plain,
    Doubled,
}

fn quote(path: &Path) -> String {
    quote_bytes(path.as_os_str().as_bytes(), Dollar::Plain)
}

fn argument(path: &Path) -> String {
    quote_bytes(path.as_os_str().as_bytes(), Dollar::Doubled)
}

fn quote_text(text: &str, dollar: Dollar) -> String {
    quote_bytes(text.as_bytes(), dollar)
}

/// Specifiers begin with a percent sign, everywhere in a unit (systemd.unit(5), SPECIFIERS).
fn percent(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect::<String>().replace('%', "%%")
}

/// One word: as it is if nothing in it means anything, otherwise in double quotes with C escapes (systemd.syntax(7), QUOTING).
fn quote_bytes(bytes: &[u8], dollar: Dollar) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+,:@=".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut out = String::from("\"");
    let escape = |out: &mut String, byte: u8| {
        // A string takes no errors.
        let _ = write!(out, "\\x{byte:02x}");
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '%' => out.push_str("%%"),
                '$' if dollar == Dollar::Doubled => out.push_str("$$"),
                c if c.is_ascii_control() => escape(&mut out, c as u8),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| escape(&mut out, *byte));
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::golden;

    fn unit(scope: Scope) -> Unit {
        Unit {
            scope,
            binary: "/usr/local/bin/trueup".into(),
            manifests: "/srv/home/manifests".into(),
            state: "/srv/home/.trueup".into(),
            environment: vec![
                ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
                ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ],
            unset: vec!["LC_ALL".to_owned(), "TZ".to_owned()],
        }
    }

    #[test]
    fn the_whole_text() {
        golden("unit-system.service", &unit(Scope::System).text());
        golden("unit-user.service", &unit(Scope::User).text());
    }

    #[test]
    fn words_that_mean_something_to_systemd_are_escaped() {
        let strange = Unit {
            binary: "/opt/true $up/100%/bin".into(),
            manifests: r#"/srv/my "tree" $HOME\x"#.into(),
            state: PathBuf::from(std::ffi::OsStr::from_bytes(b"/srv/\xff\n%n")),
            ..unit(Scope::User)
        };
        let text = strange.text();
        let start = text.lines().find(|l| l.starts_with("ExecStart=")).expect("a line");
        assert_eq!(
            start,
            r#"ExecStart="/opt/true $up/100%%/bin" reconcile -f "/srv/my \"tree\" $$HOME\\x" --state "/srv/\xff\x0a%%n" --lock-timeout 1m"#
        );
        assert_eq!(strange.owner(&text), Owner::Ours);
    }

    #[test]
    fn a_file_says_whose_it_is() {
        let (ours, other) = (unit(Scope::System), Unit { state: "/other".into(), ..unit(Scope::System) });
        assert_eq!(ours.owner(&ours.text()), Owner::Ours);
        assert_eq!(ours.owner(&other.text()), Owner::OtherTree("/other".to_owned()));
        assert_eq!(ours.owner("[Unit]\nDescription=x\n"), Owner::Stranger);
        assert_eq!(ours.owner(""), Owner::Stranger);
    }
}
