//! Uploads in parts that were cut off: nobody sees them, and they are paid for. `object_store` can end one and cannot list them, so the
//! list is asked for here, with an address that it signs.

use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request, StatusCode};
use object_store::client::HttpRequestBody;
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};

use super::http::{element, noting};
use super::{Failed, Link};
use crate::adapters::clock::SystemClock;
use crate::ports::blobs::BackendError;
use crate::ports::clock::Clock as _;

/// What is younger may still be going on.
const LEFTOVER_AFTER: Duration = Duration::from_secs(3600);
/// A page has a thousand uploads; more pages than these wait for the next time.
const PAGES: usize = 20;
/// More than any page of a thousand has.
const PAGE_LIMIT: usize = 4 << 20;
/// For how long a signed address is good.
const SIGNED_FOR: Duration = Duration::from_secs(300);

/// An upload, as a server lists it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upload {
    key: String,
    id: String,
    begun: jiff::Timestamp,
}

/// Where the next page begins: behind this key and this upload.
type Marker = (String, String);

impl Link {
    /// Ends uploads of objects of ours that were begun too long ago. Servers that cannot list them are left alone, and those that do
    /// not let us: then it is for the bucket's own rule (`AbortIncompleteMultipartUpload`).
    pub(super) fn end_leftovers(&self) -> Result<(), BackendError> {
        let mut marker = None;
        for _ in 0..PAGES {
            let Some(page) = self.uploads(marker.as_ref())? else { return Ok(()) };
            let (uploads, next) = read_page(&page);
            let now = SystemClock.wall().0;
            for upload in uploads {
                let age = now.saturating_sub(upload.begun.as_millisecond());
                let path = Path::from(upload.key.as_str());
                if i128::from(age) < LEFTOVER_AFTER.as_millis().cast_signed() || self.name(&path).is_none() {
                    continue;
                }
                match self.wait(self.store.abort_multipart(&path, &upload.id)).map_err(|failed| self.explain(&failed)) {
                    Err(BackendError::Missing) => {}
                    ended => ended?,
                }
            }
            marker = next;
            if marker.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A page of the list. `None` when the server has none to give.
    fn uploads(&self, marker: Option<&Marker>) -> Result<Option<String>, BackendError> {
        let mut query = vec![("uploads", ""), ("max-uploads", "1000"), ("prefix", self.prefix.as_str())];
        if let Some((key, id)) = marker {
            query.extend([("key-marker", key.as_str()), ("upload-id-marker", id.as_str())]);
        }
        let options = SignedUrlOptions::default().with_query(query);
        let bucket = Path::default();
        let signed = self.store.signed_url_opts(Method::GET, &bucket, SIGNED_FOR, &options);
        let signed = self.wait(signed).map_err(|failed| self.explain(&failed))?;
        let request = Request::get(signed.as_str()).body(HttpRequestBody::empty());
        let request = request.map_err(|error| BackendError::Refused(format!("{}: {error}", self.address.named())))?;
        let asked = async {
            let (parts, body) = self.client.execute(request).await?.into_parts();
            let page = Limited::new(body, PAGE_LIMIT).collect().await.map(|page| page.to_bytes());
            Ok((parts.status, page))
        };
        let (answer, failure): (Result<_, object_store::client::HttpError>, _) = self.runtime.block_on(noting(asked));
        let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
            let error = Box::new(object_store::Error::Generic { store: "S3", source: error });
            self.explain(&Failed { error, failure: failure.clone() })
        };
        match answer {
            Ok((StatusCode::OK, page)) => {
                page.map(|page| Some(String::from_utf8_lossy(&page).into_owned())).map_err(broken)
            }
            Ok((status, _)) if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => Ok(None),
            Ok((status, _)) => Err(broken(format!("HTTP status {status}").into())),
            Err(error) => Err(broken(error.into())),
        }
    }
}

/// The uploads of a page, and where the next one begins if there is one. What is not understood is left out.
pub(super) fn read_page(page: &str) -> (Vec<Upload>, Option<Marker>) {
    let upload = |part: &str| {
        let begun = element(part, "Initiated")?.parse().ok()?;
        Some(Upload { key: element(part, "Key")?.to_owned(), id: element(part, "UploadId")?.to_owned(), begun })
    };
    let uploads = page.split("<Upload>").skip(1).filter_map(upload).collect();
    let head = page.split("<Upload>").next().unwrap_or_default();
    let more = element(page, "IsTruncated") == Some("true");
    let next = element(head, "NextKeyMarker").zip(element(head, "NextUploadIdMarker"));
    (uploads, next.filter(|_| more).map(|(key, id)| (key.to_owned(), id.to_owned())))
}
