//! The client: how it is set up, and that nothing waits for it for ever.

use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, Identity, KvClient, LeaseClient, TlsOptions, Txn,
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
    /// Connects, and asks for a lease: whether this instance is let in at all shows no earlier. Files are read
    /// anew: certificates and passwords may have been renewed.
    pub(super) async fn open(
        etcd: &Etcd,
        base: &Path,
        lease: Duration,
    ) -> Result<(Self, i64), String> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ETCD_TIME)
            .with_keep_alive(SILENCE, SILENCE)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            // What a password is exchanged for ends after some minutes in which nothing was asked.
            .with_auto_token_refresh(true);
        if let (Some(user), Some(file)) = (&etcd.user, &etcd.password_file) {
            let password = read(&base.join(file))?;
            options = options.with_user(user, password.trim_end());
        }
        let tls = tls(etcd, base)?;
        let has_tls = tls.is_some();
        if let Some(tls) = tls {
            options = options.with_tls(tls);
        }
        let seconds = i64::try_from(lease.as_secs()).unwrap_or(i64::MAX);
        let first = async {
            let client = Client::connect(&etcd.endpoints, Some(options)).await?;
            let granted = client.lease_client().grant(seconds, None).await?;
            Ok((client, granted.id()))
        };
        let first = in_time(first).await;
        let (client, granted) = first.map_err(|reason| match has_tls && is_cut(&reason) {
            true => NOT_TAKEN.to_owned(),
            false => reason,
        })?;
        let connection = Self {
            kv: client
                .kv_client()
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            lease: client.lease_client(),
            watch: client
                .watch_client()
                .max_decoding_message_size(ANSWER_BYTES_MAX),
        };
        Ok((connection, granted))
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
        Ok(answer) => answer.map_err(|error| words(&error)),
        Err(_) => Err(format!("no answer within {} s", ETCD_TIME.as_secs())),
    }
}

/// A server that does not take a certificate says so after the handshake, if its word arrives at all.
const NOT_TAKEN: &str = "etcd ended the connection before it answered; it may not take the certificate of this instance (cluster.etcd.certificate)";

/// Whether a connection came about and was ended at once.
fn is_cut(reason: &str) -> bool {
    [
        "received fatal alert",
        "broken pipe",
        "connection closed",
        "reset by peer",
    ]
    .iter()
    .any(|cut| reason.contains(cut))
}

/// What went wrong, and where to mend it.
pub(super) fn words(error: &Error) -> String {
    let said = match error {
        Error::GRpcStatus(status) => {
            let source = std::error::Error::source(status);
            source.map_or_else(|| status.message().to_owned(), innermost)
        }
        Error::TransportError(error) => innermost(error),
        error => error.to_string(),
    };
    let hint = match said.as_str() {
        "etcdserver: authentication failed, invalid user ID or password" => {
            "cluster.etcd.user, cluster.etcd.password_file"
        }
        "etcdserver: user name is empty" => "etcd asks for a user: cluster.etcd.user",
        "etcdserver: permission denied" => {
            "the user may not read and write all that is below cluster.etcd.prefix and cluster.name"
        }
        said if said.starts_with("invalid peer certificate") => "cluster.etcd.ca",
        _ => return said,
    };
    format!("{said} ({hint})")
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
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
