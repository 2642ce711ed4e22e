//! Vaults as resources: made, adopted, kept, and removed with everything that names them.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::stage::{Own, wait_until};
use crate::wiring_stage::Tree;

const DELETE: &str = "  deletionPolicy: Delete\n";

fn folder(tree: &Tree, vault: &str) -> std::path::PathBuf {
    tree.stage.path(&format!(".trueup/home/vault/{vault}"))
}

/// What was done, as `kind/name action`, in order.
fn deeds(answer: &crate::stage::Answer) -> Vec<String> {
    let steps = answer.typed("step");
    let done = steps.iter().filter(|step| step["outcome"] == "changed");
    done.map(|step| {
        format!("{} {}", step["resource"].as_str().expect("an id"), step["action"].as_str().expect("a word"))
    })
    .collect()
}

#[test]
fn a_vault_is_made_one_that_is_there_is_adopted_and_both_stay_when_nobody_declares_them() {
    let tree = Tree::new();
    tree.declare_vault("lab", "");
    tree.declare_vault("main", "  vaultName: default\n");
    tree.pass();
    let note = tree.note("here before", "x");
    assert_eq!(tree.ready("Vault/lab")["reason"], "Present");
    assert_eq!(tree.ready("Vault/main")["status"], "True");
    assert!(folder(&tree, "lab").join("vault.db").exists());
    let kept = tree.note_in("lab", "kept", "x");
    tree.remove("vault-lab.yaml");
    tree.remove("vault-main.yaml");
    tree.pass();
    assert_eq!((tree.resource("Vault/lab"), tree.resource("Vault/main")), (None, None));
    assert_eq!(tree.read_note(&note)["content"], "here before");
    assert!(folder(&tree, "lab").join("vault.db").exists());
    tree.declare_vault("lab", "");
    assert_eq!(deeds(&tree.pass()), ["Vault/lab accept"]);
    assert_ne!(tree.note_in("lab", "more", "x"), kept, "it is the vault that was");
}

#[test]
fn a_vault_that_somebody_removed_is_made_again_with_its_trigger() {
    let tree = Tree::new();
    tree.declare_vault("lab", "");
    tree.connect_from("labs", "lab", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    let home = tree.stage.path(".trueup/home");
    let home = home.to_str().expect("text");
    tree.stage.run(&["demo", "vault", "remove", "lab", "--yes", "--home", home]).code(0);
    assert!(!tree.vault_answers("lab"));
    tree.pass();
    assert_eq!(tree.triggers_of("lab").len(), 1);
    let note = tree.note_in("lab", "hello", "in");
    tree.all_arrive_once([&note]);
    assert_eq!(tree.tokens().len(), 1);
}

#[test]
fn a_vault_that_is_deleted_goes_last_after_all_authority_and_wiring() {
    let tree = Tree::new();
    tree.declare_vault("lab", DELETE);
    tree.connect_from("labs", "lab", "in", "");
    tree.connect("inbox", "in", "");
    tree.pass();
    let mint = |scope: &str| {
        let args = ["token", "mint", "--scope", scope, "-o", "json"];
        tree.stage.run(&args).code(0).typed("minted")[0]["jti"].as_str().expect("an id").to_owned()
    };
    // Names that begin alike are others.
    let (for_lab, for_label) = (mint("vault:lab:read"), mint("vault:label:read"));
    tree.stage.run(&["grant", "add", "alice", "notes", "vault:lab:read", "a:b"]).code(0);
    tree.stage.run(&["grant", "add", "bob", "notes", "vault:lab:write"]).code(0);
    tree.remove("vault-lab.yaml");
    tree.remove("labs.yaml");
    let deeds = deeds(&tree.pass());
    let at = |deed: &str| deeds.iter().position(|one| one == deed).unwrap_or_else(|| panic!("no {deed} in {deeds:?}"));
    assert!(at("Vault/lab strip") < at("Vault/lab remove"), "{deeds:?}");
    assert!(at("Connection/labs unwire") < at("Vault/lab remove"), "{deeds:?}");
    assert!(!folder(&tree, "lab").exists());
    let live = tree.stage.run(&["token", "list", "--revoked", "false", "-o", "json"]).code(0).typed("token");
    let live: Vec<&str> = live.iter().filter_map(|row| row["jti"].as_str()).collect();
    assert!(!live.contains(&for_lab.as_str()) && live.contains(&for_label.as_str()), "{live:?}");
    let grants = tree.stage.run(&["grant", "list", "-o", "json"]).code(0).typed("grant");
    assert_eq!((grants.len(), &grants[0]["scopes"]), (1, &json!(["a:b"])));
    assert_eq!((tree.resource("Vault/lab"), tree.resource("Connection/labs")), (None, None));
    let _daemon = tree.daemon();
    let note = tree.note("the others are as before", "in");
    tree.all_arrive_once([&note]);
    assert_eq!(tree.tokens().len(), 1);
}

#[test]
fn a_vault_that_is_still_used_is_not_deleted() {
    let tree = Tree::new();
    tree.declare_vault("lab", DELETE);
    tree.connect_from("labs", "lab", "in", "");
    let _daemon = tree.daemon();
    tree.pass();
    let note = tree.note_in("lab", "precious", "x");
    tree.remove("vault-lab.yaml");
    let answer = tree.stage.once(&["--timeout", "10s"]);
    let text = format!("{}{}", answer.out, answer.err);
    assert!(answer.code != 0 && text.contains("Connection/labs"), "{}: {text}", answer.code);
    assert!(folder(&tree, "lab").exists(), "{note} is there");
    tree.remove("labs.yaml");
    tree.pass();
    assert!(!folder(&tree, "lab").exists());
}

#[test]
fn more_vaults_than_the_budget_allows_are_removed_only_by_number() {
    let tree = Tree::with_hub("  prune: { maxCount: 1, maxShare: 1% }\n");
    for name in ["one", "two", "three"] {
        tree.declare_vault(name, DELETE);
    }
    let _daemon = tree.daemon();
    tree.pass();
    for name in ["one", "two", "three"] {
        tree.remove(&format!("vault-{name}.yaml"));
    }
    let refused = tree.stage.once(&[]);
    let text = format!("{}{}", refused.out, refused.err);
    assert!(refused.code != 0 && text.contains("--allow-prune"), "{}: {text}", refused.code);
    assert!(["one", "two", "three"].iter().all(|name| folder(&tree, name).exists()));
    tree.stage.once(&["--allow-prune", "3"]).code(0);
    assert!(!["one", "two", "three"].iter().any(|name| folder(&tree, name).exists()));
}

#[test]
fn the_plan_says_when_a_vault_is_the_last_one() {
    let tree = Tree::new();
    tree.declare_vault("default", DELETE);
    tree.declare_vault("lab", DELETE);
    let _daemon = tree.daemon();
    tree.pass();
    let plan = |tree: &Tree| tree.stage.run(&["plan"]).code(0).out;
    tree.remove("vault-lab.yaml");
    wait_until("the daemon to have seen it", || tree.resource("Vault/lab").is_none());
    tree.stop("vault");
    tree.remove("vault-default.yaml");
    let text = plan(&tree);
    assert!(text.contains("it is the last vault of its service"), "{text}");
}

/// Whatever the moment: what was begun is ended by the next pass.
#[test]
fn a_deletion_that_was_killed_is_ended_by_the_next_pass() {
    let tree = Tree::new();
    tree.pass();
    for pause in [30, 80, 150, 250, 400, 600] {
        tree.declare_vault("lab", DELETE);
        tree.connect_from("labs", "lab", "in", "");
        tree.pass();
        assert!(folder(&tree, "lab").exists());
        tree.remove("vault-lab.yaml");
        tree.remove("labs.yaml");
        let child = tree.stage.command(&["reconcile", "--once"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = Own(child.expect("the binary starts"));
        std::thread::park_timeout(std::time::Duration::from_millis(pause));
        let _ = child.0.kill();
        drop(child);
        tree.pass();
        assert!(!folder(&tree, "lab").exists(), "after {pause} ms");
        assert_eq!(tree.tokens(), [] as [Value; 0], "after {pause} ms");
        assert_eq!((tree.resource("Vault/lab"), tree.resource("Connection/labs")), (None, None));
    }
}
