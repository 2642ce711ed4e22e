//! From a spec and its secrets to a place. Pure.

use std::path::Path;

use super::spec::StorageBackendSpec;
use crate::kinds::path::tidy;
use crate::model::digest::Digest;
use crate::model::secret::Secret;
use crate::ports::blobs::{Bucket, Location};
use crate::ports::storage::Place;

/// The values of [`StorageBackendSpec::secrets`], in their order.
pub type Secrets = Vec<Secret>;

/// Where it is. `folder` is what relative paths start from; `key` keys the digest, because secrets are among what is digested.
pub fn place(spec: &StorageBackendSpec, folder: &Path, secrets: Secrets, key: &[u8; 32]) -> Place {
    let mut values = secrets.into_iter();
    let mut value = || values.next().unwrap_or_else(|| Secret::new(String::new()));
    let location = match (&spec.fs, &spec.sqlite, &spec.s3) {
        (Some(fs), ..) => Location::Fs { path: tidy(&folder.join(&fs.path)) },
        (_, Some(sqlite), _) => Location::Sqlite { path: tidy(&folder.join(&sqlite.path)) },
        (_, _, Some(s3)) => Location::S3(Box::new(Bucket {
            endpoint: s3.endpoint.trim_end_matches('/').to_owned(),
            bucket: s3.bucket.clone(),
            region: s3.region.clone(),
            path_style: s3.path_style,
            prefix: if s3.prefix.is_empty() { String::new() } else { format!("{}/", s3.prefix) },
            access_key_id: value(),
            secret_access_key: value(),
            session_token: s3.session_token.as_ref().map(|_| value()),
        })),
        // Refused by its check; nothing lies there.
        (None, None, None) => Location::Fs { path: tidy(folder) },
    };
    let digest = Digest::keyed(key, text(&location).as_bytes());
    Place { location, digest, discard: false }
}

/// Everything about a place, one part a line.
fn text(location: &Location) -> String {
    match location {
        Location::S3(bucket) => {
            let token = bucket.session_token.as_ref().map_or("", Secret::reveal);
            let (id, secret) = (bucket.access_key_id.reveal(), bucket.secret_access_key.reveal());
            [&where_is(location), &bucket.region, &bucket.path_style.to_string(), id, secret, token].join("\n")
        }
        Location::Fs { .. } | Location::Sqlite { .. } => where_is(location),
    }
}

/// Where it is, for people, and to tell two places apart: who we are there does not matter.
pub fn where_is(location: &Location) -> String {
    match location {
        Location::Fs { path } => format!("folder {}", path.display()),
        Location::Sqlite { path } => format!("file {}", path.display()),
        Location::S3(bucket) => format!("bucket {} at {}/{}", bucket.bucket, bucket.endpoint, bucket.prefix),
    }
}
