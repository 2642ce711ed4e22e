//! The committed schemas are what the types say. `UPDATE=1` rewrites them.

use std::path::Path;

use trueup::kinds::schema::published;

#[test]
fn the_committed_schemas_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    for (name, schema) in published() {
        let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
        crate::bad::golden(&folder.join(name), &text);
    }
}
