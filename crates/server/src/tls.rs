//! The installation's own certificate authority and the server's certificate.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the CA's certificate lies, for clients to trust.
pub fn ca_path(data: &Path) -> PathBuf {
    data.join("ca").join("ca.pem")
}

/// A TLS configuration with a certificate for these names, signed by the CA in the data folder,
/// which is made if missing.
pub fn server_config(data: &Path, names: &[String]) -> Result<rustls::ServerConfig, String> {
    let folder = data.join("ca");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (ca_pem, ca_key) = authority(&folder)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(text)?;
    // The server's certificate is made anew at each start: nobody remembers it, the CA is trusted.
    let key = KeyPair::generate().map_err(text)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(text)?;
    params.distinguished_name = named("Vigie server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let now = std::time::SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * 397).into();
    let certificate = params.signed_by(&key, &issuer).map_err(text)?;
    let chain = vec![
        CertificateDer::from(certificate.der().to_vec()),
        CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(text)?,
    ];
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(text)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(text)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(text)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

fn authority(folder: &Path) -> Result<(String, KeyPair), String> {
    let (pem_path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
    if let (Ok(pem), Ok(key)) =
        (std::fs::read_to_string(&pem_path), std::fs::read_to_string(&key_path))
    {
        return Ok((pem, KeyPair::from_pem(&key).map_err(text)?));
    }
    let key = KeyPair::generate().map_err(text)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Vigie local CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = std::time::SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * 3650).into();
    let pem = params.self_signed(&key).map_err(text)?.pem();
    let write = |path: &Path, content: &str, mode: u32| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()
    };
    write(&key_path, &key.serialize_pem(), 0o600)
        .map_err(|error| format!("{}: {error}", key_path.display()))?;
    write(&pem_path, &pem, 0o644).map_err(|error| format!("{}: {error}", pem_path.display()))?;
    Ok((pem, key))
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
