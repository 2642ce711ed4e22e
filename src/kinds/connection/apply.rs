//! Doing what was decided about a Connection. Every action is idempotent: a second time it finds its work done.

use serde_json::{Map, Value, json};

use super::plan::{Action, Lending, Preparing, Rearming, Unpreparing, Unwiring, Wiring, Withdrawing};
use super::record::{Record, Wired};
use crate::kinds::service::apply::Outcome;
use crate::kinds::{notes, trigger};
use crate::model::id::Name;
use crate::model::secret::Secret;
use crate::model::unit::Millis;
use crate::ports::bearers::{Minted, Wanted};
use crate::ports::deliveries::Found;
use crate::ports::peers::{Call, Method, Reply};
use crate::ports::{Hand, PortError};

/// How long a sink may take to note something.
const SINK_LIMIT: Millis = Millis::secs(5);

/// Does one step.
pub async fn apply(hand: &Hand<'_>, name: &Name, action: &Action) -> Outcome {
    let done = match action {
        Action::Accept => return Outcome::Changed(None),
        Action::Wire(wiring) => wire(hand, wiring).await,
        Action::Unwire(unwiring) => unwire(hand, unwiring).await,
        Action::Rearm(rearming) => rearm(hand, name, rearming).await,
        Action::Prepare(preparing) => prepare(hand, preparing).await,
        Action::Unprepare(unpreparing) => unprepare(hand, unpreparing).await,
        Action::Lend(lending) => lend(hand, lending).await,
        Action::Withdraw(withdrawing) => withdraw(hand, withdrawing).await,
        Action::Revoke { jtis } => {
            let revoked = jtis.iter().try_for_each(|jti| hand.bearers().revoke(jti));
            return revoked.map_or_else(Outcome::from, |()| Outcome::Changed(None));
        }
        Action::Release { heir } => {
            return hand
                .deliveries()
                .retire(name, heir.as_ref())
                .map_or_else(Outcome::from, |_| Outcome::Changed(None));
        }
    };
    match done {
        Ok(Some(record)) => Outcome::Recorded(record.write()),
        Ok(None) => Outcome::Changed(None),
        Err(error) => error.into(),
    }
}

type Done = Result<Option<Record>, PortError>;

/// The token that is used still, or a new one.
fn token(hand: &Hand<'_>, reuse: Option<&String>, wanted: &Wanted) -> Result<Minted, PortError> {
    let again = reuse.map(|jti| hand.bearers().again(jti)).transpose()?.flatten();
    again.map_or_else(|| hand.bearers().register(wanted), Ok)
}

async fn wire(hand: &Hand<'_>, wiring: &Wiring) -> Done {
    let Wiring { wire, at, port, reuse, issuer, claim } = wiring;
    let (scope, audience, pins) = at.admin();
    let admin = hand.bearers().brief(&scope, &audience, &pins)?;
    let sends = token(hand, reuse.as_ref(), &wire.bearer)?;
    let reply = hand.peers().call(trigger::put(*port, at, &admin, &wire.trigger, &sends.token)).await?;
    let Some(updated_at) = trigger::read_put(&reply).filter(|_| reply.is_success()) else {
        return Err(failed(&at.to_string(), &reply));
    };
    let place = super::record::Place { at: at.clone(), trigger: wire.trigger.name.clone() };
    let wired = Wired { place, what: wire.trigger.digest(), jti: sends.jti, issuer: issuer.clone(), updated_at };
    Ok(Some(Record { wired: Some(wired), ..claim.clone() }))
}

/// An answer that is no success: not done, and worth another try, but for what was not understood.
fn failed(who: &str, reply: &Reply) -> PortError {
    let text = format!("{who}: {}", trigger::refused(reply));
    match reply.status {
        400 | 405 | 413 | 422 => PortError::Never(text),
        // A success with an answer that says nothing: it may have been done.
        200..300 => PortError::Unsure(text),
        _ => PortError::Retry(text),
    }
}

async fn unwire(hand: &Hand<'_>, unwiring: &Unwiring) -> Done {
    let Unwiring { place, port, then } = unwiring;
    let Some(port) = port else { return Ok(then.clone()) };
    let (scope, audience, pins) = place.at.admin();
    let admin = hand.bearers().brief(&scope, &audience, &pins)?;
    let reply = hand.peers().call(trigger::delete(*port, &place.at, &admin, &place.trigger)).await?;
    match reply.is_success() || reply.status == 404 {
        true => Ok(then.clone()),
        false => Err(failed(&place.at.to_string(), &reply)),
    }
}

/// First the hub has the event, then its note is marked as sent: what is done twice by that has the same key twice.
async fn rearm(hand: &Hand<'_>, name: &Name, rearming: &Rearming) -> Done {
    let Rearming { place, port, event, durable, notes } = rearming;
    let (scope, audience, pins) = place.at.admin();
    let bearer = hand.bearers().brief(&scope, &audience, &pins)?;
    for note in notes {
        let answer = match durable {
            false => hand.peers().call(notes::again(*port, &place.at, &bearer, &note.id, &place.trigger)).await?,
            true => {
                let whole = hand.peers().call(notes::one(*port, &place.at, &bearer, &note.id)).await?;
                // Deleted meanwhile, or sent after all.
                let Some(body) = notes::event_of(&whole, &place.trigger, event) else { continue };
                hand.deliveries().take_in(name, &Found { body: Secret::new(body.to_string()) })?;
                let now = hand.clock().wall();
                hand.peers().call(notes::sent(*port, &place.at, &bearer, &note.id, &place.trigger, now)).await?
            }
        };
        if !answer.is_success() && answer.status != 404 {
            return Err(failed(&place.at.to_string(), &answer));
        }
    }
    Ok(None)
}

fn call(method: Method, port: u16, path: &str, bearer: Secret, body: Option<&Value>) -> Call {
    let body = body.map(|body| Secret::new(body.to_string()));
    Call { method, port, path: path.to_owned(), bearer: Some(bearer), body, timeout: SINK_LIMIT }
}

async fn prepare(hand: &Hand<'_>, preparing: &Preparing) -> Done {
    let Preparing { prepare, reuse, claim } = preparing;
    let admin = hand.bearers().brief(&prepare.scope, &prepare.audience, &[])?;
    let lent = prepare.token.as_ref().map(|wanted| token(hand, reuse.as_ref(), wanted)).transpose()?;
    let body = match &lent {
        Some(lent) => with_token(&prepare.body, lent.token.reveal()),
        None => prepare.body.clone(),
    };
    let reply = hand.peers().call(call(Method::Post, prepare.port, &prepare.put, admin, Some(&body))).await?;
    if !reply.is_success() {
        return Err(failed(&format!("Service/{}", prepare.service), &reply));
    }
    let mut record = claim.clone();
    if let Some(prepared) = &mut record.prepared {
        prepared.jti = lent.map(|lent| lent.jti);
        prepared.done = true;
    }
    Ok(Some(record))
}

/// Every `{token}` in a value, filled.
fn with_token(value: &Value, token: &str) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("{token}", token)),
        Value::Array(items) => items.iter().map(|item| with_token(item, token)).collect(),
        Value::Object(fields) => Value::Object(fields.iter().map(|(k, v)| (k.clone(), with_token(v, token))).collect()),
        other => other.clone(),
    }
}

async fn unprepare(hand: &Hand<'_>, unpreparing: &Unpreparing) -> Done {
    let Unpreparing { prepared, port, then } = unpreparing;
    let (Some(port), Some(path)) = (port, &prepared.remove) else { return Ok(Some(then.clone())) };
    let audience = prepared.scope.split(':').next().unwrap_or_default();
    let admin = hand.bearers().brief(&prepared.scope, audience, &[])?;
    let reply = hand.peers().call(call(Method::Delete, *port, path, admin, None)).await?;
    match reply.is_success() || reply.status == 404 {
        true => Ok(Some(then.clone())),
        false => Err(failed(&format!("Service/{}", prepared.service), &reply)),
    }
}

/// What a module is told of its credential. `op` is `provisioned`, `renewed` or `removed`.
fn notice(op: &str, connection: &Name, key: &str, vault: &str, scope: &str, tags: &[String]) -> Map<String, Value> {
    let body = json!({
        "kind": "credential",
        "op": op,
        "connection_id": connection.as_str(),
        "key": key,
        "vault": vault,
        "scope": scope,
        "scoped_tags": tags,
    });
    match body {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

async fn lend(hand: &Hand<'_>, lending: &Lending) -> Done {
    let Lending { lend, at, connection, reuse, renews, claim } = lending;
    let admin = hand.bearers().brief(&lend.call, &lend.audience, &[])?;
    let minted = token(hand, reuse.as_ref(), &lend.token)?;
    let op = if *renews { "renewed" } else { "provisioned" };
    let mut body = notice(op, connection, &lend.key, &at.vault, &lend.token.scope, &lend.tags);
    body.insert("token".to_owned(), minted.token.reveal().into());
    body.insert("jti".to_owned(), minted.jti.as_str().into());
    body.insert("expires_at".to_owned(), minted.expires.to_string().into());
    let body = Value::Object(body);
    let reply = hand.peers().call(call(Method::Post, lend.port, &lend.endpoint, admin, Some(&body))).await?;
    if !reply.is_success() {
        return Err(failed(&format!("Service/{}", lend.service), &reply));
    }
    let mut record = claim.clone();
    if let Some(lent) = &mut record.lent {
        lent.jti = Some(minted.jti);
        lent.done = true;
    }
    Ok(Some(record))
}

/// The module may be gone; its token does not count any more all the same.
async fn withdraw(hand: &Hand<'_>, withdrawing: &Withdrawing) -> Done {
    let Withdrawing { lent, connection, port, then } = withdrawing;
    let Some(port) = port else { return Ok(Some(then.clone())) };
    let audience = lent.call.split(':').next().unwrap_or_default();
    let admin = hand.bearers().brief(&lent.call, audience, &[])?;
    let body = Value::Object(notice("removed", connection, &lent.key, &lent.at.vault, &lent.scope, &lent.tags));
    // A notice, as a courtesy: who does not hear it finds that the token is refused.
    let _ = hand.peers().call(call(Method::Post, *port, &lent.endpoint, admin, Some(&body))).await;
    Ok(Some(then.clone()))
}
