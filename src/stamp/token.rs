//! An authority's answer, checked. Owns what makes it one for these bytes; not how it came.
//!
//! The order of RFC 3161, section 2.2 and 2.4.2: the status, the imprint, the nonce, the signer's certificate as the token names it, the
//! signature over the attributes, and the certificate's chain to an anchor, at the time that the token says, for time stamping alone.
//! The chain is checked by the library that checks TLS's. Revocation is not looked at: that is for those who decide a dispute.
//!
//! Invariant: nothing of an answer is believed that its signature does not cover; its texts are shown as one printable line.

use super::form::{
    CONTENT_TYPE, Imprint, Info, MESSAGE_DIGEST, Response, SHA256, SHA384, SHA512, SIGNED_DATA,
    SIGNING_CERTIFICATE, SIGNING_CERTIFICATE_V2, SigningCertificate, SigningCertificateV2, TST_INFO,
};
use crate::chain::printable;
use cms::cert::CertificateChoices;
use cms::cert::x509::Certificate;
use cms::cert::x509::attr::Attributes;
use cms::cert::x509::ext::pkix::{ExtendedKeyUsage, SubjectKeyIdentifier};
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use data_encoding::HEXLOWER;
use der::asn1::{ObjectIdentifier, OctetString};
use der::{Any, Decode as _, Encode as _, Tag, Tagged as _};
use jiff::Timestamp;
use ring::digest::{self, digest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use std::path::{Path, PathBuf};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring as algorithms};

/// `id-kp-timeStamping`.
const ID_KP_TIME_STAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");
/// The same as bytes.
const TIME_STAMPING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];

/// What certificates may be signed by.
const ALL: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
];

/// Why an answer is no time stamp of these bytes.
#[derive(Debug, thiserror::Error)]
pub enum StampError {
    /// A file of certificates that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of certificates.
    #[error("{} holds no certificate in PEM: {detail}", path.display())]
    Anchors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The way to the authority cannot be as it is configured.
    #[error("{key}: {detail}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// No answer.
    #[error("the time-stamping authority gives no answer: {0}")]
    Unreachable(String),
    /// It refuses.
    #[error("the time-stamping authority refuses: {0}")]
    Refused(String),
    /// Not the form.
    #[error("the time stamp is not one of RFC 3161: {0}")]
    Form(String),
    /// Of other bytes.
    #[error("the time stamp is of something else: its hash is another one")]
    Imprint,
    /// Of another request.
    #[error("the time stamp answers another request: its nonce is another one")]
    Nonce,
    /// Not signed by whom it names.
    #[error("the time stamp's signature is wrong: {0}")]
    Signature(String),
    /// Nobody vouches for the signer.
    #[error("the time stamp's certificate is not one of this authority: {0}")]
    Chain(String),
}

fn form(error: impl ToString) -> StampError {
    StampError::Form(printable(&error.to_string()).into_owned())
}

/// Certificates that are trusted.
pub struct Anchors(Vec<TrustAnchor<'static>>);

impl std::fmt::Debug for Anchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Anchors({})", self.0.len())
    }
}

impl Anchors {
    /// Reads a file in PEM.
    ///
    /// # Errors
    /// When it cannot be read, or holds none.
    pub fn load(path: &Path) -> Result<Self, StampError> {
        let wrong = |detail: String| StampError::Anchors { path: path.to_owned(), detail };
        let text = crate::named::read(path);
        let text = text.map_err(|source| StampError::Read { path: path.to_owned(), source })?;
        let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
        let anchors =
            certificates.iter().map(|one| anchor_from_trusted_cert(one).map(|anchor| anchor.to_owned()));
        let anchors: Vec<_> =
            anchors.collect::<Result<_, webpki::Error>>().map_err(|error| wrong(format!("{error:?}")))?;
        if anchors.is_empty() { Err(wrong("there is none".to_owned())) } else { Ok(Self(anchors)) }
    }
}

/// What a checked time stamp says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When the bytes were there.
    pub time: Timestamp,
    /// How far off that may be, if it says so.
    pub accuracy: Option<Duration>,
    /// The authority's number for it, hexadecimal.
    pub serial: String,
    /// Whose certificate signed it.
    pub signer: String,
}

/// Checks an answer. `nonce`: of the request, if it is known. `anchors`: without them the signer's certificate is only held together with
/// its signature.
///
/// # Errors
/// What is wrong.
pub fn check(
    answer: &[u8],
    bytes: &[u8],
    nonce: Option<&[u8]>,
    anchors: Option<&Anchors>,
) -> Result<Stamp, StampError> {
    let response = Response::from_der(answer).map_err(form)?;
    // 0: granted, 1: granted with modifications.
    if response.status.status > 1 {
        let texts = response.status.text.unwrap_or_default().join("; ");
        let text = if texts.is_empty() { format!("status {}", response.status.status) } else { texts };
        return Err(StampError::Refused(printable(&text).into_owned()));
    }
    let token = response.token.ok_or_else(|| form("it has no token"))?;
    if token.content_type != SIGNED_DATA {
        return Err(form("the token is no signed data"));
    }
    let signed: SignedData = token.content.decode_as().map_err(form)?;
    if signed.encap_content_info.econtent_type != TST_INFO {
        return Err(form("what is signed is no time"));
    }
    let content = signed.encap_content_info.econtent.as_ref().ok_or_else(|| form("nothing is signed"))?;
    let content: OctetString = content.decode_as().map_err(form)?;
    let info = Info::from_der(content.as_bytes()).map_err(form)?;
    imprint(&info.imprint, bytes)?;
    if let Some(nonce) = nonce
        && info.nonce.as_ref().map(|nonce| nonce.as_bytes()) != Some(nonce)
    {
        return Err(StampError::Nonce);
    }
    let time = time(&info.time)?;
    let signer = signature(&signed, content.as_bytes(), time, anchors)?;
    Ok(Stamp { time, accuracy: accuracy(&info), serial: HEXLOWER.encode(info.serial.as_bytes()), signer })
}

fn imprint(imprint: &Imprint, bytes: &[u8]) -> Result<(), StampError> {
    let hash = digest(&digest::SHA256, bytes);
    match imprint.algorithm.oid == SHA256 && imprint.hash.as_bytes() == hash.as_ref() {
        true => Ok(()),
        false => Err(StampError::Imprint),
    }
}

/// `YYYYMMDDhhmmss[.f]Z`.
fn time(time: &Any) -> Result<Timestamp, StampError> {
    let wrong = || form("its time is none");
    let text = std::str::from_utf8(time.value()).map_err(|_| wrong())?;
    let digits = text.get(..14).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let (Some(digits), Tag::GeneralizedTime) = (digits, time.tag()) else { return Err(wrong()) };
    let fraction = text[14..].strip_suffix('Z').ok_or_else(wrong)?;
    let part = |from: usize, to: usize| &digits[from..to];
    let text = format!(
        "{}-{}-{}T{}:{}:{}{fraction}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    );
    text.parse().map_err(|_| wrong())
}

fn accuracy(info: &Info) -> Option<Duration> {
    let accuracy = info.accuracy.as_ref()?;
    let part = |part: Option<u16>| u64::from(part.unwrap_or(0));
    let micros = part(accuracy.millis) * 1000 + part(accuracy.micros);
    Some(Duration::from_secs(accuracy.seconds.unwrap_or(0)) + Duration::from_micros(micros))
}

/// Checks the one signature, and says whose it is.
fn signature(
    signed: &SignedData,
    content: &[u8],
    time: Timestamp,
    anchors: Option<&Anchors>,
) -> Result<String, StampError> {
    let wrong = |what: &str| StampError::Signature(what.to_owned());
    let [signer] = signed.signer_infos.0.as_slice() else { return Err(wrong("there is not exactly one")) };
    let attributes = signer.signed_attrs.as_ref().ok_or_else(|| wrong("it has no attributes"))?;
    if attribute::<ObjectIdentifier>(attributes, CONTENT_TYPE)? != TST_INFO {
        return Err(wrong("it is of another content"));
    }
    let algorithm = digest_of(signer.digest_alg.oid).ok_or_else(|| wrong("its hash is not known here"))?;
    let own: OctetString = attribute(attributes, MESSAGE_DIGEST)?;
    if own.as_bytes() != digest(algorithm, content).as_ref() {
        return Err(wrong("its hash of the content is another one"));
    }
    let certificates = signed.certificates.iter().flat_map(|set| set.0.iter());
    let certificates: Vec<&Certificate> = certificates
        .filter_map(|choice| match choice {
            CertificateChoices::Certificate(certificate) => Some(certificate),
            CertificateChoices::Other(_) => None,
        })
        .collect();
    let own = certificates.iter().find(|one| is_of(one, signer));
    let own = own.ok_or_else(|| wrong("its certificate is not in it"))?;
    let own_der = CertificateDer::from(own.to_der().map_err(form)?);
    is_named(attributes, &own_der)?;
    stamps_alone(own)?;
    let entity = EndEntityCert::try_from(&own_der).map_err(|error| wrong(&format!("{error:?}")))?;
    // As it was signed: a set.
    let text = attributes.to_der().map_err(form)?;
    let mut ways = ways(signer).into_iter();
    if !ways.any(|way| entity.verify_signature(way, &text, signer.signature.as_bytes()).is_ok()) {
        return Err(wrong("it is not by its certificate's key, or by a method that is not known here"));
    }
    if let Some(anchors) = anchors {
        let others: Vec<_> =
            certificates.iter().filter_map(|one| one.to_der().ok()).map(CertificateDer::from).collect();
        chain(&entity, &others, time, anchors)?;
    }
    Ok(printable(&own.tbs_certificate.subject.to_string()).into_owned())
}

fn chain(
    entity: &EndEntityCert<'_>,
    others: &[CertificateDer<'_>],
    time: Timestamp,
    anchors: &Anchors,
) -> Result<(), StampError> {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let usage = KeyUsage::required(TIME_STAMPING);
    let verified = entity.verify_for_usage(ALL, &anchors.0, others, time, usage, None, None);
    verified.map(drop).map_err(|error| StampError::Chain(format!("{error:?}")))
}

/// RFC 3161, section 2.3: the certificate is for time stamping and nothing else, and says so critically.
pub(super) fn stamps_alone(certificate: &Certificate) -> Result<(), StampError> {
    let wrong = |what: &str| Err(StampError::Chain(format!("{what} (RFC 3161, section 2.3)")));
    match certificate.tbs_certificate.get::<ExtendedKeyUsage>().map_err(form)? {
        Some((true, usage)) if usage.0 == [ID_KP_TIME_STAMPING] => Ok(()),
        Some((false, usage)) if usage.0 == [ID_KP_TIME_STAMPING] => wrong("its purpose is not critical"),
        Some(_) => wrong("it is for other purposes too"),
        None => wrong("it does not say that it is for time stamping"),
    }
}

/// The one value of an attribute.
fn attribute<T>(attributes: &Attributes, of: ObjectIdentifier) -> Result<T, StampError>
where
    T: for<'a> der::Choice<'a> + for<'a> der::DecodeValue<'a>,
{
    find(attributes, of)?.decode_as().map_err(form)
}

fn find(attributes: &Attributes, of: ObjectIdentifier) -> Result<&Any, StampError> {
    let mut found = attributes.iter().filter(|attribute| attribute.oid == of);
    match (found.next().map(|attribute| attribute.values.as_slice()), found.next()) {
        (Some([value]), None) => Ok(value),
        _ => Err(StampError::Signature("an attribute is missing or there twice".to_owned())),
    }
}

/// Whether a certificate is the one that a signature names.
fn is_of(certificate: &Certificate, signer: &SignerInfo) -> bool {
    let own = &certificate.tbs_certificate;
    match &signer.sid {
        SignerIdentifier::IssuerAndSerialNumber(named) => {
            own.issuer == named.issuer && own.serial_number == named.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(named) => {
            own.get::<SubjectKeyIdentifier>().is_ok_and(|own| own.is_some_and(|(_, own)| own == *named))
        }
    }
}

/// Holds the signer's certificate against its hash among the signed attributes: without it another one of the same key would do.
fn is_named(attributes: &Attributes, certificate: &CertificateDer<'_>) -> Result<(), StampError> {
    let hash_is = |algorithm: &'static digest::Algorithm, hash: &OctetString| {
        hash.as_bytes() == digest(algorithm, certificate).as_ref()
    };
    let is_named = match find(attributes, SIGNING_CERTIFICATE_V2) {
        Ok(value) => {
            let named = SigningCertificateV2::from_der(&value.to_der().map_err(form)?).map_err(form)?;
            named.certs.first().is_some_and(|first| {
                let oid = first.algorithm.as_ref().map_or(SHA256, |algorithm| algorithm.oid);
                digest_of(oid).is_some_and(|algorithm| hash_is(algorithm, &first.hash))
            })
        }
        Err(_) => {
            let value = find(attributes, SIGNING_CERTIFICATE)?;
            let named = SigningCertificate::from_der(&value.to_der().map_err(form)?).map_err(form)?;
            // The form of 2001 has no other.
            let sha1 = &digest::SHA1_FOR_LEGACY_USE_ONLY;
            named.certs.first().is_some_and(|first| hash_is(sha1, &first.hash))
        }
    };
    match is_named {
        true => Ok(()),
        false => Err(StampError::Signature("it names another certificate".to_owned())),
    }
}

fn digest_of(oid: ObjectIdentifier) -> Option<&'static digest::Algorithm> {
    match oid {
        SHA256 => Some(&digest::SHA256),
        SHA384 => Some(&digest::SHA384),
        SHA512 => Some(&digest::SHA512),
        _ => None,
    }
}

/// The ways in which a signature may have been made; the certificate's key takes one of them.
fn ways(signer: &SignerInfo) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    use algorithms::{
        ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    };
    let hash = signer.digest_alg.oid;
    match signer.signature_algorithm.oid.to_string().as_str() {
        // RSA, whose hash is the digest's, and RSA with a hash.
        "1.2.840.113549.1.1.1" if hash == SHA256 => vec![RSA_PKCS1_2048_8192_SHA256],
        "1.2.840.113549.1.1.1" if hash == SHA384 => vec![RSA_PKCS1_2048_8192_SHA384],
        "1.2.840.113549.1.1.1" if hash == SHA512 => vec![RSA_PKCS1_2048_8192_SHA512],
        "1.2.840.113549.1.1.11" => vec![RSA_PKCS1_2048_8192_SHA256],
        "1.2.840.113549.1.1.12" => vec![RSA_PKCS1_2048_8192_SHA384],
        "1.2.840.113549.1.1.13" => vec![RSA_PKCS1_2048_8192_SHA512],
        "1.2.840.10045.4.3.2" => vec![ECDSA_P256_SHA256, ECDSA_P384_SHA256],
        "1.2.840.10045.4.3.3" => vec![ECDSA_P256_SHA384, ECDSA_P384_SHA384],
        "1.3.101.112" => vec![ED25519],
        _ => Vec::new(),
    }
}
