//! services.json, the file in which the modules of a machine find each other. Modules write it too, without any lock.

use std::path::Path;

use serde_json::{Map, Value};

use super::PortError;

/// One row, with every field it had: fields that we do not know are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    /// `None` when the row's port is missing or not a port.
    pub port: Option<u16>,
    pub rest: Map<String, Value>,
}

/// The verbs on `<home>/services.json`. Writes are locked, atomic and touch one row.
pub trait Registry {
    /// All rows, in file order. A missing file has none; rows that are no objects with a name are skipped.
    ///
    /// # Errors
    /// When the file is there and cannot be read or is not JSON: it is not empty then, it is unknown.
    fn rows(&self, home: &Path) -> Result<Vec<Row>, PortError>;
    /// Sets fields of the row with this name, leaves its other fields and all other rows as they are, and appends the row when
    /// there is none (then with `seed` beneath `fields`). Writing what is already there does nothing. Says whether it wrote.
    ///
    /// # Errors
    /// `Never` when the file is not JSON (it is never overwritten then).
    fn put(
        &self,
        home: &Path,
        name: &str,
        fields: &Map<String, Value>,
        seed: &Map<String, Value>,
    ) -> Result<bool, PortError>;
    /// Removes the row with this name, if there is one. Says whether it wrote.
    ///
    /// # Errors
    /// As [`Registry::put`].
    fn remove(&self, home: &Path, name: &str) -> Result<bool, PortError>;
}
