//! What a StorageBackend can say wrong that no schema can tell. Pure.

use super::spec::StorageBackendSpec;
use crate::document::Document;
use crate::kinds::path::tidy;
use crate::model::problem::{Code, Problem};

/// Looks at everything that one document says.
pub fn check(document: &Document, spec: &StorageBackendSpec, problems: &mut Vec<Problem>) {
    let given: Vec<&str> = [("fs", spec.fs.is_some()), ("sqlite", spec.sqlite.is_some()), ("s3", spec.s3.is_some())]
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| name)
        .collect();
    match given[..] {
        [_] => {}
        [] => {
            let message = format!("{} does not say where its blobs lie", document.id);
            let problem = Problem::error(Code::Conflict, document.key_at("/spec"), message)
                .hint("give exactly one of `fs: { path: ... }`, `sqlite: { path: ... }` and `s3: { endpoint: ... }`");
            problems.push(problem);
        }
        [first, ref others @ ..] => {
            let message = format!("{} lies at more than one place: {}", document.id, given.join(", "));
            let mut problem =
                Problem::error(Code::Conflict, document.key_at(&format!("/spec/{first}")), message).label("one here");
            for other in others {
                problem = problem.also(document.key_at(&format!("/spec/{other}")), "another here");
            }
            problems.push(problem.hint("make it one document for each"));
        }
    }
    let near = [
        ("/spec/fs/path", spec.fs.as_ref().map(|fs| &fs.path)),
        ("/spec/sqlite/path", spec.sqlite.as_ref().map(|db| &db.path)),
    ];
    for (pointer, path) in near {
        if path.is_some_and(|path| tidy(&document.folder.join(path)).starts_with(&document.folder)) {
            let message = format!("{} lies in the manifest folder, which is watched", document.id);
            let problem = Problem::error(Code::BackendInTree, document.value_at(pointer), message)
                .warning()
                .hint("put it elsewhere, such as `../blobs`: every blob that is written here looks like a change of the manifests");
            problems.push(problem);
        }
    }
    if let Some(s3) = spec.s3.as_ref().filter(|s3| s3.endpoint.starts_with("http://") && !is_near(&s3.endpoint)) {
        let at = document.value_at("/spec/s3/endpoint");
        let message = format!("everything that is sent to {} can be read on the way", s3.endpoint);
        problems
            .push(Problem::error(Code::PlainEndpoint, at, message).warning().hint("use https:// if it offers that"));
    }
}

/// On this machine or in a private network, where people may know what they do.
fn is_near(endpoint: &str) -> bool {
    let host = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let name = host.rsplit_once(':').map_or(host, |(name, port)| match port.bytes().all(|b| b.is_ascii_digit()) {
        true => name,
        false => host,
    });
    match name.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(std::net::IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => !name.contains('.') || name.ends_with(".local") || name.ends_with(".internal"),
    }
}
