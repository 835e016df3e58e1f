//! Certificate authorities of one test, and the certificates they sign.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

/// A certificate authority with its certificate in a PEM file.
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A chain and its key as PEM files; they live as long as their `Authority`.
#[derive(Clone)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    /// The file to trust this authority by.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for the host `name`.
    pub fn sign(&self, name: &str) -> Certificate {
        self.sign_until(name, OffsetDateTime::now_utc() + Duration::days(90))
    }

    /// A certificate for the host `name` that expires; in all else as the Web's
    /// authorities make them.
    pub fn sign_until(&self, name: &str, not_after: OffsetDateTime) -> Certificate {
        let not_before = not_after.min(OffsetDateTime::now_utc()) - Duration::days(1);
        self.sign_between(name, not_before, not_after)
    }

    /// A certificate for the host `name` that is not valid yet.
    pub fn sign_from(&self, name: &str, not_before: OffsetDateTime) -> Certificate {
        self.sign_between(name, not_before, not_before + Duration::days(90))
    }

    fn sign_between(
        &self,
        name: &str,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = not_before;
        params.not_after = not_after;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();

        let certificate = Certificate {
            chain: self.folder.path().join(format!("{name}.pem")),
            key: self.folder.path().join(format!("{name}.key")),
        };
        std::fs::write(&certificate.chain, signed.pem()).unwrap();
        std::fs::write(&certificate.key, key.serialize_pem()).unwrap();
        certificate
    }
}
