//! Bodies on their way through: never held as a whole, and watched.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::pool::Lease;
use crate::hub::gate::Pass;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client that began a body and sends no more of it.
#[derive(Debug, thiserror::Error)]
#[error("nothing more came of the body of the request")]
pub struct Stalled;

/// The body of a request. Ends with [`Stalled`] when the client sends no more of it for too long.
pub struct RequestBody {
    inner: Inner,
    pause: Duration,
    /// Made when the client is waited for the first time.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Frames that came so far; whoever waits for the answer looks whether it grows.
    frames: Option<Arc<AtomicU64>>,
}

enum Inner {
    Empty,
    Hyper(Incoming),
    Axum(axum::body::Body),
}

impl RequestBody {
    pub fn empty() -> Self {
        Self { inner: Inner::Empty, pause: Duration::MAX, sleep: None, frames: None }
    }

    pub fn hyper(body: Incoming, pause: Duration) -> Self {
        if body.is_end_stream() { Self::empty() } else { Self::of(Inner::Hyper(body), pause) }
    }

    pub fn axum(body: axum::body::Body, pause: Duration) -> Self {
        if body.is_end_stream() { Self::empty() } else { Self::of(Inner::Axum(body), pause) }
    }

    fn of(inner: Inner, pause: Duration) -> Self {
        Self { inner, pause, sleep: None, frames: Some(Arc::default()) }
    }

    /// `None` when there is no body.
    pub fn frames(&self) -> Option<Arc<AtomicU64>> {
        self.frames.clone()
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.inner, Inner::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = match &mut this.inner {
            Inner::Empty => return Poll::Ready(None),
            Inner::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Inner::Axum(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
        };
        if let Poll::Ready(frame) = polled {
            if let Some(frames) = &this.frames {
                frames.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(sleep) = &mut this.sleep {
                sleep.as_mut().reset(Instant::now() + this.pause);
            }
            return Poll::Ready(frame);
        }
        let pause = this.pause;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Stalled.into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Hyper(body) => body.is_end_stream(),
            Inner::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Hyper(body) => body.size_hint(),
            Inner::Axum(body) => body.size_hint(),
        }
    }
}

/// The body of an answer.
pub enum ResponseBody {
    /// What the hub says itself.
    Text(Full<Bytes>),
    Hub(axum::body::Body),
    Module(ModuleBody),
}

/// The body of a module's answer. It drives its connection; when it ended well that is used again, otherwise it is closed with it.
pub struct ModuleBody {
    body: Incoming,
    lease: Option<Lease>,
    _pass: Option<Pass>,
}

impl ModuleBody {
    /// Without a lease somebody else drives the connection, and it is not used again.
    /// The request is counted for as long as its answer lasts.
    pub fn new(body: Incoming, lease: Option<Lease>, pass: Option<Pass>) -> Self {
        Self { body, lease, _pass: pass }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(lease) = &mut self.lease
        {
            // Now that it is known that more is wanted, it may have come.
            lease.drive(cx);
            polled = Pin::new(&mut self.body).poll_frame(cx);
        }
        let over = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            _ => false,
        };
        if over && let Some(lease) = self.lease.take() {
            lease.give_back(cx);
        }
        polled
    }
}

impl Drop for ModuleBody {
    fn drop(&mut self) {
        // An answer without a body is never asked for one.
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Text(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Hub(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Self::Module(module) => module.poll(cx).map_err(BoxError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(body) => body.is_end_stream(),
            Self::Hub(body) => body.is_end_stream(),
            Self::Module(module) => module.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(body) => body.size_hint(),
            Self::Hub(body) => body.size_hint(),
            Self::Module(module) => module.body.size_hint(),
        }
    }
}
