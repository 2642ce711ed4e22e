//! The tokens of connections behind the engine, straight on the database of tokens. Nothing is opened before a tree has a connection.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::build::Access;
use super::database::{self, DATABASE};
use crate::adapters::clock::SystemClock;
use crate::authority::{Authority, MintError, OwnRequest, Registered, Unrevoked};
use crate::model::own_scope::is_own;
use crate::model::secret::Secret;
use crate::model::time::Timestamp;
use crate::ports::PortError;
use crate::ports::bearers::{BRIEF_SECONDS, Bearers, Holdings, LIFE_SECONDS, Minted, SUBJECT, Wanted};
use crate::ports::clock::Clock;
use crate::ports::store::Store;
use crate::ports::tokens::{After, Stripped, TokenFilter, Via};

/// A brief token is used for so much of its life, in milliseconds.
const BRIEF_USE: i64 = BRIEF_SECONDS * 1_000 / 2;
/// Brief tokens that are kept ready.
const MOST_READY: usize = 256;
/// Rows that are read at once.
const PAGE: usize = 1_000;

type Ready = HashMap<(String, String), (Secret, Timestamp)>;

/// Opened at first use.
pub(super) struct LazyBearers {
    state: PathBuf,
    access: Access,
    ledger: Rc<dyn Store>,
    authority: OnceCell<Authority>,
    /// Our issuer, and all origins whose tokens count.
    origins: RefCell<(String, Vec<String>)>,
    ready: RefCell<Ready>,
}

impl LazyBearers {
    /// `state` is the state folder; its ledger remembers whether there is a database.
    pub(super) fn new(state: &Path, access: Access, ledger: Rc<dyn Store>) -> Self {
        let (origins, ready) = Default::default();
        Self { state: state.to_owned(), access, ledger, authority: OnceCell::new(), origins, ready }
    }

    fn authority(&self) -> Result<&Authority, PortError> {
        let retry = |why: String| PortError::Retry(why);
        if let Some(authority) = self.authority.get() {
            return Ok(authority);
        }
        let known = database::is_known(&*self.ledger).map_err(|error| retry(error.to_string()))?;
        if self.access == Access::Look && !self.state.join(DATABASE).exists() {
            return Err(retry("there is no database of tokens yet".to_owned()));
        }
        let store = database::open(&self.state, known || self.access == Access::Look).map_err(retry)?;
        if self.access == Access::Act {
            database::remember(&*self.ledger).map_err(|error| retry(error.to_string()))?;
        }
        let authority = Authority::new(Arc::new(store));
        let origins = self.origins.borrow();
        authority.set_origins(&origins.0, &origins.1);
        Ok(self.authority.get_or_init(|| authority))
    }
}

fn now() -> Timestamp {
    SystemClock.wall()
}

fn unmade(error: MintError) -> PortError {
    match error {
        MintError::Unavailable(why) => PortError::Retry(why),
        other => PortError::Never(other.to_string()),
    }
}

fn minted(made: &Registered) -> Minted {
    let row = made.row();
    Minted { jti: row.jti.clone(), token: made.token().clone(), kid: row.kid.clone(), expires: row.expires }
}

impl Bearers for LazyBearers {
    fn set_origins(&self, issuer: &str, accepted: &[String]) {
        let mut origins = self.origins.borrow_mut();
        if origins.0 != issuer || origins.1 != accepted {
            *origins = (issuer.to_owned(), accepted.to_vec());
            self.ready.borrow_mut().clear();
        }
        if let Some(authority) = self.authority.get() {
            authority.set_origins(issuer, accepted);
        }
    }

    fn holdings(&self) -> Result<Rc<Holdings>, PortError> {
        // A process that only looks, in a folder that has no tokens yet, sees that there are none.
        if self.access == Access::Look && !self.state.join(DATABASE).exists() {
            return Ok(Rc::default());
        }
        let authority = self.authority()?;
        let kid = authority.active_kid().map_err(unmade)?;
        let store = authority.store().ok_or_else(|| PortError::Retry("there is no database of tokens".to_owned()))?;
        let filter = TokenFilter { revoked: Some(false), subject: Some(SUBJECT.to_owned()), ..TokenFilter::default() };
        let (now, mut live, mut after) = (now(), BTreeMap::new(), None);
        loop {
            let page =
                store.list(&filter, after.as_ref(), PAGE).map_err(|fault| PortError::Retry(fault.to_string()))?;
            after = page.last().map(|row| After { created: row.created, jti: row.jti.clone() });
            let full = page.len() == PAGE;
            let ours = |via| matches!(via, Via::ConnectionProvision | Via::ConnectionCredential);
            live.extend(
                page.into_iter().filter(|row| row.expires > now && ours(row.via)).map(|row| (row.jti.clone(), row)),
            );
            if !full {
                let issuer = self.origins.borrow().0.clone();
                return Ok(Rc::new(Holdings { kid, issuer, live }));
            }
        }
    }

    fn register(&self, wanted: &Wanted) -> Result<Minted, PortError> {
        let request = OwnRequest {
            scopes: vec![wanted.scope.clone()],
            audience: Some(wanted.audience.clone()),
            subject: SUBJECT.to_owned(),
            client: wanted.client.clone(),
            seconds: LIFE_SECONDS,
            via: wanted.via,
            vault_scope: wanted.vault_scope.clone(),
            permissions: wanted.permissions.clone(),
            scope_set: None,
        };
        self.authority()?.mint_own(request, now()).map(|made| minted(&made)).map_err(unmade)
    }

    fn again(&self, jti: &str) -> Result<Option<Minted>, PortError> {
        Ok(self.authority()?.again(jti, now()).map_err(unmade)?.as_ref().map(minted))
    }

    fn brief(&self, scope: &str, audience: &str, vault_scope: &[String]) -> Result<Secret, PortError> {
        let of_vault = |vault: &String| {
            scope.strip_prefix("vault:").and_then(|rest| rest.split(':').next()) == Some(vault)
                && audience.strip_prefix("vault.") == Some(vault)
        };
        // What a module says of itself came this far: it gets no token of ours for anything that is not its own.
        let fits = match vault_scope {
            [] => is_own(audience, scope),
            [vault] => of_vault(vault),
            _ => false,
        };
        if !fits {
            return Err(PortError::Never(format!("`{scope}` is no scope for a call to `{audience}`")));
        }
        let (key, now) = ((scope.to_owned(), audience.to_owned()), now());
        if let Some((token, until)) = self.ready.borrow().get(&key)
            && now < *until
            && until.0 - now.0 <= BRIEF_USE
        {
            return Ok(token.clone());
        }
        let request = OwnRequest {
            scopes: vec![scope.to_owned()],
            audience: Some(audience.to_owned()),
            subject: SUBJECT.to_owned(),
            seconds: BRIEF_SECONDS,
            vault_scope: vault_scope.to_vec(),
            ..OwnRequest::default()
        };
        let made = self.authority()?.mint_brief(request, now).map_err(unmade)?;
        let mut ready = self.ready.borrow_mut();
        if ready.len() >= MOST_READY {
            ready.clear();
        }
        ready.insert(key, (made.token().clone(), Timestamp(now.0 + BRIEF_USE)));
        Ok(made.token().clone())
    }

    fn revoke(&self, jti: &str) -> Result<(), PortError> {
        match self.authority()?.revoke(jti, None, now()) {
            Ok(_) | Err(Unrevoked::NotFound) => Ok(()),
            Err(why) => Err(PortError::Retry(why.to_string())),
        }
    }

    fn strip_vault(&self, vault: &str) -> Result<Stripped, PortError> {
        self.authority()?.strip_vault(vault, now()).map_err(|why| PortError::Retry(why.to_string()))
    }
}
