//! `trueup demo vault create|remove|list`: vaults come and go while the server runs, and while it does not.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use serde_json::json;

use super::super::{registration, say};
use super::IDENTITY;
use super::vaults::{self, VaultError, Vaults};
use crate::model::exit::Exit;

/// Makes and removes vaults. A server of the same home notices; it need not be started again.
#[derive(Debug, Parser)]
#[command(name = "trueup demo vault", bin_name = "trueup demo vault", disable_help_subcommand = true)]
struct Words {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes a vault. One that exists is left as it is.
    Create {
        name: String,
        /// One line of JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Removes a vault with all that is in it.
    Remove {
        name: String,
        /// Without it nothing is removed.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Says which vaults there are.
    List {
        /// One line of JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, ClapArgs)]
struct Place {
    /// The folder with services.json and the vaults.
    #[arg(long, env = "PARACHUTE_HOME", value_name = "DIR")]
    home: PathBuf,
    /// The row of services.json under which the server is registered.
    #[arg(long, value_name = "NAME", default_value = IDENTITY.row)]
    row: String,
}

impl Place {
    fn vaults(&self) -> Vaults {
        Vaults::new(Some(vaults::folder(&self.home, &self.row)))
    }

    /// Tells the row what there is now. A server that runs does the same; without a row there is nothing to tell.
    fn register(&self, vaults: &Vaults) {
        if let Err(error) = registration::set_paths(&self.home, &self.row, &super::paths(vaults)) {
            say(&format!("services.json is not told: {error}"));
        }
    }
}

/// Whether these words, which follow `trueup demo`, are for us.
pub(in super::super) fn is_verb(words: &[String]) -> bool {
    let verb = |word: &String| ["create", "remove", "list"].contains(&word.as_str());
    words.first().is_some_and(|module| module == "vault") && words.get(1).is_some_and(verb)
}

/// Does what the words say, and returns the exit code.
pub(in super::super) fn run(words: &[String]) -> u8 {
    let program = std::iter::once("trueup demo vault".to_owned());
    let words = match Words::try_parse_from(program.chain(words.iter().skip(1).cloned())) {
        Ok(words) => words,
        Err(help) => {
            // Nobody is left to tell if this fails.
            let _ = help.print();
            return if help.use_stderr() { Exit::Usage as u8 } else { Exit::Done as u8 };
        }
    };
    match follow(words.verb) {
        Ok(()) => Exit::Done as u8,
        Err(error) => {
            say(&format!("error: {error}"));
            Exit::Error as u8
        }
    }
}

fn follow(verb: Verb) -> Result<(), VaultError> {
    match verb {
        Verb::Create { name, json, place } => {
            let vaults = place.vaults();
            let created = vaults.create(&name)?;
            place.register(&vaults);
            let path = super::path(&name);
            match (json, created) {
                (true, _) => say(&json!({ "name": name, "created": created, "path": path }).to_string()),
                (false, true) => say(&format!("vault '{name}' is made, at {path}")),
                (false, false) => say(&format!("vault '{name}' exists already, at {path}")),
            }
        }
        Verb::Remove { name, yes, place } => {
            let vaults = place.vaults();
            if !yes {
                vaults.exists(&name)?;
                say(&format!("this would remove vault '{name}' with all its notes; say --yes"));
                return Err(VaultError::Unsure);
            }
            vaults.remove(&name)?;
            place.register(&vaults);
            say(&format!("vault '{name}' is removed"));
        }
        Verb::List { json, place } => match (json, place.vaults().names()) {
            (true, names) => say(&json!({ "vaults": names }).to_string()),
            (false, names) => names.iter().for_each(|name| say(name)),
        },
    }
    Ok(())
}
