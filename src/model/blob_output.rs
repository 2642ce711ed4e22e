//! What the commands for blobs and for the storage say. The names of the fields are a contract, as those of `output` are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::blob::Integrity;
use super::id::Name;
use super::time::Timestamp;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum BlobOutput {
    Blob(BlobLine),
    Stored(StoredLine),
    Fetched(FetchedLine),
    Verdict(VerdictLine),
    Verified(VerifiedLine),
    Removed(RemovedLine),
    Storage(StorageLine),
    Migration(MigrationLine),
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlobLine {
    pub key: Integrity,
    /// Of the stored bytes, in hex.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
    /// Where the bytes lie.
    pub backend: Name,
    pub created: Timestamp,
    /// When they were last read there and found right.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verified: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finding: Option<FindingLine>,
    /// Other blobs with the same bytes; only `stat` looks for them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub shared_with: Vec<Integrity>,
}

/// What is wrong with the bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindingLine {
    /// `missing` or `corrupt`.
    pub fault: String,
    pub detail: String,
    pub since: Timestamp,
}

/// A blob that was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredLine {
    pub outcome: StoredOutcome,
    #[serde(flatten)]
    pub blob: BlobLine,
}

/// What a put came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum StoredOutcome {
    Stored,
    /// It was there already.
    Known,
    /// It was known, and its bytes were missing or wrong.
    Repaired,
}

/// A blob that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchedLine {
    pub key: Integrity,
    /// Bytes that were given out.
    pub size: u64,
    /// Where they should lie.
    pub backend: Name,
    /// Where they were read.
    pub served_by: Name,
}

/// How a blob was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerdictLine {
    pub key: Integrity,
    pub size: u64,
    pub backend: Name,
    pub verdict: VerdictWord,
    /// Why the backend could not be asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum VerdictWord {
    Ok,
    Missing,
    Corrupt,
    Unreachable,
}

/// How all blobs were found that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedLine {
    pub blobs: u64,
    pub good: u64,
    /// Missing, wrong, or on a backend that could not be asked.
    pub bad: u64,
}

/// A blob that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedLine {
    pub key: Integrity,
    pub size: u64,
    pub bytes: LeftoverWord,
}

/// What became of the bytes of a blob that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum LeftoverWord {
    Deleted,
    /// Another blob has the same bytes.
    Shared,
    /// A later sweep deletes them.
    Later,
}

/// The storage as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageLine {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub active: Option<Name>,
    /// Where everything is being moved to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<Name>,
    pub blobs: u64,
    /// Reads that another backend had to serve.
    pub fallbacks: u64,
    pub backends: Vec<BackendLine>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub migration: Option<MigrationLine>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<MovedLine>,
    /// Set while everything is held: nothing is moved, checked or removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspended: Option<SuspendedLine>,
    /// Blobs without a good copy, at most 1000 objects of them.
    #[serde(default)]
    pub findings: Vec<TroubledLine>,
    /// Objects with a finding that are not among these.
    #[serde(default)]
    pub more_findings: u64,
}

/// Why everything is held, and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspendedLine {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
}

/// A blob with a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TroubledLine {
    pub key: Integrity,
    /// Where its bytes should lie.
    pub backend: Name,
    /// `missing` or `corrupt`.
    pub fault: String,
    pub detail: String,
}

/// What lies on one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendLine {
    pub name: Name,
    pub objects: u64,
    pub bytes: u64,
    /// Objects without a good copy.
    pub findings: u64,
    /// Old copies and orphans: bytes that nobody relies on.
    pub spares: u64,
    /// Whether a StorageBackend of this name is accepted.
    pub declared: bool,
}

/// One migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationLine {
    pub id: u64,
    pub from: Name,
    pub to: Name,
    pub begun: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Timestamp>,
    /// `running`, `done` or `superseded`.
    pub outcome: String,
    pub moved: u64,
    pub moved_bytes: u64,
    /// Blobs put by others meanwhile.
    pub written: u64,
    pub abandoned: u64,
}

/// How far a migration is, at its mean rate until the last move. A rate of zero is not known: nothing has moved for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovedLine {
    pub done: u64,
    pub total: u64,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub objects_per_second: u64,
    pub bytes_per_second: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta_ms: Option<u64>,
}
