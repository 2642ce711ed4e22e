//! `init`: a folder of manifests to start from. Nothing that is there already is touched.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::args;
use super::engine::Wiring;
use super::exit::Failure;
use super::names;
use super::render::screen::Screen;
use super::render::show::write_data;
use crate::model::exit::Exit;
use crate::model::id::KindName;

const HUB: &str = include_str!("init/hub.yaml");
const EXAMPLE: &str = include_str!("init/example.yaml");

pub fn run(
    args: &args::Init,
    global: &args::Global,
    wiring: &dyn Wiring,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let dir = args.dir.as_deref().unwrap_or(&global.manifests);
    fs::create_dir_all(dir).with_context(|| format!("the folder {} could not be made", dir.display()))?;
    let has_hub = names::heads(dir).iter().any(|head| head.kind == KindName::Hub.as_str());
    for (name, text) in [("hub.yaml", HUB), ("example.yaml", EXAMPLE)] {
        let path = dir.join(name);
        let wanted = name != "hub.yaml" || !has_hub;
        let written = wanted && write_new(&path, text)?;
        if !screen.is_text() {
            write_data(screen, &serde_json::json!({"type": "file", "path": path, "written": written}));
        } else if written {
            screen.out(&format!("wrote {}\n", path.display()));
        } else if wanted {
            screen.out(&format!("kept  {}, which was there already\n", path.display()));
        } else {
            screen.out(&format!("kept  the Hub that {} has already\n", dir.display()));
        }
    }
    let neighbour = neighbour(dir, global, wiring)?;
    if let Some(neighbour) = &neighbour {
        let text = format!(
            "warning: the state folder beside {} belongs to the tree {}; a second tree needs a state folder of its own\n",
            dir.display(),
            neighbour.display()
        );
        screen.err(&text);
    }
    if screen.is_text() {
        screen.out(&next(dir, neighbour.is_some()));
    }
    Ok(Exit::Done)
}

/// The other tree that uses the state folder of this one.
fn neighbour(dir: &Path, global: &args::Global, wiring: &dyn Wiring) -> Result<Option<PathBuf>, Failure> {
    let place = super::place_of(dir, global.state.as_deref())?;
    let real = |path: &Path| fs::canonicalize(path).ok();
    Ok(wiring.tree_of(&place.state).filter(|tree| real(tree) != real(dir)))
}

fn next(dir: &Path, needs_state: bool) -> String {
    let mut flag = if dir == Path::new("manifests") { String::new() } else { format!(" -f {}", dir.display()) };
    if needs_state {
        flag.push_str(&format!(" --state {}", super::own_state(dir).display()));
    }
    let example = dir.join("example.yaml");
    format!(
        "\nNext:\n  1. put a service into {}\n  2. trueup plan{flag}              see what would happen\n  \
         3. trueup reconcile --once{flag}  make it so\n",
        example.display()
    )
}

/// Writes the file if there is none. Says whether it wrote.
fn write_new(path: &Path, text: &str) -> Result<bool, Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        other => other.with_context(|| format!("{} could not be made", path.display()))?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("{} could not be written", path.display()))?;
    Ok(true)
}
