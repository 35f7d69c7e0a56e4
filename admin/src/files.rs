//! Certificates, keys and tokens from the files that the configuration names.
//!
//! Everything is read and checked before anything changes. Paths are relative to the config file.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use switchback_config::diagnostic::{Diagnostic, render_all};
use switchback_config::model::{
    AdminTls, Config, HookAction, HttpHook, ListenerTls, Name, Rule, RunbookSource, UpstreamTls,
};
use switchback_config::units::Scheme;
use switchback_proxy::tls::{Certificate, ClientTlsFiles, TlsError, client_config};

use crate::auth::{Role, Token};
use crate::builder::Material;

/// A file that the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{key}: read {}: {cause}", path.display())]
    Read {
        /// The key that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: io::Error,
    },
    /// Its contents are no good.
    #[error("{key}: {}: {cause}", path.display())]
    Tls {
        /// The key that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: TlsError,
    },
    /// The tokens file is not valid.
    #[error("{key}: {}:\n{rendered}", path.display())]
    Tokens {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Its faults.
        rendered: String,
    },
    /// The secrets or authorities of a hook are no good.
    #[error("{key}: {cause}")]
    Hook {
        /// The key that names the file.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A file of a signal from outside.
    #[error("{key}: {reason}")]
    Signal {
        /// The rule that names it.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A runbook is not valid.
    #[error("runbooks.{name}: {}:\n{rendered}", path.display())]
    Runbook {
        /// Its name.
        name: Name,
        /// Its file.
        path: PathBuf,
        /// Its faults.
        rendered: String,
    },
    /// TLS of a server for programs cannot be set up.
    #[error("{0}: {1}")]
    ServerTls(&'static str, String),
}

/// The contents of a file. `key`: what names it.
pub(crate) fn read(base: &Path, path: &Path, key: &str) -> Result<Vec<u8>, FileError> {
    let path = base.join(path);
    fs::read(&path).map_err(|cause| FileError::Read {
        key: key.into(),
        path,
        cause,
    })
}

/// TLS towards all endpoints. What did not change is taken over from `before`, so that connections
/// made with it stay useful.
///
/// # Errors
/// When a file cannot be read or is no good.
pub fn upstream_tls(
    config: &Config,
    base: &Path,
    before: &Material,
) -> Result<Material, FileError> {
    let mut material = Material::default();
    for (service_name, service) in &config.services {
        for (backend_name, backend) in &service.backends {
            // A backend may get https endpoints over the API later.
            if backend.tls.is_default()
                && !backend.endpoints.iter().any(|e| e.scheme == Scheme::Https)
            {
                continue;
            }
            let key = format!("services.{service_name}.backends.{backend_name}.tls");
            let (digest, made) = client_tls(&backend.tls, base, &key, before, &material)?;
            material.by_contents.insert(digest, made.clone());
            material
                .upstream_tls
                .insert((service_name.clone(), backend_name.clone()), made);
        }
    }
    Ok(material)
}

fn client_tls(
    tls: &UpstreamTls,
    base: &Path,
    key: &str,
    before: &Material,
    now: &Material,
) -> Result<([u8; 32], Arc<ClientConfig>), FileError> {
    let load = |path: &Option<PathBuf>| path.as_ref().map(|path| read(base, path, key)).transpose();
    let authorities = load(&tls.ca)?;
    let (chain, private) = (load(&tls.client_certificate)?, load(&tls.client_key)?);
    let mut digest = Sha256::new();
    for part in [&authorities, &chain, &private] {
        digest.update(part.as_deref().map_or(0, <[u8]>::len).to_le_bytes());
        digest.update(part.as_deref().unwrap_or_default());
    }
    let digest: [u8; 32] = digest.finalize().into();
    if let Some(same) = before
        .by_contents
        .get(&digest)
        .or_else(|| now.by_contents.get(&digest))
    {
        return Ok((digest, same.clone()));
    }
    let files = ClientTlsFiles {
        authorities: authorities.as_deref(),
        identity: chain.as_deref().zip(private.as_deref()),
    };
    let path = tls
        .ca
        .clone()
        .or_else(|| tls.client_certificate.clone())
        .unwrap_or_default();
    let made = client_config(&files).map_err(|cause| FileError::Tls {
        key: key.into(),
        path,
        cause,
    })?;
    Ok((digest, made))
}

/// The certificates of a listener.
///
/// # Errors
/// When a file cannot be read or is no good.
pub fn certificates(
    name: &str,
    tls: &ListenerTls,
    base: &Path,
) -> Result<Vec<Certificate>, FileError> {
    let key = format!("listeners.{name}.tls.certificates");
    let load = |files: &switchback_config::model::CertificateFiles| {
        let chain = read(base, &files.certificate, &key)?;
        let private = read(base, &files.key, &key)?;
        Certificate::from_pem(&chain, &private).map_err(|cause| FileError::Tls {
            key: key.clone(),
            path: base.join(&files.certificate),
            cause,
        })
    };
    tls.certificates.iter().map(load).collect()
}

/// The authorities whose certificates clients of a listener must show.
///
/// # Errors
/// When the file cannot be read.
pub fn client_ca(name: &str, tls: &ListenerTls, base: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let key = format!("listeners.{name}.tls.client_ca");
    let path = tls.client_ca.as_deref();
    path.map(|path| read(base, path, &key)).transpose()
}

/// TLS of the admin API.
///
/// # Errors
/// When a file cannot be read or is no good.
pub fn admin_tls(tls: &AdminTls, base: &Path) -> Result<Arc<rustls::ServerConfig>, FileError> {
    server_tls(
        tls,
        base,
        [
            "admin.tls",
            "admin.tls.certificate",
            "admin.tls.key",
            "admin.tls.client_ca",
        ],
    )
}

/// TLS of the flag evaluation API.
///
/// # Errors
/// When a file cannot be read or is no good.
pub fn ofrep_tls(tls: &AdminTls, base: &Path) -> Result<Arc<rustls::ServerConfig>, FileError> {
    server_tls(
        tls,
        base,
        [
            "ofrep.tls",
            "ofrep.tls.certificate",
            "ofrep.tls.key",
            "ofrep.tls.client_ca",
        ],
    )
}

/// TLS of a server for programs. `keys`: what the section and its files are called.
fn server_tls(
    tls: &AdminTls,
    base: &Path,
    keys: [&'static str; 4],
) -> Result<Arc<rustls::ServerConfig>, FileError> {
    let [section, certificate_key, key_key, client_ca_key] = keys;
    let bad = |error: &dyn std::fmt::Display| FileError::ServerTls(section, error.to_string());
    let chain = read(base, &tls.certificate, certificate_key)?;
    let private = read(base, &tls.key, key_key)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    let chain = chain.map_err(|error| bad(&error))?;
    let private = PrivateKeyDer::from_pem_slice(&private).map_err(|error| bad(&error))?;
    let builder = rustls::ServerConfig::builder();
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            let text = read(base, path, client_ca_key)?;
            for authority in CertificateDer::pem_slice_iter(&text) {
                let authority = authority.map_err(|error| bad(&error))?;
                roots.add(authority).map_err(|error| bad(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder(roots.into()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad(&error))?)
        }
    };
    let config = builder
        .with_single_cert(chain, private)
        .map_err(|error| bad(&error))?;
    Ok(Arc::new(config))
}

/// The tokens of a tokens file of the admin API.
///
/// # Errors
/// When it cannot be read or is not valid.
pub fn tokens(path: &Path, base: &Path) -> Result<Vec<Token>, FileError> {
    let entries = read_tokens(
        path,
        base,
        "admin.tokens_file",
        switchback_config::parse_tokens,
    )?;
    let token = |entry: switchback_config::TokenEntry| {
        let role: Role = entry.role.parse().unwrap_or(Role::Viewer);
        Token {
            name: entry.name,
            role,
            digest: entry.digest,
        }
    };
    Ok(entries.into_iter().map(token).collect())
}

/// The tokens of those who may ask for flags; they have no role in the admin API.
///
/// # Errors
/// When it cannot be read or is not valid.
pub fn flag_tokens(path: &Path, base: &Path) -> Result<Vec<Token>, FileError> {
    let entries = read_tokens(
        path,
        base,
        "ofrep.tokens_file",
        switchback_config::parse_flag_tokens,
    )?;
    let token = |entry: switchback_config::FlagTokenEntry| Token {
        name: entry.name,
        role: Role::Viewer,
        digest: entry.digest,
    };
    Ok(entries.into_iter().map(token).collect())
}

fn read_tokens<T>(
    path: &Path,
    base: &Path,
    key: &'static str,
    parse: fn(&str) -> Result<Vec<T>, Vec<Diagnostic>>,
) -> Result<Vec<T>, FileError> {
    let text = read(base, path, key)?;
    let text = String::from_utf8_lossy(&text);
    parse(&text).map_err(|faults| {
        let name = path.display().to_string();
        FileError::Tokens {
            key,
            path: base.join(path),
            rendered: render_all(&faults, &text, &name, false),
        }
    })
}

/// Checks the files of all hooks. They are read again whenever they are used.
///
/// # Errors
/// When one cannot be read or is no good.
pub fn check_hooks(config: &Config, base: &Path) -> Result<(), FileError> {
    for (service, hook, http) in http_hooks(config) {
        let key = |key: &str| format!("services.{service}.hooks ({hook}).{key}");
        if let Some(path) = &http.secret_file {
            crate::hooks::request::secrets(&base.join(path)).map_err(|cause| FileError::Hook {
                key: key("secret_file"),
                cause,
            })?;
        }
        if let Some(path) = &http.ca {
            let key = key("ca");
            let authorities = read(base, path, &key)?;
            let files = ClientTlsFiles {
                authorities: Some(&authorities),
                identity: None,
            };
            client_config(&files).map_err(|cause| FileError::Tls {
                key,
                path: base.join(path),
                cause,
            })?;
        }
    }
    Ok(())
}

/// Reads the runbooks that are in files of their own, and makes them part of the configuration.
///
/// # Errors
/// When one cannot be read or is no good.
pub fn runbooks(config: &mut Config, base: &Path) -> Result<(), FileError> {
    let files = config
        .runbooks
        .iter()
        .filter_map(|(name, source)| match source {
            RunbookSource::File(path) => Some((name.clone(), PathBuf::from(path))),
            RunbookSource::Runbook(_) => None,
        });
    for (name, path) in files.collect::<Vec<_>>() {
        let text = read(base, &path, &format!("runbooks.{name}"))?;
        let text = String::from_utf8_lossy(&text);
        let refused = |rendered: String| FileError::Runbook {
            name: name.clone(),
            path: path.clone(),
            rendered,
        };
        let runbook = switchback_config::parse_runbook(&text).map_err(|faults| {
            refused(render_all(
                &faults,
                &text,
                &path.display().to_string(),
                false,
            ))
        })?;
        config
            .adopt_runbook(&name, runbook)
            .map_err(|service| refused(format!("there is no service {service:?}")))?;
    }
    Ok(())
}

/// Service, name and request of every hook that makes one.
fn http_hooks(config: &Config) -> impl Iterator<Item = (&Name, &Name, &HttpHook)> {
    config.services.iter().flat_map(|(service, file)| {
        let hooks = file.hooks.iter();
        hooks.filter_map(move |hook| match &hook.action {
            Some(HookAction::Http(http)) => Some((service, &hook.name, http)),
            _ => None,
        })
    })
}

/// All files that a configuration names, apart from itself.
#[must_use]
pub fn named(config: &Config) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = config.admin.tokens_file.iter().cloned().collect();
    if let Some(tls) = &config.admin.tls {
        paths.extend([tls.certificate.clone(), tls.key.clone()]);
        paths.extend(tls.client_ca.clone());
    }
    if let Some(ofrep) = &config.ofrep {
        paths.extend(ofrep.tokens_file.clone());
        if let Some(tls) = &ofrep.tls {
            paths.extend([tls.certificate.clone(), tls.key.clone()]);
            paths.extend(tls.client_ca.clone());
        }
    }
    paths.extend(config.runbook_files.iter().cloned());
    for tls in config
        .listeners
        .values()
        .filter_map(|listener| listener.tls.as_ref())
    {
        for files in &tls.certificates {
            paths.extend([files.certificate.clone(), files.key.clone()]);
        }
        paths.extend(tls.client_ca.clone());
    }
    for tls in config
        .services
        .values()
        .flat_map(|service| service.backends.values())
        .map(|b| &b.tls)
    {
        paths.extend(
            [&tls.ca, &tls.client_certificate, &tls.client_key]
                .into_iter()
                .flatten()
                .cloned(),
        );
    }
    for (_, _, http) in http_hooks(config) {
        paths.extend([&http.secret_file, &http.ca].into_iter().flatten().cloned());
    }
    let services = config.services.values();
    for rule in services.flat_map(|service| &service.rollback.rules) {
        if let Rule::Signal(signal) = rule {
            paths.extend(
                [&signal.ca, &signal.token_file]
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// TLS settings by the contents of the files they were made from.
pub type ByContents = HashMap<[u8; 32], Arc<ClientConfig>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_where_flags_are_asked_for_are_named() {
        let text = "version: 1
listeners: {web: {address: \"127.0.0.1:0\"}}
ofrep:
  address: \"127.0.0.1:0\"
  tokens_file: apps.yaml
  tls: {certificate: o.pem, key: o.key, client_ca: o-ca.pem}
routes: [{service: shop}]
services:
  shop: {stable: blue, backends: {blue: {version: \"1\", endpoints: [\"http://127.0.0.1:1\"]}}}
";
        let config = crate::testing::config(text);
        let expected = ["apps.yaml", "o-ca.pem", "o.key", "o.pem"].map(PathBuf::from);
        assert_eq!(named(&config), expected);
    }
}
