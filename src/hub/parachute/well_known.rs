//! What is served here, for clients that find it by themselves: `/.well-known/parachute.json`, in the shape of the older hub. Public, so
//! it names nothing that is for this machine alone.

use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use crate::hub::site::Site;
use crate::model::route::Exposure;
use crate::ports::hub::{Upstream, Wish};

/// Of a module that has not said it yet.
const NO_VERSION: &str = "unknown";

/// `GET /.well-known/parachute.json`
pub(super) async fn parachute(State(site): State<Site>) -> impl IntoResponse {
    let headers = [(ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (CACHE_CONTROL, "no-store")];
    (headers, Json(document(&site.wish())))
}

fn document(wish: &Wish) -> Value {
    let origin = wish.origin.trim_end_matches('/');
    let (mut vaults, mut services) = (Vec::new(), Vec::new());
    let mut by_short: Map<String, Value> = Map::new();
    for (service, upstream) in &wish.upstreams {
        let Upstream { routes, module, .. } = &**upstream;
        let public: Vec<&str> = routes
            .iter()
            .filter(|mount| mount.exposure != Exposure::Loopback)
            .map(|mount| mount.path.as_str())
            .collect();
        let Some(first) = public.first() else { continue };
        let version = module.version.as_deref().unwrap_or(NO_VERSION);
        let at = |path: &str| format!("{origin}{}", path.trim_end_matches('/'));
        let names = public.iter().filter_map(|path| Some((path.strip_prefix("/vault/")?, path)));
        let own: Vec<Value> = names
            .filter(|(name, _)| !name.is_empty() && !name.contains('/'))
            .map(|(name, path)| json!({ "name": name, "url": at(path), "version": version }))
            .collect();
        let urls: Vec<Value> = match own.is_empty() {
            true => vec![json!({ "url": at(first), "version": version })],
            false => own.iter().map(|vault| json!({ "url": vault["url"], "version": version })).collect(),
        };
        vaults.extend(own);
        let mut row = Map::new();
        row.insert("name".to_owned(), module.row.clone().unwrap_or_else(|| service.to_string()).into());
        row.insert("url".to_owned(), at(first).into());
        row.insert("path".to_owned(), (*first).into());
        row.insert("version".to_owned(), version.into());
        row.insert("infoUrl".to_owned(), format!("{}/.parachute/info", at(first)).into());
        if let Some(name) = &module.display_name {
            row.insert("displayName".to_owned(), name.clone().into());
        }
        if let Some(tagline) = &module.tagline {
            row.insert("tagline".to_owned(), tagline.clone().into());
        }
        services.push(Value::Object(row));
        // A module of that name must not take the place of the lists.
        if !["vaults", "services"].contains(&module.short.as_str())
            && let Value::Array(all) = by_short.entry(module.short.clone()).or_insert_with(|| json!([]))
        {
            all.extend(urls);
        }
    }
    let mut document = Map::new();
    document.insert("vaults".to_owned(), vaults.into());
    document.insert("services".to_owned(), services.into());
    document.extend(by_short);
    document.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::id::Name;
    use crate::ports::hub::{Module, Mount, State};

    fn upstream(short: &str, paths: &[(&str, Exposure)]) -> Arc<Upstream> {
        let mount = |(path, exposure): &(&str, Exposure)| Mount {
            path: (*path).to_owned(),
            strip_prefix: false,
            websocket: false,
            exposure: *exposure,
        };
        Arc::new(Upstream {
            port: Some(1940),
            routes: paths.iter().map(mount).collect(),
            state: State::Ready,
            reason: "ProbeSucceeded",
            message: String::new(),
            pid: None,
            restarts: 0,
            last_exit: None,
            keeps_socket: false,
            module: Module { short: short.to_owned(), version: Some("1.2.3".to_owned()), ..Module::default() },
        })
    }

    #[test]
    fn vaults_are_the_mounts_below_vault_and_what_is_for_this_machine_is_not_named() {
        let name = |text: &str| Name::new(text).expect("a name");
        let all = Exposure::Allowed;
        let upstreams = [
            (name("keeper"), upstream("vault", &[("/vault/default", all), ("/vault/lab", all)])),
            (name("notes"), upstream("notes", &[("/notes", all)])),
            (name("secret"), upstream("secret", &[("/secret", Exposure::Loopback)])),
            (name("worker"), upstream("worker", &[])),
        ];
        let wish = Wish { origin: "https://hub.example/".to_owned(), upstreams: upstreams.into(), ..Wish::default() };
        let info = "https://hub.example/notes/.parachute/info";
        assert_eq!(
            document(&wish),
            json!({
                "vaults": [
                    { "name": "default", "url": "https://hub.example/vault/default", "version": "1.2.3" },
                    { "name": "lab", "url": "https://hub.example/vault/lab", "version": "1.2.3" },
                ],
                "services": [
                    {
                        "name": "keeper", "url": "https://hub.example/vault/default", "path": "/vault/default",
                        "version": "1.2.3", "infoUrl": "https://hub.example/vault/default/.parachute/info",
                    },
                    { "name": "notes", "url": "https://hub.example/notes", "path": "/notes", "version": "1.2.3", "infoUrl": info },
                ],
                "vault": [
                    { "url": "https://hub.example/vault/default", "version": "1.2.3" },
                    { "url": "https://hub.example/vault/lab", "version": "1.2.3" },
                ],
                "notes": [{ "url": "https://hub.example/notes", "version": "1.2.3" }],
            })
        );
    }
}
