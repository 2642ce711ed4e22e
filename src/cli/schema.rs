//! `schema`: the JSON Schema of manifests, for editors; and the schemas that `explain` walks.

use serde_json::Value;

use super::args;
use super::exit::Failure;
use super::render::screen::Screen;
use super::render::show::yaml;
use crate::cli::args::Format;
use crate::kinds::backend::spec::StorageBackendSpec;
use crate::kinds::connection::spec::ConnectionSpec;
use crate::kinds::hub::spec::HubSpec;
use crate::kinds::schema;
use crate::kinds::service::spec::ServiceSpec;
use crate::kinds::storage::spec::StorageSpec;
use crate::kinds::vault::spec::VaultSpec;
use crate::model::exit::Exit;
use crate::model::id::KindName;

pub fn run(args: &args::Schema, screen: &mut Screen) -> Result<Exit, Failure> {
    let schema = match args.kind {
        Some(kind) => schema::schema(kind),
        None => schema::any_schema(),
    };
    match screen.format() {
        Format::Yaml => screen.data(&yaml(&schema)),
        Format::Text => screen.data(&format!("{schema:#}\n")),
        Format::Json => screen.data(&format!("{schema}\n")),
    }
    Ok(Exit::Done)
}

/// The schema of a kind's spec.
pub fn kind_schema(kind: KindName) -> Value {
    let schema = match kind {
        KindName::Hub => schemars::schema_for!(HubSpec),
        KindName::Service => schemars::schema_for!(ServiceSpec),
        KindName::Vault => schemars::schema_for!(VaultSpec),
        KindName::Connection => schemars::schema_for!(ConnectionSpec),
        KindName::Storage => schemars::schema_for!(StorageSpec),
        KindName::StorageBackend => schemars::schema_for!(StorageBackendSpec),
    };
    schema.to_value()
}
