//! The tokens and grants of a state folder behind the commands, straight on the database. No daemon is needed; one that runs reads the
//! same file, and looks at it each time.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::{manifests, read_ledger};
use super::database::{self, DATABASE};
use super::socket;
use super::tree;
use super::verbs::Verb;
use crate::adapters::clock::SystemClock;
use crate::adapters::hubdb::HubDb;
use crate::adapters::hubdb::file::OwnFile;
use crate::adapters::hubdb::restore::restore;
use crate::authority::grants::Ungranted;
use crate::authority::lines::{grant_line, minted_line, token_line};
use crate::authority::operator::{FILE, OPERATOR};
use crate::authority::{Authority, CLIENT, Caller, ListRequest, MintError, MintRequest, Unrevoked, scope};
use crate::cli::engine::{MintWish, Place, TokenQuery, Tokens};
use crate::cli::exit::Failure;
use crate::document::Document;
use crate::kinds::connection::inputs::connection_of;
use crate::kinds::hub::spec::HubSpec;
use crate::kinds::path::tidy;
use crate::model::exit::Exit;
use crate::model::id::KindName;
use crate::model::time::Timestamp;
use crate::model::token_output::{GrantLine, MintedLine, ResetLine, RestoredLine, RevokedLine, RotatedLine, TokenLine};
use crate::model::unit::Millis;
use crate::ports::clock::Clock;
use crate::ports::store::Store;
use crate::ports::tokens::{FaultClass, StoreFault, TokenFilter, Unwell, Via};

/// How long a token that is to be revoked is left in force while it is replaced.
const REPLACE_LIMIT: Millis = Millis::secs(5);

/// The tokens of one state folder. Nothing is opened before it is needed.
pub(super) struct Local {
    place: Place,
    state: PathBuf,
    opened: OnceCell<(Authority, PathBuf)>,
}

impl Local {
    pub(super) fn new(place: &Place) -> Self {
        Self { place: place.clone(), state: place.state.clone(), opened: OnceCell::new() }
    }

    /// The state must be this tree's, and the tree must be there or have been there.
    fn admit(&self) -> Result<(), Failure> {
        let ledger = read_ledger(&self.state)?;
        if let Some(foreign) = tree::foreign(&self.place, &*ledger)? {
            return Err(foreign.refuse());
        }
        if tree::never_was(&self.place, &*ledger)? {
            let text = format!("{} does not exist", manifests(&self.place)?.display());
            return Err(Failure::new(Exit::Error, text).hint("check -f, or leave it out"));
        }
        Ok(())
    }

    /// Opens the database. The hub's origin is the one that was accepted last.
    fn open(&self) -> Result<&(Authority, PathBuf), Failure> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        self.admit()?;
        let ledger = read_ledger(&self.state)?;
        let (hub, home) = accepted(&self.state, &*ledger)?;
        let known = database::is_known(&*ledger).map_err(anyhow::Error::from)?;
        let store = database::open(&self.state, known).map_err(|why| Failure::new(Exit::Error, why))?;
        let authority = Authority::new(Arc::new(store));
        authority.set_origins(&hub.effective_origin(), &hub.origins());
        Ok(self.opened.get_or_init(|| (authority, home)))
    }

    fn remade(&self, path: &Path) -> Result<(Authority, PathBuf), Failure> {
        let (hub, home) = accepted(&self.state, &*read_ledger(&self.state)?)?;
        let store = HubDb::open(path, true).map_err(anyhow::Error::from)?;
        let authority = Authority::new(Arc::new(store));
        authority.set_origins(&hub.effective_origin(), &hub.origins());
        Ok((authority, home))
    }

    /// A token that a connection uses is replaced by the daemon before it is revoked, so that no event is refused. Without a daemon, or
    /// when it takes too long, it is revoked all the same.
    fn replace_first(&self, jti: &str) -> Result<(), Failure> {
        let row = self.authority()?.find(jti).map_err(broken)?.filter(|row| row.revoked.is_none());
        let Some(connection) = row.and_then(|row| connection_of(&row.client)) else { return Ok(()) };
        if socket::answers(&self.state) {
            let verb = Verb::Renew { connections: vec![connection], timeout: REPLACE_LIMIT };
            // Whatever it answers: the token is revoked now.
            let _ = socket::ask_here(&self.state, &verb);
        }
        Ok(())
    }

    fn authority(&self) -> Result<&Authority, Failure> {
        self.open().map(|(authority, _)| authority)
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

/// A database that cannot be read, with its journal, under another name: somebody may still want to look at it.
fn move_aside(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let stamp = format!(".damaged-{}", now().0);
    let mut moved = None;
    for suffix in ["", "-wal", "-shm"] {
        let to = named(&format!("{stamp}{suffix}"));
        match std::fs::rename(named(suffix), &to) {
            Ok(()) => moved = moved.or(Some(to)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(moved)
}

/// Makes the operator token anew if there was one, and says so.
fn operator_anew(authority: &Authority, home: &Path) -> Result<Vec<String>, Failure> {
    let path = home.join(FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let kept = authority.keep_operator_token(&OwnFile::new(path.clone()), now()).map_err(anyhow::Error::from)?;
    Ok(kept.renewed.iter().map(|_| format!("the operator token, {}", path.display())).collect())
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
        let minted = self.authority()?.mint(request, &owner(now()), &|_| true, now()).map_err(unminted)?;
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
            let page = self.authority()?.list(&request).map_err(broken)?;
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
        self.replace_first(jti)?;
        let revoked = self.authority()?.revoke(jti, None, now()).map_err(|why| match why {
            Unrevoked::NotFound => Failure::new(Exit::Error, format!("there is no token '{jti}'"))
                .hint("'trueup token list' shows the ids; it is the id that is revoked, not the token"),
            other => anyhow::Error::from(other).into(),
        })?;
        Ok(RevokedLine { jti: revoked.jti, revoked_at: revoked.at })
    }

    fn rotate(&self, compromised: bool) -> Result<RotatedLine, Failure> {
        let (authority, home) = self.open()?;
        let done = authority.rotate(compromised, now()).map_err(unminted)?;
        let mut reissued = Vec::new();
        let mut orphaned = Vec::new();
        if compromised {
            reissued = operator_anew(authority, home)?;
            let others = done.tokens.iter().filter(|row| row.via != Via::OperatorMint);
            orphaned = others.map(token_line).collect();
        }
        let tokens = done.tokens.len() as u64;
        Ok(RotatedLine { kid: done.kid, retired: done.retired, compromised, tokens, reissued, orphaned })
    }

    fn reset(&self) -> Result<ResetLine, Failure> {
        self.admit()?;
        let path = self.state.join(DATABASE);
        match HubDb::open(&path, false).and_then(|store| store.check_whole()) {
            Ok(()) => {
                let text = format!("{} is there and whole, and is not made anew", path.display());
                let hint = "'trueup token rotate --compromised' makes every token invalid";
                return Err(Failure::new(Exit::Refused, text).hint(hint));
            }
            Err(Unwell::Lost(_)) => {}
            Err(Unwell::Fault(fault)) if fault.class == FaultClass::Fatal => {}
            Err(Unwell::Fault(fault)) => return Err(broken(fault)),
        }
        let aside = move_aside(&path).map_err(anyhow::Error::from)?;
        let (authority, home) = self.remade(&path)?;
        let kid = authority.jwks(now()).map_err(unminted)?.keys.into_iter().next().map(|key| key.kid);
        let reissued = operator_anew(&authority, &home)?;
        Ok(ResetLine { database: path, moved_to: aside, kid: kid.unwrap_or_default(), reissued })
    }

    fn restore(&self, file: &Path) -> Result<RestoredLine, Failure> {
        self.admit()?;
        let path = self.state.join(DATABASE);
        let moved_to = restore(file, &path, now()).map_err(|unwell| {
            Failure::new(Exit::Refused, format!("{} is not put in place: {unwell}", file.display()))
                .hint("nothing was changed")
        })?;
        // The operator token may be younger than the backup.
        let reissued = match accepted(&self.state, &*read_ledger(&self.state)?) {
            Ok(_) => {
                let (authority, home) = self.open()?;
                operator_anew(authority, home)?
            }
            // The ledger is lost too; a daemon sees to it.
            Err(_) => Vec::new(),
        };
        Ok(RestoredLine { database: path, from: file.to_owned(), moved_to, reissued })
    }

    fn jwks(&self) -> Result<serde_json::Value, Failure> {
        let keys = self.authority()?.jwks(now()).map_err(unminted)?;
        Ok(serde_json::to_value(keys).map_err(anyhow::Error::from)?)
    }

    fn grants(&self) -> Result<Vec<GrantLine>, Failure> {
        Ok(self.authority()?.grants().map_err(broken)?.into_iter().map(grant_line).collect())
    }

    fn grant(&self, subject: &str, client: &str, scopes: &[String]) -> Result<GrantLine, Failure> {
        let row = self.authority()?.grant(subject, client, scopes, now()).map_err(|why| match why {
            Ungranted::Store(fault) => broken(fault),
            wrong => Failure::new(Exit::Usage, wrong.to_string()),
        })?;
        Ok(grant_line(row))
    }

    fn revoke_grant(&self, subject: &str, client: &str) -> Result<bool, Failure> {
        self.authority()?.revoke_grant(subject, client).map_err(broken)
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
