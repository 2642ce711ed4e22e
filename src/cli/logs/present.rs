//! Whose output is shown when nobody is named: services that are declared, or that the keeper still keeps. What was removed leaves
//! its output behind; it is shown by name, and marked.

use std::collections::BTreeSet;

use crate::cli::engine::Place;
use crate::cli::names::{self, Target};
use crate::cli::render::screen::Screen;
use crate::model::id::KindName;

/// Whether the keeper has a unit of this name: it writes a mark for each.
pub(super) fn is_kept(place: &Place, unit: &str) -> bool {
    place.state.join("run").join(format!("{unit}.json")).exists()
}

/// The declared services; `None` when there are no manifests to tell.
fn declared(place: &Place) -> Option<BTreeSet<String>> {
    let heads = names::heads(&place.manifests);
    let services = heads.iter().filter(|head| head.kind == KindName::Service.as_str());
    (!heads.is_empty()).then(|| services.map(|head| head.metadata.name.clone()).collect())
}

/// Those that are shown unasked. A file that cannot be read hides nothing that runs.
pub(super) fn shown(place: &Place, units: Vec<String>, screen: &mut Screen) -> Vec<String> {
    let Some(declared) = declared(place) else { return units };
    let is_there = |unit: &String| declared.contains(unit) || is_kept(place, unit);
    let (there, gone): (Vec<String>, Vec<String>) = units.into_iter().partition(is_there);
    if !gone.is_empty() {
        let (list, one) = (gone.join(", "), gone.len() == 1);
        let what = if one { "is no longer declared; name it" } else { "are no longer declared; name them" };
        screen.err(&format!("not shown: {list} ({what} to see the output that is kept)\n"));
    }
    there
}

/// Says of what was named and is gone that it is gone.
pub(super) fn mark(place: &Place, targets: &[Target], screen: &mut Screen) {
    let Some(declared) = declared(place).filter(|_| !targets.is_empty()) else { return };
    for name in targets.iter().filter_map(|target| target.service().ok()) {
        let there = place.state.join("logs").join(name.as_str()).is_dir();
        if there && !declared.contains(name.as_str()) && !is_kept(place, name.as_str()) {
            screen.err(&format!("{name} is no longer declared; this is the output that is kept of it\n"));
        }
    }
}
