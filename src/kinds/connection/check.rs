//! What a Connection can say wrong that no schema can tell. Pure.

use super::spec::{ConnectionSpec, Delivery};
use crate::document::Document;
use crate::model::problem::{Code, Problem};

/// Looks at everything that one document says.
pub fn check(document: &Document, spec: &ConnectionSpec, problems: &mut Vec<Problem>) {
    crate::kinds::suspend::check(document, &spec.suspend, problems);
    let at = document.key_at("/spec");
    match (&spec.source, &spec.sink, &spec.credential) {
        (Some(_), Some(_), None) | (None, None, Some(_)) => {}
        (None, None, None) => {
            let message = format!("{} does not say what it connects", document.id);
            let hint = "give `source` and `sink`, or `credential`";
            problems.push(Problem::error(Code::Conflict, at, message).hint(hint));
        }
        (_, _, Some(_)) => {
            let message = "a connection has either `source` and `sink`, or `credential`";
            let also = if spec.source.is_some() { "/spec/source" } else { "/spec/sink" };
            let problem = Problem::error(Code::Conflict, document.key_at("/spec/credential"), message)
                .label("one here")
                .also(document.key_at(also), "the other here")
                .hint("make it two documents");
            problems.push(problem);
        }
        (source, _, None) => {
            let (given, missing) = if source.is_some() { ("source", "sink") } else { ("sink", "source") };
            let message = format!("{} has a `{given}` and no `{missing}`", document.id);
            let at = document.key_at(&format!("/spec/{given}"));
            problems.push(Problem::error(Code::MissingField, at, message).hint(format!("add `{missing}`")));
        }
    }
    let event = spec.source.as_ref().map(|source| source.event.as_str());
    if spec.delivery == Delivery::Direct && spec.rearm_after().is_some() && event == Some("note.created") {
        let message = "the vault sends `note.created` once for a note, and nothing can make it send it again";
        let problem = Problem::error(Code::Conflict, document.key_at("/spec/rearm"), message)
            .also(document.value_at("/spec/delivery"), "with a durable delivery the hub takes it from the vault itself")
            .hint("use `delivery: durable`, or take `rearm` away");
        problems.push(problem);
    }
}
