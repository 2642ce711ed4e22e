//! Reading: places, limits, and hostile texts. What each mistake is called stands in `tests/bad`.

use serde_json::{Value, json};

use super::compose::{Composed, MAX_ALIASES, MAX_DEPTH, MAX_NODES, compose};
use super::node::{Node, NodeKind};
use super::schema::Checker;
use super::text::Text;
use super::*;

fn file(text: &str) -> SourceFile {
    SourceFile { shown: "a.yaml".into(), path: "/tree/a.yaml".into(), text: text.into() }
}

fn composed(text: &str) -> Vec<Composed> {
    let text = Text::new(&file(text));
    compose(&text, text.as_str())
}

/// A schema small enough to see through.
fn schemas() -> Schemas {
    let document = json!({
        "type": "object",
        "properties": {
            "apiVersion": { "const": "trueup/v1" },
            "kind": { "type": "string" },
            "metadata": {
                "type": "object",
                "properties": { "name": { "type": "string" }, "labels": { "type": "object" } },
                "required": ["name"]
            },
            "spec": {
                "type": "object",
                "properties": {
                    "text": { "type": "string" },
                    "texts": { "type": "array", "items": { "type": "string" } },
                    "number": { "type": "integer", "minimum": 0 },
                    "share": { "type": "number" },
                    "yes": { "type": "boolean" },
                    "map": { "type": "object", "additionalProperties": { "type": "string" } }
                },
                "additionalProperties": false
            }
        },
        "patternProperties": { "^x-": { "x-ignored": true } },
        "required": ["apiVersion", "kind", "metadata"],
        "additionalProperties": false
    });
    let checker = || Checker::new(&document).expect("the schema is supported");
    Schemas { kinds: KindName::ALL.map(|kind| (kind, checker())).into(), envelope: checker() }
}

fn head(rest: &str) -> String {
    format!("apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: web }}\n{rest}")
}

fn spec(rest: &str) -> Value {
    let parsed = parse(&file(&head(rest)), &schemas());
    assert_eq!(parsed.problems, [], "{rest}");
    parsed.documents[0].spec()
}

#[test]
fn text_is_taken_as_it_is_written_and_numbers_as_yaml_has_them() {
    let value = spec(
        "spec: { text: 1.10, texts: [no, yes, on, 0x10, 2024-01-01, \"\", '~'], number: 0x10, share: 1e3, yes: true }",
    );
    let texts = ["no", "yes", "on", "0x10", "2024-01-01", "", "~"];
    assert_eq!(value, json!({ "number": 16, "share": 1000.0, "text": "1.10", "texts": texts, "yes": true }));
    assert_eq!(
        spec("spec:\n  number: 5.0\n  text: |\n    two\n    lines\n"),
        json!({ "number": 5, "text": "two\nlines\n" })
    );
}

#[test]
fn an_optional_field_without_a_value_is_not_given() {
    assert_eq!(spec("spec:\n  text:\n  map: ~\n  texts: null\n"), json!({}));
    assert_eq!(spec("spec:\n"), json!({}));
}

#[test]
fn the_same_content_has_the_same_digest_however_it_is_written() {
    let yaml = "# note\nx-free: 1\nspec: { yes: true, text: 'a', map: { b: '1', a: 2 } }";
    let json = r#"{ "metadata": {"name": "web"}, "kind": "Service", "spec": { "map": {"a": "2", "b": "1"}, "text": "a", "yes": true, "number": null }, "apiVersion": "trueup/v1" }"#;
    let one = parse(&file(&head(yaml)), &schemas());
    let other = parse(&file(json), &schemas());
    assert_eq!(one.documents[0].json, other.documents[0].json);
    assert_eq!(one.documents[0].digest(), other.documents[0].digest());
    assert_eq!(one.documents[0].spec_json(), r#"{"map":{"a":"2","b":"1"},"text":"a","yes":true}"#);
}

#[test]
fn a_pointer_finds_the_place_or_the_nearest_one_around() {
    let text =
        "---\n---\n".to_owned() + &head("spec:\n  map:\n    a/b: one\n    c~d: two\n  texts:\n    - x\n    - y\n");
    let parsed = parse(&file(&text), &schemas());
    let document = &parsed.documents[0];
    let shown = |span: Span| (span.line, span.column, text[span.start as usize..span.end as usize].to_owned());
    assert_eq!(shown(document.value_at("/spec/map/a~1b")), (8, 10, "one".into()));
    assert_eq!(shown(document.key_at("/spec/map/c~0d")), (9, 5, "c~d".into()));
    assert_eq!(shown(document.value_at("/spec/texts/1")), (12, 7, "y".into()));
    assert_eq!(shown(document.key_at("/spec/texts/1")), (12, 7, "y".into()));
    assert_eq!(shown(document.key_at("/spec/texts/7/x")), (10, 3, "texts".into()));
    assert_eq!(shown(document.key_at("/spec/map/none")), (7, 3, "map".into()));
    assert_eq!(shown(document.value_at("/nothing")).0, 3);
    assert_eq!((document.origin.line, document.origin.column), (3, 1));
    assert_eq!(document.folder, Path::new("/tree"));
}

#[test]
fn a_stored_document_reads_back_and_points_at_its_stored_place() {
    let parsed = parse(&file(&head("spec: { text: a }")), &schemas());
    let document = &parsed.documents[0];
    let stored = Document::from_stored(&document.json, "/base".into(), "manifests/a.yaml:7:3").expect("it reads back");
    assert_eq!((&stored.id, &stored.json), (&document.id, &document.json));
    assert_eq!(stored.value_at("/spec/text").to_string(), "manifests/a.yaml:7:3");
    assert_eq!(stored.folder, Path::new("/base"));
    let stored = |json: &str| Document::from_stored(json, "/".into(), "x").map(|_| ());
    assert_eq!(stored("{"), Err(StoredError::NotJson));
    assert_eq!(stored(r#"{"apiVersion":"trueup/v9","kind":"Service"}"#), Err(StoredError::Unknown));
    assert_eq!(stored(r#"{"apiVersion":"trueup/v1","kind":"Other"}"#), Err(StoredError::Unknown));
    assert_eq!(stored(r#"{"apiVersion":"trueup/v1","kind":"Hub"}"#), Err(StoredError::NotJson));
}

#[test]
fn what_is_named_in_broken_documents_is_known() {
    let text = head("spec: { text: [ }\n---\n")
        + &head("spec: { other: 1 }").replace("web", "api")
        + "\n---\nmetadata: { name: x }\n";
    let parsed = parse(&file(&text), &schemas());
    let named: Vec<String> = parsed.named.iter().map(|named| named.id.to_string()).collect();
    assert_eq!(named, ["Service/web", "Service/api"]);
    assert_eq!(parsed.documents.len(), 0);
    assert_eq!(parsed.named[1].at.to_string(), "a.yaml:9:9");
}

#[test]
fn merge_keys_fill_in_what_is_not_there() {
    let value =
        spec("x-a: &a { a: '1', b: '1' }\nx-b: &b { b: '2', c: '2' }\nspec:\n  map: { <<: [*a, *b], c: '3' }\n");
    assert_eq!(value["map"], json!({ "a": "1", "b": "1", "c": "3" }));
    let parsed = parse(&file(&head("spec: { map: { <<: text } }")), &schemas());
    assert_eq!(parsed.problems[0].code, Code::WrongType);
}

#[test]
fn a_file_beyond_the_limit_is_not_looked_at() {
    let parsed = parse(&file(&"#".repeat(MAX_FILE_BYTES + 1)), &schemas());
    assert_eq!(parsed.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::TooLarge]);
}

#[test]
fn problems_of_one_file_are_bounded() {
    let many: String = (0..300).map(|index| format!("  field{index}x: 1\n")).collect();
    let parsed = parse(&file(&head(&format!("spec:\n{many}"))), &schemas());
    assert_eq!(parsed.problems.len(), MAX_PROBLEMS);
    let documents: String = (0..300).map(|_| "---\nkind: Service\n").collect();
    let parsed = parse(&file(&documents), &schemas());
    assert_eq!(parsed.problems.len(), MAX_PROBLEMS + 1);
    assert!(parsed.problems[MAX_PROBLEMS].message.contains("500 more problems"), "{:?}", parsed.problems[MAX_PROBLEMS]);
}

fn depth(node: &Node) -> usize {
    let inner = |nodes: &mut dyn Iterator<Item = &Node>| nodes.map(depth).max().unwrap_or(0);
    1 + match &node.kind {
        NodeKind::Scalar { .. } => 0,
        NodeKind::Seq(items) => inner(&mut items.iter()),
        NodeKind::Map(entries) => inner(&mut entries.iter().map(|(_, value)| value)),
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.kind {
        NodeKind::Scalar { .. } => 0,
        NodeKind::Seq(items) => items.iter().map(size).sum(),
        NodeKind::Map(entries) => entries.iter().map(|(_, value)| size(value)).sum::<usize>(),
    }
}

/// One level more for each anchor: aliases must not make a tree deeper than text could.
fn ladder(levels: usize) -> String {
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..levels {
        text.push_str(&format!("a{level}: &a{level} {}*a{}{}\n", "[".repeat(20), level - 1, "]".repeat(20)));
    }
    text
}

#[test]
fn hostile_texts_stay_within_limits() {
    let laughs: String = (1..9).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(10))).collect();
    let texts = [
        format!("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n{laughs}"),
        "[".repeat(100_000),
        "{a: ".repeat(50_000),
        "- ".repeat(50_000),
        (0..5_000).map(|level| format!("{}k:\n", " ".repeat(level))).take(500).collect(),
        format!("? {}\n: x\n", "k".repeat(500_000)),
        format!("{}: x\n", "k".repeat(500_000)),
        format!("\"{}\": x\n", "k".repeat(500_000)),
        "a: !!binary aGVsbG8=\n".to_owned(),
        "a: &a [*a]\n".to_owned(),
        "&a a: *a\n".to_owned(),
        "a: &a { b: { <<: *a } }\n".to_owned(),
        ladder(40),
        "a,".repeat(500_000),
        format!("[{}]", "a,".repeat(500_000)),
        "a: 'x\n".repeat(50_000),
        "---\n".repeat(200_000),
        "%YAML 9.9\n---\na: b\n".to_owned(),
        "%TAG ! tag:yaml.org,2002:\n---\na: !str b\n".to_owned(),
        "\u{feff}".repeat(1_000),
        "\u{85}\u{2028}\u{2029}: a\r\r\n\r".to_owned(),
        "a: \"\\ud800\"".to_owned(),
        "*a: b\n*a : c\n".to_owned(),
        "a: &b\nc: *b\n".to_owned(),
        "<<: a\n<<: b\n".to_owned(),
        "\0".repeat(1_000),
        "a".repeat(1 << 20),
        format!("x: {}\n", "*a ".repeat(100_000)),
        format!("x: &a y\nz: [{}]\n", "*a,".repeat(MAX_ALIASES + 1)),
    ];
    for text in &texts {
        for document in composed(text) {
            assert!(document.problems.len() <= compose::MAX_PROBLEMS + 1);
            if let Some(root) = &document.root {
                assert!(depth(root) <= MAX_DEPTH + 1 && size(root) <= MAX_NODES + 1, "{}", &text[..60.min(text.len())]);
            }
        }
        let _ = parse(&file(text), &schemas());
    }
}

#[test]
fn places_count_characters_whatever_the_line_ends_are() {
    for (text, line, column) in [
        ("\u{feff}apiVersion: x\n", 1, 13),
        ("# ä\r\napiVersion: x\r\n", 2, 13),
        ("'日本': 1\napiVersion: x\n", 2, 13),
        ("{ '日本': 1, apiVersion: x }\n", 1, 24),
    ] {
        let parsed = parse(&file(text), &schemas());
        let problem = parsed.problems.iter().find(|problem| problem.code == Code::UnknownApiVersion).expect(text);
        assert_eq!((problem.span().line, problem.span().column), (line, column), "{text:?}");
    }
}
