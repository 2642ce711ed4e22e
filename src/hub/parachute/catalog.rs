//! What modules declare for connections, in the shape of the older hub: `/api/connections/catalog`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::hub::site::Site;
use crate::ports::hub::{Declared, Wish};

/// `GET /api/connections/catalog`
pub(super) async fn catalog(State(site): State<Site>) -> Json<Value> {
    Json(document(&site.wish()))
}

fn document(wish: &Wish) -> Value {
    let all = |pick: fn(&Declared) -> &Vec<Value>| -> Vec<Value> {
        wish.upstreams.values().flat_map(|upstream| pick(&upstream.module.declared)).cloned().collect()
    };
    let mut templates = all(|declared| &declared.templates);
    // Nothing can be made of one without both ends.
    templates.retain(|template| template.get("source").is_some() && template.get("sink").is_some());
    json!({
        "events": all(|declared| &declared.events),
        "actions": all(|declared| &declared.actions),
        "templates": templates,
        "credentials": all(|declared| &declared.credentials),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::id::Name;
    use crate::ports::hub::{Module, State as Standing, Upstream};

    #[test]
    fn what_all_modules_declare_is_in_one_document() {
        let declared = Declared {
            events: vec![json!({ "module": "vault", "key": "note.created" })],
            templates: vec![
                json!({ "key": "half", "source": {} }),
                json!({ "key": "whole", "source": {}, "sink": {} }),
            ],
            ..Declared::default()
        };
        let upstream = Upstream {
            port: None,
            routes: Vec::new(),
            state: Standing::Ready,
            reason: "",
            message: String::new(),
            pid: None,
            restarts: 0,
            last_exit: None,
            keeps_socket: false,
            module: Module { declared: Arc::new(declared), ..Module::default() },
        };
        let wish =
            Wish { upstreams: [(Name::new("vault").expect("a name"), Arc::new(upstream))].into(), ..Wish::default() };
        assert_eq!(
            document(&wish),
            json!({
                "events": [{ "module": "vault", "key": "note.created" }], "actions": [],
                "templates": [{ "key": "whole", "source": {}, "sink": {} }], "credentials": [],
            })
        );
    }
}
