//! Scopes: how they are written, what they allow, who may pass which on. Pure.
//!
//! A scope is `namespace:verb`, or `vault:NAME:VERB` with the verbs `admin`, `write` and `read`, each of which includes the next. Names
//! are compared as whole segments, and exactly; only what may never be requested is recognised in any case.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::Caller;

/// What governs the machine: the authority over tokens.
pub const HOST_AUTH: &str = "parachute:host:auth";
/// What governs the machine: modules and vaults.
pub const HOST_ADMIN: &str = "parachute:host:admin";

/// The longest scope.
const MOST_BYTES: usize = 128;
/// Longer than any namespace, vault or verb.
const MOST_SEGMENT: usize = 64;
const MOST_SEGMENTS: usize = 4;
/// The namespace of vaults.
const VAULT: &str = "vault";
/// Whatever begins so governs the machine.
const HOST: &str = "parachute:host:";
/// Beside [`HOST`], what nobody may be given by request, whoever asks.
const NEVER: [&str; 2] = ["hub:admin", "scribe:admin"];

/// What may be done with a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Read,
    /// And read.
    Write,
    /// And write.
    Admin,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|verb| verb.as_str() == text)
    }
}

/// A scope that is written as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `vault:NAME:VERB`.
    Vault { name: String, verb: Verb },
    /// Any other, as it was written.
    Plain(String),
}

/// Why a text is no scope, or none that can be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{scope}' {why}")]
pub struct BadScope {
    scope: String,
    why: &'static str,
}

impl Scope {
    /// Reads a scope.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadScope> {
        let bad = |why| BadScope { scope: shown(text), why };
        if text.len() > MOST_BYTES {
            return Err(bad("is longer than any scope"));
        }
        let segments: Vec<&str> = text.split(':').collect();
        if !(2..=MOST_SEGMENTS).contains(&segments.len()) {
            return Err(bad("is no scope: a scope is namespace:verb, or vault:NAME:VERB"));
        }
        if !segments.iter().all(|segment| is_segment(segment)) {
            return Err(bad("is no scope: its parts are letters, digits and -_."));
        }
        if !segments[0].eq_ignore_ascii_case(VAULT) {
            return Ok(Self::Plain(text.to_owned()));
        }
        let verb = segments.last().and_then(|verb| Verb::parse(verb));
        let verb = verb.ok_or_else(|| bad("has a verb that vaults do not know: read, write or admin"))?;
        match segments.as_slice() {
            [VAULT, name, _] if is_vault(name) => Ok(Self::Vault { name: (*name).to_owned(), verb }),
            [VAULT, _] if verb != Verb::Admin => Ok(Self::Plain(text.to_owned())),
            [VAULT, _] => Err(bad("names no vault: vault:NAME:admin")),
            [VAULT, _, _] => Err(bad("names no vault: a vault's name is a-z, 0-9, - and _")),
            _ => Err(bad("is no scope of a vault: vault:NAME:VERB")),
        }
    }

    /// The part before the first colon.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Vault { .. } => VAULT,
            Self::Plain(text) => text.split(':').next().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vault { name, verb } => write!(f, "{VAULT}:{name}:{}", verb.as_str()),
            Self::Plain(text) => f.write_str(text),
        }
    }
}

/// What somebody wrote, short enough to be repeated to them.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MOST_BYTES).collect()
}

fn is_segment(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MOST_SEGMENT).contains(&text.len()) && text.bytes().all(fine)
}

/// Whether this can be the name of a vault.
pub fn is_vault(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=MOST_SEGMENT).contains(&text.len()) && text.bytes().all(fine)
}

/// Whether nobody may be given this by request, in whatever case it is written.
pub fn is_never_requestable(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.starts_with(HOST) || NEVER.contains(&lower.as_str())
}

/// Whether a scope names this vault. By segments: `vault:lab` is no part of `vault:lab2:read`.
pub fn names_vault(scope: &str, vault: &str) -> bool {
    let mut segments = scope.split(':');
    segments.next() == Some(VAULT) && segments.next() == Some(vault) && segments.next().is_some()
}

/// The audience of a token that is asked for without one: its first vault, else its first namespace, else the hub.
pub fn audience(scopes: &[Scope]) -> String {
    let vault = scopes.iter().find_map(|scope| match scope {
        Scope::Vault { name, .. } => Some(format!("{VAULT}.{name}")),
        Scope::Plain(_) => None,
    });
    vault.or_else(|| scopes.first().map(|scope| scope.namespace().to_owned())).unwrap_or_else(|| "hub".to_owned())
}

/// Whether these scopes, pinned to these vaults (or to none), allow what the wanted one does.
pub fn allows(held: &BTreeSet<String>, pins: &[String], wanted: &Scope) -> bool {
    let Scope::Vault { name, verb } = wanted else {
        return held.contains(&wanted.to_string());
    };
    let pinned_elsewhere = !pins.is_empty() && !pins.contains(name);
    let reaches = |scope: &String| matches!(Scope::parse(scope), Ok(Scope::Vault { name: of, verb: held }) if of == *name && held >= *verb);
    !pinned_elsewhere && held.iter().any(reaches)
}

/// By which rule somebody may pass a scope on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// They govern tokens: whatever can be requested.
    Host,
    /// They govern this vault, or all; the token is pinned to it.
    Vault,
}

/// By which rule the caller may pass this scope on; `None` when by none.
pub fn rule(caller: &Caller, scope: &Scope) -> Option<Rule> {
    if is_never_requestable(&scope.to_string()) {
        return None;
    }
    if caller.scopes.contains(HOST_AUTH) {
        return Some(Rule::Host);
    }
    let Scope::Vault { name, verb } = scope else {
        return None;
    };
    let governs_all = *verb == Verb::Admin && caller.scopes.contains(HOST_ADMIN);
    let governs_it = caller.may(&Scope::Vault { name: name.clone(), verb: Verb::Admin });
    (governs_all || governs_it).then_some(Rule::Vault)
}

/// The permissions of a token that somebody passes on. Who is restricted cannot make a token that is less so.
///
/// # Errors
/// When others were asked for than the caller has.
pub fn permissions(
    caller: &Caller,
    wanted: Option<Map<String, Value>>,
) -> Result<Option<Map<String, Value>>, &'static str> {
    match (&caller.permissions, wanted) {
        (None, wanted) => Ok(wanted),
        (Some(own), None) => Ok(Some(own.clone())),
        (Some(own), Some(wanted)) if *own == wanted => Ok(Some(wanted)),
        (Some(_), Some(_)) => Err("a token with permissions passes on the same permissions or none at all"),
    }
}
