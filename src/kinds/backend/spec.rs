//! What a StorageBackend asks for. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kinds::secret::SecretRef;

const ENDPOINT: &str = "an endpoint is http:// or https://, a host and perhaps a port, such as http://127.0.0.1:9000";
const BUCKET: &str = "a bucket's name has 3 to 63 lower-case letters, digits, dots and '-'";
const PREFIX: &str = "a prefix is a path such as `blobs/home`, without `/` at either end";

/// A place where blobs can lie: a folder, an SQLite file, or a bucket of any S3 endpoint. Exactly one of the three. Before it is used,
/// something is written to it, read back and deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StorageBackendSpec {
    /// A folder on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs: Option<FsSpec>,
    /// An SQLite file of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<SqliteSpec>,
    /// A bucket of an S3 endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,
    /// What becomes of bytes that nobody needs any more when this backend is no longer declared. It is let go of only when no blob
    /// relies on it, whatever stands here.
    pub deletion_policy: DeletionPolicy,
}

/// What happens to leftovers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay where they are.
    #[default]
    Retain,
    /// They are removed first.
    Delete,
}

/// A folder. Blobs lie in it under the SHA-256 of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FsSpec {
    /// The folder, relative to this file; it is made when it is not there.
    #[schemars(length(min = 1))]
    pub path: String,
}

/// An SQLite database that holds nothing but blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SqliteSpec {
    /// The file, relative to this one; it is made when it is not there.
    #[schemars(length(min = 1))]
    pub path: String,
}

/// A bucket, and who we are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Spec {
    /// Where the S3 API is.
    #[schemars(regex(pattern = r"^https?://[^/\s]+/?$"))]
    #[schemars(extend("errorMessage" = ENDPOINT))]
    pub endpoint: String,
    /// The bucket; it must be there.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"))]
    #[schemars(extend("errorMessage" = BUCKET))]
    pub bucket: String,
    /// The region that requests are signed for.
    #[serde(default = "region")]
    #[schemars(length(min = 1))]
    pub region: String,
    /// Whether the bucket is named in the path (`http://host/bucket/...`) and not in the host name. Most servers other than Amazon's
    /// want it so.
    #[serde(default = "yes")]
    pub path_style: bool,
    /// What every object's name in the bucket begins with. Default: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(regex(pattern = r"^([^/\s]+(/[^/\s]+)*)?$"))]
    #[schemars(extend("errorMessage" = PREFIX))]
    pub prefix: String,
    /// The access key's id. It appears in no plan, event or log.
    pub access_key_id: SecretRef,
    /// The secret access key.
    pub secret_access_key: SecretRef,
    /// A session token, for credentials that are lent for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretRef>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn yes() -> bool {
    true
}

impl StorageBackendSpec {
    /// The secrets it needs, with the JSON pointer of each.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        let Some(s3) = &self.s3 else { return Vec::new() };
        let mut all =
            vec![("/spec/s3/accessKeyId", &s3.access_key_id), ("/spec/s3/secretAccessKey", &s3.secret_access_key)];
        all.extend(s3.session_token.as_ref().map(|token| ("/spec/s3/sessionToken", token)));
        all
    }
}
