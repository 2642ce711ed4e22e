//! The only door to the process environment. It is read once, at the start; nobody changes it afterwards.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::ports::world::Place;

/// The PATH when there is none, as `execvp` would have it on Linux.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What modules get of our own environment besides PATH. It is short on purpose: whatever stands here is part of what a
/// module runs with, so that a shell and a service manager that differ in it would restart modules.
const INHERITED: [&str; 6] = ["HOME", "LANG", "LC_ALL", "LOGNAME", "TZ", "USER"];

/// A copy of the environment. Variables that are not UTF-8 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { variables: std::env::vars_os().filter_map(text).collect() }
    }

    /// A made-up environment.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self { variables: variables.into_iter().map(own).collect() }
    }

    /// A variable, if it is set (an empty value is set).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A variable that counts only when it is not empty, as no-color.org and XDG ask for.
    fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// The XDG rule: a relative path in such a variable is to be ignored.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.filled(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The PATH in which commands are looked up.
    pub fn path(&self) -> &str {
        self.filled("PATH").unwrap_or(DEFAULT_PATH)
    }

    pub fn home(&self) -> Option<PathBuf> {
        self.absolute("HOME")
    }

    /// `NO_COLOR` is set to anything but nothing (no-color.org).
    pub fn no_color(&self) -> bool {
        self.filled("NO_COLOR").is_some()
    }

    /// Runs in a continuous integration system: no spinners, no questions.
    pub fn ci(&self) -> bool {
        self.filled("CI").is_some_and(|value| value != "false" && value != "0")
    }

    /// The terminal can do more than print lines.
    pub fn dumb_terminal(&self) -> bool {
        self.filled("TERM").is_none_or(|value| value == "dumb")
    }

    /// Where people's settings live: `XDG_CONFIG_HOME`, or `~/.config`.
    pub fn config_home(&self) -> Option<PathBuf> {
        self.absolute("XDG_CONFIG_HOME").or_else(|| Some(self.home()?.join(".config")))
    }

    /// The user's folder for sockets and the like, gone at logout.
    pub fn runtime_dir(&self) -> Option<PathBuf> {
        self.absolute("XDG_RUNTIME_DIR")
    }

    /// The service manager's socket, for `sd_notify`.
    pub fn notify_socket(&self) -> Option<&str> {
        self.filled("NOTIFY_SOCKET")
    }

    /// All variables, sorted by name: what a secret command gets.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What modules would get of our environment if it were set.
    pub fn unset(&self) -> impl Iterator<Item = &'static str> {
        INHERITED.into_iter().filter(|name| self.get(name).is_none())
    }

    /// The facts about where we run, for the engine.
    pub fn place(&self, state: PathBuf) -> Place {
        let pair = |name: &str| Some((name.to_owned(), self.get(name)?.to_owned()));
        Place { state, path: self.path().to_owned(), inherited: INHERITED.into_iter().filter_map(pair).collect() }
    }
}

/// The folder we were started in.
///
/// # Errors
/// When it is gone or may not be entered.
pub fn working_dir() -> io::Result<PathBuf> {
    std::env::current_dir()
}

/// This very binary. Linux adds a word to the name once the file was replaced by an upgrade; then the path is where the new
/// one is, and that is what is wanted.
///
/// # Errors
/// When `/proc` is not there.
pub fn own_binary() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(stem) if !path.exists() && Path::new(stem).exists() => Ok(PathBuf::from(stem)),
        _ => Ok(path),
    }
}

/// Where short-lived files go.
pub fn temporary_dir() -> PathBuf {
    std::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_get_a_short_fixed_list_and_the_path() {
        let environment = Environment::of([
            ("PATH", "/opt/bin:/bin"),
            ("USER", "ann"),
            ("HOME", "/home/ann"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
        ]);
        let place = environment.place("/state".into());
        assert_eq!(place.path, "/opt/bin:/bin");
        let names: Vec<&str> = place.inherited.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["HOME", "USER"]);
        assert_eq!(environment.notify_socket(), Some("/run/systemd/notify"));
        assert_eq!(environment.config_home(), Some("/home/ann/.config".into()));
    }

    #[test]
    fn an_empty_variable_is_no_switch_and_no_path() {
        let empty = Environment::of([("NO_COLOR", ""), ("CI", "false"), ("PATH", ""), ("XDG_RUNTIME_DIR", "run")]);
        assert!(!empty.no_color() && !empty.ci());
        assert_eq!(empty.path(), DEFAULT_PATH);
        assert_eq!(empty.runtime_dir(), None);
        let set = Environment::of([("NO_COLOR", "1"), ("CI", "true")]);
        assert!(set.no_color() && set.ci());
    }

    #[test]
    fn the_process_has_an_environment_and_a_binary() {
        assert!(Environment::of_process().all().count() > 0);
        assert!(own_binary().expect("binary").is_file());
        assert!(working_dir().expect("folder").is_absolute());
    }
}
