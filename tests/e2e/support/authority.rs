//! Certificates that tests make for themselves.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority of its own, whose certificates are written into a directory.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Writes `NAME.crt` and `NAME.key`, valid for these names; moved there at once, the key first.
    pub(crate) fn issue(&self, directory: &Path, name: &str, names: &[&str], until: i32) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        for (kind, text) in [("key", key.serialize_pem()), ("crt", made.pem())] {
            let partial = directory.join(format!("{name}.{kind}.new"));
            std::fs::write(&partial, text).unwrap();
            std::fs::rename(partial, directory.join(format!("{name}.{kind}"))).unwrap();
        }
    }
}
