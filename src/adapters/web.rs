//! One GET to a port of this machine: a fresh connection, no pool, no redirects, a bounded answer.

use std::fmt;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::net::TcpStream;

/// The most that is read of an answer's body. Health pages are small; one that is not must not cost memory.
pub const BODY_LIMIT: usize = 64 << 10;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This process could not even ask: it has no descriptors, no ports or no memory. That says nothing of whoever was to be asked.
    Unasked(String),
    /// A sentence fragment that says what went wrong, free of numbers that change from one attempt to the next.
    Failed(String),
}

impl Fault {
    /// What the system said when something was to be asked.
    pub fn of(error: &io::Error, what: String) -> Self {
        const OURS: [Errno; 7] = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::ADDRNOTAVAIL,
            Errno::ADDRINUSE,
            Errno::NOMEM,
            Errno::NOBUFS,
            // No port is free, or there are too many processes.
            Errno::AGAIN,
        ];
        match Errno::from_io_error(error) {
            Some(errno) if OURS.contains(&errno) => Self::Unasked(what),
            _ => Self::Failed(what),
        }
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unasked(why) | Self::Failed(why)) = self;
        f.write_str(why)
    }
}

/// What is said of an answer that ends too soon.
const CUT_OFF: &str = "the connection was closed before the answer was complete";

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// At most [`BODY_LIMIT`] bytes; longer bodies are cut.
    pub body: Vec<u8>,
}

/// Asks `http://127.0.0.1:<port><path>` and closes the connection. Headers given here win over our own.
///
/// # Errors
/// [`Fault`].
pub async fn get<'a>(
    port: u16,
    path: &str,
    headers: impl IntoIterator<Item = (&'a String, &'a String)>,
    timeout: Duration,
) -> Result<Answer, Fault> {
    let request = request(port, path, headers)?;
    match tokio::time::timeout(timeout, exchange(port, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::Failed(format!("no answer within {} ms", timeout.as_millis()))),
    }
}

/// Opens a connection to a port of this machine.
///
/// # Errors
/// As [`get`].
pub async fn connect(port: u16) -> Result<TcpStream, Fault> {
    TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::Failed(format!("nothing listens on port {port}")),
        _ => Fault::of(&error, format!("no connection to port {port}: {error}")),
    })
}

fn request<'a>(
    port: u16,
    path: &str,
    headers: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(path)
        .header(HOST, format!("127.0.0.1:{port}"))
        .header(USER_AGENT, concat!("trueup/", env!("CARGO_PKG_VERSION")))
        // Nobody waits for a second request: the server may let go of the connection at once.
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| format!("'{path}' is not a path: {error}"))?;
    for (name, value) in headers {
        let wrong = |error: &dyn std::fmt::Display| format!("the header '{name}' cannot be sent: {error}");
        let parsed = hyper::header::HeaderName::try_from(name.as_str()).map_err(|error| wrong(&error))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|error| wrong(&error))?;
        request.headers_mut().insert(parsed, value);
    }
    Ok(request)
}

async fn exchange(port: u16, request: Request<Empty<Bytes>>) -> Result<Answer, Fault> {
    let stream = connect(port).await?;
    let broken = |error: hyper::Error| match () {
        () if error.is_incomplete_message() || error.is_canceled() => CUT_OFF.to_owned(),
        () if error.is_parse() => "the answer is not HTTP".to_owned(),
        () => format!("the connection broke: {error}"),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let mut response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(frame) = response.frame().await {
            let Ok(data) = frame.map_err(|_| CUT_OFF.to_owned())?.into_data() else { continue };
            let room = BODY_LIMIT - body.len();
            body.extend_from_slice(&data[..data.len().min(room)]);
            if body.len() == BODY_LIMIT {
                break;
            }
        }
        Ok(Answer { status, body })
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        // The exchange first: an answer that is complete counts, whatever the connection says then. Neither side is polled
        // again after this, so nothing is lost by dropping the other.
        biased;
        answer = &mut exchange => answer.map_err(Fault::Failed),
        ended = &mut connection => match ended {
            // The connection has handed over all it had; what is left sits in the channel.
            Ok(()) => exchange.await.map_err(Fault::Failed),
            Err(error) => exchange.await.map_err(|_| Fault::Failed(broken(error))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_here_is_told_from_what_is_missing_there() {
        let of = |errno: Errno| Fault::of(&errno.into(), "no".to_owned());
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOMEM, Errno::AGAIN] {
            assert_eq!(of(errno), Fault::Unasked("no".to_owned()), "{errno:?}");
        }
        for errno in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::NOENT, Errno::ACCESS] {
            assert_eq!(of(errno), Fault::Failed("no".to_owned()), "{errno:?}");
        }
    }
}
