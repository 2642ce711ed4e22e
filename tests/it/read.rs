//! Properties of reading: no text makes it panic, every problem stands where it says, and what was read and written
//! reads back the same.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};
use trueup::cli::render::problem::render;
use trueup::desired::{Desired, Input, LastGood, Manifest};
use trueup::document::Document;
use trueup::kinds::Spec;
use trueup::kinds::schema::{any_schema, schema, schemas};
use trueup::kinds::service::module;
use trueup::model::id::KindName;
use trueup::model::problem::Problem;
use trueup::model::source::SourceFile;

fn file(text: &str) -> SourceFile {
    SourceFile { shown: "a.yaml".into(), path: "/tree/a.yaml".into(), text: text.into() }
}

/// Line and column agree with the offset, and the offsets with the file.
fn stands_in_its_file(problem: &Problem, text: &str) {
    for label in &problem.labels {
        let span = &label.span;
        let (start, end) = (span.start as usize, span.end as usize);
        assert!(start <= end && end <= text.len(), "{span:?} of {} bytes", text.len());
        assert!(text.is_char_boundary(start) && text.is_char_boundary(end), "{span:?}");
        if (start, end) == (0, 0) {
            continue;
        }
        let before = text[..start].trim_start_matches('\u{feff}');
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        // Byte-order marks are trimmed above even where they are text, so only the lines behind the first are compared.
        if line > 1 || !text.starts_with('\u{feff}') {
            assert_eq!((span.line as usize, span.column as usize), (line, column), "{problem:?}");
        }
    }
}

/// Reads a text in every way there is. It must not panic, and what it says must hold.
pub fn read_everything(text: &str) {
    let source = file(text);
    let manifest = Arc::new(Manifest::read(&source, schemas()));
    for problem in &manifest.problems {
        stands_in_its_file(problem, text);
    }
    for entry in &manifest.entries {
        let document = &entry.document;
        let stored = Document::from_stored(&document.json, "/tree".into(), &document.origin.to_string());
        let stored = stored.expect("what was written reads back");
        assert_eq!((&stored.id, &stored.json), (&document.id, &document.json));
        assert_eq!(Spec::read(&stored, &mut Vec::new()).as_ref(), Some(&entry.spec));
    }
    let root: Arc<str> = "tree".into();
    let last_good: Vec<LastGood> = manifest
        .entries
        .iter()
        .map(|entry| LastGood {
            id: entry.document.id.clone(),
            document: entry.document.json.clone(),
            base: "/tree".into(),
            source: "a.yaml:1:1".into(),
            module: None,
            refused: None,
        })
        .collect();
    let modules = module::Modules::new();
    let desired = Desired::link(Input {
        root: &root,
        manifests: &[manifest],
        problems: &[],
        modules: &modules,
        last_good: &last_good,
    });
    for problem in &desired.problems {
        let shown = render(problem, &desired.sources, false);
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }
    match module::parse(&source) {
        Ok(_) => {}
        Err(problems) => problems.iter().for_each(|problem| stands_in_its_file(problem, text)),
    }
}

/// Texts that people wrote or that once broke something.
fn seeds() -> &'static [String] {
    static SEEDS: OnceLock<Vec<String>> = OnceLock::new();
    SEEDS.get_or_init(read_seeds)
}

fn read_seeds() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut all = Vec::new();
    for folder in ["fuzz-corpus", "bad"] {
        let mut files: Vec<_> =
            fs::read_dir(root.join(folder)).expect(folder).map(|entry| entry.expect("listed").path()).collect();
        files.sort();
        for path in files.iter().filter(|path| path.is_file() && path.extension().is_none_or(|suffix| suffix != "txt"))
        {
            all.push(String::from_utf8_lossy(&fs::read(path).expect("a seed")).into_owned());
        }
    }
    all
}

#[test]
fn every_seed_is_read_without_harm() {
    let seeds = seeds();
    assert!(seeds.len() > 100, "{} seeds", seeds.len());
    seeds.iter().for_each(|seed| read_everything(seed));
}

/// A change to a text: at a place, so many characters away, this instead.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    let bits = prop::sample::select(vec![
        "",
        "\n",
        " ",
        "\t",
        "- ",
        ": ",
        ":",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"",
        "'",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "? ",
        "|\n",
        ">-\n",
        "---\n",
        "...\n",
        "%TAG",
        "#",
        "\\",
        "\0",
        "\u{1b}",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "ä",
        "日",
        "~",
        "null",
        "yes",
        "0x1",
        "1.5",
        "<<<<<<< a\n",
        "=======\n",
        ">>>>>>> b\n",
        "x-a: ",
        "\r",
        "\r\n",
        "@",
        "`",
        "\"\\x\"",
    ]);
    (any::<prop::sample::Index>(), 0_usize..12, bits.prop_map(str::to_owned))
}

fn changed(mut text: String, changes: &[(prop::sample::Index, usize, String)]) -> String {
    for (at, away, instead) in changes {
        let mut start = at.index(text.len() + 1);
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (start + away).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        text.replace_range(start..end, instead);
    }
    text
}

/// So many cases as `PROPTEST_CASES` says; without it a few hundred.
fn config(cases: u32) -> ProptestConfig {
    const UNASKED: u32 = 256;
    let asked = ProptestConfig::default().cases;
    let cases = if asked == UNASKED { cases } else { asked };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..400)) {
        read_everything(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_of_yaml_marks_makes_it_panic(text in "([a-c ]|[-:\\[\\]{},#&*!|>'\"%@`?<~]|\n|\n  |\t|é|---\n|\\.\\.\\.\n){0,120}") {
        read_everything(&text);
    }

    #[test]
    fn no_changed_manifest_makes_it_panic(seed in any::<prop::sample::Index>(), changes in vec(change(), 1..6)) {
        let seeds = seeds();
        read_everything(&changed(seeds[seed.index(seeds.len())].clone(), &changes));
    }
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        "[ -~]{0,12}",
        "\\PC{0,6}",
        Just("no".to_owned()),
        Just("1.10".to_owned()),
        Just("null".to_owned())
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?"
}

fn duration() -> impl Strategy<Value = Value> {
    (1_u32..100_000, prop::sample::select(vec!["ms", "s", "m", "h"]))
        .prop_map(|(count, unit)| json!(format!("{count}{unit}")))
}

/// A Service that means something: its spec as JSON.
fn service_spec() -> impl Strategy<Value = Value> {
    let command = vec("[a-z/.-]{1,10}", 1..4);
    let env = btree_map("[A-OQ-Z_][A-Z0-9_]{0,8}", words(), 0..4);
    let port = prop_oneof![Just(json!("auto")), (1_u16..).prop_map(|port| json!(port))];
    let readiness = prop_oneof![
        Just(json!({ "tcp": {} })),
        duration()
            .prop_map(|period| json!({ "http": { "path": "/health", "headers": { "X-A": "1" } }, "period": period })),
        Just(json!({ "exec": { "command": ["check"] }, "failureThreshold": 9 })),
        Just(Value::Null),
    ];
    let secrets = btree_map(
        "[A-Z]{9}",
        prop_oneof![Just(json!({ "file": "a" })), Just(json!({ "env": "B" })), Just(json!({ "command": ["c"] }))],
        0..3,
    );
    let more = (duration(), any::<bool>(), prop::option::of(1_u32..50), vec("/[a-z]{1,6}", 0..1));
    (command, env, port, readiness, secrets, more).prop_map(|(command, env, port, readiness, secrets, (grace, suspend, keep, routes))| {
        let routes: Vec<Value> = routes.iter().map(|path| json!({ "path": path, "exposure": "auth-required" })).collect();
        json!({
            "command": command, "env": env, "port": port, "readiness": readiness, "secretEnv": secrets,
            "stop": { "grace": grace, "signal": "SIGINT" }, "suspend": suspend, "logs": { "keep": keep, "maxSize": "1MiB" },
            "routes": routes, "restart": { "policy": "on-failure", "backoff": { "initial": "1s", "max": "9m", "factor": 3 } },
        })
    })
}

fn service() -> impl Strategy<Value = Value> {
    (name(), service_spec(), btree_map("[a-z]{1,6}", "[a-z0-9]{0,6}", 0..3)).prop_map(|(name, spec, labels)| {
        json!({ "apiVersion": "trueup/v1", "kind": "Service", "metadata": { "name": name, "labels": labels }, "spec": spec })
    })
}

/// Without what says nothing: entries that are null.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Changes one value somewhere in a document.
fn disturbed(value: &mut Value, at: usize, instead: &Value) {
    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Object(map) => map.values().map(count).sum::<usize>(),
            Value::Array(items) => items.iter().map(count).sum(),
            _ => 0,
        }
    }
    fn walk(value: &mut Value, left: &mut usize, instead: &Value) -> bool {
        if *left == 0 {
            *value = instead.clone();
            return true;
        }
        *left -= 1;
        match value {
            Value::Object(map) => map.values_mut().any(|inner| walk(inner, left, instead)),
            Value::Array(items) => items.iter_mut().any(|inner| walk(inner, left, instead)),
            _ => false,
        }
    }
    let mut left = at % count(value);
    walk(value, &mut left, instead);
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(70000)),
        Just(json!(1.5)),
        Just(json!(true)),
        Just(json!("")),
        Just(json!("5s")),
        Just(json!("a b")),
        Just(json!([])),
        Just(json!(["a"])),
        Just(json!([1])),
        Just(json!({})),
        Just(json!({ "a": "b" })),
        Just(json!("auto")),
        Just(json!({ "file": "a", "env": "b" })),
        Just(json!({ "path": "/a" })),
        Just(Value::Null),
    ]
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn what_is_read_and_written_reads_back_the_same(document in service()) {
        let text = serde_json::to_string_pretty(&document).expect("JSON");
        let first = Manifest::read(&file(&text), schemas());
        prop_assert_eq!(&first.problems, &vec![], "{}", text);
        let entry = &first.entries[0];
        prop_assert_eq!(serde_json::from_str::<Value>(&entry.document.json).expect("JSON"), without_nulls(&document));
        let second = Manifest::read(&file(&entry.document.json), schemas());
        prop_assert_eq!(&second.entries[0].document.json, &entry.document.json);
        prop_assert_eq!(&second.entries[0].spec, &entry.spec);
        // The typed spec, with every default written out, says the same as well.
        let full = json!({ "apiVersion": "trueup/v1", "kind": "Service", "metadata": { "name": entry.document.id.name },
            "spec": entry.spec.as_service() });
        let third = Manifest::read(&file(&full.to_string()), schemas());
        prop_assert_eq!(&third.problems, &vec![], "{}", full);
        prop_assert_eq!(&third.entries[0].spec, &entry.spec);
    }

    /// Our checker and a validator that is not ours agree, in both directions.
    #[test]
    fn the_checker_agrees_with_jsonschema(mut document in service(), at in 0_usize..200, instead in any_value()) {
        disturbed(&mut document, at, &instead);
        static VALIDATOR: LazyLock<jsonschema::Validator> =
            LazyLock::new(|| jsonschema::validator_for(&schema(KindName::Service)).expect("the schema compiles"));
        let validator = &*VALIDATOR;
        let parsed = trueup::document::parse(&file(&document.to_string()), schemas());
        if let Some(read) = parsed.documents.first() {
            let value: Value = serde_json::from_str(&read.json).expect("JSON");
            prop_assert!(validator.is_valid(&value), "we took {} and they refuse it", value);
        }
        // Null is taken for an optional field and not for an entry of `env`; a validator has no word for that.
        if !instead.is_null() && validator.is_valid(&without_nulls(&document)) {
            prop_assert_eq!(&parsed.problems, &vec![], "they take {}", document);
        }
    }
}

#[test]
fn the_published_schemas_tell_good_from_bad() {
    let good = [
        json!({ "apiVersion": "trueup/v1", "kind": "Hub", "metadata": { "name": "home" } }),
        json!({ "apiVersion": "trueup/v1", "kind": "Service", "metadata": { "name": "web" }, "x-note": [1], "spec": { "command": ["a"], "port": "auto" } }),
    ];
    let bad = [
        json!({ "apiVersion": "trueup/v1", "kind": "Hub", "metadata": { "name": "home" }, "spec": { "listne": "x" } }),
        json!({ "apiVersion": "trueup/v1", "kind": "Service", "metadata": { "name": "Web" }, "spec": { "command": ["a"] } }),
        json!({ "apiVersion": "trueup/v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "secretEnv": { "A": { "file": "a", "env": "b" } } } }),
        json!({ "apiVersion": "trueup/v2", "kind": "Service", "metadata": { "name": "web" }, "spec": {} }),
    ];
    let any = jsonschema::validator_for(&any_schema()).expect("the schema compiles");
    for document in &good {
        assert!(any.is_valid(document), "{document}");
        let kind: KindName = document["kind"].as_str().expect("a kind").parse().expect("known");
        assert!(jsonschema::validator_for(&schema(kind)).expect("compiles").is_valid(document));
    }
    for document in &bad {
        assert!(!any.is_valid(document), "{document}");
    }
}
