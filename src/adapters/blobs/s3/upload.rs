//! Putting an object into a bucket: in one request when it is small, in parts when it is large.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectMeta, ObjectStore as _, PutMode, PutMultipartOptions, PutOptions, PutPayload,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::http::noting;
use super::{Failed, Link};
use crate::adapters::blobs::body::Body;
use crate::ports::blobs::{BackendError, Placed, Put};

/// An object of this size or less is one request; others are parts of this size.
pub(super) const PART: u64 = 8 << 20;
/// S3 takes no more.
const PARTS: u64 = 10_000;
/// Parts on their way while the next is read.
const AT_ONCE: usize = 2;

/// A part on its way, with the memory it holds.
type Sending = JoinHandle<Result<(), Failed>>;

impl Link {
    /// Waits until so many bytes may be held.
    fn hold(&self, bytes: u64) -> Result<OwnedSemaphorePermit, BackendError> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let permit = self.runtime.block_on(Arc::clone(&self.memory).acquire_many_owned(kib));
        permit.map_err(|error| BackendError::Transient(error.to_string()))
    }

    /// The body is seen to its end before anything is sent.
    pub(super) fn put_small(
        &self,
        path: &Path,
        size: u64,
        body: &mut Body<'_>,
        how: Put,
    ) -> Result<Placed, BackendError> {
        let conditional = how == Put::IfAbsent && self.conditional.load(Ordering::Relaxed);
        if how == Put::IfAbsent && !conditional && self.head(path)?.is_some() {
            return Ok(Placed::Present);
        }
        let _held = self.hold(size)?;
        let mut bytes = body.buffer(usize::try_from(PART).unwrap_or(usize::MAX));
        body.fill(&mut bytes)?;
        let bytes = Bytes::from(bytes);
        if conditional {
            match self.create(path, bytes.clone())? {
                Some(placed) => return Ok(placed),
                None if self.head(path)?.is_some() => return Ok(Placed::Present),
                None => {}
            }
        }
        let put = self.store.put_opts(path, PutPayload::from(bytes), PutOptions::default());
        self.wait(put).map(|_| Placed::Stored).map_err(|failed| self.explain(&failed))
    }

    /// Spares a request to ask first. `None` when it must be done in another way.
    fn create(&self, path: &Path, bytes: Bytes) -> Result<Option<Placed>, BackendError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.wait(self.store.put_opts(path, PutPayload::from(bytes), options)) {
            Ok(_) => Ok(Some(Placed::Stored)),
            // Two at once: nobody knows yet which of them will be.
            Err(failed) if failed.has_status(409) => Ok(None),
            Err(failed) if matches!(*failed.error, Error::AlreadyExists { .. }) => Ok(Some(Placed::Present)),
            Err(failed) if failed.has_status(501) || failed.has_code("NotImplemented") => {
                self.conditional.store(false, Ordering::Relaxed);
                Ok(None)
            }
            // It is not repeated by `object_store`, since it might meet itself. For us that would be harmless.
            Err(failed) if failed.is_unanswered() => Ok(None),
            Err(failed) => Err(self.explain(&failed)),
        }
    }

    pub(super) fn put_large(
        &self,
        path: &Path,
        size: u64,
        body: &mut Body<'_>,
        how: Put,
    ) -> Result<Placed, BackendError> {
        if size.div_ceil(PART) > PARTS {
            let most = (PARTS * PART) >> 30;
            return Err(BackendError::Refused(format!(
                "{}: no object above {most} GiB is taken",
                self.address.named()
            )));
        }
        let before = self.head(path)?;
        if how == Put::IfAbsent && before.is_some() {
            return Ok(Placed::Present);
        }
        let begun = self.store.put_multipart_opts(path, PutMultipartOptions::default());
        let mut upload = self.wait(begun).map_err(|failed| self.explain(&failed))?;
        let mut sending = VecDeque::new();
        let sent = self.send_parts(upload.as_mut(), body, &mut sending);
        if let Err(error) = sent {
            for part in sending {
                part.abort();
            }
            // When this cannot be done either, the bucket's own rule has to.
            let _ = self.wait(upload.abort());
            return Err(error);
        }
        match self.wait(upload.complete()) {
            Ok(_) => Ok(Placed::Stored),
            Err(failed) => self.completed(path, size, before.as_ref(), upload.as_mut(), &failed),
        }
    }

    fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        body: &mut Body<'_>,
        sending: &mut VecDeque<Sending>,
    ) -> Result<(), BackendError> {
        loop {
            let held = self.hold(PART)?;
            let mut part = body.buffer(usize::try_from(PART).unwrap_or(usize::MAX));
            let count = body.fill(&mut part)?;
            if count == 0 {
                break;
            }
            part.truncate(count);
            let request = upload.put_part(PutPayload::from(part));
            let send = async move {
                let (sent, failure) = noting(request).await;
                drop(held);
                sent.map_err(|error| Failed { error: Box::new(error), failure })
            };
            sending.push_back(self.runtime.spawn(send));
            while sending.len() > AT_ONCE {
                self.sent(sending.pop_front())?;
            }
        }
        while !sending.is_empty() {
            self.sent(sending.pop_front())?;
        }
        Ok(())
    }

    fn sent(&self, part: Option<Sending>) -> Result<(), BackendError> {
        let Some(part) = part else { return Ok(()) };
        match self.runtime.block_on(part) {
            Ok(sent) => sent.map_err(|failed| self.explain(&failed)),
            Err(error) => Err(BackendError::Transient(error.to_string())),
        }
    }

    /// The end of an upload failed; or its acknowledgement was lost, it was ended a second time, and that failed.
    fn completed(
        &self,
        path: &Path,
        size: u64,
        before: Option<&ObjectMeta>,
        upload: &mut dyn MultipartUpload,
        failed: &Failed,
    ) -> Result<Placed, BackendError> {
        if failed.has_code("NoSuchBucket") {
            return Err(self.explain(failed));
        }
        let is_new = |found: &ObjectMeta| {
            before.is_none_or(|before| (&before.e_tag, before.last_modified) != (&found.e_tag, found.last_modified))
        };
        if self.head(path)?.is_some_and(|found| found.size == size && is_new(&found)) {
            return Ok(Placed::Stored);
        }
        let _ = self.wait(upload.abort());
        Err(match self.explain(failed) {
            // Every part was taken, so nothing is wrong with our rights: the server does not know the upload any more.
            BackendError::Missing | BackendError::Refused(_) => {
                BackendError::Transient(format!("{}: the upload of {path} came to nothing", self.address.named()))
            }
            error => error,
        })
    }
}
