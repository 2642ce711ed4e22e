//! A bucket of any S3 server as a backend: `<prefix><2 hex>/<62 hex>`. What was put is visible and durable when the server said so, so
//! there is nothing to settle.

mod error;
mod http;
mod leftover;
mod upload;

use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::HttpClient;
use object_store::path::Path;
use object_store::{
    BackoffConfig, GetOptions, GetRange, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutPayload, RetryConfig,
};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};

use self::error::Address;
use self::http::{Connector, Failure, noting};
use super::body::Body;
use crate::adapters::clock::since_boot;
use crate::model::blob::Sha256;
use crate::ports::blobs::{Backend, BackendError, Bucket, Object, Placed, Put};

/// Says whose objects these are; behind all of them in order.
const OWNER: &str = "trueup-owner";
/// More than a mark of ours ever has; what is longer is not from us.
const OWNER_LIMIT: u64 = 4 << 10;
/// What all uploads of a backend together may hold in memory, in KiB.
const UPLOAD_MEMORY: usize = 24 << 10;
/// For so long it is believed that the bucket is there: a server does not say whether an object or its bucket is missing.
const BUCKET_SEEN: Duration = Duration::from_secs(30);

/// How long a server is waited for, and how often asked again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next byte, in either direction.
    pub idle: Duration,
    /// Requests that failed and may be repeated.
    pub retries: usize,
    /// The pause before the first of them; each is up to twice as long as the one before, and random.
    pub pause: Duration,
    /// After this time since the first request none is repeated.
    pub altogether: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            retries: 3,
            pause: Duration::from_millis(200),
            altogether: Duration::from_secs(20),
        }
    }
}

/// Objects in a bucket.
pub struct S3 {
    link: Arc<Link>,
}

/// What readers keep as long as they need it.
struct Link {
    store: AmazonS3,
    client: HttpClient,
    address: Address,
    prefix: String,
    retries: usize,
    runtime: Handle,
    memory: Arc<Semaphore>,
    /// The server takes `If-None-Match` on a put.
    conditional: AtomicBool,
    bucket_seen: Mutex<Option<Duration>>,
    /// Its end is the end of the thread that drives the runtime.
    _until: oneshot::Sender<()>,
}

/// A request that failed, and what is known of it.
struct Failed {
    error: Box<object_store::Error>,
    failure: Option<Failure>,
}

impl Failed {
    fn has_code(&self, code: &str) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.code == code)
    }

    fn has_status(&self, status: u16) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.status == Some(status))
    }

    /// There was no answer: nobody knows what the server did.
    fn is_unanswered(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.status.is_none())
    }
}

impl S3 {
    /// Asks nothing of the server yet.
    ///
    /// # Errors
    /// When it cannot be right: no HTTP endpoint, a prefix that is no path, keys with characters that no key has.
    pub fn open(bucket: &Bucket) -> Result<Self, BackendError> {
        Self::open_with(bucket, Patience::default())
    }

    /// As [`S3::open`], with more or less patience.
    ///
    /// # Errors
    /// As [`S3::open`].
    pub fn open_with(bucket: &Bucket, patience: Patience) -> Result<Self, BackendError> {
        let address = Address::of(bucket);
        let refused = |why: String| BackendError::Refused(format!("{}: {why}", address.named()));
        let endpoint = endpoint(&address, bucket.path_style).map_err(refused)?;
        let texts = [Some(&bucket.access_key_id), Some(&bucket.secret_access_key), bucket.session_token.as_ref()];
        if texts.into_iter().flatten().any(|secret| !is_key(secret.reveal())) {
            return Err(refused(
                "a key or token is empty, or has characters that none has; see how it is quoted".into(),
            ));
        }
        let prefix = bucket.prefix.clone();
        Path::parse(&prefix).map_err(|error| refused(format!("the prefix '{prefix}' is no path: {error}")))?;
        let connector = Connector::new(endpoint.starts_with("https:"), &patience)
            .map_err(|error| refused(format!("no certificates to check the server by: {error}")))?;
        let client = connector.0.clone();
        let backoff = BackoffConfig { init_backoff: patience.pause, max_backoff: patience.altogether, base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: patience.retries, retry_timeout: patience.altogether };
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(connector)
            .with_allow_http(true)
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(!bucket.path_style)
            .with_bucket_name(&bucket.bucket)
            .with_region(&bucket.region)
            .with_access_key_id(bucket.access_key_id.reveal())
            .with_secret_access_key(bucket.secret_access_key.reveal())
            .with_disable_tagging(true)
            // A delete of one object is part of every server; a list of them is not.
            .with_disable_bulk_delete(true)
            // Headers are signed, bodies are not: each is hashed before and read back after by ourselves, and hashing it once more on
            // both sides only takes time.
            .with_unsigned_payload(true)
            .with_retry(retry);
        if let Some(token) = &bucket.session_token {
            builder = builder.with_token(token.reveal());
        }
        let store = builder.build().map_err(|error| refused(error.to_string()))?;
        let (runtime, until) =
            drive().map_err(|error| BackendError::Transient(format!("no thread for S3: {error}")))?;
        let link = Link {
            store,
            client,
            address,
            prefix,
            retries: patience.retries,
            runtime,
            memory: Arc::new(Semaphore::new(UPLOAD_MEMORY)),
            conditional: AtomicBool::new(true),
            bucket_seen: Mutex::default(),
            _until: until,
        };
        Ok(Self { link: Arc::new(link) })
    }
}

/// A runtime on a thread of its own, which ends with the sender. Others only wait on it, so no verb may be called from within a runtime.
fn drive() -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (until, ended) = oneshot::channel();
    let drive = move || {
        let _ = runtime.block_on(ended);
    };
    std::thread::Builder::new().name("s3".into()).spawn(drive)?;
    Ok((handle, until))
}

/// Where requests go: with the bucket in the host name unless it is to be in the path.
fn endpoint(address: &Address, path_style: bool) -> Result<String, String> {
    let uri: hyper::Uri = address.endpoint.parse().map_err(|error| format!("the endpoint is no URL: {error}"))?;
    let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.authority()) else {
        return Err("the endpoint does not begin with http:// or https://".into());
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("the endpoint has a path; leave it away".into());
    }
    if path_style {
        return Ok(address.endpoint.clone());
    }
    Ok(format!("{scheme}://{}.{host}", address.bucket))
}

/// Goes into a header as it is.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Link {
    fn path(&self, name: &Sha256) -> Path {
        let text = name.to_string();
        self.at(&format!("{}/{}", &text[..2], &text[2..]))
    }

    fn at(&self, rest: &str) -> Path {
        Path::from(format!("{}{rest}", self.prefix))
    }

    /// Waits for requests. While they wait, they do so on the runtime's thread.
    fn wait<T>(&self, requests: impl Future<Output = object_store::Result<T>>) -> Result<T, Failed> {
        let (out, failure) = self.runtime.block_on(noting(requests));
        match out {
            Ok(out) => {
                self.seen();
                Ok(out)
            }
            Err(error) => Err(Failed { error: Box::new(error), failure }),
        }
    }

    fn explain(&self, failed: &Failed) -> BackendError {
        self.address.explain(&failed.error, failed.failure.as_ref())
    }

    fn seen(&self) {
        *self.bucket_seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(since_boot());
    }

    /// That nothing is there counts only when its bucket is.
    fn absent(&self) -> Result<(), BackendError> {
        let seen = *self.bucket_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_some_and(|seen| since_boot().saturating_sub(seen) < BUCKET_SEEN) {
            return Ok(());
        }
        let mut listing = self.listing(None);
        self.wait(async { listing.next().await.transpose() }).map(|_| ()).map_err(|failed| self.explain(&failed))
    }

    fn listing(&self, after: Option<&Sha256>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let prefix = (!self.prefix.is_empty()).then(|| self.at(""));
        match after {
            Some(after) => self.store.list_with_offset(prefix.as_ref(), &self.path(after)),
            None => self.store.list(prefix.as_ref()),
        }
    }

    fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, BackendError> {
        match self.wait(self.store.head(path)) {
            Ok(found) => Ok(Some(found)),
            Err(failed) => match self.explain(&failed) {
                BackendError::Missing => self.absent().map(|()| None),
                error => Err(error),
            },
        }
    }

    fn get(self: &Arc<Self>, path: Path, range: Option<Range<u64>>) -> Result<Reader, BackendError> {
        let wanted = range.clone().map(|range| match i64::try_from(range.end) {
            Ok(_) => GetRange::Bounded(range),
            Err(_) => GetRange::Offset(range.start),
        });
        let options = GetOptions { range: wanted, ..GetOptions::default() };
        match self.wait(self.store.get_opts(&path, options)) {
            Ok(found) => Ok(Reader {
                tag: found.meta.e_tag.clone(),
                size: found.meta.size,
                at: found.range.start,
                end: found.range.end,
                stream: found.into_stream(),
                chunk: Bytes::new(),
                cuts: 0,
                path,
                link: Arc::clone(self),
            }),
            Err(failed) if failed.has_status(416) || failed.has_code("InvalidRange") => {
                // It begins behind the end.
                Ok(Reader {
                    tag: None,
                    size: 0,
                    at: 0,
                    end: 0,
                    stream: futures_util::stream::empty().boxed(),
                    chunk: Bytes::new(),
                    cuts: 0,
                    path,
                    link: Arc::clone(self),
                })
            }
            Err(failed) => match self.explain(&failed) {
                BackendError::Missing => Err(self.absent().err().unwrap_or(BackendError::Missing)),
                error => Err(error),
            },
        }
    }
}

impl Backend for S3 {
    fn put(&self, object: &Object, body: &mut dyn Read, how: Put) -> Result<Placed, BackendError> {
        let path = self.link.path(&object.name);
        let mut body = Body::new(body, object);
        if object.size <= upload::PART {
            self.link.put_small(&path, object.size, &mut body, how)
        } else {
            self.link.put_large(&path, object.size, &mut body, how)
        }
    }

    /// There is nothing to do.
    fn settle(&self, _: &[Sha256]) -> Result<(), BackendError> {
        Ok(())
    }

    fn open(&self, name: &Sha256, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send>, BackendError> {
        if range.as_ref().is_some_and(Range::is_empty) {
            // No server takes such a range.
            return self
                .size(name)?
                .map(|_| Box::new(io::empty()) as Box<dyn Read + Send>)
                .ok_or(BackendError::Missing);
        }
        Ok(Box::new(self.link.get(self.link.path(name), range)?))
    }

    fn size(&self, name: &Sha256) -> Result<Option<u64>, BackendError> {
        Ok(self.link.head(&self.link.path(name))?.map(|found| found.size))
    }

    fn delete(&self, name: &Sha256) -> Result<(), BackendError> {
        let path = self.link.path(name);
        let mut tries = 0;
        let deleted = loop {
            match self.link.wait(self.link.store.delete(&path)) {
                // `object_store` does not know that this may be repeated. Each try is slow enough in itself.
                Err(failed) if failed.is_unanswered() && tries < self.link.retries => tries += 1,
                deleted => break deleted,
            }
        };
        match deleted.map_err(|failed| self.link.explain(&failed)) {
            Err(BackendError::Missing) => self.link.absent(),
            deleted => deleted,
        }
    }

    fn list(&self, after: Option<&Sha256>, limit: usize) -> Result<Vec<Object>, BackendError> {
        let link = &self.link;
        let mut out: Vec<Object> = Vec::new();
        let mut last = after.copied();
        let mut listing = link.listing(last.as_ref());
        let mut cuts = 0;
        while out.len() < limit {
            let found = match link.wait(async { listing.next().await.transpose() }) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                // `object_store` does not ask again for the page whose answer was cut.
                Err(failed) if failed.is_unanswered() && cuts < link.retries => {
                    cuts += 1;
                    listing = link.listing(last.as_ref());
                    continue;
                }
                Err(failed) => return Err(link.explain(&failed)),
            };
            let Some(name) = link.name(&found.location) else { continue };
            if last.is_some_and(|last| name <= last) {
                return Err(BackendError::Refused(format!(
                    "{} does not list its objects in the order of their names; use a bucket of another kind",
                    link.address.named()
                )));
            }
            last = Some(name);
            out.push(Object { name, size: found.size });
        }
        Ok(out)
    }

    /// Ends uploads in parts that were cut off, where the server can list them.
    fn tidy(&self) -> Result<(), BackendError> {
        self.link.end_leftovers()
    }

    fn owner(&self) -> Result<Option<String>, BackendError> {
        let reader = match self.link.get(self.link.at(OWNER), None) {
            Ok(reader) => reader,
            Err(BackendError::Missing) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        match reader.take(OWNER_LIMIT).read_to_string(&mut text) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(BackendError::Refused(format!(
                "{} has a '{}{OWNER}' that is not from trueup",
                self.link.address.named(),
                self.link.prefix
            ))),
            Err(error) => Err(BackendError::from_io(&error)),
        }
    }

    fn claim(&self, owner: &str) -> Result<(), BackendError> {
        let payload = PutPayload::from(owner.as_bytes().to_vec());
        let path = self.link.at(OWNER);
        self.link.wait(self.link.store.put(&path, payload)).map(|_| ()).map_err(|failed| self.link.explain(&failed))
    }
}

impl Link {
    /// The object of a key, if it is one.
    fn name(&self, key: &Path) -> Option<Sha256> {
        let (first, rest) = key.as_ref().strip_prefix(self.prefix.as_str())?.split_once('/')?;
        (first.len() == 2).then(|| format!("{first}{rest}").parse().ok()).flatten()
    }
}

/// Reads an object as it comes, and goes on where a cut connection left off.
struct Reader {
    link: Arc<Link>,
    path: Path,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
    /// Of the next byte that the stream has.
    at: u64,
    end: u64,
    /// Of the object, by which another one under its name is told apart.
    size: u64,
    tag: Option<String>,
    /// Since the last byte.
    cuts: usize,
}

impl Reader {
    fn next(&mut self) -> Result<(), BackendError> {
        while self.chunk.is_empty() && self.at < self.end {
            let cut = match self.link.wait(async { self.stream.next().await.transpose() }) {
                Ok(Some(chunk)) => {
                    self.at += chunk.len() as u64;
                    self.chunk = chunk;
                    self.cuts = 0;
                    continue;
                }
                Ok(None) => BackendError::Transient(format!(
                    "{}: {} ended {} bytes too soon",
                    self.link.address.named(),
                    self.path,
                    self.end - self.at
                )),
                Err(failed) => self.link.explain(&failed),
            };
            if self.cuts == self.link.retries || !matches!(cut, BackendError::Transient(_)) {
                return Err(cut);
            }
            let cuts = self.cuts + 1;
            let again = self.link.get(self.path.clone(), Some(self.at..self.end))?;
            if again.tag != self.tag || again.size != self.size {
                return Err(BackendError::Transient(format!("{} was replaced while it was read", self.path)));
            }
            *self = Self { cuts, ..again };
        }
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next().map_err(BackendError::into_io)?;
        let count = self.chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
