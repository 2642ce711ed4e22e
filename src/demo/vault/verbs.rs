//! `trueup demo vault create|remove|list`: vaults come and go while the server runs, and while it does not. The words may follow all
//! that the server is started with.

use std::path::Path;

use serde_json::json;

use super::super::args::{Args, Verb};
use super::super::{registration, say};
use super::IDENTITY;
use super::vaults::{self, VaultError, Vaults};

/// Does what a verb says.
pub(in super::super) fn follow(args: &Args, verb: Verb) -> Result<(), String> {
    let home =
        args.home.as_deref().ok_or("--home or $PARACHUTE_HOME says where the vaults are, and neither is there")?;
    let row = args.row.as_deref().unwrap_or(IDENTITY.row);
    let vaults = Vaults::new(Some(vaults::folder(home, row)));
    if verb == Verb::List {
        match (args.json, vaults.names()) {
            (true, names) => say(&json!({ "vaults": names }).to_string()),
            (false, names) => names.iter().for_each(|name| say(name)),
        }
        return Ok(());
    }
    let name = args.name.as_deref().ok_or("which vault? Its name is missing")?;
    let done = match verb {
        Verb::Create => create(&vaults, name, args.json),
        _ => remove(&vaults, name, args.yes),
    };
    done.map_err(|error| error.to_string())?;
    register(home, row, &vaults);
    Ok(())
}

fn create(vaults: &Vaults, name: &str, as_json: bool) -> Result<(), VaultError> {
    let created = vaults.create(name)?;
    let path = super::path(name);
    match (as_json, created) {
        (true, _) => say(&json!({ "name": name, "created": created, "path": path }).to_string()),
        (false, true) => say(&format!("vault '{name}' is made, at {path}")),
        (false, false) => say(&format!("vault '{name}' exists already, at {path}")),
    }
    Ok(())
}

fn remove(vaults: &Vaults, name: &str, sure: bool) -> Result<(), VaultError> {
    if !sure {
        vaults.exists(name)?;
        say(&format!("this would remove vault '{name}' with all its notes; say --yes"));
        return Err(VaultError::Unsure);
    }
    vaults.remove(name)?;
    say(&format!("vault '{name}' is removed"));
    Ok(())
}

/// Tells the row what there is now. A server that runs does the same; without a row there is nothing to tell.
fn register(home: &Path, row: &str, vaults: &Vaults) {
    if let Err(error) = registration::set_paths(home, row, &super::paths(vaults)) {
        say(&format!("services.json is not told: {error}"));
    }
}
