//! Connections with real modules: wired, healed, followed, taken away.

use serde_json::json;

use crate::stage::wait_until;
use crate::wiring_stage::Tree;

/// With one durable connection `inbox`, wired.
fn wired() -> (Tree, crate::stage::Own) {
    let tree = Tree::new();
    tree.connect("inbox", "in", "");
    let daemon = tree.daemon();
    tree.pass();
    (tree, daemon)
}

#[test]
fn a_note_that_is_meant_arrives_with_the_parameters_of_its_connection() {
    let (tree, _daemon) = wired();
    let note = tree.note("hello", "in");
    tree.note("for nobody", "out");
    tree.all_arrive_once([&note]);
    let messages = tree.messages();
    assert_eq!((messages.len(), &messages[0]["channel"]), (1, &json!("main")), "{messages:?}");
    wait_until("the vault to know", || tree.pending().is_empty());
    let trigger = tree.trigger();
    assert_eq!(trigger["events"], json!(["created"]));
    assert_eq!(trigger["when"], json!({ "tags": ["in"] }));
    assert_eq!(trigger["action"]["webhook"], json!(format!("http://127.0.0.1:{}/inbox/inbox", tree.hub)));
}

#[test]
fn a_trigger_that_somebody_removed_is_back_with_the_same_token() {
    let (tree, _daemon) = wired();
    let (trigger, rows) = (tree.trigger(), tree.all_tokens());
    tree.delete_trigger(trigger["name"].as_str().expect("a name"));
    tree.pass();
    let again = tree.trigger();
    assert_eq!(
        (&again["name"], &again["when"], &again["action"]),
        (&trigger["name"], &trigger["when"], &trigger["action"])
    );
    assert_eq!(tree.all_tokens(), rows, "no token was made, none revoked");
    let note = tree.note("after", "in");
    tree.all_arrive_once([&note]);
}
