//! Answers that go on: server-sent events, bounded for each client and in all.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::hub::leave::Leave;
use crate::hub::refusal::Refusal;
use crate::hub::site::Site;

/// So many events wait for a client.
const WAITING: usize = 64;
/// A client that has taken none of them for so long is dropped.
const SLOW: Duration = Duration::from_secs(30);
/// While nothing happens, a comment says so often that the connection is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

const TOO_SLOW: &str = "this client takes its events too slowly; ask again, with Last-Event-ID";
const ENDING: &str = "the daemon ends";
const OVER: &str = "the token does not count any more";

/// Where events go.
pub(super) struct Flow<T> {
    to: mpsc::Sender<T>,
    last: Arc<Mutex<Option<&'static str>>>,
}

/// The client is gone, or too slow.
#[derive(Debug)]
pub(super) struct Gone;

impl<T> Flow<T> {
    /// Gives it to the client, who may take its time, but not all of it.
    ///
    /// # Errors
    /// When the client takes no more.
    pub(super) async fn give(&self, item: T) -> Result<(), Gone> {
        match self.to.send_timeout(item, SLOW).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Gone),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                self.say(TOO_SLOW);
                Err(Gone)
            }
        }
    }

    /// The last word.
    fn say(&self, word: &'static str) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
    }
}

impl Flow<Event> {
    /// Gives an event with its data.
    ///
    /// # Errors
    /// When the client takes no more.
    pub(super) async fn event(&self, name: &str, id: Option<String>, data: &impl Serialize) -> Result<(), Gone> {
        let event = Event::default().event(name).json_data(data).map_err(|_| Gone)?;
        self.give(match id {
            Some(id) => event.id(id),
            None => event,
        })
        .await
    }
}

/// What a producer gives, and its last word.
type Begun<T> = (BoxStream<'static, T>, Arc<Mutex<Option<&'static str>>>);

/// Lets a producer run for one client, until it ends, the client is gone, its token counts no more or the daemon ends. Each item takes its seat along, so that
/// a client that takes nothing keeps its own.
fn begin<T: Send + 'static, F>(
    site: &Site,
    leave: &Arc<Leave>,
    produce: impl FnOnce(Flow<T>) -> F,
) -> Result<Begun<T>, Refusal>
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let seat: OwnedSemaphorePermit = site.streams.clone().try_acquire_owned().map_err(|_| Refusal::busy(5))?;
    let (to, from) = mpsc::channel(WAITING);
    let last = Arc::new(Mutex::new(None));
    let work = produce(Flow { to: to.clone(), last: last.clone() });
    let end = Flow { to, last: last.clone() };
    let (site, leave) = (site.clone(), leave.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = work => {}
            () = end.to.closed() => {}
            () = leave.over() => end.say(OVER),
            () = site.ended() => end.say(ENDING),
        }
    });
    let items = ReceiverStream::new(from).map(move |item| {
        let _ = &seat;
        item
    });
    Ok((items.boxed(), last))
}

/// Server-sent events.
pub(super) fn events<F>(
    site: &Site,
    leave: &Arc<Leave>,
    produce: impl FnOnce(Flow<Event>) -> F,
) -> Result<Response, Refusal>
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (items, last) = begin(site, leave, produce)?;
    let word = stream::once(async move { last.lock().unwrap_or_else(PoisonError::into_inner).take() });
    let word = word.filter_map(|word| async move {
        let data = serde_json::json!({ "reason": word? });
        Some(Event::default().event("end").data(data.to_string()))
    });
    let all = items.chain(word).map(Ok::<_, Infallible>);
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

/// Plain text, as it comes.
pub(in crate::hub) fn text<F>(
    site: &Site,
    leave: &Arc<Leave>,
    produce: impl FnOnce(TextFlow) -> F,
) -> Result<Response, Refusal>
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (items, _) = begin(site, leave, produce)?;
    let body = Body::from_stream(items.map(Ok::<_, Infallible>));
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

pub(super) type TextFlow = Flow<Bytes>;
