//! What modules and services declare of themselves: what is read, and what is refused where.

use super::declares::declared;
use super::module::{Module, parse};
use crate::desired::Manifest;
use crate::kinds::schema::schemas;
use crate::model::problem::Code;
use crate::model::source::SourceFile;

fn module(fields: &str) -> Result<Module, Vec<String>> {
    let text = format!(
        "{{\"name\":\"agent\",\"manifestName\":\"parachute-agent\",\"port\":1941,\"paths\":[\"/agent\"],\"health\":\"/h\",\n{fields}}}"
    );
    let file = SourceFile { shown: "module.json".into(), path: "/m/module.json".into(), text: text.into() };
    parse(&file).map_err(|problems| {
        assert!(problems.iter().all(|problem| problem.code == Code::BadModule));
        problems.iter().map(|p| format!("{}: {}", p.span().column, p.message)).collect()
    })
}

fn service(spec: &str) -> Vec<String> {
    let text = format!("apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: agent }}\nspec: {spec}\n");
    let file = SourceFile { shown: "a.yaml".into(), path: "/tree/a.yaml".into(), text: text.into() };
    let manifest = Manifest::read(&file, schemas());
    manifest.problems.iter().map(|p| format!("{}: {} {}", p.span().column, p.code, p.message)).collect()
}

#[test]
fn a_module_declares_events_actions_credentials_and_templates() {
    let module = module(
        r#""events": [{ "key": "message.received", "title": "Received", "filterSchema": { "type": "object" }, "beta": 1 }],
        "actions": [
            { "key": "message.deliver", "title": "Deliver", "endpoint": "/api/in", "scope": "agent:send",
              "provision": { "type": "vault-trigger", "own": [1] }, "inputSchema": { "properties": { "channel": {}, "as": {} } } },
            { "key": "bare", "title": "Bare" }
        ],
        "credentials": [{ "key": "notes", "title": "Notes", "description": "d", "scope": "vault:{vault}:write", "endpoint": "/api/c" }],
        "connectionTemplates": [{ "key": "link", "title": "Link", "future": true,
            "source": { "module": "vault", "event": "note.created", "filter": { "tags": ["in"] } },
            "sink": { "module": "agent", "action": "message.deliver" },
            "parameters": [{ "key": "channel", "target": "sink.params.channel" }] }]"#,
    )
    .expect("a module");
    let spec = super::spec::ServiceSpec { module: Some("m".to_owned()), ..Default::default() };
    let all = declared("any", &spec, Some(&module));
    assert_eq!(all.module, "agent");
    let deliver = all.action("message.deliver").expect("an action");
    assert_eq!((deliver.provision_type(), deliver.scope.as_deref()), ("vault-trigger", Some("agent:send")));
    assert_eq!(
        deliver.provision.as_ref().and_then(|how| how.get("own")).map(ToString::to_string).as_deref(),
        Some("[1]")
    );
    assert_eq!(deliver.input_schema.as_ref().map(|schema| schema.keys()), Some(vec!["channel", "as"]));
    assert_eq!(
        all.action("bare").map(|bare| (bare.provision_type(), bare.endpoint.is_none())),
        Some(("vault-trigger", true))
    );
    assert_eq!(all.event("message.received").map(|event| event.title()), Some("Received"));
    let notes = all.credential("notes").expect("a credential");
    assert_eq!((notes.writes(), notes.scope_for("lab")), (true, "vault:lab:write".to_owned()));
    assert_eq!(all.templates[0].parameters[0].target, "sink.params.channel");
    assert_eq!(module.value_at("/actions/1/key").line, 6);
    assert!(all.event("nothing").is_none());
}

#[test]
fn a_wrong_field_refuses_the_whole_module_json() {
    for (fields, wrong) in [
        (r#""events": [{ "title": "x" }]"#, "14: `events[0]` needs the field `key`"),
        (r#""events": [{ "key": "a" }]"#, "14: `events[0]` needs the field `title`"),
        (r#""events": {}"#, "11: `events` must be a list of mappings, not a mapping"),
        (
            r#""actions": [{ "key": "a", "title": "t", "scope": "vault:write" }]"#,
            "50: the scope `vault:write` is not one of `agent`: an action has a scope of its own module",
        ),
        (
            r#""actions": [{ "key": "a", "title": "t", "scope": "agent:send vault:x:admin" }]"#,
            "50: `actions[0].scope` cannot be `agent:send vault:x:admin`: a scope is the module's own name, ':' and a verb, such as agent:send",
        ),
        (
            r#""actions": [{ "key": "a", "title": "t", "scope": "agent:lab:admin" }]"#,
            "50: `actions[0].scope` cannot be `agent:lab:admin`: a scope is the module's own name, ':' and a verb, such as agent:send",
        ),
        (
            r#""actions": [{ "key": "a", "title": "t", "endpoint": "api" }]"#,
            "53: `actions[0].endpoint` cannot be `api`: an endpoint is a path that begins with / and has no spaces",
        ),
        (
            r#""actions": [{ "key": "a", "title": "t", "endpoint": "/../x" }]"#,
            "53: no request can have the path `/../x`",
        ),
        (
            r#""credentials": [{ "key": "a", "title": "t", "scope": "vault:{vault}:admin", "endpoint": "/c" }]"#,
            "54: `credentials[0].scope` cannot be `vault:{vault}:admin`: a credential is vault:{vault}:read or vault:{vault}:write, with these very braces",
        ),
        (
            r#""credentials": [{ "key": "a", "title": "t", "scope": "vault:{vault}:read" }]"#,
            "19: `credentials[0]` needs the field `endpoint`",
        ),
        (
            r#""events": [{ "key": "a", "title": "t" }, { "key": "a", "title": "t" }]"#,
            "51: `a` stands twice in `events`",
        ),
        (
            r#""connectionTemplates": [{ "key": "a", "title": "t", "sink": { "module": "m" } }]"#,
            "53: `connectionTemplates[0].sink` needs the field `action`",
        ),
    ] {
        assert_eq!(module(fields).expect_err(fields), [wrong], "{fields}");
    }
}

#[test]
fn a_module_is_neither_the_hub_nor_one_vault() {
    let action = |name: &str, scope: &str| {
        let text = format!(
            r#"{{ "name": "{name}", "manifestName": "x", "port": 1941, "paths": ["/x"], "health": "/h",
                "actions": [{{ "key": "a", "title": "t", "endpoint": "/in", "scope": "{scope}" }}] }}"#
        );
        parse(&SourceFile { shown: "module.json".into(), path: "/m/module.json".into(), text: text.into() })
            .map_err(|problems| problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>())
    };
    assert!(action("vault", "vault:write").is_ok());
    for (name, scope) in
        [("vault", "vault:default:admin"), ("parachute", "parachute:host:auth"), ("inbox", "inbox:one:two")]
    {
        assert!(action(name, scope).is_err(), "{scope}");
    }
    for name in ["parachute", "hub", "operator", "inbox"] {
        let wrong =
            format!("what is called `{name}` can have no actions and no credentials: the name is the hub's own");
        assert_eq!(action(name, &format!("{name}:victim")).expect_err(name), [wrong]);
    }
    let credential = "{ command: [a], credentials: [{ key: c, scope: 'vault:{vault}:read', endpoint: /c }] }";
    let text = format!("apiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: hub }}\nspec: {credential}\n");
    let file = SourceFile { shown: "a.yaml".into(), path: "/tree/a.yaml".into(), text: text.into() };
    let problems = Manifest::read(&file, schemas()).problems;
    let told: Vec<_> = problems.iter().map(|p| (p.span().line, p.message.as_str())).collect();
    assert_eq!(told, [(3, "what is called `hub` can have no actions and no credentials: the name is the hub's own")]);
}

#[test]
fn a_service_without_module_json_declares_in_its_own_name() {
    let good = "{ command: [a], events: [{ key: e }], actions: [{ key: a, scope: agent:send, endpoint: /in }], \
                credentials: [{ key: c, scope: 'vault:{vault}:read', endpoint: /c }] }";
    assert_eq!(service(good), [""; 0]);
    for (spec, wrong) in [
        (
            "{ command: [a], actions: [{ key: a, scope: other:send }] }",
            "50: E0105 the scope `other:send` is not one of `agent`: an action has a scope of its own module",
        ),
        (
            "{ command: [a], events: [{ key: e, filterShema: {} }] }",
            "42: E0102 `spec.events[0]` has no field `filterShema`",
        ),
        ("{ command: [a], events: [{ key: e }, { key: e }] }", "51: E0110 `e` stands twice in `events`"),
        (
            "{ module: m, events: [{ key: e }] }",
            "20: E0110 `spec.events` stands beside `module`, whose module.json declares them",
        ),
    ] {
        assert_eq!(service(spec), [wrong], "{spec}");
    }
}
