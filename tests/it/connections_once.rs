//! Connections without a daemon, in plans, under other names, several at once; and what is never wired, told or shown.

use std::fs;

use serde_json::{Value, json};

use crate::peers::python_words;
use crate::stage::{Answer, kill, wait_until};
use crate::wiring_stage::Tree;

#[test]
fn a_single_pass_wires_and_a_second_one_does_nothing() {
    let tree = Tree::new();
    tree.connect("inbox", "in", "");
    tree.pass();
    let (trigger, rows) = (tree.trigger(), tree.all_tokens());
    assert_eq!(rows.len(), 1);
    let again = tree.pass().summary();
    assert_eq!((&again["changed"], &again["planned"], &again["inSync"]), (&json!(0), &json!(0), &json!(true)));
    assert_eq!((tree.trigger(), tree.all_tokens()), (trigger, rows));
    tree.remove("inbox.yaml");
    tree.pass();
    assert_eq!((tree.triggers().len(), tree.tokens().len()), (0, 0));
}

#[test]
fn a_plan_says_what_would_be_done_and_why_and_does_nothing() {
    let tree = Tree::new();
    let _daemon = tree.daemon();
    tree.pass();
    tree.connect("inbox", "in", "");
    tree.pass();
    let trigger = tree.trigger();
    let name = trigger["name"].as_str().expect("a name").to_owned();
    let rows = tree.all_tokens();
    tree.delete_trigger(&name);
    let plan = tree.stage.run(&["plan"]).code(0).out;
    assert!(plan.contains("somebody removed it") && plan.contains(&name), "{plan}");
    let steps = tree.stage.run(&["plan", "-o", "json"]).code(0).typed("step");
    let step = steps.iter().find(|step| step["resource"] == "Connection/inbox").expect("a step");
    assert_eq!(
        (&step["action"], &step["reason"], &step["cause"]),
        (&json!("wire"), &json!("TriggerMissing"), &json!("drift"))
    );
    assert_eq!((tree.triggers().len(), tree.all_tokens()), (0, rows));
}

fn updated(tree: &Tree, name: &str, more: &str) {
    tree.connection(
        name,
        &format!(
            "  source: {{ service: vault, vault: default, event: note.updated, filter: {{ tags: [in] }} }}\n  \
             sink: {{ service: mailbox, action: message.deliver, params: {{ channel: main }} }}\n{more}"
        ),
    );
}

fn warned(answer: &Answer) -> Option<Value> {
    answer.typed("problem").into_iter().find(|problem| problem["code"] == "E0221")
}

#[test]
fn a_new_name_is_warned_of_with_the_line_that_keeps_notes_from_being_sent_twice() {
    let tree = Tree::new();
    updated(&tree, "old", "");
    let daemon = tree.daemon();
    tree.pass();
    let trigger = tree.trigger()["name"].as_str().expect("a name").to_owned();
    let note = tree.note("hello", "in");
    tree.change_note(&note, &json!({ "append": "!" }));
    tree.all_arrive_once([&note]);
    wait_until("the vault to know", || tree.pending().is_empty());

    // The daemon would act at once, so it does not run while somebody looks at the plan.
    kill(u64::from(daemon.0.id()), "TERM");
    wait_until("the daemon to end", || !tree.is_served());
    drop(daemon);
    tree.remove("old.yaml");
    updated(&tree, "new", "");
    let plan = tree.stage.run(&["plan", "-o", "json"]).code(0);
    let problem = warned(&plan).unwrap_or_else(|| panic!("no warning in {}", plan.out));
    assert_eq!((&problem["severity"], &problem["file"]), (&json!("warning"), &json!("manifests/new.yaml")));
    let line = format!("triggerName: {trigger}");
    assert!(problem["hint"].as_str().expect("a hint").contains(&line), "{problem}");

    updated(&tree, "new", &format!("  {line}\n"));
    assert_eq!(warned(&tree.stage.run(&["plan", "-o", "json"]).code(0)), None);
    let daemon = tree.daemon();
    tree.pass();
    assert_eq!((tree.trigger()["name"].as_str(), tree.tokens().len()), (Some(trigger.as_str()), 1));
    tree.change_note(&note, &json!({ "append": "?" }));
    let other = tree.note("another", "in");
    tree.change_note(&other, &json!({ "append": "!" }));
    tree.all_arrive_once([&note, &other]);
    assert_eq!(tree.messages().len(), 2, "each note came once");

    // Without it, what the warning says comes to pass.
    drop(daemon);
    tree.remove("new.yaml");
    updated(&tree, "newer", "");
    let _daemon = tree.daemon();
    tree.pass();
    tree.change_note(&note, &json!({ "append": "." }));
    wait_until("the note a second time", || tree.arrived()[&note] == 2);
}

#[test]
fn the_same_wiring_on_two_vaults_makes_two_triggers() {
    let tree = Tree::new();
    tree.declare_vault("lab", "");
    tree.connect("one", "in", "");
    tree.connect_from("two", "lab", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    let names = |vault: &str| tree.triggers_of(vault).into_keys().collect::<Vec<_>>();
    let (here, there) = (names("default"), names("lab"));
    assert_eq!((here.len(), there.len()), (1, 1));
    assert_ne!(here, there);
    // Ids are the vault's own affair: the first note of each has the same one.
    tree.note("here", "in");
    tree.note_in("lab", "there", "in");
    let arrived = || {
        let all = tree.messages();
        let mut arrived: Vec<_> =
            all.iter().map(|one| (one["content"].to_string(), one["trigger"].to_string())).collect();
        arrived.sort();
        arrived
    };
    wait_until("both notes", || arrived().len() >= 2);
    let wanted =
        [("here", &here[0]), ("there", &there[0])].map(|(note, by)| (json!(note).to_string(), json!(by).to_string()));
    assert_eq!(arrived(), wanted);
    tree.remove("one.yaml");
    tree.pass();
    assert_eq!((names("default").len(), names("lab")), (0, there));
}

#[test]
fn a_connection_that_moves_to_another_vault_leaves_nothing_at_the_first() {
    let tree = Tree::new();
    tree.declare_vault("lab", "");
    tree.connect("inbox", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    tree.connect_from("inbox", "lab", "in", "");
    tree.pass();
    assert_eq!((tree.triggers().len(), tree.triggers_of("lab").len(), tree.tokens().len()), (0, 1, 1));
    let note = tree.note_in("lab", "hello", "in");
    tree.all_arrive_once([&note]);
}

#[test]
fn one_note_goes_to_every_connection_that_wants_it() {
    let tree = Tree::new();
    tree.connect("one", "in", "");
    tree.connect("two", "in", "");
    tree.connect("three", "in", "  delivery: direct\n");
    let _daemon = tree.daemon();
    tree.pass();
    let note = tree.note("hello", "in");
    wait_until("it to have come three times", || tree.arrived().get(&note) == Some(&3));
    wait_until("the vault to know", || tree.pending().is_empty());
    let triggers: std::collections::BTreeSet<String> =
        tree.messages().iter().map(|message| message["trigger"].as_str().expect("a trigger").to_owned()).collect();
    assert_eq!(triggers.len(), 3);
}

#[test]
fn notes_that_were_made_while_no_hub_ran_are_brought_on_their_way_again() {
    let tree = Tree::new();
    tree.connect("inbox", "in", "  rearm: { after: 1s }\n");
    let daemon = tree.daemon();
    tree.pass();
    drop(daemon);
    let notes = tree.notes(12, "in");
    wait_until("the vault to have tried them all", || tree.pending().len() == 12);
    let _daemon = tree.daemon();
    tree.all_arrive_once(&notes);
    wait_until("no note to be pending", || tree.pending().is_empty());
}

#[test]
fn a_vault_that_refuses_triggers_is_tried_again_with_one_and_the_same_token() {
    let tree = Tree::new();
    tree.write_vault(", --triggers-fail, '500'");
    tree.connect("inbox", "in", "");
    let _daemon = tree.daemon();
    tree.stage.once(&["--timeout", "6s"]);
    assert!(tree.all_tokens().len() <= 1, "{:?}", tree.all_tokens());
    let row = tree.resource("Connection/inbox").expect("it is kept");
    assert!(row.to_string().contains("500"), "{row}");
    tree.write_vault("");
    tree.pass();
    assert_eq!((tree.triggers().len(), tree.all_tokens().len()), (1, 1));
}

#[test]
fn answers_of_the_vault_that_get_lost_leave_one_trigger_and_one_token() {
    let tree = Tree::new();
    tree.write_vault(", --lose-answers=3");
    tree.connect("inbox", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    assert_eq!((tree.triggers().len(), tree.tokens().len()), (1, 1));
    let note = tree.note("hello", "in");
    tree.all_arrive_once([&note]);
    tree.remove("inbox.yaml");
    tree.pass();
    assert_eq!((tree.triggers().len(), tree.tokens().len()), (0, 0));
}

/// What a crash between a token and its trigger leaves, or a restored database of tokens brings back.
#[test]
fn a_token_of_a_connection_that_no_record_names_is_revoked() {
    let tree = Tree::new();
    tree.connect("inbox", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    let database = rusqlite::Connection::open(tree.stage.path(".trueup/hub.db")).expect("the database");
    for (jti, client) in [("lost-1", "connection/inbox"), ("lost-2", "connection/nobody")] {
        let sql =
            "INSERT INTO tokens SELECT ?1, subject, ?2, audience, scopes, vault_scope, permissions, created_via, kid,
            created_at + 1, expires_at, revoked_at FROM tokens WHERE subject = 'connection' AND jti NOT LIKE 'lost%'";
        database.execute(sql, [jti, client]).expect("a row");
    }
    drop(database);
    tree.pass();
    let all = tree.all_tokens();
    assert_eq!((all.len(), tree.tokens().len()), (3, 1), "{all:?}");
    let note = tree.note("hello", "in");
    tree.all_arrive_once([&note]);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_wired() {
    let source = |more: &str| format!("  source: {{ service: vault, vault: default, {more} }}\n");
    let (note, sink) = (source("event: note.created"), "  sink: { service: mailbox, action: message.deliver }\n");
    let cases = [
        ("  source: { service: vaults, vault: default, event: note.created }\n".to_owned() + sink, "vaults"),
        (source("event: note.creates") + sink, "note.creates"),
        (source("event: note.deleted") + sink, "note.deleted"),
        (note.clone() + "  sink: { service: mailboxes, action: message.deliver }\n", "mailboxes"),
        (note.clone() + "  sink: { service: mailbox, action: message.drop }\n", "message.drop"),
        (note.clone() + "  sink: { service: vault, action: note.create }\n", "note.create"),
        ("  source: { service: vault, vault: A!, event: note.created }\n".to_owned() + sink, "a vault's name"),
        (source("event: note.created, filter: { color: red }") + sink, "color"),
        (source("event: note.created, filter: { tags: in }") + sink, "tags"),
        (note.clone() + "  sink: { service: mailbox, action: message.deliver, params: { chanel: main } }\n", "chanel"),
        (note.clone(), "sink"),
        (note.clone() + sink + "  triggerName: 'a b'\n", "trigger's name"),
        ("  credential: { service: mailbox, key: nots, vaultService: vault, vault: default }\n".to_owned(), "nots"),
        (
            note.clone()
                + sink
                + "  credential: { service: mailbox, key: notes, vaultService: vault, vault: default }\n",
            "either",
        ),
        (
            note + "  sink: { service: mailbox, action: message.deliver, prepare: { scope: \"agent:admin\", put: { path: /x, body: {} } } }\n",
            "agent:admin",
        ),
    ];
    let tree = Tree::new();
    for (spec, said) in cases {
        tree.connection("inbox", &spec);
        let refused = tree.stage.run(&["validate"]);
        let text = format!("{}{}", refused.out, refused.err);
        assert!(
            refused.code == 3 && text.contains(said) && text.contains("inbox.yaml"),
            "{spec}: {} {text}",
            refused.code
        );
    }
    tree.connect("inbox", "in", "");
    tree.mailbox_as("", "/mailbox", "/api/deliver", "vault:send");
    let refused = tree.stage.run(&["validate"]).code(3);
    assert!(format!("{}{}", refused.out, refused.err).contains("vault:send"), "{}", refused.err);
    assert!(!tree.stage.path(".trueup/hub.db").exists());
}

#[test]
fn a_connection_that_prepared_nothing_takes_nothing_back() {
    let tree = Tree::new();
    tree.connect("inbox", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    let minted = tree.stage.run(&["token", "mint", "--scope", "mailbox:admin"]).code(0).out;
    let channel = json!({ "name": "main", "transport": "vault", "config": {} });
    let told = crate::hub_stage::post(tree.mailbox, "/mailbox/api/channels", minted.trim(), &channel).expect("told");
    assert_eq!(told.status, 200, "{}", told.text());
    tree.remove("inbox.yaml");
    tree.pass();
    let kept = fs::read_to_string(tree.stage.path(".trueup/home/mailbox/channels.json")).expect("the channels");
    assert!(kept.contains("\"main\""), "{kept}");
}

/// A token is at its vault, at its sink, and nowhere else.
#[test]
fn no_token_is_shown_logged_or_kept() {
    let tree = Tree::new();
    tree.connect("inbox", "in", "");
    tree.connect("straight", "in", "  delivery: direct\n");
    tree.connection("notes", "  credential: { service: mailbox, key: notes, vaultService: vault, vault: default }\n");
    let _daemon = tree.daemon();
    tree.pass();
    let note = tree.note("hello", "in");
    wait_until("it to have come twice", || tree.arrived().get(&note) == Some(&2));
    let commands: [&[&str]; 9] = [
        &["get", "-o", "json"],
        &["get", "-o", "yaml"],
        &["describe", "Connection/inbox", "-o", "json"],
        &["describe", "Connection/notes", "-o", "json"],
        &["events", "-n", "1000", "-o", "json"],
        &["plan", "-o", "json"],
        &["token", "list", "-o", "json"],
        &["deliveries", "list", "--only", "all", "-o", "json"],
        &["logs", "-n", "1000"],
    ];
    for command in commands {
        let said = tree.stage.run(command).code(0);
        assert!(!said.out.contains("eyJ") && !said.err.contains("eyJ"), "{command:?}: {}{}", said.out, said.err);
    }
    assert!(!tree.stage.daemon_output().contains("eyJ"));
    for file in ["ledger.db", "ledger.db-wal", "hub.db", "hub.db-wal", "deliveries.db", "deliveries.db-wal"] {
        let bytes = fs::read(tree.stage.path(&format!(".trueup/{file}"))).unwrap_or_default();
        assert!(!bytes.windows(6).any(|part| part == b"eyJhbG"), "{file}");
    }
}

/// Modules of another make, written from the description alone.
#[test]
fn a_vault_and_a_sink_of_another_make_are_wired_healed_and_let_go_as_well() {
    let (Some(vault), Some(sink)) = (python_words("vault.py"), python_words("sink.py")) else { return };
    let mut tree = Tree::new();
    tree.played_by("vault.yaml", &vault);
    tree.played_by("mailbox.yaml", &sink);
    tree.connect("inbox", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    let minted = tree.stage.run(&["token", "mint", "--scope", "vault:default:admin"]).code(0).out;
    minted.trim().clone_into(&mut tree.bearer);
    let (trigger, rows) = (tree.trigger(), tree.tokens());
    tree.delete_trigger(trigger["name"].as_str().expect("a name"));
    tree.pass();
    assert_eq!((&tree.trigger()["when"], tree.tokens()), (&trigger["when"], rows));
    tree.stop("mailbox");
    let notes: Vec<String> = (0..20).map(|number| tree.note(&format!("note {number}"), "in")).collect();
    wait_until("the hub to have taken all", || tree.pending().is_empty());
    tree.start("mailbox");
    tree.all_arrive_once(&notes);
    let messages = tree.messages();
    assert_eq!((messages.len(), &messages[0]["claims"]["scope"]), (20, &json!("mailbox:send")), "{}", messages[0]);
    assert_eq!(messages[0]["body"]["params"], json!({ "channel": "main" }));
    tree.remove("inbox.yaml");
    tree.pass();
    assert_eq!((tree.triggers().len(), tree.tokens().len()), (0, 0));
}
