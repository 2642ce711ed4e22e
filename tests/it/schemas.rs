//! The committed schemas are what the types say. `UPDATE=1` rewrites them.

use std::path::Path;

use trueup::hub::api::document;
use trueup::hub::api::rights::TABLE;
use trueup::kinds::schema::published;

#[test]
fn the_committed_schemas_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    for (name, schema) in published() {
        let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
        crate::bad::golden(&folder.join(name), &text);
    }
}

fn api() -> serde_json::Value {
    serde_json::to_value(document()).expect("the document is JSON")
}

#[test]
fn the_committed_document_of_the_api_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/openapi.json");
    crate::bad::golden(&path, &(serde_json::to_string_pretty(&api()).expect("JSON") + "\n"));
}

#[test]
fn every_call_of_the_api_is_in_the_table_of_rights_and_says_what_it_may_answer() {
    let document = api();
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, call) in item.as_object().expect("methods").iter().filter(|(method, _)| *method != "head") {
            described.push((method.to_uppercase(), path.clone()));
            for status in ["401", "403", "429", "503"] {
                assert!(call["responses"][status].is_object(), "{method} {path} does not say when it answers {status}");
            }
            assert!(call["summary"].is_string(), "{method} {path} does not say what it does");
        }
    }
    let mut table: Vec<(String, String)> =
        TABLE.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    described.sort();
    table.sort();
    assert_eq!(described, table);
}
