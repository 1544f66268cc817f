//! Who may send: the origin of the page, and JSON Web Tokens. Pure but for [`Auth::load`], which reads key files.
//!
//! Optional: without a list of origins every origin may send, without a key no token is asked for.
//!
//! **Origins** keep out the pages of others, which make their visitors' browsers connect: a browser always says the
//! origin of its page (RFC 6455 4.1) and a page cannot change it. They keep out nobody who writes the header himself; that
//! is what tokens are for. Back ends are no browsers and send no origin, or one without a scheme: no origin is let
//! in, and one without a scheme is compared without it. See `OriginPattern`.
//!
//! **Tokens** are RFC 7519 in compact form. A key has exactly one algorithm (HS256: the secret; RS256 or ES256: by the kind
//! of public key), and a token is only ever checked with keys of the algorithm that it names, so that a public key never
//! serves as a secret and `none` is never an algorithm. `exp` must be there; `exp` and `nbf` are checked with
//! [`LEEWAY`]; `iss` and `aud` are not looked at, the key says who issued it. Header fields that must be understood
//! (`crit`) are none of ours: refused.
//!
//! What a token says beyond that is taken over only from its claim `rtcStats`, see [`Claims`]. Tokens and secrets never
//! reach a log, a dump or an answer.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::config::AuthConfig;
use crate::handshake::Upgrade;

/// How far the clocks of whoever issues tokens and ours may be apart.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// Public keys in one file: the present ones, and the next ones while they are exchanged.
const PUBLIC_KEYS_MAX: usize = 16;
/// RFC 7518 3.2: a secret must not be shorter than the digest.
const SECRET_BYTES_MIN: usize = 32;

/// Why a key file is of no use. Never shows what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The secret is empty: everybody knows that one.
    #[error("{path} has no secret in it")]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// Not PEM, no public key, or one of another kind.
    #[error(
        "{path} has something else than 1 to {PUBLIC_KEYS_MAX} PUBLIC KEY blocks (PEM) of RSA or P-256 in it"
    )]
    NoPublicKey {
        /// Which file.
        path: PathBuf,
    },
}

/// Why somebody may not send. The text goes into the close frame and never repeats what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// `auth.allowed_origins`
    #[error("origin is not allowed")]
    Origin,
    /// Neither query parameter nor header.
    #[error("token is missing")]
    Missing,
    /// Not three parts of Base64 with JSON in them, or `exp` is missing.
    #[error("token is malformed")]
    Malformed,
    /// There is no key for what it names.
    #[error("token has an algorithm that is not accepted")]
    Algorithm,
    /// Not signed with one of our keys.
    #[error("token has a wrong signature")]
    Signature,
    /// `exp`
    #[error("token has expired")]
    Expired,
    /// `nbf`
    #[error("token is not valid yet")]
    NotYet,
}

/// What a token says about the session: the members of its claim `rtcStats`, as they are. Goes into the dump's first line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<serde_json::Value>,
    /// Its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<serde_json::Value>,
    /// The conference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conference: Option<serde_json::Value>,
}

/// Decides who may send.
#[derive(Debug, Default)]
pub struct Auth {
    /// Empty: all origins.
    origins: Vec<OriginPattern>,
    /// Empty: no tokens are asked for.
    keys: Vec<Key>,
    weak_secret: bool,
}

impl Auth {
    /// Reads the key files.
    ///
    /// Blocking: at most two small files.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn load(config: &AuthConfig) -> Result<Self, KeyError> {
        let mut auth = Self {
            origins: config.allowed_origins.iter().map(|text| OriginPattern::new(text)).collect(),
            ..Self::default()
        };
        if let Some(path) = &config.jwt_secret_path {
            let bytes = read(path)?;
            let secret = without_line_end(&bytes);
            if secret.is_empty() {
                return Err(KeyError::Empty { path: path.clone() });
            }
            auth.weak_secret = secret.len() < SECRET_BYTES_MIN;
            auth.keys.push(Key::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret)));
        }
        if let Some(path) = &config.jwt_public_key_path {
            let no_key = || KeyError::NoPublicKey { path: path.clone() };
            auth.keys.append(&mut public_keys(&read(path)?).ok_or_else(no_key)?);
        }
        Ok(auth)
    }

    /// Whether the secret is shorter than RFC 7518 demands. It works, but can be guessed from one token.
    #[must_use]
    pub fn has_weak_secret(&self) -> bool {
        self.weak_secret
    }

    /// Keys, in all.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// May whoever asks for this upgrade send? Returns what its token says about the session.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, upgrade: &Upgrade, now: SystemTime) -> Result<Option<Claims>, Denied> {
        let origin = upgrade.origin.as_str();
        let is_known = |pattern: &OriginPattern| pattern.matches(origin);
        if !self.origins.is_empty() && !origin.is_empty() && !self.origins.iter().any(is_known) {
            return Err(Denied::Origin);
        }
        if self.keys.is_empty() {
            return Ok(None);
        }
        let token = upgrade.token.as_ref().ok_or(Denied::Missing)?;
        self.verify(token.reveal(), now)
    }

    fn verify(&self, token: &str, now: SystemTime) -> Result<Option<Claims>, Denied> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Denied::Malformed)?;
        let header: Header = decode(header)?;
        if header.crit.is_some() {
            return Err(Denied::Malformed);
        }
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| Denied::Malformed)?;
        let mut candidates = self.keys.iter().filter(|key| key.algorithm() == header.alg).peekable();
        candidates.peek().ok_or(Denied::Algorithm)?;
        if !candidates.any(|key| key.has_signed(signed.as_bytes(), &signature)) {
            return Err(Denied::Signature);
        }
        // Only from here on it is somebody's we know.
        let payload: Payload = decode(payload)?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.as_secs_f64() >= payload.exp + LEEWAY.as_secs_f64() {
            return Err(Denied::Expired);
        }
        if payload.nbf.is_some_and(|nbf| now.as_secs_f64() < nbf - LEEWAY.as_secs_f64()) {
            return Err(Denied::NotYet);
        }
        Ok(payload.rtc_stats.filter(|claims| *claims != Claims::default()))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Payload {
    /// Seconds since 1970, possibly with a fraction (RFC 7519 2, NumericDate).
    exp: f64,
    nbf: Option<f64>,
    #[serde(rename = "rtcStats")]
    rtc_stats: Option<Claims>,
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, Denied> {
    let json = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Denied::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Denied::Malformed)
}

/// A key and, with it, its algorithm.
enum Key {
    Hs256(hmac::Key),
    Rs256(Box<[u8]>),
    Es256(Box<[u8]>),
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Rs256(key) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signature).is_ok()
            }
            Self::Es256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature).is_ok()
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.algorithm())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })
}

/// One line end at the end of a secret was put there by an editor.
fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// All `PUBLIC KEY` blocks; `None` when there is none, or one is of no use.
fn public_keys(pem: &[u8]) -> Option<Vec<Key>> {
    let mut keys = Vec::new();
    for info in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
        keys.push(public_key(info.ok()?.as_ref())?);
    }
    (1..=PUBLIC_KEYS_MAX).contains(&keys.len()).then_some(keys)
}

/// The key in a SubjectPublicKeyInfo (RFC 5280 4.1.2.7): an algorithm and a bit string, both taken literally.
fn public_key(info: &[u8]) -> Option<Key> {
    /// rsaEncryption with NULL (RFC 3279 2.3.1).
    const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    /// id-ecPublicKey on prime256v1 (RFC 5480 2.1.1).
    const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    let (content, rest) = der_value(SEQUENCE, info)?;
    let (algorithm, behind) = der_value(SEQUENCE, content)?;
    let (bits, behind) = der_value(BIT_STRING, behind)?;
    let (0, key) = bits.split_first()? else { return None };
    if !rest.is_empty() || !behind.is_empty() {
        return None;
    }
    match algorithm {
        RSA => Some(Key::Rs256(key.into())),
        // ring takes the uncompressed form alone.
        P256 if key.first() == Some(&4) => Some(Key::Es256(key.into())),
        _ => None,
    }
}

/// Takes one value of that tag from the front (X.690 8.1); lengths above 65,535 are no key of ours.
fn der_value(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match *bytes {
        [found, len @ 0..=0x7f, ref rest @ ..] if found == tag => (usize::from(len), rest),
        [found, 0x81, len, ref rest @ ..] if found == tag => (usize::from(len), rest),
        [found, 0x82, high, low, ref rest @ ..] if found == tag => {
            (usize::from(u16::from_be_bytes([high, low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// One item of `auth.allowed_origins`; upper and lower case are the same.
///
/// `https://meet.example.org` is that origin alone, `https://*.example.org` every name below `example.org` (not itself),
/// `*` as the host every host. A port that is not named must not be there (browsers leave the usual ones out), `:*` is
/// any. Without a scheme the pattern matches every scheme. An origin without a scheme, which no browser sends, is
/// compared with host and port alone. `null`, the origin of sandboxed frames and local files, must be listed.
#[derive(Debug)]
struct OriginPattern {
    scheme: Option<String>,
    host: String,
    port: Option<String>,
}

impl OriginPattern {
    fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let (scheme, host, port) = origin_parts(text.trim_end_matches('/'));
        Self { scheme: scheme.map(str::to_owned), host: host.to_owned(), port: port.map(str::to_owned) }
    }

    fn matches(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        let (scheme, host, port) = origin_parts(&origin);
        let scheme_fits = scheme.is_none() || self.scheme.is_none() || scheme == self.scheme.as_deref();
        let port_fits = self.port.as_deref() == Some("*") || self.port.as_deref() == port;
        let host_fits = match self.host.strip_prefix('*') {
            Some("") => true,
            Some(below) => host.strip_suffix(below).is_some_and(|name| !name.is_empty()),
            None => self.host == host,
        };
        scheme_fits && port_fits && host_fits
    }
}

/// Scheme, host and port. The port is what stands behind the last colon outside of an IPv6 address's brackets.
fn origin_parts(origin: &str) -> (Option<&str>, &str, Option<&str>) {
    let (scheme, rest) = match origin.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, origin),
    };
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (scheme, host, Some(port)),
        Some(_) | None => (scheme, rest, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, HeadStatus, parse_head};
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    fn hs256_auth() -> Auth {
        let key = Key::Hs256(hmac::Key::new(hmac::HMAC_SHA256, SECRET));
        Auth { origins: Vec::new(), keys: vec![key], weak_secret: false }
    }

    fn unsigned(header: &str, payload: &str) -> String {
        format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(header.as_bytes()),
            BASE64URL_NOPAD.encode(payload.as_bytes())
        )
    }

    fn signed(secret: &[u8], header: &str, payload: &str) -> String {
        let text = unsigned(header, payload);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        format!("{text}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    }

    /// Times are checked with the leeway, and `exp` must be there.
    #[test]
    fn times() {
        for (payload, expected) in [
            (r#"{"exp":1000001}"#, Ok(None)),
            (r#"{"exp":999971}"#, Ok(None)),
            (r#"{"exp":999970}"#, Err(Denied::Expired)),
            (r#"{"exp":999970.5}"#, Ok(None)),
            (r#"{"exp":-1}"#, Err(Denied::Expired)),
            (r#"{"exp":1e300}"#, Ok(None)),
            (r#"{"exp":1000001,"nbf":1000030}"#, Ok(None)),
            (r#"{"exp":1000001,"nbf":1000031}"#, Err(Denied::NotYet)),
            ("{}", Err(Denied::Malformed)),
            (r#"{"exp":null}"#, Err(Denied::Malformed)),
            (r#"{"exp":"1000001"}"#, Err(Denied::Malformed)),
            (r#"{"exp":1000001,"exp":1000002}"#, Err(Denied::Malformed)),
            ("[]", Err(Denied::Malformed)),
            ("", Err(Denied::Malformed)),
        ] {
            assert_eq!(hs256_auth().verify(&signed(SECRET, HS256, payload), now()), expected, "{payload}");
        }
    }

    /// The key decides the algorithm; what the token says only chooses among our keys.
    #[test]
    fn algorithms_and_signatures() {
        let good = r#"{"exp":1000001}"#;
        let tail = format!("{}.", unsigned(r#"{"alg":"none"}"#, good));
        for (token, expected) in [
            (signed(SECRET, HS256, good), Ok(None)),
            (signed(b"another secret", HS256, good), Err(Denied::Signature)),
            (signed(SECRET, r#"{"alg":"RS256"}"#, good), Err(Denied::Algorithm)),
            (signed(SECRET, r#"{"alg":"hs256"}"#, good), Err(Denied::Algorithm)),
            (signed(SECRET, r#"{"alg":"HS512"}"#, good), Err(Denied::Algorithm)),
            (signed(SECRET, r#"{"alg":"HS256","crit":["exp"]}"#, good), Err(Denied::Malformed)),
            (signed(SECRET, r#"{"typ":"JWT"}"#, good), Err(Denied::Malformed)),
            (tail, Err(Denied::Algorithm)),
            (unsigned(HS256, good), Err(Denied::Malformed)),
            (format!("{}.", unsigned(HS256, good)), Err(Denied::Signature)),
            (format!("{}=", signed(SECRET, HS256, good)), Err(Denied::Malformed)),
            (format!("x.{}", signed(SECRET, HS256, good)), Err(Denied::Malformed)),
            (String::new(), Err(Denied::Malformed)),
            ("..".into(), Err(Denied::Malformed)),
        ] {
            assert_eq!(hs256_auth().verify(&token, now()), expected, "{token}");
        }
    }

    /// ES256 with a key from PEM; its public key is no secret for HS256.
    #[test]
    fn public_keys_from_pem() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            data_encoding::BASE64.encode(&pem)
        );
        let auth = Auth { keys: public_keys(pem.as_bytes()).unwrap(), ..Auth::default() };
        let random = SystemRandom::new();
        let signer =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der(), &random)
                .unwrap();
        let text = unsigned(r#"{"alg":"ES256"}"#, r#"{"exp":1000001}"#);
        let signature = signer.sign(&random, text.as_bytes()).unwrap();
        let token = format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()));
        assert_eq!(auth.verify(&token, now()), Ok(None));
        let other = Auth {
            keys: public_keys(pem.replace('A', "B").as_bytes()).unwrap_or_default(),
            ..Auth::default()
        };
        assert!(other.verify(&token, now()).is_err());
        let confused = signed(pem.as_bytes(), HS256, r#"{"exp":1000001}"#);
        assert_eq!(auth.verify(&confused, now()), Err(Denied::Algorithm));
        assert_eq!(public_keys(pem.repeat(2).as_bytes()).unwrap().len(), 2);
        assert_eq!(format!("{auth:?}").matches("Key(ES256)").count(), 1);
    }

    #[test]
    fn what_is_no_public_key() {
        let pair = rcgen::KeyPair::generate().unwrap();
        for pem in [
            String::new(),
            "secret".into(),
            pair.serialize_pem(),
            "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n".into(),
            "-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n".into(),
        ] {
            assert!(public_keys(pem.as_bytes()).is_none(), "{pem}");
        }
        for cut in [&b""[..], b"\x30", b"\x30\x05\x30", b"\x30\x82\xff\xff", b"\x30\x84\0\0\0\0"] {
            assert!(public_key(cut).is_none(), "{cut:?}");
        }
    }

    /// Only the three members are taken over, whatever they are.
    #[test]
    fn claims() {
        let of = |rtc_stats: &str| {
            let payload = format!(r#"{{"exp":1000001,"sub":"x","rtcStats":{rtc_stats}}}"#);
            let claims = hs256_auth().verify(&signed(SECRET, HS256, &payload), now()).unwrap();
            claims.map(|claims| serde_json::to_string(&claims).unwrap())
        };
        let all = r#"{"user":"u","session":{"id":1},"conference":["c"]}"#;
        assert_eq!(of(all).as_deref(), Some(all));
        assert_eq!(of("{\"user\":\n \"u\\n\",\"more\":1,\"session\":null}").unwrap(), r#"{"user":"u\n"}"#);
        assert_eq!(of("{}"), None);
        assert_eq!(of("null"), None);
    }

    #[track_caller]
    fn check_origin(pattern: &str, allowed: &[&str], refused: &[&str]) {
        let pattern = OriginPattern::new(pattern);
        for origin in allowed {
            assert!(pattern.matches(origin), "{origin} for {pattern:?}");
        }
        for origin in refused {
            assert!(!pattern.matches(origin), "{origin} for {pattern:?}");
        }
    }

    #[test]
    fn origins() {
        check_origin(
            "https://meet.example.org",
            &["https://meet.example.org", "HTTPS://Meet.Example.Org", "meet.example.org"],
            &[
                "http://meet.example.org",
                "https://meet.example.org:8443",
                "https://meet.example.org.evil.example",
                "https://evil.example/https://meet.example.org",
                "https://xmeet.example.org",
                "null",
                "meet.example.org.",
            ],
        );
        check_origin(
            "https://*.example.org",
            &["https://a.example.org", "https://a.b.example.org", "jvb.example.org"],
            &["https://example.org", "https://.example.org", "https://aexample.org", "http://a.example.org"],
        );
        check_origin(
            "*.example.org",
            &["https://a.example.org", "http://a.example.org", "a.example.org"],
            &[],
        );
        check_origin("https://h:8443", &["https://h:8443", "h:8443"], &["https://h", "https://h:443"]);
        check_origin("https://h:*", &["https://h:8443", "https://h"], &["https://hh"]);
        check_origin("https://[2001:db8::1]", &["https://[2001:db8::1]"], &["https://[2001:db8::2]"]);
        check_origin("https://[::1]:80", &["https://[::1]:80"], &["https://[::1]"]);
        check_origin("*", &["https://any.example", "null"], &["https://any.example:444"]);
        check_origin("null", &["null"], &["https://nul"]);
    }

    /// No origin is let in, any other must be listed; an empty list lets everybody in.
    #[test]
    fn the_list_of_origins() {
        let check = |list: &[&str], origin: &str| {
            let config = AuthConfig {
                allowed_origins: list.iter().map(|item| (*item).to_owned()).collect(),
                ..AuthConfig::default()
            };
            let head = format!(
                "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{origin}\r\n"
            );
            let status = parse_head(head.as_bytes(), &HeadLimits { bytes_max: 8192, headers_max: 64 });
            let HeadStatus::Complete { head, .. } = status else { panic!("no head") };
            Auth::load(&config).unwrap().check(&crate::handshake::accept(&head).unwrap(), now())
        };
        let list = ["https://a.example", "https://b.example"];
        assert_eq!(check(&[], "Origin: https://evil.example\r\n"), Ok(None));
        assert_eq!(check(&list, "Origin: https://b.example\r\n"), Ok(None));
        assert_eq!(check(&list, "Origin: https://evil.example\r\n"), Err(Denied::Origin));
        assert_eq!(check(&list, "Origin: null\r\n"), Err(Denied::Origin));
        assert_eq!(check(&list, ""), Ok(None));
    }
}
