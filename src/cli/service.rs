//! `service`: the daemon of this tree as a unit of systemd.

mod manager;
mod unit;

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use self::manager::Manager;
use self::unit::{Owner, Scope, Unit};
use super::args;
use super::engine::{Place, Surroundings};
use super::exit::Failure;
use super::render::screen::Screen;
use super::render::show::write_data;
use crate::model::exit::Exit;

/// Where the units of the machine's administrator are (systemd.unit(5), UNIT FILE LOAD PATH).
const SYSTEM_UNITS: &str = "/etc/systemd/system";

pub fn run(
    args: &args::Service,
    place: &Place,
    around: Result<Surroundings, Failure>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let around = around?;
    let (args::ServiceVerb::Install(what) | args::ServiceVerb::Uninstall(what) | args::ServiceVerb::Status(what)) =
        &args.verb;
    let mut work = Work::new(what, place, around, screen)?;
    match &args.verb {
        args::ServiceVerb::Install(_) => work.install(),
        args::ServiceVerb::Uninstall(_) => work.uninstall(),
        args::ServiceVerb::Status(_) => work.status(),
    }
}

/// One unit, and what is to be done about it.
struct Work<'a> {
    unit: Unit,
    /// `trueup.service`.
    name: String,
    path: PathBuf,
    /// What stands there now.
    found: Option<String>,
    dry_run: bool,
    manager: Manager,
    screen: &'a mut Screen,
}

impl<'a> Work<'a> {
    fn new(what: &args::Unit, place: &Place, around: Surroundings, screen: &'a mut Screen) -> Result<Self, Failure> {
        let system = what.system || !what.user && rustix::process::geteuid().is_root();
        let scope = if system { Scope::System } else { Scope::User };
        let manifests = std::path::absolute(&place.manifests)
            .with_context(|| format!("{} cannot be named", place.manifests.display()))?;
        let name = match &what.name {
            Some(name) => format!("trueup-{name}.service"),
            None => "trueup.service".to_owned(),
        };
        let folder = match (around.units, scope) {
            (Some(folder), _) => folder,
            (None, Scope::System) => SYSTEM_UNITS.into(),
            (None, Scope::User) => {
                let config = around.config_home.ok_or_else(|| {
                    Failure::new(Exit::Error, "the folder of this user's units is not known").hint("set HOME")
                })?;
                config.join("systemd/user")
            }
        };
        let path = folder.join(&name);
        let found = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            read => {
                let bytes = read.with_context(|| format!("{} cannot be read", path.display()))?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
        };
        let unit = Unit {
            scope,
            binary: around.binary,
            manifests,
            state: place.state.clone(),
            environment: around.environment,
            unset: around.unset,
        };
        let manager = Manager::new(scope, around.systemd);
        Ok(Self { unit, name, path, found, dry_run: what.dry_run, manager, screen })
    }

    /// Refuses to touch a file that is not ours.
    fn guard(&self) -> Result<(), Failure> {
        let why = match self.found.as_deref().map(|text| self.unit.owner(text)) {
            None | Some(Owner::Ours) => return Ok(()),
            Some(Owner::Stranger) => "was not written by trueup".to_owned(),
            Some(Owner::OtherTree(state)) => format!("belongs to the tree with the state folder {state}"),
        };
        let hint = "give the unit of this tree a name of its own with --name NAME, or remove the file";
        Err(Failure::new(Exit::Refused, format!("{} {why}", self.path.display())).hint(hint))
    }

    fn install(&mut self) -> Result<Exit, Failure> {
        self.guard()?;
        if !self.unit.manifests.is_dir() {
            let text = format!("there is no folder {}", self.unit.manifests.display());
            return Err(Failure::new(Exit::Error, text).hint("'trueup init' starts one; -f names another"));
        }
        let text = self.unit.text();
        let fresh = self.found.is_none();
        let changed = self.found.as_deref() != Some(&text);
        if self.dry_run {
            self.say("wouldWrite", &format!("# {}\n{text}", self.path.display()), &json!({ "text": text }));
        } else if changed {
            self.write(&text)?;
            let path = self.path.display();
            let line = if fresh { format!("wrote {path}") } else { format!("wrote {path} anew") };
            self.say("written", &line, &json!({}));
        } else {
            let line = format!("kept  {}, which is as it should be", self.path.display());
            self.say("unchanged", &line, &json!({}));
        }
        if !self.dry_run && !self.manager.there() {
            return Err(Failure::new(Exit::Error, "the unit is written, and there is no systemd here to enable it")
                .hint(
                    "this machine was not started by systemd, or this is a container; run 'trueup reconcile' yourself",
                ));
        }
        if changed || self.dry_run {
            self.order(&["daemon-reload"])?;
        }
        let up = !self.dry_run && self.manager.says("is-enabled", &self.name)? == "enabled";
        let up = up && self.manager.says("is-active", &self.name)? == "active";
        if !up {
            self.order(&["enable", "--now", &self.name.clone()])?;
        } else if changed {
            // Harmless for modules: only the daemon is replaced.
            self.order(&["restart", &self.name.clone()])?;
        } else {
            self.say("running", &format!("{} is enabled and runs; nothing to do", self.name), &json!({}));
        }
        if self.unit.scope == Scope::User {
            let note = "it runs while you are logged in; 'loginctl enable-linger' makes it start with the machine";
            self.say("note", note, &json!({ "message": note }));
        }
        Ok(Exit::Done)
    }

    fn uninstall(&mut self) -> Result<Exit, Failure> {
        if self.found.is_none() {
            let line = format!("{} is not installed; nothing to do", self.name);
            self.say("absent", &line, &json!({}));
            return Ok(Exit::Done);
        }
        self.guard()?;
        let there = self.manager.there();
        if there || self.dry_run {
            self.order(&["disable", "--now", &self.name.clone()])?;
        }
        if self.dry_run {
            self.say("wouldRemove", &format!("would remove {}", self.path.display()), &json!({}));
        } else {
            fs::remove_file(&self.path).with_context(|| format!("{} cannot be removed", self.path.display()))?;
            self.say("removed", &format!("removed {}", self.path.display()), &json!({}));
        }
        if there || self.dry_run {
            self.order(&["daemon-reload"])?;
        }
        let note = "modules run on; 'trueup down' stops them";
        self.say("note", note, &json!({ "message": note }));
        Ok(Exit::Done)
    }

    fn status(&mut self) -> Result<Exit, Failure> {
        let text = self.unit.text();
        let owner = self.found.as_deref().map(|found| self.unit.owner(found));
        let installed = match (&owner, self.found.as_deref() == Some(&text)) {
            (None, _) => "no",
            (Some(Owner::Ours), true) => "yes",
            (Some(Owner::Ours), false) => "yes, and 'trueup service install' would write it anew",
            (Some(Owner::OtherTree(_)), _) => "for another tree",
            (Some(Owner::Stranger), _) => "not by trueup",
        };
        let there = self.manager.there();
        let ask = |verb: &str| -> Result<String, Failure> {
            if there { self.manager.says(verb, &self.name) } else { Ok("unknown, there is no systemd here".to_owned()) }
        };
        let (enabled, active) = (ask("is-enabled")?, ask("is-active")?);
        let lines = format!(
            "unit       {}\nfile       {}\ninstalled  {installed}\nenabled    {enabled}\nactive     {active}",
            self.name,
            self.path.display()
        );
        let current = self.found.as_deref() == Some(&text);
        let facts = json!({
            "installed": owner == Some(Owner::Ours), "current": current, "foreign": owner.is_some_and(|o| o != Owner::Ours),
            "enabled": there.then_some(enabled), "active": there.then_some(active),
        });
        self.say("status", &lines, &facts);
        Ok(Exit::Done)
    }

    /// A command to the service manager; in a dry run only said.
    fn order(&mut self, words: &[&str]) -> Result<(), Failure> {
        let command = self.manager.command(words);
        let shown = command.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
        if self.dry_run {
            self.say("wouldRun", &format!("would run {shown}"), &json!({ "command": shown }));
            return Ok(());
        }
        self.manager.run(&command)?;
        self.say("ran", &format!("ran   {shown}"), &json!({ "command": shown }));
        Ok(())
    }

    /// For people a line, for programs an object.
    fn say(&mut self, action: &str, line: &str, more: &serde_json::Value) {
        if self.screen.is_text() {
            self.screen.out(&format!("{}\n", line.trim_end()));
            return;
        }
        let mut object = json!({ "type": "service", "action": action, "unit": self.name, "file": self.path });
        if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
            object.extend(more.clone());
        }
        write_data(self.screen, &object);
    }

    /// The old file or the new one, never half of one.
    fn write(&self, text: &str) -> Result<(), Failure> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).with_context(|| format!("the folder {} could not be made", folder.display()))?;
        let mut new = OsString::from(".");
        new.push(&self.name);
        new.push(".new");
        let new = folder.join(new);
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|error| {
            let hint = match (error.kind(), self.unit.scope) {
                (ErrorKind::PermissionDenied, Scope::System) => Some("as root, or with --user".to_owned()),
                _ => None,
            };
            let error = anyhow::Error::from(error).context(format!("{} cannot be written", self.path.display()));
            Failure { exit: Exit::Error, error, hint }
        })
    }
}
