//! What a Connection can say wrong that no schema can tell. Pure.

use super::spec::{ConnectionSpec, Delivery, Rearm};
use crate::document::Document;
use crate::model::problem::{Code, Problem};
use crate::model::unit::Millis;

/// A vault waits a minute for an answer: until then an event may still be on its way.
const LEAST_REARM_DIRECT: Millis = Millis::secs(90);
const SECOND: Millis = Millis::secs(1);
/// Longer than anybody leaves a sink broken, and shorter than what fills a disk.
const LONGEST_AGE: Millis = Millis::secs(90 * 86_400);
/// A sink that takes longer holds others up.
const LONGEST_TIMEOUT: Millis = Millis::secs(300);
const LONGEST_REARM: Millis = Millis::secs(90 * 86_400);

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
    times(document, spec, problems);
    let event = spec.source.as_ref().map(|source| source.event.as_str());
    if spec.delivery == Delivery::Direct && spec.rearm_after().is_some() && event == Some("note.created") {
        let message = "the vault sends `note.created` once for a note, and nothing can make it send it again";
        let problem = Problem::error(Code::Conflict, document.key_at("/spec/rearm"), message)
            .also(document.value_at("/spec/delivery"), "with a durable delivery the hub takes it from the vault itself")
            .hint("use `delivery: durable`, or take `rearm` away");
        problems.push(problem);
    }
}

/// Lengths of time with which nothing would work as somebody expects.
fn times(document: &Document, spec: &ConnectionSpec, problems: &mut Vec<Problem>) {
    let mut within = |field: &str, given: Millis, least: Millis, most: Millis, why: &str| {
        if (least..=most).contains(&given) {
            return;
        }
        let message = format!("`spec.{}` cannot be {given}: {why}", field.replace('/', "."));
        let at = document.value_at(&format!("/spec/{field}"));
        problems.push(Problem::error(Code::OutOfRange, at, message).hint(format!("write {least} to {most}")));
    };
    let retry = &spec.retry;
    within("retry/maxAge", retry.max_age, SECOND, LONGEST_AGE, "events are kept for a time, and not for ever");
    within("retry/timeout", retry.timeout, SECOND, LONGEST_TIMEOUT, "a sink needs time, and others wait meanwhile");
    if let Some(after) = spec.rearm.as_ref().and_then(Rearm::after) {
        let (least, why) = match spec.delivery {
            Delivery::Direct => (LEAST_REARM_DIRECT, "the vault may still be waiting for the sink, and sends it twice"),
            Delivery::Durable => (SECOND, "the hub needs time to take an event in"),
        };
        within("rearm/after", after, least, LONGEST_REARM, why);
    }
}

#[cfg(test)]
mod tests {
    use crate::desired::Manifest;
    use crate::kinds::schema::schemas;
    use crate::model::source::SourceFile;

    #[test]
    fn times_have_bounds() {
        let told = |event: &str, more: &str| {
            let text = format!(
                "apiVersion: trueup/v1\nkind: Connection\nmetadata: {{ name: c }}\nspec:\n  source: {{ service: vault, vault: lab, event: {event} }}\n  sink: {{ service: sink, action: deliver }}\n  {more}\n"
            );
            let file = SourceFile { shown: "a.yaml".into(), path: "/tree/a.yaml".into(), text: text.into() };
            let problems = Manifest::read(&file, schemas()).problems;
            let line = |p: &crate::model::problem::Problem| {
                format!("{} {} ({})", p.code, p.message, p.hint.as_deref().unwrap_or(""))
            };
            problems.iter().map(line).collect::<Vec<_>>()
        };
        let durable = |more: &str| told("note.created", more);
        let direct = |after: &str| told("note.updated", &format!("delivery: direct\n  rearm: {{ after: {after} }}"));
        for fine in [
            "retry: { maxAge: 1s, timeout: 1s }",
            "retry: { maxAge: 90d, timeout: 5m }",
            "rearm: { after: 1s }",
            "rearm: {}",
        ] {
            assert_eq!(durable(fine), [""; 0], "{fine}");
        }
        for (wrong, field, hint) in [
            ("retry: { maxAge: 0s }", "`spec.retry.maxAge` cannot be 0ms", "write 1s to 90d"),
            ("retry: { maxAge: 91d }", "`spec.retry.maxAge` cannot be 91d", "write 1s to 90d"),
            ("retry: { timeout: 0s }", "`spec.retry.timeout` cannot be 0ms", "write 1s to 5m"),
            ("retry: { timeout: 24h }", "`spec.retry.timeout` cannot be ", "write 1s to 5m"),
            ("rearm: { after: 10ms }", "`spec.rearm.after` cannot be 10ms", "write 1s to 90d"),
        ] {
            let problems = durable(wrong);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(&format!("E0105 {field}")) && problems[0].contains(hint), "{problems:?}");
        }
        assert_eq!(direct("90s"), [""; 0]);
        let problems = direct("89s");
        assert!(problems.len() == 1 && problems[0].contains("twice"), "{problems:?}");
    }
}
