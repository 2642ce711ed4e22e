//! A real S3 server in this process, on a port of its own, with a key that is checked.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::sync::oneshot;
use trueup::model::secret::Secret;
use trueup::ports::blobs::Bucket;

/// Ends with this value.
pub struct S3 {
    pub endpoint: String,
    pub key: String,
    pub secret: String,
    /// Where it keeps its buckets, each a folder.
    pub folder: PathBuf,
    _until: oneshot::Sender<()>,
    _temporary: TempDir,
}

impl S3 {
    pub fn start() -> Self {
        let temporary = tempfile::tempdir().expect("a folder for the server");
        let folder = temporary.path().to_owned();
        let (key, secret) = ("AKIATRUEUPTEST".to_owned(), "a-secret-that-nobody-may-see".to_owned());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let address = listener.local_addr().expect("its address");
        let mut builder = S3ServiceBuilder::new(FileSystem::new(&folder).expect("a file system"));
        builder.set_auth(SimpleAuth::from_single(key.clone(), secret.clone()));
        let service = builder.build();
        let (until, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let served = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .serve_connection(TokioIo::new(stream), service.clone());
                        tokio::spawn(served);
                    }
                };
                tokio::select! { _ = ended => {}, () = serve => {} }
            });
        });
        Self { endpoint: format!("http://{address}"), key, secret, folder, _until: until, _temporary: temporary }
    }

    pub fn create_bucket(&self, name: &str) {
        std::fs::create_dir(self.folder.join(name)).expect("a bucket");
    }

    /// How to reach a bucket of it, or of whoever stands before it.
    pub fn bucket(&self, name: &str, prefix: &str, endpoint: &str) -> Bucket {
        Bucket {
            endpoint: endpoint.into(),
            bucket: name.into(),
            region: "us-east-1".into(),
            path_style: true,
            prefix: prefix.into(),
            access_key_id: Secret::new(self.key.clone()),
            secret_access_key: Secret::new(self.secret.clone()),
            session_token: None,
        }
    }
}
