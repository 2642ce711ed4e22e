//! The wire of a client, plain or encrypted: whoever takes nothing of what is sent to him is let go of.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

/// What happens on a connection, for whoever watches it: one timer for all of its requests, not one for each.
pub struct Activity {
    begun: Instant,
    /// Requests that are under way.
    busy: AtomicUsize,
    /// When the client last took something, in ms since it began.
    last: AtomicU64,
}

/// A request that is under way.
pub struct UnderWay(Arc<Activity>);

impl Activity {
    pub fn begin() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), busy: AtomicUsize::new(0), last: AtomicU64::new(0) })
    }

    pub fn request(self: &Arc<Self>) -> UnderWay {
        self.busy.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    fn took(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(ms, Ordering::Relaxed);
    }

    /// Ends when for so long there was no request and nothing was taken. Cancel-safe.
    pub async fn silence(&self, span: Duration) {
        loop {
            if self.busy.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(span).await;
                continue;
            }
            let until = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed)) + span;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.took();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of a client.
pub struct Wire {
    inner: Inner,
    activity: Arc<Activity>,
    pause: Duration,
    /// Made when the client is waited for; gone when he takes something.
    sleep: Option<Pin<Box<Sleep>>>,
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($wire:expr, $stream:ident => $do:expr) => {
        match &mut $wire.inner {
            Inner::Plain($stream) => $do,
            Inner::Tls($stream) => $do,
        }
    };
}

impl Wire {
    pub fn plain(stream: TcpStream, pause: Duration, activity: Arc<Activity>) -> Self {
        Self { inner: Inner::Plain(stream), activity, pause, sleep: None }
    }

    pub fn tls(stream: TlsStream<TcpStream>, pause: Duration, activity: Arc<Activity>) -> Self {
        Self { inner: Inner::Tls(Box::new(stream)), activity, pause, sleep: None }
    }

    /// Waits for the client at most so long.
    fn patiently<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if self.sleep.take().is_some() {
                self.activity.took();
            }
            return polled;
        }
        let pause = self.pause;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = each!(this, stream => Pin::new(stream).poll_write(cx, bytes));
        this.patiently(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = each!(this, stream => Pin::new(stream).poll_write_vectored(cx, slices));
        this.patiently(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(stream) => stream.is_write_vectored(),
            Inner::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = each!(this, stream => Pin::new(stream).poll_flush(cx));
        this.patiently(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = each!(this, stream => Pin::new(stream).poll_shutdown(cx));
        this.patiently(cx, polled)
    }
}
