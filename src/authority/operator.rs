//! The operator token: what whoever owns the machine shows to the hub. It lies in a file for its owner alone, and is replaced by itself.
//!
//! First the row, then the file, then the old one is revoked. Whatever is left of a run that was killed in between are rows without a
//! file; they are found by their subject, client and origin, and revoked by the next run.

use super::claims::{Caller, Claims};
use super::keys::claimed;
use super::mint::{CLIENT, MintError, OwnRequest, USUAL_SECONDS};
use super::{Authority, Denied};
use crate::model::time::Timestamp;
use crate::ports::tokens::{SecretFile, Via};

/// The name of the file in the home of the modules.
pub const FILE: &str = "operator.token";
/// The audience and the subject of an operator token.
pub const OPERATOR: &str = "operator";
/// 7 days, in milliseconds: with less left it is replaced.
const RENEW: i64 = 7 * 86_400_000;
/// The set that an operator token has when nobody says.
const USUAL_SET: &str = "admin";

/// The named sets of scopes. Claim `pa_scope_set` names one.
const SETS: [(&str, &[&str]); 6] = [
    ("install", &["parachute:host:install", "vault:read"]),
    ("start", &["parachute:host:start"]),
    ("expose", &["parachute:host:expose"]),
    ("auth", &["parachute:host:auth"]),
    ("vault", &["parachute:host:vault"]),
    (
        "admin",
        &[
            "hub:admin",
            "parachute:host:admin",
            "parachute:host:install",
            "parachute:host:start",
            "parachute:host:expose",
            "parachute:host:auth",
            "parachute:host:vault",
            "vault:admin",
            "scribe:admin",
        ],
    ),
];

/// How the operator token stands after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub jti: String,
    pub expires: Timestamp,
    /// Why it was replaced, if it was.
    pub renewed: Option<String>,
    /// Tokens of former runs that nobody holds any more, and the one that was replaced.
    pub revoked: usize,
    /// The mode of the file, if it was open to group or others. It is put right.
    pub mode_was: Option<u32>,
}

/// Why there is no good operator token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unkept {
    #[error("the file of the operator token: {0}")]
    File(String),
    #[error("the operator token: {0}")]
    Mint(#[from] MintError),
    /// Nobody can say whether the one that is there is good; it is left alone.
    #[error("the operator token cannot be checked: {0}")]
    Unknown(String),
}

impl Authority {
    /// Sees to it that the file holds a token that is good for another week. The same again does nothing.
    ///
    /// # Errors
    /// When the file or the database fails; what was there stays.
    pub fn keep_operator_token(&self, file: &dyn SecretFile, now: Timestamp) -> Result<Kept, Unkept> {
        let failed = |error: std::io::Error| Unkept::File(error.to_string());
        // Two at once would each revoke the other's token.
        let _turn = file.turn().map_err(failed)?;
        let mode_was = file.close_to_others().map_err(failed)?;
        let mut set = USUAL_SET;
        let why = match file.read().map_err(failed)? {
            None => "there was none".to_owned(),
            Some(token) => match self.verify(token.reveal(), now) {
                Err(Denied::Unavailable(why)) => return Err(Unkept::Unknown(why)),
                Err(denied) => {
                    // Who was given less than everything is not given more by its end. The claim can only make it less.
                    set = claimed(token.reveal()).and_then(|claims| set_of(&claims)).unwrap_or(USUAL_SET);
                    denied.to_string()
                }
                Ok(caller) => match own_set(&caller) {
                    None => "the one in the file is not an operator's".to_owned(),
                    Some(of) if caller.expires.0 - now.0 < RENEW => {
                        set = of;
                        format!("it ends at {}", caller.expires)
                    }
                    Some(_) => {
                        let revoked = self.forget_others(&caller.jti, now)?;
                        return Ok(Kept { jti: caller.jti, expires: caller.expires, renewed: None, revoked, mode_was });
                    }
                },
            },
        };
        let scopes = SETS.iter().find(|(name, _)| *name == set).map(|(_, scopes)| *scopes).unwrap_or_default();
        let request = OwnRequest {
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            audience: Some(OPERATOR.to_owned()),
            subject: OPERATOR.to_owned(),
            client: CLIENT.to_owned(),
            seconds: USUAL_SECONDS,
            via: Via::OperatorMint,
            scope_set: Some(set.to_owned()),
            ..OwnRequest::default()
        };
        let new = self.mint_own(request, now)?;
        if let Err(error) = file.write(new.token()) {
            // Nobody holds it. If this fails too, the next run finds it.
            let _ = self.revoke(new.jti(), None, now);
            return Err(failed(error));
        }
        let revoked = self.forget_others(new.jti(), now)?;
        Ok(Kept { jti: new.jti().to_owned(), expires: new.expires(), renewed: Some(why), revoked, mode_was })
    }

    fn forget_others(&self, but: &str, now: Timestamp) -> Result<usize, Unkept> {
        let store = self.rows().map_err(MintError::from)?;
        let gone = store.revoke_others(OPERATOR, CLIENT, Via::OperatorMint, but, now).map_err(MintError::from)?;
        Ok(gone.len())
    }
}

/// The set of a valid token, if it is an operator's and has the whole of it.
fn own_set(caller: &Caller) -> Option<&'static str> {
    let (name, scopes) = SETS.iter().find(|(name, _)| Some(*name) == caller.scope_set.as_deref())?;
    let whole = caller.scopes.iter().map(String::as_str).eq(sorted(scopes));
    (whole && caller.audience == OPERATOR && caller.subject == OPERATOR).then_some(*name)
}

/// The set that a token claims to have, if it claims to be an operator's.
fn set_of(claims: &Claims) -> Option<&'static str> {
    let (name, _) = SETS.iter().find(|(name, _)| Some(*name) == claims.pa_scope_set.as_deref())?;
    (claims.aud == OPERATOR && claims.sub == OPERATOR).then_some(*name)
}

fn sorted<'a>(scopes: &[&'a str]) -> Vec<&'a str> {
    let mut scopes = scopes.to_vec();
    scopes.sort_unstable();
    scopes
}
