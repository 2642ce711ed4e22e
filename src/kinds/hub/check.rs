//! What a Hub can say wrong that no schema can tell. Pure.

use super::spec::HubSpec;
use crate::document::Document;
use crate::model::problem::{Code, Problem};

pub fn check(document: &Document, spec: &HubSpec, problems: &mut Vec<Problem>) {
    let range = spec.port_range;
    if range.from > range.to {
        let message = format!("`spec.portRange` is empty: it goes from {} to {}", range.from, range.to);
        let problem = Problem::error(Code::Conflict, document.value_at("/spec/portRange/from"), message)
            .label("the first port")
            .also(document.value_at("/spec/portRange/to"), "is behind the last one")
            .hint("swap the two");
        problems.push(problem);
    }
    if spec.address().is_some() && listen_port(spec).is_none() {
        let message = format!("`spec.listen` cannot be `{}`: its port is not from 1 to 65535", spec.listen);
        problems.push(Problem::error(Code::OutOfRange, document.value_at("/spec/listen"), message));
    }
}

/// The port that the hub listens on.
pub fn listen_port(spec: &HubSpec) -> Option<u16> {
    let (_, port) = spec.address()?.rsplit_once(':')?;
    port.parse().ok().filter(|port| *port != 0)
}
