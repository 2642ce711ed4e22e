//! services.json as a module uses it: it reads its port there, and registers itself without any lock. That is how the
//! modules of this machine's world behave, so the demonstration modules do the same and not better.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Identity;

const FILE: &str = "services.json";

/// The port in the row with this name, if there is such a file, row and port.
pub(super) fn port_of(home: Option<&Path>, row: &str) -> Option<u16> {
    let root: Value = serde_json::from_slice(&fs::read(home?.join(FILE)).ok()?).ok()?;
    let row = root.get("services")?.as_array()?.iter().find(|entry| entry["name"] == row)?;
    row.get("port")?.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// Writes the module's own row: its fields win, fields of others in it survive.
pub(super) fn register(home: &Path, identity: &Identity, port: u16, paths: &[String]) -> io::Result<()> {
    let mut root = match fs::read(home.join(FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({ "services": [] }),
        Err(error) => return Err(error),
    };
    let rows = rows(&mut root)?;
    let own = own_fields(identity, port, paths);
    match rows.iter_mut().filter(|row| row["name"] == identity.row).find_map(Value::as_object_mut) {
        Some(row) => row.extend(own),
        None => rows.push(Value::Object(own)),
    }
    write(home, &root)
}

/// Writes other paths into the row with this name. Without such a row there is nothing to write.
pub(super) fn set_paths(home: &Path, row: &str, paths: &[String]) -> io::Result<()> {
    let mut root: Value = match fs::read(home.join(FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let wanted = json!(paths);
    match rows(&mut root)?.iter_mut().find(|entry| entry["name"] == row) {
        Some(row) if row["paths"] != wanted => row["paths"] = wanted,
        _ => return Ok(()),
    }
    write(home, &root)
}

fn rows(root: &mut Value) -> io::Result<&mut Vec<Value>> {
    let no_list = || io::Error::new(io::ErrorKind::InvalidData, "there is no list of services in it");
    root.get_mut("services").and_then(Value::as_array_mut).ok_or_else(no_list)
}

fn write(home: &Path, root: &Value) -> io::Result<()> {
    fs::create_dir_all(home)?;
    let new = home.join(format!("{FILE}.tmp-{}", std::process::id()));
    fs::write(&new, serde_json::to_string_pretty(root)? + "\n")?;
    fs::rename(&new, home.join(FILE))
}

fn own_fields(identity: &Identity, port: u16, paths: &[String]) -> Map<String, Value> {
    let fields = [
        ("name", json!(identity.row)),
        ("port", json!(port)),
        ("paths", json!(paths)),
        ("health", json!(identity.health)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("displayName", json!(identity.display_name)),
        ("tagline", json!(identity.tagline)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::vault;

    #[test]
    fn registering_keeps_what_others_wrote() {
        let home = tempfile::tempdir().expect("a folder");
        assert_eq!(port_of(Some(home.path()), "parachute-vault"), None);
        assert_eq!(port_of(None, "parachute-vault"), None);
        let row = json!({ "name": "parachute-vault", "installDir": "/opt/vault", "port": 7 });
        let before = json!({ "services": [{ "name": "x" }, row], "more": 1 });
        fs::write(home.path().join(FILE), before.to_string()).expect("a file");
        assert_eq!(port_of(Some(home.path()), "parachute-vault"), Some(7));
        register(home.path(), &vault::IDENTITY, 8, &["/vault/default".to_owned()]).expect("a row");
        assert_eq!(port_of(Some(home.path()), "parachute-vault"), Some(8));
        let after: Value = serde_json::from_slice(&fs::read(home.path().join(FILE)).expect("a file")).expect("JSON");
        assert_eq!((&after["more"], &after["services"][0]), (&json!(1), &json!({ "name": "x" })));
        assert_eq!(after["services"][1]["installDir"], "/opt/vault");
        assert_eq!(after["services"][1]["paths"], json!(["/vault/default"]));
        let both = ["/vault/default".to_owned(), "/vault/lab".to_owned()];
        set_paths(home.path(), "parachute-vault", &both).expect("told");
        set_paths(home.path(), "nobody", &both).expect("nobody to tell");
        let after: Value = serde_json::from_slice(&fs::read(home.path().join(FILE)).expect("a file")).expect("JSON");
        assert_eq!((&after["services"][1]["paths"], &after["services"][1]["port"]), (&json!(both), &json!(8)));
    }

    #[test]
    fn a_file_that_is_no_list_is_left_alone() {
        let home = tempfile::tempdir().expect("a folder");
        for text in ["{", "{\"services\": 1}"] {
            fs::write(home.path().join(FILE), text).expect("a file");
            assert_eq!(port_of(Some(home.path()), "parachute-vault"), None);
            assert!(register(home.path(), &vault::IDENTITY, 8, &[]).is_err());
            assert_eq!(fs::read_to_string(home.path().join(FILE)).expect("a file"), text);
        }
    }
}
