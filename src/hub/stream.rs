//! The wire of a client, plain or encrypted: whoever takes nothing of what is sent to him is let go of.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

/// A connection of a client.
pub struct Wire {
    inner: Inner,
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
    pub fn plain(stream: TcpStream, pause: Duration) -> Self {
        Self { inner: Inner::Plain(stream), pause, sleep: None }
    }

    pub fn tls(stream: TlsStream<TcpStream>, pause: Duration) -> Self {
        Self { inner: Inner::Tls(Box::new(stream)), pause, sleep: None }
    }

    /// Waits for the client at most so long.
    fn patiently<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.sleep = None;
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
