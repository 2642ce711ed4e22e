//! The lines that the keeper and its clients exchange: JSON, one object per line, answers carry the id of their request.
//!
//! A launch carries secrets. They travel over a socket of mode 0600 in a folder of mode 0700 between processes of one user, and
//! appear in no `Debug` output.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::ports::keeper::{Confinement, Launch, Policy, Unit};

/// Both sides must speak the same. It grows when a line changes its meaning, not when a field joins.
pub const PROTOCOL: u32 = 1;
/// A longer line is refused and its connection closed. The kernel takes about 2 MiB of arguments and environment for one
/// program; JSON may double that.
pub const MAX_LINE: usize = 8 << 20;

/// What a client sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    #[serde(flatten)]
    pub verb: Verb,
}

/// The verbs, as the port has them, and a few for the client itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub enum Verb {
    /// Asks for the protocol and the version; every client asks this first.
    Hello,
    List,
    Ensure {
        unit: Name,
        launch: Box<WireLaunch>,
        policy: Policy,
        again: bool,
    },
    Stop {
        unit: Name,
    },
    Ready {
        unit: Name,
        pid: u32,
    },
    Unwell {
        unit: Name,
        pid: u32,
        why: String,
    },
    /// To the main process alone.
    Signal {
        unit: Name,
        pid: u32,
        signal: i32,
    },
    StopStrays {
        unit: Name,
    },
    Forget {
        unit: Name,
    },
    /// Becomes this program, without a unit noticing. On success the connection ends without an answer.
    Upgrade {
        program: PathBuf,
    },
    /// From now on this connection gets a [`Changed`] line whenever a unit changes.
    Watch,
    /// Ends the keeper. Refused while a unit has a process, unless `force`: then the processes run on, and the next keeper
    /// adopts them.
    Shutdown {
        force: bool,
    },
}

/// A launch with its values in the open. `Debug` shows names only.
#[derive(Clone, Serialize, Deserialize)]
pub struct WireLaunch {
    pub program: PathBuf,
    pub argv: Vec<String>,
    pub dir: PathBuf,
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Confinement::is_none")]
    pub confinement: Confinement,
    pub digest: Digest,
}

impl fmt::Debug for WireLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.keys().collect();
        f.debug_struct("WireLaunch").field("program", &self.program).field("env", &names).finish_non_exhaustive()
    }
}

impl From<&Launch> for WireLaunch {
    fn from(launch: &Launch) -> Self {
        let env = launch.env.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect();
        Self {
            program: launch.program.clone(),
            argv: launch.argv.clone(),
            dir: launch.dir.clone(),
            env,
            confinement: launch.confinement.clone(),
            digest: launch.digest.clone(),
        }
    }
}

impl From<WireLaunch> for Launch {
    fn from(wire: WireLaunch) -> Self {
        let env = wire.env.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        Self {
            program: wire.program,
            argv: wire.argv,
            dir: wire.dir,
            env,
            confinement: wire.confinement,
            digest: wire.digest,
        }
    }
}

/// What the keeper sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    Reply(Reply),
    Changed(Changed),
}

/// The answer to one request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    pub id: u64,
    pub result: Result<Said, Refusal>,
}

/// A unit changed. It only says "look again".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub changed: Name,
}

/// The answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Said {
    Hello {
        protocol: u32,
        version: String,
        pid: u32,
        /// How often it became another program.
        #[serde(default)]
        handovers: u32,
    },
    Units(Vec<Unit>),
    Unit(Box<Unit>),
    Done,
}

/// Why a request was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// Later it may work.
    Retry(String),
    /// It will not work until something else changes.
    Never(String),
}

/// Writes a line. Fails only for a path that is not UTF-8.
///
/// # Errors
/// When a path in it is not UTF-8.
pub fn encode(line: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Takes the complete lines out of a buffer, and leaves the beginning of the next one in it.
pub fn take_lines(buffer: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let Some(end) = buffer.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
    let rest = buffer.split_off(end + 1);
    let whole = std::mem::replace(buffer, rest);
    whole.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_travels_whole_and_shows_no_secret() {
        let launch = Launch {
            program: "/bin/true".into(),
            argv: vec!["true".into()],
            dir: "/".into(),
            env: BTreeMap::from([("KEY".to_owned(), Secret::new("hunter2".to_owned()))]),
            confinement: Confinement { umask: Some(0o27), ..Confinement::default() },
            digest: Digest::of(b"x"),
        };
        let wire = WireLaunch::from(&launch);
        assert!(!format!("{wire:?}").contains("hunter2"));
        let bytes = encode(&wire).expect("plain paths");
        let back: WireLaunch = serde_json::from_slice(&bytes).expect("reads back");
        assert_eq!(Launch::from(back), launch);
    }

    #[test]
    fn lines_are_taken_whole() {
        let mut buffer = b"one\ntwo\nthr".to_vec();
        assert_eq!(take_lines(&mut buffer), vec![b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(buffer, b"thr");
        assert!(take_lines(&mut buffer).is_empty());
    }

    #[test]
    fn requests_read_as_they_are_written() {
        let text = br#"{"id":7,"verb":"ready","unit":"web","pid":12}"#;
        let request: Request = serde_json::from_slice(text).expect("a request");
        assert!(matches!(request, Request { id: 7, verb: Verb::Ready { pid: 12, .. } }));
        let reply = Line::Reply(Reply { id: 7, result: Ok(Said::Done) });
        assert_eq!(encode(&reply).expect("plain"), b"{\"id\":7,\"result\":{\"Ok\":\"done\"}}\n");
        let changed: Line = serde_json::from_slice(br#"{"changed":"web"}"#).expect("a change");
        assert!(matches!(changed, Line::Changed(_)));
    }
}
