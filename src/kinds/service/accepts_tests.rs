//! What modules accept: filters and parameters against schemas of every sort.

use serde_json::{Value, json};

use super::accepts::{Accepts, Given, check_filter, check_params};
use crate::desired::Manifest;
use crate::kinds::schema::schemas;
use crate::kinds::service::keys::{self, Root};
use crate::model::problem::Problem;
use crate::model::source::SourceFile;

/// A document with the value under `/spec/env` (any document will do; only its places matter).
fn checked(value: &str, check: impl Fn(Given<'_>) -> Vec<Problem>) -> Vec<String> {
    let text = format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: a }}\nspec:\n  command: [a]\n  actions:\n    - key: k\n      provision: {value}\n"
    );
    let file = SourceFile { shown: "a.yaml".into(), path: "/tree/a.yaml".into(), text: text.into() };
    let manifest = Manifest::read(&file, schemas());
    assert_eq!(manifest.problems, [], "{value}");
    let document = &manifest.entries[0].document;
    let spec = document.spec();
    let pointer = "/spec/actions/0/provision";
    let given = Given { document, pointer, value: spec.pointer("/actions/0/provision") };
    let line = |problem: Problem| {
        let message = problem.message.replace("spec.actions[0].provision", "it");
        let hint = problem.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{} {}: {message}{hint}", problem.labels[0].span.column, problem.code)
    };
    check(given).into_iter().map(line).collect()
}

fn filter(schema: Option<Value>, value: &str) -> Vec<String> {
    let schema = schema.map(Accepts::new);
    checked(value, |given| check_filter(schema.as_ref(), given))
}

fn params(schema: Option<Value>, value: &str) -> Vec<String> {
    let schema = schema.map(Accepts::new);
    checked(value, |given| check_params(schema.as_ref(), given))
}

#[test]
fn without_a_schema_a_filter_has_what_every_vault_knows() {
    let good = "{ tags: [in], has_metadata: [agent], missing_metadata: [seen], has_content: true, metadata: { n: { gt: 3 } } }";
    assert_eq!(filter(None, good), [""; 0]);
    assert_eq!(filter(None, "{}"), [""; 0]);
    assert_eq!(filter(None, "{ tgas: [in] }"), ["20 E0102: `it` has no field `tgas` (did you mean `tags`?)"]);
    assert_eq!(
        filter(None, "{ color: red }"),
        [
            "20 E0102: `it` has no field `color` (what is declared is `tags`, `has_metadata`, `missing_metadata`, `has_content` and `metadata`)"
        ]
    );
    assert_eq!(
        filter(None, "{ tags: in, has_content: 'yes', metadata: { n: 3 } }"),
        [
            "26 E0104: `it.tags` must be a list, not the string `in` (write it as a list: `[in]`)",
            "43 E0104: `it.has_content` must be true or false, not the string `yes`",
            "65 E0104: `it.metadata.n` must be a mapping, not the number 3",
        ]
    );
}

#[test]
fn a_small_schema_that_is_endless_work_is_broken_and_only_its_names_count() {
    let mut defs = serde_json::Map::new();
    for index in 0..26 {
        let next = json!({ "$ref": format!("#/$defs/a{}", index + 1) });
        defs.insert(format!("a{index}"), json!({ "anyOf": [next, next] }));
    }
    defs.insert("a26".to_owned(), json!({ "required": ["zzz"] }));
    let schema = json!({ "$defs": defs, "$ref": "#/$defs/a0", "properties": { "channel": {} } });
    let accepts = Accepts::new(schema.clone());
    assert_eq!(accepts.fault(), Some("its references and alternatives come to more than 10000 schemas"));
    assert_eq!(params(Some(schema.clone()), "{ channel: main }"), [""; 0]);
    assert_eq!(
        params(Some(schema), "{ chanel: main }"),
        ["20 E0102: `it` has no field `chanel` (did you mean `channel`?)"]
    );
    // What is too large is not looked at at all.
    let large = json!({ "properties": { "channel": {} }, "required": vec!["a"; 20_000] });
    assert_eq!(Accepts::new(large.clone()).fault(), Some("it has more than 10000 values"));
    assert_eq!(params(Some(large), "{ other: main }"), [""; 0]);
    let deep = format!("{}{}", "{ a: ".repeat(9), "1".to_owned() + &" }".repeat(9));
    assert_eq!(params(Some(json!({ "properties": { "a": {} } })), &deep), ["18 E0105: `it` has more than 8 levels"]);
}

#[test]
fn a_key_that_nobody_names_is_an_error_however_open_the_schema_is() {
    let tags = json!({ "type": "object", "properties": { "tags": { "type": "array" } } });
    assert_eq!(filter(Some(tags.clone()), "{ tags: [a] }"), [""; 0]);
    let strayed = ["20 E0102: `it` has no field `has_content` (what is declared is `tags`)"];
    assert_eq!(filter(Some(tags.clone()), "{ has_content: true }"), strayed);
    let mut open = tags.clone();
    open["additionalProperties"] = json!(true);
    assert_eq!(filter(Some(open.clone()), "{ has_content: true }"), strayed);
    assert_eq!(params(Some(open), "{ has_content: true }"), [""; 0]);
    let mut closed = tags;
    closed["additionalProperties"] = json!(false);
    assert_eq!(filter(Some(closed), "{ has_content: true }"), strayed, "and it is told once");
    // A schema that names nothing says no more than none at all.
    for schema in [json!({}), json!(true), json!({ "type": "object" }), json!({ "type": "object", "minProperties": 1 })]
    {
        assert_eq!(filter(Some(schema.clone()), "{ tags: [a] }"), [""; 0]);
        assert_eq!(filter(Some(schema), "{ colour: red }").len(), 1);
    }
}

#[test]
fn params_are_what_the_action_declares() {
    assert_eq!(
        params(None, "{ channel: main }"),
        [
            "20 E0102: `it` has the parameter `channel`, and the action declares none (its module has no `inputSchema`, so nobody can say whether it takes it)"
        ]
    );
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["channel"],
        "properties": {
            "channel": { "$ref": "#/definitions/slug" }, "mode": { "enum": ["fast", "slow"] },
            "many": { "type": "array", "items": { "type": "object", "properties": { "id": { "type": "integer" } } } },
            "either": { "oneOf": [{ "type": "string", "minLength": 3 }, { "type": "integer" }] },
        },
        "definitions": { "slug": { "type": "string", "pattern": "^[a-z]+$" } },
    });
    let check = |value: &str| params(Some(schema.clone()), value);
    assert_eq!(check("{ channel: main, mode: slow, many: [{ id: 1 }], either: 4 }"), [""; 0]);
    assert_eq!(check("{}"), ["18 E0106: `it` needs the field `channel` (add `channel: ...`)"]);
    assert_eq!(
        check("{ channel: MAIN }"),
        ["29 E0105: `it.channel` must be text of the form ^[a-z]+$, not the string `MAIN`"]
    );
    assert_eq!(
        check("{ channel: a, mode: fsat }"),
        ["38 E0105: `it.mode` must be `fast` or `slow`, not the string `fsat` (did you mean `fast`?)"]
    );
    assert_eq!(
        check("{ channel: a, many: [{ di: 1 }] }"),
        ["41 E0102: `it.many[0]` has no field `di` (what is declared is `id`)"]
    );
    assert_eq!(check("{ channel: a, either: ab }").len(), 1);
    assert_eq!(check("{ channel: a, either: [] }").len(), 1);
}

#[test]
fn schemas_that_are_broken_or_lead_round_in_circles_neither_crash_nor_misjudge() {
    for broken in [
        json!(5),
        json!({ "type": "nope" }),
        json!({ "type": "object", "properties": { "a": { "pattern": "(" } } }),
        json!({ "$ref": "https://example.org/elsewhere.json" }),
        json!({ "$schema": "https://example.org/of-our-own" }),
        json!({ "properties": [] }),
    ] {
        assert!(Accepts::new(broken.clone()).fault().is_some(), "{broken}");
        assert_eq!(filter(Some(broken.clone()), "{ tags: [a] }"), [""; 0], "{broken}");
        assert_eq!(filter(Some(broken.clone()), "{ colour: a }").len(), 1, "{broken}");
    }
    let half = json!({ "type": "nope", "properties": { "a": {} } });
    assert_eq!(params(Some(half.clone()), "{ a: 1 }"), [""; 0]);
    assert_eq!(params(Some(half), "{ b: 1 }").len(), 1);
    for round in [
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "$ref": "#" }] }),
        json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }),
        json!({ "$dynamicAnchor": "x", "$dynamicRef": "#x" }),
    ] {
        let _ = params(Some(round.clone()), "{ a: { b: [1] } }");
        let _ = filter(Some(round), "{ tags: [a] }");
    }
    let tree = json!({ "type": "object", "properties": { "a": { "$ref": "#" }, "leaf": { "type": "integer" } } });
    assert_eq!(params(Some(tree.clone()), "{ a: { a: { leaf: 1 } } }"), [""; 0]);
    assert_eq!(
        params(Some(tree), "{ a: { a: { laef: 1 } } }"),
        ["30 E0102: `it.a.a` has no field `laef` (did you mean `leaf`?)"]
    );
    let slow = json!({ "properties": { "a": { "pattern": "^(a+)+$" } } });
    let _ = params(Some(slow), &format!("{{ a: {}b }}", "a".repeat(60)));
}

#[test]
fn keys_are_found_wherever_a_schema_may_name_them() {
    let strays = |schema: Value, value: Value| -> Vec<String> {
        let all = keys::unknown(&schema, &value, Root::AsDeclared).into_iter();
        all.map(|stray| format!("{}/{}", stray.parent, stray.key)).collect()
    };
    let value = json!({ "a": 1, "x": 1 });
    for schema in [
        json!({ "allOf": [{ "properties": { "a": {} } }, { "properties": { "b": {} } }] }),
        json!({ "if": { "properties": { "a": {} } }, "then": {} }),
        json!({ "anyOf": [{ "type": "string" }, { "$ref": "#/$defs/o" }], "$defs": { "o": { "properties": { "a": {} } } } }),
        json!({ "$defs": { "o": { "$anchor": "here", "properties": { "a": {} } } }, "$ref": "#here" }),
        json!({ "definitions": { "o p": { "properties": { "a": {} } } }, "$ref": "#/definitions/o%20p" }),
        json!({ "patternProperties": { "^a": {} } }),
        json!({ "dependentSchemas": { "x": { "properties": { "a": {} } } } }),
    ] {
        assert_eq!(strays(schema.clone(), value.clone()), ["/x"], "{schema}");
    }
    for open in [
        json!({ "properties": { "a": {} }, "additionalProperties": {} }),
        json!({ "properties": { "a": {} }, "$ref": "other.json" }),
        json!({ "properties": { "a": {} }, "patternProperties": { "(?=x)x": {} } }),
        json!({ "propertyNames": { "maxLength": 3 } }),
        json!({ "type": "object" }),
    ] {
        assert_eq!(strays(open.clone(), value.clone()), [""; 0], "{open}");
    }
    let list = json!({ "properties": { "l": { "prefixItems": [{ "properties": { "a": {} } }], "items": { "properties": { "b": {} } } } } });
    assert_eq!(strays(list, json!({ "l": [{ "a": 1 }, { "c": 1 }] })), ["/l/1/c"]);
}
