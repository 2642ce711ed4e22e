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
    if caller.is_for_hub() && caller.scopes.contains(HOST_AUTH) {
        return Some(Rule::Host);
    }
    let Scope::Vault { name, verb } = scope else {
        return None;
    };
    let governs_all = *verb == Verb::Admin && caller.is_for_hub() && caller.scopes.contains(HOST_ADMIN);
    let for_it = caller.is_for_hub() || caller.audience.strip_prefix("vault.") == Some(name);
    let governs_it = for_it && caller.may(&Scope::Vault { name: name.clone(), verb: Verb::Admin });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    fn caller(scopes: &[&str], pins: &[&str]) -> Caller {
        Caller {
            subject: "me".to_owned(),
            client: "c".to_owned(),
            jti: "j".to_owned(),
            audience: "hub".to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            vault_scope: pins.iter().map(|&pin| pin.to_owned()).collect(),
            permissions: None,
            scope_set: None,
            expires: Timestamp(0),
        }
    }

    #[test]
    fn what_is_a_scope_and_what_is_not() {
        for good in [
            "a:b",
            "agent:send",
            "vault:lab:read",
            "vault:a_b-2:admin",
            "vault:read",
            "vault:write",
            "parachute:host:admin",
            "Notes.v2:x-y",
            "surface:home:read",
        ] {
            let scope = Scope::parse(good).unwrap_or_else(|bad| panic!("{bad}"));
            assert_eq!(scope.to_string(), good);
        }
        let long = format!("a:{}", "b".repeat(65));
        for bad in [
            "",
            ":",
            "a",
            "a:",
            ":b",
            "a b:c",
            "a:b\n",
            "a:b\"",
            "ä:b",
            "a:b:c:d:e",
            "a::b",
            "*:read",
            "vault:*:read",
            &long,
            // Vaults: verbs they do not know, names that are none, and no name where one is needed.
            "vault:admin",
            "vault:lab:delete",
            "vault:lab:Read",
            "vault:lab",
            "vault::read",
            "vault:Lab:read",
            "vault:a.b:read",
            "vault:lab:sub:read",
            "Vault:lab:read",
            "VAULT:read",
            "vault:send",
        ] {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_governs_the_machine_is_never_requestable_in_any_case() {
        for never in [
            "parachute:host:admin",
            "parachute:host:install",
            "parachute:host:start",
            "parachute:host:expose",
            "parachute:host:auth",
            "parachute:host:vault",
            "Parachute:Host:Admin",
            "PARACHUTE:HOST:AUTH",
            "parachute:host:anything",
            "hub:admin",
            "HUB:admin",
            "scribe:admin",
            "Scribe:Admin",
        ] {
            assert!(is_never_requestable(never), "{never}");
            let scope = Scope::parse(never).expect("a scope");
            assert_eq!(rule(&caller(&[HOST_AUTH, HOST_ADMIN], &[]), &scope), None, "{never}");
        }
        for may in
            ["hub:read", "scribe:write", "agent:admin", "vault:hub:admin", "parachute:hosts", "parachute:hosting:x"]
        {
            assert!(!is_never_requestable(may), "{may}");
        }
    }

    #[test]
    fn each_verb_of_a_vault_includes_the_next_and_no_other_vault() {
        let cases: &[(&[&str], &[&str], &str, bool)] = &[
            (&["vault:lab:admin"], &[], "vault:lab:write", true),
            (&["vault:lab:admin"], &[], "vault:lab:read", true),
            (&["vault:lab:write"], &[], "vault:lab:read", true),
            (&["vault:lab:read"], &[], "vault:lab:read", true),
            (&["vault:lab:read"], &[], "vault:lab:write", false),
            (&["vault:lab:write"], &[], "vault:lab:admin", false),
            (&["vault:lab:admin"], &[], "vault:lab2:read", false),
            (&["vault:lab2:admin"], &[], "vault:lab:read", false),
            (&["vault:lab:admin"], &["lab"], "vault:lab:read", true),
            (&["vault:lab:admin"], &["other"], "vault:lab:read", false),
            (&["vault:admin"], &[], "vault:lab:read", false),
            (&["vault:read"], &[], "vault:lab:read", false),
            (&["agent:admin"], &[], "agent:send", false),
            (&["agent:send"], &[], "agent:send", true),
            (&["agent:Send"], &[], "agent:send", false),
            (&["parachute:host:admin"], &[], "parachute:host:auth", false),
        ];
        for (held, pins, wanted, allowed) in cases {
            let wanted_scope = Scope::parse(wanted).expect("a scope");
            assert_eq!(caller(held, pins).may(&wanted_scope), *allowed, "{held:?} {pins:?} {wanted}");
        }
    }

    #[test]
    fn who_may_pass_on_what() {
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a str, Option<Rule>);
        let cases: &[Case<'_>] = &[
            // Who governs tokens: whatever can be requested.
            (&[HOST_AUTH], &[], "agent:send", Some(Rule::Host)),
            (&[HOST_AUTH], &[], "vault:lab:admin", Some(Rule::Host)),
            (&[HOST_AUTH], &[], "vault:read", Some(Rule::Host)),
            (&[HOST_AUTH], &[], "hub:admin", None),
            // Who governs the machine: vaults as a whole, and nothing else.
            (&[HOST_ADMIN], &[], "vault:lab:admin", Some(Rule::Vault)),
            (&[HOST_ADMIN], &[], "vault:lab:read", None),
            (&[HOST_ADMIN], &[], "agent:send", None),
            (&[HOST_ADMIN, HOST_AUTH], &[], "agent:send", Some(Rule::Host)),
            // Who governs a vault: that vault.
            (&["vault:lab:admin"], &[], "vault:lab:admin", Some(Rule::Vault)),
            (&["vault:lab:admin"], &[], "vault:lab:write", Some(Rule::Vault)),
            (&["vault:lab:admin"], &[], "vault:lab:read", Some(Rule::Vault)),
            (&["vault:lab:admin"], &[], "vault:lab2:read", None),
            (&["vault:lab:admin"], &[], "vault:read", None),
            (&["vault:lab:admin"], &["lab"], "vault:lab:read", Some(Rule::Vault)),
            (&["vault:lab:admin"], &["other"], "vault:lab:read", None),
            (&["vault:lab:write"], &[], "vault:lab:read", None),
            (&["vault:admin"], &[], "vault:lab:read", None),
            (&["hub:admin"], &[], "agent:send", None),
            (&[], &[], "agent:send", None),
        ];
        for (held, pins, wanted, by) in cases {
            let scope = Scope::parse(wanted).expect("a scope");
            assert_eq!(rule(&caller(held, pins), &scope), *by, "{held:?} {pins:?} {wanted}");
        }
    }

    #[test]
    fn a_token_for_somebody_else_passes_nothing_on() {
        let for_audience =
            |audience: &str, scopes: &[&str]| Caller { audience: audience.to_owned(), ..caller(scopes, &[]) };
        let lab = Scope::parse("vault:lab:admin").expect("a scope");
        let send = Scope::parse("agent:send").expect("a scope");
        let all: &[&str] = &[HOST_AUTH, HOST_ADMIN, "vault:lab:admin"];
        for audience in ["vault", "parachute", "inbox", "agent", "vault.other", "vault.labs", "Hub", ""] {
            let caller = for_audience(audience, all);
            assert_eq!(
                (rule(&caller, &lab), rule(&caller, &send), caller.is_operator()),
                (None, None, false),
                "{audience}"
            );
        }
        let vault = for_audience("vault.lab", all);
        assert_eq!((rule(&vault, &lab), rule(&vault, &send), vault.is_operator()), (Some(Rule::Vault), None, false));
        for audience in ["hub", "operator"] {
            let caller = for_audience(audience, all);
            assert_eq!((rule(&caller, &lab), rule(&caller, &send)), (Some(Rule::Host), Some(Rule::Host)), "{audience}");
        }
    }

    #[test]
    fn the_audience_is_the_first_vault_or_the_first_namespace() {
        let of = |scopes: &[&str]| {
            let scopes: Vec<Scope> = scopes.iter().map(|scope| Scope::parse(scope).expect("a scope")).collect();
            audience(&scopes)
        };
        assert_eq!(of(&["agent:send", "vault:lab:read", "vault:b:read"]), "vault.lab");
        assert_eq!(of(&["agent:send", "scribe:read"]), "agent");
        assert_eq!(of(&["vault:read"]), "vault");
        assert_eq!(of(&[]), "hub");
    }

    #[test]
    fn a_vault_is_named_by_a_whole_segment() {
        for named in ["vault:lab:read", "vault:lab:admin"] {
            assert!(names_vault(named, "lab"), "{named}");
        }
        for other in ["vault:lab2:read", "vault:my_lab:read", "vault:la:read", "lab:read", "vault:lab", "x:lab:read"] {
            assert!(!names_vault(other, "lab"), "{other}");
        }
        // In a pattern of SQL this would stand for any letter.
        assert!(!names_vault("vault:lab:read", "l_b"));
    }

    #[test]
    fn restrictions_are_passed_on() {
        let map = |text: &str| serde_json::from_str::<Map<String, Value>>(text).expect("an object");
        let (tags, other) = (map(r#"{"scoped_tags":["a"]}"#), map(r#"{"scoped_tags":["a","b"]}"#));
        let mut restricted = caller(&["vault:lab:admin"], &[]);
        assert_eq!(permissions(&restricted, Some(tags.clone())), Ok(Some(tags.clone())));
        restricted.permissions = Some(tags.clone());
        assert_eq!(permissions(&restricted, None), Ok(Some(tags.clone())));
        assert_eq!(permissions(&restricted, Some(tags.clone())), Ok(Some(tags)));
        assert!(permissions(&restricted, Some(other)).is_err());
        assert!(permissions(&restricted, Some(Map::new())).is_err());
    }
}
