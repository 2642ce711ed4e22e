//! Broken manifests and what is said about them. Every message is a reviewed text: `UPDATE=1` rewrites the goldens, and
//! the difference is read like code.
//!
//! A case is `tests/bad/<case>.yaml` (a good Hub is added), or a folder `tests/bad/<case>/` with files, `modules/` and,
//! in `last-good/`, what was applied before. The answer stands in `tests/bad/<case>.problems.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trueup::cli::render::problem::render;
use trueup::desired::{Desired, Input, LastGood, Manifest, wanted_modules};
use trueup::kinds::schema::schemas;
use trueup::kinds::service::module::{self, ModuleFault, Modules};
use trueup::model::problem::Code;
use trueup::model::source::SourceFile;

const HUB: &str = "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\n";

/// Codes that reading and linking can raise. The others belong to the scan, to probes of the machine, and to plans.
const RAISED: [Code; 25] = [
    Code::NotATree,
    Code::Syntax,
    Code::UnknownField,
    Code::DuplicateKey,
    Code::WrongType,
    Code::OutOfRange,
    Code::MissingField,
    Code::LimitExceeded,
    Code::UnknownApiVersion,
    Code::UnknownKind,
    Code::Conflict,
    Code::DuplicateIdentity,
    Code::BadReference,
    Code::Cycle,
    Code::PortClash,
    Code::ManyHubs,
    Code::RouteClash,
    Code::RegistrationClash,
    Code::BadModule,
    Code::PlaceClash,
    Code::ManyStorages,
    Code::BackendInTree,
    Code::PlainEndpoint,
    Code::TooLarge,
    Code::Syntax,
];

/// Compares with a file, or rewrites it.
#[expect(clippy::disallowed_methods, reason = "a test asks its own environment")]
pub fn golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, actual).expect("the golden can be written");
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    let difference = similar::TextDiff::from_lines(&expected, actual).unified_diff().to_string();
    assert!(expected == actual, "{} differs; UPDATE=1 rewrites it\n{difference}", path.display());
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad")
}

fn source(path: &Path, base: &Path) -> SourceFile {
    let shown = path.strip_prefix(base).unwrap_or(path).display().to_string();
    let text = String::from_utf8_lossy(&fs::read(path).expect("the case can be read")).into_owned();
    SourceFile { shown: shown.into(), path: path.to_owned(), text: text.into() }
}

fn manifests(folder: &Path, base: &Path) -> Vec<Arc<Manifest>> {
    let Ok(listed) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        listed.map(|entry| entry.expect("listed").path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|path| Arc::new(Manifest::read(&source(path, base), schemas()))).collect()
}

fn modules(manifests: &[Arc<Manifest>], base: &Path) -> Modules {
    let read = |path: PathBuf| {
        let module = if path.is_file() {
            let source = source(&path, base);
            module::parse(&source).map(Arc::new).map_err(|problems| ModuleFault::Invalid { source, problems })
        } else {
            Err(ModuleFault::Missing)
        };
        (path, module)
    };
    wanted_modules(manifests).into_iter().map(read).collect()
}

fn desired(case: &Path) -> Desired {
    let base = folder();
    let root: Arc<str> = case.strip_prefix(&base).expect("below").display().to_string().into();
    let mut all;
    let mut last_good = Vec::new();
    if case.is_dir() {
        all = manifests(case, &base);
        for manifest in manifests(&case.join("last-good"), &base) {
            assert_eq!(manifest.problems, [], "what was applied before was good");
            last_good.extend(manifest.entries.iter().map(|entry| LastGood {
                id: entry.document.id.clone(),
                document: entry.document.json.clone(),
                base: case.to_owned(),
                source: entry.document.origin.to_string(),
                module: None,
                refused: None,
            }));
        }
    } else {
        let file = source(case, &base);
        all = Vec::new();
        if !file.text.contains("kind: Hub") {
            let hub = SourceFile { shown: "hub.yaml".into(), path: base.join("hub.yaml"), text: HUB.into() };
            all.push(Arc::new(Manifest::read(&hub, schemas())));
        }
        all.push(Arc::new(Manifest::read(&file, schemas())));
    }
    let modules = modules(&all, &base);
    Desired::link(Input { root: &root, manifests: &all, problems: &[], modules: &modules, last_good: &last_good })
}

/// The rendered problems, and below them what the tree comes to all the same.
fn answer(desired: &Desired) -> String {
    let mut text = String::new();
    for problem in &desired.problems {
        text.push_str(&render(problem, &desired.sources, false));
        text.push('\n');
    }
    text.push_str("used:");
    for id in &desired.order {
        let held = desired.resources[id].held.as_ref();
        text.push_str(&held.map_or_else(|| format!(" {id}"), |_| format!(" {id} (held)")));
    }
    text.push('\n');
    for (id, held) in desired.held() {
        let at = held.span.as_ref().map_or_else(|| "no place".to_owned(), ToString::to_string);
        text.push_str(&format!("held: {id}: {} ({at})\n", held.message));
    }
    text
}

fn cases() -> BTreeMap<String, PathBuf> {
    let listed = fs::read_dir(folder()).expect("tests/bad is there");
    let cases =
        listed.map(|entry| entry.expect("listed").path()).filter(|path| path.extension().is_none_or(|e| e != "txt"));
    cases.map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path)).collect()
}

#[test]
fn every_broken_manifest_is_explained() {
    let mut seen = Vec::new();
    let mut wrong = Vec::new();
    for (name, path) in cases() {
        let desired = desired(&path);
        assert!(!desired.problems.is_empty(), "{name} has no problem");
        seen.extend(desired.problems.iter().map(|problem| problem.code));
        let golden_path = folder().join(format!("{name}.problems.txt"));
        let check = std::panic::catch_unwind(|| golden(&golden_path, &answer(&desired)));
        if let Err(message) = check {
            wrong.push(message.downcast_ref::<String>().cloned().unwrap_or_default());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A file beyond the limit is made by a unit test instead of committed.
    let missing: Vec<&Code> = RAISED.iter().filter(|code| **code != Code::TooLarge && !seen.contains(code)).collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
}

#[test]
fn there_are_enough_cases_and_no_forgotten_answers() {
    let cases = cases();
    assert!(cases.len() >= 45, "{} cases", cases.len());
    for entry in fs::read_dir(folder()).expect("tests/bad is there") {
        let path = entry.expect("listed").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if let Some(case) = name.strip_suffix(".problems.txt") {
            assert!(cases.contains_key(case), "{name} has no case");
        }
    }
}
