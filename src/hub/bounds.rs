//! Every bound of the server and the proxy, in one place, each with its reason. Whoever is beyond one is answered or cut off; nobody
//! else notices.

use std::time::Duration;

/// The bounds in force. [`Bounds::default`] is what a daemon uses; tests use smaller ones.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections of all clients together. Each costs a descriptor, and up to another one towards a module; what is beyond gets 503.
    pub connections: usize,
    /// Connections of one address; what is beyond gets 429. Addresses of this machine are exempt: they may be a proxy or a tunnel, which
    /// speaks for many.
    pub connections_per_address: usize,
    /// A connection that says nothing yet, or is between two requests, and the head of a request from its first byte to its last.
    pub head: Duration,
    /// The handshake of TLS.
    pub handshake: Duration,
    /// The largest head of a request; what is larger gets 431. It also is the largest buffer of a connection.
    pub head_bytes: usize,
    /// A body of a request of which nothing comes any more; then 408.
    pub body_pause: Duration,
    /// A client that takes nothing of what is sent to it.
    pub write_pause: Duration,
    /// An HTTP/2 connection without a request. Its streams are bounded by [`Bounds::streams`].
    pub h2_idle: Duration,
    /// Requests under way on one HTTP/2 connection.
    pub streams: u32,
    /// Requests under way get so long when the listener moves to another address.
    pub drain: Duration,

    /// Before a service is stopped, the requests that it has get so long to be answered. Longer ones are the module's to end well.
    pub settle: Duration,

    /// Connecting to a module on this machine: its backlog is full when it takes longer.
    pub connect: Duration,
    /// So long a request waits for a module that starts, is started again, or refuses connections though it should be well.
    pub hold: Duration,
    /// Requests that wait so, per worker; what is beyond gets 503 at once.
    pub held: usize,
    /// From the end of a request to the head of its answer; then 504. Modules may ask a slow service of others.
    pub answer: Duration,
    /// Connections to one module, per worker. What is beyond waits for one of them.
    pub upstream_connections: usize,
    /// Kept connections to one module that nobody uses, per worker.
    pub upstream_idle: usize,
    /// How long an unused connection is kept. Shorter than what servers usually allow (Node and uvicorn: 5 s), so that we close first and
    /// a request seldom meets a connection that is just being closed.
    pub upstream_keep: Duration,

    /// Requests that one client has under way with modules, over all its connections; what is beyond gets 429. Programs of this machine are
    /// exempt: they could take every connection anyway.
    pub requests_per_client: usize,

    /// WebSockets of one client; what is beyond gets 429.
    pub websockets_per_client: usize,
    /// WebSockets of all clients together; what is beyond gets 429.
    pub websockets: usize,
    /// A WebSocket on which neither side says anything.
    pub websocket_idle: Duration,
    /// What is read but not yet written of a WebSocket, per direction.
    pub websocket_buffer: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 8_192,
            connections_per_address: 256,
            head: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            head_bytes: 64 << 10,
            body_pause: Duration::from_secs(60),
            write_pause: Duration::from_secs(60),
            h2_idle: Duration::from_secs(75),
            streams: 100,
            drain: Duration::from_secs(10),
            settle: Duration::from_millis(500),
            connect: Duration::from_secs(2),
            hold: Duration::from_secs(10),
            held: 1_024,
            answer: Duration::from_secs(300),
            upstream_connections: 512,
            upstream_idle: 64,
            upstream_keep: Duration::from_secs(4),
            requests_per_client: 128,
            websockets_per_client: 32,
            websockets: 512,
            websocket_idle: Duration::from_secs(255),
            websocket_buffer: 16 << 10,
        }
    }
}

/// Files that are open for other reasons than clients.
const OTHER_FILES: u64 = 256;

impl Bounds {
    /// The usual ones, with no more clients than so many open files allow: one for each, and one towards its module.
    pub fn within(files: u64) -> Self {
        let usual = Self::default();
        let most = usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(usize::MAX);
        Self { connections: usual.connections.min(most.max(64)), ..usual }
    }
}
