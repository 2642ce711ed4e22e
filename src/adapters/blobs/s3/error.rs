//! What a server's no means for us, and for a person who can do something about it.

use super::http::{Failure, brief};
use crate::ports::blobs::{BackendError, Bucket};

/// Who is spoken to, for messages: no secrets in it.
#[derive(Clone)]
pub(super) struct Address {
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
}

impl Address {
    pub(super) fn of(bucket: &Bucket) -> Self {
        let endpoint = bucket.endpoint.trim_end_matches('/').to_owned();
        Self { endpoint, bucket: bucket.bucket.clone(), region: bucket.region.clone() }
    }

    /// What went wrong, in our words.
    pub(super) fn explain(&self, error: &object_store::Error, failure: Option<&Failure>) -> BackendError {
        match failure {
            Some(Failure { status: Some(status), .. }) => self.refused(*status, failure.unwrap_or(&Failure::default())),
            Some(silent) => self.unreachable(&silent.message),
            None => match error {
                object_store::Error::NotFound { .. } => BackendError::Missing,
                other => BackendError::Transient(format!("{}: {}", self.named(), brief(&other.to_string()))),
            },
        }
    }

    pub(super) fn named(&self) -> String {
        format!("bucket '{}' at {}", self.bucket, self.endpoint)
    }

    fn unreachable(&self, why: &str) -> BackendError {
        if why.contains("certificate") {
            let hint = "add its issuer to this machine's certificates, or name it in SSL_CERT_FILE";
            return BackendError::Refused(format!("{} is not trusted: {}; {hint}", self.endpoint, brief(why)));
        }
        BackendError::Transient(format!("{}: {}", self.named(), brief(why)))
    }

    fn refused(&self, status: u16, failure: &Failure) -> BackendError {
        let said = match (failure.code.as_str(), failure.message.as_str()) {
            ("", _) => format!("HTTP status {status}"),
            (code, "") => format!("{code}, HTTP status {status}"),
            (code, message) => format!("{code}: {message}"),
        };
        let named = self.named();
        let refused = |hint: &str| BackendError::Refused(format!("{named}: {hint} ({said})"));
        match (failure.code.as_str(), status) {
            ("NoSuchBucket", _) => BackendError::Refused(format!(
                "bucket '{}' does not exist at {}; create it, or correct its name",
                self.bucket, self.endpoint
            )),
            ("InvalidBucketName", _) => refused("this is no name for a bucket; correct it"),
            ("RequestTimeTooSkewed", _) => refused("the clock of this machine or of the server is wrong; set it"),
            ("InvalidAccessKeyId", _) => refused("the access key id is not known there; correct it"),
            ("SignatureDoesNotMatch", _) => {
                refused("the secret access key does not belong to the access key id; correct it")
            }
            ("ExpiredToken" | "InvalidToken", _) => refused("the session token is no longer good; get a new one"),
            (
                "AuthorizationHeaderMalformed"
                | "PermanentRedirect"
                | "TemporaryRedirect"
                | "AuthorizationQueryParametersError",
                _,
            )
            | (_, 301 | 302 | 307 | 308) => match &failure.region {
                Some(region) => {
                    refused(&format!("it is in the region '{region}' and not in '{}'; correct the region", self.region))
                }
                None => refused(&format!("the region '{}' or the endpoint is wrong; correct it", self.region)),
            },
            ("QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "InsufficientStorage", _)
            | (_, 507) => BackendError::Full(format!("{named} has no room left ({said})")),
            ("NotImplemented", _) | (_, 405 | 501) => refused("the server cannot do what is needed; use another one"),
            ("RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch" | "SlowDown", _)
            | (_, 408 | 409 | 412 | 429 | 500..) => {
                BackendError::Transient(format!("{named} is not able to now ({said})"))
            }
            ("AccessDenied", _) | (_, 401 | 403) => refused(
                "access is denied; check the access key id, its secret, and its rights to read, write, delete and list",
            ),
            (_, 404) => BackendError::Missing,
            _ => refused("the server does not take this request"),
        }
    }
}
