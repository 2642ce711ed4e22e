//! Connections and vaults against the services that they name.

use super::tests::{HUB, codes, last_good, link, link_with, module_at, service, used};
use super::*;
use crate::kinds::service::module::Modules;
use crate::model::id::{Name, ResourceId};
use crate::model::problem::Code;

const VAULT: &str = "{ command: [v], port: 1940, events: [{ key: note.created }, { key: note.updated, filterSchema: { properties: { tags: { type: array } } } }, { key: note.deleted }] }";
const SINK: &str = "{ command: [s], port: 1941, actions: [{ key: deliver, endpoint: /in, scope: sink:send, inputSchema: { properties: { channel: { type: string } } } }, { key: bare }, { key: odd, endpoint: /o, scope: sink:o, provision: { type: pigeon } }], credentials: [{ key: notes, scope: 'vault:{vault}:write', endpoint: /c }] }";

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: trueup/v1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

fn services() -> String {
    service("vault", VAULT) + &service("sink", SINK)
}

fn wired(source: &str, sink: &str, more: &str) -> String {
    document("Connection", "c", &format!("{{ source: {{ {source} }}, sink: {{ {sink} }}{more} }}"))
}

const SOURCE: &str = "service: vault, vault: default, event: note.created";
const TO: &str = "service: sink, action: deliver";

/// `E0202 message (hint)` of every problem of the services and this connection.
fn told(connection: &str) -> Vec<String> {
    let desired = link(&(services() + connection), "");
    let line = |problem: &Problem| {
        let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{} {}{hint}", problem.code, problem.message)
    };
    desired.problems.iter().map(line).collect()
}

#[test]
fn a_connection_that_fits_is_used() {
    let filter = "filter: { tags: [in], has_content: true }";
    let text = wired(&format!("{SOURCE}, {filter}"), &format!("{TO}, params: {{ channel: main }}"), "");
    assert_eq!(told(&text), [""; 0]);
    let desired = link(&(services() + &text), "");
    assert_eq!(used(&desired), ["home", "sink", "vault", "c"]);
    let credential = "{ credential: { service: sink, key: notes, vaultService: vault, vault: default, tags: [in] } }";
    assert_eq!(told(&document("Connection", "c", credential)), [""; 0]);
}

#[test]
fn what_nobody_declares_is_told_with_what_was_meant() {
    for (connection, wrong) in [
        (
            wired("service: vualt, vault: default, event: note.created", TO, ""),
            "E0202 Connection/c depends on Service/vualt, which no manifest declares (did you mean `vault`?)",
        ),
        (
            wired("service: vault, vault: default, event: note.craeted", TO, ""),
            "E0213 Service/vault declares no event `note.craeted` (did you mean `note.created`?)",
        ),
        (
            wired("service: sink, vault: default, event: note.created", TO, ""),
            "E0213 Service/sink declares no event `note.created` (it declares none; the Service would say so under `events`)",
        ),
        (
            wired("service: vault, vault: default, event: note.deleted", TO, ""),
            "E0216 Connection/c cannot listen to `note.deleted`: a vault has no trigger for deleted notes: there is no note left to mark as sent (triggers are for `note.created` and `note.updated`)",
        ),
        (
            wired(SOURCE, "service: sink, action: delivr", ""),
            "E0214 Service/sink declares no action `delivr` (did you mean `deliver`?)",
        ),
        (
            wired(SOURCE, "service: sink, action: bare", ""),
            "E0217 no connection can use the action `bare` of Service/sink: it has no `endpoint` (the module has to declare it; a connection can do nothing about it)",
        ),
        (
            wired(SOURCE, "service: sink, action: odd", ""),
            "E0217 no connection can use the action `odd` of Service/sink: it is provisioned by `pigeon`, and only `vault-trigger` is known (the module has to declare it; a connection can do nothing about it)",
        ),
        (
            wired(SOURCE, TO, ", delivery: direct"),
            "E0218 Service/sink has no route, so the hub cannot pass on what a vault sends to it (use `delivery: durable`, or give the service a route)",
        ),
        (
            document(
                "Connection",
                "c",
                "{ credential: { service: sink, key: note, vaultService: vault, vault: default } }",
            ),
            "E0215 Service/sink declares no credential `note` (did you mean `notes`?)",
        ),
        (
            document(
                "Connection",
                "c",
                "{ credential: { service: sink, key: notes, vaultService: vault, vault: default } }",
            ),
            "E0106 Connection/c lets Service/sink write every note of default (add `tags: [...]`: a credential that may write is for notes with at least one tag)",
        ),
        (
            document("Vault", "default", "{ service: valt }"),
            "E0202 Vault/default depends on Service/valt, which no manifest declares (did you mean `vault`?)",
        ),
    ] {
        assert_eq!(told(&connection), [wrong], "{connection}");
    }
}

#[test]
fn filters_and_params_are_checked_where_they_stand() {
    let text = services()
        + &wired(&format!("{SOURCE}, filter: {{ color: red }}"), &format!("{TO}, params: {{ chanel: a }}"), "");
    let desired = link(&text, "");
    assert_eq!(codes(&desired), [Code::UnknownField, Code::UnknownField]);
    let spots: Vec<&str> =
        desired.problems.iter().map(|p| &text[p.span().start as usize..p.span().end as usize]).collect();
    assert_eq!(spots, ["color", "chanel"]);
    assert_eq!(desired.problems[1].hint.as_deref(), Some("did you mean `channel`?"));
    assert_eq!(desired.problems[1].labels[1].text, "declared here");
    assert_eq!(used(&desired), ["home", "sink", "vault"], "what is wrong is not used, and the rest is");
    // The event has a schema of its own, and that does not name everything a vault knows.
    let updated = SOURCE.replace("created", "updated");
    let narrow = wired(&format!("{updated}, filter: {{ has_content: true }}"), TO, "");
    assert_eq!(told(&narrow), ["E0102 `spec.source.filter` has no field `has_content` (what is declared is `tags`)"]);
}

#[test]
fn what_a_sink_is_told_first_is_checked_as_well() {
    let prepare =
        |fields: &str| wired(SOURCE, &format!("{TO}, params: {{ channel: main }}, prepare: {{ {fields} }}"), "");
    let good = "scope: sink:admin, token: 'vault:{vault}:write', put: { path: /api/c, body: { name: '{params.channel}', t: '{token}' } }";
    assert_eq!(told(&prepare(good)), [""; 0]);
    assert_eq!(
        told(&prepare(&good.replace("sink:admin", "vault:admin"))),
        ["E0105 `vault:admin` is no scope of Service/sink (it is `sink:` and a verb)"]
    );
    assert_eq!(
        told(&prepare(&good.replace("{params.channel}", "{params.chan}"))),
        ["E0106 nothing is given for `{params.chan}` (add `chan: ...` to `spec.sink.params`)"]
    );
    assert_eq!(
        told(&prepare(&good.replace("'{params.channel}'", "'{chanel}'"))),
        ["E0105 there is no `{chanel}` (there is `connection`, `vault`, `vaultUrl`, `token` and `params.NAME`)"]
    );
    assert_eq!(
        told(&prepare(&good.replace("/api/c,", "'/api/{token}',"))),
        ["E0105 a path cannot have `{token}` in it (send it in `body`)"]
    );
    let to = |value: &str| {
        let prepare = format!("{{ {good}, remove: '/api/c/{{params.channel}}' }}");
        told(&wired(SOURCE, &format!("{TO}, params: {{ channel: '{value}' }}, prepare: {prepare}"), ""))
    };
    let hint = "change the parameter in `spec.sink.params`";
    assert_eq!(to("a/b"), [""; 0]);
    assert_eq!(
        to(".."),
        [format!("E0105 with its parameters the path is `/api/c/..`, which leads somewhere else ({hint})")]
    );
    assert_eq!(
        to("{token}"),
        [format!("E0105 a parameter brings `{{token}}` with it, where nothing is filled any more ({hint})")]
    );
    assert_eq!(
        told(&prepare(&good.replace("'vault:{vault}:write'", "vault:other:write"))),
        [
            "E0105 `vault:other:write` is no scope of the vault that the events come from (write `vault:{vault}:read` or `vault:{vault}:write`, with these very braces)"
        ]
    );
    assert_eq!(
        told(&prepare(&good.replace("token: 'vault:{vault}:write', ", ""))),
        ["E0106 there is no `{token}` to send (add `token: vault:{vault}:write` to `spec.sink.prepare`)"]
    );
}

#[test]
fn of_two_with_one_trigger_the_newcomer_is_refused() {
    let one = wired(SOURCE, TO, ", triggerName: conn_x");
    let other = one.replace("name: c }", "name: d }");
    let before = services() + &one;
    let desired = link(&(before.clone() + &other), &before);
    assert_eq!(codes(&desired), [Code::TriggerClash]);
    assert_eq!(used(&desired), ["home", "sink", "vault", "c"]);
    assert_eq!(
        desired.problems[0].message,
        "Connection/c and Connection/d both want the trigger `conn_x` at vault default of Service/vault"
    );
    let elsewhere = other.replace("vault: default", "vault: lab");
    assert_eq!(codes(&link(&(before.clone() + &elsewhere), &before)), []);
    let vaults = document("Vault", "default", "{ service: vault }")
        + &document("Vault", "also", "{ service: vault, vaultName: default }");
    assert_eq!(codes(&link(&(services() + &vaults), "")), [Code::VaultClash]);
}

#[test]
fn a_vault_of_another_service_is_a_mistake() {
    let text = service("other", &VAULT.replace("1940", "1942"))
        + &document("Vault", "default", "{ service: other }")
        + &wired(SOURCE, TO, "");
    let desired = link(&(services() + &text), "");
    assert_eq!((codes(&desired), desired.errors()), (vec![Code::OtherVault], 1));
    assert_eq!(used(&desired), ["home", "other", "sink", "vault", "default"]);
    let own = document("Vault", "mine", "{ service: vault, vaultName: default }");
    let both = link(&(services() + &text + &own), &(services() + &text));
    assert_eq!(codes(&both), [Code::OtherVault, Code::VaultClash]);
    assert_eq!(
        both.problems[1].message,
        "Vault/default and Vault/mine both want a vault `default`, of the services `other` and `vault`: tokens know a vault by its name alone"
    );
    // Those that only connections name count as well.
    let two = service("other", &VAULT.replace("1940", "1942"))
        + &wired(SOURCE, TO, "")
        + &wired(&SOURCE.replace("service: vault", "service: other"), TO, "").replace("name: c }", "name: d }");
    assert_eq!(codes(&link(&(services() + &two), "")), [Code::VaultClash]);
    assert_eq!(
        codes(&link(&(services() + &two.replace("service: other, vault: default", "service: other, vault: lab")), "")),
        []
    );
}

#[test]
fn a_trigger_name_that_is_anothers_by_itself_clashes() {
    let home = Name::new("home").expect("a name");
    let derived = crate::kinds::trigger::name(&home, "default", &Name::new("c").expect("a name"));
    let other = |name: &str| wired(SOURCE, TO, &format!(", triggerName: {name}")).replace("name: c }", "name: d }");
    let text = services() + &wired(SOURCE, TO, "");
    assert_eq!(codes(&link(&(text.clone() + &other(&derived)), &text)), [Code::TriggerClash]);
    assert_eq!(codes(&link(&(text.clone() + &other("conn_other")), &text)), []);
}

#[test]
fn two_that_take_back_the_same_from_a_sink_clash() {
    let prepared = |name: &str, channel: &str| {
        let prepare = "scope: sink:admin, put: { path: /api/c, body: { name: '{params.channel}' } }, remove: '/api/c/{params.channel}'";
        wired(SOURCE, &format!("{TO}, params: {{ channel: {channel} }}, prepare: {{ {prepare} }}"), "")
            .replace("name: c }", &format!("name: {name} }}"))
    };
    let text = services() + &prepared("c", "main");
    let desired = link(&(text.clone() + &prepared("d", "main")), &text);
    assert_eq!(
        (codes(&desired), used(&desired)),
        (vec![Code::Conflict], vec!["home", "sink", "vault", "c"].into_iter().map(str::to_owned).collect())
    );
    assert_eq!(
        desired.problems[0].message,
        "Connection/c and Connection/d both want what is removed from Service/sink by `/api/c/main`"
    );
    assert_eq!(codes(&link(&(text.clone() + &prepared("d", "side")), &text)), []);
}

const MODULE: &str = r#"{"name":"sink","manifestName":"sink","port":1941,"paths":["/sink"],"health":"/h","startCmd":["v"],
"actions":[{"key":"deliver","title":"Deliver","endpoint":"/in","scope":"sink:send","inputSchema":{"type":"oops","properties":{"a":{}}}}]}"#;

#[test]
fn a_module_that_stops_declaring_what_is_used_is_held_and_not_who_uses_it() {
    let text = service("vault", VAULT) + &service("sink", "{ module: m }") + &wired(SOURCE, TO, "");
    let files = [("hub.yaml", HUB), ("a.yaml", text.as_str())];
    let modules: Modules = module_at(MODULE);
    let desired = link_with(&files, &modules, &[]);
    assert_eq!((codes(&desired), desired.errors()), (vec![Code::BrokenSchema], 0), "a broken schema is worth a word");
    assert_eq!(&*desired.problems[0].span().file, "m/module.json");

    let sink: ResourceId = "Service/sink".parse().expect("an id");
    let mut before = last_good(&text);
    for last in before.iter_mut().filter(|last| last.id == sink) {
        last.module = desired.resources[&sink].module.clone();
    }
    let renamed = module_at(&MODULE.replace("deliver", "hand-over").replace("oops", "object"));
    let desired = link_with(&files, &renamed, &before);
    assert_eq!(codes(&desired), [Code::UnknownAction]);
    assert_eq!(used(&desired), ["home", "sink!", "vault", "c"]);
    let new = link_with(&files, &renamed, &[]);
    assert_eq!(used(&new), ["home", "sink", "vault"], "what never worked is the connection's own mistake");
}
