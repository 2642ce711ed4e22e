//! One folder per kind, the same files in each.
pub mod backend;
pub mod connection;
pub mod hub;
pub mod intent;
pub mod notes;
pub mod path;
pub mod schema;
pub mod secret;
pub mod service;
pub mod standing;
pub mod storage;
pub mod suspend;
#[cfg(test)]
mod tests;
pub mod trigger;
pub mod vault;

use std::sync::Arc;

use self::backend::spec::StorageBackendSpec;
use self::connection::spec::ConnectionSpec;
use self::hub::spec::HubSpec;
use self::secret::SecretRef;
use self::service::spec::ServiceSpec;
use self::storage::spec::StorageSpec;
use self::vault::spec::VaultSpec;
use crate::document::Document;
use crate::model::id::KindName;
use crate::model::problem::{Code, Problem, Severity};

// Reading: from documents to specs.

/// What a document asks for, valid by itself: whatever one document can say wrong has been said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    Hub(Arc<HubSpec>),
    Service(Arc<ServiceSpec>),
    Vault(Arc<VaultSpec>),
    Connection(Arc<ConnectionSpec>),
    Storage(Arc<StorageSpec>),
    StorageBackend(Arc<StorageBackendSpec>),
}

impl Spec {
    /// Reads the document's spec by its kind. With a mistake, which goes to `problems`, there is none.
    pub fn read(document: &Document, problems: &mut Vec<Problem>) -> Option<Self> {
        let before = problems.len();
        let spec = match document.id.kind {
            KindName::Hub => {
                let spec: HubSpec = typed(document, problems)?;
                hub::check::check(document, &spec, problems);
                Self::Hub(Arc::new(spec))
            }
            KindName::Service => {
                let mut spec: ServiceSpec = typed(document, problems)?;
                service::schedule::defaults(document, &mut spec);
                service::check::check(document, &spec, problems);
                Self::Service(Arc::new(spec))
            }
            KindName::Vault => Self::Vault(Arc::new(typed::<VaultSpec>(document, problems)?)),
            KindName::Connection => {
                let spec: ConnectionSpec = typed(document, problems)?;
                connection::check::check(document, &spec, problems);
                Self::Connection(Arc::new(spec))
            }
            KindName::Storage => {
                let spec: StorageSpec = typed(document, problems)?;
                storage::check::check(document, &spec, problems);
                Self::Storage(Arc::new(spec))
            }
            KindName::StorageBackend => {
                let spec: StorageBackendSpec = typed(document, problems)?;
                backend::check::check(document, &spec, problems);
                Self::StorageBackend(Arc::new(spec))
            }
        };
        let fatal = |problem: &Problem| problem.severity == Severity::Error;
        (!problems[before..].iter().any(fatal)).then_some(spec)
    }

    pub fn as_hub(&self) -> Option<&HubSpec> {
        match self {
            Self::Hub(spec) => Some(spec),
            _ => None,
        }
    }

    pub fn as_service(&self) -> Option<&ServiceSpec> {
        match self {
            Self::Service(spec) => Some(spec),
            _ => None,
        }
    }

    pub fn as_vault(&self) -> Option<&VaultSpec> {
        match self {
            Self::Vault(spec) => Some(spec),
            _ => None,
        }
    }

    pub fn as_connection(&self) -> Option<&ConnectionSpec> {
        match self {
            Self::Connection(spec) => Some(spec),
            _ => None,
        }
    }

    pub fn as_storage(&self) -> Option<&StorageSpec> {
        match self {
            Self::Storage(spec) => Some(spec),
            _ => None,
        }
    }

    pub fn as_backend(&self) -> Option<&StorageBackendSpec> {
        match self {
            Self::StorageBackend(spec) => Some(spec),
            _ => None,
        }
    }

    /// The secrets that it names, with the JSON pointer of each.
    pub fn secrets(&self) -> Vec<(String, &SecretRef)> {
        match self {
            Self::Hub(_) | Self::Vault(_) | Self::Connection(_) | Self::Storage(_) => Vec::new(),
            Self::Service(spec) => {
                spec.secret_env.iter().map(|(name, from)| (format!("/spec/secretEnv/{}", name.0), from)).collect()
            }
            Self::StorageBackend(spec) => {
                spec.secrets().into_iter().map(|(pointer, from)| (pointer.to_owned(), from)).collect()
            }
        }
    }
}

/// The schema has been checked before, so this fails only where a type is stricter than its schema, or for a document
/// that an older version of trueup stored.
fn typed<T: serde::de::DeserializeOwned>(document: &Document, problems: &mut Vec<Problem>) -> Option<T> {
    serde_json::from_str(document.spec_json())
        .map_err(|error| {
            let at = document.key_at("/spec");
            problems.push(Problem::error(Code::OutOfRange, at, format!("the spec cannot be used: {error}")));
        })
        .ok()
}

// Acting: what the steps of all kinds come to.

/// One action of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The ledger learns the Hub's settings; that is all there is to do.
    AcceptHub,
    /// The ledger lets go of a Hub that is no longer declared.
    ReleaseHub,
    Service(service::plan::Action),
    Vault(vault::plan::Action),
    Connection(connection::plan::Action),
    Storage(storage::plan::Action),
    Backend(backend::plan::Action),
}

impl Action {
    /// Its name in plans, journals and output.
    pub fn word(&self) -> &'static str {
        match self {
            Self::AcceptHub => "accept",
            Self::ReleaseHub => "release",
            Self::Service(action) => action.word(),
            Self::Vault(action) => action.word(),
            Self::Connection(action) => action.word(),
            Self::Storage(action) => action.word(),
            Self::Backend(action) => action.word(),
        }
    }
}
