//! The engine as the commands see it. The daemon room implements these traits; tests put a pretend engine in their place.

use std::ffi::OsString;
use std::future::Future;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::exit::Failure;
use super::interrupt::Cancel;
use super::telling::Listener;
use crate::model::blob::Integrity;
use crate::model::blob_output::{
    BlobLine, FetchedLine, MigrationLine, RemovedLine, StorageLine, StoredLine, VerdictLine,
};
use crate::model::catalog_output::CatalogLine;
use crate::model::delivery_output::{DeliveryDetail, DeliveryLine};
use crate::model::exit::Exit;
use crate::model::id::{Name, ResourceId};
use crate::model::output::{Description, Line, ProblemLine, ResourceLine, Summary};
use crate::model::overriding::OverrideRequest;
use crate::model::time::Timestamp;
use crate::model::token_output::{GrantLine, MintedLine, ResetLine, RestoredLine, RevokedLine, RotatedLine, TokenLine};
use crate::model::unit::Millis;

/// An answer that may take a moment. Not `Send`: the engine lives on one thread.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + 'a>>;

/// Where lines go as they come to be. The summary of a command is not sent but returned in its [`Outcome`]; only the
/// continuous mode sends summaries, one after each pass that did something.
pub type Sink<'a> = dyn FnMut(Line) + 'a;

/// Where the tree and its state are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The manifest folder, as the user named it.
    pub manifests: PathBuf,
    /// The state folder, absolute.
    pub state: PathBuf,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ended {
    /// Nothing more can be done: everything converged or failed for good.
    #[default]
    Settled,
    /// The time was over while something was still under way.
    TimedOut,
    /// It was cancelled between two steps.
    Cancelled,
}

/// A safety guard said no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub message: String,
    /// The exact flag that would allow it.
    pub hint: Option<String>,
}

/// What came of a command that looks at the tree. It decides the exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub summary: Summary,
    /// How many mistakes (severity error) the manifests have.
    pub invalid: usize,
    /// Set when a guard refused a part of the plan.
    pub refused: Option<Refusal>,
    pub ended: Ended,
    /// The time was over, and the work goes on without the command.
    #[serde(default)]
    pub goes_on: bool,
}

/// What `plan` may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanOptions {
    pub allow_prune: Option<u32>,
    /// As if the state folder belonged to this tree.
    pub adopt_state: bool,
}

/// What `reconcile` may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileOptions {
    pub allow_prune: Option<u32>,
    /// The state folder belongs to this tree from now on, whatever tree it belonged to.
    #[serde(default)]
    pub adopt_state: bool,
    /// For the whole command; not used by the continuous mode.
    pub timeout: Millis,
    /// How long to wait for the lock.
    pub lock_timeout: Millis,
}

/// What `get` lists.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Every resource that is declared or owned, sorted by identity.
    pub resources: Vec<ResourceLine>,
    /// The mistakes in the manifests.
    pub problems: Vec<ProblemLine>,
    /// The folder of manifests is not there or cannot be read: only what is owned is listed.
    pub unreadable: bool,
}

/// What services declare of themselves.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Every service in force, sorted by name.
    pub services: Vec<Name>,
    pub declared: Vec<CatalogLine>,
    /// The mistakes in the manifests and in what the modules declare.
    pub problems: Vec<ProblemLine>,
}

/// Which events to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRequest {
    pub resource: Option<ResourceId>,
    pub since: Option<Timestamp>,
    /// At most this many of those that there are, the newest.
    pub limit: usize,
    /// Go on with new ones until cancelled.
    pub follow: bool,
}

/// The verbs of the engine, wherever it lives: in this process, or in a daemon behind its socket.
pub trait Control {
    /// Checks the tree. Sends its problems.
    fn validate<'a>(&'a self, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome>;
    /// Looks and plans. Sends problems, steps (outcome `planned`) and waits. Changes nothing, needs no lock.
    fn plan<'a>(&'a self, options: &'a PlanOptions, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome>;
    /// Works until everything is settled, the time is over or it is cancelled. Sends problems, steps as they finish, and
    /// the waiting set whenever it changes.
    fn reconcile_once<'a>(
        &'a self,
        options: &'a ReconcileOptions,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome>;
    /// Works until it is cancelled.
    fn run_daemon<'a>(
        &'a self,
        options: &'a ReconcileOptions,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome>;
    /// Every resource that is declared or owned, as it is known to stand: nothing is asked that takes long.
    fn get(&self) -> Answer<'_, Listing>;
    /// What services declare, from the files alone: it needs neither a daemon nor a module that runs.
    fn catalog(&self) -> Answer<'_, Catalog>;
    /// One resource. `log` may stay empty: the command fills it from the log files.
    fn describe<'a>(&'a self, id: &'a ResourceId) -> Answer<'a, Description>;
    /// Sends events, oldest first.
    fn events<'a>(&'a self, request: &'a EventRequest, cancel: &'a Cancel, sink: &'a mut Sink<'a>) -> Answer<'a, ()>;
    /// Stops these services and starts them again; ends when they are ready, or as [`Control::reconcile_once`] does.
    fn restart<'a>(
        &'a self,
        names: &'a [Name],
        timeout: Millis,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome>;
    /// Keeps these services stopped, or running, against their files; ends as [`Control::restart`] does.
    fn override_services<'a>(
        &'a self,
        request: &'a OverrideRequest,
        timeout: Millis,
        cancel: &'a Cancel,
        sink: &'a mut Sink<'a>,
    ) -> Answer<'a, Outcome>;
    /// Stops every module in reverse order of dependency, then the keeper and the daemon, if there are any.
    fn down<'a>(&'a self, timeout: Millis, cancel: &'a Cancel, sink: &'a mut Sink<'a>) -> Answer<'a, Outcome>;
}

/// What `service` writes into a unit, and where.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// This binary, absolute.
    pub binary: PathBuf,
    /// Where this user's settings are, if that is known.
    pub config_home: Option<PathBuf>,
    /// Takes the place of the folder of units.
    pub units: Option<PathBuf>,
    /// The folder that is there when the machine was started by systemd.
    pub systemd: PathBuf,
    /// What modules get of our environment.
    pub environment: Vec<(String, String)>,
    /// What they would get if it were set.
    pub unset: Vec<String>,
}

/// Is told that so many bytes passed, of so many in all if that is known; `false` ends the work, with nothing half done.
pub type Passed<'a> = dyn Fn(u64, Option<u64>) -> bool + 'a;

/// Where the bytes of a new blob come from.
pub enum PutFrom<'a> {
    File(&'a Path),
    /// The standard input.
    Stream(&'a mut dyn Read),
}

/// Where the bytes of a blob go.
pub enum GetTo<'a> {
    /// A file, replaced in one move.
    File(&'a Path),
    /// The standard output.
    Stream(&'a mut dyn Write),
}

/// The blobs of a state folder. Blocking calls; the engine is not needed for them.
pub trait Blobs {
    fn put(&self, from: PutFrom<'_>, key: Option<&Integrity>, passed: &Passed<'_>) -> Result<StoredLine, Failure>;
    fn get(
        &self,
        key: &Integrity,
        range: Option<Range<u64>>,
        to: GetTo<'_>,
        passed: &Passed<'_>,
    ) -> Result<FetchedLine, Failure>;
    /// Blobs in the order of their keys, from the first after this one, until `each` says `false`.
    fn list(&self, after: Option<&Integrity>, each: &mut dyn FnMut(BlobLine) -> bool) -> Result<(), Failure>;
    fn stat(&self, key: &Integrity) -> Result<BlobLine, Failure>;
    /// Reads a blob where it should lie. What is found wrong is told, and changes nothing.
    fn verify(&self, key: &Integrity, passed: &Passed<'_>) -> Result<VerdictLine, Failure>;
    fn remove(&self, key: &Integrity) -> Result<RemovedLine, Failure>;
    fn status(&self) -> Result<StorageLine, Failure>;
    /// The newest first.
    fn migrations(&self, limit: usize) -> Result<Vec<MigrationLine>, Failure>;
}

/// A token that a person asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MintWish {
    /// With spaces between.
    pub scope: String,
    pub audience: Option<String>,
    pub expires_in: Option<Millis>,
    pub subject: Option<String>,
    pub permissions: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Which tokens to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenQuery {
    /// `Some(true)` only revoked ones, `Some(false)` only others.
    pub revoked: Option<bool>,
    pub subject: Option<String>,
    pub client: Option<String>,
    pub created_via: Option<String>,
}

/// The tokens and grants of a state folder. Blocking calls; neither the engine nor a daemon is needed for them.
pub trait Tokens {
    fn mint(&self, wish: MintWish) -> Result<MintedLine, Failure>;
    /// The newest first, until `each` says `false`.
    fn list(&self, query: &TokenQuery, each: &mut dyn FnMut(TokenLine) -> bool) -> Result<(), Failure>;
    /// Again changes nothing.
    fn revoke(&self, jti: &str) -> Result<RevokedLine, Failure>;
    /// With `compromised` the old keys are dropped at once.
    fn rotate(&self, compromised: bool) -> Result<RotatedLine, Failure>;
    /// Makes a new database when the one there was is gone or damaged.
    fn reset(&self) -> Result<ResetLine, Failure>;
    /// Puts a backup in the place of the database, once it was read whole.
    fn restore(&self, file: &Path) -> Result<RestoredLine, Failure>;
    /// The public keys, as JSON Web Key Set.
    fn jwks(&self) -> Result<serde_json::Value, Failure>;
    /// Sorted by subject and client.
    fn grants(&self) -> Result<Vec<GrantLine>, Failure>;
    /// Adds to what was granted before; answers with the whole.
    fn grant(&self, subject: &str, client: &str, scopes: &[String]) -> Result<GrantLine, Failure>;
    /// Whether there was one.
    fn revoke_grant(&self, subject: &str, client: &str) -> Result<bool, Failure>;
}

/// Which events to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LettersQuery<'a> {
    pub connection: Option<Name>,
    /// Only events in these states; all when there are none.
    pub states: &'a [&'a str],
    pub limit: usize,
}

/// Which events to change.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    Ids(&'a [String]),
    /// All dead letters of a connection.
    AllDead(&'a Name),
}

/// The ids of events that were changed, and what is to be said of them.
pub type ChangedEvents = (Vec<String>, Option<String>);

/// The events of a state folder. Blocking calls; neither the engine nor a daemon is needed for them.
pub trait Letters {
    /// The newest first.
    fn list(&self, query: &LettersQuery<'_>) -> Result<Vec<DeliveryLine>, Failure>;
    fn show(&self, id: &str) -> Result<DeliveryDetail, Failure>;
    /// The ids of those that are tried again, and what is to be said of them; others are not there, or were delivered or discarded.
    ///
    /// # Errors
    /// Also when their connection is not there any more: nobody would deliver them.
    fn replay(&self, which: Which<'_>) -> Result<ChangedEvents, Failure>;
    /// The ids of those that are thrown away; others are not there, or were delivered or discarded.
    fn discard(&self, which: Which<'_>) -> Result<Vec<String>, Failure>;
}

/// Names the events of a state folder, for shell completion.
pub type Offer = fn(&Path) -> Vec<String>;

/// Where spans go beside the log.
pub struct Traces {
    pub listener: Listener,
    /// Sends what is left, within a second.
    pub end: Box<dyn FnOnce()>,
}

/// What the binary puts behind the commands.
pub trait Wiring {
    /// Set when the environment names a collector of traces. Called once.
    ///
    /// # Errors
    /// What is wrong with what the environment says.
    fn traces(&self) -> Option<Result<Traces, String>> {
        None
    }

    /// The blobs of this place. Opens nothing yet that is not needed.
    ///
    /// # Errors
    /// When the ledger or the index cannot be read.
    fn blobs(&self, place: &Place) -> Result<Box<dyn Blobs>, Failure>;
    /// The tokens and grants of this place.
    ///
    /// # Errors
    /// When there is no hub yet, or its database cannot be opened.
    fn tokens(&self, place: &Place) -> Result<Box<dyn Tokens>, Failure>;
    /// The events of this place.
    ///
    /// # Errors
    /// When the state folder belongs to another tree.
    fn letters(&self, place: &Place) -> Result<Box<dyn Letters>, Failure>;
    /// Who names events when a shell completes a word.
    fn events(&self) -> Offer {
        |_| Vec::new()
    }
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Builds the engine's face for this place. Takes no lock yet.
    fn control<'a>(&'a self, place: &'a Place) -> Answer<'a, Box<dyn Control + 'a>>;
    /// Where we are, for `service`.
    ///
    /// # Errors
    /// When the path of this binary is not known.
    fn surroundings(&self) -> Result<Surroundings, Failure>;
    /// Is the keeper of this state folder until it is told to end.
    ///
    /// # Errors
    /// When it could not start.
    fn keeper(&self, state: &Path, take_over: bool) -> Result<Exit, Failure>;
    /// The tree that this state folder belongs to, if it belongs to one.
    fn tree_of(&self, _state: &Path) -> Option<PathBuf> {
        None
    }
    /// Is a demonstration module.
    ///
    /// # Errors
    /// When it could not start.
    fn demo(&self, args: &[OsString]) -> Result<Exit, Failure>;
}
