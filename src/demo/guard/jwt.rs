//! What a bearer says and who signed it. Pure: neither the clock nor the network is asked here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Code, Refusal};

/// A public key of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kid: String,
    n: Vec<u8>,
    e: Vec<u8>,
}

/// The keys in a key set (RFC 7517) that can be used here; others in it are passed over.
pub(super) fn keys(bytes: &[u8]) -> Option<Vec<Key>> {
    let set: Value = serde_json::from_slice(bytes).ok()?;
    let read = |jwk: &Value| {
        let text = |name: &str| jwk.get(name)?.as_str();
        let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let usable = text("kty") == Some("RSA") && text("use").is_none_or(|usage| usage == "sig");
        usable.then(|| Some(Key { kid: text("kid")?.to_owned(), n: number("n")?, e: number("e")? })).flatten()
    };
    Some(set.get("keys")?.as_array()?.iter().filter_map(read).collect())
}

/// What a bearer claims.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    pub subject: String,
    pub jti: String,
    pub issuer: String,
    pub audiences: Vec<String>,
    pub scopes: Vec<String>,
    /// The vaults it is pinned to; empty when it is not.
    pub vault_scope: Vec<String>,
    pub permissions: Map<String, Value>,
    /// Seconds since 1970.
    pub(super) expires: f64,
    pub(super) not_before: f64,
}

/// A bearer taken apart. Nothing of it is believed yet.
pub(super) struct Parts<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    payload: Vec<u8>,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(token: &'a str) -> Result<Self, Refusal> {
        let shape = || Refusal::new(Code::Shape, "the token is no JWT");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(shape)?;
        let (header, payload) = signed.split_once('.').ok_or_else(shape)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| shape());
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| shape())?;
        if header.alg != "RS256" || header.crit.is_some() {
            return Err(Refusal::new(Code::Signature, "the token is not signed with RS256"));
        }
        Ok(Self { signed, signature: decode(signature)?, payload: decode(payload)?, kid: header.kid })
    }

    /// The claims, when one of these keys signed them.
    pub(super) fn open(&self, keys: &[Key]) -> Result<Claims, Refusal> {
        let fits = |key: &&Key| self.kid.as_ref().is_none_or(|kid| *kid == key.kid);
        let mut candidates = keys.iter().filter(fits).peekable();
        if candidates.peek().is_none() {
            return Err(Refusal::new(Code::Kid, "the hub publishes no key with the token's kid"));
        }
        let signed = candidates.any(|key| {
            let key = RsaPublicKeyComponents { n: &key.n, e: &key.e };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, self.signed.as_bytes(), &self.signature).is_ok()
        });
        match signed {
            true => claims(&self.payload),
            false => Err(Refusal::new(Code::Signature, "the signature of the token is wrong")),
        }
    }
}

fn claims(payload: &[u8]) -> Result<Claims, Refusal> {
    let shape = |what: &str| Refusal::new(Code::Shape, format!("the token's claims lack {what}"));
    let all: Map<String, Value> = serde_json::from_slice(payload).map_err(|_| shape("a meaning"))?;
    let text = |name: &str| all.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let list = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let audiences = match all.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(many) => list(many).ok_or_else(|| shape("an audience"))?,
        None => Vec::new(),
    };
    let vault_scope = match all.get("vault_scope") {
        None => Vec::new(),
        Some(pins) => list(pins).ok_or_else(|| shape("a list in vault_scope"))?,
    };
    Ok(Claims {
        subject: text("sub").ok_or_else(|| shape("sub"))?,
        jti: text("jti").ok_or_else(|| shape("jti"))?,
        issuer: text("iss").unwrap_or_default(),
        audiences,
        scopes: text("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        vault_scope,
        permissions: all.get("permissions").and_then(Value::as_object).cloned().unwrap_or_default(),
        expires: all.get("exp").and_then(Value::as_f64).ok_or_else(|| shape("exp"))?,
        not_before: all.get("nbf").and_then(Value::as_f64).unwrap_or(0.0),
    })
}
