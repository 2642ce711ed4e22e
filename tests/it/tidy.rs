//! The house rules that a machine can hold: who may import whom, how long a room may be, that every file says what it is for,
//! and that no test file is forgotten.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Room to the rooms it may import. A longer prefix wins over a shorter one.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &["model"]),
    ("document", &["model", "document"]),
    ("ports", &["model", "ports"]),
    ("kinds", &["model", "document", "ports", "kinds"]),
    ("desired", &["model", "document", "kinds", "desired", "ports"]),
    ("plan", &["model", "document", "kinds", "desired", "ports", "plan"]),
    ("engine", &["model", "document", "ports", "kinds", "desired", "plan", "engine"]),
    ("keeper", &["model", "ports", "keeper"]),
    ("storage", &["model", "ports", "storage"]),
    ("delivery", &["model", "ports", "delivery"]),
    ("authority", &["model", "ports", "authority"]),
    ("hub", &["model", "ports", "authority", "hub"]),
    ("adapters", &["model", "ports", "keeper", "adapters"]),
    ("demo", &["model", "adapters", "demo"]),
    ("cli", &["model", "document", "desired", "kinds", "cli"]),
    (
        "daemon",
        &[
            "model",
            "document",
            "ports",
            "kinds",
            "desired",
            "plan",
            "engine",
            "keeper",
            "storage",
            "delivery",
            "authority",
            "hub",
            "adapters",
            "demo",
            "cli",
            "daemon",
        ],
    ),
    ("sim", &["model", "ports", "keeper", "storage", "engine", "sim"]),
    ("main.rs", &["cli", "daemon"]),
];

/// Files that hold decisions: they may use the plain data of `ports`, and none of its verbs.
const PURE: &[&str] = &["spec.rs", "plan.rs", "inputs.rs", "module.rs"];
const VERBS: &[&str] = &["World", "Look", "Hand", "dyn ", "async fn", "tokio", "std::fs", "std::env", "HashMap"];

const LINES_HARD: usize = 800;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("the folder is ours").flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}

/// Code without comments and without what follows `#[cfg(test)]` (tests may reach anywhere).
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    body.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn imports(code: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let inside = group.split('}').next().unwrap_or_default();
            let heads = inside.split(',').map(|p| p.trim().split([':', ' ']).next().unwrap_or_default().to_owned());
            out.extend(heads.filter(|h| !h.is_empty()));
        } else {
            out.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    out
}

#[test]
fn rooms_import_only_what_the_map_allows() {
    let src = root().join("src");
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in rust_files(&src) {
        let relative = file.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
        let room = relative.split('/').next().unwrap_or_default();
        if relative == "lib.rs" || relative.ends_with("tests.rs") || relative.contains("/tests/") {
            continue;
        }
        let Some(allowed) = arrows.get(room) else {
            wrong.push(format!("{relative}: the room '{room}' is not on the map"));
            continue;
        };
        let code = code(&fs::read_to_string(&file).expect("a source file"));
        for import in imports(&code) {
            if !allowed.contains(&import.as_str()) {
                wrong.push(format!("{relative}: imports {import}"));
            }
        }
        let name = relative.rsplit('/').next().unwrap_or_default();
        if room == "kinds" && PURE.contains(&name) {
            wrong.extend(
                VERBS.iter().filter(|v| code.contains(**v)).map(|v| format!("{relative}: is pure and uses {v}")),
            );
        }
        if ["model", "document", "desired", "plan"].contains(&room) && code.contains("tokio") {
            wrong.push(format!("{relative}: is pure and uses tokio"));
        }
    }
    assert!(wrong.is_empty(), "imports against the map in ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_stays_readable() {
    let mut wrong = Vec::new();
    for dir in ["src", "tests/it"] {
        for file in rust_files(&root().join(dir)) {
            let text = fs::read_to_string(&file).expect("a source file");
            if !text.starts_with("//!") {
                wrong.push(format!("{}: does not open with a `//!` sentence", file.display()));
            }
            let lines = text.lines().count();
            if lines > LINES_HARD {
                wrong.push(format!("{}: {lines} lines, more than {LINES_HARD}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_file_is_forgotten() {
    let dir = root().join("tests/it");
    let main = fs::read_to_string(dir.join("main.rs")).expect("main.rs");
    for entry in fs::read_dir(&dir).expect("tests/it").flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        assert!(name == "main" || main.contains(&format!("mod {name};")), "tests/it/{name} is not in main.rs");
    }
}

#[test]
fn the_map_names_every_room() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for entry in fs::read_dir(root().join("src")).expect("src").flatten().filter(|e| e.path().is_dir()) {
        let room = format!("`{}/`", entry.file_name().to_string_lossy());
        assert!(map.contains(&room), "ARCHITECTURE.md has no row for {room}");
    }
}
