//! Secrets by reference, for every kind.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::tidy;
use crate::model::secret::Secret;
use crate::ports::Look;
use crate::ports::files::FileError;

/// Where a secret comes from. Exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct SecretRef {
    /// A file, relative to this one; one trailing newline is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A variable of trueup's own environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A command whose standard output is the secret; one trailing newline is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
}

/// The secret, or why it could not be had and what to do. Commands were asked before (see `Facts::commands`).
///
/// # Errors
/// The reason, which never holds the secret, and a hint.
pub fn secret(look: &Look<'_>, from: &SecretRef, folder: &Path) -> Result<Secret, (String, String)> {
    if let Some(file) = &from.file {
        let path = tidy(&folder.join(file));
        let read = look.files().read(&path).map_err(|error| match error {
            FileError::Missing => {
                (format!("the file {} does not exist", path.display()), "create it with mode 0600".to_owned())
            }
            FileError::Unreadable(why) => {
                (format!("{} cannot be read: {why}", path.display()), "check its mode".to_owned())
            }
        })?;
        let trimmed = read.strip_suffix('\n').unwrap_or(&read);
        return Ok(Secret::new(trimmed.strip_suffix('\r').unwrap_or(trimmed).to_owned()));
    }
    if let Some(name) = &from.env {
        return look.secrets().variable(name).ok_or_else(|| {
            (
                format!("the variable {name} is not set"),
                "set it in the environment that trueup is started with".to_owned(),
            )
        });
    }
    let argv = from.command.as_deref().unwrap_or_default();
    let answer = look.facts.commands.get(&(folder.to_owned(), argv.to_owned())).cloned();
    let answer = answer.unwrap_or_else(|| Err("its command was not asked".to_owned()));
    answer.map_err(|why| (why, format!("run it by hand: {}", in_shell(argv))))
}

/// The words as a shell takes them.
fn in_shell(argv: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = |word: &String| match !word.is_empty() && word.chars().all(is_plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
}
