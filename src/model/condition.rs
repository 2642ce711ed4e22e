//! Conditions in the kstatus convention: `Ready`, `Reconciling`, `Stalled`, and `Drifted`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Timestamp;

/// The types of condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum ConditionType {
    /// The resource is as the file asks, and works.
    Ready,
    /// Something is being done or waited for.
    Reconciling,
    /// It cannot get further by itself (or only by slow retries).
    Stalled,
    /// Seen to differ from what was last applied, while the file did not change.
    Drifted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident,)+) => {
        /// The reason of a condition, step or event: a stable CamelCase word. Text is for people, this is for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }
        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
            /// What it means: what `trueup explain REASON` prints.
            pub fn explain(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc, "\n",)+),)+ }
            }
        }
    };
}

reasons! {
    /// Settings are in force.
    Accepted,
    /// Nothing of it is there.
    Absent,
    /// The file changed.
    Changed,
    /// An input that the file names (envFile, secret, module.json) changed.
    InputChanged,
    /// A setting that needs no restart changed.
    PolicyChanged,
    /// No document declares it any more.
    NotDeclared,
    /// It is gone; the ledger lets go of it.
    Gone,
    /// `suspend: true`.
    Suspended,
    /// Stopped, or kept running, by a person for a while.
    Overridden,
    /// Runs by the clock, and waits for its next time.
    Scheduled,
    /// Ran by the clock and ended with an error; waits for its next time.
    LastRunFailed,
    /// Its time came while its last run still ran.
    Overlap,
    /// Its time passed while nobody looked.
    Missed,
    /// Stopped by `trueup down`.
    Down,
    /// Answers its readiness probe.
    ProbeSucceeded,
    /// Runs, and has no readiness probe and no port to wait for.
    Running,
    /// Runs, and does not answer its readiness probe yet.
    NotReady,
    /// A changed version was ready: it can be gone back to.
    Proven,
    /// A changed version was not ready in time; the last proven one runs.
    RolledBack,
    /// A file that it reads changed, and it is told so.
    FilesChanged,
    /// Its liveness or startup probe failed; it is restarted.
    Unhealthy,
    /// Ran to its end with exit code 0, and should not run again.
    Completed,
    /// Ran to its end with an error, and its policy says not to run it again.
    Failed,
    /// Crashed; the keeper starts it again after a pause.
    Restarting,
    /// Crashed too often; retried slowly.
    CrashLoop,
    /// Being stopped.
    Stopping,
    /// Waits for what it depends on.
    DependencyNotReady,
    /// Something it depends on was restarted, and it follows.
    DependencyRestarted,
    /// Its port is held by somebody else.
    PortTaken,
    /// Its process does not listen on its port but on another.
    ListensElsewhere,
    /// Its row in services.json said something else.
    RowDrifted,
    /// Its row in services.json drifted and another row holds the wanted port.
    RowConflict,
    /// A second process with our mark, left by a crash.
    Stray,
    /// The process runs with settings that are not the ones last applied.
    ProcessDrifted,
    /// The keeper lost what it needs to start it again (it was restarted itself) and is told anew.
    Readopted,
    /// An input could not be resolved (file missing, command not found, ...).
    BadInput,
    /// Its file is broken, and no earlier version is there to go on with.
    Invalid,
    /// Its file is broken; held at the last good version.
    Held,
    /// A step failed; it is tried again.
    StepFailed,
    /// The same steps were planned again and again without effect.
    NoProgress,
    /// A look failed, so nothing is decided.
    Unknown,
    /// More would be removed than the budget allows.
    PruneBudget,
    /// The tree could not be read completely, so nothing is removed.
    TreeIncomplete,
    /// A person asked for it.
    Requested,
    /// A backend was tried: what was written was read back and deleted.
    Usable,
    /// A backend has not been tried yet.
    Unproven,
    /// A backend refuses what is asked of it, until a person changes something: credentials, a bucket, rights.
    BackendRefused,
    /// A backend does not answer as it should; it is tried again.
    BackendFailing,
    /// Blobs are being moved to another backend.
    Migrating,
    /// All blobs lie where the file says.
    Settled,
    /// Blobs have no good copy anywhere; they wait to be repaired or given up by name. Everything else goes on.
    Quarantined,
    /// Blobs were moved.
    Migrated,
    /// A damaged or missing copy was replaced from a good one.
    Repaired,
    /// Given up by name, because no good copy was found.
    Abandoned,
    /// Copies that nobody needs were removed.
    Swept,
    /// Bytes that belong to no blob were found on a backend.
    Orphans,
    /// No longer declared, and kept because blobs still need it.
    StillNeeded,
    /// The hub cannot listen on its address: not one of this machine, or not to be had by this user.
    BadAddress,
    /// The hub answers.
    Serving,
    /// The database of keys and tokens is gone, damaged, or not the one that it was.
    DatabaseLost,
    /// It is there.
    Present,
    /// Its service answers, and has no such vault.
    VaultMissing,
    /// The trigger is at its vault as it should be, with a token that counts.
    Wired,
    /// The trigger is about to be written.
    Wiring,
    /// Something of that name was there already, and is ours from now on.
    Adopted,
    /// Somebody removed the trigger, or the vault forgot it.
    TriggerMissing,
    /// Somebody changed the trigger.
    TriggerEdited,
    /// Somebody wrote the trigger after us; which token it sends cannot be seen.
    TriggerOverwritten,
    /// A token in use was revoked, or has expired.
    BearerRevoked,
    /// A token in use ends soon.
    BearerExpiring,
    /// A token in use is signed by a key that was retired.
    KeyRotated,
    /// A newer one took its place.
    Replaced,
    /// The sink does not have what it was told.
    SinkForgot,
    /// A module has standing access to a vault.
    Lent,
    /// Events were given up; a person replays or discards them.
    DeadLetters,
    /// So many events wait that no more are accepted.
    QueueFull,
    /// Notes whose event never arrived.
    StuckNotes,
    /// Events that never arrived are brought on their way again.
    Rearmed,
    /// The hub does not serve, so no event can arrive.
    HubNotServing,
    /// A crash left it, and nobody owns it.
    Orphan,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One condition of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: ConditionType,
    pub status: ConditionStatus,
    pub reason: Reason,
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
    /// The generation of the document that this speaks of.
    pub observed_generation: u64,
}
