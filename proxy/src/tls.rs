//! TLS on both sides: certificates by name, swapped while connections go on.
//!
//! Nothing here opens a file: callers hand over PEM text, and get an error that says what is wrong
//! with it before anything changes. A listener's configuration is made once and keeps its ticket
//! keys, so sessions resume across a change of certificates; the certificates themselves sit behind
//! one pointer that the next handshake reads.
//!
//! Measured choices: one TLS 1.3 ticket a handshake instead of two, and stateless tickets instead of
//! rustls's default session cache, which all workers would lock.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use switchback_config::model::TlsVersion;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The largest TLS record that we send. Each is encrypted into memory of its own; at this size the
/// allocator hands out the same few blocks again and again, which stay in the cache of the CPU, and a
/// client can use the first bytes of a response sooner.
const RECORD_BYTES: usize = 8 << 10;

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text is not PEM, or holds nothing of the kind.
    #[error("no {what} in PEM form found")]
    NothingFound {
        /// What was looked for.
        what: &'static str,
    },
    /// The PEM text is damaged.
    #[error("read {what}")]
    Pem {
        /// What was read.
        what: &'static str,
        /// What the reader says.
        #[source]
        cause: rustls_pki_types::pem::Error,
    },
    /// The certificate's contents cannot be understood.
    #[error("parse the certificate: {0}")]
    Certificate(String),
    /// Certificates of clients cannot be verified with these authorities.
    #[error("use the authorities of clients")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
    /// Certificate and key do not fit, or their kind is not supported.
    #[error("use certificate and key")]
    Rejected(#[from] rustls::Error),
    /// The name to verify is no host name.
    #[error("{0:?} is not a server name")]
    ServerName(String),
}

/// A certificate with its key, ready for handshakes.
#[derive(Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// DNS names and addresses it is valid for, lower case; wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// When it expires.
    pub expires: SystemTime,
}

impl Certificate {
    /// Whether it is valid for a name.
    fn covers(&self, name: &str) -> bool {
        let covers = |own: &String| match own.strip_prefix("*.") {
            None => own.eq_ignore_ascii_case(name),
            Some(parent) => name
                .split_once('.')
                .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        };
        self.names.iter().any(covers)
    }

    /// Reads a chain (leaf first) and its key.
    ///
    /// # Errors
    /// What is wrong with them, alone or together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        let leaf = chain.first().ok_or(TlsError::NothingFound {
            what: "certificate",
        })?;
        let (names, expires) = names_and_expiry(leaf)?;
        let key = CertifiedKey::from_der(chain, private_key(key)?, &provider())?;
        Ok(Self {
            key: Arc::new(key),
            names,
            expires,
        })
    }
}

/// The first name of the first certificate of a chain, or its subject if it has none, and when it expires.
///
/// # Errors
/// What is wrong with it.
pub fn name_and_expiry(chain: &[u8]) -> Result<(String, SystemTime), TlsError> {
    let chain = certificates(chain)?;
    let leaf = chain.first().ok_or(TlsError::NothingFound {
        what: "certificate",
    })?;
    let (names, expires) = names_and_expiry(leaf)?;
    let subject = || {
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|e| TlsError::Certificate(e.to_string()))?;
        Ok::<_, TlsError>(parsed.subject().to_string())
    };
    let name = names.into_iter().next().map_or_else(subject, Ok)?;
    Ok((name, expires))
}

/// The certificates of one listener.
#[derive(Debug, Default)]
struct Certificates {
    list: Vec<Arc<Certificate>>,
}

impl Certificates {
    /// The certificate for a name: exact, then wildcard, then the first.
    fn find(&self, name: Option<&str>) -> Option<&Arc<Certificate>> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = name
                .split_once('.')
                .map(|(_, parent)| format!("*.{parent}"));
            let by = |wanted: &str| {
                self.list
                    .iter()
                    .find(|c| c.names.iter().any(|n| n == wanted))
            };
            by(&name).or_else(|| by(wildcard.as_deref()?))
        });
        named.or_else(|| self.list.first())
    }
}

/// What a client has asked for by name (SNI), and the certificate it was shown.
#[derive(Clone, Debug)]
pub(crate) struct Addressed {
    name: Box<str>,
    certificate: Option<Arc<Certificate>>,
    strict: bool,
}

impl Addressed {
    /// Whether the client had to show a certificate, which was asked for in this name.
    pub(crate) const fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether a request for `host[:port]` may come on this connection: HTTP/2 clients send requests for
    /// all names of a certificate on one.
    pub(crate) fn is_for(&self, authority: &[u8]) -> bool {
        let Ok(authority) = std::str::from_utf8(authority) else {
            return false;
        };
        let host = authority
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(authority, |(host, _)| host);
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        host.eq_ignore_ascii_case(&self.name)
            || self
                .certificate
                .as_ref()
                .is_some_and(|shown| shown.covers(host))
    }
}

/// TLS of a listener; cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Arc<CertificateChoice>,
    /// Whether clients have to show a certificate.
    verifies_clients: bool,
}

#[derive(Debug, Default)]
struct CertificateChoice(ArcSwap<Certificates>);

impl ResolvesServerCert for CertificateChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0
            .load()
            .find(hello.server_name())
            .map(|certificate| certificate.key.clone())
    }
}

impl ServerTls {
    /// TLS with these certificates. With authorities (PEM) only clients that show a certificate of
    /// theirs are served.
    ///
    /// # Errors
    /// What is wrong with the authorities; [`TlsError::Rejected`] when the versions or ticket keys cannot
    /// be set up.
    pub fn new(
        certificates: Vec<Certificate>,
        min_version: TlsVersion,
        client_authorities: Option<&[u8]>,
    ) -> Result<Self, TlsError> {
        let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let choice = Arc::new(CertificateChoice::default());
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
        let builder = match client_authorities {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = Arc::new(authorities(pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_cert_resolver(choice.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.max_fragment_size = Some(RECORD_BYTES);
        let tls = Self {
            config: Arc::new(config),
            verifies_clients: client_authorities.is_some(),
            certificates: choice,
        };
        tls.set_certificates(certificates);
        Ok(tls)
    }

    /// Replaces the certificates for handshakes that begin from now on.
    pub fn set_certificates(&self, certificates: Vec<Certificate>) {
        let list = certificates.into_iter().map(Arc::new).collect();
        self.certificates.0.store(Arc::new(Certificates { list }));
    }

    /// Names and expiry of the certificates in use.
    #[must_use]
    pub fn expiries(&self) -> Vec<(Vec<String>, SystemTime)> {
        self.certificates
            .0
            .load()
            .list
            .iter()
            .map(|c| (c.names.clone(), c.expires))
            .collect()
    }

    /// What a connection is for, by the name that its client asked for.
    pub(crate) fn addressed(&self, name: &str) -> Addressed {
        let certificates = self.certificates.0.load();
        let certificate = certificates.find(Some(name)).cloned();
        // One that was shown for want of a better one says nothing about what else is served.
        let certificate = certificate.filter(|shown| shown.covers(name));
        Addressed {
            name: name.into(),
            certificate,
            strict: self.verifies_clients,
        }
    }

    pub(crate) const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

/// TLS towards an endpoint; cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Shared by the endpoints of a backend.
    pub config: Arc<ClientConfig>,
    /// The name to ask for and to verify.
    pub server_name: ServerName<'static>,
}

/// What TLS towards endpoints is made from.
#[derive(Debug, Default)]
pub struct ClientTlsFiles<'a> {
    /// Authorities to trust instead of the system's, as PEM.
    pub authorities: Option<&'a [u8]>,
    /// Chain and key to present, as PEM.
    pub identity: Option<(&'a [u8], &'a [u8])>,
}

/// The TLS configuration shared by the endpoints of a backend.
///
/// # Errors
/// What is wrong with the files.
pub fn client_config(files: &ClientTlsFiles<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match files.authorities {
        None => builder.with_platform_verifier()?,
        Some(pem) => builder.with_root_certificates(authorities(pem)?),
    };
    let mut config = match files.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            builder.with_client_auth_cert(certificates(chain)?, private_key(key)?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl ClientTls {
    /// TLS towards an endpoint that must show a certificate for `server_name`.
    ///
    /// # Errors
    /// [`TlsError::ServerName`].
    pub fn new(config: Arc<ClientConfig>, server_name: &str) -> Result<Self, TlsError> {
        let unbracketed = server_name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(unbracketed)
            .map_err(|_| TlsError::ServerName(server_name.to_owned()))?;
        Ok(Self {
            config,
            server_name: name,
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    match CryptoProvider::get_default() {
        Some(provider) => provider.clone(),
        None => Arc::new(aws_lc_rs::default_provider()),
    }
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem)? {
        roots.add(authority)?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|cause| TlsError::Pem {
        what: "certificates",
        cause,
    })?;
    if found.is_empty() {
        Err(TlsError::NothingFound {
            what: "certificate",
        })
    } else {
        Ok(found)
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|cause| match cause {
        rustls_pki_types::pem::Error::NoItemsFound => TlsError::NothingFound {
            what: "private key",
        },
        cause => TlsError::Pem {
            what: "private key",
            cause,
        },
    })
}

fn names_and_expiry(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, SystemTime), TlsError> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|e| TlsError::Certificate(e.to_string()))?;
    let alternatives = parsed
        .subject_alternative_name()
        .map_err(|e| TlsError::Certificate(e.to_string()))?;
    let mut names = Vec::new();
    for name in alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
            _ => {}
        }
    }
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok((
        names,
        SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds),
    ))
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| std::net::Ipv4Addr::from(octets).to_string());
    let v6 =
        || <[u8; 16]>::try_from(bytes).map(|octets| std::net::Ipv6Addr::from(octets).to_string());
    v4.or_else(|_| v6()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn certificate(names: &[&str]) -> Certificate {
        let (chain, key) = pair(names);
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect("valid")
    }

    #[test]
    fn certificates_are_chosen_by_name() {
        let list = [
            certificate(&["default.example"]),
            certificate(&["a.example", "*.b.example"]),
            certificate(&["x.b.example"]),
        ];
        let certificates = Certificates {
            list: list.map(Arc::new).to_vec(),
        };
        for (name, expected) in [
            (None, "default.example"),
            (Some("A.example"), "a.example"),
            (Some("y.b.example"), "a.example"),
            (Some("x.b.example"), "x.b.example"),
            (Some("z.y.b.example"), "default.example"),
            (Some("b.example"), "default.example"),
        ] {
            let found = certificates.find(name).map(|c| c.names[0].clone());
            assert_eq!(found.as_deref(), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn connection_is_for_its_name_and_the_others_of_its_certificate() {
        let certificates = vec![
            certificate(&["default.example"]),
            certificate(&["a.example", "*.b.example", "127.0.0.1"]),
        ];
        let tls = ServerTls::new(certificates, TlsVersion::Tls12, None).expect("valid");
        let connection = tls.addressed("A.example");
        for (host, expected) in [
            ("a.example", true),
            ("A.EXAMPLE:8443", true),
            ("a.example.", true),
            ("x.b.example:1", true),
            ("127.0.0.1:8443", true),
            ("b.example", false),
            ("y.x.b.example", false),
            ("default.example", false),
            ("evil-a.example", false),
            ("[::1]:8443", false),
        ] {
            assert_eq!(connection.is_for(host.as_bytes()), expected, "{host}");
        }
        // Whoever was shown the first certificate only because there is none for them.
        let connection = tls.addressed("unknown.example");
        assert!(connection.is_for(b"unknown.example"));
        assert!(!connection.is_for(b"default.example"));
    }

    #[test]
    fn unusable_certificates_are_refused_with_a_reason() {
        let (chain, key) = pair(&["a.example"]);
        let (_, other_key) = pair(&["a.example"]);
        for (chain, key, reason) in [
            ("", key.as_str(), "no certificate in PEM form found"),
            (chain.as_str(), "", "no private key in PEM form found"),
            (
                chain.as_str(),
                chain.as_str(),
                "no private key in PEM form found",
            ),
            (
                chain.as_str(),
                other_key.as_str(),
                "use certificate and key",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
                key.as_str(),
                "read certificates",
            ),
        ] {
            let error = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect_err(reason);
            assert_eq!(error.to_string(), reason);
        }
    }

    #[test]
    fn client_tls_needs_a_server_name() {
        let (authority, _) = pair(&["a.example"]);
        let files = ClientTlsFiles {
            authorities: Some(authority.as_bytes()),
            identity: None,
        };
        let config = client_config(&files).expect("valid");
        for good in ["a.example", "127.0.0.1", "[::1]", "::1"] {
            assert!(ClientTls::new(config.clone(), good).is_ok(), "{good}");
        }
        assert!(ClientTls::new(config, "a b").is_err());
    }
}
