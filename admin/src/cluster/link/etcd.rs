//! The client: how it is set up, and that nothing waits for it for ever.

use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, LeaseClient, TlsOptions, Txn,
    TxnResponse, WatchClient,
};
use switchback_config::defaults::ETCD_TIME;
use switchback_config::model::Etcd;

/// Longest answer that is read: the changes that are kept, unless nearly all are at their longest.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How soon a connection that says nothing is taken for broken.
const SILENCE: Duration = Duration::from_secs(2);

/// The parts of etcd that are used.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) kv: KvClient,
    pub(super) lease: LeaseClient,
    pub(super) watch: WatchClient,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Files are read anew: certificates may have been renewed.
    pub(super) async fn open(etcd: &Etcd, base: &Path) -> Result<Self, String> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ETCD_TIME)
            .with_keep_alive(SILENCE, SILENCE)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let (Some(user), Some(file)) = (&etcd.user, &etcd.password_file) {
            let password = read(&base.join(file))?;
            options = options.with_user(user, password.trim_end());
        }
        if let Some(tls) = tls(etcd, base)? {
            options = options.with_tls(tls);
        }
        let client = in_time(Client::connect(&etcd.endpoints, Some(options))).await?;
        Ok(Self {
            kv: client
                .kv_client()
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            lease: client.lease_client(),
            watch: client
                .watch_client()
                .max_decoding_message_size(ANSWER_BYTES_MAX),
        })
    }

    /// Carries out a transaction.
    pub(super) async fn txn(&self, txn: Txn) -> Result<TxnResponse, String> {
        in_time(self.kv.clone().txn(txn)).await
    }
}

/// Everything is answered in time or has failed.
pub(super) async fn in_time<T>(
    asked: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(ETCD_TIME, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ETCD_TIME.as_secs())),
    }
}

fn tls(etcd: &Etcd, base: &Path) -> Result<Option<TlsOptions>, String> {
    let is_https = |endpoint: &String| endpoint.starts_with("https://");
    if !etcd.endpoints.iter().any(is_https) {
        return Ok(None);
    }
    let mut tls = TlsOptions::new();
    tls = match &etcd.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(read(&base.join(ca))?)),
        None => tls.with_enabled_roots(),
    };
    if let (Some(certificate), Some(key)) = (&etcd.certificate, &etcd.key) {
        let certificate = read(&base.join(certificate))?;
        tls = tls.identity(Identity::from_pem(certificate, read(&base.join(key))?));
    }
    Ok(Some(tls))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))
}
