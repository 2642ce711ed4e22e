//! Connections with real modules: wired, healed when somebody else meddles, and their events brought through whatever is down.
//!
//! What the tests of the older hub pin, and where it is held here (`ends`, `once`, `vaults` and `kill` are files beside this one):
//!
//! | behaviour | test |
//! |---|---|
//! | events of the vault's own words, and none for what has no trigger | here `a_note_that_is_meant_..`, once `what_does_not_fit_..` |
//! | a filter reaches the trigger as it is written | here `a_note_that_is_meant_..`, `desired/connections_tests` for what no vault knows |
//! | slashes between origin, mount and endpoint | ends `the_trigger_follows_endpoint_mount_and_scope_..` |
//! | who may, and who may not | `deliveries` for the inbox, `api` for the hub: connections are files, and nothing makes one by a call |
//! | each mistake has its own words, before anything is made | once `what_does_not_fit_..`, `desired/connections_tests` |
//! | endpoint and scope are those of the sink's declaration | ends `the_trigger_follows_endpoint_mount_and_scope_..` |
//! | a failure says at which step | once `a_vault_that_refuses_triggers_..` |
//! | an action with a scope of somebody else is refused | once `what_does_not_fit_..`, `kinds/service/declares_tests` |
//! | no list carries a token | once `no_token_is_shown_logged_or_kept` |
//! | removing takes the trigger and the channel away | here `a_connection_whose_file_is_removed_..`, ends `a_sink_is_told_..` |
//! | an action without a channel needs none, and takes none away | once `a_connection_that_prepared_nothing_..` |
//! | long tokens are registered, brief ones are not | `authority/tests`, here `a_note_that_is_meant_..` |
//! | what is taken away is revoked | here `a_connection_whose_file_is_removed_..`, `tokens_contract` for the list of revocations |
//! | a record without tokens from before | a restored or lost record is adopted: `connections_sim` |
//!
//! What the older hub cannot do, and a wish that is kept can:
//!
//! | | test |
//! |---|---|
//! | notices a trigger that is deleted, edited or restored away | here `a_trigger_that_somebody_..`, `a_vault_that_was_restored_..` |
//! | heals it | the same, vaults `a_vault_that_somebody_removed_..` |
//! | keeps the wish while its vault is down | here `what_is_edited_while_the_vault_is_down_..` |
//! | plans | once `a_plan_says_..`, vaults `the_plan_says_..` |
//! | prunes, and tells of two writers | here `a_trigger_of_somebody_else_..`, `somebody_who_overwrites_..`, once `a_token_of_a_connection_that_no_record_names_..` |
//! | names of its own | once `the_same_wiring_on_two_vaults_..` |
//! | safe on change | once `a_connection_that_moves_..`, ends `another_channel_..` |
//! | whole or not at all | kill, `connections_sim`, once `answers_of_the_vault_that_get_lost_..` |
//! | renews, and notices what ended | here `a_token_is_renewed_..`, `a_token_that_is_revoked_..`, `triggers_have_tokens_of_the_new_key_..` |
//! | follows origin, mount, endpoint and scope | ends `the_trigger_follows_..`, `a_direct_trigger_follows_..` |
//! | checks filter and params | once `what_does_not_fit_..`, `kinds/service/accepts_tests` |
//! | brings lost deliveries back | once `notes_that_were_made_while_no_hub_ran_..`, here `a_hundred_notes_..` |
//! | several sinks, and standing still | once `one_note_goes_to_every_connection_..`, ends `.._suspended_..` |
//! | driven without a browser | all of it |

#![expect(clippy::disallowed_methods, reason = "real processes take real time")]

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::stage::{Own, wait_until};
use crate::wiring_stage::Tree;

/// With one durable connection `inbox`, wired.
fn wired() -> (Tree, Own) {
    let tree = Tree::new();
    tree.connect("inbox", "in", "");
    let daemon = tree.daemon();
    tree.pass();
    (tree, daemon)
}

fn name(trigger: &Value) -> &str {
    trigger["name"].as_str().expect("a name")
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
    assert_eq!((&trigger["events"], &trigger["when"]), (&json!(["created"]), &json!({ "tags": ["in"] })));
    assert_eq!(trigger["action"]["webhook"], json!(format!("http://127.0.0.1:{}/inbox/inbox", tree.hub)));
    let row = &tree.tokens()[0];
    assert_eq!((&row["scopes"], &row["audience"]), (&json!(["inbox:inbox"]), &json!("inbox")));
    assert_eq!(
        (&row["client_id"], &row["created_via"]),
        (&json!("connection/inbox/vault/vault/default"), &json!("connection_provision"))
    );
}

#[test]
fn a_trigger_that_somebody_removed_is_back_with_the_same_token() {
    let (tree, _daemon) = wired();
    let (trigger, rows) = (tree.trigger(), tree.all_tokens());
    tree.delete_trigger(name(&trigger));
    tree.pass();
    let again = tree.trigger();
    let shape = |trigger: &Value| (trigger["name"].clone(), trigger["when"].clone(), trigger["action"].clone());
    assert_eq!(shape(&again), shape(&trigger));
    assert_eq!(tree.all_tokens(), rows, "no token was made, none revoked");
    let note = tree.note("after", "in");
    tree.all_arrive_once([&note]);
}

#[test]
fn a_trigger_that_somebody_edited_is_as_it_was_and_the_meddling_is_told() {
    let (tree, _daemon) = wired();
    let trigger = tree.trigger();
    let edits = [
        json!({ "when": {} }),
        json!({ "events": ["created", "updated"] }),
        json!({ "action": { "webhook": "http://127.0.0.1:1/x", "auth": { "bearer": "x" } } }),
    ];
    for edit in edits {
        let mut edited = trigger.clone();
        edited.as_object_mut().expect("an object").extend(edit.as_object().expect("an object").clone());
        edited["action"]["auth"]["bearer"] = "another".into();
        tree.put_trigger(&edited);
        wait_until("the trigger as it was", || {
            tree.pass();
            let now = tree.trigger();
            (&now["when"], &now["events"], &now["action"]) == (&trigger["when"], &trigger["events"], &trigger["action"])
        });
    }
    let events = tree.stage.run(&["events", "Connection/inbox"]).code(0).out;
    assert!(events.contains("TriggerEdited") && events.contains("somebody changed it"), "{events}");
    let note = tree.note("after", "in");
    tree.all_arrive_once([&note]);
}

/// Nobody sees which bearer a trigger sends; that it was written by somebody else is seen.
#[test]
fn a_trigger_whose_bearer_somebody_replaced_gets_its_own_again() {
    let (tree, _daemon) = wired();
    let mut trigger = tree.trigger();
    trigger["action"]["auth"]["bearer"] = "of somebody else".into();
    tree.put_trigger(&trigger);
    tree.pass();
    let note = tree.note("after", "in");
    tree.all_arrive_once([&note]);
    assert_eq!(tree.tokens().len(), 1);
}

/// Notes are made all the while, and none of them is refused for good.
#[test]
fn a_token_that_is_revoked_is_replaced_before_any_event_is_refused() {
    let (tree, _daemon) = wired();
    let old = tree.jtis();
    let over = AtomicBool::new(false);
    let notes = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut notes = BTreeSet::new();
            while !over.load(Ordering::SeqCst) {
                notes.insert(tree.note("meanwhile", "in"));
                std::thread::park_timeout(std::time::Duration::from_millis(10));
            }
            notes
        });
        let end = scopeguard(&over);
        wait_until("the first notes", || !tree.arrived().is_empty());
        let jti = old.first().expect("a token");
        tree.stage.run(&["token", "revoke", jti]).code(0);
        tree.pass();
        let seen = tree.arrived().len();
        wait_until("further notes", || tree.arrived().len() > seen + 5);
        drop(end);
        writer.join().expect("the writer")
    });
    let new = tree.jtis();
    assert_eq!((new.len(), new.intersection(&old).count()), (1, 0), "{old:?} {new:?}");
    wait_until("no note that is pending", || tree.pending().is_empty());
    tree.all_arrive_once(&notes);
}

/// Sets the flag when it is dropped, in whatever way.
fn scopeguard(flag: &AtomicBool) -> impl Drop + '_ {
    struct Guard<'a>(&'a AtomicBool);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    Guard(flag)
}

#[test]
fn what_is_edited_while_the_vault_is_down_stands_when_it_is_up_again() {
    let (tree, _daemon) = wired();
    let old = tree.note("before", "in");
    tree.all_arrive_once([&old]);
    tree.stop("vault");
    tree.connect("inbox", "letters", "");
    wait_until("the connection to wait for its vault", || {
        tree.ready("Connection/inbox")["reason"] == "DependencyNotReady"
    });
    tree.start("vault");
    tree.pass();
    let trigger = tree.trigger();
    assert_eq!(trigger["when"], json!({ "tags": ["letters"] }));
    let (before, after) = (tree.note("by the old filter", "in"), tree.note("by the new one", "letters"));
    tree.all_arrive_once([&after]);
    assert!(!tree.arrived().contains_key(&before));
    assert_eq!(tree.tokens().len(), 1);
}

#[test]
fn a_hundred_notes_that_were_made_while_the_sink_was_down_arrive_once_each() {
    let (tree, _daemon) = wired();
    tree.stop("mailbox");
    let notes = tree.notes(100, "in");
    wait_until("the hub to have taken all", || tree.pending().is_empty());
    tree.pass();
    let ready = tree.ready("Connection/inbox");
    assert_eq!(ready["status"], "True", "the wiring stands: {ready}");
    assert!(ready["message"].as_str().expect("text").contains("100 events on the way"), "{ready}");
    tree.start("mailbox");
    tree.all_arrive_once(&notes);
    assert_eq!(tree.arrived().len(), 100);
    let delivered = || {
        let all = tree.stage.run(&["deliveries", "list", "--only", "delivered", "--limit", "1000", "-o", "json"]);
        all.code(0).typed("delivery").len()
    };
    wait_until("the hub to have written all down", || delivered() == 100);
}

#[test]
fn answers_of_the_sink_that_get_lost_make_nothing_arrive_twice() {
    let tree = Tree::new();
    tree.write_mailbox(", --lose-deliver-answers, '4'");
    tree.connect("inbox", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    let notes = tree.notes(30, "in");
    tree.all_arrive_once(&notes);
    assert_eq!(tree.arrived().len(), 30);
}

#[test]
fn a_connection_whose_file_is_removed_leaves_nothing_but_its_dead_letters() {
    let (tree, _daemon) = wired();
    tree.stop("mailbox");
    let waiting = tree.notes(3, "in");
    wait_until("the hub to have taken them", || tree.pending().is_empty());
    tree.remove("inbox.yaml");
    tree.pass();
    assert_eq!(tree.triggers().len(), 0);
    assert_eq!(tree.tokens(), [] as [Value; 0]);
    assert_eq!(tree.resource("Connection/inbox"), None);
    let list = |state: &str| {
        let all = tree.stage.run(&["deliveries", "list", "--only", state, "--connection", "inbox", "-o", "json"]);
        all.code(0).typed("delivery")
    };
    let dead: BTreeSet<String> =
        list("dead").iter().map(|line| line["note"].as_str().expect("a note").to_owned()).collect();
    assert_eq!((dead, list("waiting").len()), (waiting, 0));
    let ledger = rusqlite::Connection::open(tree.stage.path(".trueup/ledger.db")).expect("the ledger");
    let count = |sql: &str| ledger.query_row(sql, [], |row| row.get::<_, u64>(0)).expect("a count");
    assert_eq!(count("SELECT count(*) FROM owned WHERE resource LIKE 'Connection/%'"), 0);
    let note = tree.note("after", "in");
    assert_eq!(tree.read_note(&note)["metadata"], json!({}));
}

#[test]
fn a_trigger_of_somebody_else_is_named_and_never_touched() {
    let (tree, _daemon) = wired();
    tree.declare_vault("default", "");
    let foreign = ["conn_elsewhere", "conn_inbox", "conn_inbox_tu00000000"].map(|name| {
        let action = json!({ "webhook": "http://127.0.0.1:1/theirs", "auth": { "bearer": "theirs" } });
        tree.put_trigger(&json!({ "name": name, "events": ["updated"], "when": {}, "action": action }))
    });
    tree.pass();
    let described = tree.stage.run(&["describe", "Vault/default"]).code(0).out;
    for trigger in &foreign {
        assert!(described.contains(name(trigger)), "{described}");
    }
    tree.stage.run(&["restart", "vault"]).code(0);
    tree.pass();
    let seen = |tree: &Tree| {
        let all = tree.triggers();
        foreign.iter().map(|trigger| all[name(trigger)].clone()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&tree), foreign);
    tree.remove("inbox.yaml");
    tree.remove("vault-default.yaml");
    tree.pass();
    assert_eq!((tree.triggers().len(), seen(&tree)), (3, foreign.to_vec()));
}

/// Two that write the same trigger are no storm: whoever is against us is waited for longer each time, and named.
#[test]
fn somebody_who_overwrites_a_trigger_again_and_again_is_named_and_does_not_make_a_storm() {
    let (tree, _daemon) = wired();
    let ours = tree.trigger();
    let mut theirs = ours.clone();
    theirs["action"] = json!({ "webhook": "http://127.0.0.1:1/theirs", "auth": { "bearer": "theirs" } });
    let mut overwritten = 0;
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(12) {
        if tree.trigger()["action"]["webhook"] == ours["action"]["webhook"] {
            tree.put_trigger(&theirs);
            overwritten += 1;
        }
        tree.stage.once(&["--timeout", "1s"]);
    }
    // Pauses of 1, 2, 4 and 8 seconds, and the first write at once.
    assert!((2..=5).contains(&overwritten), "{overwritten} in {:?}", begun.elapsed());
    let row = tree.resource("Connection/inbox").expect("it is there");
    let drifted = row["conditions"].as_array().expect("conditions").iter().find(|one| one["type"] == "Drifted");
    let drifted = drifted.unwrap_or_else(|| panic!("{row}"));
    assert_eq!(drifted["reason"], "TriggerEdited");
    assert!(drifted["message"].as_str().expect("text").contains("http://127.0.0.1:1/theirs"), "{drifted}");
    assert_eq!(tree.tokens().len(), 1, "no token is made for each attempt");
}

#[test]
fn a_vault_that_was_installed_anew_has_its_trigger_again() {
    let (tree, _daemon) = wired();
    let rows = tree.all_tokens();
    tree.stop("vault");
    fs::remove_dir_all(tree.stage.path(".trueup/home/vault")).expect("the vault is deleted");
    tree.start("vault");
    tree.pass();
    assert_eq!(tree.trigger()["when"], json!({ "tags": ["in"] }));
    assert_eq!(tree.all_tokens(), rows);
    let note = tree.note("in the new one", "in");
    tree.all_arrive_once([&note]);
}

#[test]
fn a_vault_that_was_restored_from_an_old_copy_has_the_triggers_of_now() {
    let (tree, _daemon) = wired();
    tree.connect("gone", "gone", "");
    tree.pass();
    assert_eq!(tree.triggers().len(), 2);
    tree.stop("vault");
    let (folder, copy) = (tree.stage.path(".trueup/home/vault"), tree.stage.path("copy"));
    copy_folder(&folder, &copy);
    tree.start("vault");
    tree.connect("inbox", "letters", "");
    tree.connect("fresh", "fresh", "");
    tree.remove("gone.yaml");
    tree.pass();
    tree.stop("vault");
    fs::remove_dir_all(&folder).expect("the vault is deleted");
    copy_folder(&copy, &folder);
    tree.start("vault");
    tree.pass();
    let tags: BTreeSet<String> = tree.triggers().values().map(|trigger| trigger["when"]["tags"].to_string()).collect();
    assert_eq!(tags, [r#"["letters"]"#.to_owned(), r#"["fresh"]"#.to_owned()].into());
    let notes = [tree.note("a", "letters"), tree.note("b", "fresh")];
    tree.all_arrive_once(&notes);
    assert_eq!(tree.tokens().len(), 2);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

#[test]
fn triggers_have_tokens_of_the_new_key_after_a_rotation() {
    let (tree, _daemon) = wired();
    for more in [&[][..], &["--compromised"]] {
        let old = tree.tokens();
        tree.stage.run(&[&["token", "rotate"][..], more].concat()).code(0);
        tree.stage.once(&["--timeout", "30s"]).code(0);
        let new = tree.tokens();
        assert_eq!(new.len(), 1, "{new:?}");
        assert_ne!((&new[0]["kid"], &new[0]["jti"]), (&old[0]["kid"], &old[0]["jti"]), "{more:?}");
        let note = tree.note("after", "in");
        tree.all_arrive_once([&note]);
    }
}

/// The token ends in ten days; it is replaced long before.
#[test]
fn a_token_is_renewed_before_it_ends() {
    let (tree, _daemon) = wired();
    let old = tree.jtis();
    let database = rusqlite::Connection::open(tree.stage.path(".trueup/hub.db")).expect("the database");
    database.execute("UPDATE tokens SET expires_at = expires_at - 80 * 86400000", []).expect("older");
    drop(database);
    tree.pass();
    let new = tree.jtis();
    assert_eq!((new.len(), new.intersection(&old).count()), (1, 0), "{old:?} {new:?}");
    let note = tree.note("after", "in");
    tree.all_arrive_once([&note]);
}
