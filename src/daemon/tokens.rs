//! The tokens and grants of a state folder behind the commands, straight on the database. No daemon is needed; one that runs reads the
//! same file, and looks at it each time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::read_ledger;
use crate::adapters::clock::SystemClock;
use crate::adapters::hubdb::HubDb;
use crate::adapters::hubdb::file::OwnFile;
use crate::authority::grants::Ungranted;
use crate::authority::lines::{grant_line, minted_line, token_line};
use crate::authority::operator::{FILE, Kept, OPERATOR, Unkept};
use crate::authority::{Authority, CLIENT, Caller, ListRequest, MintError, MintRequest, Unrevoked, scope};
use crate::cli::engine::{MintWish, Place, TokenQuery, Tokens};
use crate::cli::exit::Failure;
use crate::document::Document;
use crate::kinds::hub::spec::HubSpec;
use crate::kinds::path::tidy;
use crate::model::exit::Exit;
use crate::model::id::KindName;
use crate::model::time::Timestamp;
use crate::model::token_output::{GrantLine, MintedLine, RevokedLine, RotatedLine, TokenLine};
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::store::Store;
use crate::ports::tokens::{Lost, StoreFault, TokenFilter, Unwell, Via};

/// The database of keys, tokens and grants in a state folder.
pub(super) const DATABASE: &str = "hub.db";
/// The setting of the ledger that says that the database was there: it is never made a second time.
pub(super) const WAS_THERE: &str = "hub.db";

/// Opens the database of a state folder. It is made unless the ledger says that it was there.
///
/// # Errors
/// Says in words what is wrong with it.
pub(super) fn open(state: &Path, ledger: &dyn Store) -> Result<HubDb, Failure> {
    let was_there = ledger.get(WAS_THERE).map_err(anyhow::Error::from)?.is_some();
    HubDb::open(&state.join(DATABASE), !was_there).map_err(|unwell| match unwell {
        Unwell::Lost(Lost::Gone) => {
            let shown = state.join(DATABASE).display().to_string();
            let text = format!("{shown} is gone: keys, tokens and revocations were in it");
            Failure::new(Exit::Error, text).hint("put it back from a backup; it is not made anew by itself")
        }
        other => anyhow::Error::from(other).into(),
    })
}

/// Sees to the operator token in the home of the modules. What is to be told about it is in the answer.
///
/// # Errors
/// When the file or the database fails; what was there stays.
pub(super) fn keep_operator_token(authority: &Authority, home: &Path, now: Timestamp) -> Result<Kept, Unkept> {
    std::fs::create_dir_all(home).map_err(|error| Unkept::File(error.to_string()))?;
    authority.keep_operator_token(&OwnFile::new(home.join(FILE)), now)
}

/// The tokens of one state folder.
pub(super) struct Local {
    authority: Authority,
    home: PathBuf,
}

impl Local {
    /// Opens the database. The hub's origin is the one that was accepted last.
    pub(super) fn open(place: &Place) -> Result<Self, Failure> {
        let ledger = read_ledger(&place.state)?;
        let (hub, home) = accepted(&place.state, &*ledger)?;
        let authority = Authority::new(Arc::new(open(&place.state, &*ledger)?));
        authority.set_origins(&hub.effective_origin(), &hub.origins());
        Ok(Self { authority, home })
    }
}

/// The Hub that the ledger holds as accepted, and the home of its modules.
fn accepted(state: &Path, ledger: &dyn Store) -> Result<(HubSpec, PathBuf), Failure> {
    let owned = ledger.owned().map_err(anyhow::Error::from)?;
    let found = owned.into_values().find(|owned| owned.id.kind == KindName::Hub).and_then(|owned| {
        let document = Document::from_stored(&owned.document, PathBuf::from(&owned.base), &owned.source).ok()?;
        let spec: HubSpec = serde_json::from_str(document.spec_json()).ok()?;
        let home = spec.home.as_ref().map_or_else(|| state.join("home"), |home| tidy(&document.folder.join(home)));
        Some((spec, home))
    });
    found.ok_or_else(|| {
        let text = format!("{} holds no Hub yet, and its origin is the issuer of tokens", state.display());
        Failure::new(Exit::Error, text).hint("'trueup reconcile --once' accepts the one in the manifests")
    })
}

/// Whoever may run this command owns the machine: they may give whatever can be given.
fn owner(now: Timestamp) -> Caller {
    Caller {
        subject: OPERATOR.to_owned(),
        client: CLIENT.to_owned(),
        jti: String::new(),
        audience: OPERATOR.to_owned(),
        scopes: [scope::HOST_AUTH.to_owned()].into(),
        vault_scope: Vec::new(),
        permissions: None,
        scope_set: None,
        expires: now,
    }
}

fn now() -> Timestamp {
    SystemClock.wall()
}

impl Tokens for Local {
    fn mint(&self, wish: MintWish) -> Result<MintedLine, Failure> {
        let seconds = |span: Millis| i64::try_from(span.0 / 1_000).unwrap_or(i64::MAX);
        let request = MintRequest {
            scope: wish.scope,
            audience: wish.audience,
            expires_in: wish.expires_in.map(seconds),
            subject: wish.subject,
            permissions: wish.permissions,
        };
        // Of a vault that is not there yet: its owner knows.
        let minted = self.authority.mint(request, &owner(now()), &|_| true, now()).map_err(unminted)?;
        Ok(minted_line(&minted))
    }

    fn list(&self, query: &TokenQuery, each: &mut dyn FnMut(TokenLine) -> bool) -> Result<(), Failure> {
        let via = match query.created_via.as_deref() {
            None => None,
            Some(text) => Some(Via::parse(text).ok_or_else(|| {
                let known: Vec<&str> = Via::ALL.iter().map(|via| via.as_str()).collect();
                let failure = Failure::new(Exit::Usage, format!("no token comes to be by '{text}'"));
                failure.hint(format!("there is {}", known.join(", ")))
            })?),
        };
        let filter =
            TokenFilter { revoked: query.revoked, subject: query.subject.clone(), client: query.client.clone(), via };
        let mut request = ListRequest { filter, cursor: None };
        loop {
            let page = self.authority.list(&request).map_err(broken)?;
            for row in &page.tokens {
                if !each(token_line(row)) {
                    return Ok(());
                }
            }
            match page.next_cursor {
                None => return Ok(()),
                next => request.cursor = next,
            }
        }
    }

    fn revoke(&self, jti: &str) -> Result<RevokedLine, Failure> {
        let revoked = self.authority.revoke(jti, None, now()).map_err(|why| match why {
            Unrevoked::NotFound => Failure::new(Exit::Error, format!("there is no token '{jti}'"))
                .hint("'trueup token list' shows the ids; it is the id that is revoked, not the token"),
            other => anyhow::Error::from(other).into(),
        })?;
        Ok(RevokedLine { jti: revoked.jti, revoked_at: revoked.at })
    }

    fn rotate(&self, compromised: bool) -> Result<RotatedLine, Failure> {
        let done = self.authority.rotate(compromised, now()).map_err(unminted)?;
        let mut reissued = Vec::new();
        let mut orphaned = Vec::new();
        if compromised {
            if self.home.join(FILE).exists() {
                keep_operator_token(&self.authority, &self.home, now()).map_err(anyhow::Error::from)?;
                reissued.push(format!("the operator token, {}", self.home.join(FILE).display()));
            }
            let others = done.tokens.iter().filter(|row| row.via != Via::OperatorMint);
            orphaned = others.map(token_line).collect();
        }
        let tokens = done.tokens.len() as u64;
        Ok(RotatedLine { kid: done.kid, retired: done.retired, compromised, tokens, reissued, orphaned })
    }

    fn jwks(&self) -> Result<serde_json::Value, Failure> {
        let keys = self.authority.jwks(now()).map_err(unminted)?;
        Ok(serde_json::to_value(keys).map_err(anyhow::Error::from)?)
    }

    fn grants(&self) -> Result<Vec<GrantLine>, Failure> {
        Ok(self.authority.grants().map_err(broken)?.into_iter().map(grant_line).collect())
    }

    fn grant(&self, subject: &str, client: &str, scopes: &[String]) -> Result<GrantLine, Failure> {
        let row = self.authority.grant(subject, client, scopes, now()).map_err(|why| match why {
            Ungranted::Store(fault) => broken(fault),
            wrong => Failure::new(Exit::Usage, wrong.to_string()),
        })?;
        Ok(grant_line(row))
    }

    fn revoke_grant(&self, subject: &str, client: &str) -> Result<bool, Failure> {
        self.authority.revoke_grant(subject, client).map_err(broken)
    }
}

fn unminted(error: MintError) -> Failure {
    match error {
        MintError::Unavailable(_) => anyhow::Error::from(error).into(),
        wrong => {
            let hint =
                "a scope is namespace:verb or vault:NAME:VERB; what governs the machine is in the operator token";
            let usage = Failure::new(Exit::Usage, wrong.to_string());
            if matches!(wrong, MintError::InvalidScope(_)) { usage.hint(hint) } else { usage }
        }
    }
}

fn broken(fault: StoreFault) -> Failure {
    anyhow::Error::from(fault).into()
}
