//! The graph: what is held, what moves, and what is said.

use proptest::prelude::*;

use super::*;
use crate::kinds::schema::schemas;
use crate::kinds::service::module::{self, ModuleFault};
use crate::model::problem::Code;

pub(super) const HUB: &str = "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\n";

pub(super) fn source(name: &str, text: &str) -> SourceFile {
    SourceFile { shown: name.into(), path: format!("/tree/{name}").into(), text: text.into() }
}

pub(super) fn service(name: &str, spec: &str) -> String {
    format!("---\napiVersion: trueup/v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

pub(super) fn last_good(text: &str) -> Vec<LastGood> {
    let manifest = Manifest::read(&source("old.yaml", text), schemas());
    assert_eq!(manifest.problems, []);
    let keep = |entry: &Entry| LastGood {
        id: entry.document.id.clone(),
        document: entry.document.json.clone(),
        base: "/tree".into(),
        source: entry.document.origin.to_string(),
        module: None,
        refused: None,
    };
    manifest.entries.iter().map(keep).collect()
}

pub(super) fn link_with(files: &[(&str, &str)], modules: &Modules, last_good: &[LastGood]) -> Desired {
    let manifests: Vec<Arc<Manifest>> =
        files.iter().map(|(name, text)| Arc::new(Manifest::read(&source(name, text), schemas()))).collect();
    let root: Arc<str> = "tree".into();
    Desired::link(Input { root: &root, manifests: &manifests, problems: &[], modules, last_good })
}

/// Links one file, beside a good Hub, over what was applied before.
pub(super) fn link(text: &str, before: &str) -> Desired {
    link_with(&[("hub.yaml", HUB), ("a.yaml", text)], &Modules::new(), &last_good(before))
}

/// `Service/web` or, when it is held, `Service/web!`, in order.
pub(super) fn used(desired: &Desired) -> Vec<String> {
    let mark = |id: &ResourceId| if desired.resources[id].held.is_some() { "!" } else { "" };
    desired.order.iter().map(|id| format!("{}{}", id.name, mark(id))).collect()
}

pub(super) fn codes(desired: &Desired) -> Vec<Code> {
    desired.problems.iter().map(|problem| problem.code).collect()
}

#[test]
fn a_service_with_a_mistake_is_absent_and_the_rest_is_there() {
    let desired = link(&(service("web", "{ command: [a], prot: 1 }") + &service("api", "{ command: [b] }")), "");
    assert_eq!((desired.errors(), desired.complete), (1, false));
    assert_eq!(used(&desired), ["home", "api"]);
}

#[test]
fn what_is_no_longer_declared_is_gone_only_from_a_tree_without_errors() {
    let before = service("web", "{ command: [a] }") + &service("old", "{ command: [b] }");
    let desired = link(&service("web", "{ command: [new] }"), &before);
    assert_eq!((used(&desired), desired.complete), (vec!["home".into(), "web".into()], true));
    let desired = link(&service("web", "{ comand: [new] }"), &before);
    assert_eq!((used(&desired), desired.complete), (vec!["home".into(), "old!".into(), "web!".into()], false));
    let web = &desired.resources[&"Service/web".parse().expect("an id")];
    assert_eq!(web.spec.as_service().expect("a service").command.as_deref(), Some(&["a".to_owned()][..]));
    assert_eq!(
        web.held.as_ref().and_then(|held| held.span.clone()).map(|span| span.to_string()),
        Some("a.yaml:5:9".into())
    );
}

#[test]
fn a_file_that_cannot_be_read_holds_what_it_may_have_declared() {
    let scan = Problem::error(Code::Unreadable, Span::file_start("b.yaml".into()), "permission denied");
    let manifests = [Arc::new(Manifest::read(&source("hub.yaml", HUB), schemas()))];
    let (root, before): (Arc<str>, _) = ("tree".into(), last_good(&service("web", "{ command: [a] }")));
    let input =
        Input { root: &root, manifests: &manifests, problems: &[scan], modules: &Modules::new(), last_good: &before };
    let desired = Desired::link(input);
    assert_eq!((used(&desired), desired.complete), (vec!["home".into(), "web!".into()], false));
}

#[test]
fn who_did_not_change_is_not_held_for_a_clash() {
    let web = service("web", "{ command: [a], port: 1950 }");
    let desired = link(&(web.clone() + &service("api", "{ command: [b], port: 1950 }")), &web);
    assert_eq!((used(&desired), codes(&desired)), (vec!["home".into(), "web".into()], vec![Code::PortClash]));
    assert_eq!(desired.problems[0].span().line, 10, "it is reported at the newcomer");
}

#[test]
fn a_suspended_service_lends_its_port_and_route() {
    let spec = "{ command: [a], port: 1950, routes: [{ path: /web }]";
    let text = service("blue", &format!("{spec} }}")) + &service("green", &format!("{spec}, suspend: true }}"));
    assert_eq!(codes(&link(&text, "")), []);
}

#[test]
fn a_cycle_holds_its_members_at_the_versions_without_it() {
    let before = service("a", "{ command: [a] }") + &service("b", "{ command: [b], dependsOn: [{ service: a }] }");
    let after = service("a", "{ command: [a], dependsOn: [{ service: b }] }")
        + &service("b", "{ command: [b], dependsOn: [{ service: a }] }");
    let desired = link(&after, &before);
    assert_eq!((used(&desired), codes(&desired)), (vec!["home".into(), "a!".into(), "b".into()], vec![Code::Cycle]));
    assert!(desired.problems[0].message.ends_with("a -> b -> a"), "{}", desired.problems[0].message);
}

#[test]
fn two_cycles_are_two_problems_with_the_shortest_way_each() {
    let needs = |name: &str, others: &[&str]| {
        let list: Vec<String> = others.iter().map(|other| format!("{{ service: {other} }}")).collect();
        service(name, &format!("{{ command: [a], dependsOn: [{}] }}", list.join(", ")))
    };
    let text = needs("a", &["b", "c"])
        + &needs("b", &["c"])
        + &needs("c", &["a"])
        + &needs("d", &["a", "e"])
        + &needs("e", &["d"]);
    let messages: Vec<String> = link(&text, "").problems.into_iter().map(|problem| problem.message).collect();
    let tails: Vec<&str> = messages.iter().filter_map(|message| message.split(": ").nth(1)).collect();
    assert_eq!(tails, ["a -> c -> a", "d -> e -> d"]);
}

#[test]
fn a_hub_is_kept_while_the_new_one_is_broken() {
    let before = last_good(&HUB.replace("home }", "home }\nspec: { listen: 127.0.0.1:2000 }"));
    let broken = HUB.replace("home }", "home }\nspec: { listen: nowhere }");
    let desired = link_with(&[("hub.yaml", &broken)], &Modules::new(), &before);
    assert_eq!((used(&desired), codes(&desired)), (vec!["home!".into()], vec![Code::OutOfRange]));
    assert_eq!(desired.hub.expect("a hub").listen, "127.0.0.1:2000");
    let desired = link_with(&[("hub.yaml", "kind: [")], &Modules::new(), &before);
    assert_eq!((used(&desired), codes(&desired)), (vec!["home!".into()], vec![Code::Syntax]));
    let desired = link_with(&[], &Modules::new(), &before);
    assert_eq!((used(&desired), codes(&desired)), (vec!["home!".into()], vec![Code::NotATree]));
}

pub(super) fn module_at(text: &str) -> Modules {
    let file =
        SourceFile { shown: "m/module.json".into(), path: "/tree/m/.parachute/module.json".into(), text: text.into() };
    let read =
        module::parse(&file).map(Arc::new).map_err(|problems| ModuleFault::Invalid { source: file.clone(), problems });
    [(file.path, read)].into()
}

#[test]
fn a_module_that_breaks_holds_its_service_with_the_manifest_it_had() {
    let good = r#"{"name":"vault","manifestName":"parachute-vault","port":1940,"paths":["/vault"],"health":"/h","startCmd":["v"]}"#;
    let text = service("vault", "{ module: m }");
    let files = [("hub.yaml", HUB), ("a.yaml", text.as_str())];
    let modules = module_at(good);
    let desired = link_with(&files, &modules, &[]);
    assert_eq!((used(&desired), codes(&desired)), (vec!["home".into(), "vault".into()], vec![]));
    let id: ResourceId = "Service/vault".parse().expect("an id");
    let module = desired.resources[&id].module.clone().expect("a module");
    assert_eq!((module.port, module.manifest_name.as_str()), (1940, "parachute-vault"));

    let mut before = last_good(&text);
    before[0].module = Some(Arc::clone(&module));
    let desired = link_with(&files, &module_at(&good.replace("1940", "\"x\"")), &before);
    assert_eq!((used(&desired), codes(&desired)), (vec!["home".into(), "vault!".into()], vec![Code::BadModule]));
    assert_eq!(desired.resources[&id].module.as_ref(), Some(&module));
    assert!(desired.sources.contains_key("m/module.json"));
}

#[test]
fn a_chain_of_ten_thousand_is_ordered_without_recursion() {
    let count = 10_000;
    let mut text = String::new();
    for index in 0..count {
        let needs = if index + 1 == count { String::new() } else { format!("{{ service: s{:05} }}", index + 1) };
        text.push_str(&service(&format!("s{index:05}"), &format!("{{ command: [a], dependsOn: [{needs}] }}")));
    }
    // One file could not hold them all: it would be larger than the limit.
    let manifests: Vec<Arc<Manifest>> = std::iter::once(HUB)
        .chain(text.split_inclusive("] }\n"))
        .enumerate()
        .map(|(index, part)| Arc::new(Manifest::read(&source(&format!("{index}.yaml"), part), schemas())))
        .collect();
    let root: Arc<str> = "tree".into();
    let modules = Modules::new();
    let desired =
        Desired::link(Input { root: &root, manifests: &manifests, problems: &[], modules: &modules, last_good: &[] });
    assert_eq!((desired.order.len(), desired.errors()), (count + 1, 0));
    assert_eq!(desired.order[1].name.as_str(), "s09999");
}

/// A tree of services a to h with random dependencies, ports and mistakes.
fn tree() -> impl Strategy<Value = Vec<(Vec<usize>, u16, u8)>> {
    prop::collection::vec((prop::collection::vec(0_usize..10, 0..3), 1950_u16..1960, 0_u8..8), 0..8)
}

fn render(tree: &[(Vec<usize>, u16, u8)]) -> String {
    let mut text = String::new();
    for (index, (needs, port, mistake)) in tree.iter().enumerate() {
        let mut needs = needs.clone();
        needs.sort_unstable();
        needs.dedup();
        let list: Vec<String> =
            needs.iter().filter(|need| **need != index).map(|need| format!("{{ service: s{need} }}")).collect();
        let field = if *mistake == 0 { "comand" } else { "command" };
        let spec = format!("{{ {field}: [a], port: {port}, dependsOn: [{}] }}", list.join(", "));
        text.push_str(&service(&format!("s{index}"), &spec));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is declared over whatever was applied: every resource once, dependencies first unless in a cycle of held
    /// ones, nothing owned is lost while there are errors, ports are used once, and the order of files does not matter.
    #[test]
    fn linking_keeps_its_promises(now in tree(), before in tree()) {
        let good: Vec<_> = before.iter().map(|(_, port, _)| (Vec::new(), *port, 1)).collect();
        let (text, before) = (render(&now), last_good(&render(&good)));
        let desired = link_with(&[("hub.yaml", HUB), ("a.yaml", &text)], &Modules::new(), &before);
        let other_way = link_with(&[("a.yaml", &text), ("hub.yaml", HUB)], &Modules::new(), &before);
        prop_assert_eq!(used(&desired), used(&other_way));
        prop_assert_eq!(&desired.problems, &other_way.problems);
        prop_assert_eq!(desired.order.len(), desired.resources.len());
        prop_assert_eq!(desired.complete, desired.errors() == 0);
        for (id, resource) in &desired.resources {
            let at = desired.order.iter().position(|other| other == id).expect("every resource is in the order");
            for need in resource.spec.as_service().map(|service| service.depends_on.as_slice()).unwrap_or_default() {
                let need = ResourceId::service(&need.service);
                if let Some(before) = desired.order.iter().position(|other| *other == need) {
                    prop_assert!(before < at, "{} before {}", need, id);
                }
            }
        }
        if !desired.complete {
            for last in &before {
                prop_assert!(desired.resources.contains_key(&last.id), "{} was lost", last.id);
            }
        }
        let fresh: Vec<u16> = desired.resources.values().filter(|resource| resource.held.is_none())
            .filter_map(|resource| match resource.spec.as_service()?.port? {
                crate::kinds::service::spec::Port::Fixed(port) => Some(port),
                crate::kinds::service::spec::Port::Auto(_) => None,
            }).collect();
        let unique: std::collections::BTreeSet<&u16> = fresh.iter().collect();
        prop_assert_eq!(unique.len(), fresh.len());
    }
}
