//! The module API of the older hub, row by row: paths, fields, words.

use serde_json::{Value, json};

use crate::stage::{Stage, alive, free_port, listens, shell, wait_until};
use crate::web::{Answered, Call, Hub, minted, ready};

const ROW: [&str; 18] = [
    "short",
    "package",
    "display_name",
    "tagline",
    "focus",
    "available",
    "available_to_install",
    "installed",
    "installed_version",
    "latest_version",
    "upgrade_available",
    "supervisor_status",
    "pid",
    "supervisor_start_error",
    "install_dir",
    "uis",
    "management_url",
    "config_ui_url",
];
const SUPERVISED: [&str; 6] =
    ["short", "installed", "installed_version", "supervisor_status", "pid", "supervisor_start_error"];

fn call(hub: &Hub, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answered {
    let bearer = format!("Bearer {token}");
    let text = body.map(ToString::to_string);
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let path = format!("/api/modules{path}");
    Call { port: hub.port, method, path: &path, headers: &headers, body: text.as_deref().map(str::as_bytes) }.send()
}

fn get(hub: &Hub, path: &str) -> Answered {
    call(hub, &hub.admin, "GET", path, None)
}

fn post(hub: &Hub, path: &str) -> Answered {
    call(hub, &hub.admin, "POST", path, Some(&json!({})))
}

/// A hub with a vault and a third-party module that run.
fn running() -> Hub {
    let stage = Stage::new();
    stage.mailbox("vault", free_port(), "");
    stage.mailbox("other", free_port(), "");
    let hub = Hub::start(stage);
    wait_until("the modules", || {
        ["vault", "other"].iter().all(|name| hub.resource(name).is_some_and(|r| ready(&r)))
            && get(&hub, "").json()["modules"]
                .as_array()
                .is_some_and(|all| all.len() == 2 && all.iter().all(|module| module["supervisor_status"] == "running"))
    });
    hub
}

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn pid(hub: &Hub, name: &str) -> u64 {
    hub.resource(name).and_then(|r| r["pid"].as_u64()).expect("a process")
}

#[track_caller]
fn refused(answer: Answered, status: u16, code: &str) {
    let answer = answer.status(status);
    assert_eq!(answer.json()["error"], code, "{}", answer.text());
    assert!(answer.json()["error_description"].as_str().is_some_and(|text| text.len() > 10), "{}", answer.text());
}

#[test]
fn modules_are_listed_with_their_fields_in_their_order() {
    let hub = running();
    let list = get(&hub, "").status(200).json();
    assert_eq!(fields(&list), ["modules", "supervised", "supervisor_available", "module_install_channel"]);
    assert_eq!((&list["supervisor_available"], &list["module_install_channel"]), (&json!(true), &json!("latest")));
    let all = list["modules"].as_array().expect("modules");
    assert_eq!(all.iter().map(|m| m["short"].as_str()).collect::<Vec<_>>(), [Some("vault"), Some("other")]);
    assert!(all.iter().all(|module| fields(module) == ROW));
    assert!(list["supervised"].as_array().expect("a list").iter().all(|module| fields(module) == SUPERVISED));
    let vault = &all[0];
    assert_eq!((&vault["package"], &vault["focus"]), (&json!("@openparachute/vault"), &json!("core")));
    assert_eq!((&vault["pid"], &vault["installed"]), (&json!(pid(&hub, "vault")), &json!(true)));
    assert_eq!(all[1]["focus"], "experimental", "a third-party module is a module as well");
    let bare = Call { port: hub.port, method: "GET", path: "/api/modules", headers: &[], body: None };
    refused(bare.send(), 401, "unauthenticated");
    let stranger = minted(&hub.stage, "a:b");
    refused(call(&hub, &stranger, "GET", "", None), 403, "insufficient_scope");
}

#[test]
fn the_channel_is_set() {
    let hub = running();
    let set = |body: &Value| call(&hub, &hub.admin, "PUT", "/channel", Some(body));
    assert_eq!(set(&json!({ "channel": "rc" })).status(200).json(), json!({ "channel": "rc" }));
    assert_eq!(get(&hub, "").json()["module_install_channel"], "rc");
    refused(set(&json!({ "channel": "nightly" })), 400, "invalid_channel");
    refused(set(&json!({})), 400, "invalid_channel");
}

#[test]
fn a_module_is_started() {
    let hub = running();
    let first = pid(&hub, "other");
    let state = post(&hub, "/other/start").status(200).json();
    assert_eq!((&state["short"], &state["state"]["status"]), (&json!("other"), &json!("running")));
    assert_eq!(state["state"]["pid"], first, "what runs is left alone");
    post(&hub, "/other/stop").status(200);
    let state = post(&hub, "/other/start").status(200).json();
    assert!(["running", "starting"].contains(&state["state"]["status"].as_str().unwrap_or_default()), "{state}");
    wait_until("the module", || hub.resource("other").is_some_and(|r| ready(&r)));
    refused(post(&hub, "/surface/start"), 400, "not_installed");
    refused(post(&hub, "/nobody/start"), 404, "not_found");
    hub.stage.write("bad.yaml", &shell("bad", "exit 0", "  nonsense: 1\n"));
    wait_until("the mistake", || hub.resource("bad").is_some());
    refused(post(&hub, "/bad/start"), 422, "no_start_cmd");
}

#[test]
fn a_module_is_stopped() {
    let hub = running();
    let first = pid(&hub, "vault");
    let stopped = post(&hub, "/vault/stop").status(200).json();
    assert_eq!(fields(&stopped), ["short", "stopped", "state"]);
    assert_eq!((&stopped["stopped"], &stopped["state"]["status"]), (&json!(true), &json!("stopped")), "{stopped}");
    assert!(!alive(first));
    assert_eq!(post(&hub, "/vault/stop").status(200).json(), json!({ "short": "vault", "stopped": false }));
    refused(post(&hub, "/nobody/stop"), 404, "not_found");
}

#[test]
fn a_module_is_restarted() {
    let hub = running();
    let first = pid(&hub, "other");
    let state = post(&hub, "/other/restart").status(200).json();
    assert_eq!(fields(&state), ["short", "state"]);
    assert!(!alive(first));
    wait_until("another process", || pid(&hub, "other") != first);
    post(&hub, "/other/stop").status(200);
    refused(post(&hub, "/other/restart"), 404, "not_supervised");
}

#[test]
fn what_is_declared_and_runs_is_installed_already_and_nothing_else_is_installed_by_a_call() {
    let hub = running();
    let begun = post(&hub, "/vault/install").status(202).json();
    assert_eq!(fields(&begun), ["operation_id"]);
    let path = format!("/operations/{}", begun["operation_id"].as_str().expect("an id"));
    let operation = get(&hub, &path).status(200).json();
    assert_eq!((&operation["status"], &operation["kind"]), (&json!("succeeded"), &json!("install")));
    let nightly = json!({ "channel": "nightly" });
    refused(call(&hub, &hub.admin, "POST", "/vault/install", Some(&nightly)), 400, "invalid_channel");
    refused(post(&hub, "/runner/install"), 410, "module_retired");
    refused(post(&hub, "/surface/install"), 409, "managed_by_manifests");
    refused(post(&hub, "/nobody/install"), 404, "not_found");
    assert_eq!(call(&hub, &hub.admin, "POST", "/vault/install", None).status, 202, "a body is not needed");
}

#[test]
fn upgrading_is_left_to_the_manifests() {
    let hub = running();
    refused(post(&hub, "/vault/upgrade"), 409, "managed_by_manifests");
    refused(post(&hub, "/nobody/upgrade"), 404, "not_found");
}

#[test]
fn uninstalling_is_left_to_the_manifests() {
    let hub = running();
    refused(post(&hub, "/other/uninstall"), 409, "managed_by_manifests");
    assert!(alive(pid(&hub, "other")));
    refused(post(&hub, "/nobody/uninstall"), 404, "not_found");
}

#[test]
fn output_is_read_and_followed() {
    let stage = Stage::new();
    let port = free_port();
    let more = format!("  port: {port}\n");
    stage.write("talk.yaml", &shell("talk", "echo one; echo two; exec sleep 1000", &more));
    let hub = Hub::start(stage);
    wait_until("its output", || {
        let answer = get(&hub, "/talk/logs");
        answer.status == 200 && answer.json()["lines"].as_array().is_some_and(|lines| lines.len() == 2)
    });
    assert_eq!(
        get(&hub, "/talk/logs").json(),
        json!({ "short": "talk", "lines": ["one", "two"], "text": "one\ntwo\n" })
    );
    let bearer = format!("Bearer {}", hub.admin);
    let headers = [("Authorization", bearer.as_str())];
    let path = "/api/modules/talk/logs?follow=1";
    let mut stream = Call { port: hub.port, method: "GET", path, headers: &headers, body: None }.stream();
    assert!(stream.headers.iter().any(|(name, value)| name == "content-type" && value.starts_with("text/plain")));
    assert_eq!((stream.line().as_deref(), stream.line().as_deref()), (Some("one"), Some("two")));
    refused(get(&hub, "/nobody/logs"), 404, "not_found");
    assert!(!listens(port));
}

#[test]
fn operations_are_kept_and_told() {
    let hub = running();
    let begun = hub.post("/services/other/restart?wait=60s", None).status(200).json();
    let operation = get(&hub, &format!("/operations/{}", begun["id"].as_str().expect("an id"))).status(200).json();
    assert_eq!(fields(&operation), ["id", "kind", "short", "status", "log", "startedAt", "finishedAt"], "{operation}");
    assert_eq!((&operation["kind"], &operation["short"]), (&json!("restart"), &json!("other")));
    assert!(operation["log"].as_array().is_some_and(|log| !log.is_empty() && log.iter().all(Value::is_string)));
    refused(get(&hub, "/operations/none"), 404, "not_found");
}

#[test]
fn what_is_served_is_told_to_everybody() {
    let stage = Stage::new();
    let routes = "  routes: [{ path: /vault/default }, { path: /vault/lab }]\n";
    stage.mailbox("vault", free_port(), routes);
    let hub = Hub::start(stage);
    let told =
        || Call { port: hub.port, method: "GET", path: "/.well-known/parachute.json", headers: &[], body: None }.send();
    wait_until("the vaults", || told().json()["vaults"].as_array().is_some_and(|all| all.len() == 2));
    let answer = told().status(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let document = answer.json();
    assert_eq!(document["vaults"][1]["url"], format!("http://127.0.0.1:{}/vault/lab", hub.port));
    assert_eq!((document["services"][0]["path"].as_str(), fields(&document)[2]), (Some("/vault/default"), "vault"));
}
