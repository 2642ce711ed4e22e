//! Stories of the hub: it listens where its file says, says why it cannot, and says what is well and what is not.

use std::net::TcpListener;

use crate::hub_stage::{get, hub_at, hub_condition, staged};
use crate::stage::{free_port, listens, shell, wait_until};

#[test]
fn it_listens_where_its_file_says_and_moves_when_that_changes() {
    let (stage, port) = staged();
    let daemon = stage.daemon();
    wait_until("the hub", || listens(port));
    let health = get(port, "/healthz").expect("an answer");
    assert_eq!(health.status, 200);
    assert_eq!((&health.json()["status"], &health.json()["db"]), (&"ok".into(), &"ok".into()));
    wait_until("its standing", || hub_condition(&stage, "Ready").is_some_and(|c| c["reason"] == "Serving"));
    let other = free_port();
    stage.write("hub.yaml", &hub_at(other));
    wait_until("the hub at its new place", || listens(other) && !listens(port));
    stage.hub();
    wait_until("no hub", || !listens(other));
    assert_eq!(hub_condition(&stage, "Ready").expect("a condition")["reason"], "Accepted");
    drop(daemon);
}

#[test]
fn a_taken_address_is_said_and_tried_again() {
    let (stage, port) = staged();
    let squatter = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let _daemon = stage.daemon();
    wait_until("the trouble", || hub_condition(&stage, "Ready").is_some_and(|c| c["reason"] == "PortTaken"));
    let said = hub_condition(&stage, "Ready").expect("a condition")["message"].to_string();
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(said.contains(&format!("pid {}", std::process::id())), "the holder is named: {said}");
    drop(squatter);
    wait_until("the hub", || get(port, "/healthz").is_ok_and(|answer| answer.status == 200));
}

#[test]
fn who_serves_is_written_down_and_taken_away_with_it() {
    let (stage, port) = staged();
    let daemon = stage.daemon();
    let path = stage.path(".trueup/home/hub-instance.json");
    let card = || serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&path).unwrap_or_default());
    wait_until("the self-probe", || card().is_ok_and(|card| card["selfProbe"]["status"] == "ok"));
    let card = card().expect("a card");
    assert_eq!(card["port"], port);
    assert_eq!(card["pid"], daemon.0.id());
    assert_eq!(card["instance"], get(port, "/health").expect("an answer").json()["instance"]);
    stage.run(&["down"]).code(0);
    assert!(!path.exists());
}

#[test]
fn what_a_person_stopped_does_not_make_it_unready() {
    let (stage, port) = staged();
    let (one, two) = (free_port(), free_port());
    stage.mailbox("one", one, "");
    stage.mailbox("two", two, "  suspend: true\n");
    let _daemon = stage.daemon();
    let ready = |path: &str| get(port, path).ok();
    wait_until("everything", || ready("/readyz").is_some_and(|answer| answer.status == 200));
    let older = ready("/api/ready").expect("an answer").json();
    assert_eq!((&older["ready"], &older["ready_modules"]), (&true.into(), &serde_json::json!(["one"])));
    stage.write("three.yaml", &shell("three", "exit 3", &format!("  port: {}\n", free_port())));
    wait_until("what crashes", || ready("/readyz").is_some_and(|answer| answer.status == 503));
    let waiting = ready("/readyz").expect("an answer").json()["waiting"].to_string();
    assert!(waiting.contains("\"three\""), "{waiting}");
}

#[test]
fn a_listen_that_takes_the_port_of_a_service_drives_nobody_out() {
    let (stage, port) = staged();
    let web = free_port();
    stage.mailbox("web", web, "");
    let _daemon = stage.daemon();
    wait_until("everything", || get(port, "/readyz").is_ok_and(|answer| answer.status == 200) && stage.is_ready("web"));
    let pid = stage.pid("web");
    stage.write("hub.yaml", &hub_at(web));
    wait_until("the mistake to be told", || stage.daemon_output().contains("\"E0204\""));
    wait_until("the Hub to be held", || {
        let answer = stage.run(&["get", "Hub/home", "-o", "json"]);
        answer.typed("resource").pop().is_some_and(|row| row["phase"].as_str().is_some_and(|p| p.contains("Held")))
    });
    assert_eq!(get(port, "/healthz").map(|answer| answer.status), Ok(200), "it goes on where it was");
    assert_eq!((stage.pid("web"), stage.get("web")["restarts"].as_u64()), (pid, Some(0)));
    let other = free_port();
    stage.write("hub.yaml", &hub_at(other));
    wait_until("the hub at its new place", || listens(other) && !listens(port));
}
