//! What every request meets first: the hub's own paths go to its router, everything else straight to the proxy.

use std::sync::Arc;

use axum::Router;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, StatusCode};
use tower_service::Service;

use super::proxy::answers::{Problem, wants_page};
use super::proxy::body::{RequestBody, ResponseBody};
use super::proxy::{Peer, Proxy};
use super::request_id::{self, X_REQUEST_ID};
use super::router::router;
use super::site::Site;
use crate::model::route::is_own;

/// The front of one worker.
pub struct Front {
    router: Router,
    proxy: Arc<Proxy>,
    instance: Arc<str>,
}

impl Front {
    pub fn new(site: Site, proxy: Proxy) -> Self {
        let proxy = Arc::new(proxy);
        let instance = site.instance.clone();
        Self { router: router(site, proxy.clone()), proxy, instance }
    }

    pub async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        if request.headers().get_all(AUTHORIZATION).iter().nth(1).is_some() {
            return self.ambiguous(request);
        }
        if is_own(request.uri().path()) {
            return Box::pin(self.own(request, peer)).await;
        }
        let pause = self.proxy.body_pause();
        self.of_a_service(request.map(|body| RequestBody::hyper(body, pause)), peer).await
    }

    /// The hub would look at the one, and a module perhaps at the other.
    fn ambiguous(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let id = request_id::name(request.headers_mut(), &self.instance);
        let text = "the request has more than one 'Authorization' header";
        let problem = Problem::new(StatusCode::BAD_REQUEST, "bad_request", text);
        let mut response = problem.answer(wants_page(request.headers()));
        response.headers_mut().insert(X_REQUEST_ID, id.value());
        response
    }

    async fn of_a_service(&self, mut request: Request<RequestBody>, peer: Peer) -> Response<ResponseBody> {
        let id = request_id::name(request.headers_mut(), &self.instance);
        let mut response = if request_id::is_told() {
            request.extensions_mut().insert(peer.address);
            let answer = async |request| self.proxy.forward(request, peer).await;
            Box::pin(request_id::told(request, &id, answer)).await
        } else {
            self.proxy.forward(request, peer).await
        };
        response.headers_mut().entry(X_REQUEST_ID).or_insert_with(|| id.value());
        response
    }

    async fn own(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(peer.address);
        request.extensions_mut().insert(peer);
        let mut router = self.router.clone();
        match router.call(request).await {
            Ok(response) => response.map(ResponseBody::Hub),
            Err(never) => match never {},
        }
    }
}
