//! A public key of tokens, from PEM (RFC 7468) or from its parts.
//!
//! Its kind is part of it: what may be verified with a key follows from the key, never from a
//! token.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::parse::Expected;

/// The fewest bits of an RSA modulus; shorter ones are within reach of who tries.
const RSA_BITS_MIN: usize = 2048;
/// The most; longer ones cost whoever verifies more than whoever signs.
const RSA_BITS_MAX: usize = 8192;
/// The most bytes of an RSA exponent.
const EXPONENT_BYTES_MAX: usize = 4;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The contents of object identifiers, as DER has them.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// A key that signatures are verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Of 2048 to 8192 bits.
    Rsa {
        /// The modulus, without leading zeros.
        modulus: Vec<u8>,
        /// The exponent, without leading zeros.
        exponent: Vec<u8>,
    },
    /// A point of P-256, uncompressed.
    P256(Vec<u8>),
    /// A point of P-384, uncompressed.
    P384(Vec<u8>),
    /// 32 bytes.
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// An RSA key of a modulus and an exponent, most significant byte first.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (modulus, exponent) = (bare(modulus), bare(exponent));
        let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        let bits = modulus.len() * 8 - unused;
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            let range = format!("an RSA key of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits");
            return Err(format!("{range}, this one has {bits}"));
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        let is_fine = exponent.len() <= EXPONENT_BYTES_MAX && exponent != [1];
        if !is_fine || !is_odd(exponent) || !is_odd(modulus) {
            return Err("an RSA key that is one: its numbers are none of RSA".to_owned());
        }
        Ok(Self::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
    }

    /// A point of P-256, its coordinates in 32 bytes each. `None` where these are not that long.
    pub fn p256(x: &[u8], y: &[u8]) -> Option<Self> {
        point(x, y, 32).map(Self::P256)
    }

    /// A point of P-384, its coordinates in 48 bytes each. `None` where these are not that long.
    pub fn p384(x: &[u8], y: &[u8]) -> Option<Self> {
        point(x, y, 48).map(Self::P384)
    }

    /// `None` where these are not 32 bytes.
    pub fn ed25519(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 32).then(|| Self::Ed25519(bytes.to_vec()))
    }

    /// The one key of a PEM text, `PUBLIC KEY` or `RSA PUBLIC KEY`. Line ends may be written as
    /// `\n`, or be missing.
    ///
    /// # Errors
    /// What is expected instead, without a word of the text.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let text = text.replace("\\r", "").replace("\\n", "\n");
        let (label, der) = block(text.trim()).ok_or_else(no_key)?;
        match label {
            "PUBLIC KEY" => from_spki(&der),
            "RSA PUBLIC KEY" => from_pkcs1(&der),
            label if label.ends_with("PRIVATE KEY") => {
                Err("a public key, this is a private one, which belongs nowhere near here: \
                     `openssl pkey -pubout` gives the public one"
                    .to_owned())
            }
            label if label.ends_with("CERTIFICATE") => {
                Err("a public key, this is a certificate: `openssl x509 -pubkey -noout` gives its \
                     key"
                .to_owned())
            }
            _ => Err(no_key()),
        }
    }
}

/// Reads a variable.
pub(super) fn public_key(text: &str) -> Result<PublicKey, Expected> {
    PublicKey::from_pem(text)
}

/// Whether a text is a PEM that anybody may have: none to keep as a secret.
pub(super) fn is_public_pem(text: &str) -> bool {
    let label = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(DASHES));
    label.is_some_and(|(label, _)| label.ends_with("PUBLIC KEY") || label.ends_with("CERTIFICATE"))
}

fn no_key() -> String {
    "one public key as PEM (-----BEGIN PUBLIC KEY-----): RSA, EC on P-256 or P-384, or Ed25519"
        .to_owned()
}

/// Label and content of a text that is one PEM block.
fn block(text: &str) -> Option<(&str, Vec<u8>)> {
    let (label, rest) = text.strip_prefix(BEGIN)?.split_once(DASHES)?;
    let (body, end) = rest.split_once(END)?;
    if end.strip_suffix(DASHES)? != label {
        return None;
    }
    let body: String = body.chars().filter(|char| !char.is_ascii_whitespace()).collect();
    Some((label, STANDARD.decode(body).ok()?))
}

/// `SubjectPublicKeyInfo` (RFC 5280 § 4.1).
fn from_spki(der: &[u8]) -> Result<PublicKey, String> {
    let parts = || {
        let mut whole = Der(der);
        let mut info = Der(whole.last(SEQUENCE)?);
        let mut algorithm = Der(info.next(SEQUENCE)?);
        let bits = info.last(BIT_STRING)?;
        let name = algorithm.next(IDENTIFIER)?;
        // No bit of the last byte is unused.
        Some((name, algorithm, bits.strip_prefix(&[0])?))
    };
    let (name, mut parameters, key) = parts().ok_or_else(no_key)?;
    match name {
        RSA => from_pkcs1(key),
        ED25519 => PublicKey::ed25519(key).ok_or_else(no_key),
        ELLIPTIC => {
            let coordinates = key.strip_prefix(&[4]).map(|point| point.split_at(point.len() / 2));
            let found = coordinates.and_then(|(x, y)| match parameters.last(IDENTIFIER)? {
                P256 => PublicKey::p256(x, y),
                P384 => PublicKey::p384(x, y),
                _ => None,
            });
            found.ok_or_else(|| "a key on the curve P-256 or P-384, uncompressed".to_owned())
        }
        _ => Err(no_key()),
    }
}

/// `RSAPublicKey` (RFC 8017 § A.1.1).
fn from_pkcs1(der: &[u8]) -> Result<PublicKey, String> {
    let parts = || {
        let mut key = Der(Der(der).last(SEQUENCE)?);
        Some((key.next(INTEGER)?, key.last(INTEGER)?))
    };
    let (modulus, exponent) = parts().ok_or_else(no_key)?;
    PublicKey::rsa(modulus, exponent)
}

fn point(x: &[u8], y: &[u8], bytes: usize) -> Option<Vec<u8>> {
    (x.len() == bytes && y.len() == bytes).then(|| [&[4], x, y].concat())
}

/// A number without leading zeros.
fn bare(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// What is left of a text in DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next element, which is of this kind.
    fn next(&mut self, kind: u8) -> Option<&'a [u8]> {
        let (&[found, first], mut rest) = self.0.split_first_chunk::<2>()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let digits = usize::from(first & 0x7f);
            // Two say as much as 64 KiB.
            if !(1..=2).contains(&digits) || rest.len() < digits {
                return None;
            }
            let (written, behind) = rest.split_at(digits);
            length = written.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = behind;
        }
        if found != kind || rest.len() < length {
            return None;
        }
        let (content, rest) = rest.split_at(length);
        self.0 = rest;
        Some(content)
    }

    /// As [`Der::next`], of the last element.
    fn last(&mut self, kind: u8) -> Option<&'a [u8]> {
        self.next(kind).filter(|_| self.0.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! key {
        ($name:literal) => {
            include_str!(concat!("../../tests/fixtures/keys/", $name, ".pem"))
        };
    }

    #[test]
    fn public_keys_are_read() {
        let rsa = PublicKey::from_pem(key!("rsa.pub")).unwrap();
        let PublicKey::Rsa { modulus, exponent } = &rsa else { panic!("{rsa:?}") };
        assert_eq!((modulus.len(), exponent.as_slice()), (256, [1, 0, 1].as_slice()));
        assert_eq!(PublicKey::from_pem(key!("rsa-pkcs1.pub")), Ok(rsa));
        let kinds = [(key!("p256.pub"), 65), (key!("p384.pub"), 97), (key!("ed25519.pub"), 32)];
        for (pem, bytes) in kinds {
            let key = PublicKey::from_pem(pem).unwrap();
            let (PublicKey::P256(found) | PublicKey::P384(found) | PublicKey::Ed25519(found)) =
                &key
            else {
                panic!("{key:?}")
            };
            assert_eq!(found.len(), bytes, "{key:?}");
            // As environments, files and people write it.
            for written in [
                pem.replace('\n', "\\n"),
                pem.replace('\n', "\\r\\n"),
                pem.replace('\n', "\r\n"),
                pem.replace('\n', " "),
                pem.replace('\n', ""),
                format!("\n  {pem}\n"),
            ] {
                assert_eq!(PublicKey::from_pem(&written), Ok(key.clone()), "{written}");
            }
        }
    }

    #[test]
    fn what_is_none_is_said_without_a_word_of_it() {
        let pem = key!("p256.pub");
        let body = pem.lines().nth(1).unwrap();
        let half = pem.replace(body, &body[..40]);
        let longer = pem.replace("-----END", "AAAA\n-----END");
        let twice = format!("{pem}{pem}");
        let other_end = pem.replace("END PUBLIC", "END RSA PUBLIC");
        let spki_as_pkcs1 = key!("rsa.pub").replace(" PUBLIC", " RSA PUBLIC");
        for (text, word) in [
            (key!("rsa-1024.pub"), "2048"),
            (key!("rsa"), "private"),
            (key!("p256"), "private"),
            (key!("ed25519"), "private"),
            (key!("rsa.crt"), "certificate"),
            (key!("p521.pub"), "P-384"),
            (key!("secp256k1.pub"), "P-384"),
            (key!("ed448.pub"), "one public key"),
            ("nonsense", "one public key"),
            ("-----BEGIN PUBLIC KEY-----", "one public key"),
            ("-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----", "one public key"),
            ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", "one public key"),
            ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----", "one"),
            (body, "one public key"),
            (&half, "one public key"),
            (&longer, "one public key"),
            (&twice, "one public key"),
            (&other_end, "one public key"),
            (&spki_as_pkcs1, "one public key"),
        ] {
            let error = PublicKey::from_pem(text).unwrap_err();
            assert!(error.contains(word), "{error}: {text}");
            let said = text.lines().filter(|line| line.len() > 20 && !line.starts_with('-'));
            assert!(said.into_iter().all(|line| !error.contains(line)), "{error}");
        }
    }

    #[test]
    fn cut_anywhere_it_is_no_key_and_does_no_harm() {
        for pem in [key!("rsa.pub"), key!("p384.pub"), key!("ed25519.pub"), key!("rsa-pkcs1.pub")] {
            let (label, der) = block(pem.trim()).unwrap();
            for cut in 0..der.len() {
                let read = if label == "PUBLIC KEY" { from_spki } else { from_pkcs1 };
                assert!(read(&der[..cut]).is_err(), "{label} of {cut} bytes");
            }
            for at in 0..der.len().min(64) {
                for byte in [0, 1, 0x7f, 0x80, 0x82, 0x84, 0xff] {
                    let mut changed = der.clone();
                    changed[at] = byte;
                    let _ = from_spki(&changed);
                    let _ = from_pkcs1(&changed);
                }
            }
        }
    }

    #[test]
    fn what_anybody_may_have_is_no_secret() {
        for pem in [key!("rsa.pub"), key!("rsa-pkcs1.pub"), key!("p256.pub"), key!("rsa.crt")] {
            assert!(is_public_pem(pem), "{pem}");
        }
        for text in [key!("rsa"), "a secret of thirty-two bytes, now", "-----BEGIN "] {
            assert!(!is_public_pem(text), "{text}");
        }
    }
}
