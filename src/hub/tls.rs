//! The certificate: read at the start and again when its files change. A certificate that is bad does not replace a good one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::ports::hub::Tls;

/// What tells two versions of the files apart: device, inode, size and time of both.
type Print = [Option<(u64, u64, u64, i64, i64)>; 2];

/// The certificate of a listener.
pub struct Certificate {
    pub files: Tls,
    print: Print,
    pub config: Arc<ServerConfig>,
    /// What is wrong with the files now, when the certificate is from before.
    pub spoiled: Option<String>,
}

impl Certificate {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read(files: &Tls) -> Result<Self, String> {
        // Before the files: if they change in between, they are read once more.
        let print = print(files);
        Ok(Self { files: files.clone(), print, config: load(files)?, spoiled: None })
    }

    /// Reads the files again if they changed: `None` when they did not, an error when they are bad now, once.
    pub fn refresh(&mut self) -> Option<Result<(), String>> {
        let now = print(&self.files);
        if now == self.print {
            return None;
        }
        self.print = now;
        let read = load(&self.files).map(|config| self.config = config);
        self.spoiled = read.as_ref().err().cloned();
        Some(read)
    }
}

fn print(files: &Tls) -> Print {
    let of = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
    [of(&files.certificate), of(&files.key)]
}

fn load(files: &Tls) -> Result<Arc<ServerConfig>, String> {
    let wrong = |what: &str, path: &Path, error: &dyn std::fmt::Display| {
        format!("{what} in {} cannot be used: {error}", path.display())
    };
    let read = |error: &dyn std::fmt::Display| wrong("the certificate", &files.certificate, error);
    let chain = CertificateDer::pem_file_iter(&files.certificate).map_err(|error| read(&error))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| read(&error))?;
    if chain.is_empty() {
        return Err(read(&"there is none"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong("the key", &files.key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| read(&error))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| {
        format!("the certificate in {} and the key in {}: {error}", files.certificate.display(), files.key.display())
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
