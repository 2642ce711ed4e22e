//! `{connection}`, `{vault}`, `{vaultUrl}`, `{token}` and `{params.NAME}` in what a sink is told. Everything is filled at once: what a value
//! brings is never filled itself. Pure.

use serde_json::{Map, Value};

use crate::model::id::Name;

/// The token is put in when it is sent: it stands in no file and no ledger.
pub const TOKEN: &str = "{token}";
/// Those that are not of a parameter.
pub const KNOWN: [&str; 4] = ["connection", "vault", "vaultUrl", "token"];
const PARAMS: &str = "params.";

/// What the words stand for.
#[derive(Clone, Copy)]
pub struct Filler<'a> {
    pub connection: &'a Name,
    pub vault: &'a str,
    pub vault_port: u16,
    pub params: &'a Map<String, Value>,
}

/// What cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// No such word.
    Unknown(String),
    /// No such parameter.
    NoParam(String),
    /// A path with the token in it: paths are written into logs.
    TokenInPath,
    /// A path that leads somewhere else with this value, as it is then.
    Astray(String),
    /// A value that would be taken for a token that is to come.
    FalseToken,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "there is no `{{{word}}}`"),
            Self::NoParam(name) => write!(f, "nothing is given for `{{params.{name}}}`"),
            Self::TokenInPath => f.write_str("a path cannot have `{token}` in it"),
            Self::Astray(path) => write!(f, "with its parameters the path is `{path}`, which leads somewhere else"),
            Self::FalseToken => f.write_str("a parameter brings `{token}` with it, where nothing is filled any more"),
        }
    }
}

/// The pieces of a text: what stands there, and the words that are filled.
fn pieces(text: &str) -> Vec<Result<&str, &str>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(open) = rest.find('{') {
        let after = &rest[open + 1..];
        let word = after.find(['{', '}']).filter(|end| after[*end..].starts_with('}')).map(|end| &after[..end]);
        match word.filter(|word| is_word(word)) {
            Some(word) => {
                pieces.push(Ok(&rest[..open]));
                pieces.push(Err(word));
                rest = &after[word.len() + 1..];
            }
            None => {
                pieces.push(Ok(&rest[..=open]));
                rest = after;
            }
        }
    }
    pieces.push(Ok(rest));
    pieces
}

/// Braces around anything else are just braces.
fn is_word(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.starts_with(PARAMS) || (!text.is_empty() && text.bytes().all(fine))
}

/// Whether the text has this word.
pub fn has_token(text: &str) -> bool {
    pieces(text).contains(&Err("token"))
}

impl Filler<'_> {
    /// A text with everything filled but `{token}`.
    ///
    /// # Errors
    /// When it has a word that stands for nothing, or would have a `{token}` that nobody wrote.
    pub fn text(&self, text: &str) -> Result<String, Misfit> {
        let (mut filled, mut tokens) = (String::with_capacity(text.len()), 0);
        for piece in pieces(text) {
            match piece {
                Ok(text) => filled.push_str(text),
                Err("token") => {
                    tokens += 1;
                    filled.push_str(TOKEN);
                }
                Err(word) => filled.push_str(&self.value(word)?),
            }
        }
        if filled.matches(TOKEN).count() == tokens { Ok(filled) } else { Err(Misfit::FalseToken) }
    }

    /// A path. What is filled in is one part of it, whatever it is.
    ///
    /// # Errors
    /// As for a text, and when it has a token, or would be another path than the one that stands there.
    pub fn path(&self, text: &str) -> Result<String, Misfit> {
        let (mut filled, mut emptied) = (String::with_capacity(text.len()), false);
        for piece in pieces(text) {
            match piece {
                Ok(text) => filled.push_str(text),
                Err("token") => return Err(Misfit::TokenInPath),
                Err(word) => {
                    let value = self.value(word)?;
                    // Or what is meant for one is done to all of them.
                    emptied |= value.is_empty();
                    escape(&value, &mut filled);
                }
            }
        }
        let path = filled.split(['?', '#']).next().unwrap_or_default();
        if emptied || path.split(['/', '\\']).any(leads_away) { Err(Misfit::Astray(filled)) } else { Ok(filled) }
    }

    fn value(&self, word: &str) -> Result<String, Misfit> {
        match word {
            "connection" => Ok(self.connection.to_string()),
            "vault" => Ok(self.vault.to_owned()),
            "vaultUrl" => Ok(format!("http://127.0.0.1:{}", self.vault_port)),
            _ => {
                let name = word.strip_prefix(PARAMS).ok_or_else(|| Misfit::Unknown(word.to_owned()))?;
                let value = self.params.get(name).ok_or_else(|| Misfit::NoParam(name.to_owned()))?;
                Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            }
        }
    }

    /// Every text in a value.
    ///
    /// # Errors
    /// As for a text.
    pub fn body(&self, value: &Value) -> Result<Value, Misfit> {
        Ok(match value {
            Value::String(text) => Value::String(self.text(text)?),
            Value::Array(items) => items.iter().map(|item| self.body(item)).collect::<Result<_, _>>()?,
            Value::Object(fields) => Value::Object(self.fields(fields)?),
            other => other.clone(),
        })
    }

    /// As [`Filler::body`].
    ///
    /// # Errors
    /// As for a text.
    pub fn fields(&self, fields: &Map<String, Value>) -> Result<Map<String, Value>, Misfit> {
        fields.iter().map(|(key, value)| Ok((key.clone(), self.body(value)?))).collect()
    }
}

/// `.` and `..`, in every way to write them.
fn leads_away(segment: &str) -> bool {
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    plain == "." || plain == ".."
}

/// All but what needs no escape anywhere in a URL.
fn escape(value: &str, into: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(char::from(byte)),
            other => into.push_str(&format!("%{other:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with<T>(params: Value, run: impl FnOnce(&Filler<'_>) -> T) -> T {
        let (name, params) = (Name::new("inbox").expect("a name"), params.as_object().cloned().unwrap_or_default());
        run(&Filler { connection: &name, vault: "lab", vault_port: 1940, params: &params })
    }

    #[test]
    fn words_are_filled_once_and_other_braces_stay() {
        let text = |params: Value, text: &str| with(params, |filler| filler.text(text));
        let all = "{connection} {vault} {vaultUrl} {token} {params.a} {params.n} {} {a b} { {\"x\":1}";
        assert_eq!(
            text(json!({ "a": "x", "n": 7 }), all).as_deref(),
            Ok("inbox lab http://127.0.0.1:1940 {token} x 7 {} {a b} { {\"x\":1}")
        );
        assert_eq!(
            text(json!({ "a": "{vault}{params.b}", "b": "no" }), "{params.a}").as_deref(),
            Ok("{vault}{params.b}")
        );
        assert_eq!(text(json!({ "a": "my {token}" }), "{params.a}"), Err(Misfit::FalseToken));
        assert_eq!(text(json!({ "a": "en}" }), "{tok{params.a}"), Err(Misfit::FalseToken));
        assert_eq!(text(json!({}), "{tokn}"), Err(Misfit::Unknown("tokn".to_owned())));
        assert_eq!(text(json!({}), "{params.a}"), Err(Misfit::NoParam("a".to_owned())));
        assert!(has_token("a{token}b") && !has_token("{tokens}"));
    }

    #[test]
    fn a_value_is_one_part_of_a_path() {
        let path = |value: &str, path: &str| with(json!({ "x": value }), |filler| filler.path(path));
        assert_eq!(path("main", "/api/{params.x}").as_deref(), Ok("/api/main"));
        assert_eq!(
            path("a/../b?c#d%2f", "/api/{params.x}/y?z={vault}").as_deref(),
            Ok("/api/a%2F..%2Fb%3Fc%23d%252f/y?z=lab")
        );
        assert_eq!(path("ä", "/{params.x}").as_deref(), Ok("/%C3%A4"));
        for (value, text) in [
            ("..", "/api/{params.x}"),
            (".", "/api/{params.x}/"),
            (".", "/api/.{params.x}"),
            (".", "/api/%2e{params.x}"),
            ("", "/api/{params.x}"),
        ] {
            assert!(matches!(path(value, text), Err(Misfit::Astray(_))), "{value} {text}");
        }
        assert_eq!(path("x", "/{token}"), Err(Misfit::TokenInPath));
        assert_eq!(path("x", "/{nope}"), Err(Misfit::Unknown("nope".to_owned())));
    }
}
