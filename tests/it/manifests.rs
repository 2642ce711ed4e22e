//! The manifests that are shipped as a first example.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use trueup::kinds::hub::spec::HubSpec;
use trueup::kinds::service::spec::{DependencyCondition, Port, ServiceSpec};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document<S> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: S,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

fn read<S: DeserializeOwned>(kind: &str, name: &str) -> S {
    let text = std::fs::read_to_string(folder().join(format!("{name}.yaml"))).expect(name);
    assert!(text.starts_with("# yaml-language-server: $schema=../schemas/trueup.json\n"), "{name}");
    let document: Document<S> = serde_yaml::from_str(&text).expect(name);
    assert_eq!((document.api_version.as_str(), document.kind.as_str()), ("trueup/v1", kind));
    assert_eq!(document.metadata.name, if kind == "Hub" { "home" } else { name });
    document.spec
}

#[test]
fn they_say_what_they_mean() {
    let hub: HubSpec = read("Hub", "hub");
    // What the Hub spells out are the defaults, so that a reader sees them.
    assert_eq!(hub, HubSpec::default());

    let vault: ServiceSpec = read("Service", "vault");
    let module = folder().join(vault.module.expect("a module")).join(".parachute/module.json");
    let module: serde_json::Value = serde_json::from_slice(&std::fs::read(module).expect("a file")).expect("JSON");
    assert_eq!(vault.port, Some(Port::Fixed(1940)));
    assert_eq!((&module["port"], &module["manifestName"]), (&1940.into(), &"parachute-vault".into()));

    let mailbox: ServiceSpec = read("Service", "mailbox");
    let module = folder().join(mailbox.module.expect("a module")).join(".parachute/module.json");
    let module: serde_json::Value = serde_json::from_slice(&std::fs::read(module).expect("a file")).expect("JSON");
    assert_eq!(
        (&module["actions"][0]["key"], &module["credentials"][0]["key"]),
        (&"message.deliver".into(), &"notes".into())
    );

    let clerk: ServiceSpec = read("Service", "clerk");
    assert_eq!(clerk.command.expect("a command"), ["trueup", "demo", "clerk"]);
    assert!(matches!(clerk.port, Some(Port::Auto(_))));
    assert_eq!(clerk.depends_on[0].service.as_str(), "vault");
    assert_eq!(clerk.depends_on[0].condition, DependencyCondition::Ready);
}
