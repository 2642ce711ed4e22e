//! `import`: manifests made of what another hub has. What is there already is only read.

mod check;
mod note;
mod old;
mod parachute;
mod yaml;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand, ValueHint};
use serde_json::{Value, json};

use self::note::{Level, Note};
use self::old::{EnvFile, Home};
use self::parachute::{Translation, manifest_of, shorts_of, translate};
use super::args::Global;
use super::exit::Failure;
use super::names;
use super::render::human::count;
use super::render::printable;
use super::render::screen::Screen;
use super::render::show::write_data;
use crate::kinds::service::inputs::env_file;
use crate::kinds::service::module::{self, ModuleFault};
use crate::model::exit::Exit;
use crate::model::id::KindName;
use crate::model::output::{Line, Summary};
use crate::model::source::SourceFile;

/// No file of a home is larger; what is, is something else.
const MOST_BYTES: u64 = 4 << 20;
/// Files of a home that hold something which is not taken over.
const UNREAD: [&str; 3] = ["hub.db", "operator.token", "agent-grants.json"];

/// Arguments of `import`.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_long_help = "\
Examples:
  trueup import parachute ~/.parachute --dry-run    show what would be written, and what is to be known
  trueup import parachute ~/.parachute              write manifests/*.yaml")]
pub struct Import {
    #[command(subcommand)]
    pub from: From,
}

/// From what.
#[derive(Debug, Subcommand)]
pub enum From {
    /// From the home of a Parachute hub: its services, vaults and connections
    Parachute(Parachute),
}

/// Arguments of `import parachute`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  trueup import parachute ~/.parachute --dry-run
  trueup import parachute ~/.parachute --to manifests
  trueup plan                                       look at what would happen, then stop the older hub
  trueup reconcile --once

It reads services.json, connections.json, the modules' module.json and the names of their .env files, and changes
nothing there. Files that are there already are never written over (exit code 4). What cannot be taken over
stands in the manifests as a comment, and is told with its place (exit code 7).")]
pub struct Parachute {
    /// The home of the older hub
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// The folder to write to [default: the one of --manifests]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: Option<PathBuf>,
    /// Print the manifests; write nothing
    #[arg(long)]
    pub dry_run: bool,
}

pub fn run(args: &Import, global: &Global, screen: &mut Screen) -> Result<Exit, Failure> {
    let From::Parachute(args) = &args.from;
    let to = args.to.as_deref().unwrap_or(&global.manifests);
    let mut notes = Vec::new();
    let home = read(&args.dir, &mut notes)?;
    if !args.dry_run {
        guard(&home.folder, to)?;
    }
    let made = translate(&home, notes);
    for (name, text) in &made.files {
        let path = to.join(name);
        if args.dry_run {
            say(screen, &path, "wouldWrite", Some(text));
        }
    }
    if !args.dry_run {
        write_all(to, &made)?;
        made.files.iter().for_each(|(name, _)| say(screen, &to.join(name), "wrote", None));
    }
    screen.flush();
    tell(&made, screen);
    let left_out = made.notes.iter().filter(|note| note.level == Level::LeftOut).count();
    if screen.is_text() {
        screen.out(&ending(&made, left_out, to, args.dry_run, &args.dir));
    } else {
        let summary = Summary { resources: made.resources, failed: left_out, ..Summary::default() };
        write_data(screen, &Line::Summary(summary));
    }
    Ok(if left_out > 0 { Exit::Partial } else { Exit::Done })
}

fn say(screen: &mut Screen, path: &Path, what: &str, text: Option<&String>) {
    if !screen.is_text() {
        return write_data(screen, &json!({ "type": "file", "path": path, "action": what, "text": text }));
    }
    match text {
        Some(text) => screen.out(&format!("# {}\n{}\n", path.display(), printable::output(text))),
        None => screen.out(&format!("{what} {}\n", path.display())),
    }
}

fn tell(made: &Translation, screen: &mut Screen) {
    for note in &made.notes {
        if screen.is_text() {
            let word = match note.level {
                Level::LeftOut => "left out",
                Level::Warning => "warning",
                Level::Note => "note",
            };
            let at = if note.at.is_empty() { String::new() } else { format!("{}: ", printable::line(&note.at)) };
            screen.err(&format!("{at}{word}: {}\n", printable::line(&note.message)));
        } else {
            let Note { level, at, message } = note;
            write_data(screen, &json!({ "type": "importNote", "level": level, "source": at, "message": message }));
        }
    }
}

fn ending(made: &Translation, left_out: usize, to: &Path, dry: bool, from: &Path) -> String {
    let resources = count(made.resources as u64, "resource");
    let left = match left_out {
        0 => "nothing was left out".to_owned(),
        some => format!("{} left out", count(some as u64, "thing")),
    };
    if dry {
        return format!("{resources} would be written, {left}; {} is as it was\n", from.display());
    }
    let flag = if to == Path::new("manifests") { String::new() } else { format!(" -f {}", to.display()) };
    format!(
        "{resources}, {left}; {} is as it was\n\nNext:\n  1. trueup plan{flag}              see what would happen\n  \
         2. stop the older hub: its modules have the ports\n  3. trueup reconcile --once{flag}  make it so\n",
        from.display()
    )
}

/// Reads what matters of the home, and only reads.
fn read(dir: &Path, notes: &mut Vec<Note>) -> Result<Home, Failure> {
    let folder = std::path::absolute(dir).with_context(|| format!("{} cannot be named", dir.display()))?;
    let services = text_of(&folder.join("services.json"));
    let services = match services {
        Ok(file) => file,
        Err(ModuleFault::Missing) => {
            let failure = Failure::new(Exit::Error, format!("{} is no home of a Parachute hub", dir.display()));
            return Err(failure.hint("such a folder has a services.json; it is ~/.parachute by default"));
        }
        Err(fault) => {
            return Err(Failure::new(Exit::Error, format!("{}/services.json {}", dir.display(), why(&fault))));
        }
    };
    let mut home = Home { rows: old::rows(&services, notes), folder, ..Home::default() };
    let connections = home.folder.join("connections.json");
    match text_of(&connections) {
        Ok(file) => home.records = old::records(&file, notes),
        Err(ModuleFault::Missing) => {}
        Err(fault) => notes.push(Note::new(Level::LeftOut, connections.display().to_string(), why(&fault))),
    }
    for row in &home.rows {
        let Some(path) = manifest_of(&home.folder, &row.what) else { continue };
        let read = text_of(&path).and_then(|source| {
            let parsed = module::parse(&source).map(Arc::new);
            parsed.map_err(|problems| ModuleFault::Invalid { source, problems })
        });
        home.modules.insert(path, read);
    }
    let mut envs = Vec::new();
    for row in &home.rows {
        let path = manifest_of(&home.folder, &row.what);
        let module = path.and_then(|path| home.modules.get(&path)?.as_deref().ok());
        let shorts = shorts_of(&row.what, module);
        let found = shorts.iter().find_map(|short| Some((short, text_of(&home.folder.join(short).join(".env")).ok()?)));
        if let Some((_, file)) = found {
            let bad = env_file(&file.text).err().unwrap_or_default().iter().map(|line| line.line).collect();
            let path = file.path;
            envs.extend(shorts.into_iter().map(|short| (short, EnvFile { path: path.clone(), bad: Vec::clone(&bad) })));
        }
    }
    home.envs = envs.into_iter().collect();
    home.origin = text_of(&home.folder.join("expose-state.json")).ok().and_then(|file| origin(&file.text));
    home.unread = UNREAD.into_iter().filter(|name| home.folder.join(name).exists()).collect();
    Ok(home)
}

/// The origin under which the older hub was exposed.
fn origin(text: &str) -> Option<String> {
    let state: Value = serde_json::from_str(text).ok()?;
    let origin = state.get("hubOrigin")?.as_str()?.trim_end_matches('/');
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))?;
    (!host.is_empty() && !host.contains(['/', ' '])).then(|| origin.to_owned())
}

fn text_of(path: &Path) -> Result<SourceFile, ModuleFault> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => ModuleFault::Missing,
        _ => ModuleFault::Unreadable(error.to_string()),
    };
    // Opening a FIFO would wait for whoever writes to it.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(ModuleFault::Unreadable("it is no file".to_owned()));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(ModuleFault::Unreadable(format!("it is larger than {} MiB", MOST_BYTES >> 20)));
    }
    Ok(SourceFile { shown: path.to_string_lossy().into(), path: path.to_owned(), text: text.into() })
}

fn why(fault: &ModuleFault) -> String {
    match fault {
        ModuleFault::Unreadable(why) => format!("cannot be read: {why}"),
        ModuleFault::Missing | ModuleFault::Invalid { .. } => "is not there".to_owned(),
    }
}

/// Refuses a place where the import would write over something, or into the home itself.
fn guard(home: &Path, to: &Path) -> Result<(), Failure> {
    let home = fs::canonicalize(home).with_context(|| format!("{} cannot be named", home.display()))?;
    let mut ahead = std::path::absolute(to).with_context(|| format!("{} cannot be named", to.display()))?;
    // The folder may not be there yet: what counts is where it would be made.
    let mut missing = Vec::new();
    let real = loop {
        match fs::canonicalize(&ahead) {
            Ok(real) => break real,
            Err(_) => match ahead.file_name().map(ToOwned::to_owned) {
                Some(name) if ahead.pop() => missing.push(name),
                _ => break ahead.clone(),
            },
        }
    };
    let real = missing.into_iter().rev().fold(real, |path, name| path.join(name));
    if real.starts_with(&home) {
        let text = format!("{} is inside of {}, which an import does not touch", to.display(), home.display());
        return Err(Failure::new(Exit::Refused, text).hint("name another folder with --to"));
    }
    if names::heads(to).iter().any(|head| head.kind == KindName::Hub.as_str()) {
        let failure =
            Failure::new(Exit::Refused, format!("{} has a Hub already, and a tree has exactly one", to.display()));
        return Err(failure.hint("name another folder with --to, or look at what it would be with --dry-run"));
    }
    Ok(())
}

/// All files or none.
fn write_all(to: &Path, made: &Translation) -> Result<(), Failure> {
    let there: Vec<String> = made
        .files
        .iter()
        .map(|(name, _)| to.join(name))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(taken(&there.join(", ")));
    }
    fs::create_dir_all(to).with_context(|| format!("the folder {} could not be made", to.display()))?;
    let mut written: Vec<PathBuf> = Vec::new();
    for (name, text) in &made.files {
        let path = to.join(name);
        let result = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
            written.push(path.clone());
            file.write_all(text.as_bytes())
        });
        if let Err(error) = result {
            for path in &written {
                let _ = fs::remove_file(path);
            }
            if error.kind() == ErrorKind::AlreadyExists {
                return Err(taken(&path.display().to_string()));
            }
            return Err(anyhow::Error::from(error).context(format!("{} could not be written", path.display())).into());
        }
    }
    Ok(())
}

fn taken(files: &str) -> Failure {
    Failure::new(Exit::Refused, format!("there already: {files}"))
        .hint("an import writes over nothing; name another folder with --to, or move the files away")
}
