//! What reading costs: ten thousand manifests in memory, parsed, validated and linked, beside a plain typed parse of the
//! same bytes that finds no position, no second mistake and no reference.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use trueup::desired::{Desired, Input, LastGood, Manifest};
use trueup::kinds::hub::spec::HubSpec;
use trueup::kinds::schema::schemas;
use trueup::kinds::service::module::Modules;
use trueup::kinds::service::spec::ServiceSpec;
use trueup::model::source::SourceFile;

/// As many services as a tree may have files.
const SERVICES: usize = 10_000;

/// Each figure is the best of so many runs: the others were disturbed by something else.
const RUNS: usize = 5;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "it is only read")]
enum Plain {
    Hub { api_version: String, metadata: serde_json::Value, spec: HubSpec },
    Service { api_version: String, metadata: serde_json::Value, spec: Box<ServiceSpec> },
}

fn file(name: &str, text: String) -> SourceFile {
    SourceFile { shown: name.into(), path: format!("/tree/{name}").into(), text: text.into() }
}

fn service(index: usize) -> SourceFile {
    let before = index.saturating_sub(1);
    let needs = if index.is_multiple_of(10) {
        String::new()
    } else {
        format!("  dependsOn: [{{ service: service-{before} }}]\n")
    };
    let text = format!(
        "apiVersion: trueup/v1\nkind: Service\nmetadata:\n  name: service-{index}\n  labels: {{ tier: data }}\nspec:\n  \
         command: [module, --serve, --name, service-{index}]\n  port: auto\n  env:\n    LOG_LEVEL: info\n    INDEX: \"{index}\"\n  \
         routes:\n    - path: /service-{index}\n  readiness:\n    http: {{ path: /health }}\n    period: 5s\n  \
         stop: {{ grace: 10s }}\n{needs}"
    );
    file(&format!("service-{index}.yaml"), text)
}

fn best<T>(mut run: impl FnMut() -> T) -> Duration {
    let time = |run: &mut dyn FnMut() -> T| {
        #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
        let begin = Instant::now();
        black_box(run());
        begin.elapsed()
    };
    (0..RUNS).map(|_| time(&mut run)).min().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn row(what: &str, took: Duration, plain: Duration) {
    let each = took.as_secs_f64() * 1e6 / SERVICES as f64;
    let ratio = took.as_secs_f64() / plain.as_secs_f64();
    println!("{what:<34} {:>9.1} ms {each:>9.2} µs/document {ratio:>7.2} x", took.as_secs_f64() * 1e3);
}

fn main() {
    let hub = "apiVersion: trueup/v1\nkind: Hub\nmetadata: { name: home }\nspec: { listen: 127.0.0.1:1 }\n";
    let mut files: Vec<SourceFile> = (0..SERVICES).map(service).collect();
    files.push(file("hub.yaml", hub.to_owned()));
    let root: Arc<str> = "tree".into();
    let modules = Modules::new();
    let read =
        || -> Vec<Arc<Manifest>> { files.iter().map(|file| Arc::new(Manifest::read(file, schemas()))).collect() };
    let link = |manifests: &[Arc<Manifest>], last_good: &[LastGood]| {
        Desired::link(Input { root: &root, manifests, problems: &[], modules: &modules, last_good })
    };
    let manifests = read();
    let desired = link(&manifests, &[]);
    assert!(desired.complete && desired.resources.len() == SERVICES + 1, "{:?}", desired.problems.first());

    let keep = |resource: &trueup::desired::Resource| LastGood {
        id: resource.id.clone(),
        document: resource.document.json.clone(),
        base: resource.document.folder.clone(),
        source: resource.document.origin.to_string(),
        module: None,
        refused: None,
    };
    let last_good: Vec<LastGood> = desired.resources.values().map(keep).collect();

    let plain = best(|| {
        let parse = |file: &SourceFile| serde_yaml::from_str::<Plain>(&file.text).is_ok();
        assert!(files.iter().all(parse), "{:?}", serde_yaml::from_str::<Plain>(&files[0].text).err());
    });
    row("plain typed parse (serde_yaml)", plain, plain);
    row("parse and validate", best(read), plain);
    row("link", best(|| link(&manifests, &[])), plain);
    row("link over what was applied", best(|| link(&manifests, &last_good)), plain);
    row("parse, validate and link", best(|| link(&read(), &last_good)), plain);
}
