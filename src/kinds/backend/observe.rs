//! What is seen of a StorageBackend: where it is, once its secrets are at hand.

use super::inputs;
use super::spec::StorageBackendSpec;
use crate::document::Document;
use crate::kinds::secret::secret;
use crate::model::problem::{Code, Problem};
use crate::model::secret::Secret;
use crate::ports::Look;
use crate::ports::storage::Place;

/// Its place.
///
/// # Errors
/// The first secret that could not be had.
pub fn place(
    look: &Look<'_>,
    document: &Document,
    spec: &StorageBackendSpec,
    assumed: bool,
) -> Result<Place, Box<Problem>> {
    let mut values = Vec::new();
    for (pointer, from) in spec.secrets() {
        // A glance asks no command; it does not tell the place to anybody.
        if assumed && from.command.is_some() {
            values.push(Secret::new(String::new()));
            continue;
        }
        let value = secret(look, from, &document.folder).map_err(|(why, hint)| {
            let field = pointer.rsplit('/').next().unwrap_or_default();
            Box::new(
                Problem::error(
                    Code::BadSecret,
                    document.value_at(pointer),
                    format!("the secret {field} could not be had: {why}"),
                )
                .hint(hint),
            )
        })?;
        values.push(value);
    }
    Ok(inputs::place(spec, &document.folder, values, &look.facts.key))
}
