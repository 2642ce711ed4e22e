//! The API against its own document: schemathesis, which is not ours, makes calls from the document and checks that every answer is one
//! that the document promises. The tree is thrown away.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::python;
use crate::stage::{Stage, shell, wait_until};
use crate::web::{Hub, ready};

/// Schemathesis with all that it needs.
const PACKAGES: &[&str] = &[
    "anyio==4.16.0",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "click==8.5.1",
    "graphql-core==3.3.2",
    "harfile==0.6.0",
    "hypothesis==6.170.15",
    "hypothesis-graphql==0.13.5",
    "idna==3.20",
    "iniconfig==2.3.1",
    "jsonschema_rs==0.60.3",
    "markdown-it-py==4.3.0",
    "MarkupSafe==3.0.4",
    "mdurl==0.1.2",
    "packaging==26.3",
    "pluggy==1.7.0",
    "Pygments==2.21.0",
    "pyrate-limiter==4.5.1",
    "pytest==9.2.0",
    "PyYAML==6.0.3",
    "requests==2.34.2",
    "rich==15.0.0",
    "schemathesis==4.32.5",
    "sortedcontainers==2.4.0",
    "typing_extensions==4.16.0",
    "urllib3==2.8.0",
    "Werkzeug==3.1.9",
];
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
/// Seconds of one run; then it says what it has found so far.
const BUDGET: &str = "30";

/// One run; `config` says which calls are made.
fn run(python: &Path, hub: &Hub, config: &str, more: &[&str]) {
    let folder = hub.stage.path("schemathesis");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("schemathesis.toml");
    // What goes on for ever is for the tests of the streams.
    let text = format!(
        "seed = 1\n[parameters]\n\"query.follow\" = false\n{config}[generation]\nmax-examples = 10\ndatabase = \"none\"\n"
    );
    std::fs::write(&file, text).expect("a file");
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/openapi.json");
    let output = Command::new(python.with_file_name("schemathesis"))
        .arg("--config-file")
        .arg(&file)
        .arg("run")
        .arg(document)
        .args(["--url", &format!("http://127.0.0.1:{}/api/v1", hub.port), "--exclude-path", "/watch", "--no-color"])
        .args(["-H", &format!("Authorization: Bearer {}", hub.admin), "--checks", CHECKS, "--max-time", BUDGET])
        .args(["--request-timeout", "30", "--continue-on-failure", "--warnings", "off"])
        .args(more)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .expect("schemathesis runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", said.replace(&hub.admin, "TOKEN"));
    let tested = said.lines().find_map(|line| line.trim().strip_prefix("Tested: ")?.parse::<usize>().ok());
    assert!(tested.is_some_and(|tested| tested >= 15), "{}", said.replace(&hub.admin, "TOKEN"));
}

#[test]
fn every_answer_is_one_that_the_document_promises() {
    let Some(python) = python::with(PACKAGES) else { return };
    let stage = Stage::new();
    stage.write("box.yaml", &shell("box", "echo one; exec sleep 1000", ""));
    stage.write(
        "storage.yaml",
        "apiVersion: trueup/v1\nkind: StorageBackend\nmetadata: { name: disk }\nspec: { fs: { path: ../blobs } }\n---\n\
         apiVersion: trueup/v1\nkind: Storage\nmetadata: { name: main }\nspec: { activeBackend: disk }\n",
    );
    let hub = Hub::start(stage);
    wait_until("the tree", || ["box", "main"].iter().all(|name| hub.resource(name).is_some_and(|r| ready(&r))));
    run(&python, &hub, "", &[]);
    // Names that there are: most calls get past the lookup.
    run(&python, &hub, "\"path.name\" = \"box\"\n\"path.kind\" = \"Service\"\n", &["--mode", "positive"]);
    hub.get("/resources").status(200);
}
