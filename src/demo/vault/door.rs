//! Who may do what in a vault.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::guard::{Claims, Guard};
use super::super::say;

/// What somebody wants to do; who may do the later may do the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Read,
    Write,
    Admin,
}

const VERBS: [(Verb, &str); 3] = [(Verb::Read, "read"), (Verb::Write, "write"), (Verb::Admin, "admin")];

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    scopes: Vec<String>,
    /// Sees and writes only notes with one of these tags, or one below.
    pub(super) tags: Option<Vec<String>>,
}

/// Who is let in, besides those with a token of the hub.
#[derive(Clone)]
pub(super) struct Rules {
    /// Notes are for those with a token only.
    pub(super) require_token: bool,
    /// A token that may do everything.
    pub(super) operator_token: Option<String>,
}

/// What was refused, and how.
pub(super) type Refused = Box<Response>;

impl Caller {
    fn anyone() -> Self {
        Self { scopes: vec!["vault:admin".to_owned()], tags: None }
    }

    fn may(&self, vault: &str, verb: Verb) -> bool {
        let verb_of = |scope: &str| {
            let words: Vec<&str> = scope.split(':').collect();
            let name = match words[..] {
                ["vault", name] => name,
                ["vault", own, name] if own == vault => name,
                _ => return None,
            };
            VERBS.iter().find(|(_, text)| *text == name).map(|(verb, _)| *verb)
        };
        self.scopes.iter().filter_map(|scope| verb_of(scope)).any(|held| held >= verb)
    }
}

/// Lets in whoever may do this in the vault.
pub(super) async fn admit(
    guard: &Guard,
    rules: &Rules,
    headers: &HeaderMap,
    query: &[(String, String)],
    vault: &str,
    verb: Verb,
) -> Result<Caller, Refused> {
    let caller = match token(headers, query) {
        None if verb < Verb::Admin && !rules.require_token => Caller::anyone(),
        None => return Err(unauthorized("API key required")),
        Some(token) if rules.operator_token.as_deref().is_some_and(|own| is_same(own, token)) => Caller::anyone(),
        Some(token) if token.starts_with("eyJ") => known(guard, token, vault).await?,
        Some(_) => return Err(unauthorized("Invalid API key")),
    };
    match caller.may(vault, verb) {
        true => Ok(caller),
        false => Err(insufficient(&caller, vault, verb)),
    }
}

fn token<'a>(headers: &'a HeaderMap, query: &'a [(String, String)]) -> Option<&'a str> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let key = || query.iter().find(|(name, _)| name == "key").map(|(_, value)| value.as_str());
    bearer.or_else(|| header("x-api-key")).or_else(key).filter(|token| !token.is_empty())
}

/// Takes as long whatever is the same.
fn is_same(own: &str, token: &str) -> bool {
    own.len() == token.len() && own.bytes().zip(token.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

async fn known(guard: &Guard, token: &str, vault: &str) -> Result<Caller, Refused> {
    let claims = guard.check(token, &format!("vault.{vault}")).await.map_err(|refusal| {
        say(&format!("a token is refused ({:?})", refusal.code));
        unauthorized(&refusal.message)
    })?;
    let broad = claims.scopes.iter().find(|scope| VERBS.iter().any(|(_, verb)| **scope == format!("vault:{verb}")));
    if let Some(broad) = broad {
        return Err(unauthorized(&format!("the token's scope {broad} names no vault")));
    }
    if !claims.vault_scope.is_empty() && !claims.vault_scope.iter().any(|pin| pin == vault) {
        let message = format!("the token's vault_scope does not include the vault '{vault}'");
        let body = json!({ "error": "Forbidden", "error_type": "vault_scope_mismatch", "message": message, "required_vault": vault });
        return Err(answer(StatusCode::FORBIDDEN, body));
    }
    let tags = scoped_tags(&claims).ok_or_else(|| unauthorized("token has a malformed tag-scope claim"))?;
    Ok(Caller { scopes: claims.scopes, tags })
}

/// `None` when the claim cannot be read: a restriction that is not understood lets nobody in.
fn scoped_tags(claims: &Claims) -> Option<Option<Vec<String>>> {
    match claims.permissions.get("scoped_tags") {
        None | Some(Value::Null) => Some(None),
        Some(Value::Array(tags)) if !tags.is_empty() => {
            let tag = |tag: &Value| tag.as_str().filter(|tag| !tag.is_empty()).map(str::to_owned);
            tags.iter().map(tag).collect::<Option<Vec<_>>>().map(Some)
        }
        Some(_) => None,
    }
}

fn unauthorized(message: &str) -> Refused {
    answer(StatusCode::UNAUTHORIZED, json!({ "error": "Unauthorized", "message": message }))
}

fn insufficient(caller: &Caller, vault: &str, verb: Verb) -> Refused {
    let verb = VERBS.iter().find(|(known, _)| *known == verb).map_or("admin", |(_, text)| *text);
    let body = json!({
        "error": "Forbidden",
        "error_type": "insufficient_scope",
        "message": format!("this needs the scope vault:{verb} (or vault:{vault}:{verb})"),
        "required_scope": format!("vault:{verb}"),
        "granted_scopes": caller.scopes,
    });
    answer(StatusCode::FORBIDDEN, body)
}

fn answer(status: StatusCode, body: Value) -> Refused {
    Box::new((status, Json(body)).into_response())
}
