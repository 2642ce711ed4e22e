//! The pretend tokens: keys, rows, and what a token says, for those who make them and for those who are shown one.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::fate::Lot;
use super::world::Pretend;
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::ports::PortError;
use crate::ports::bearers::{BRIEF_SECONDS, Bearers, Holdings, LIFE_SECONDS, Minted, SUBJECT, Wanted};
use crate::ports::tokens::{Stripped, TokenRow, Via};

/// So many live tokens a connection has at most at any moment: the one in use, what an attempt left, and the next one. With one for its
/// sink or for a module it has one more.
const MOST_LIVE: usize = 3;

/// What a token says. A pretend token is this as text: nobody forges one here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    jti: String,
    kid: String,
    iss: String,
    aud: String,
    scope: String,
    pins: Vec<String>,
    exp: i64,
    registered: bool,
}

/// Everything that is true of tokens.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    pub issuer: String,
    pub accepted: Vec<String>,
    /// Keys that count; the last one signs.
    keys: Vec<String>,
    pub rows: BTreeMap<String, TokenRow>,
    made: u64,
}

impl Tokens {
    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// The key that signs.
    fn key(&mut self) -> String {
        if self.keys.is_empty() {
            let key = format!("key-{}", self.next());
            self.keys.push(key);
        }
        self.keys.last().cloned().unwrap_or_default()
    }

    /// Another key signs from now on. With `drop_old` what the others signed does not count any more.
    pub fn rotate(&mut self, drop_old: bool) {
        if drop_old {
            self.keys.clear();
        }
        let key = format!("key-{}", self.next());
        self.keys.push(key);
    }

    fn text(&self, row: &TokenRow) -> Secret {
        let claims = Claims {
            jti: row.jti.clone(),
            kid: row.kid.clone(),
            iss: self.issuer.clone(),
            aud: row.audience.clone(),
            scope: row.scopes.join(" "),
            pins: row.vault_scope.clone(),
            exp: row.expires.0,
            registered: true,
        };
        Secret::new(serde_json::to_string(&claims).expect("claims are plain data"))
    }

    fn minted(&self, row: &TokenRow) -> Minted {
        Minted { jti: row.jti.clone(), token: self.text(row), kid: row.kid.clone(), expires: row.expires }
    }

    /// Rows that are neither revoked nor expired.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &TokenRow> {
        self.rows.values().filter(move |row| row.revoked.is_none() && row.expires > now)
    }

    /// A token of somebody else, which is none of our business.
    pub fn foreign(&mut self, subject: &str, scope: &str, now: Timestamp) -> String {
        let (jti, kid) = (format!("jti-{}", self.next()), self.key());
        let row = TokenRow {
            jti: jti.clone(),
            subject: subject.to_owned(),
            client: "connection/inbox".to_owned(),
            audience: "hub".to_owned(),
            scopes: vec![scope.to_owned()],
            vault_scope: Vec::new(),
            permissions: None,
            via: Via::CliMint,
            kid,
            created: now,
            expires: Timestamp(now.0 + LIFE_SECONDS * 10_000),
            revoked: None,
        };
        self.rows.insert(jti.clone(), row);
        jti
    }

    /// Whether whoever is called takes this token for this audience and scope; else what he answers.
    ///
    /// # Errors
    /// The status, and why.
    pub fn verify(&self, token: &str, audience: &str, scope: &str, now: Timestamp) -> Result<(), (u16, &'static str)> {
        let Ok(claims) = serde_json::from_str::<Claims>(token) else { return Err((401, "no token")) };
        if !self.keys.contains(&claims.kid) {
            return Err((401, "kid"));
        }
        if claims.iss != self.issuer && !self.accepted.contains(&claims.iss) {
            return Err((401, "issuer"));
        }
        if claims.exp <= now.0 {
            return Err((401, "expired"));
        }
        if claims.registered && self.rows.get(&claims.jti).is_none_or(|row| row.revoked.is_some()) {
            return Err((401, "revoked"));
        }
        if claims.aud != audience {
            return Err((401, "audience"));
        }
        if claims.scope != scope {
            return Err((403, "insufficient_scope"));
        }
        Ok(())
    }

    /// The id of a token, whatever it is worth.
    pub fn jti(token: &str) -> Option<String> {
        serde_json::from_str::<Claims>(token).ok().map(|claims| claims.jti)
    }

    /// Who made a token.
    pub fn issuer_of(token: &str) -> Option<String> {
        serde_json::from_str::<Claims>(token).ok().map(|claims| claims.iss)
    }

    fn register(&mut self, wanted: &Wanted, now: Timestamp) -> Minted {
        let (jti, kid) = (format!("jti-{}", self.next()), self.key());
        let row = TokenRow {
            jti: jti.clone(),
            subject: SUBJECT.to_owned(),
            client: wanted.client.clone(),
            audience: wanted.audience.clone(),
            scopes: vec![wanted.scope.clone()],
            vault_scope: wanted.vault_scope.clone(),
            permissions: wanted.permissions.as_ref().map(|map| serde_json::Value::from(map.clone()).to_string()),
            via: wanted.via,
            kid,
            created: now,
            expires: Timestamp(now.0 + LIFE_SECONDS * 1_000),
            revoked: None,
        };
        let minted = self.minted(&row);
        self.rows.insert(jti, row);
        minted
    }

    /// Clients with more live tokens than there is a reason for.
    fn too_many(&self, now: Timestamp) -> Option<String> {
        let mut counts: BTreeMap<&str, (usize, BTreeSet<bool>)> = BTreeMap::new();
        for row in self.live(now).filter(|row| row.subject == SUBJECT) {
            let (count, kinds) = counts.entry(&row.client).or_default();
            *count += 1;
            kinds.insert(row.vault_scope.is_empty());
        }
        let most = |kinds: &BTreeSet<bool>| MOST_LIVE + kinds.len() - 1;
        let (who, (count, _)) = counts.into_iter().find(|(_, (count, kinds))| *count > most(kinds))?;
        Some(format!("{count} live tokens of {who}"))
    }
}

impl Pretend {
    fn reads(&self, name: &'static str) -> Result<(), PortError> {
        match self.fate.deal(name) {
            Lot::Go => Ok(()),
            _ => Err(PortError::Retry("fate: the database of tokens could not be read".to_owned())),
        }
    }
}

impl Bearers for Pretend {
    fn set_origins(&self, issuer: &str, accepted: &[String]) {
        if !self.fate.dead() {
            let tokens = &mut self.earth.borrow_mut().tokens;
            (tokens.issuer, tokens.accepted) = (issuer.to_owned(), accepted.to_vec());
        }
    }

    fn holdings(&self) -> Result<Rc<Holdings>, PortError> {
        self.reads("bearers.holdings")?;
        let earth = self.earth.borrow();
        let (tokens, now) = (&earth.tokens, earth.wall());
        let ours = |row: &&TokenRow| row.subject == SUBJECT;
        let live = tokens.live(now).filter(ours).map(|row| (row.jti.clone(), row.clone())).collect();
        Ok(Rc::new(Holdings { kid: tokens.keys.last().cloned(), issuer: tokens.issuer.clone(), live }))
    }

    fn register(&self, wanted: &Wanted) -> Result<Minted, PortError> {
        self.bustle();
        self.fate.effect("bearers.register", || {
            let earth = &mut *self.earth.borrow_mut();
            let now = earth.wall();
            let minted = earth.tokens.register(wanted, now);
            earth.broken.extend(earth.tokens.too_many(now));
            Ok(minted)
        })
    }

    fn again(&self, jti: &str) -> Result<Option<Minted>, PortError> {
        self.reads("bearers.again")?;
        let earth = self.earth.borrow();
        let (tokens, now) = (&earth.tokens, earth.wall());
        let row = tokens.live(now).find(|row| row.jti == jti && tokens.keys.last() == Some(&row.kid));
        Ok(row.map(|row| tokens.minted(row)))
    }

    fn brief(&self, scope: &str, audience: &str, vault_scope: &[String]) -> Result<Secret, PortError> {
        self.reads("bearers.brief")?;
        let earth = &mut *self.earth.borrow_mut();
        let claims = Claims {
            jti: format!("brief-{}", earth.tokens.next()),
            kid: earth.tokens.key(),
            iss: earth.tokens.issuer.clone(),
            aud: audience.to_owned(),
            scope: scope.to_owned(),
            pins: vault_scope.to_vec(),
            exp: earth.wall().0 + BRIEF_SECONDS * 1_000,
            registered: false,
        };
        Ok(Secret::new(serde_json::to_string(&claims).expect("claims are plain data")))
    }

    fn revoke(&self, jti: &str) -> Result<(), PortError> {
        self.bustle();
        self.fate.effect("bearers.revoke", || {
            let earth = &mut *self.earth.borrow_mut();
            let now = earth.wall();
            if let Some(row) = earth.tokens.rows.get_mut(jti) {
                if row.subject != SUBJECT {
                    earth.broken.push(format!("a token of {} was revoked", row.subject));
                }
                row.revoked.get_or_insert(now);
            }
            Ok(())
        })
    }

    fn strip_vault(&self, vault: &str) -> Result<Stripped, PortError> {
        self.fate.effect("bearers.strip_vault", || {
            let earth = &mut *self.earth.borrow_mut();
            let now = earth.wall();
            let names = |row: &TokenRow| {
                let of = |scope: &String| scope.split(':').nth(1) == Some(vault) && scope.starts_with("vault:");
                row.scopes.iter().any(of) || row.vault_scope.iter().any(|pin| pin == vault)
            };
            let mut stripped = Stripped::default();
            for row in earth.tokens.rows.values_mut().filter(|row| row.revoked.is_none() && names(row)) {
                row.revoked = Some(now);
                stripped.tokens_revoked += 1;
            }
            earth.town.stripped.push(vault.to_owned());
            Ok(stripped)
        })
    }
}
