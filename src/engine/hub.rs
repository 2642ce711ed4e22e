//! The hub in a tick: what it is told to serve. No step: it changes nothing that outlives it, and telling it the same again does nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::connections::wirings;
use super::look::Looked;
use super::{Engine, Mode};
use crate::desired::Resource;
use crate::kinds::hub::check::listen_port;
use crate::kinds::path::tidy;
use crate::kinds::service::check::{effective_routes, mount};
use crate::kinds::service::declares::declared;
use crate::kinds::service::inputs::row_name;
use crate::kinds::service::spec::ServiceSpec;
use crate::kinds::standing::Standing;
use crate::model::condition::Reason;
use crate::model::id::{Name, ResourceId};
use crate::plan::Plan;
use crate::plan::connections::address;
use crate::ports::hub::{Module, Mount, State, Tls, Upstream, Wish};

impl Engine {
    /// Tells it before anything is done: requests to a service that is about to be stopped wait for its successor.
    pub(super) fn tell_hub(&self, looked: &Looked, plan: &Plan, mode: Mode) {
        if mode.dry || looked.busy.is_some() {
            return;
        }
        let Some(hub) = looked.desired.hub.as_deref().filter(|_| !mode.down) else {
            return self.world.hub.tell(Wish::default());
        };
        let folder = looked.desired.resources.values().find(|r| r.spec.as_hub().is_some()).map(|r| &r.document.folder);
        // Nobody is driven from his port: while two want one, the hub waits.
        let taken = listen_port(hub).is_some_and(|own| looked.ports.values().any(|port| *port == own));
        let path = |name: &String| folder.map(|folder| tidy(&folder.join(name))).unwrap_or_default();
        let services = looked.desired.resources.values();
        let services = services.filter_map(|resource| Some((resource, resource.spec.as_service()?)));
        let upstreams: BTreeMap<_, _> = services
            .filter_map(|(resource, spec)| {
                Some((resource.id.name.clone(), Arc::new(upstream(looked, plan, resource, spec)?)))
            })
            .collect();
        self.world.hub.tell(Wish {
            listen: hub.address().filter(|_| !taken).map(str::to_owned),
            tls: hub.tls.as_ref().map(|tls| Tls { certificate: path(&tls.certificate), key: path(&tls.key) }),
            origin: hub.effective_origin(),
            origins: hub.origins(),
            home: looked.home.clone(),
            upstreams,
            has_ties: looked.ties.is_some(),
            connections: wirings(looked),
        });
    }

    /// What is about to be stopped gets no new requests by now; those that it has are given a moment.
    pub(super) async fn settle_requests(&self, plan: &Plan, mode: Mode) {
        let stopped = plan.steps.iter().filter(|step| step.disrupts()).map(|step| step.resource.name.clone());
        let stopped: Vec<_> = stopped.collect();
        if !stopped.is_empty() && !mode.down {
            self.world.hub.settle(stopped).await;
        }
    }
}

/// `None` for a service to which no request can go.
fn upstream(looked: &Looked, plan: &Plan, resource: &Resource, spec: &ServiceSpec) -> Option<Upstream> {
    let id = &resource.id;
    let module = resource.module.as_deref();
    let routes = effective_routes(spec, module);
    let port = looked.ports.get(&id.name).copied();
    if routes.is_empty() && port.is_none() && module.is_none() {
        return None;
    }
    let standing = plan.standings.get(id)?;
    let unit = looked.unit(id);
    let row = row_name(spec, module).map(ToString::to_string);
    let rows = looked.facts.rows.as_deref().unwrap_or_default();
    let version = row.as_ref().and_then(|name| rows.iter().find(|row| row.name == *name));
    let version = version.and_then(|row| row.rest.get("version")?.as_str().map(str::to_owned));
    let mut routes: Vec<Mount> = routes
        .iter()
        .map(|route| Mount {
            path: mount(&route.path).to_owned(),
            strip_prefix: route.strip_prefix,
            websocket: route.websocket,
            exposure: route.exposure,
        })
        .collect();
    add_vaults(looked, &id.name, &mut routes);
    Some(Upstream {
        port,
        routes,
        state: state(plan, id, standing),
        reason: standing.reason.as_str(),
        message: standing.message.clone(),
        pid: unit.and_then(|unit| unit.process.as_ref()).map(|process| process.pid),
        restarts: unit.map_or(0, |unit| unit.restarts),
        last_exit: unit.and_then(|unit| unit.last_exit.as_ref()).map(ToString::to_string),
        keeps_socket: spec.pass_socket,
        module: Module {
            short: module.map_or_else(|| id.name.to_string(), |module| module.name.clone()),
            row,
            display_name: module.and_then(|module| module.display_name.clone()),
            tagline: module.and_then(|module| module.tagline.clone()),
            version,
            declared: Arc::new(declared(id.name.as_str(), spec, module).listed()),
            folder: spec.module.as_ref().map(|folder| tidy(&resource.document.folder.join(folder))),
        },
    })
}

/// A declared vault is reached like the others of its service, without a route of its own.
fn add_vaults(looked: &Looked, service: &Name, routes: &mut Vec<Mount>) {
    let Some(model) = routes.iter().find(|route| route.path.starts_with("/vault")).cloned() else { return };
    let vaults = looked.desired.resources.iter().filter_map(|(id, r)| Some(address(r.spec.as_vault()?, &id.name)));
    for path in vaults.filter(|at| at.service == *service).map(|at| at.path()) {
        let reached = |route: &Mount| path == route.path || path.starts_with(&format!("{}/", route.path));
        if !routes.iter().any(reached) {
            routes.push(Mount { path, ..model.clone() });
        }
    }
}

fn state(plan: &Plan, id: &ResourceId, standing: &Standing) -> State {
    match standing.reason {
        Reason::Suspended | Reason::Overridden | Reason::Down | Reason::Scheduled => return State::Stopped,
        _ if plan.steps.iter().any(|step| step.resource == *id && step.disrupts()) => return State::Starting,
        _ if standing.ready => return State::Ready,
        _ => {}
    }
    match standing.reason {
        Reason::Unhealthy | Reason::ListensElsewhere => State::Unwell,
        _ if standing.doomed || standing.completed => State::Failed,
        Reason::CrashLoop | Reason::Failed | Reason::BadInput | Reason::Invalid | Reason::PortTaken => State::Failed,
        _ => State::Starting,
    }
}
