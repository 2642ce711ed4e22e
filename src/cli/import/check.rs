//! What an import wrote, read as every command will read it. A document with a mistake is written as a comment, with the reason: nothing
//! invalid comes out of an import. Pure.

use std::sync::Arc;

use super::note::{Level, Note};
use super::old::Home;
use super::parachute::Translation;
use super::yaml::Draft;
use crate::desired::{Desired, Input, Manifest};
use crate::kinds::schema::schemas;
use crate::model::problem::{Problem, Severity};
use crate::model::source::SourceFile;

/// The file of each kind.
const FILES: [(&str, &str); 4] =
    [("Hub", "hub.yaml"), ("Service", "services.yaml"), ("Vault", "vaults.yaml"), ("Connection", "connections.yaml")];

const HEAD: &str =
    "# Written by 'trueup import parachute'. Every document says which line of the older hub it comes from.\n";

/// A file, and where its documents begin (lines from 1).
struct Rendered {
    name: &'static str,
    text: String,
    /// First line and index of each draft in it.
    begins: Vec<(u32, usize)>,
}

/// Takes out what is invalid, until nothing is.
pub fn settle(mut drafts: Vec<Draft>, mut notes: Vec<Note>, home: &Home) -> Translation {
    // Each round takes out at least one.
    for _ in 0..=drafts.len() {
        let files = render(&drafts);
        let problems = problems(&files, home);
        let mut again = false;
        for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
            let Some(index) = owner(&files, problem) else { continue };
            let draft = &mut drafts[index];
            if draft.left_out.is_none() && draft.kind != "Hub" {
                let at = draft.from.split(' ').next().unwrap_or_default().to_owned();
                let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                let id = format!("{}/{}", draft.kind, draft.name);
                let message = match problem.message.starts_with(&id) {
                    true => format!("{}{hint}", problem.message),
                    false => format!("{id}: {}{hint}", problem.message),
                };
                notes.push(Note::new(Level::LeftOut, at, message.clone()));
                draft.left_out = Some(format!("{}{hint}", problem.message));
                again = true;
            }
        }
        if !again {
            for problem in &problems {
                let mut at = problem.span().to_string();
                if let Some(index) = owner(&files, problem) {
                    at = drafts[index].from.split(' ').next().unwrap_or_default().to_owned();
                }
                notes.push(Note::new(Level::Warning, at, problem.message.clone()));
            }
            break;
        }
    }
    let files = render(&drafts).into_iter().map(|file| (file.name, file.text)).collect();
    let resources = drafts.iter().filter(|draft| draft.left_out.is_none()).count();
    notes.sort_by(|a, b| (a.level, a.place()).cmp(&(b.level, b.place())));
    Translation { files, notes, resources }
}

fn render(drafts: &[Draft]) -> Vec<Rendered> {
    let mut files = Vec::new();
    for (kind, name) in FILES {
        let mut file = Rendered { name, text: HEAD.to_owned(), begins: Vec::new() };
        for (index, draft) in drafts.iter().enumerate().filter(|(_, draft)| draft.kind == kind) {
            if !file.begins.is_empty() {
                file.text.push_str("---\n");
            }
            let line = file.text.matches('\n').count() + 1;
            file.begins.push((u32::try_from(line).unwrap_or(u32::MAX), index));
            file.text.push_str(&draft.text());
        }
        if !file.begins.is_empty() {
            files.push(file);
        }
    }
    files
}

fn problems(files: &[Rendered], home: &Home) -> Vec<Problem> {
    let manifests: Vec<Arc<Manifest>> = files
        .iter()
        .map(|file| {
            let path = home.folder.join(file.name);
            let source = SourceFile { shown: file.name.into(), path, text: file.text.as_str().into() };
            Arc::new(Manifest::read(&source, schemas()))
        })
        .collect();
    let root: Arc<str> = "".into();
    let input = Input { root: &root, manifests: &manifests, problems: &[], modules: &home.modules, last_good: &[] };
    Desired::link(input).problems
}

/// The draft in which a problem stands.
fn owner(files: &[Rendered], problem: &Problem) -> Option<usize> {
    let at = problem.span();
    let file = files.iter().find(|file| *file.name == *at.file)?;
    file.begins.iter().rev().find(|(line, _)| *line <= at.line).map(|(_, index)| *index)
}
