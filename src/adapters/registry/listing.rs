//! The content of services.json as a value: read it, change one row of it, write it as the modules write it. Pure.

use serde_json::{Map, Value};

use crate::ports::registry::Row;

/// A services.json whose root is an object with a list of services. Everything else in it is kept as it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listing(Map<String, Value>);

/// Why a text is no services.json.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadListing {
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("its root is not an object with a list 'services'")]
    WrongShape,
}

const SERVICES: &str = "services";
const NAME: &str = "name";

impl Listing {
    /// A listing without rows: what a missing file means.
    pub(super) fn empty() -> Self {
        Self(Map::from_iter([(SERVICES.to_owned(), Value::Array(Vec::new()))]))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BadListing> {
        let root = serde_json::from_slice(bytes).map_err(|error| BadListing::NotJson(error.to_string()))?;
        match root {
            Value::Object(root) if root.get(SERVICES).is_some_and(Value::is_array) => Ok(Self(root)),
            _ => Err(BadListing::WrongShape),
        }
    }

    /// Two spaces and a final newline, as the modules write it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(&self.0).expect("a map with text keys is always JSON");
        bytes.push(b'\n');
        bytes
    }

    /// The rows that are objects with a name.
    pub(super) fn rows(&self) -> Vec<Row> {
        let all = self.0.get(SERVICES).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let row = |value: &Value| {
            let rest = value.as_object()?.clone();
            let name = rest.get(NAME)?.as_str()?.to_owned();
            let port = rest.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
            Some(Row { name, port: port.filter(|port| *port > 0), rest })
        };
        all.iter().filter_map(row).collect()
    }

    /// Sets fields of the first row with this name, or appends a row. Says whether anything changed.
    pub(super) fn put(&mut self, name: &str, fields: &Map<String, Value>, seed: &Map<String, Value>) -> bool {
        let rows = self.services();
        let Some(row) = rows.iter_mut().filter(|row| is_named(row, name)).find_map(Value::as_object_mut) else {
            let mut row = Map::from_iter([(NAME.to_owned(), Value::from(name))]);
            for (field, value) in seed.iter().chain(fields).filter(|(field, _)| *field != NAME) {
                row.insert(field.clone(), value.clone());
            }
            rows.push(Value::Object(row));
            return true;
        };
        let mut changed = false;
        for (field, value) in fields.iter().filter(|(field, _)| *field != NAME) {
            if row.get(field) != Some(value) {
                row.insert(field.clone(), value.clone());
                changed = true;
            }
        }
        changed
    }

    /// Removes every row with this name. Says whether there was one.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let rows = self.services();
        let before = rows.len();
        rows.retain(|row| !is_named(row, name));
        rows.len() < before
    }

    fn services(&mut self) -> &mut Vec<Value> {
        self.0.get_mut(SERVICES).and_then(Value::as_array_mut).expect("both constructors make sure of the list")
    }
}

fn is_named(row: &Value, name: &str) -> bool {
    row.get(NAME).and_then(Value::as_str) == Some(name)
}
