//! What a Storage can say wrong that no schema can tell. Pure.

use super::spec::StorageSpec;
use crate::document::Document;
use crate::kinds::suspend;
use crate::model::problem::{Code, Problem};

/// Looks at everything that one document says.
pub fn check(document: &Document, spec: &StorageSpec, problems: &mut Vec<Problem>) {
    suspend::check(document, &spec.suspend, problems);
    let rates = [("/spec/bandwidth", spec.bandwidth), ("/spec/scrub/bandwidth", Some(spec.scrub.bandwidth))];
    for (pointer, rate) in rates {
        if rate.is_some_and(|rate| rate.0 == 0) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            let message = format!("`{field}` cannot be 0: nothing would ever be read");
            let problem = Problem::error(Code::OutOfRange, document.value_at(pointer), message)
                .hint("`suspend: true` holds everything; `scrub: { every: 0s }` switches checking off");
            problems.push(problem);
        }
    }
}
