//! The API for people and programs: the commands, over HTTP. Every call goes through [`rights`], and every answer is in the document
//! that is made from the handlers.

mod acts;
mod answers;
pub(super) mod asked;
mod blobs;
mod book;
mod deliveries;
mod flow;
mod history;
mod resources;
pub mod rights;
mod tokens;
mod watch;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::PartialSchema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, Server};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::history::text as lines_as_text;
use super::refusal::{ErrorBody, Refusal};
use super::site::Site;

/// Where it is mounted.
pub const BASE: &str = "/api/v1";

fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(resources::list))
        .routes(routes!(resources::describe))
        .routes(routes!(watch::watch))
        .routes(routes!(acts::plan))
        .routes(routes!(acts::reconcile))
        .routes(routes!(acts::restart))
        .routes(routes!(acts::stop))
        .routes(routes!(acts::start))
        .routes(routes!(history::events))
        .routes(routes!(history::logs))
        .routes(routes!(blobs::list))
        .routes(routes!(blobs::get, blobs::head, blobs::put, blobs::remove))
        .routes(routes!(book::list))
        .routes(routes!(book::show))
        .routes(routes!(tokens::list, tokens::mint))
        .routes(routes!(tokens::show, tokens::revoke))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::show, deliveries::discard))
        .routes(routes!(deliveries::replay))
        .routes(routes!(openapi))
}

/// The API below [`BASE`].
pub(super) fn router(site: &Site) -> Router<Site> {
    let (below, _) = routes().split_for_parts();
    let below = below.fallback(nothing).method_not_allowed_fallback(no_method);
    Router::new().route(BASE, get(nothing)).nest(BASE, below).layer(from_fn_with_state(site.clone(), rights::door))
}

/// The document of the API.
pub fn document() -> OpenApi {
    let mut document = routes().into_openapi();
    let mut info = Info::new("trueup", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "The commands of trueup, over HTTP. Every call needs a token ('Authorization: Bearer TOKEN') for the audience `hub` or \
         `operator`: with the scope `parachute:host:auth` it may look, with `parachute:host:admin` it may change. What is not in this \
         document is answered with 404, a method that is not with 405 and `Allow`. No answer may be stored."
            .to_owned(),
    );
    document.info = info;
    document.servers = Some(vec![Server::new(BASE)]);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = document.components.get_or_insert_default();
    components.schemas.insert("ErrorBody".to_owned(), ErrorBody::schema());
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
    document
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "document", tag = "document",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value), answers::Always)
)]
async fn openapi(_: asked::Nothing) -> axum::Json<OpenApi> {
    axum::Json(document())
}

async fn nothing(request: Request) -> Refusal {
    let path: String = request.uri().path().chars().take(200).collect();
    Refusal::not_found(format!("there is nothing at {path}; {BASE}/openapi.json says what there is"))
}

async fn no_method(request: Request) -> Response {
    let what = format!("{} is not possible here; 'Allow' says what is", request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what).into_response()
}

/// The parameter `limit`, within its bounds.
fn limit(asked: Option<usize>, usual: usize, most: usize) -> Result<usize, Refusal> {
    bounded("limit", asked, usual, most)
}

/// A number of things, within its bounds.
fn bounded(name: &str, asked: Option<usize>, usual: usize, most: usize) -> Result<usize, Refusal> {
    let number = asked.unwrap_or(usual);
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(Refusal::bad_request("invalid_parameter", format!("'{name}' cannot be {number}: it is from 1 to {most}")))
}
