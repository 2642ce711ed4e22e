//! Any bytes as a manifest and as a module.json: nothing may panic, and every problem stands inside its file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trueup::desired::Manifest;
use trueup::kinds::schema::schemas;
use trueup::kinds::service::module;
use trueup::model::source::SourceFile;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let file = SourceFile { shown: "a.yaml".into(), path: "/a.yaml".into(), text: text.into_owned().into() };
    let mut problems = Manifest::read(&file, schemas()).problems;
    problems.extend(module::parse(&file).err().unwrap_or_default());
    for span in problems.iter().flat_map(|problem| &problem.labels).map(|label| &label.span) {
        assert!(span.start <= span.end && span.end as usize <= file.text.len());
        assert!(file.text.get(span.start as usize..span.end as usize).is_some());
    }
});
